"""Drawing: whatever a vendor calls an agent, every line of a card has exactly its width."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from screens.glyphs import ASCII, UNICODE, Glyphs, State, Tone
from screens.textfit import cut, display, fit, sentence, width_of, wrap
from screens.when import clock_time, exact, moment, took
from screens.widgets.card import HEIGHT, Face, Look, age_text, draw_card, is_stale
from screens.widgets.document import find, lay_out, masked, pretty
from services.model import ErrorInfo, SyncStatus
from tests.support.fake_services import HOUR, MINUTE, NOON, seeded_cards

NASTY = [
    "👩‍👩‍👧‍👦 family 👍🏽 🏳\ufe0f‍🌈 🇩🇪",
    "مرحبا بالعالم",
    "\x1b[31mred\x1b[0m\r\n\tname\x07",
    "漢字かな交じり文の長い名前です",
    "\u202eevil\u2066 name\u200b\ufeff",
    "ＦＵＬＬＷＩＤＴＨ",
    "a\u0301e\u0308",
    "",
    "x" * 300,
]


def look(glyphs: Glyphs) -> Look:
    plain = Style()
    return Look(glyphs, dict.fromkeys(Tone, plain), plain, plain, plain, plain)


def face(width: int, state: State = State.IN_SYNC) -> Face:
    return Face(width, state, "4 min", True, True, True, True)


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@given(
    text=st.one_of(st.text(max_size=80), st.sampled_from(NASTY)),
    width=st.integers(38, 80),
    state=st.sampled_from(list(State)),
)
@example(text=NASTY[0], width=38, state=State.ERROR)
def test_every_line_of_a_card_is_as_wide_as_the_card(
    glyphs: Glyphs, text: str, width: int, state: State
) -> None:
    error = ErrorInfo("transient", text, text)
    card = replace(
        seeded_cards(1)[0],
        name=text,
        company=text,
        voice=text,
        model=text,
        language=text,
        release=text,
        status=SyncStatus.ERROR,
        error=error,
        agent_id="agent_1",
    )
    lines = draw_card(card, face(width, state), look(glyphs))
    assert len(lines) == HEIGHT
    for line in lines:
        drawn = "".join(segment.text for segment in line)
        assert cell_len(drawn) == width
        assert drawn.isprintable()


@given(st.one_of(st.text(max_size=60), st.sampled_from(NASTY)), st.integers(0, 40))
def test_fitting(text: str, width: int) -> None:
    text = display(text)
    assert width_of(cut(text, width)) <= width
    assert width_of(fit(text, width)) == width
    assert display(text) == text


def test_a_cut_prefers_the_end_of_a_word() -> None:
    assert cut("too many requests, retry", 20) == "too many requests…"
    assert cut("Retell answered 429", 19) == "Retell answered 429"
    assert cut("unbreakableword", 8) == "unbreak…"
    assert wrap("one two three", 7) == ["one two", "three"]
    assert sentence("the key is wrong", "copy it again.") == "The key is wrong. Copy it again"


def test_an_error_card_says_why_and_what_to_do() -> None:
    card = replace(
        seeded_cards(1)[0],
        status=SyncStatus.ERROR,
        error=ErrorInfo("rate_limit", "429 too many requests", "Wait 40 s"),
    )
    text = [
        "".join(segment.text for segment in line)
        for line in draw_card(card, face(38, State.ERROR), look(UNICODE))
    ]
    assert "✗ error" in text[1]
    assert "429 too many requests" in text[2]
    assert "Wait 40 s" in text[3]


def test_stale_and_ages() -> None:
    card = replace(seeded_cards(1)[0], checked_at=NOON - 61 * MINUTE, gone_at=None)
    assert is_stale(card, NOON, 60)
    assert not is_stale(card, NOON - 2 * MINUTE, 60)
    assert not is_stale(replace(card, checked_at=None), NOON, 60)
    assert age_text(card, NOON) == "1 h"
    assert age_text(replace(card, gone_at=NOON - 26 * HOUR), NOON) == "26 h"


def test_times() -> None:
    assert exact(NOON, "Europe/Berlin") == "2026-03-01 13:00:00 CET"
    assert exact(None, "Europe/Berlin") == "never"
    assert exact(NOON, "No/Where") == "2026-03-01 12:00:00 UTC"
    assert clock_time(NOON, NOON, "") == "12:00"
    assert moment(NOON - 30 * HOUR, NOON, "") == "Feb 28 06:00"
    assert [took(240), took(4200), took(185_000)] == ["240 ms", "4.2 s", "3 min 05 s"]


def test_secrets_are_hidden_wherever_they_stand() -> None:
    data = {
        "headers": {"Authorization": "Bearer abc", "x-api-key": "abc", "Accept": "json"},
        "request_headers": [{"name": "Authorization", "value": "abc"}, {"name": "Accept", "value": "json"}],
        "auth_token": ["abc", {"deep": "abc"}],
        "account_token": "abc",
        "max_tokens": 4096,
        "password": "abc",
        "prompt": "say the word",
    }
    shown = masked(data)
    assert "abc" not in str(shown)
    assert shown["headers"]["Accept"] == "json"
    assert shown["request_headers"][1] == {"name": "Accept", "value": "json"}
    assert shown["max_tokens"] == 4096
    assert shown["prompt"] == "say the word"


def test_a_prompt_is_broken_where_it_breaks() -> None:
    lines = pretty('{"prompt": "one\\ntwo\\\\n still two\\nthree", "n": 1}')
    assert lines == ["{", '  "prompt": "one\\n', "    two\\\\n still two\\n", '    three",', '  "n": 1', "}"]
    assert pretty("not json\x1b[2J\nsecond") == ["not json[2J", "second"]


@given(st.lists(st.text(max_size=120), max_size=12), st.integers(10, 60))
def test_laying_out_loses_no_letter_and_keeps_the_width(lines: list[str], width: int) -> None:
    lines = [display(line) for line in lines]
    laid = lay_out(lines, width)
    for number, line in enumerate(lines):
        rows = [line[start:stop] for which, start, stop in laid.rows if which == number]
        assert "".join(rows) == line
        assert all(cell_len(row) <= width or len(row) == 1 for row in rows)
        assert laid.rows[laid.starts[number]][0] == number


def test_finding_is_blind_to_case() -> None:
    assert find(["Marissa marissa"], "MARISSA") == [(0, 0), (0, 8)]
    assert find(["abc"], "") == []
