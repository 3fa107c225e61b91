from __future__ import annotations

import asyncio
import itertools
import math
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.calls.messages import (
    AgentCorrected,
    AgentSpeaking,
    AgentSpeech,
    ApprovalWanted,
    Connected,
    Cost,
    Ended,
    Interrupted,
    Message,
    Notice,
    Quality,
    StateChanged,
    ToolEnded,
    ToolStarted,
    UserSpeaking,
    UserSpeech,
    VendorLatency,
    encode,
)
from services.calls.model import Brief, CallState, EndReason
from services.calls.scenario import EXAMPLES, default_scenario, example_text, load_scenario, parse_scenario
from services.calls.transport import AgentAudio, TransportEvent
from services.calls.transports.mock import MockTransport
from services.clock import SystemClock
from services.errors import ServiceError, UsageError
from tests.services.calls.transports.contract import Heard, Line, TransportContract, nothing_left
from tests.services.calls.virtual_time import VirtualTime

QUICK = """
word_ms: 1
think: 1
connecting: 0
answers:
  - {when: bye, steps: [{agent: Goodbye then}, {end: agent}]}
  - {when: cut the line, steps: [{fail: connection_lost}]}
  - {when: "open", steps: [{agent: We open at eight}]}
steps: [{agent: Hello there}]
"""


class MockLine(Line):
    """The mock is its own counterpart: the scenario decides, and the line is cut by its own means."""

    drop_reasons = frozenset({EndReason.CONNECTION_LOST})
    refuse_reasons = frozenset({EndReason.AUTHENTICATION})
    audio = False

    def __init__(self) -> None:
        self.text = QUICK + ("audio: tones\n" if self.audio else "")
        self.waits = False

    def transport(self) -> MockTransport:
        async def never(seconds: float) -> None:
            await asyncio.Event().wait()

        scenario = parse_scenario(self.text, "line.yaml")
        self.last = MockTransport(scenario, clock=SystemClock(), sleep=never if self.waits else asyncio.sleep)
        return self.last

    async def agent_speaks(self, heard: Heard) -> str:
        return "Hello there"

    async def agent_ends(self, heard: Heard) -> None:
        await heard.transport.send_text("good bye")

    async def drop(self) -> None:
        await self.last.send_text("cut the line")

    async def refuse(self) -> None:
        self.text += "refuse: {message: The key is wrong, code: wrong_key}\n"

    async def stall(self) -> None:
        self.text = self.text.replace("connecting: 0", "connecting: 1000")
        self.waits = True


class SpeakingLine(MockLine):
    audio = True


class TestMock(TransportContract):
    @pytest.fixture
    def line(self) -> Line:
        return MockLine()


class TestMockWithVoice(TransportContract):
    @pytest.fixture
    def line(self) -> Line:
        return SpeakingLine()


# -- playing ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time does not know how long a thread works."""

    async def inline(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return work(*arguments, **named)

    monkeypatch.setattr(asyncio, "to_thread", inline)


class Played:
    """A scenario played in virtual time, with every message and when it came."""

    def __init__(self, text: str, *, seed: int = 0, brief: Brief | None = None, folder: Path | None = None):
        scenario = parse_scenario(text, "test.yaml")
        if folder is not None:
            scenario = scenario.at(folder)
        self.time = VirtualTime()
        self.transport = MockTransport(scenario, clock=self.time, seed=seed, sleep=self.time.sleep)
        self.brief = brief or Brief()
        self.events: list[tuple[int, TransportEvent]] = []
        self.reacting: list[tuple[type, object]] = []

    async def play(self) -> Played:
        async def go() -> None:
            await self.transport.open(self.brief)
            async for event in self.transport.events():
                self.events.append((round(self.time.ms), event))
                for on in [pair for pair in self.reacting if isinstance(event, pair[0])]:
                    await on[1](event)  # type: ignore[operator]

        before = asyncio.all_tasks()
        task = asyncio.create_task(go())
        await self.time.run(task)
        task.result()
        await self.transport.close()
        await nothing_left(before)
        return self

    def of(self, *kinds: type) -> list[TransportEvent]:
        return [event for _, event in self.events if isinstance(event, kinds)]

    def at(self, kind: type) -> list[int]:
        return [t for t, event in self.events if isinstance(event, kind)]

    @property
    def said(self) -> list[str]:
        return [event.text for event in self.of(AgentSpeech) if event.final]  # type: ignore[union-attr]

    @property
    def ended(self) -> Ended:
        (ended,) = self.of(Ended)
        return ended  # type: ignore[return-value]

    def typing(self, *texts: str, after: type = AgentSpeaking) -> Played:
        """Type one text each time the agent has finished speaking."""
        waiting = iter(texts)

        async def on(event: AgentSpeaking) -> None:
            text = next(waiting, None) if not event.on else None
            if text is not None:
                await self.transport.send_text(text)

        self.reacting.append((after, on))
        return self


async def played(text: str, **options: object) -> Played:
    return await Played(text, **options).play()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["booking", "trouble"])
async def test_the_same_seed_gives_the_same_messages(name: str) -> None:
    text = example_text(name)
    first, again, other = [await played(text, seed=seed) for seed in (5, 5, 6)]
    assert first.events == again.events
    assert first.events != other.events
    assert [type(e) for e in first.of(Message)][:2] == [type(e) for e in other.of(Message)][:2]


async def test_another_seed_changes_times_not_words() -> None:
    text = example_text("trouble")
    one, two = await played(text, seed=1), await played(text, seed=2)
    assert one.said == two.said
    assert one.at(ToolEnded) != two.at(ToolEnded)


async def test_delays_are_drawn_between_least_and_most() -> None:
    text = "connecting: 0\nsteps: [{pause: [100, 300]}, {end: agent}]"
    waits = {(await played(text, seed=seed)).events[-1][0] for seed in range(12)}
    assert all(100 <= wait <= 300 for wait in waits)
    assert len(waits) > 3


async def test_text_comes_in_pieces_that_grow() -> None:
    call = await played("steps: [{agent: one two three four five six seven eight nine}]")
    pieces = [event.text for event in call.of(AgentSpeech)]  # type: ignore[union-attr]
    assert len(pieces) > 2
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
    assert pieces[-1] == "one two three four five six seven eight nine"
    assert [event.final for event in call.of(AgentSpeech)][:-1].count(True) == 0  # type: ignore[union-attr]
    assert call.ended.reason is EndReason.COMPLETED


async def test_unstreamed_text_comes_at_once() -> None:
    call = await played("steps: [{agent: one two three four five six seven eight nine, stream: false}]")
    assert [event.final for event in call.of(AgentSpeech)] == [True]  # type: ignore[union-attr]


async def test_states_before_it_is_live() -> None:
    text = "states: [{state: queued, lasts: 10}, {state: ringing, lasts: 20}]\nsteps: [{end: agent}]"
    call = await played(text)
    states = [event.state for event in call.of(StateChanged)]  # type: ignore[union-attr]
    assert states == [CallState.CONNECTING, CallState.QUEUED, CallState.RINGING, CallState.LIVE]
    kinds = [type(event) for _, event in call.events]
    assert kinds.index(Connected) == kinds.index(StateChanged, 3) - 1


async def test_nobody_answers() -> None:
    call = await played("states: [{state: ringing, lasts: 20}, {fail: no_answer}]\nsteps: [{agent: hello}]")
    assert call.ended.reason is EndReason.NO_ANSWER
    assert not call.of(Connected, AgentSpeech)


async def test_a_simulated_user_is_heard_like_a_real_one() -> None:
    call = await played("steps: [{user: I would like to have an appointment please}, {agent: fine}]")
    assert [event.on for event in call.of(UserSpeaking)] == [True, False]  # type: ignore[union-attr]
    heard = call.of(UserSpeech)
    assert [event.final for event in heard][-1] is True  # type: ignore[union-attr]
    assert not heard[0].final  # type: ignore[union-attr]


async def test_a_typed_turn_replaces_the_simulated_one() -> None:
    text = "steps: [{agent: 'Your name?'}, {user: Simulated, wait: 5000}, {agent: fine}]"
    call = await Played(text).typing("Typed").play()
    assert not call.of(UserSpeech)
    assert call.said == ["Your name?", "fine"]


async def test_typed_turns_are_answered() -> None:
    call = await Played(QUICK).typing("when do you open?", "bye").play()
    assert call.said == ["Hello there", "We open at eight", "Goodbye then"]
    assert (call.ended.reason, call.ended.by) == (EndReason.AGENT_ENDED, "agent")


async def test_what_nobody_expected_gets_the_fallbacks_in_turn() -> None:
    text = QUICK + "fallback: ['What?', 'Pardon?']\n"
    call = await Played(text).typing("x1", "x2", "x3", "bye").play()
    assert call.said[1:4] == ["What?", "Pardon?", "What?"]


async def test_an_answer_may_be_given_once() -> None:
    text = """
steps: [{agent: Hi}]
answers:
  - {when: joke, once: true, steps: [{agent: A horse walks into a bar}]}
  - {when: joke, steps: [{agent: I know only one}]}
  - {when: bye, steps: [{end: agent}]}
"""
    call = await Played(text).typing("a joke", "another joke", "bye").play()
    assert call.said[1:] == ["A horse walks into a bar", "I know only one"]


async def test_names_are_remembered() -> None:
    text = r"""
variables: {place: Berlin}
steps: [{agent: "{{greeting}} from {{place}}, {{unknown}}"}]
answers:
  - {when: 'my name is (?P<name>\w+)', steps: [{agent: "Hello {{name}}"}, {end: agent}]}
"""
    brief = Brief(variables={"greeting": "Greetings", "place": "Bonn"})
    call = await Played(text, brief=brief).typing("my name is Ana").play()
    assert call.said == ["Greetings from Bonn, {{unknown}}", "Hello Ana"]


async def test_the_briefs_first_message_is_the_greeting() -> None:
    call = await played("steps: [{agent: Hi}, {agent: Next}]", brief=Brief(first_message="Guten Tag"))
    assert call.said == ["Guten Tag", "Next"]
    call = await played("steps: [{pause: 1}]", brief=Brief(first_message="Guten Tag"))
    assert call.said == ["Guten Tag"]


async def test_listening_ends_with_the_word_or_the_silence() -> None:
    text = """
steps:
  - agent: Hi
  - listen: ready
  - agent: Let us go
  - {listen: true, silence: 4000}
  - agent: Still there?
  - end: agent
answers: [{when: wait, steps: [{agent: I wait}]}]
"""
    call = await Played(text).typing("wait", "ready").play()
    assert call.said == ["Hi", "I wait", "Let us go", "Still there?"]
    assert call.events[-1][0] >= 4000


# -- interruptions ------------------------------------------------------------------------------------


async def test_a_planned_interruption() -> None:
    text = "steps: [{agent: one two three four five six, interrupted: {word: 3, user: stop it}}]"
    call = await played(text)
    (corrected,) = call.of(AgentCorrected)
    assert corrected == AgentCorrected("one two three four five six", "one two three", 1)
    kinds = [type(event) for _, event in call.events]
    assert kinds.index(Interrupted) < kinds.index(AgentCorrected) < kinds.index(UserSpeech)
    assert [event.text for event in call.of(UserSpeech)] == ["stop it"]  # type: ignore[union-attr]


async def test_typing_cuts_the_agent_off() -> None:
    call = Played("word_ms: 100\nsteps: [{agent: " + "word " * 40 + "}, {user: simulated}]")

    async def on(event: AgentSpeaking) -> None:
        if event.on:
            await call.time.sleep(1.0)
            await call.transport.send_text("stop")

    call.reacting.append((AgentSpeaking, on))
    await call.play()
    (corrected,) = call.of(AgentCorrected)
    assert 0 < len(corrected.corrected.split()) < 40  # type: ignore[union-attr]
    assert not call.of(UserSpeech)  # the turn was taken, not simulated


async def test_an_earlier_turn_does_not_cut_later_words() -> None:
    text = """
steps: [{agent: Hi}, {tool: look, took: 5000}, {agent: one two three four}, {agent: five six}]
answers: [{when: bye, steps: [{end: agent}]}]
"""
    call = await Played(text).typing("bye").play()
    assert call.said == ["Hi", "one two three four", "five six"]
    assert not call.of(Interrupted)


async def test_some_words_cannot_be_cut() -> None:
    call = Played("steps: [{agent: " + "word " * 40 + ", interruptible: false}, {user: simulated}]")

    async def on(event: AgentSpeaking) -> None:
        if event.on:
            await call.transport.send_text("stop")

    call.reacting.append((AgentSpeaking, on))
    await call.play()
    assert not call.of(Interrupted)
    assert call.said


# -- tools --------------------------------------------------------------------------------------------


async def test_a_server_tool_and_its_result() -> None:
    text = """
steps:
  - {tool: find, arguments: {who: "{{name}}"}, result: {day: Monday, n: 0}, took: 150}
  - {agent: "It is {result.day}, {result.n}: {result}"}
"""
    call = await played(text, brief=Brief(variables={"name": "Ana"}))
    (started,), (ended,) = call.of(ToolStarted), call.of(ToolEnded)
    assert started == ToolStarted("tool_1", "find", {"who": "Ana"}, "server")
    assert ended == ToolEnded("tool_1", '{"day": "Monday", "n": 0}', True, 150)
    assert call.said == ['It is Monday, 0: {"day": "Monday", "n": 0}']


async def test_a_client_tool_is_waited_for() -> None:
    text = "steps: [{tool: ask, where: client}, {agent: 'It said {result.x}'}]"
    call = Played(text)

    async def on(event: ToolStarted) -> None:
        await call.time.sleep(3)
        await call.transport.send_tool_result("other", "no", True)
        await call.transport.send_tool_result(event.tool_id, '{"x": 7}', True)

    call.reacting.append((ToolStarted, on))
    await call.play()
    assert call.said == ["It said 7"]
    assert not call.of(ToolEnded)  # the session tells the end of a client tool


@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_tool_that_fails_or_never_answers(answers: bool) -> None:
    text = """
steps:
  - {tool: ask, where: client, timeout: 500, failed: Sorry, on_failure: [{pause: 5}, {end: agent}]}
  - {agent: never said}
"""
    call = Played(text)

    async def on(event: ToolStarted) -> None:
        if answers:
            await call.transport.send_tool_result(event.tool_id, "broken", False)

    call.reacting.append((ToolStarted, on))
    await call.play()
    assert call.said == ["Sorry"]
    assert bool(call.of(Notice)) is not answers


@pytest.mark.parametrize(("yes", "said"), [(True, "done"), (False, "then not"), (None, "then not")])
async def test_an_approval_is_waited_for(yes: bool | None, said: str) -> None:
    text = """
steps:
  - {tool: pay, where: mcp, approval: true, timeout: 900, failed: then not, on_failure: [{end: agent}]}
  - {agent: done}
"""
    call = Played(text)

    async def on(event: ApprovalWanted) -> None:
        if yes is not None:
            await call.transport.approve(event.tool_id, yes)

    call.reacting.append((ApprovalWanted, on))
    await call.play()
    assert call.said == [said]
    (ended,) = call.of(ToolEnded)
    assert ended.ok is bool(yes)  # type: ignore[union-attr]
    assert bool(call.of(ToolStarted)) is bool(yes)


# -- figures and endings --------------------------------------------------------------------------------


async def test_vendor_figures_are_the_delay() -> None:
    text = "connecting: 0\nlatency: {asr: 100, llm: 300}\nsteps: [{agent: Hi}, {user: x}, {agent: Ho}]"
    call = await played(text)
    assert [event.figures for event in call.of(VendorLatency)] == [{"asr": 100.0, "llm": 300.0}] * 2  # type: ignore[union-attr]
    spoke = [t for t, event in call.events if isinstance(event, AgentSpeaking) and event.on]
    user_end = call.at(UserSpeech)[-1]
    assert spoke == [400, user_end + 400]


async def test_quality_cost_and_the_longest_duration() -> None:
    text = """
connecting: 0
quality: {every: 1000, round_trip: [20, 40], loss: 1.5}
cost: {per_minute: 6, currency: EUR}
max_duration: 9500
steps:
  - agent: Hi
  - quality: {round_trip: 900}
  - cost: 0.5
  - latency: {tts: 5}
  - {notice: careful, level: look}
  - pause: 60000
"""
    call = await played(text)
    ticks = [event for event in call.of(Quality) if event.loss_percent == 1.5]  # type: ignore[union-attr]
    assert len(ticks) == 10
    assert all(20 <= tick.round_trip_ms <= 40 for tick in ticks)  # type: ignore[union-attr,operator]
    assert Quality(900.0) in call.of(Quality)
    assert Cost(0.5, "EUR") in call.of(Cost)
    assert Notice("careful", "look") in call.of(Notice)
    assert call.ended.reason is EndReason.MAX_DURATION
    assert call.events[-1][0] == 9500
    assert await call.transport.aftermath() == [Cost(0.95, "EUR", final=True)]


async def test_a_bad_end_is_told_with_its_code() -> None:
    call = await played(
        "steps: [{agent: Hi}, {fail: connection_lost, detail: gone, code: 1006}, {agent: no}]"
    )
    assert call.ended == Ended(EndReason.CONNECTION_LOST, "gone", "vendor", 1006)
    assert call.said == ["Hi"]


async def test_a_reconnect_comes_back() -> None:
    call = await played("steps: [{state: reconnecting, lasts: 500, detail: attempt 1}, {end: callee}]")
    states = [event.state for event in call.of(StateChanged)]  # type: ignore[union-attr]
    assert states[-2:] == [CallState.RECONNECTING, CallState.LIVE]
    assert call.ended.by == "callee"


# -- sound ----------------------------------------------------------------------------------------------


async def test_the_voice_is_tones_of_the_words() -> None:
    from services.simulator.speech import tones

    call = await played("seed: 4\naudio: tones\nsteps: [{agent: one two three}]")
    heard = b"".join(event.pcm for event in call.of(AgentAudio))  # type: ignore[union-attr]
    assert heard == tones("one two three", 16000, seed=4)
    assert {event.event_id for event in call.of(AgentAudio)} == {1}  # type: ignore[union-attr]
    (connected,) = call.of(Connected)
    assert (connected.input_rate, connected.output_format) == (16000, "pcm_16000")  # type: ignore[union-attr]
    assert not call.of(AgentSpeaking, UserSpeaking)  # the session hears it


async def test_audio_is_handed_over_a_little_ahead_only() -> None:
    call = await played("audio: tones\nsteps: [{agent: one two three four five six seven eight}]")
    times = call.at(AgentAudio)
    began = times[0]
    for index, t in enumerate(times):
        assert t - began >= index * 100 - 300


async def test_a_wav_file_is_the_voice(tmp_path: Path) -> None:
    samples = struct.pack("<1600h", *(round(9000 * math.sin(i / 5)) for i in range(1600)))
    with wave.open(str(tmp_path / "hi.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples)
    (tmp_path / "s.yaml").write_text("audio: tones\nsteps: [{agent: Hi, wav: hi.wav}]")
    scenario = load_scenario(tmp_path / "s.yaml")
    call = await played((tmp_path / "s.yaml").read_text(), folder=scenario.folder)
    assert b"".join(event.pcm for event in call.of(AgentAudio)) == samples  # type: ignore[union-attr]
    (tmp_path / "hi.wav").unlink()
    with pytest.raises(UsageError, match=r"hi\.wav is not there"):
        load_scenario(tmp_path / "s.yaml")


async def test_speaking_over_the_agent_cuts_it_and_is_a_turn() -> None:
    """A tone from the microphone: barge-in while it lasts, a turn of the user when it is over."""
    from services.simulator.speech import silence, tones

    words = "word " * 30
    call = Played(
        "audio: tones\nheard: [stop please]\n"
        f"steps: [{{agent: {words}}}, {{user: x, wait: 9000}}, {{agent: 'Yes?'}}]"
    )
    pcm = tones("stop please now", 16000) + silence(900, 16000)
    sent = False

    async def speak(event: AgentAudio) -> None:
        nonlocal sent
        if sent:
            return
        sent = True

        async def microphone() -> None:
            await call.time.sleep(1.0)
            for start in range(0, len(pcm), 640):
                await call.transport.send_audio(pcm[start : start + 640])
                await call.time.sleep(0.02)

        call.background = asyncio.create_task(microphone())  # type: ignore[attr-defined]

    call.reacting.append((AgentAudio, speak))
    await call.play()
    assert call.of(Interrupted)
    assert [event.text for event in call.of(UserSpeech)] == ["stop please"]  # type: ignore[union-attr]
    assert call.said[-1] == "Yes?"
    await call.background  # type: ignore[attr-defined]


async def test_a_silent_mock_takes_no_audio() -> None:
    transport = MockTransport(default_scenario(), clock=SystemClock(), audio=False)
    with pytest.raises(ServiceError) as caught:
        await transport.send_audio(bytes(640))
    assert caught.value.code == "not_offered"
    assert not transport.capabilities.audio
    assert MockTransport(default_scenario(), clock=SystemClock(), audio=True).capabilities.audio


# -- the files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_examples_play_to_their_end(name: str) -> None:
    call = Played(example_text(name)).typing("bye")
    await call.play()
    assert call.ended.reason in (EndReason.AGENT_ENDED, EndReason.CONNECTION_LOST)
    assert all(encode(event) for event in call.of(Message))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Ich brauche einen Termin", "Donnerstag"),
        ("I need an appointment", "Thursday"),
        ("Wann haben Sie geöffnet?", "achtzehn Uhr"),
        ("When are you open?", "Saturday until noon"),
        ("Mein Name ist Ana", "Ana"),
        ("Ja, das passt", "Frau Weber"),
        ("Wo sind Sie?", "Marktplatz"),
    ],
)
async def test_the_built_in_desk_speaks_both_languages(said: str, answer: str) -> None:
    call = await Played(example_text("reception")).typing(said, "bye", "bye").play()
    assert any(answer in text for text in call.said[1:]), call.said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme: x\nsteps: [{end: agent}]", r"s\.yaml, line 1: there is no nme here; did you mean name\?"),
        (
            "steps:\n  - agent: Hi\n    dely: 3",
            r"line 3: steps\[1\]: there is no dely here; did you mean delay\?",
        ),
        ("steps:\n  - agent: 5", r"line 2: steps\[1\]\.agent: text or a list of texts is expected"),
        ("steps:\n  - agnt: Hi", r"line 2: steps\[1\]: a step has one of the keys agent, user"),
        ("steps:\n  - {agent: Hi, delay: [9, 3]}", r"line 2: steps\[1\]\.delay: 0 ≤ least ≤ most"),
        ("steps:\n  - {tool: x, on_failure: [{pause: soon}]}", r"on_failure\[1\]\.pause: a number of milli"),
        ("steps: [{end: now}]", r"steps\[1\]\.end: agent, callee, completed or max_duration is expected"),
        ("answers:\n  - {when: '(', steps: [{end: agent}]}", r"answers\[1\]\.when: not a regular expression"),
        ("states: [{agent: Hi}]\nsteps: [{end: agent}]", r"states\[1\]: "),
        ("steps: [{listen: 4}]", r"steps\[1\]\.listen: true, or a regular expression"),
        ("name: x", "nothing would happen"),
        ("name: [", r"s\.yaml, line \d: not valid YAML"),
        ("a: &b 1\nname: *b", r"line 2: .*aliases"),
        ("name: x\nname: y", r"line 2: .*name stands here twice"),
        ("- 1", "an object with keys is expected, not a list"),
        ("", "an object with keys is expected, not nothing"),
        ("steps: !!python/object:os.system {}", "tag"),
    ],
)
def test_a_mistake_names_file_line_and_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_scenario(text, "s.yaml")


def test_words_that_other_yaml_reads_as_something_else() -> None:
    scenario = parse_scenario(
        "name: no\nvariables: {a: 0049, b: 12:30, c: 2026-01-01, d: 7, e: true}\nsteps: [{end: agent}]", "s"
    )
    assert scenario.name == "no"
    assert scenario.variables == {"a": "0049", "b": "12:30", "c": "2026-01-01", "d": 7, "e": True}
