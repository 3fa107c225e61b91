from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import output
from app.output import ExitCode, exit_code_of_failures

# Everything a vendor could put into a name, the dangerous among them more often.
NASTY = st.text(
    st.one_of(st.characters(), st.sampled_from('\x1b\x9b\u202e\u200b\ufe0f\u2066\ufeff\r\n\t\0"\\'))
)


@given(st.dictionaries(NASTY, st.one_of(NASTY, st.none(), st.floats(allow_nan=False))))
def test_safe_json_means_the_same_and_moves_no_cursor(value):
    text = output.safe_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not set(text) & set("\x1b\x9b\u202e\u200b\ufe0f\u2066\ufeff\0")


@given(NASTY, st.integers(2, 40))
def test_a_shortened_text_fits(text, width):
    text = output.clean_line(text)
    shown = output.shorten(text, width)
    assert output.cell_width(shown) <= width
    assert shown == text or shown.endswith("…")


def test_wide_characters_keep_columns_straight(capsys):
    output.print_table(("A", "B"), [("日本", "1"), ("ab", "22"), ("e\u0301e", "")], right=(1,))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["A      B", "日本   1", "ab    22", "e\u0301e     -"]


def test_a_table_cleans_what_it_shows(capsys):
    output.print_table(("NAME",), [("evil\x1b[2J\nname\u202e",)])
    assert capsys.readouterr().out == "NAME\nevil[2J name\n"


@pytest.mark.parametrize(
    ("environ", "colored"), [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colors(environ, colored, monkeypatch):
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    assert output.uses_color(None, environ) is colored


@pytest.mark.parametrize(
    ("categories", "succeeded", "code"),
    [
        ([], 0, ExitCode.DONE),
        ([], 7, ExitCode.DONE),
        (["transient"], 1, ExitCode.PARTIAL),
        (["transient"], 0, ExitCode.FAILED),
        (["authentication"], 0, ExitCode.DENIED),
        (["authentication", "authentication"], 4, ExitCode.DENIED),
        (["authentication", "timeout"], 4, ExitCode.PARTIAL),
    ],
)
def test_the_exit_code_of_several_things(categories, succeeded, code):
    assert exit_code_of_failures(categories, succeeded) is code


def test_iso_is_utc_with_milliseconds():
    assert output.iso(1_760_000_000_001) == "2025-10-09T08:53:20.001Z"
    assert output.iso(None) is None


def test_times_are_shown_in_a_zone():
    assert output.local(1_760_000_000_001, "Europe/Berlin") == "2025-10-09 10:53:20 CEST"
    assert output.local(1_760_000_000_001, "Atlantis/City") == "2025-10-09 08:53:20 UTC"
    assert output.local(None, "UTC") == ""


def test_a_span_is_no_finer_than_needed():
    start = 1_796_137_200_000  # 2026-12-01 10:00 in New York
    assert output.span(start, start + 5_400_000, "America/New_York") == "2026-12-01 10:00 to 11:30 EST"
    assert output.span(start, start + 86_400_000, "UTC") == "2026-12-01 15:00 to 2026-12-02 15:00 UTC"
    assert output.span(start, start + 61_000, "UTC") == "2026-12-01 15:00:00 to 15:01:01 UTC"
    spring = 1_806_138_000_000  # the night in which Berlin's clock is put forward
    told = output.span(spring - 86_400_000, spring + 86_400_000, "Europe/Berlin")
    assert told == "2027-03-26 10:00 CET to 2027-03-28 11:00 CEST"


def test_plural():
    assert [output.plural(n, w) for n, w in ((1, "agent"), (0, "agent"), (2, "company"), (2, "day"))] == [
        "1 agent",
        "0 agents",
        "2 companies",
        "2 days",
    ]
