"""Placeholders of mapping files: nothing is run, nothing is guessed, values come back as they went in."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import UsageError
from services.integrations.bookings.template import (
    BadTemplate,
    Missing,
    Template,
    dig,
    dig_all,
    rendered,
)
from services.integrations.bookings.times import milliseconds

BERLIN = ZoneInfo("Europe/Berlin")
AT = dt.datetime(2027, 3, 1, 19, 30, tzinfo=BERLIN)
VALUES: dict[str, Any] = {
    "at": AT,
    "party_size": 4,
    "name": "Ann Mary Smith",
    "phone": "+49 30 1",
    "email": "",
    "settings": {"rid": "17", "agenda": "a-1"},
}


def render(text: str, values: dict[str, Any] | None = None) -> Any:
    return Template.parse(text).render(VALUES if values is None else values)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{party_size}", 4),
        ("for {party_size}", "for 4"),
        ("{ settings.rid | int }", 17),
        ("{settings.rid}-{party_size}", "17-4"),
        ("{at|iso}", "2027-03-01T19:30:00+01:00"),
        ("{at|utc}", "2027-03-01T18:30:00Z"),
        ("{at|local}", "2027-03-01T19:30"),
        ("{at|stamp}", "2027-03-01T18:30:00.000+0000"),
        ("{at|date} {at|clock}", "2027-03-01 19:30"),
        ("{at|epoch}", 1_803_925_800),
        ("{name|first}/{name|last}", "Ann Mary/Smith"),
        ("{name|upper}", "ANN MARY SMITH"),
        ("{party_size|str}", "4"),
        ("{email|default:none}", "none"),
        ("{practitioner|or:settings.agenda}", "a-1"),
        ("{practitioner|or:nobody|default:x}", "x"),
        ("{{party_size}} {{}}", "{party_size} {}"),
    ],
)
def test_values_take_their_place(text: str, value: Any) -> None:
    assert render(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "a single {"),
        ("a } b", "a single }"),
        ("{}", "no placeholder"),
        ("{a b}", "no placeholder"),
        ("{__class__}", "no placeholder"),
        ("{name!r}", "no placeholder"),
        ("{name:>10}", "no placeholder"),
        ("{name|isoo}", "did you mean iso?"),
        ("{name|lambda}", "there is no filter"),
        ("{name|default}", "needs its value"),
        ("{name|upper:3}", "takes no value"),
        ("{name|or:a b}", "no name of a value"),
        ("Dear {name|optional}", "nothing but its placeholder"),
    ],
)
def test_what_is_wrong_is_found_when_it_is_read(text: str, problem: str) -> None:
    with pytest.raises(BadTemplate, match=problem):
        Template.parse(text)


def test_members_without_a_value_are_left_out() -> None:
    tree = {
        "a": "{email|optional}",
        "b": ["{email|optional}", "{party_size}"],
        "c": None,
        "d": 1.5,
        "e": False,
    }
    assert rendered(tree, VALUES) == {"b": [4], "c": None, "d": 1.5, "e": False}


def test_a_missing_value_is_named() -> None:
    for text in ("{email}", "to {email}", "{settings.none|upper}", "{name.__class__}"):
        with pytest.raises(Missing):
            render(text)


@pytest.mark.parametrize("text", ["{at}", "at {at}", "{name|iso}", "{name|int}", "x{settings}"])
def test_a_value_of_the_wrong_kind_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        render(text)


@given(st.text())
def test_a_text_in_braces_doubled_comes_back(text: str) -> None:
    assert render(text.replace("{", "{{").replace("}", "}}")) == text


@given(st.text())
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(BadTemplate, Missing, UsageError):
        Template.parse(text).render(VALUES)


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")), st.integers())
def test_values_arrive_as_they_are_and_cannot_leave_a_path(text: str, number: int) -> None:
    values = {"x": text, "n": number}
    assert render("{x}", values) == text
    assert render("{n}", values) == number
    assert render("<{x}>", values) == f"<{text}>"
    try:
        path = Template.parse("/v1/{x}/end").render_path(values)
    except UnicodeEncodeError:
        return
    assert path.count("/") == 3
    assert not set(path) & set("?#\\ \n")


@pytest.mark.parametrize("value", [".", ".."])
def test_a_path_has_no_way_up(value: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in an address"):
        Template.parse("/v1/{x}").render_path({"x": value})


ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])


@given(st.integers(1_700_000_000 // 60, 2_000_000_000 // 60), ZONES)
def test_a_time_survives_every_form_or_is_refused(minute: int, zone: str) -> None:
    at = dt.datetime.fromtimestamp(minute * 60, ZoneInfo(zone))
    values = {"at": at}
    for form in ("iso", "utc", "stamp"):
        assert dt.datetime.fromisoformat(render(f"{{at|{form}}}", values)) == at
    assert render("{at|epoch}", values) == minute * 60
    try:
        local = render("{at|local}", values)
    except UsageError:
        assert at.replace(fold=0).utcoffset() != at.replace(fold=1).utcoffset()
        return
    assert milliseconds(dt.datetime.fromisoformat(local).replace(tzinfo=at.tzinfo)) == minute * 60_000


ANSWER = {"a": {"b": [{"c": 1}, {"c": 2}]}, "days": [{"slots": ["x", "y"]}, {"slots": []}, {"slots": ["z"]}]}


def test_answers_are_read_by_path() -> None:
    assert dig(ANSWER, "a.b.1.c") == 2
    assert dig(ANSWER, ".") is ANSWER
    for path in ("a.b.2.c", "a.b.x", "nothing.at.all", "a.b.c"):
        assert dig(ANSWER, path) is None
    assert dig_all(ANSWER, "days.*.slots.*") == ["x", "y", "z"]
    assert dig_all(ANSWER, "a.b.*") == [{"c": 1}, {"c": 2}]
    assert dig_all(ANSWER, "a.*.c") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.lists(st.sampled_from(["a", "0", "*", "b", "-1", "99"]), min_size=1, max_size=4))
def test_any_answer_can_be_asked_for_any_path(data: Any, steps: list[str]) -> None:
    path = ".".join(steps)
    assert isinstance(dig_all(data, path), list)
    dig(data, path)
