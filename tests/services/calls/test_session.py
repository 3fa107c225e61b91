"""A session over a transport that a test drives: messages, tools, phases, audio, the end."""

from __future__ import annotations

import asyncio
import json

import pytest

from services.calls.archive import read_messages
from services.calls.live import Who
from services.calls.messages import (
    AgentSpeech,
    ApprovalWanted,
    Cost,
    Ended,
    Interrupted,
    Message,
    StateChanged,
    ToolStarted,
    UserSpeech,
)
from services.calls.model import Brief, CallState, CallTarget, EndReason, Phase
from services.calls.recording import Recorder
from services.calls.session import CallSession
from services.calls.tools import ToolBox
from services.calls.transport import AgentAudio
from services.calls.virtual_audio import VirtualLine
from services.clock import SystemClock
from services.errors import Category, ServiceError
from tests.support.fake_transport import FakeTransport

TARGET = CallTarget(1, "agent_1", "Reception", "acme", "elevenlabs", 1)


class Call:
    """A running session and the means to wait for what it tells."""

    def __init__(self, folder, transport, brief=None, **options):
        self.transport = transport
        self.seen: list[Message] = []
        self._news = asyncio.Event()
        self.tools = ToolBox(SystemClock())
        self.recorder = Recorder(folder / "call", **options.pop("keep", {}))
        self.session = CallSession(
            "c1",
            TARGET,
            transport,
            brief or Brief(),
            clock=SystemClock(),
            tools=self.tools,
            recorder=self.recorder,
            **options,
        )
        self.recorder.on_problem = self.session.recording_stopped
        self.session.subscribe_messages(self._take)

    def _take(self, _t, message):
        self.seen.append(message)
        self._news.set()

    async def until(self, found):
        """Wait until a message satisfies; returns it."""
        async with asyncio.timeout(10):
            while True:
                for message in self.seen:
                    if found(message):
                        return message
                self._news.clear()
                await self._news.wait()

    async def __aenter__(self):
        await self.recorder.open({"id": "c1"}, {"subject": "me"})
        self.task = asyncio.create_task(self.session.run())
        return self

    async def __aexit__(self, *_):
        if not self.task.done():
            await self.session.end()
        await self.task
        await self.recorder.close({"id": "c1"})


def is_kind(kind):
    return lambda message: message.kind == kind


async def test_a_conversation_is_seen_and_recorded(tmp_path):
    transport = FakeTransport()
    async with Call(tmp_path, transport) as call:
        transport.tell(AgentSpeech("Good day", event_id=1))
        await call.until(is_kind("agent"))
        await call.session.say("  hello ")
        transport.tell(AgentSpeech("How can I help?", event_id=2))
        transport.over_now(EndReason.AGENT_ENDED)
        ended = await call.session.wait()
    assert ended.reason is EndReason.AGENT_ENDED
    assert ("text", "hello") in transport.sent
    texts = [(entry.who, entry.text) for entry in call.session.live.entries]
    assert texts == [(Who.AGENT, "Good day"), (Who.USER, "hello"), (Who.AGENT, "How can I help?")]
    assert [message for _, message in read_messages(tmp_path / "call")] == call.seen
    assert isinstance(call.seen[-1], Ended)


async def test_a_refused_opening_ends_with_its_reason_and_advice(tmp_path):
    refusal = ServiceError(
        "The key is wrong", category=Category.AUTHENTICATION, advice="Enter another", code="wrong_key"
    )
    async with Call(tmp_path, FakeTransport(refusal=refusal)) as call:
        ended = await call.session.wait()
    assert (ended.reason, ended.detail) == (EndReason.AUTHENTICATION, "The key is wrong")
    assert call.session.live.entries[-1].advice == "Enter another"


class SlowTransport(FakeTransport):
    """Says that it connects, and then takes as long as a test wants."""

    def __init__(self):
        super().__init__()
        self.answered = asyncio.Event()

    async def _open(self, brief):
        self._emit(StateChanged(CallState.RINGING, "ringing"))
        await self.answered.wait()
        await super()._open(brief)


async def test_ringing_is_seen_while_it_rings_and_may_be_hung_up(tmp_path):
    transport = SlowTransport()
    before = asyncio.all_tasks()
    async with Call(tmp_path, transport) as call:
        await call.until(lambda message: getattr(message, "state", None) is CallState.RINGING)
        await call.session.end()
    assert call.seen[-1] == Ended(EndReason.OPERATOR_ENDED, "", "operator")
    assert asyncio.all_tasks() == before


async def test_the_operator_ends_it_once(tmp_path):
    transport = FakeTransport()
    async with Call(tmp_path, transport) as call:
        await call.until(is_kind("connected"))
        await asyncio.gather(call.session.end(), call.session.end())
        await call.session.say("too late")
    assert [message for message in call.seen if isinstance(message, Ended)] == [
        Ended(EndReason.OPERATOR_ENDED, "", "operator")
    ]
    assert ("text", "too late") not in transport.sent


async def test_cancelling_it_hangs_up_and_leaves_nothing_running(tmp_path):
    transport = FakeTransport(rates=(16000, 16000))
    before = asyncio.all_tasks()
    async with Call(tmp_path, transport, open_audio=virtual()) as call:
        await call.until(is_kind("devices"))
        call.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.task
        assert transport.over
        assert call.session.live.ended is not None
        assert asyncio.all_tasks() == before
        call.task = asyncio.create_task(asyncio.sleep(0))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), ("", ""), (None, "null"), ({"a": [1]}, '{"a": [1]}'), ("ok", "ok")]
)
async def test_a_client_tool_answers_with_any_value(tmp_path, value, text):
    transport = FakeTransport()
    async with Call(tmp_path, transport) as call:
        call.tools.register("book", lambda arguments: value)
        transport.tell(ToolStarted("t1", "book", {"day": "thu"}, "client"))
        done = await call.until(is_kind("tool_ended"))
        assert (done.result, done.ok) == (text, True)
    assert ("tool", ("t1", text, True)) in transport.sent


async def test_a_client_tool_that_fails_or_is_unknown_says_so(tmp_path):
    def broken(arguments):
        raise LookupError("no such day")

    transport = FakeTransport()
    async with Call(tmp_path, transport) as call:
        call.tools.register("broken", broken)
        transport.tell(
            ToolStarted("t1", "broken", {}, "client"),
            ToolStarted("t2", "unknown", {}, "client"),
            ToolStarted("t3", "at_the_server", {}, "server"),
        )
        await call.until(
            lambda message: getattr(message, "tool_id", "") == "t1" and message.kind == "tool_ended"
        )
        await call.until(
            lambda message: getattr(message, "tool_id", "") == "t2" and message.kind == "tool_ended"
        )
    answers = {message.tool_id: message for message in call.seen if message.kind == "tool_ended"}
    assert not answers["t1"].ok
    assert "no such day" in answers["t1"].result
    assert "broken" in answers["t2"].result
    assert "t3" not in answers


async def test_an_approval_goes_to_the_transport(tmp_path):
    transport = FakeTransport()
    async with Call(tmp_path, transport) as call:
        transport.tell(ApprovalWanted("t1", "refund"))
        await call.until(is_kind("approval_wanted"))
        await call.session.approve("t1", True)
    assert ("approve", ("t1", True)) in transport.sent


async def test_phases_are_told_when_their_moment_comes(tmp_path):
    brief = Brief(
        phases=(
            Phase("prices", "A check-up costs 80.", when="cost|price"),
            Phase("closing", "Offer a newsletter.", after_turns=2),
            Phase("start", "in the prompt"),
        )
    )
    transport = FakeTransport()
    async with Call(tmp_path, transport, brief) as call:
        await call.until(is_kind("connected"))
        await call.session.say("hello")
        assert not [each for each in transport.sent if each[0] == "context"]
        transport.tell(UserSpeech("what is the PRICE"))
        await call.until(lambda message: getattr(message, "phase", "") == "prices")
        await call.until(lambda message: getattr(message, "phase", "") == "closing")
    told = [value for kind, value in transport.sent if kind == "context"]
    assert told == ["A check-up costs 80.", "Offer a newsletter."]


def virtual(source=b"", lines=None):
    async def open_audio(input_rate, output_rate, on_problem):
        line = VirtualLine(input_rate, output_rate, SystemClock(), source=source)
        if lines is not None:
            lines.append(line)
        return line

    return open_audio


async def test_audio_goes_both_ways_and_speech_is_noticed(tmp_path):
    import numpy

    tone = (12000 * numpy.sin(numpy.arange(16000) / 5)).astype(numpy.int16).tobytes()
    transport = FakeTransport(rates=(16000, 16000))
    lines = []
    async with Call(tmp_path, transport, open_audio=virtual(tone, lines)) as call:
        await call.until(lambda message: message.kind == "user_speaking" and message.on)
        transport.tell(AgentAudio(tone[:6400], 1))
        await call.until(lambda message: message.kind == "agent_speaking" and message.on)
        await call.until(lambda message: message.kind == "agent_speaking" and not message.on)
        assert call.session.meters() is not None
    sent = b"".join(value for kind, value in transport.sent if kind == "audio")
    assert sent.startswith(tone[:6400])
    assert all(len(value) == 640 for kind, value in transport.sent if kind == "audio")


async def test_an_interruption_empties_the_loudspeaker(tmp_path):
    transport = FakeTransport(rates=(16000, 16000))
    lines = []
    async with Call(tmp_path, transport, open_audio=virtual(lines=lines)) as call:
        await call.until(is_kind("devices"))
        transport.tell(AgentAudio(bytes(320_000), 1))
        await call.until(lambda message: message.kind == "agent_speaking" and message.on)
        transport.tell(Interrupted(1), AgentAudio(bytes(32_000), 1))
        await call.until(lambda message: message.kind == "agent_speaking" and not message.on)
        assert not lines[0].playing


async def test_both_tracks_share_the_calls_time(tmp_path):
    from services.calls.wave_file import mend

    transport = FakeTransport(rates=(16000, 8000))
    call = Call(tmp_path, transport)

    async def open_audio(input_rate, output_rate, on_problem):
        return VirtualLine(
            input_rate,
            output_rate,
            SystemClock(),
            on_input=call.session.record_input,
            on_output=call.session.record_output,
        )

    call.session._open_audio = open_audio
    async with call:
        await call.until(is_kind("devices"))
        transport.tell(AgentAudio(bytes(1600), 1))
        await call.until(lambda message: message.kind == "agent_speaking" and not message.on)
    lasted = call.session.live.ended_at
    you, agent = mend(tmp_path / "call" / "you.wav"), mend(tmp_path / "call" / "agent.wav")
    assert (you.rate, agent.rate) == (16000, 8000)
    assert 0 < you.length_ms <= lasted + 40
    assert 100 <= agent.length_ms <= lasted + 40


async def test_a_lost_device_ends_a_call_that_cannot_be_typed(tmp_path):
    transport = FakeTransport(rates=(16000, 16000), text=False)
    troubles = []

    async def open_audio(input_rate, output_rate, on_problem):
        troubles.append(on_problem)
        return VirtualLine(input_rate, output_rate, SystemClock())

    async with Call(tmp_path, transport, open_audio=open_audio) as call:
        await call.until(is_kind("devices"))
        troubles[0](ServiceError("The microphone is gone", code="device_lost"))
        ended = await call.session.wait()
    assert ended.reason is EndReason.DEVICE_LOST


async def test_a_call_that_can_be_typed_goes_on_without_its_device(tmp_path):
    transport = FakeTransport(rates=(16000, 16000))

    async def open_audio(input_rate, output_rate, on_problem):
        raise ServiceError("No microphone here", advice="Plug one in", code="no_device")

    async with Call(tmp_path, transport, open_audio=open_audio) as call:
        notice = await call.until(is_kind("notice"))
        assert "No microphone" in notice.text
        await call.session.say("hello")
        assert ("text", "hello") in transport.sent


async def test_what_is_not_to_be_kept_is_never_written(tmp_path):
    transport = FakeTransport(rates=(16000, 16000))
    keep = {"keep_audio": False, "keep_transcript": False}
    async with Call(tmp_path, transport, open_audio=virtual(), keep=keep) as call:
        transport.tell(AgentSpeech("the canary sings"))
        await call.until(is_kind("agent"))
        await call.session.say("the canary sings")
    written = {path.name: path.read_text() for path in (tmp_path / "call").iterdir()}
    assert set(written) == {"call.json", "events.jsonl", "call.log"}
    assert "canary" not in json.dumps(written)


async def test_a_listener_that_fails_disturbs_nobody(tmp_path):
    transport = FakeTransport()
    call = Call(tmp_path, transport)
    call.session.subscribe(lambda areas: 1 / 0)
    async with call:
        transport.tell(AgentSpeech("Good day"))
        await call.until(is_kind("agent"))


async def test_the_aftermath_is_recorded_after_the_end(tmp_path):
    transport = FakeTransport(aftermath=[Cost(0.21, "USD", True)])
    call = Call(tmp_path, transport)
    async with call:
        await call.until(is_kind("connected"))
        await call.session.end()
        await call.session.settle()
    assert call.session.live.cost == Cost(0.21, "USD", True)
    assert read_messages(tmp_path / "call")[-1][1] == Cost(0.21, "USD", True)
