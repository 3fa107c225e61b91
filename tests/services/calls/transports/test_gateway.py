"""Retell over WebRTC against the simulated gateway: real UDP, real Opus, the real monitor socket."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from services.calls.access import VendorAccess
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    Connected,
    Cost,
    Interrupted,
    Notice,
    Quality,
    StateChanged,
    ToolEnded,
    ToolStarted,
    UserSpeech,
    VendorLatency,
)
from services.calls.model import Brief, CallState, EndReason
from services.calls.retell_live import RetellLive
from services.calls.transport import AgentAudio, Transport
from services.calls.transports.retell_gateway import GatewayTimes, RetellGateway
from services.errors import ServiceError
from services.model import Provider
from tests.services.calls.transports.contract import Heard, Line, TransportContract, nothing_left, opened
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.webrtc_caller import level
from tests.support.webrtc_talk import (
    LONG,
    QUICK,
    audio_threads,
    ends_like,
    simulator_process,
    sounds_like,
    speak,
    voice,
)

ROOT = Path(__file__).parents[4]
TIMES = GatewayTimes(attempts=2, first_wait=0.02, longest_wait=0.05, settle=0.4)
GREETING = "Hello, this is the clinic."


class GatewayLine(Line):
    """A simulated Retell that answers, and hangs up when it is told good-bye."""

    can: ClassVar[frozenset[str]] = frozenset({"agent_speaks", "agent_ends", "drop", "refuse", "stall"})
    refuse_reasons = frozenset({EndReason.AUTHENTICATION})

    def __init__(self, simulator: RunningSimulator, agent_id: str, stack: contextlib.AsyncExitStack) -> None:
        self.simulator, self.agent_id, self._stack = simulator, agent_id, stack
        self.key = simulator.key
        self.times = TIMES

    @property
    def access(self) -> VendorAccess:
        return VendorAccess(Provider.RETELL, self.simulator.retell_url, self.key)

    async def plays(self, **script: Any) -> None:
        """What the next conversation is like."""
        await self.simulator.script({**QUICK, **script})

    def transport(self) -> RetellGateway:
        return RetellGateway(self.access, self.agent_id, times=self.times)

    async def agent_speaks(self, heard: Heard) -> str:
        await heard.until(lambda event: isinstance(event, AgentSpeech))
        return GREETING

    async def user_turn(self, transport: Transport) -> None:
        await speak(transport)

    async def agent_ends(self, heard: Heard) -> None:
        await speak(heard.transport)

    async def drop(self) -> None:
        await self._stack.aclose()

    async def refuse(self) -> None:
        self.key = "not-the-key-0000"

    async def stall(self) -> None:
        await self.simulator.fault("hang:retell")


@pytest.fixture
async def line() -> AsyncIterator[GatewayLine]:
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(running_simulator(agents=4, seed=7))
        agent = (await simulator.agents("retell"))[0]
        found = GatewayLine(simulator, agent["agent_id"], stack)
        bye = {"hear": "bye", "heard": "Good bye", "say": "Good bye.", "end": True}
        await found.plays(greeting=GREETING, turns=[bye])
        yield found
    assert audio_threads() == []


class TestGateway(TransportContract):
    """The contract of all transports."""

    @pytest.fixture
    async def line(self, line: GatewayLine) -> GatewayLine:
        return line


async def test_a_whole_spoken_turn(line: GatewayLine) -> None:
    answer = "We open at eight in the morning."
    await line.plays(greeting=GREETING, turns=[{"say": answer}])
    async with opened(line) as heard:
        connected = heard.of(Connected)[0]
        assert isinstance(connected, Connected)
        assert (connected.input_rate, connected.output_rate, connected.output_format) == (
            48000,
            48000,
            "opus",
        )
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.final)
        assert sounds_like(heard.events, GREETING, 1)
        await speak(heard.transport, 700)
        user = await heard.until(lambda event: isinstance(event, UserSpeech) and event.final)
        # What the simulated ear heard of our 0.7 s: the length of the speech in it.
        assert isinstance(user, UserSpeech)
        assert user.text in ("(spoken, 0.7 s)", "(spoken, 0.8 s)")
        said = await heard.until(
            lambda event: isinstance(event, AgentSpeech) and event.final and event.event_id == 2
        )
        assert isinstance(said, AgentSpeech)
        assert said.text == answer
        assert sounds_like(heard.events, answer, 2)
        partials = [e for e in heard.of(AgentSpeech) if not e.final and e.event_id == 2]  # type: ignore[union-attr]
        assert partials
        assert all(answer.startswith(each.text) for each in partials)  # type: ignore[union-attr]


async def test_silence_is_not_handed_on(line: GatewayLine) -> None:
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.final)
        before = len(heard.of(AgentAudio))
        await heard.until(lambda event: isinstance(event, Quality) and event.round_trip_ms is not None)
        # The hangover of the voice is 20 frames; the track carries 50 frames a second, for seconds.
        assert len(heard.of(AgentAudio)) - before <= 20


async def test_barge_in(line: GatewayLine) -> None:
    await line.plays(greeting=LONG, turns=[{"heard": "Stop", "say": "Yes?"}])
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentSpeech) and "four" in event.text)
        await speak(heard.transport, 300)
        cut = await heard.until(lambda event: isinstance(event, Interrupted))
        assert isinstance(cut, Interrupted)
        assert cut.event_id == 1
        said = [event for event in heard.of(AgentSpeech) if event.event_id == 1][-1]  # type: ignore[union-attr]
        assert isinstance(said, AgentSpeech)
        corrections = heard.of(AgentCorrected)
        really = corrections[0].corrected if corrections else said.text  # type: ignore[union-attr]
        assert LONG.startswith(really.rstrip("…"))
        assert "sixteen" not in really
        await heard.until(
            lambda event: isinstance(event, AgentSpeech) and event.text == "Yes?" and event.final
        )
        # Nothing of the first answer comes after the interruption, and the second has a number of its own.
        behind = heard.events[heard.events.index(cut) :]
        assert {event.event_id for event in behind if isinstance(event, AgentAudio)} <= {2}
        assert ends_like(behind, "Yes?")


async def test_tools_of_the_vendor_are_shown(line: GatewayLine) -> None:
    tool = {"name": "check", "arguments": {"day": 3}, "result": {"free": True}, "took_ms": 50}
    await line.plays(turns=[{"tool": tool, "say": "It is free."}])
    async with opened(line) as heard:
        await speak(heard.transport)
        started = await heard.until(lambda event: isinstance(event, ToolStarted))
        ended = await heard.until(lambda event: isinstance(event, ToolEnded))
        assert isinstance(started, ToolStarted)
        assert isinstance(ended, ToolEnded)
        assert (started.name, started.arguments, started.where) == ("check", {"day": 3}, "server")
        assert (ended.tool_id, ended.result, ended.ok) == (started.tool_id, '{"free": true}', True)
        assert ended.took_ms is not None
        assert ended.took_ms >= 50


async def test_the_brief_reaches_the_vendor(line: GatewayLine) -> None:
    line.brief = Brief(variables={"customer": "Ada", "age": 36})
    await line.plays(greeting="Hello {{customer}}, you are {{age}}.")
    async with opened(line) as heard:
        await heard.until(
            lambda event: isinstance(event, AgentSpeech) and event.text == "Hello Ada, you are 36."
        )


async def test_what_the_agent_is_told(line: GatewayLine) -> None:
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentSpeech))
        await heard.transport.send_context("It rains.")
        call_id = heard.of(Connected)[0].conversation_id  # type: ignore[union-attr]
        live = RetellLive(line.access)
        try:
            items = (await live.call(call_id))["transcript_with_tool_calls"]
        finally:
            await live.aclose()
        assert [item["content"] for item in items if item["role"] == "injected"] == ["It rains."]


async def test_figures_after_the_end(line: GatewayLine) -> None:
    transport = line.transport()
    heard = Heard(transport)
    await transport.open(line.brief)
    await heard.until(lambda event: isinstance(event, AgentSpeech) and event.final)
    await speak(transport)
    ended = await heard.end()
    await transport.close()
    assert (ended.reason, ended.by) == (EndReason.AGENT_ENDED, "agent")
    told = await transport.aftermath()
    cost = next(message for message in told if isinstance(message, Cost))
    assert (cost.currency, cost.final) == ("USD", True)
    assert cost.amount > 0
    latency = next(message for message in told if isinstance(message, VendorLatency))
    assert {"e2e", "llm", "tts"} <= set(latency.figures)


async def test_hanging_up_is_told_to_the_vendor(line: GatewayLine) -> None:
    async with opened(line) as heard:
        call_id = heard.of(Connected)[0].conversation_id  # type: ignore[union-attr]
    live = RetellLive(line.access)
    try:
        async with asyncio.timeout(5):
            while (await live.call(call_id)).get("disconnection_reason") != "user_hangup":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await live.aclose()


@pytest.mark.parametrize("how", ["garbage", "huge"])
async def test_nonsense_does_not_hurt(line: GatewayLine, how: str) -> None:
    await line.plays(turns=[{"say": "First.", "hang": {"how": how}}, {"say": "Second."}])
    async with opened(line) as heard:
        await speak(heard.transport)
        await heard.until(
            lambda event: isinstance(event, AgentSpeech) and event.text == "First." and event.final
        )
        await speak(heard.transport)
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == "Second.")


async def test_a_stall_of_two_seconds_passes(line: GatewayLine) -> None:
    await line.plays(greeting=LONG, hang={"how": "stall", "ms": 2000, "at_ms": 400})
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == LONG and event.final)
        assert not [e for e in heard.of(StateChanged) if e.state is CallState.RECONNECTING]  # type: ignore[union-attr]
        assert level(voice(heard.events)) > 500


async def test_a_broken_line_is_joined_again(line: GatewayLine) -> None:
    await line.plays(greeting=GREETING, turns=[{"heard": "Still there?", "say": "Yes, still here."}])
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.final)
        peer = heard.transport._peer  # type: ignore[attr-defined]
        for transceiver in peer._pc.getTransceivers():
            await transceiver.receiver.transport.transport._connection.close()
        await heard.until(lambda event: isinstance(event, StateChanged) and event.detail == "connected again")
        await speak(heard.transport)
        await heard.until(
            lambda event: isinstance(event, AgentSpeech) and event.text == "Yes, still here." and event.final
        )
        assert sounds_like(heard.events, "Yes, still here.", 2)


async def test_a_killed_server_ends_the_call_with_a_reason(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    with simulator_process(tmp_path, ROOT) as (process, urls):
        simulator = RunningSimulator(urls["retell"], urls["elevenlabs"], urls["twilio"], urls["key"])
        agent = (await simulator.agents("retell"))[0]
        await simulator.script({**QUICK, "greeting": LONG})
        times = GatewayTimes(
            attempts=2, first_wait=0.02, longest_wait=0.05, look_every=0.2, silent_after=1.0, hang_up=1.0
        )
        transport = RetellGateway(
            VendorAccess(Provider.RETELL, simulator.retell_url, simulator.key), agent["agent_id"], times=times
        )
        heard = Heard(transport)
        await transport.open(Brief())
        await heard.until(lambda event: isinstance(event, AgentSpeech) and "three" in event.text)
        process.kill()
        ended = await heard.end()
        await transport.close()
    assert (ended.reason, ended.by) == (EndReason.CONNECTION_LOST, "vendor")
    states = [event.state for event in heard.of(StateChanged)]  # type: ignore[union-attr]
    assert states[-2:] == [CallState.RECONNECTING, CallState.RECONNECTING]
    await nothing_left(before)
    assert audio_threads() == []


async def test_a_call_that_is_joined_too_late(line: GatewayLine) -> None:
    async with running_simulator(agents=4, seed=7, join_ms=1) as late:
        agent = (await late.agents("retell"))[0]
        access = VendorAccess(Provider.RETELL, late.retell_url, late.key)
        transport = RetellGateway(access, agent["agent_id"], times=TIMES)
        with pytest.raises(ServiceError) as caught:
            await transport.open(Brief())
        assert "over" in caught.value.message
        assert late.key not in caught.value.message


async def test_an_agent_that_does_not_exist(line: GatewayLine) -> None:
    transport = RetellGateway(line.access, "agent_nowhere", times=TIMES)
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief())
    assert caught.value.code == "not_found"


async def test_a_monitor_that_is_refused_leaves_the_call_alone(
    line: GatewayLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.calls.transports import retell_gateway

    class Refused(retell_gateway.RetellMonitor):
        def __init__(self, access: VendorAccess, call_id: str, **options: Any) -> None:
            super().__init__(
                VendorAccess(access.provider, access.base_url, "another-key-000"), call_id, **options
            )

    monkeypatch.setattr(retell_gateway, "RetellMonitor", Refused)
    async with opened(line) as heard:
        notice = await heard.until(lambda event: isinstance(event, Notice))
        assert isinstance(notice, Notice)
        assert "live transcript" in notice.text
        await heard.until(lambda event: isinstance(event, AgentAudio))
        await speak(heard.transport)  # the agent says good-bye, and the gateway tells the end
        assert (await heard.end()).reason is EndReason.AGENT_ENDED


async def test_lost_and_late_packets_are_measured_and_survived(line: GatewayLine) -> None:
    await line.plays(greeting=LONG, turns=[{"heard": "Still there?", "say": "Yes, still here."}])
    async with opened(line) as heard:
        rng = random.Random(3)
        peer = heard.transport._peer  # type: ignore[attr-defined]
        for ice in {each.receiver.transport.transport for each in peer._pc.getTransceivers()}:
            ice._recv = _bad_line(ice._recv, rng)
        found = await heard.until(
            lambda event: isinstance(event, Quality) and bool(event.loss_percent) and bool(event.jitter_ms)
        )
        assert isinstance(found, Quality)
        assert found.loss_percent is not None
        assert found.jitter_ms is not None
        assert 1 <= found.loss_percent <= 40
        await speak(heard.transport)
        await heard.until(
            lambda event: isinstance(event, AgentSpeech) and event.text == "Yes, still here." and event.final
        )
        assert level(voice(heard.events, 2)) > 500
        assert not [e for e in heard.of(StateChanged) if e.state is CallState.RECONNECTING]  # type: ignore[union-attr]


def _bad_line(receive: Callable[[], Awaitable[bytes]], rng: random.Random) -> Callable[[], Awaitable[bytes]]:
    """One packet of ten is lost, and each is up to 30 ms late."""

    async def received() -> bytes:
        while True:
            data = await receive()
            if rng.random() >= 0.1:
                await asyncio.sleep(rng.uniform(0, 0.03))
                return data

    return received
