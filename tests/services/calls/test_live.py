"""The picture of a call: what each message changes, and how waits are measured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.calls.live import MOST_ENTRIES, Area, LiveCall, Who, percentile
from services.calls.messages import (
    AgentCorrected,
    AgentSpeaking,
    AgentSpeech,
    ApprovalGiven,
    ApprovalWanted,
    Connected,
    Ended,
    Interrupted,
    Notice,
    StateChanged,
    ToolEnded,
    ToolStarted,
    Typed,
    UserSpeaking,
    UserSpeech,
)
from services.calls.model import CallState, EndReason


def played(*steps):
    live = LiveCall()
    for t, message in steps:
        live.apply(t, message)
    return live


def lines(live):
    return [(entry.who, entry.text, entry.final) for entry in live.entries]


def test_partials_become_one_final_line():
    live = played(
        (10, UserSpeech("nine", final=False)),
        (20, UserSpeech("nine is", final=False)),
        (30, UserSpeech("nine is fine")),
        (40, UserSpeech("and", final=False)),
    )
    assert lines(live) == [(Who.USER, "nine is fine", True), (Who.USER, "and", False)]
    assert live.user_turns == 1


def test_agent_partials_are_kept_apart_by_event():
    live = played(
        (10, AgentSpeech("Good", final=False, event_id=1)),
        (20, AgentSpeech("Good day", event_id=1)),
        (30, AgentSpeech("How", final=False, event_id=2)),
        (40, AgentSpeech("How can I help?", event_id=2)),
    )
    assert lines(live) == [(Who.AGENT, "Good day", True), (Who.AGENT, "How can I help?", True)]


def test_an_interrupted_answer_knows_how_much_was_said():
    live = played(
        (10, AgentSpeech("Would Monday or Tuesday suit you", event_id=3)),
        (20, Interrupted(3)),
        (30, AgentCorrected("Would Monday or Tuesday suit you", "Would Monday", 3)),
    )
    (entry,) = live.entries
    assert entry.cut
    assert entry.words_spoken == (2, 6)
    assert live.interruptions == 1


def test_a_correction_may_come_before_the_interruption_and_without_an_id():
    live = played(
        (10, AgentSpeech("One two three", event_id=3)),
        (20, AgentCorrected("One two three", "One")),
        (30, Interrupted(None)),
    )
    (entry,) = live.entries
    assert entry.cut
    assert entry.words_spoken == (1, 3)


def test_a_turn_by_voice_is_measured_from_the_end_of_speech_to_the_first_sound():
    live = played(
        (0, Connected("c", 16000, 16000, "pcm_16000", "pcm_16000")),
        (1000, UserSpeaking(True)),
        (1900, UserSpeaking(False)),
        (2300, UserSpeech("hello")),
        (2700, AgentSpeaking(True, 5)),
        (2750, AgentSpeech("Good day", event_id=5)),
    )
    assert live.last_ms == 800
    assert live.entries[-1].latency_ms == 800


def test_the_answers_text_may_come_before_its_sound():
    live = played(
        (0, Connected("c", 16000, 16000, "pcm_16000", "pcm_16000")),
        (1000, UserSpeech("hello")),
        (1400, AgentSpeech("Good day", event_id=5)),
        (1650, AgentSpeaking(True, 5)),
    )
    assert live.entries[-1].latency_ms == 650
    assert [turn.ms for turn in live.latencies] == [650]


def test_an_answer_that_comes_before_the_silence_is_certain_is_measured_too():
    """Voice detection waits 300 ms before it says that the user is silent, and dates that back."""
    live = played(
        (0, Connected("c", 16000, 16000, "pcm_16000", "pcm_16000")),
        (1000, UserSpeaking(True)),
        (2150, AgentSpeaking(True, 5)),
        (2160, AgentSpeech("Good day", event_id=5)),
        (1900, UserSpeaking(False)),
    )
    assert [turn.ms for turn in live.latencies] == [250]
    assert live.entries[-1].latency_ms == 250


def test_talking_at_the_same_time_is_no_answer():
    live = played(
        (0, Connected("c", 16000, 16000, "pcm_16000", "pcm_16000")),
        (1000, UserSpeaking(True)),
        (1200, AgentSpeaking(True, 5)),
        (3000, UserSpeaking(False)),
        (3900, AgentSpeaking(True, 6)),
    )
    assert [turn.ms for turn in live.latencies] == [900]


def test_a_typed_turn_is_measured_to_the_first_words():
    live = played(
        (0, Connected("c")),
        (1000, Typed("hello")),
        (1300, AgentSpeech("Good", final=False, event_id=1)),
        (1900, AgentSpeech("Good day", event_id=1)),
        (2500, AgentSpeech("Anything else?", event_id=2)),
    )
    assert [turn.ms for turn in live.latencies] == [300]
    assert live.entries[1].latency_ms == 300
    assert live.entries[2].latency_ms is None


def test_a_greeting_has_no_latency():
    live = played((0, Connected("c")), (300, AgentSpeech("Good day", event_id=1)))
    assert not live.latencies


def test_an_echo_of_what_was_typed_is_one_line():
    live = played((0, Typed("hello")), (100, UserSpeech("hello")), (200, UserSpeech("another")))
    assert [entry.text for entry in live.entries] == ["hello", "another"]


def test_a_tool_call_is_one_line_with_its_result():
    live = played(
        (100, ToolStarted("t1", "check", {"day": "thu"}, "client")), (412, ToolEnded("t1", "3 slots", True))
    )
    (entry,) = live.entries
    assert (entry.text, entry.result, entry.ok, entry.took_ms) == ("check", "3 slots", True, 312)


def test_an_approval_waits_until_it_is_answered():
    live = played((100, ApprovalWanted("t1", "refund", {"sum": 3})))
    assert live.waiting_approval is not None
    live.apply(200, ApprovalGiven("t1", False))
    assert live.waiting_approval is None
    assert live.entries[-1].approval == "refused"


def test_the_end_closes_what_is_open():
    live = played((0, StateChanged(CallState.LIVE)), (10, UserSpeech("nine is g", final=False)))
    areas = live.apply(500, Ended(EndReason.AGENT_ENDED))
    assert areas >= {Area.STATUS, Area.TRANSCRIPT}
    assert live.entries[-1].final
    assert live.duration(10_000) == 500


def test_a_long_call_stays_bounded():
    live = LiveCall()
    for n in range(MOST_ENTRIES + 50):
        live.apply(n, Notice(f"line {n}"))
    assert len(live.entries) == MOST_ENTRIES
    assert live.entries[-1].n == MOST_ENTRIES + 49


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) <= share * len(values)


MESSAGES = st.one_of(
    st.builds(UserSpeech, st.text(max_size=9), st.booleans(), st.none() | st.integers(0, 5)),
    st.builds(AgentSpeech, st.text(max_size=9), st.booleans(), st.none() | st.integers(0, 5)),
    st.builds(Interrupted, st.none() | st.integers(0, 5)),
    st.builds(AgentCorrected, st.text(max_size=9), st.text(max_size=9), st.none() | st.integers(0, 5)),
    st.builds(ToolStarted, st.sampled_from("abc"), st.text(max_size=5)),
    st.builds(ToolEnded, st.sampled_from("abcd"), st.text(max_size=5), st.booleans()),
    st.builds(AgentSpeaking, st.booleans(), st.none() | st.integers(0, 5)),
    st.builds(UserSpeaking, st.booleans()),
    st.builds(Typed, st.text(max_size=5)),
    st.builds(Connected, st.just("c"), st.just(0), st.just(0), st.just(""), st.sampled_from(["", "pcm"])),
)


@given(st.lists(MESSAGES, max_size=40))
def test_whatever_comes_the_picture_holds(messages):
    live = LiveCall()
    for t, message in enumerate(messages):
        live.apply(t * 10, message)
    live.apply(len(messages) * 10, Ended(EndReason.AGENT_ENDED))
    assert all(entry.final for entry in live.entries)
    assert all(turn.ms >= 0 for turn in live.latencies)
    assert [entry.n for entry in live.entries] == sorted(entry.n for entry in live.entries)
