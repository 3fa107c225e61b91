"""Retell's growing transcript items as messages."""

from __future__ import annotations

from typing import Any

import pytest

from services.calls.live import LiveCall, Who
from services.calls.messages import (
    AgentCorrected,
    AgentSpeaking,
    AgentSpeech,
    Ended,
    Interrupted,
    Message,
    Notice,
    ToolEnded,
    ToolStarted,
    UserSpeaking,
    UserSpeech,
)
from services.calls.model import EndReason
from services.calls.retell_transcript import Transcript, ending


def item(key: str, role: str, content: str = "", **more: Any) -> dict[str, Any]:
    return {"id": key, "role": role, "content": content, "time_sec": 1.0, **more}


def updated(*items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "transcript_updated", "transcripts": list(items)}


def snapshot(*items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "transcript_snapshot", "transcripts": list(items), "pre_session_transcripts": []}


def lines(messages: list[Message]) -> list[tuple[str, str, bool]]:
    """Folded as a screen shows them: who, what, final."""
    call = LiveCall()
    for at, message in enumerate(messages):
        call.apply(at, message)
    return [(entry.who.value, entry.text, entry.final) for entry in call.entries]


def test_an_utterance_grows_and_is_final_when_the_next_begins():
    read = Transcript().read
    assert read(updated(item("1", "agent", "Hello"))) == [AgentSpeech("Hello", False, 1)]
    assert read(updated(item("1", "agent", "Hello there"))) == [AgentSpeech("Hello there", False, 1)]
    assert read(updated(item("1", "agent", "Hello there"))) == []
    assert read(updated(item("2", "user", "Hi"))) == [
        AgentSpeech("Hello there", True, 1),
        UserSpeech("Hi", False),
    ]


def test_an_answer_has_the_number_of_its_turn():
    transcript = Transcript()
    messages = [
        message
        for name, role in (("1", "agent"), ("2", "user"), ("3", "agent"), ("4", "agent"), ("5", "user"))
        for message in transcript.read(updated(item(name, role, name)))
    ]
    numbers = {m.text: m.event_id for m in messages if isinstance(m, AgentSpeech)}
    assert numbers == {"1": 1, "3": 2, "4": 2}
    assert transcript.turn == 3


def test_the_user_before_the_agent_belongs_to_the_first_turn():
    transcript = Transcript()
    transcript.read(updated(item("1", "user", "Hello?")))
    assert transcript.read(updated(item("2", "agent", "Hi")))[-1] == AgentSpeech("Hi", False, 1)


def test_silence_settles_what_was_said():
    transcript = Transcript()
    transcript.read(updated(item("1", "agent", "Hello")))
    assert transcript.unsettled
    assert transcript.settle() == [AgentSpeech("Hello", True, 1)]
    assert not transcript.unsettled
    assert transcript.settle() == []


def test_what_is_added_to_a_final_utterance_is_a_line_of_its_own():
    transcript = Transcript()
    messages = transcript.read(updated(item("1", "agent", "We open")))
    messages += transcript.read(updated(item("2", "user", "mhm")))
    messages += transcript.read(updated(item("1", "agent", "We open at eight")))
    messages += transcript.settle()
    assert lines(messages) == [
        ("agent", "We open", True),
        ("user", "mhm", True),
        ("agent", "at eight", True),
    ]


def test_a_sentence_that_was_cut_short():
    transcript = Transcript()
    transcript.read(updated(item("1", "agent", "One two three four")))
    cut = item("1", "agent", "One two…", metadata={"interrupt_id": 1})
    assert transcript.read(updated(cut)) == [
        AgentSpeech("One two three four", True, 1),
        Interrupted(1),
        AgentCorrected("One two three four", "One two…", 1),
    ]
    assert transcript.turn == 2, "audio after the interruption is another utterance"
    assert transcript.read(updated(cut)) == []


def test_a_cut_that_comes_after_the_user_spoke():
    transcript = Transcript()
    messages = transcript.read(updated(item("1", "agent", "One two three four")))
    messages += transcript.read(updated(item("2", "user", "Stop")))
    messages += transcript.read(updated(item("1", "agent", "One two")))
    call = LiveCall()
    for at, message in enumerate(messages):
        call.apply(at, message)
    agent = call.entries[0]
    assert (agent.cut, agent.spoken, agent.words_spoken) == (True, "One two", (2, 4))
    assert [entry.who for entry in call.entries] == [Who.AGENT, Who.USER]


def test_a_mark_without_a_shorter_text():
    transcript = Transcript()
    transcript.read(updated(item("1", "agent", "One two")))
    assert transcript.read(updated(item("1", "agent", "One two", metadata={"interrupt_id": 4}))) == [
        AgentSpeech("One two", True, 1),
        Interrupted(1),
    ]


def test_a_snapshot_repeats_nothing():
    transcript = Transcript()
    transcript.read(updated(item("1", "agent", "Hello"), item("2", "user", "Hi")))
    again = transcript.read(
        snapshot(
            item("3", "agent", "Three", time_sec=5.0),
            item("1", "agent", "Hello"),
            item("2", "user", "Hi", time_sec=2.0),
        )
    )
    assert again == [UserSpeech("Hi", True), AgentSpeech("Three", False, 2)]


def test_a_snapshot_is_read_in_the_order_of_time():
    messages = Transcript().read(
        snapshot(
            item("b", "user", "second", time_sec=2.0),
            item("a", "agent", "first", time_sec=1.0),
            item("c", "agent", "third", time_sec=2.0),
        )
    )
    assert [text for _, text, _ in lines(messages)] == ["first", "second", "third"]


def test_tools_once_each_with_their_time():
    transcript = Transcript()
    call = item(
        "1", "tool_call_invocation", tool_call_id="t", name="look", arguments='{"day": 2}', time_sec=3.0
    )
    answer = item("2", "tool_call_result", "done", tool_call_id="t", successful=False, time_sec=3.25)
    assert transcript.read(updated(call)) == [ToolStarted("t", "look", {"day": 2}, "server")]
    assert transcript.read(updated(call, answer)) == [ToolEnded("t", "done", False, 250)]
    assert transcript.read(snapshot(call, answer)) == []


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("", {}),
        ("{broken", {"arguments": "{broken"}),
        ("[1]", {"arguments": [1]}),
        ({"a": 1}, {"a": 1}),
        (None, {}),
    ],
)
def test_arguments_of_any_kind(given: object, read: dict[str, object]):
    call = item("1", "tool_call_invocation", tool_call_id="t", name="look", arguments=given)
    started = Transcript().read(updated(call))[0]
    assert isinstance(started, ToolStarted)
    assert started.arguments == read


def test_remarks():
    transcript = Transcript()
    found = transcript.read(
        updated(
            item("1", "node_transition", new_node_name="Booking"),
            item("2", "dtmf", digit="5"),
            item("3", "injected", "It rains"),
            item("4", "something_new", "?"),
        )
    )
    assert found == [Notice("The agent moves on to “Booking”"), Notice("Key 5 was pressed")]
    assert transcript.read(updated(item("2", "dtmf", digit="5"))) == []


def test_voices_for_calls_whose_audio_is_elsewhere():
    transcript = Transcript(speaking=True)
    assert transcript.read(updated(item("1", "user", "Are you"))) == [
        UserSpeaking(True),
        UserSpeech("Are you", False),
        UserSpeaking(False),
    ]
    assert transcript.read(updated(item("1", "user", "Are you open?")))[-1] == UserSpeaking(False)
    assert transcript.read(updated(item("2", "agent", "Yes"))) == [
        UserSpeech("Are you open?", True),
        AgentSpeaking(True, 1),
        AgentSpeech("Yes", False, 1),
    ]
    assert transcript.settle() == [AgentSpeech("Yes", True, 1), AgentSpeaking(False)]


def test_the_end_completes_what_was_said():
    transcript = Transcript()
    transcript.read(updated(item("1", "agent", "Bye")))
    assert transcript.read({"type": "call_ended", "disconnection_reason": "agent_hangup"}) == [
        AgentSpeech("Bye", True, 1),
        Ended(EndReason.AGENT_ENDED, "", "agent"),
    ]


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"type": "unknown", "filler": 1},
        {"type": "transcript_updated"},
        {"type": "transcript_updated", "transcripts": 5},
        {"type": "transcript_updated", "transcripts": [None, 3, "x"]},
        updated({"role": "agent"}),
        updated({"role": "agent", "id": 7, "content": None, "time_sec": "soon"}),
        updated({"role": ["agent"]}),
        updated({"id": "1", "role": "user", "content": "   "}),
    ],
)
def test_frames_that_tell_nothing(frame: dict[str, Any]):
    assert Transcript().read(frame) == []


@pytest.mark.parametrize(
    ("word", "reason", "by"),
    [
        ("agent_hangup", EndReason.AGENT_ENDED, "agent"),
        ("user_hangup", EndReason.CALLEE_ENDED, "callee"),
        ("max_duration_reached", EndReason.MAX_DURATION, "vendor"),
        ("dial_busy", EndReason.BUSY, "callee"),
        ("dial_no_answer", EndReason.NO_ANSWER, "callee"),
        ("invalid_destination", EndReason.INVALID_NUMBER, "vendor"),
        ("concurrency_limit_reached", EndReason.LIMIT, "vendor"),
        ("error_user_not_joined", EndReason.UNREACHABLE, "vendor"),
        ("error_no_audio_received", EndReason.CONNECTION_LOST, "vendor"),
        ("error_of_tomorrow", EndReason.VENDOR_ERROR, "vendor"),
        (None, EndReason.AGENT_ENDED, "vendor"),
    ],
)
def test_how_a_call_ended(word: str | None, reason: EndReason, by: str):
    end = ending(word)
    assert (end.reason, end.by) == (reason, by)
    if word == "error_of_tomorrow":
        assert "error of tomorrow" in end.detail
