"""Every answer is true to the vendors' machine-readable specifications."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from services.simulator import elevenlabs_data, retell_data

RETELL = "retell-derived-sdk6.2.13.openapi.json"
ELEVENLABS = "elevenlabs-2026-08-22.openapi.json"
FUTURE_VALUES = retell_data.FUTURE_VALUES | elevenlabs_data.FUTURE_VALUES


@functools.cache
def specification(name: str) -> dict[str, Any]:
    checkout = Path(__file__).parents[3]
    folder = Path(os.environ.get("CALLBOARD_OPENAPI_DIR", checkout.parent / "shared" / "openapi"))
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not in {folder} (set CALLBOARD_OPENAPI_DIR)")
    document: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return document


def leaves(error: ValidationError) -> Iterator[ValidationError]:
    """The innermost reasons: of a union, those of the alternative that fits best."""
    if not error.context:
        yield error
        return
    by_branch: dict[Any, list[ValidationError]] = {}
    for inner in error.context:
        by_branch.setdefault(inner.schema_path[0], []).append(inner)
    best = min(
        by_branch.values(), key=lambda found: (sum("const" in e.schema_path for e in found), len(found))
    )
    for inner in best:
        yield from leaves(inner)


@functools.cache
def validator(name: str, schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "components": specification(name)["components"]})


def assert_true_to(name: str, schema: dict[str, Any], data: Any) -> None:
    wrong = [
        f"{error.json_path}: {error.message[:300]}"
        for outer in validator(name, json.dumps(schema)).iter_errors(data)
        for error in leaves(outer)
        if not (isinstance(error.instance, str) and error.instance in FUTURE_VALUES)
    ]
    assert not wrong, "\n".join(wrong[:10])


def answer_schema(name: str, method: str, path: str, status: int) -> dict[str, Any]:
    responses = specification(name)["paths"][path][method.lower()]["responses"]
    schema: dict[str, Any] = responses[str(status)]["content"]["application/json"]["schema"]
    return schema


def check(name: str, response: httpx.Response, path: str) -> Any:
    """Check an answer against the specification's route; returns its JSON."""
    schema = answer_schema(name, response.request.method, path, response.status_code)
    data = response.json()
    assert_true_to(name, schema, data)
    return data


def reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


async def test_the_check_sees_what_is_wrong(retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient) -> None:
    llms = (await retell.get("/v2/list-retell-llms")).json()
    llms["items"][-1]["general_tools"][0]["type"] = "no_such_tool"
    with pytest.raises(AssertionError, match=r"general_tools\[0\]"):
        assert_true_to(RETELL, reference("LlmListResponse"), llms)
    agent_id = (await elevenlabs.get("/v1/convai/agents")).json()["agents"][0]["agent_id"]
    agent = (await elevenlabs.get(f"/v1/convai/agents/{agent_id}")).json()
    agent["conversation_config"]["tts"]["stability"] = 7
    with pytest.raises(AssertionError, match="stability"):
        assert_true_to(ELEVENLABS, reference("GetAgentResponseModel"), agent)


async def test_retell_lists_and_details(retell: httpx.AsyncClient) -> None:
    listed = check(RETELL, await retell.post("/v2/list-agents?limit=100", json={}), "/v2/list-agents")
    assert len(listed["items"]) == 24
    for item in listed["items"]:
        agent_id = item["agent_id"]
        detail = check(RETELL, await retell.get(f"/get-agent/{agent_id}"), "/get-agent/{agent_id}")
        versions = await retell.get(f"/list-agent-versions/{agent_id}")
        newest = check(RETELL, versions, "/list-agent-versions/{agent_id}")["items"][0]
        assert newest["version"] == detail["version"]
        assert item["user_modified_timestamp"] >= detail["last_modification_timestamp"]
    for noun, key in (("retell-llm", "llm_id"), ("conversation-flow", "conversation_flow_id")):
        listed = check(RETELL, await retell.get(f"/v2/list-{noun}s?limit=100"), f"/v2/list-{noun}s")
        assert listed["items"]
        for item in listed["items"]:
            detail = await retell.get(f"/get-{noun}/{item[key]}")
            assert check(RETELL, detail, f"/get-{noun}/{{{key}}}") == item


async def test_retell_account_and_voices(retell: httpx.AsyncClient) -> None:
    for path in ("/get-api-key-info", "/get-concurrency", "/list-voices", "/list-knowledge-bases"):
        check(RETELL, await retell.get(path), path)
    check(RETELL, await retell.get("/get-voice/cartesia-Léa"), "/get-voice/{voice_id}")


async def test_retell_previous_routes_answer_plain_arrays(retell: httpx.AsyncClient) -> None:
    for path, name in (
        ("/list-agents", "AgentResponse"),
        ("/list-retell-llms", "LlmResponse"),
        ("/list-conversation-flows", "ConversationFlowResponse"),
    ):
        data = (await retell.get(path)).json()
        assert data
        assert_true_to(RETELL, {"type": "array", "items": reference(name)}, data)
    agent_id = (await retell.get("/list-agents")).json()[0]["agent_id"]
    versions = (await retell.get(f"/get-agent-versions/{agent_id}")).json()
    assert_true_to(RETELL, {"type": "array", "items": reference("AgentResponse")}, versions)


async def test_retell_writes(retell: httpx.AsyncClient) -> None:
    llm = check(
        RETELL, await retell.post("/create-retell-llm", json={"general_prompt": "Hi"}), "/create-retell-llm"
    )
    engine = {"type": "retell-llm", "llm_id": llm["llm_id"]}
    body = {"response_engine": engine, "voice_id": "openai-Alloy", "agent_name": "New"}
    agent = check(RETELL, await retell.post("/create-agent", json=body), "/create-agent")
    path = f"/update-agent/{agent['agent_id']}"
    changed = check(RETELL, await retell.patch(path, json={"voice_speed": 1.25}), "/update-agent/{agent_id}")
    assert changed["voice_speed"] == 1.25
    assert changed["last_modification_timestamp"] > agent["last_modification_timestamp"]
    version = await retell.post(f"/create-agent-version/{agent['agent_id']}", json={"base_version": 0})
    check(RETELL, version, "/create-agent-version/{agent_id}")
    assert version.json()["base_version"] == 0


@pytest.mark.parametrize("status", [400, 401, 402, 404, 422, 429, 500])
async def test_retell_error_bodies(simulator: Any, retell: httpx.AsyncClient, status: int) -> None:
    await simulator.fault(f"{status}:retell")
    response = await retell.get("/get-api-key-info")
    assert response.status_code == status
    check(RETELL, response, "/get-api-key-info")


async def test_elevenlabs_lists_and_details(elevenlabs: httpx.AsyncClient) -> None:
    root = "/v1/convai"
    listed = check(ELEVENLABS, await elevenlabs.get(f"{root}/agents?page_size=100"), f"{root}/agents")
    assert len(listed["agents"]) == 24
    unversioned = 0
    for item in listed["agents"]:
        path = f"{root}/agents/{item['agent_id']}"
        agent = check(ELEVENLABS, await elevenlabs.get(path), f"{root}/agents/{{agent_id}}")
        branches = await elevenlabs.get(f"{path}/branches")
        found = check(ELEVENLABS, branches, f"{root}/agents/{{agent_id}}/branches")["results"]
        if agent["version_id"] is None:
            unversioned += 1
            assert found == []
            continue
        branch = await elevenlabs.get(f"{path}/branches/{found[0]['id']}")
        check(ELEVENLABS, branch, f"{root}/agents/{{agent_id}}/branches/{{branch_id}}")
        version = await elevenlabs.get(f"{path}/versions/{agent['version_id']}")
        check(ELEVENLABS, version, f"{root}/agents/{{agent_id}}/versions/{{version_id}}")
    assert unversioned
    ids = ",".join(item["agent_id"] for item in listed["agents"][:2]) + ",nobody"
    summaries = await elevenlabs.get(f"{root}/agents/summaries?agent_ids={ids}")
    check(ELEVENLABS, summaries, f"{root}/agents/summaries")


async def test_elevenlabs_library_and_user(elevenlabs: httpx.AsyncClient) -> None:
    root = "/v1/convai"
    tools = check(ELEVENLABS, await elevenlabs.get(f"{root}/tools?page_size=100"), f"{root}/tools")["tools"]
    for tool in tools:
        detail = await elevenlabs.get(f"{root}/tools/{tool['id']}")
        assert check(ELEVENLABS, detail, f"{root}/tools/{{tool_id}}") == tool
    documents = await elevenlabs.get(f"{root}/knowledge-base")
    for item in check(ELEVENLABS, documents, f"{root}/knowledge-base")["documents"]:
        detail = await elevenlabs.get(f"{root}/knowledge-base/{item['id']}")
        check(ELEVENLABS, detail, f"{root}/knowledge-base/{{documentation_id}}")
    text = await elevenlabs.post(f"{root}/knowledge-base/text", json={"name": "FAQ", "text": "<p>…</p>"})
    check(ELEVENLABS, text, f"{root}/knowledge-base/text")
    check(ELEVENLABS, await elevenlabs.get("/v1/user"), "/v1/user")


async def test_what_accounts_have_none_of(retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient) -> None:
    path = "/v2/list-conversation-flow-components"
    assert check(RETELL, await retell.get(path), path)["items"] == []
    for path, items in (
        ("/v1/convai/mcp-servers", "mcp_servers"),
        ("/v1/convai/secrets", "secrets"),
        ("/v1/workspace/webhooks", "webhooks"),
        ("/v1/workspace/auth-connections", "auth_connections"),
    ):
        assert check(ELEVENLABS, await elevenlabs.get(path), path)[items] == []


async def test_retell_numbers_are_bound_to_agents(retell: httpx.AsyncClient) -> None:
    listed = check(RETELL, await retell.get("/v2/list-phone-numbers"), "/v2/list-phone-numbers")["items"]
    number, agent = listed[0]["phone_number"], (await retell.get("/list-agents")).json()[0]["agent_id"]
    bound = [{"agent_id": agent, "weight": 0.5, "agent_version": 0}, {"agent_id": agent, "weight": 0.5}]
    path = f"/update-phone-number/{number}"
    found = check(RETELL, await retell.patch(path, json={"inbound_agents": bound}), _NUMBER)
    assert found["inbound_agents"] == bound
    for wrong in ([{"agent_id": "nobody", "weight": 1}], bound[:1]):
        assert (await retell.patch(path, json={"inbound_agents": wrong})).status_code == 400
    assert (await retell.patch("/update-phone-number/+1", json={})).status_code == 404


_NUMBER = "/update-phone-number/{phone_number}"


async def test_elevenlabs_usage_and_voices(simulator: Any, elevenlabs: httpx.AsyncClient) -> None:
    plan = "/v1/user/subscription"
    assert check(ELEVENLABS, await elevenlabs.get(plan), plan)["next_character_count_reset_unix"] > 0
    await simulator.usage("elevenlabs", character_count=5, count=3)
    assert check(ELEVENLABS, await elevenlabs.get(plan), plan)["character_count"] == 5
    live = "/v1/convai/analytics/live-count"
    assert check(ELEVENLABS, await elevenlabs.get(live), live) == {"count": 3}
    first = check(ELEVENLABS, await elevenlabs.get("/v2/voices?page_size=3"), "/v2/voices")
    assert (len(first["voices"]), first["has_more"]) == (3, True)
    rest = await elevenlabs.get(f"/v2/voices?page_size=3&next_page_token={first['next_page_token']}")
    assert not check(ELEVENLABS, rest, "/v2/voices")["has_more"]
    voice = first["voices"][0]
    ids = await elevenlabs.get(f"/v2/voices?voice_ids={voice['voice_id']}&voice_ids=nobody")
    assert check(ELEVENLABS, ids, "/v2/voices")["voices"] == [voice]
    found = await elevenlabs.get(f"/v1/voices/{voice['voice_id']}")
    assert check(ELEVENLABS, found, "/v1/voices/{voice_id}") == voice
    assert (await elevenlabs.get("/v1/voices/nobody")).status_code == 404
    for wrong in ("page_size=101", "&".join(["voice_ids=x"] * 101)):
        assert (await elevenlabs.get(f"/v2/voices?{wrong}")).status_code == 422


async def test_elevenlabs_writes(elevenlabs: httpx.AsyncClient) -> None:
    root = "/v1/convai/agents"
    created = await elevenlabs.post(f"{root}/create", json={"name": "New", "conversation_config": {}})
    path = f"{root}/{check(ELEVENLABS, created, f'{root}/create')['agent_id']}"
    first = check(ELEVENLABS, await elevenlabs.get(path), f"{root}/{{agent_id}}")
    changed = check(ELEVENLABS, await elevenlabs.patch(path, json={"name": "Newer"}), f"{root}/{{agent_id}}")
    assert changed["name"] == "Newer"
    assert changed["version_id"] != first["version_id"]
    check(ELEVENLABS, await elevenlabs.post(f"{path}/duplicate", json={}), f"{root}/{{agent_id}}/duplicate")
    body = {"parent_version_id": first["version_id"], "name": "trial", "description": ""}
    branch = await elevenlabs.post(f"{path}/branches", json=body)
    check(ELEVENLABS, branch, f"{root}/{{agent_id}}/branches")


async def test_elevenlabs_validation_errors(elevenlabs: httpx.AsyncClient) -> None:
    for path in ("/v1/convai/agents", "/v1/convai/knowledge-base"):
        for size in ("101", "0", "many"):
            response = await elevenlabs.get(f"{path}?page_size={size}")
            assert response.status_code == 422
            check(ELEVENLABS, response, path)
    response = await elevenlabs.post("/v1/convai/agents/create", json={"name": "x"})
    check(ELEVENLABS, response, "/v1/convai/agents/create")
