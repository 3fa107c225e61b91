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


def test_plural():
    assert [output.plural(n, w) for n, w in ((1, "agent"), (0, "agent"), (2, "company"), (2, "day"))] == [
        "1 agent",
        "0 agents",
        "2 companies",
        "2 days",
    ]
