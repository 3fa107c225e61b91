"""YAML that people write: what is text and what a number, and mistakes told with their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.errors import UsageError
from services.yaml_files import (
    MOST_BYTES,
    MOST_DEPTH,
    MOST_TOLD,
    Strict,
    line_of,
    parse,
    read_model,
    read_text,
)


class Inner(Strict):
    count: int


class Outer(Strict):
    name: str
    inner: list[Inner]


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(0.00011111111111111112)
@settings(deadline=None)
def test_a_number_as_json_writes_it_is_that_number(number: float) -> None:
    assert parse(f"[{json.dumps(number)}]", "any.yaml")[0] == [number]


@pytest.mark.parametrize("text", ["1e999", "-1e400", "1e1000"])
def test_what_is_more_than_a_number_can_be_is_text(text: str) -> None:
    assert parse(f"[{text}]", "any.yaml")[0] == [text]


@pytest.mark.parametrize("text", ["no", "on", "12:30", "2026-01-01", "0049", "0x1f", "1_000", ".5"])
def test_words_that_other_yaml_reads_as_something_else_are_text(text: str) -> None:
    assert parse(f"a: {text}", "any.yaml")[0] == {"a": text}


def test_every_value_has_its_line() -> None:
    _, lines = parse("name: x\ninner:\n  - count: 1\n  - count: 2\n", "any.yaml")
    assert lines["inner", 1, "count"] == 4
    assert line_of(("inner", 1, "other"), lines) == 4
    assert line_of(("nowhere",), lines) == 1


def test_depth_is_bounded() -> None:
    deep = "[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2)
    with pytest.raises(UsageError, match=r"any\.yaml, line 1: nested too deeply"):
        parse(deep, "any.yaml")


def test_every_mistake_of_a_file_is_told_with_its_line_up_to_a_number(tmp_path: Path) -> None:
    path = tmp_path / "o.yaml"
    path.write_text("name: 5\ninner:\n  - cuont: 1\n" + "  - count: many\n" * MOST_TOLD)
    with pytest.raises(UsageError) as caught:
        read_model(Outer, path, example="an example")
    told = caught.value.message
    assert "o.yaml, line 1: name: text is expected, not the number 5" in told
    assert "o.yaml, line 3: inner[1]: there is no cuont here; did you mean count?" in told
    assert "o.yaml, line 4: inner[2].count: a whole number is expected, not the text 'many'" in told
    assert told.endswith("; and 2 more")
    assert caught.value.advice == "An example"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "o.yaml cannot be read: no such file"),
        (b"x" * (MOST_BYTES + 1), "o.yaml is larger than 1 MiB"),
        (b"name: \xff", "o.yaml is not UTF-8 text (at byte 6)"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_words(content: bytes | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "o.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_text(path)
    assert told in caught.value.message


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "o.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\ninner: []")
    assert read_model(Outer, path) == Outer(name="x", inner=[])
