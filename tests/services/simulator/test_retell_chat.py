"""The text paths of the simulated Retell with the vendor's SDK; its calls against the specification."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from retell import AsyncRetell

from tests.services.simulator.test_contract import RETELL, assert_true_to, check, reference
from tests.services.simulator.test_retell_gateway import an_agent, set_script, web_call
from tests.support.simulator import RunningSimulator

BOOKING = {
    "hear": "book",
    "before": "One moment.",
    "tool": {"name": "book", "arguments": {"slot": 3, "day": "mon"}, "result": "B-1", "took_ms": 1},
    "say": "Booked: {result}",
}


async def test_a_chat_with_the_vendors_sdk(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    bye = {"hear": "bye", "say": "Goodbye", "end": True}
    await set_script(retell, greeting="Hello {{name}}", turns=[BOOKING, bye], fallback="Pardon?")
    sdk = AsyncRetell(api_key=simulator.key, base_url=simulator.retell_url, max_retries=0)
    chat = await sdk.chat.create(
        agent_id=await an_agent(simulator), retell_llm_dynamic_variables={"name": "Alex"}, metadata={"n": 1}
    )
    assert (chat.chat_status, chat.transcript) == ("ongoing", "Agent: Hello Alex\n")
    reply = await sdk.chat.create_chat_completion(chat_id=chat.chat_id, content="Please book it")
    assert [message.role for message in reply.messages] == [
        "agent", "tool_call_invocation", "tool_call_result", "agent",
    ]  # fmt: skip
    assert getattr(reply.messages[-1], "content", "") == "Booked: B-1"
    await sdk.chat.create_chat_completion(chat_id=chat.chat_id, content="bye")
    ended = await sdk.chat.retrieve(chat.chat_id)
    assert ended.chat_status == "ended"
    assert ended.transcript is not None
    assert ended.transcript.endswith("User: bye\nAgent: Goodbye\n")
    assert ended.metadata == {"n": 1}
    raw = await retell.post("/create-chat-completion", json={"chat_id": chat.chat_id, "content": "more"})
    assert raw.status_code == 400
    log = (await retell.get("/__conversations")).json()["conversations"][-1]
    assert (log["transport"], log["text_only"], log["end_code"]) == ("chat", True, 1000)
    await sdk.close()


async def test_chats_answer_as_the_specification_says(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(retell, greeting="Hello", turns=[BOOKING])
    agent = await an_agent(simulator)
    chat = check(RETELL, await retell.post("/create-chat", json={"agent_id": agent}), "/create-chat")
    body = {"chat_id": chat["chat_id"], "content": "book"}
    check(RETELL, await retell.post("/create-chat-completion", json=body), "/create-chat-completion")
    assert (await retell.patch(f"/end-chat/{chat['chat_id']}")).status_code == 204
    found = check(RETELL, await retell.get(f"/get-chat/{chat['chat_id']}"), "/get-chat/{chat_id}")
    assert found["chat_status"] == "ended"
    assert (await retell.patch(f"/end-chat/{chat['chat_id']}")).status_code == 400
    assert (await retell.post("/create-chat", json={"agent_id": "agent_none"})).status_code == 422
    assert (await retell.post("/create-chat", json={})).status_code == 400


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"type": "any"}, "Booked: mocked"),
        ({"type": "partial_match", "args": {"slot": 3}}, "Booked: mocked"),
        ({"type": "partial_match", "args": {"slot": 4}}, "Booked: B-1"),
    ],
)
async def test_the_playground_uses_tool_mocks(
    simulator: RunningSimulator, retell: httpx.AsyncClient, rule: dict[str, Any], expected: str
) -> None:
    await set_script(retell, greeting="Hi", turns=[BOOKING])
    path = f"/agent-playground-completion/{await an_agent(simulator)}"
    mock = {"tool_name": "book", "input_match_rule": rule, "output": "mocked", "result": True}
    body = {"messages": [{"role": "user", "content": "book it"}], "tool_mocks": [mock]}
    found = check(RETELL, await retell.post(path, json=body), "/agent-playground-completion/{agent_id}")
    assert found["messages"][-1]["content"] == expected
    assert found["call_ended"] is False


async def test_the_playground_remembers_what_it_is_told(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    turns = [{"say": "First"}, {"say": "Second {{name}}", "end": True}]
    await set_script(retell, greeting="Hi", turns=turns)
    path = f"/agent-playground-completion/{await an_agent(simulator)}"
    start = (await retell.post(path, json={"messages": []})).json()
    assert [message["content"] for message in start["messages"]] == ["Hi"]
    said = [{"role": "user", "content": "a"}]
    first = (await retell.post(path, json={"messages": said})).json()
    said += [*first["messages"], {"role": "user", "content": "b"}]
    body = {"messages": said, "dynamic_variables": {"name": "Alex"}, "current_state": "x"}
    second = (await retell.post(path, json=body)).json()
    assert (second["messages"][0]["content"], second["call_ended"]) == ("Second Alex", True)
    assert second["current_state"] == "x"
    assert (await retell.post(path, json={"messages": "no"})).status_code == 400


async def test_an_agent_begins_with_its_engines_words(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(retell, turns=[])
    agent = await an_agent(simulator)
    for words, shown in (("Welcome to {{place}}", ["Welcome to us"]), ("", [])):
        await simulator.edit(agent, "engine", begin_message=words)
        variables = {"place": "us"}
        body = {"agent_id": agent, "retell_llm_dynamic_variables": variables}
        chat = (await retell.post("/create-chat", json=body)).json()
        assert [message["content"] for message in chat["message_with_tool_calls"]] == shown


@pytest.mark.parametrize(
    ("how", "status"), [("close", 500), ("crash", 500), ("garbage", 200), ("end", 201), ("stall", 201)]
)
async def test_ways_to_break_a_chat(
    simulator: RunningSimulator, retell: httpx.AsyncClient, how: str, status: int
) -> None:
    await set_script(retell, greeting="Hi", turns=[{"say": "Well", "hang": {"how": how, "ms": 1}}])
    chat = (await retell.post("/create-chat", json={"agent_id": await an_agent(simulator)})).json()
    body = {"chat_id": chat["chat_id"], "content": "a"}
    reply = await retell.post("/create-chat-completion", json=body)
    assert reply.status_code == status
    if how == "garbage":
        with pytest.raises(ValueError, match="line 1"):
            reply.json()
    found = (await retell.get(f"/get-chat/{chat['chat_id']}")).json()
    assert found["chat_status"] == {"close": "error", "crash": "error", "end": "ended"}.get(how, "ongoing")


async def test_calls_are_as_the_specification_says(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    tool = {"name": "look", "arguments": {}, "result": "x", "took_ms": 1}
    await set_script(retell, greeting="Hi", turns=[{"hear": "go", "tool": tool, "say": "Bye", "end": True}])
    path = "/v2/get-call/{call_id}"
    async with web_call(simulator, retell, metadata={"ticket": 7}) as call:
        shown = check(RETELL, await retell.get(f"/v2/get-call/{call.id}"), path)
        assert (shown["call_status"], shown["access_token"]) == (
            "registered",
            call.headers["authorization"][7:],
        )
        await call.join()
        await call.says("agent")
        check(RETELL, await retell.get(f"/v2/get-call/{call.id}"), path)
        ticket = await retell.post(f"/v2/listen-live-call/{call.id}")
        check(RETELL, ticket, "/v2/listen-live-call/{call_id}")
        control = {"call_control": {"additional_context": "go", "trigger_response": True}}
        steered = await retell.patch(f"/v2/update-live-call/{call.id}", json=control)
        check(RETELL, steered, "/v2/update-live-call/{call_id}")
        ended = await call.reaches("ended")
    assert_true_to(RETELL, {"anyOf": [reference("Union.WebCallResponse")]}, ended)
    listed = check(
        RETELL, await retell.post("/v3/list-calls", json={"include_total": True}), "/v3/list-calls"
    )
    assert listed["total"] == 1
    item = listed["items"][0]
    assert not [name for name in item if "transcript" in name]
    assert item == {name: value for name, value in ended.items() if "transcript" not in name}
    changed = await retell.patch(f"/v2/update-call/{call.id}", json={"metadata": {"ticket": 8}})
    assert check(RETELL, changed, "/v2/update-call/{call_id}")["metadata"] == {"ticket": 8}


async def test_lists_of_calls_are_filtered_and_paged(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    agents = [agent["agent_id"] for agent in await simulator.agents("retell")]
    made = []
    for number in range(5):
        body = {"agent_id": agents[number % 2], "metadata": {"n": number}}
        made.append((await retell.post("/v3/create-web-call", json=body)).json()["call_id"])
    await retell.post(f"/v2/stop-call/{made[4]}")

    async def listed(**criteria: Any) -> list[str]:
        body = {"filter_criteria": criteria, "sort_order": "ascending"}
        return [item["call_id"] for item in (await retell.post("/v3/list-calls", json=body)).json()["items"]]

    assert await listed() == made
    assert await listed(agent=[{"agent_id": agents[1]}]) == [made[1], made[3]]
    assert await listed(call_status={"type": "enum", "op": "in", "value": ["ended"]}) == [made[4]]
    assert await listed(metadata=[{"type": "number", "op": "ge", "key": "n", "value": 3}]) == made[3:]
    assert await listed(call_id={"type": "string", "op": "sw", "value": made[2][:20]}) == [made[2]]
    assert await listed(duration_ms={"type": "range", "op": "bt", "value": [0, 10]}) == []
    assert (
        await listed(disconnection_reason={"type": "enum", "op": "in", "value": ["manual_stopped"]})
        == made[4:]
    )

    seen, key = [], None
    while True:
        body = {"limit": 2, **({"pagination_key": key} if key else {})}
        page = (await retell.post("/v3/list-calls", json=body)).json()
        seen += [item["call_id"] for item in page["items"]]
        key = page.get("pagination_key")
        if not page["has_more"]:
            break
    assert seen == made[::-1]
    assert (await retell.post("/v3/list-calls", json={"limit": 0})).status_code == 400
    assert (await retell.delete(f"/v2/delete-call/{made[4]}")).status_code == 204
    assert (await retell.get(f"/v2/get-call/{made[4]}")).status_code == 422


async def test_a_dead_call_holds_no_key(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    headers = {"authorization": f"Bearer {simulator.limited_key}"}
    body = {"agent_id": await an_agent(simulator)}
    assert (await retell.post("/v3/create-web-call", json=body, headers=headers)).status_code == 403
    wrong = {**body, "retell_llm_dynamic_variables": {"n": 1}}
    assert (await retell.post("/v3/create-web-call", json=wrong)).status_code == 400
    assert (await retell.post("/v3/create-web-call", json={"agent_id": "agent_none"})).status_code == 422
