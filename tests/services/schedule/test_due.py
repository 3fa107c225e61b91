"""Due times against the calendar: every day once, also on the two odd days of a year."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import UsageError
from services.schedule.due import HOUR_MS, firing_id, latest_due, next_due, schedules
from tests.support.scheduling import at

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # changes at midnight
    "Africa/Cairo",  # changes at midnight
    "Asia/Kolkata",  # half an hour off
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Chatham",
    "Pacific/Apia",
    "America/Scoresbysund",
]
GAP_ACROSS_MIDNIGHT = {("America/Scoresbysund", "23:45"): date(2026, 3, 29)}
"""The clock jumps from 23:00 to 00:00, so that this day's 23:45 comes as the next day begins."""
TIMES = ["00:00", "00:30", "01:30", "02:00", "02:30", "03:00", "23:45"]


def daily(zone, time):
    return schedules(zone, hourly=False, daily=time)[0]


def hourly(zone):
    return schedules(zone, hourly=True, daily=None)[0]


def all_due(schedule, start, end):
    found, now = [], start
    while (now := next_due(schedule, now)) <= end:
        found.append(now)
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("time", TIMES)
def test_a_daily_time_comes_once_on_every_day_of_a_year(zone, time):
    schedule = daily(zone, time)
    tz = ZoneInfo(zone)
    start, end = (round(datetime(year, 1, 1, tzinfo=tz).timestamp() * 1000) - 1 for year in (2026, 2027))
    local = [
        datetime.fromtimestamp(due / 1000, tz=UTC).astimezone(tz) for due in all_due(schedule, start, end)
    ]
    days = Counter(moment.date() for moment in local)
    gap = GAP_ACROSS_MIDNIGHT.get((zone, time))
    if gap is not None:
        assert days.pop(gap) == 2
        days[gap - timedelta(days=1)] += 1
        days[gap] += 1
    assert days == Counter(date(2026, 1, 1) + timedelta(days=n) for n in range(365))
    wanted = tuple(int(part) for part in time.split(":"))
    for moment in local:
        exists = datetime(moment.year, moment.month, moment.day, *wanted, tzinfo=tz)
        if moment.date() == gap and moment.hour == 0:
            continue
        if exists.astimezone(UTC).astimezone(tz).replace(fold=0) == exists:
            assert (moment.hour, moment.minute) == wanted
            assert moment.fold == 0  # of two such times the first one
        else:  # the clock skipped it: the first moment after the gap
            before = (moment.astimezone(UTC) - timedelta(seconds=1)).astimezone(tz)
            assert before.utcoffset() != moment.utcoffset()


@pytest.mark.parametrize("zone", ZONES)
def test_the_hourly_schedule_comes_at_every_full_hour_of_the_wall_clock(zone):
    found = all_due(hourly(zone), at("2026-01-01T12:00:00Z"), at("2027-01-01T12:00:00Z"))
    tz = ZoneInfo(zone)
    assert {datetime.fromtimestamp(due / 1000, tz=tz).minute for due in found} <= {0}
    gaps = Counter(b - a for a, b in pairwise(found))
    ordinary = gaps.pop(HOUR_MS)
    assert ordinary >= 8755
    assert zone == "Australia/Lord_Howe" or not gaps  # half-hour changes move the full hour twice a year
    assert sum(gaps.values()) <= 2


def test_spring_and_autumn_in_berlin():
    early = daily("Europe/Berlin", "02:30")
    assert next_due(early, at("2026-03-28T12:00:00+01:00")) == at("2026-03-29T03:00:00+02:00")
    assert next_due(early, at("2026-03-29T03:00:00+02:00")) == at("2026-03-30T02:30:00+02:00")
    first_pass = at("2026-10-25T02:30:00+02:00")
    assert next_due(early, at("2026-10-24T12:00:00+02:00")) == first_pass
    assert next_due(early, first_pass) == at("2026-10-26T02:30:00+01:00")
    # Asked between the two passes, and in the second one before the clock shows 02:30 again.
    assert next_due(early, at("2026-10-25T02:45:00+02:00")) == at("2026-10-26T02:30:00+01:00")
    assert next_due(early, at("2026-10-25T02:10:00+01:00")) == at("2026-10-26T02:30:00+01:00")


YEAR = st.integers(at("2026-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"))


@settings(deadline=None, max_examples=150)
@given(zone=st.sampled_from(ZONES), time=st.sampled_from(TIMES), now=YEAR, hour=st.booleans())
def test_due_times_do_not_depend_on_when_they_are_asked_for(zone, time, now, hour):
    schedule = hourly(zone) if hour else daily(zone, time)
    known = all_due(schedule, now - 50 * HOUR_MS, now + 50 * HOUR_MS)
    assert next_due(schedule, now) == min(due for due in known if due > now)
    assert latest_due(schedule, None, now) == max(due for due in known if due <= now)


@settings(deadline=None, max_examples=100)
@given(
    zone=st.sampled_from(ZONES),
    time=st.sampled_from(TIMES),
    now=YEAR,
    ago=st.integers(0, 40 * 24 * HOUR_MS),
    hour=st.booleans(),
)
def test_the_latest_missed_time_lies_between_the_last_firing_and_now(zone, time, now, ago, hour):
    schedule = hourly(zone) if hour else daily(zone, time)
    found = latest_due(schedule, now - ago, now)
    if found is None:
        assert next_due(schedule, now - ago) > now
    else:
        assert now - ago < found <= now < next_due(schedule, found)


def test_a_time_that_is_exactly_now_is_due():
    schedule = hourly("UTC")
    noon = at("2026-11-20T12:00:00Z")
    assert latest_due(schedule, noon - 1, noon) == noon
    assert latest_due(schedule, noon, noon) is None
    assert next_due(schedule, noon) == noon + HOUR_MS
    assert next_due(schedule, noon - 1) == noon


def test_ids_name_schedule_and_time():
    noon = at("2026-11-20T12:00:00Z")
    assert firing_id(hourly("Europe/Berlin"), noon) == "sync:stale:2026-11-20T12:00:00Z"
    assert firing_id(daily("Asia/Kolkata", "17:30"), noon) == "sync:daily:2026-11-20T12:00:00Z"


def test_what_is_switched_off_is_not_there():
    assert [each.key for each in schedules("UTC", hourly=True, daily="02:00")] == ["daily", "stale"]
    assert [each.force for each in schedules("UTC", hourly=True, daily="02:00")] == [True, False]
    assert schedules("UTC", hourly=False, daily=None) == ()


def test_an_unknown_zone_is_named():
    with pytest.raises(UsageError, match="Europe/Brelin"):
        schedules("Europe/Brelin", hourly=True, daily=None)
