"""Summer time: nothing that does not exist is taken, nothing that exists twice is guessed."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import UsageError
from services.integrations.bookings.times import day_window, exists, is_twice, moment, zone_named

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2027-03-01T19:30", "2027-03-01T18:30:00+00:00"),
        ("2027-07-01 19:30", "2027-07-01T17:30:00+00:00"),
        ("2027-03-01T19:30+05:00", "2027-03-01T14:30:00+00:00"),
        ("2027-03-01T19:30Z", "2027-03-01T19:30:00+00:00"),
        ("2026-10-25T02:30+02:00", "2026-10-25T00:30:00+00:00"),
        ("2026-10-25T02:30+01:00", "2026-10-25T01:30:00+00:00"),
    ],
)
def test_a_time_is_read_in_its_zone(text: str, utc: str) -> None:
    assert moment(text, BERLIN).astimezone(dt.UTC).isoformat() == utc


@pytest.mark.parametrize(
    ("text", "message", "advice"),
    [
        ("tomorrow", "is no time", "2027-03-01T19:30"),
        ("2027-13-01", "is no time", "2027-03-01T19:30"),
        ("2027-03-28T02:30", "does not exist", "before or after"),
        ("2026-10-25T02:30", "occurs twice", "+02:00 or +01:00"),
    ],
)
def test_what_cannot_be_is_told(text: str, message: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        moment(text, BERLIN)
    assert message in caught.value.message
    assert advice in caught.value.advice


@pytest.mark.parametrize(("day", "hours"), [("2027-03-28", 23), ("2026-10-25", 25), ("2027-03-01", 24)])
def test_a_day_has_23_to_25_hours(day: str, hours: int) -> None:
    begin, end = day_window(dt.date.fromisoformat(day), BERLIN)
    assert end.timestamp() - begin.timestamp() == hours * 3600


def test_a_midnight_that_is_skipped_is_the_first_moment_after() -> None:
    begin, _ = day_window(dt.date(2018, 11, 4), ZoneInfo("America/Sao_Paulo"))
    assert begin.isoformat() == "2018-11-04T01:00:00-02:00"


@pytest.mark.parametrize("name", ["Berlin", "", "../../etc/passwd", "Europe/Berlin\x00"])
def test_what_is_no_zone_is_told(name: str) -> None:
    with pytest.raises(UsageError, match="no time zone"):
        zone_named(name)


@given(st.integers(1_577_836_800 // 60, 2_051_222_400 // 60))
def test_a_local_time_is_read_exactly_if_it_occurs_once(minute: int) -> None:
    local = dt.datetime.fromtimestamp(minute * 60, dt.UTC).replace(tzinfo=None)
    zoned = local.replace(tzinfo=BERLIN)
    if exists(zoned) and not is_twice(zoned):
        assert moment(local.isoformat(), BERLIN) == zoned
    else:
        with pytest.raises(UsageError):
            moment(local.isoformat(), BERLIN)
