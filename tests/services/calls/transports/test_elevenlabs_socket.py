"""ElevenLabs' conversation socket against the simulator, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from services.calls.access import VendorAccess
from services.calls.audio.formats import parse_format
from services.calls.elevenlabs_rest import ElevenLabsRest
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    ApprovalWanted,
    Connected,
    Cost,
    Ended,
    Interrupted,
    Notice,
    Quality,
    ToolEnded,
    ToolStarted,
    UserSpeech,
)
from services.calls.model import Brief, EndReason, TransportKind
from services.calls.transport import AgentAudio, TransportEvent
from services.calls.transports import elevenlabs_socket
from services.calls.transports.elevenlabs_socket import ElevenLabsSocket
from services.errors import ServiceError
from services.model import Provider
from services.simulator import speech
from tests.services.calls.transports.contract import Heard, Line, TransportContract, nothing_left, opened
from tests.support.rawserver import raw_server, reply, self_signed
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.webrtc_talk import LONG, QUICK, simulator_process

ROOT = Path(__file__).parents[4]
GREETING = "Hello, this is the clinic."
BYE = {"hear": "bye", "say": "Good bye.", "end": True}
FORMATS = ["pcm_8000", "pcm_16000", "pcm_22050", "pcm_24000", "pcm_44100", "pcm_48000", "ulaw_8000"]


class SocketLine(Line):
    """A simulated ElevenLabs that answers, and ends the conversation when it is told good-bye."""

    can: ClassVar[frozenset[str]] = frozenset({"agent_speaks", "agent_ends", "drop", "refuse", "stall"})
    refuse_reasons = frozenset({EndReason.AUTHENTICATION})

    def __init__(
        self, simulator: RunningSimulator, agents: list[str], stack: contextlib.AsyncExitStack
    ) -> None:
        self.simulator, self._stack = simulator, stack
        self.agent_id = agents[1]
        """Public, permits every override."""
        self.closed_agent = agents[0]
        """Needs a signed address."""
        self.strict = agents[3]
        """Permits no override."""
        self.key = simulator.key
        self.options: dict[str, Any] = {}

    async def plays(self, **script: Any) -> None:
        """What the next conversation is like."""
        await self.simulator.script({**QUICK, **script})

    async def configure(self, **conversation_config: Any) -> None:
        """Change the agent as in the vendor's dashboard."""
        await self.simulator.edit(self.agent_id, conversation_config=conversation_config)

    @property
    def access(self) -> VendorAccess:
        return VendorAccess(Provider.ELEVENLABS, self.simulator.elevenlabs_url, self.key)

    def transport(self) -> ElevenLabsSocket:
        return ElevenLabsSocket(self.access, self.agent_id, **self.options)

    async def agent_speaks(self, heard: Heard) -> str:
        await heard.until(lambda event: isinstance(event, AgentSpeech) and event.final)
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

    async def opening(self, brief: Brief) -> ServiceError:
        """The refusal of a conversation, after checking that it is over and nothing is left."""
        before = asyncio.all_tasks()
        transport = self.transport()
        heard = Heard(transport)
        with pytest.raises(ServiceError) as caught:
            await transport.open(brief)
        await heard.end()
        await transport.close()
        await nothing_left(before)
        return caught.value


@pytest.fixture
async def line() -> AsyncIterator[SocketLine]:
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(running_simulator(agents=12, seed=7))
        agents = [agent["agent_id"] for agent in await simulator.agents("elevenlabs")]
        found = SocketLine(simulator, agents, stack)
        await found.plays(greeting=GREETING, turns=[BYE, {"hear": "open", "say": "At eight."}])
        yield found


class TestMicrophone(TransportContract):
    """The contract of all transports."""

    @pytest.fixture
    async def line(self, line: SocketLine) -> SocketLine:
        return line


class TestText(TransportContract):
    """The same without audio."""

    @pytest.fixture
    async def line(self, line: SocketLine) -> SocketLine:
        line.options = {"text_only": True}
        return line


# -- the means ----------------------------------------------------------------------------------------


def is_said(text: str) -> Any:
    return lambda event: isinstance(event, AgentSpeech) and event.final and event.text == text


def voice(events: list[TransportEvent], event_id: int | None) -> bytes:
    return b"".join(e.pcm for e in events if isinstance(e, AgentAudio) and e.event_id == event_id)


async def heard_whole(heard: Heard, text: str, rate: int) -> bytes:
    """The sound of an answer, once all of it has arrived."""
    said = await heard.until(is_said(text))
    wanted = len(speech.tones(text, rate))
    await heard.until(lambda _: len(voice(heard.events, said.event_id)) >= wanted)  # type: ignore[union-attr]
    return voice(heard.events, said.event_id)  # type: ignore[union-attr]


async def speak(heard: Heard, ms: int = 500, quiet_ms: int = 300) -> None:
    """A turn of the user: a tone and the silence that ends it, in frames as a microphone gives them."""
    connected = heard.of(Connected)[0]
    assert isinstance(connected, Connected)
    rate = connected.input_rate
    moments = np.arange(rate * ms // 1000) / rate
    pcm = (9000 * np.sin(2 * np.pi * 300 * moments)).astype("<i2").tobytes() + bytes(
        rate * quiet_ms // 1000 * 2
    )
    frame = rate // 50 * 2
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(len(pcm) // frame):
        await heard.transport.send_audio(pcm[number * frame : (number + 1) * frame])
        await asyncio.sleep(max(0.0, began + (number + 1) * 0.02 - loop.time()))


def notices(heard: Heard) -> list[Notice]:
    return [event for event in heard.events if isinstance(event, Notice)]


# -- talking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS)
async def test_a_spoken_turn_in_every_format(line: SocketLine, fmt: str) -> None:
    await line.configure(tts={"agent_output_audio_format": fmt}, asr={"user_input_audio_format": fmt})
    answer = "We open at eight."
    await line.plays(greeting="Hello there", turns=[{"say": answer}], pace=4)
    form = parse_format(fmt)
    async with opened(line) as heard:
        assert heard.of(Connected)[0] == Connected(
            heard.of(Connected)[0].conversation_id,  # type: ignore[union-attr]
            form.rate,
            form.rate,
            fmt,
            fmt,
        )
        for text in ("Hello there", answer):
            wanted = form.decode(speech.encode(speech.tones(text, form.rate), form.rate, fmt))
            assert await heard_whole(heard, text, form.rate) == wanted
            if text != answer:
                await speak(heard, 600)
        user = await heard.until(lambda event: isinstance(event, UserSpeech) and event.final)
        # What the simulated ear heard of our 0.6 s: the length of the speech in it.
        assert user.text in ("(spoken, 0.6 s)", "(spoken, 0.7 s)")  # type: ignore[union-attr]
        partials = [e for e in heard.of(UserSpeech) if not e.final]  # type: ignore[union-attr]
        assert partials
    talk = (await line.simulator.conversations())[-1]
    assert talk["frames"]["user_audio_chunk"] == 45
    assert talk["audio_ms"] == pytest.approx(900, abs=5)
    assert talk["end_code"] == 1000


async def test_barge_in(line: SocketLine) -> None:
    await line.plays(greeting=LONG, turns=[{"heard": "Stop", "say": "Yes?"}])
    async with opened(line) as heard:
        first = await heard.until(is_said(LONG))
        await heard.until(lambda event: isinstance(event, AgentAudio))
        await speak(heard, 400)
        cut = await heard.until(lambda event: isinstance(event, Interrupted))
        corrected = await heard.until(lambda event: isinstance(event, AgentCorrected))
        await heard_whole(heard, "Yes?", 16_000)
    second = next(event for event in heard.events if is_said("Yes?")(event))
    number = first.event_id  # type: ignore[union-attr]
    assert cut == Interrupted(number)
    assert isinstance(corrected, AgentCorrected)
    assert corrected.event_id == number
    assert LONG.startswith(corrected.corrected.rstrip("…"))
    behind = heard.events[heard.events.index(cut) :]
    assert {e.event_id for e in behind if isinstance(e, AgentAudio)} == {second.event_id}  # type: ignore[union-attr]
    assert second.event_id > number  # type: ignore[union-attr]


async def test_typing_over_the_agent(line: SocketLine) -> None:
    await line.plays(greeting=LONG, turns=[{"say": "Yes?"}])
    async with opened(line) as heard:
        first = await heard.until(is_said(LONG))
        await heard.until(lambda event: isinstance(event, AgentAudio))
        await heard.transport.send_text("Stop")
        cut = await heard.until(lambda event: isinstance(event, Interrupted))
        assert cut == Interrupted(first.event_id)  # type: ignore[union-attr]
        await heard.until(is_said("Yes?"))


async def test_a_typed_conversation_has_no_audio_anywhere(line: SocketLine) -> None:
    line.options = {"text_only": True}
    async with opened(line) as heard:
        assert heard.transport.kind is TransportKind.TEXT
        await heard.until(is_said(GREETING))
        await heard.transport.send_text("When are you open?")
        await heard.until(is_said("At eight."))
        texts = [e for e in heard.of(AgentSpeech) if not e.final]  # type: ignore[union-attr]
        assert texts, "the answer streams in"
        with pytest.raises(ServiceError):
            await heard.transport.send_audio(bytes(640))
        await heard.transport.send_text("bye")
        assert (await heard.end()).reason is EndReason.AGENT_ENDED
    assert not heard.of(AgentAudio)
    talk = (await line.simulator.conversations())[-1]
    assert talk["text_only"] is True
    assert talk["initiation"]["conversation_config_override"] == {"conversation": {"text_only": True}}


async def test_what_the_brief_says_arrives(line: SocketLine) -> None:
    brief = Brief(
        first_message="Hello {{customer_name}}!",
        system_prompt="Be brief.",
        variables={"customer_name": "Ada"},
        user_id="u7",
    )
    await line.simulator.script({**QUICK})
    line.brief = brief
    async with opened(line) as heard:
        await heard.until(is_said("Hello Ada!"))
    first = (await line.simulator.conversations())[-1]["initiation"]
    assert first["user_id"] == "u7"
    assert first["dynamic_variables"] == {"customer_name": "Ada"}
    assert first["conversation_config_override"]["agent"]["prompt"] == {"prompt": "Be brief."}
    assert first["source_info"]["source"] == "callboard"


async def test_context_activity_feedback_and_round_trip(line: SocketLine) -> None:
    await line.plays(greeting=GREETING, turns=[{"say": "At eight."}], ping_every_ms=50)
    async with opened(line) as heard:
        transport = heard.transport
        assert isinstance(transport, ElevenLabsSocket)
        said = await heard.until(is_said(GREETING))
        await transport.send_context("It rains.")
        await transport.send_activity()
        await transport.send_feedback(said.event_id, True)  # type: ignore[union-attr,arg-type]
        await heard.until(lambda event: isinstance(event, Quality) and event.round_trip_ms is not None)
        await transport.send_text("When do you open?")
        await heard.until(is_said("At eight."))
    talk = (await line.simulator.conversations())[-1]
    assert talk["context"] == ["It rains."]
    assert talk["frames"]["user_activity"] == 1
    assert talk["frames"]["pong"] >= 2
    assert [item["score"] for item in talk["feedback"]] == ["like"]


@pytest.mark.parametrize(("result", "ok"), [("0", True), ("", True), ('{"a": null}', True), ("no", False)])
async def test_a_client_tool(line: SocketLine, result: str, ok: bool) -> None:
    line.options = {"text_only": True, "tools": ("look_up",)}
    tool = {"name": "look_up", "arguments": {"day": 3}, "where": "client", "on_error": "It failed."}
    await line.plays(greeting="", turns=[{"tool": tool, "say": "It said <{result}>."}])
    async with opened(line) as heard:
        await heard.transport.send_text("What is free?")
        started = await heard.until(lambda event: isinstance(event, ToolStarted))
        assert isinstance(started, ToolStarted)
        assert (started.name, started.arguments, started.where) == ("look_up", {"day": 3}, "client")
        await heard.transport.send_tool_result(started.tool_id, result, ok)
        await heard.until(is_said(f"It said <{result}>." if ok else "It failed."))
        assert not heard.of(ToolEnded)  # ours to tell


@pytest.mark.parametrize("approved", [True, False])
async def test_an_approval(line: SocketLine, approved: bool) -> None:
    line.options = {"text_only": True}
    tool = {
        "name": "pay",
        "arguments": {"sum": 3},
        "where": "mcp",
        "needs_approval": True,
        "result": "paid",
        "on_error": "Then not.",
    }
    await line.plays(greeting="", turns=[{"tool": tool, "say": "Done."}])
    async with opened(line) as heard:
        await heard.transport.send_text("Pay.")
        wanted = await heard.until(lambda event: isinstance(event, ApprovalWanted))
        assert isinstance(wanted, ApprovalWanted)
        assert (wanted.name, wanted.arguments, wanted.timeout_ms) == ("pay", {"sum": 3}, 5000)
        await heard.transport.approve(wanted.tool_id, approved)
        ended = await heard.until(lambda event: isinstance(event, ToolEnded))
        assert isinstance(ended, ToolEnded)
        assert ended.ok is approved
        assert ended.result == ("paid" if approved else "The tool call was not approved.")
        await heard.until(is_said("Done." if approved else "Then not."))


async def test_cost_is_told_afterwards(line: SocketLine) -> None:
    async with opened(line) as heard:
        await heard.transport.send_text("bye")
        await heard.end()
    costs = [item for item in await heard.transport.aftermath() if isinstance(item, Cost)]
    assert [(cost.currency, cost.final) for cost in costs] == [("USD", True)]


# -- who may ------------------------------------------------------------------------------------------


async def test_a_public_agent_needs_no_key(line: SocketLine) -> None:
    line.options = {"public": True}
    line.key = "not-the-key-0000"
    async with opened(line) as heard:
        await heard.until(is_said(GREETING))


@pytest.mark.parametrize("public", [False, True])
async def test_an_agent_that_asks_for_a_signed_address(line: SocketLine, public: bool) -> None:
    """Also when it was public as far as we knew."""
    line.agent_id = line.closed_agent
    line.options = {"public": public, "text_only": True}
    async with opened(line) as heard:
        await heard.until(is_said(GREETING))
        assert len(heard.of(Connected)) == 1


async def test_an_expired_signed_address(line: SocketLine, monkeypatch: pytest.MonkeyPatch) -> None:
    line.agent_id = line.closed_agent
    good = await ElevenLabsRest(line.access).signed_url(line.agent_id)

    async def stale(*_: Any, **__: Any) -> str:
        return good[:-4] + "0000"

    monkeypatch.setattr(ElevenLabsRest, "signed_url", stale)
    caught = await line.opening(Brief())
    assert "expired" in caught.message
    assert "signature" not in caught.message


async def test_no_signed_address_is_ever_logged(line: SocketLine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    line.agent_id = line.closed_agent
    line.options = {"text_only": True}
    async with opened(line) as heard:
        await heard.until(is_said(GREETING))
    mine = [
        r.getMessage() for r in caplog.records if not r.name.startswith(("services.simulator", "uvicorn"))
    ]
    assert not [text for text in mine if "signature=" in text or line.key in text]


@pytest.mark.parametrize(
    ("brief", "options", "code", "words"),
    [
        (Brief(overrides={"tts": {"voice_id": "v"}}), {}, "override_refused", "“voice_id”"),
        (Brief(system_prompt="Be kind."), {}, "override_refused", "“prompt”"),
        (Brief(), {"text_only": True}, "override_refused", "text only"),
        (Brief(first_message="Hi {{who}}"), {"loose": True}, "missing_variable", "“who”"),
    ],
)
async def test_what_the_agent_does_not_allow(
    line: SocketLine, brief: Brief, options: dict[str, Any], code: str, words: str
) -> None:
    options = dict(options)
    if not options.pop("loose", False):
        line.agent_id = line.strict
    line.options = options
    caught = await line.opening(brief)
    assert caught.code == code
    assert words in caught.message
    assert caught.advice


async def test_an_agent_that_is_gone(line: SocketLine) -> None:
    line.agent_id = "agent_nobody"
    line.options = {"public": True}
    caught = await line.opening(Brief())
    assert "does not exist" in caught.message


# -- how it breaks ------------------------------------------------------------------------------------


async def end_of(line: SocketLine, hang: dict[str, Any], **script: Any) -> tuple[Ended, Heard]:
    """What becomes of a conversation in which the agent does this instead of answering."""
    line.options = {"text_only": True, **line.options}
    await line.plays(greeting="", turns=[{"hang": hang}], **script)
    async with opened(line) as heard:
        if "ping_every_ms" in script:
            await pinged(heard)
        await heard.transport.send_text("hello")
        return await heard.end(), heard


async def pinged(heard: Heard) -> None:
    """Until the vendor has shown that it pings more than once."""
    await heard.until(lambda event: isinstance(event, Quality))


async def test_the_vendors_words_for_a_close_are_shown(line: SocketLine) -> None:
    ended, heard = await end_of(line, {"how": "close", "code": 1011, "reason": "The brain is on fire."})
    assert (ended.reason, ended.by, ended.code) == (EndReason.VENDOR_ERROR, "vendor", 1011)
    assert "The brain is on fire" in ended.detail
    assert any("on fire" in notice.text for notice in notices(heard))


async def test_a_crash_is_a_lost_connection(line: SocketLine) -> None:
    ended, heard = await end_of(line, {"how": "crash"})
    assert ended.reason is EndReason.CONNECTION_LOST
    assert any("cannot take a conversation up again" in notice.advice for notice in notices(heard))


async def test_a_frame_of_16_mib_ends_it_in_plain_words(line: SocketLine) -> None:
    ended, _ = await end_of(line, {"how": "huge"})
    assert ended.reason is EndReason.PROTOCOL_ERROR
    assert "16 MiB" in ended.detail


async def test_garbage_is_passed_over(line: SocketLine) -> None:
    line.options = {"text_only": True}
    await line.plays(greeting="", turns=[{"say": "First.", "hang": {"how": "garbage"}}, {"say": "Second."}])
    async with opened(line) as heard:
        await heard.transport.send_text("one")
        await heard.until(lambda event: isinstance(event, Notice) and "passed over" in event.text)
        await heard.transport.send_text("two")
        await heard.until(is_said("Second."))


async def test_unknown_frames_are_passed_over(line: SocketLine) -> None:
    frame = {"type": "agent_dances", "dance": {"style": "waltz"}}
    await line.plays(greeting="Hello.", frames=[frame, {"no": "type"}], turns=[{"say": "Yes."}])
    async with opened(line) as heard:
        await heard.transport.send_text("hello")
        await heard.until(is_said("Yes."))


async def test_the_longest_duration(line: SocketLine) -> None:
    line.options = {"text_only": True}
    await line.plays(greeting="Hello.", max_duration_ms=200)
    async with opened(line) as heard:
        ended = await heard.end()
    assert (ended.reason, ended.by) == (EndReason.MAX_DURATION, "vendor")


async def test_a_stall_is_told_and_then_ends_it(line: SocketLine) -> None:
    line.options = {"quiet_after": 0.3, "give_up_after": 1.2}
    ended, heard = await end_of(line, {"how": "stall", "ms": 60_000}, ping_every_ms=50)
    assert ended.reason is EndReason.TIMEOUT
    assert ended.by == "us"
    told = [notice.text for notice in notices(heard)]
    assert sum("Nothing has been heard" in text for text in told) == 1


async def test_a_vendor_that_pings_no_more_is_not_hung_up_on(line: SocketLine) -> None:
    """It may have nothing to say. That an answer takes long is told all the same."""
    line.options = {"text_only": True, "quiet_after": 0.2, "give_up_after": 0.5}
    hang = {"how": "stall", "ms": 1200}
    await line.plays(greeting="", turns=[{"hang": hang}, {"say": "Here I am."}], ping_every_ms=0)
    async with opened(line) as heard:
        await heard.transport.send_text("hello")
        await heard.until(lambda event: isinstance(event, Notice) and "Nothing has been" in event.text)
        await heard.transport.send_text("hello?")
        await heard.until(is_said("Here I am."))


async def test_a_stall_that_passes_is_survived(line: SocketLine) -> None:
    line.options = {"text_only": True, "quiet_after": 0.3, "give_up_after": 30}
    hang = {"how": "stall", "ms": 1500}
    await line.plays(greeting="", turns=[{"hang": hang}, {"say": "Still here."}], ping_every_ms=50)
    async with opened(line) as heard:
        await pinged(heard)
        await heard.transport.send_text("hello")
        await heard.until(lambda event: isinstance(event, Notice) and "Nothing has been" in event.text)
        await heard.until(lambda event: isinstance(event, Notice) and "heard again" in event.text)
        await heard.transport.send_text("hello?")
        await heard.until(is_said("Still here."))


async def test_audio_in_another_format_than_announced_is_noticed(line: SocketLine) -> None:
    await line.plays(greeting="Hello.", turns=[{"hang": {"how": "wrong_format"}}, {"say": LONG}], pace=4)
    async with opened(line) as heard:
        await heard.transport.send_text("one")
        await heard.transport.send_text("two")
        found = await heard.until(lambda event: isinstance(event, Notice) and event.level == "act")
        assert "pcm_16000" in found.text  # type: ignore[union-attr]


async def test_a_killed_server_ends_the_call_with_a_reason(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    with simulator_process(tmp_path, ROOT) as (process, urls):
        simulator = RunningSimulator(urls["retell"], urls["elevenlabs"], urls["twilio"], urls["key"])
        agent = (await simulator.agents("elevenlabs"))[0]
        await simulator.script({**QUICK, "greeting": LONG})
        access = VendorAccess(Provider.ELEVENLABS, simulator.elevenlabs_url, simulator.key)
        transport = ElevenLabsSocket(access, agent["agent_id"])
        heard = Heard(transport)
        await transport.open(Brief())
        await heard.until(lambda event: isinstance(event, AgentAudio))
        process.kill()
        ended = await heard.end()
        await transport.close()
    assert ended.reason is EndReason.CONNECTION_LOST
    await nothing_left(before)


# -- servers that are none ----------------------------------------------------------------------------


def at(url: str, **options: Any) -> ElevenLabsSocket:
    access = VendorAccess(Provider.ELEVENLABS, url.replace("ws://", "http://"), "key-0123456789")
    return ElevenLabsSocket(access, "agent_1", **{"public": True, **options})


async def refused(transport: ElevenLabsSocket) -> tuple[ServiceError, Ended]:
    before = asyncio.all_tasks()
    heard = Heard(transport)
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief())
    ended = await heard.end()
    await nothing_left(before)
    return caught.value, ended


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (reply({"detail": "no"}, status=404), "not_found", EndReason.VENDOR_ERROR),
        (reply({}, status=429), "rate_limited", EndReason.LIMIT),
        (reply({}, status=503), "server_error", EndReason.VENDOR_ERROR),
        (reply({"hello": 1}), "refused", None),
    ],
)
async def test_an_answer_that_is_no_socket(answer: Any, code: str, reason: EndReason | None) -> None:
    async with raw_server(lambda _: answer) as server:
        caught, ended = await refused(at(server.url))
    if reason is not None:
        assert (caught.code, ended.reason) == (code, reason)
    assert caught.message


async def test_nobody_listens() -> None:
    async with raw_server(lambda _: reply({})) as server:
        pass
    caught, ended = await refused(at(server.url))
    assert (caught.code, ended.reason) == ("unreachable", EndReason.UNREACHABLE)


async def test_a_certificate_nobody_trusts(tmp_path: Path) -> None:
    async with raw_server(lambda _: reply({}), tls=self_signed(tmp_path)) as server:
        caught, ended = await refused(at(server.url))
    assert (caught.code, ended.reason) == ("certificate", EndReason.UNREACHABLE)


async def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("socks_proxy", "socks5://127.0.0.1:9")
    caught, ended = await refused(at("https://api.example.invalid"))
    assert (caught.code, ended.reason) == ("unreachable", EndReason.UNREACHABLE)


@contextlib.asynccontextmanager
async def odd_server(*frames: str | bytes) -> AsyncIterator[str]:
    """A WebSocket server that says these frames and reads nothing."""
    over = asyncio.Event()

    async def handler(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                await socket.send(frame)
        waits = {asyncio.ensure_future(over.wait()), asyncio.ensure_future(socket.wait_closed())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        socket.transport.abort()
        for wait in pending:
            wait.cancel()
        await asyncio.wait(waits)

    async with serve(handler, "127.0.0.1", 0, max_queue=1) as server:
        try:
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        finally:
            over.set()


def begun(**formats: str) -> str:
    event = {
        "conversation_id": "conv_1",
        "agent_output_audio_format": "pcm_16000",
        "user_input_audio_format": "pcm_16000",
        **formats,
    }
    return json.dumps(
        {"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event": event}
    )


async def test_a_vendor_that_never_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs_socket, "OPEN_SECONDS", 0.3)
    async with odd_server() as url:
        caught, ended = await refused(at(url))
    assert (caught.code, ended.reason) == ("timeout", EndReason.TIMEOUT)


async def test_a_format_nobody_speaks() -> None:
    async with odd_server(begun(agent_output_audio_format="opus_48000")) as url:
        caught, ended = await refused(at(url))
    assert (caught.code, ended.reason) == ("unknown_format", EndReason.PROTOCOL_ERROR)


async def test_nothing_but_garbage() -> None:
    async with odd_server(begun(), *["{"] * 60) as url:
        transport = at(url)
        heard = Heard(transport)
        await transport.open(Brief())
        ended = await heard.end()
        await transport.close()
    assert ended.reason is EndReason.PROTOCOL_ERROR


async def test_bytes_that_are_no_text_are_passed_over() -> None:
    async with odd_server(
        begun(), b"\xff\xfe", json.dumps({"type": "ping", "ping_event": {"event_id": 1}})
    ) as url:
        transport = at(url)
        heard = Heard(transport)
        await transport.open(Brief())
        await heard.until(lambda event: isinstance(event, Notice))
        assert not transport.over
        await transport.close()
        await heard.end()


async def test_an_error_without_a_close_ends_it_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs_socket, "_GRACE_SECONDS", 0.2)
    error = {"type": "error", "error_event": {"code": 1011, "error_type": "llm_error", "message": "down"}}
    async with odd_server(begun(), json.dumps(error)) as url:
        transport = at(url, quiet_after=0.4)
        heard = Heard(transport)
        await transport.open(Brief())
        ended = await heard.end()
        await transport.close()
    assert (ended.reason, ended.code) == (EndReason.VENDOR_ERROR, 1011)
    assert len(notices(heard)) == 1


async def test_a_line_too_slow_for_the_microphone_drops_frames_and_never_waits() -> None:
    async with odd_server(begun()) as url:
        transport = at(url)
        heard = Heard(transport)
        await transport.open(Brief())
        async with asyncio.timeout(30):
            while not notices(heard):
                for _ in range(200):
                    await transport.send_audio(bytes(640))
                await asyncio.sleep(0)
        for _ in range(2000):
            await transport.send_audio(bytes(640))
        assert "too slow" in notices(heard)[0].text
        assert len(notices(heard)) == 1
        ws = transport._ws
        assert ws is not None
        assert ws.transport.get_write_buffer_size() < 60_000
        await transport.close()
        await heard.end()


async def test_a_reader_that_is_behind_holds_the_line_back() -> None:
    """A session that does not keep up gets no endless queue."""
    part = {"type": "user_transcript", "user_transcription_event": {"user_transcript": "x", "event_id": 1}}
    async with odd_server(begun(), *[json.dumps(part)] * 3000) as url:
        transport = at(url)
        await transport.open(Brief())
        for _ in range(50):
            await asyncio.sleep(0.01)
        assert len(transport._waiting) <= 520
        heard = Heard(transport)
        await heard.until(lambda _: len(heard.events) >= 3003)
        await transport.close()
        await heard.end()
