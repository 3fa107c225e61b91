"""The rows of a transcript without a widget: only what changed is laid out again, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from screens import call_layout
from screens.call_layout import Layout
from screens.call_lines import face_of, rows_of
from screens.glyphs import ASCII, UNICODE, Tone
from screens.textfit import display, width_of
from services.calls.live import LiveCall
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    ApprovalWanted,
    Interrupted,
    Marked,
    Message,
    Notice,
    ToolEnded,
    ToolStarted,
    Typed,
    UserSpeech,
)
from services.calls.model import CallState


def laid(live: LiveCall, width: int = 80) -> Layout:
    layout = Layout(UNICODE)
    layout.set_width(width)
    layout.update(live)
    return layout


def shown(layout: Layout) -> list[tuple[int, str]]:
    """Every row as (start, text)."""
    return [
        (each.start - layout.top + row, each.face.text[start:stop])
        for each in layout.lines
        for row, (start, stop) in enumerate(each.rows)
    ]


MESSAGES = st.lists(
    st.one_of(
        st.builds(UserSpeech, st.text(max_size=200), st.booleans()),
        st.builds(AgentSpeech, st.text(max_size=200), st.booleans(), st.integers(1, 4)),
        st.builds(AgentCorrected, st.text(max_size=90), st.text(max_size=40), st.integers(1, 4)),
        st.builds(Interrupted, st.integers(1, 4)),
        st.builds(ToolStarted, st.sampled_from("abc"), st.text(max_size=9), st.just({"x": [1, None]})),
        st.builds(ToolEnded, st.sampled_from("abc"), st.text(max_size=120), st.booleans()),
        st.builds(ApprovalWanted, st.sampled_from("abc"), st.just("book")),
        st.builds(
            Notice, st.text(max_size=60), st.sampled_from(["info", "look", "act"]), st.text(max_size=9)
        ),
        st.builds(Typed, st.text(max_size=30)),
        st.builds(Marked, st.text(max_size=30)),
    ),
    max_size=40,
)


@given(MESSAGES, st.integers(40, 140))
def test_following_message_by_message_gives_what_laying_out_at_once_gives(
    messages: list[Message], width: int
) -> None:
    live, layout = LiveCall(), Layout(UNICODE)
    layout.set_width(width)
    for number, message in enumerate(messages):
        live.apply(number * 1000, message)
        layout.update(live)
    assert shown(layout) == shown(laid(live, width))
    assert layout.height == sum(len(each.rows) for each in layout.lines)
    for row in range(layout.height):
        place = layout.at(row)
        assert place is not None
        assert 0 <= row - layout.row_of(place) < len(layout.lines[place].rows)
    assert layout.at(layout.height) is None
    for _, text in shown(layout):
        assert width_of(text) <= layout.text_width
        assert text.isprintable()


@given(st.text(max_size=300), st.integers(4, 60))
def test_breaking_loses_no_word(text: str, width: int) -> None:
    text = display(text)
    rows = rows_of(text, width)
    assert "".join(text[start:stop] for start, stop in rows).replace(" ", "") == text.replace(" ", "")
    assert all(width_of(text[start:stop]) <= max(2, width) for start, stop in rows)


def test_only_the_changed_rows_are_painted_again() -> None:
    live = LiveCall()
    for number in range(20):
        live.apply(number, Typed(f"message {number}"))
    layout = laid(live)
    assert layout.update(live) is None
    live.apply(30, UserSpeech("neun ist", final=False))
    assert layout.update(live) == (20, 21)
    live.apply(31, UserSpeech("neun ist gut", final=True))
    assert layout.update(live) == (20, 21)


def test_only_the_changed_entries_are_broken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveCall()
    for number in range(500):
        live.apply(number, Typed(f"message {number}"))
    layout = laid(live)
    counted: list[int] = []
    monkeypatch.setattr(
        call_layout, "face_of", lambda entry, glyphs: counted.append(entry.n) or face_of(entry, glyphs)
    )
    live.apply(600, AgentSpeech("Gern", final=False, event_id=1))
    layout.update(live)
    live.apply(601, AgentSpeech("Gern. Wann?", event_id=1))
    layout.update(live)
    assert counted == [500, 500]


def test_the_oldest_lines_go_when_the_call_is_too_long() -> None:
    live = LiveCall()
    for number in range(2_000):
        live.apply(number, Typed(f"message {number}"))
    layout = laid(live)
    for number in range(2_000, 2_050):
        live.apply(number, Typed(f"message {number}"))
    assert layout.update(live) is not None
    assert len(layout.lines) == 2_000
    assert layout.lines[0].entry.n == 50
    assert shown(layout) == shown(laid(live))
    for number in range(2_050, 5_000):  # more than are held, at once
        live.apply(number, Typed(f"message {number}"))
    layout.update(live)
    assert shown(layout) == shown(laid(live))


def test_an_hour_needs_a_wider_stamp() -> None:
    live = LiveCall()
    live.apply(0, Typed("early"))
    layout = laid(live)
    before = layout.text_width
    live.apply(3_700_000, Typed("late"))
    assert layout.is_another(live)
    layout.update(live)
    assert layout.text_width == before - 2


def faces(*messages: Message) -> list[str]:
    live = LiveCall()
    for number, message in enumerate(messages):
        live.apply(number * 100, message)
    return [face_of(entry, UNICODE).text for entry in live.entries]


def test_how_lines_read() -> None:
    assert faces(
        AgentSpeech("Passt es am Montag oder am Dienstag", event_id=1),
        AgentCorrected("Passt es am Montag oder am Dienstag", "Passt es am Montag", 1),
    ) == ["Passt es am Montag oder am Dienstag  cut off, 4 of 7"]
    assert faces(AgentSpeech("Hello there", event_id=1), Interrupted(1)) == ["Hello there  cut off"]
    assert faces(ToolStarted("1", "book", {"day": "thu", "n": 2, "who": None})) == [
        "book(day=thu, n=2, who=null)"
    ]
    assert faces(ToolStarted("1", "book"), ToolEnded("1", "", True)) == ["book() → done"]
    assert faces(ToolStarted("1", "book"), ToolEnded("1", "0", True)) == ["book() → 0"]
    assert faces(ApprovalWanted("1", "book")) == ["book()  waits for your yes"]
    assert faces(Notice("Nothing heard", "look", "Speak")) == ["Nothing heard  → Speak"]
    assert faces(Typed("hi")) == ["hi  typed"]
    assert faces(Marked()) == ["marked"]


def test_colours_have_meanings() -> None:
    live = LiveCall()
    live.apply(0, UserSpeech("neun", final=False))
    assert face_of(live.entries[0], ASCII).spans == (("neun...", Tone.MUTED),)
    live.apply(1, UserSpeech("neun"))
    assert face_of(live.entries[0], ASCII).spans == (("neun", Tone.PLAIN),)
    live.apply(2, AgentCorrected("one two three", "one", 1))
    assert ("two three", "cut") in face_of(live.entries[1], ASCII).spans
    live.apply(3, ToolStarted("1", "book"))
    live.apply(4, ToolEnded("1", "no such day", False))
    assert ("no such day", Tone.ACT) in face_of(live.entries[2], ASCII).spans


def test_a_huge_result_is_shown_in_part() -> None:
    text = faces(ToolStarted("1", "dump", {"x": "y" * 9_000}), ToolEnded("1", "z" * 1_000_000))[0]
    assert len(text) < 1_000


def test_states_are_all_known() -> None:
    """A state that is added later must not break the header."""
    from screens.call_words import state_piece

    for state in CallState:
        live = LiveCall()
        live.state = state
        assert state_piece(live, 0, UNICODE)[0]
