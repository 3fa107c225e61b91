"""Scripts and the log of conversations over the control requests, and faults on the way in."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.talker import talking


def url(simulator: RunningSimulator, agent_id: str) -> str:
    return f"{simulator.elevenlabs_url.replace('http', 'ws', 1)}/v1/convai/conversation?agent_id={agent_id}"


async def test_scripts_by_agent_and_times_and_the_log() -> None:
    async with running_simulator(agents=24) as simulator:
        agents = await simulator.agents("elevenlabs")
        first, second = agents[1], agents[2]
        await simulator.script({"greeting": "Any."})
        await simulator.script({"greeting": "Once."}, agent=first["name"], times=1)
        said = []
        for agent in (second, first, first):
            async with talking(url(simulator, agent["agent_id"])) as talker:
                frame = await talker.until("agent_response")
                said.append(frame["agent_response_event"]["agent_response"])
                await talker.socket.close(1000)
        assert said == ["Any.", "Once.", "Any."]
        assert (await simulator._control("DELETE", "/__script"))["cleared"] == 1
        log = await simulator.conversations()
    assert [talk["agent"] for talk in log] == [second["name"], first["name"], first["name"]]
    assert {talk["transport"] for talk in log} == {"socket"}
    assert log[0]["frames"]["conversation_initiation_client_data"] == 1


@pytest.mark.parametrize(
    ("script", "agent", "times", "complaint"),
    [
        ({"greeting": 1}, "", None, "greeting"),
        ({}, "Nobody", None, "Nobody"),
        ({}, "", 0, "times"),
        ([], "", None, "script"),
    ],
)
async def test_a_wrong_script_is_refused(script: object, agent: str, times: object, complaint: str) -> None:
    async with running_simulator(agents=4) as simulator:
        with pytest.raises(ValueError, match=complaint):
            await simulator.script(script, agent=agent, times=times)  # type: ignore[arg-type]


async def test_faults_strike_the_joining_of_one_agent() -> None:
    async with running_simulator(agents=24) as simulator:
        agents = await simulator.agents("elevenlabs")
        await simulator.fault(f"503:call:{agents[1]['agent_id']}:x1")
        with pytest.raises(InvalidStatus) as refused:
            async with talking(url(simulator, agents[1]["agent_id"])):
                pass
        assert refused.value.response.status_code == 503
        assert b"system_busy" in (refused.value.response.body or b"")
        async with talking(url(simulator, agents[1]["agent_id"])) as talker:
            await talker.until("ping")
