"""State and rules of the simulated vendors: versions, paging, errors, determinism."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.simulator import RunningSimulator, running_simulator


async def retell_agents(retell: httpx.AsyncClient) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await retell.post("/v2/list-agents?limit=1000")).json()["items"]
    return listed


async def find(retell: httpx.AsyncClient, *, published: bool, engine: str = "retell-llm") -> dict[str, Any]:
    """The newest version of an agent that is (not) published and has a published version."""
    for item in await retell_agents(retell):
        agent: dict[str, Any] = (await retell.get(f"/get-agent/{item['agent_id']}")).json()
        fits = agent["is_published"] is published and (
            published or agent["version"] > 0 or engine == "custom-llm"
        )
        if fits and agent["response_engine"]["type"] == engine:
            return agent
    raise AssertionError("no such agent among the generated ones")


async def test_two_starts_with_one_seed_are_equal_to_the_byte() -> None:
    async def everything(seed: int) -> list[bytes]:
        async with running_simulator(agents=9, seed=seed) as simulator, httpx.AsyncClient() as client:
            headers = {"authorization": f"Bearer {simulator.key}", "xi-api-key": simulator.key}
            urls = [f"{simulator.retell_url}/list-agents", f"{simulator.retell_url}/list-retell-llms"]
            for agent in await simulator.agents("elevenlabs"):
                urls.append(f"{simulator.elevenlabs_url}/v1/convai/agents/{agent['agent_id']}")
            return [(await client.get(url, headers=headers)).content for url in urls]

    first = await everything(3)
    assert first == await everything(3)
    assert first != await everything(4)


async def test_agents_are_counted_over_both_vendors() -> None:
    async with running_simulator(agents=7) as simulator:
        assert len(await simulator.agents("retell")) == 4
        assert len(await simulator.agents("elevenlabs")) == 3
    async with running_simulator(agents=0) as simulator:
        assert await simulator.agents() == []


async def test_the_generated_agents_are_varied(
    simulator: RunningSimulator, retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient
) -> None:
    engines, languages, tools, ahead = set(), set(), set(), 0
    for item in await retell_agents(retell):
        agent = (await retell.get(f"/get-agent/{item['agent_id']}")).json()
        engines.add(agent["response_engine"]["type"])
        languages.add(str(agent["language"]))
        ahead += agent["version"] > 0 and not agent["is_published"]
    for llm in (await retell.get("/v2/list-retell-llms?limit=1000")).json()["items"]:
        tools.add(len(llm["general_tools"]))
    names = [agent["name"] for agent in await simulator.agents()]
    assert engines == {"retell-llm", "conversation-flow", "custom-llm"}
    assert len(languages) > 5
    assert len(tools) > 5
    assert max(tools) <= 9
    assert ahead
    assert len(set(names)) == len(names)
    assert {"Reception DE", "Booking Bot"} <= set(names)


@pytest.mark.parametrize("order", ["ascending", "descending"])
async def test_retell_pages_hold_every_agent_once(retell: httpx.AsyncClient, order: str) -> None:
    seen: list[str] = []
    key = ""
    while True:
        query = f"limit=5&sort_order={order}" + (f"&pagination_key={key}" if key else "")
        page = (await retell.post(f"/v2/list-agents?{query}", json={})).json()
        seen += [item["agent_id"] for item in page["items"]]
        if not page["has_more"]:
            break
        key = page["pagination_key"]
    assert len(seen) == len(set(seen)) == 24
    everything = [item["agent_id"] for item in await retell_agents(retell)]
    assert seen == (everything if order == "descending" else everything[::-1])


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "pagination_key=x", "sort_order=up"])
async def test_retell_refuses_wrong_paging(retell: httpx.AsyncClient, query: str) -> None:
    response = await retell.post(f"/v2/list-agents?{query}", json={})
    assert response.status_code == 400
    assert response.json()["status"] == "error"


async def test_a_page_boundary_survives_a_deleted_agent(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    first = (await retell.post("/v2/list-agents?limit=5")).json()
    await simulator.remove(first["items"][-1]["agent_id"])
    rest = (await retell.post(f"/v2/list-agents?limit=100&pagination_key={first['pagination_key']}")).json()
    assert len(rest["items"]) == 19


async def test_previous_list_pages_by_id_and_version(retell: httpx.AsyncClient) -> None:
    everything = (await retell.get("/list-agents")).json()
    assert len(everything) > len({agent["agent_id"] for agent in everything}) == 24
    last = everything[6]
    query = f"limit=3&pagination_key={last['agent_id']}&pagination_key_version={last['version']}"
    assert (await retell.get(f"/list-agents?{query}")).json() == everything[7:10]


async def test_elevenlabs_pages_search_and_order(elevenlabs: httpx.AsyncClient) -> None:
    seen: list[str] = []
    query = "page_size=7&sort_by=name&sort_direction=asc"
    page: dict[str, Any] = {"next_cursor": ""}
    while page["next_cursor"] is not None:
        page = (await elevenlabs.get(f"/v1/convai/agents?{query}&cursor={page['next_cursor']}")).json()
        assert page["has_more"] is (page["next_cursor"] is not None)
        seen += [agent["name"] for agent in page["agents"]]
    assert len(seen) == 24
    assert seen == sorted(seen, key=str.lower)
    found = (await elevenlabs.get("/v1/convai/agents?search=TRIAGE")).json()["agents"]
    assert [agent["name"] for agent in found] == ["Support Triage"]


async def test_a_published_retell_version_cannot_be_written(retell: httpx.AsyncClient) -> None:
    agent = await find(retell, published=False)
    path = f"/update-agent/{agent['agent_id']}"
    published = agent["base_version"]
    before = (await retell.get(f"/get-agent/{agent['agent_id']}?version={published}")).json()
    refused = await retell.patch(f"{path}?version={published}", json={"voice_speed": 0.5})
    assert refused.status_code == 400
    accepted = await retell.patch(path, json={"voice_speed": 0.5})
    assert (accepted.json()["version"], accepted.json()["voice_speed"]) == (agent["version"], 0.5)
    assert (await retell.get(f"/get-agent/{agent['agent_id']}?version={published}")).json() == before
    engine = agent["response_engine"]
    llm = f"/update-retell-llm/{engine['llm_id']}"
    assert (await retell.patch(f"{llm}?version={engine['version']}", json={})).status_code == 200
    assert (await retell.patch(f"{llm}?version={published}", json={})).status_code == 400


async def test_publish_in_place_then_a_new_draft(retell: httpx.AsyncClient) -> None:
    agent = await find(retell, published=False)
    agent_id, version = agent["agent_id"], agent["version"]
    body = {"version": version, "version_title": "Frühling"}
    assert (await retell.post(f"/publish-agent-version/{agent_id}", json=body)).status_code == 200
    newest = (await retell.get(f"/get-agent/{agent_id}")).json()
    assert (newest["version"], newest["is_published"]) == (version, True)
    engine = newest["response_engine"]
    llm = (await retell.get(f"/get-retell-llm/{engine['llm_id']}?version={engine['version']}")).json()
    assert llm["is_published"] is True
    versions = (await retell.get(f"/list-agent-versions/{agent_id}")).json()["items"]
    assert versions[0]["version_title"] == "Frühling"
    assert (await retell.patch(f"/update-agent/{agent_id}", json={})).status_code == 400
    path = f"/create-agent-version/{agent_id}"
    draft = (await retell.post(path, json={"base_version": version})).json()
    assert (draft["version"], draft["base_version"], draft["is_published"]) == (version + 1, version, False)
    assert draft["response_engine"]["version"] == engine["version"] + 1
    assert (await retell.patch(f"/update-agent/{agent_id}", json={})).status_code == 200


async def test_the_previous_publish_makes_the_next_draft(retell: httpx.AsyncClient) -> None:
    agent = await find(retell, published=False)
    assert (await retell.post(f"/publish-agent/{agent['agent_id']}")).status_code == 200
    versions = (await retell.get(f"/get-agent-versions/{agent['agent_id']}")).json()
    assert [item["is_published"] for item in versions[:2]] == [False, True]
    assert versions[1]["version"] == agent["version"]


@pytest.mark.parametrize("kind", ["retell-llm", "conversation-flow", "custom-llm"])
async def test_a_dashboard_edit_shows_where_the_vendor_shows_it(
    simulator: RunningSimulator, retell: httpx.AsyncClient, kind: str
) -> None:
    agent = await find(retell, published=False, engine=kind)
    listed = {item["agent_id"]: item for item in await retell_agents(retell)}
    changed = await simulator.edit(agent["agent_id"])
    after = {item["agent_id"]: item for item in await retell_agents(retell)}
    moved = [key for key in listed if listed[key] != after[key]]
    if kind == "custom-llm":
        assert changed["part"] == "agent"
        assert moved == [agent["agent_id"]]
        return
    assert moved == []
    noun, field = {
        "retell-llm": ("retell-llm", "general_prompt"),
        "conversation-flow": ("conversation-flow", "global_prompt"),
    }[kind]
    engine = (await retell.get(f"/get-{noun}/{changed['engine_id']}")).json()
    revision = int(engine[field].partition("# Revision ")[2])
    assert engine["last_modification_timestamp"] > agent["last_modification_timestamp"]
    await simulator.edit(agent["agent_id"])
    again = (await retell.get(f"/get-{noun}/{changed['engine_id']}")).json()
    assert again[field].endswith(f"# Revision {revision + 1}")


async def test_an_edit_of_a_published_agent_makes_a_draft(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    agent = await find(retell, published=True)
    changed = await simulator.edit(agent["agent_id"], "agent", agent_name="Neu \u202e🙂")
    newest = (await retell.get(f"/get-agent/{agent['agent_id']}")).json()
    assert changed["version"] == newest["version"] == agent["version"] + 1
    assert (newest["agent_name"], newest["is_published"]) == ("Neu \u202e🙂", False)
    item = next(i for i in await retell_agents(retell) if i["agent_id"] == agent["agent_id"])
    assert item["agent_name"] == "Neu \u202e🙂"


async def test_elevenlabs_patch_merges_objects_and_replaces_arrays(elevenlabs: httpx.AsyncClient) -> None:
    root = "/v1/convai/agents"
    body = {"conversation_config": {"asr": {"keywords": ["a", "b"], "quality": "high"}, "x_new": 1.0}}
    created = await elevenlabs.post(f"{root}/create", json=body)
    path = f"{root}/{created.json()['agent_id']}"
    first = (await elevenlabs.get(path)).json()
    patch = {"conversation_config": {"asr": {"keywords": ["c"]}}}
    second = (await elevenlabs.patch(path, json=patch)).json()
    assert second["conversation_config"] == {"asr": {"keywords": ["c"], "quality": "high"}, "x_new": 1.0}
    assert second["metadata"]["updated_at_unix_secs"] > first["metadata"]["updated_at_unix_secs"]
    old = (await elevenlabs.get(f"{path}?version_id={first['version_id']}")).json()
    assert old["conversation_config"] == body["conversation_config"]
    assert (await elevenlabs.get(path)).json() == second


async def test_elevenlabs_branches_are_apart(elevenlabs: httpx.AsyncClient) -> None:
    root = "/v1/convai/agents"
    created = await elevenlabs.post(
        f"{root}/create", json={"conversation_config": {"agent": {"language": "de"}}}
    )
    path = f"{root}/{created.json()['agent_id']}"
    main = (await elevenlabs.get(path)).json()
    body = {"parent_version_id": main["version_id"], "name": "trial", "description": "d"}
    branch = (await elevenlabs.post(f"{path}/branches", json=body)).json()["created_branch_id"]
    patch = {"conversation_config": {"agent": {"language": "fr"}}}
    await elevenlabs.patch(f"{path}?branch_id={branch}", json=patch)
    language = (await elevenlabs.get(path)).json()["conversation_config"]["agent"]["language"]
    trial = (await elevenlabs.get(f"{path}?branch_id={branch}")).json()
    assert (language, trial["conversation_config"]["agent"]["language"]) == ("de", "fr")
    results = (await elevenlabs.get(f"{path}/branches")).json()["results"]
    assert [item["name"] for item in results] == ["Main", "trial"]


async def test_a_changed_tool_shows_in_its_agents_alone(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    users: dict[str, list[str]] = {}
    for item in await simulator.agents("elevenlabs"):
        agent = (await elevenlabs.get(f"/v1/convai/agents/{item['agent_id']}")).json()
        users[item["agent_id"]] = agent["conversation_config"]["agent"]["prompt"]["tool_ids"]
    agent_id = next(key for key, tools in users.items() if tools)
    path = f"/v1/convai/agents/{agent_id}"
    before = (await elevenlabs.get(path)).json()
    changed = await simulator.edit(agent_id, "tool")
    after = (await elevenlabs.get(path)).json()
    prompt = "conversation_config", "agent", "prompt"
    assert after[prompt[0]][prompt[1]][prompt[2]]["tools"] != before[prompt[0]][prompt[1]][prompt[2]]["tools"]
    assert after["metadata"] == before["metadata"]
    tool = (await elevenlabs.get(f"/v1/convai/tools/{changed['tool_id']}")).json()
    assert "# Revision 1" in tool["tool_config"]["description"]
    refused = await elevenlabs.delete(f"/v1/convai/tools/{changed['tool_id']}")
    assert refused.status_code == 400


async def test_keys_and_unknown_things(
    simulator: RunningSimulator, retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient
) -> None:
    for headers, status, word in (
        ({"xi-api-key": ""}, 401, "needs_authorization"),
        ({"xi-api-key": "wrong"}, 401, "invalid_api_key"),
        ({"xi-api-key": simulator.limited_key}, 401, "missing_permissions"),
    ):
        response = await elevenlabs.get("/v1/convai/agents", headers=headers)
        assert (response.status_code, response.json()["detail"]["status"]) == (status, word)
    for value, status in (("Bearer wrong", 401), (f"Bearer {simulator.limited_key}", 403)):
        response = await retell.get("/get-api-key-info", headers={"authorization": value})
        assert (response.status_code, response.json()["status"]) == (status, "error")
    assert (await elevenlabs.get("/v1/convai/agents/nobody")).status_code == 404
    assert (await elevenlabs.get("/v1/nothing")).json() == {"detail": "Not Found"}
    assert (await retell.get("/get-agent/nobody")).status_code == 422
    assert (await retell.get("/get-retell-llm/nobody")).status_code == 404
    assert (await retell.get("/nothing")).status_code == 404


async def test_removed_agents_are_gone(
    simulator: RunningSimulator, retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient
) -> None:
    await simulator.remove("Booking Bot")
    await simulator.remove("Concierge")
    assert "Booking Bot" not in {item["agent_name"] for item in await retell_agents(retell)}
    names = (await elevenlabs.get("/v1/convai/agents?page_size=100")).json()["agents"]
    assert "Concierge" not in {item["name"] for item in names}
    with pytest.raises(ValueError, match="there is no agent “Booking Bot”"):
        await simulator.remove("Booking Bot")


async def test_bytes_a_careless_client_would_change(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    text = (await retell.get("/list-agents")).text
    assert '"volume":1.0' in text
    assert '"eleven_v5_preview"' in text
    assert '"x_turn_detection_v2"' in text
    assert "Müller" in text
    llms = (await retell.get("/list-retell-llms")).json()
    rich = [tool for llm in llms for tool in llm["general_tools"] if tool["name"] == "book_appointment_plus"]
    assert len(rich[0]) > 18
    assert json.dumps(rich[0])
