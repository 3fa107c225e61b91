"""ElevenLabs over WebRTC against the LiveKit stand-in: the real livekit client, UDP, Opus, data packets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from services.calls.access import VendorAccess
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    ApprovalWanted,
    Connected,
    Cost,
    Interrupted,
    Quality,
    StateChanged,
    ToolEnded,
    ToolStarted,
    UserSpeech,
)
from services.calls.model import Brief, CallState, EndReason
from services.calls.transport import AgentAudio
from services.calls.transports.elevenlabs_livekit import ElevenLabsLivekit, LivekitTimes
from services.errors import ServiceError
from services.model import Provider
from tests.services.calls.transports.contract import Heard, Line, TransportContract, nothing_left, opened
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.webrtc_talk import LONG, QUICK, simulator_process, sounds_like, speak

ROOT = Path(__file__).parents[4]
GREETING = "Hello, this is the clinic."
TIMES = LivekitTimes(reconnect=1.0)


class LivekitLine(Line):
    """A simulated ElevenLabs that answers, and leaves the room when it is told good-bye."""

    can: ClassVar[frozenset[str]] = frozenset({"agent_speaks", "agent_ends", "drop", "refuse", "stall"})
    refuse_reasons = frozenset({EndReason.AUTHENTICATION})

    def __init__(self, simulator: RunningSimulator, agent_id: str, stack: contextlib.AsyncExitStack) -> None:
        self.simulator, self.agent_id, self._stack = simulator, agent_id, stack
        self.key = simulator.key
        self.tools: tuple[str, ...] = ()
        self.strict = ""
        """An agent that permits no override."""

    async def plays(self, **script: Any) -> None:
        """What the next conversation is like."""
        await self.simulator.script({**QUICK, **script})

    def transport(self) -> ElevenLabsLivekit:
        access = VendorAccess(Provider.ELEVENLABS, self.simulator.elevenlabs_url, self.key)
        return ElevenLabsLivekit(access, self.agent_id, tools=self.tools, times=TIMES)

    async def agent_speaks(self, heard: Heard) -> str:
        await heard.until(lambda event: isinstance(event, AgentSpeech))
        return GREETING

    async def agent_ends(self, heard: Heard) -> None:
        await heard.transport.send_text("bye")

    async def drop(self) -> None:
        await self._stack.aclose()

    async def refuse(self) -> None:
        self.key = "not-the-key-0000"
        await self.simulator.fault("revoke:elevenlabs")

    async def stall(self) -> None:
        await self.simulator.fault("hang:elevenlabs")


@pytest.fixture
async def line() -> AsyncIterator[LivekitLine]:
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(running_simulator(agents=12, seed=7))
        agents = await simulator.agents("elevenlabs")
        found = LivekitLine(simulator, agents[0]["agent_id"], stack)
        found.strict = agents[5]["agent_id"]
        bye = {"hear": "bye", "say": "Good bye.", "end": True}
        await found.plays(greeting=GREETING, turns=[bye, {"hear": "open", "say": "At eight."}])
        yield found


class TestLivekit(TransportContract):
    """The contract of all transports."""

    @pytest.fixture
    async def line(self, line: LivekitLine) -> LivekitLine:
        return line


async def test_a_whole_spoken_turn(line: LivekitLine) -> None:
    answer = "We open at eight in the morning."
    await line.plays(greeting=GREETING, turns=[{"say": answer}])
    async with opened(line) as heard:
        connected = heard.of(Connected)[0]
        assert isinstance(connected, Connected)
        assert connected.conversation_id.startswith("conv_")
        assert (connected.input_rate, connected.output_rate, connected.output_format) == (
            48000,
            48000,
            "opus",
        )
        greeted = await heard.until(lambda event: isinstance(event, AgentSpeech))
        await _quiet(heard)
        assert sounds_like(heard.events, GREETING, greeted.event_id)  # type: ignore[union-attr]
        await speak(heard.transport, 700)
        user = await heard.until(lambda event: isinstance(event, UserSpeech) and event.final)
        assert isinstance(user, UserSpeech)
        # What the simulated ear heard of our 0.7 s: the length of the speech in it.
        assert user.text in ("(spoken, 0.7 s)", "(spoken, 0.8 s)")
        said = await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == answer)
        await _quiet(heard)
        assert sounds_like(heard.events, answer, said.event_id)  # type: ignore[union-attr]


async def _quiet(heard: Heard) -> None:
    """Until the agent has said what it had to say: no audio for half a second."""
    seen = -1
    while seen != len(heard.of(AgentAudio)) or not seen:
        seen = len(heard.of(AgentAudio))
        await asyncio.sleep(0.5)


async def test_barge_in(line: LivekitLine) -> None:
    await line.plays(greeting=LONG, turns=[{"heard": "Stop", "say": "Yes?"}])
    async with opened(line) as heard:
        first = await heard.until(lambda event: isinstance(event, AgentSpeech))
        await heard.until(lambda event: isinstance(event, AgentAudio))
        await speak(heard.transport, 500)
        cut = await heard.until(lambda event: isinstance(event, Interrupted))
        corrected = await heard.until(lambda event: isinstance(event, AgentCorrected))
        assert isinstance(corrected, AgentCorrected)
        assert corrected.event_id == first.event_id  # type: ignore[union-attr]
        assert LONG.startswith(corrected.corrected.rstrip("…"))
        second = await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == "Yes?")
        await _quiet(heard)
        behind = heard.events[heard.events.index(cut) :]
        assert first.event_id not in {e.event_id for e in behind if isinstance(e, AgentAudio)}  # type: ignore[union-attr]
        assert sounds_like(behind, "Yes?", second.event_id)  # type: ignore[union-attr]


@pytest.mark.parametrize("result", ["0", "", "nothing at eight"])
async def test_a_client_tool(line: LivekitLine, result: str) -> None:
    line.tools = ("look_up",)
    tool = {"name": "look_up", "arguments": {"day": 3}, "where": "client"}
    await line.plays(turns=[{"tool": tool, "say": "It said <{result}>."}])
    async with opened(line) as heard:
        await heard.transport.send_text("What is free?")
        started = await heard.until(lambda event: isinstance(event, ToolStarted))
        assert isinstance(started, ToolStarted)
        assert (started.name, started.arguments, started.where) == ("look_up", {"day": 3}, "client")
        await heard.transport.send_tool_result(started.tool_id, result, True)
        await heard.until(
            lambda event: isinstance(event, AgentSpeech) and event.text == f"It said <{result}>."
        )


async def test_an_approval(line: LivekitLine) -> None:
    tool = {"name": "pay", "arguments": {}, "where": "mcp", "needs_approval": True, "result": "paid"}
    await line.plays(turns=[{"tool": tool, "say": "Done."}])
    async with opened(line) as heard:
        await heard.transport.send_text("Pay.")
        wanted = await heard.until(lambda event: isinstance(event, ApprovalWanted))
        await heard.transport.approve(wanted.tool_id, True)  # type: ignore[union-attr]
        ended = await heard.until(lambda event: isinstance(event, ToolEnded))
        assert ended.ok  # type: ignore[union-attr]
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == "Done.")


async def test_context_and_activity_arrive(line: LivekitLine) -> None:
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentSpeech))
        await heard.transport.send_context("It rains.")
        await heard.transport.send_activity()
        await heard.transport.send_text("When do you open?")
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == "At eight.")
    talk = (await line.simulator.conversations())[-1]
    counts = talk["frames"]
    assert counts["user_activity"] == 1
    assert counts["conversation_initiation_client_data"] == 1
    assert "user_audio_chunk" not in counts
    assert talk["context"] == ["It rains."]
    assert talk["transport"] == "livekit"


async def test_figures_after_the_end(line: LivekitLine) -> None:
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentSpeech))
        await heard.transport.send_text("bye")
        await heard.end()
        told = await heard.transport.aftermath()
    assert any(isinstance(message, Cost) and message.final for message in told), told


async def test_a_refused_override_says_which(line: LivekitLine) -> None:
    line.agent_id = line.strict
    line.brief = Brief(overrides={"tts": {"voice_id": "another-voice"}})
    transport = line.transport()
    heard = Heard(transport)
    with contextlib.suppress(ServiceError):
        await transport.open(line.brief)
    ended = await heard.end()
    await transport.close()
    assert ended.reason is EndReason.OVERRIDE_REFUSED
    assert "voice_id" in ended.detail


async def test_a_prompt_too_large_for_a_packet(line: LivekitLine) -> None:
    transport = line.transport()
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief(system_prompt="word " * 20_000))
    assert caught.value.code == "not_allowed"
    assert await line.simulator.conversations() == []


async def test_figures_of_the_line(line: LivekitLine) -> None:
    async with opened(line) as heard:
        found = await heard.until(lambda event: isinstance(event, Quality) and event.jitter_ms is not None)
        assert isinstance(found, Quality)
        assert found.loss_percent is not None
        assert 0 <= found.loss_percent <= 100


@pytest.mark.parametrize("how", ["crash", "garbage"])
async def test_an_agent_that_breaks(line: LivekitLine, how: str) -> None:
    await line.plays(turns=[{"say": "First.", "hang": {"how": how}}, {"say": "Second."}])
    async with opened(line) as heard:
        await heard.transport.send_text("one")
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == "First.")
        if how == "garbage":
            await heard.transport.send_text("two")
            await heard.until(lambda event: isinstance(event, AgentSpeech) and event.text == "Second.")
        else:
            ended = await heard.end()
            assert ended.reason is EndReason.CONNECTION_LOST


async def test_a_killed_server_ends_the_call_with_a_reason(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    with simulator_process(tmp_path, ROOT) as (process, urls):
        simulator = RunningSimulator(urls["retell"], urls["elevenlabs"], urls["twilio"], urls["key"])
        agent = (await simulator.agents("elevenlabs"))[0]
        await simulator.script({**QUICK, "greeting": LONG})
        access = VendorAccess(Provider.ELEVENLABS, simulator.elevenlabs_url, simulator.key)
        transport = ElevenLabsLivekit(access, agent["agent_id"], times=TIMES)
        heard = Heard(transport)
        await transport.open(Brief())
        await heard.until(lambda event: isinstance(event, AgentAudio))
        process.kill()
        ended = await heard.end()
        await transport.close()
    assert ended.reason is EndReason.CONNECTION_LOST
    assert ended.by == "vendor"
    assert CallState.RECONNECTING in [e.state for e in heard.of(StateChanged)]  # type: ignore[union-attr]
    await nothing_left(before)


async def test_nothing_answers_at_the_media_server(line: LivekitLine) -> None:
    access = VendorAccess(Provider.ELEVENLABS, line.simulator.elevenlabs_url, line.key)
    transport = ElevenLabsLivekit(access, line.agent_id, livekit_url="ws://127.0.0.1:9", times=TIMES)
    before = asyncio.all_tasks()
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief())
    assert caught.value.code == "unreachable"
    await nothing_left(before)


async def test_hanging_up_while_the_media_server_is_silent(line: LivekitLine) -> None:
    """Nothing is left of the attempt but what livekit does in its own threads."""
    from livekit.rtc._ffi_client import FfiClient

    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    before = asyncio.all_tasks()
    subscribers = len(FfiClient.instance.queue._subscribers)
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    access = VendorAccess(Provider.ELEVENLABS, line.simulator.elevenlabs_url, line.key)
    transport = ElevenLabsLivekit(access, line.agent_id, livekit_url=f"ws://127.0.0.1:{port}", times=TIMES)
    opening = asyncio.create_task(transport.open(Brief()))
    async with asyncio.timeout(20):
        await asked.wait()
        await transport.close()
        await opening
    assert len(FfiClient.instance.queue._subscribers) == subscribers
    server.close()
    await nothing_left(before)


async def test_a_call_leaves_nothing_in_livekit(line: LivekitLine) -> None:
    from livekit.rtc._ffi_client import FfiClient

    subscribers = len(FfiClient.instance.queue._subscribers)
    async with opened(line) as heard:
        await heard.until(lambda event: isinstance(event, AgentAudio))
        assert len(FfiClient.instance.queue._subscribers) > subscribers
    assert len(FfiClient.instance.queue._subscribers) == subscribers
