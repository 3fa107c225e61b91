"""Simulated phone calls of Retell: by the specification, through the monitor, and at Twilio."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import retell as retell_sdk
from websockets.asyncio.client import connect

from services.simulator import ACCOUNT_SID
from tests.services.simulator.test_contract import RETELL, check
from tests.support.simulator import RunningSimulator, running_simulator

FROM, SPARE, TO = "+15005550100", "+15005550101", "+4930901820"
CREATE = "/v2/create-phone-call"


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=6) as running:
        await running.phone(speed=0)
        yield running


async def place(retell: httpx.AsyncClient, to: str = TO, **more: Any) -> httpx.Response:
    return await retell.post(CREATE, json={"from_number": FROM, "to_number": to, **more})


async def look(retell: httpx.AsyncClient, call_id: str) -> Any:
    return check(RETELL, await retell.get(f"/v2/get-call/{call_id}"), "/v2/get-call/{call_id}")


async def test_numbers_are_true_to_the_specification(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    path = "/v2/list-phone-numbers"
    listed = check(RETELL, await retell.get(path), path)
    assert {item["phone_number"] for item in listed["items"]} == {FROM, SPARE}
    first = next(item for item in listed["items"] if item["phone_number"] == FROM)
    assert first["outbound_agents"][0]["agent_id"] == (await simulator.agents("retell"))[0]["agent_id"]
    pages = [check(RETELL, await retell.get(path, params={"limit": 1}), path)]
    key = pages[0]["pagination_key"]
    pages.append(check(RETELL, await retell.get(path, params={"limit": 1, "pagination_key": key}), path))
    assert [page["has_more"] for page in pages] == [True, False]
    assert {page["items"][0]["phone_number"] for page in pages} == {FROM, SPARE}
    one = await retell.get(f"/get-phone-number/{FROM}")
    assert check(RETELL, one, "/get-phone-number/{phone_number}") == first
    assert (await retell.get("/get-phone-number/+4930")).status_code == 404


async def test_a_call_from_registered_to_ended(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    created = check(RETELL, await place(retell, metadata={"our": "key"}), CREATE)
    call_id = created["call_id"]
    assert (created["call_status"], created["direction"]) == ("registered", "outbound")
    sid = created["telephony_identifier"]["twilio_call_sid"]
    await simulator.phone(advance_ms=1800)
    assert (await look(retell, call_id))["call_status"] == "ongoing"
    await simulator.phone(advance_ms=60_000)
    done = await look(retell, call_id)
    assert (done["call_status"], done["disconnection_reason"]) == ("ended", "agent_hangup")
    assert done["metadata"] == {"our": "key"}
    assert "User: Hello, when are you open?" in done["transcript"]
    roles = [item["role"] for item in done["transcript_with_tool_calls"]]
    assert {"agent", "user", "tool_call_invocation", "tool_call_result"} == set(roles)
    line = next(call for call in (await simulator.phone())["calls"] if call["sid"] == sid)
    assert (line["status"], line["ended_by"]) == ("completed", "agent")
    await simulator.phone(advance_ms=1000)
    logged = next(item for item in await simulator.conversations() if item["id"] == call_id)
    assert (logged["transport"], logged["state"]) == ("phone", "done")


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("+15005550007", "dial_busy"),
        ("+15005550008", "dial_no_answer"),
        ("+15005550009", "dial_failed"),
        ("+15005550001", "invalid_destination"),
        ("+15005550003", "telephony_provider_permission_denied"),
    ],
)
async def test_calls_nobody_was_connected_in(
    simulator: RunningSimulator, retell: httpx.AsyncClient, to: str, reason: str
) -> None:
    call_id = check(RETELL, await place(retell, to), CREATE)["call_id"]
    await simulator.phone(advance_ms=90_000)
    done = await look(retell, call_id)
    assert (done["call_status"], done["disconnection_reason"]) == ("not_connected", reason)


async def test_an_idempotency_key_is_one_call(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    first = (await place(retell, idempotency_key="k1")).json()
    again = await place(retell, idempotency_key="k1")
    assert (again.status_code, again.json()["call_id"]) == (201, first["call_id"])
    assert (await place(retell, idempotency_key="k2")).json()["call_id"] != first["call_id"]
    assert (await place(retell)).json()["call_id"] != (await place(retell)).json()["call_id"]
    assert len((await simulator.phone())["calls"]) == 4


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"to_number": ""}, 400),
        ({"to_number": "030 12345"}, 400),
        ({"from_number": "+4930111111"}, 404),
        ({"from_number": SPARE}, 422),
        ({"override_agent_id": "agent_nobody"}, 422),
        ({"override_agent_version": 99}, 422),
    ],
)
async def test_orders_that_are_refused(
    simulator: RunningSimulator, retell: httpx.AsyncClient, change: dict[str, Any], status: int
) -> None:
    response = await retell.post(CREATE, json={"from_number": FROM, "to_number": TO, **change})
    assert response.status_code == status
    check(RETELL, response, CREATE)
    assert (await simulator.phone())["calls"] == []


async def test_the_monitor_shows_the_talk_grow(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await simulator.script(
        {"greeting": "Good morning to you all here.", "turns": [{"hear": ".", "end": True}]}
    )
    call_id = (await place(retell)).json()["call_id"]
    await simulator.phone(advance_ms=1800)
    url = simulator.retell_url.replace("http", "ws") + f"/v2/monitor-call/{call_id}"
    headers = {"authorization": f"Bearer {simulator.key}"}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        assert json.loads(await socket.recv())["type"] == "transcript_snapshot"
        await simulator.phone(advance_ms=20_000)
        frames = [json.loads(text) async for text in socket]
    said = [frame["transcripts"][0] for frame in frames[:-1]]
    greeting = [item["content"] for item in said if item["role"] == "agent"]
    assert greeting[-1] == "Good morning to you all here."
    assert all(late.startswith(early) for early, late in itertools.pairwise(greeting))
    assert frames[-1]["type"] == "call_ended"


async def test_steering_and_stopping(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    turns = [{"hear": "rains", "say": "Take an umbrella."}, {"hear": ".", "say": "Well, well."}]
    await simulator.script({"greeting": "Hello.", "turns": turns})
    call_id = (await place(retell)).json()["call_id"]
    await simulator.phone(advance_ms=2800)
    body = {"call_control": {"additional_context": "It rains.", "trigger_response": True}}
    path = "/v2/update-live-call/{call_id}"
    check(RETELL, await retell.patch(f"/v2/update-live-call/{call_id}", json=body), path)
    await simulator.phone(advance_ms=1000)
    assert (await retell.post(f"/v2/stop-call/{call_id}")).status_code == 200
    done = await look(retell, call_id)
    items = [(item["role"], item["content"]) for item in done["transcript_with_tool_calls"]]
    assert ("injected", "It rains.") in items
    assert items[-1][0] == "agent"
    assert "Take an umbrella.".startswith(items[-1][1])
    assert done["disconnection_reason"] == "manual_stopped"
    assert (await simulator.phone())["calls"][0]["status"] == "completed"


async def test_hung_up_at_twilio(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    created = (await place(retell)).json()
    await simulator.phone(advance_ms=2500)
    sid = created["telephony_identifier"]["twilio_call_sid"]
    url = f"{simulator.twilio_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{sid}.json"
    async with httpx.AsyncClient(auth=(ACCOUNT_SID, simulator.key), trust_env=False) as client:
        await client.post(url, data={"Status": "completed"})
    done = await look(retell, created["call_id"])
    assert (done["call_status"], done["disconnection_reason"]) == ("ended", "user_hangup")


async def test_variables_and_an_override_reach_the_talk(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    override = {"retell_llm": {"begin_message": "Good day, {{name}}."}}
    created = await place(
        retell, agent_override=override, retell_llm_dynamic_variables={"name": "Ada Lovelace"}
    )
    await simulator.phone(advance_ms=6000)
    done = await look(retell, created.json()["call_id"])
    assert done["transcript_object"][0]["content"] == "Good day, Ada Lovelace."


async def test_the_vendors_own_library_places_a_call(simulator: RunningSimulator) -> None:
    client = retell_sdk.AsyncRetell(api_key=simulator.key, base_url=simulator.retell_url, max_retries=0)
    async with client:
        call = await client.call.create_phone_call(from_number=FROM, to_number=TO, idempotency_key="one")
        again = await client.call.create_phone_call(from_number=FROM, to_number=TO, idempotency_key="one")
        assert again.call_id == call.call_id
        await simulator.phone(advance_ms=90_000)
        done = await client.call.retrieve(call.call_id)
    assert done.call_status == "ended"
