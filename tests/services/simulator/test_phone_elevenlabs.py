"""Simulated phone calls of ElevenLabs: by the specification, in the conversation's object, and at Twilio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.simulator import ACCOUNT_SID
from tests.services.simulator.test_contract import ELEVENLABS, check
from tests.support.simulator import RunningSimulator, running_simulator

ROOT = "/v1/convai"
CALL = f"{ROOT}/twilio/outbound-call"
TO = "+4930901820"


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=6) as running:
        await running.phone(speed=0)
        yield running


async def numbers(elevenlabs: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    path = f"{ROOT}/phone-numbers"
    found: list[dict[str, Any]] = check(ELEVENLABS, await elevenlabs.get(path, params=query), path)
    return found


async def place(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient, to: str = TO, **more: Any
) -> httpx.Response:
    number = next(item for item in await numbers(elevenlabs, provider="twilio") if item["assigned_agent"])
    body = {
        "agent_id": number["assigned_agent"]["agent_id"],
        "agent_phone_number_id": number["phone_number_id"],
        "to_number": to,
        **more,
    }
    return await elevenlabs.post(CALL, json=body)


async def look(elevenlabs: httpx.AsyncClient, conversation_id: str) -> Any:
    response = await elevenlabs.get(f"{ROOT}/conversations/{conversation_id}")
    return check(ELEVENLABS, response, f"{ROOT}/conversations/{{conversation_id}}")


async def test_numbers(simulator: RunningSimulator, elevenlabs: httpx.AsyncClient) -> None:
    listed = await numbers(elevenlabs)
    assert sorted(item["provider"] for item in listed) == ["sip_trunk", "twilio", "twilio"]
    agents = await simulator.agents("elevenlabs")
    bound = await numbers(elevenlabs, agent_id=agents[0]["agent_id"])
    assert [item["assigned_agent"]["agent_name"] for item in bound] == [agents[0]["name"]]
    for item in listed:
        path = f"{ROOT}/phone-numbers/{item['phone_number_id']}"
        one = check(ELEVENLABS, await elevenlabs.get(path), f"{ROOT}/phone-numbers/{{phone_number_id}}")
        assert one == item
    assert (await elevenlabs.get(f"{ROOT}/phone-numbers/phnum_none")).status_code == 404


async def test_a_call_from_initiated_to_done(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    made = check(ELEVENLABS, await place(simulator, elevenlabs), CALL)
    assert made["success"]
    conversation_id = made["conversation_id"]
    states = []
    for advance in (300, 1500, 10_000):
        await simulator.phone(advance_ms=advance)
        states.append((await look(elevenlabs, conversation_id))["status"])
    assert states == ["initiated", "in-progress", "in-progress"]
    running = await look(elevenlabs, conversation_id)
    assert [line["role"] for line in running["transcript"]][:2] == ["agent", "user"]
    await simulator.phone(advance_ms=60_000)
    assert (await look(elevenlabs, conversation_id))["status"] == "processing"
    await simulator.phone(advance_ms=1000)
    done = await look(elevenlabs, conversation_id)
    assert done["status"] == "done"
    phone = done["metadata"]["phone_call"]
    assert (phone["type"], phone["external_number"], phone["call_sid"]) == ("twilio", TO, made["callSid"])
    assert "end_call" in done["metadata"]["termination_reason"]
    line = next(c for c in (await simulator.phone())["calls"] if c["sid"] == made["callSid"])
    assert (line["status"], line["ended_by"]) == ("completed", "agent")
    listed = await elevenlabs.get(f"{ROOT}/conversations")
    found = check(ELEVENLABS, listed, f"{ROOT}/conversations")["conversations"]
    assert conversation_id in [item["conversation_id"] for item in found]


@pytest.mark.parametrize(
    ("to", "word"), [("+15005550007", "busy"), ("+15005550008", "no-answer"), ("+15005550009", "failed")]
)
async def test_calls_nobody_answered(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient, to: str, word: str
) -> None:
    made = (await place(simulator, elevenlabs, to)).json()
    await simulator.phone(advance_ms=90_000)
    done = await look(elevenlabs, made["conversation_id"])
    assert done["status"] == "failed"
    assert word in done["metadata"]["termination_reason"]
    assert done["transcript"] == []


@pytest.mark.parametrize(("to", "words"), [("+15005550001", "not valid"), ("+15005550003", "permissions")])
async def test_twilios_refusal_is_told(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient, to: str, words: str
) -> None:
    made = check(ELEVENLABS, await place(simulator, elevenlabs, to), CALL)
    assert (made["success"], made["conversation_id"], made["callSid"]) == (False, None, None)
    assert words in made["message"]


async def test_wrong_orders(simulator: RunningSimulator, elevenlabs: httpx.AsyncClient) -> None:
    assert (await elevenlabs.post(CALL, json={"agent_id": "x"})).status_code == 422
    sip = next(item for item in await numbers(elevenlabs) if item["provider"] == "sip_trunk")
    for change in ({"agent_id": "agent_none"}, {"agent_phone_number_id": sip["phone_number_id"]}):
        assert (await place(simulator, elevenlabs, **change)).status_code == 404
    config = {"ringing_timeout_secs": 0}
    assert (await place(simulator, elevenlabs, telephony_call_config=config)).status_code == 422
    assert (await simulator.phone())["calls"] == []


async def test_ringing_ends_when_the_order_says(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    made = (await place(simulator, elevenlabs, telephony_call_config={"ringing_timeout_secs": 1})).json()
    await simulator.phone(advance_ms=1400)
    line = next(c for c in (await simulator.phone())["calls"] if c["sid"] == made["callSid"])
    assert line["status"] == "no-answer"


async def test_initiation_data_reach_the_talk(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    data = {
        "dynamic_variables": {"name": "Ada"},
        "conversation_config_override": {"agent": {"first_message": "Good day, {{name}}."}},
    }
    made = (await place(simulator, elevenlabs, conversation_initiation_client_data=data)).json()
    await simulator.phone(advance_ms=6000)
    shown = await look(elevenlabs, made["conversation_id"])
    assert shown["transcript"][0]["message"] == "Good day, Ada."
    assert shown["conversation_initiation_client_data"]["dynamic_variables"]["name"] == "Ada"


async def test_hung_up_at_twilio(simulator: RunningSimulator, elevenlabs: httpx.AsyncClient) -> None:
    made = (await place(simulator, elevenlabs)).json()
    await simulator.phone(advance_ms=2500)
    url = f"{simulator.twilio_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{made['callSid']}.json"
    async with httpx.AsyncClient(auth=(ACCOUNT_SID, simulator.key), trust_env=False) as client:
        await client.post(url, data={"Status": "completed"})
    await simulator.phone(advance_ms=1000)
    done = await look(elevenlabs, made["conversation_id"])
    assert (done["status"], done["metadata"]["termination_reason"]) == ("done", "Call ended by remote party")
