from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from services.health import history
from services.health.history import HOUR_MS, Probe, Rollup, Stretches, merge, points, roll_up, thin
from services.health.model import HealthState
from services.health.tally import (
    COUNTED,
    DAY_MS,
    GROWTH,
    Counts,
    Ring,
    Tally,
    bucket_of,
    decode_spread,
    duration_of,
    encode_spread,
)
from services.storage import Database, DatabaseLocation
from services.storage.tables import HealthProbe, HealthRollup
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401

NOON = 1_800_000_000_000 // DAY_MS * DAY_MS + DAY_MS // 2

probes = st.lists(
    st.builds(
        Probe,
        check_id=st.sampled_from(["a", "b"]),
        at=st.integers(min_value=NOON, max_value=NOON + 3 * DAY_MS),
        state=st.sampled_from(
            [HealthState.UP, HealthState.DEGRADED, HealthState.DOWN, HealthState.MAINTENANCE]
        ),
        took_ms=st.none() | st.floats(min_value=0, max_value=100_000),
        count=st.integers(min_value=1, max_value=100),
    ),
    max_size=60,
)


def total(rollups: list[Rollup], check_id: str) -> Counts:
    found = [each.counts for each in rollups if each.check_id == check_id]
    return Counts(
        sum(each.up for each in found),
        sum(each.degraded for each in found),
        sum(each.down for each in found),
        sum(each.maintenance for each in found),
    )


def counted(given_probes: list[Probe], check_id: str) -> Counts:
    states: Counter[HealthState] = Counter()
    for probe in given_probes:
        if probe.check_id == check_id:
            states[probe.state] += probe.count
    return Counts(*(states[state] for state in COUNTED))


@given(probes)
def test_no_probe_is_lost_and_none_counted_twice(found: list[Probe]) -> None:
    hours = roll_up(found, HOUR_MS)
    days = merge(hours, DAY_MS)
    for check_id in ("a", "b"):
        assert total(hours, check_id) == counted(found, check_id) == total(days, check_id)
    answered = sum(each.count for each in found if each.took_ms is not None and each.state != "down")
    assert sum(count for each in days for _, count in each.buckets) == answered
    assert len({(each.check_id, each.start) for each in hours}) == len(hours)


@given(st.floats(min_value=0.1, max_value=200_000))
def test_a_duration_is_known_to_within_its_bucket(took_ms: float) -> None:
    assert math.isclose(duration_of(bucket_of(took_ms)), took_ms, rel_tol=GROWTH - 1)


@given(st.dictionaries(st.integers(0, 159), st.integers(1, 10_000)))
def test_spreads_are_stored_and_read_back(spread: dict[int, int]) -> None:
    assert dict(decode_spread(encode_spread(spread.items()))) == spread


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), st.integers(1, 9)), max_size=60))
def test_a_ring_sums_exactly_its_window(added: list[tuple[int, int, int]]) -> None:
    ring, newest = Ring(25), -1
    for slot, place, count in added:
        ring.add(slot, place, count)
        newest = max(newest, slot)
    # One that came too late for the window of its time is gone; what came in time is counted.
    kept, seen = [0, 0, 0, 0], -1
    for slot, place, count in added:
        seen = max(seen, slot)
        if slot > seen - 25 and slot > newest - 25:
            kept[place] += count
    assert ring.totals == kept


@given(probes)
def test_uptime_is_the_share_of_probes_that_found_it_usable(found: list[Probe]) -> None:
    tally = Tally()
    now = NOON + 3 * DAY_MS
    for probe in found:
        tally.add(probe.at, probe.state, probe.took_ms, probe.count)
    tally.advance(now)
    since = (now // DAY_MS - 30) * DAY_MS
    counts = counted([probe for probe in found if probe.at >= since], "a")
    both = counted([probe for probe in found if probe.at >= since], "b")
    usable = counts.up + counts.degraded + both.up + both.degraded
    asked = usable + counts.down + both.down
    assert tally.uptime_30d == (usable / asked if asked else None)


def test_percentiles_come_from_what_answered() -> None:
    tally = Tally()
    for took_ms in range(1, 101):
        tally.add(NOON, HealthState.UP, float(took_ms))
    tally.add(NOON, HealthState.DOWN, 30_000.0)
    assert tally.percentile(0.5) == pytest.approx(50, rel=0.1)
    assert tally.percentile(0.95) == pytest.approx(95, rel=0.1)
    tally.advance(NOON + 26 * HOUR_MS)
    assert tally.percentile(0.5) is None
    assert tally.uptime_24h is None
    assert tally.uptime_30d is not None


def test_points_have_exact_percentiles_and_leave_out_empty_periods() -> None:
    found = [Probe("a", NOON + place * 1000, HealthState.UP, float(place)) for place in range(100)]
    found.append(Probe("a", NOON + 20 * 60_000, HealthState.DOWN))
    first, second = points(found, 300_000)
    assert (first.start, first.up, first.p50_ms, first.p95_ms) == (NOON, 100, 50.0, 95.0)
    assert (second.start, second.down, second.p50_ms) == (NOON + 20 * 60_000, 1, None)


def test_a_stretch_is_one_row_for_a_row_of_equal_readings() -> None:
    stretches, rows = Stretches(), []
    readings = [("up", 5), ("down", 2), ("up", 1)]
    at = NOON
    for state, times in readings:
        for _ in range(times):
            at += 1000
            ended = stretches.add("agent:1", at, HealthState(state), state, "")
            rows += [ended] if ended else []
    rows += stretches.take()
    assert [(row.state.value, row.count, row.at - NOON) for row in rows] == [
        ("up", 5, 5000),
        ("down", 2, 7000),
        ("up", 1, 8000),
    ]
    assert stretches.take() == []


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request, tmp_path):
    where = (
        DatabaseLocation(path=tmp_path / "callboard.db")
        if request.param == "sqlite"
        else DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))
    )
    opened = await Database.open(where)
    yield opened
    await opened.aclose()


async def test_probes_are_thinned_and_nothing_of_the_uptime_is_lost(database) -> None:
    """A fortnight of probes, thinned every six hours, then read back as a new process does."""
    start, step = NOON, 600_000
    found = [
        Probe(
            "a",
            start + place * step,
            HealthState.DOWN if place % 50 == 7 else HealthState.UP,
            float(place % 200),
        )
        for place in range(14 * 144)
    ]
    written = 0
    for now in range(start, start + 14 * DAY_MS + 1, DAY_MS // 4):
        due = [probe for probe in found[written:] if probe.at <= now]
        written += len(due)
        await database.write(lambda session, due=due: history.write_probes(session, due))
        await database.write(lambda session, now=now: thin(session, now))
    now = start + 14 * DAY_MS

    def count(session):
        rows = list(session.exec(select(HealthRollup)))
        return len(list(session.exec(select(HealthProbe)))), Counter(row.length_ms for row in rows)

    raw, rollups = await database.read(count)
    assert raw <= 26 * 6
    assert set(rollups) == {HOUR_MS, DAY_MS}
    tallies = await database.read(lambda session: history.tallies(session, now))
    month = tallies["a"].month
    assert (month.up, month.down) == (counted(found, "a").up, counted(found, "a").down)
    recent = [probe for probe in found if probe.at >= (now // HOUR_MS - 24) * HOUR_MS]
    assert tallies["a"].day == counted(recent, "a")
    durations = sorted(probe.took_ms for probe in recent if probe.state is HealthState.UP)
    assert tallies["a"].percentile(0.5) == pytest.approx(durations[len(durations) // 2], rel=0.1)
    # The detail: five minutes for a day, hours and days before.
    day = await database.read(lambda session: history.read_history(session, "a", now - DAY_MS, now))
    assert {point.length_ms for point in day} == {300_000}
    assert sum(point.up + point.down for point in day) == pytest.approx(144, abs=1)
    long = await database.read(lambda session: history.read_history(session, "a", start, now))
    assert sum(point.up + point.down for point in long) == len(found)
    starts = [point.start for point in long]
    assert starts == sorted(set(starts))
    # A season later everything is forgotten.
    await database.write(lambda session: thin(session, now + 91 * DAY_MS))
    assert await database.read(count) == (0, Counter())


async def test_thinning_again_changes_nothing(database) -> None:
    rows = [Probe("a", NOON + place * 60_000, HealthState.UP, 5.0) for place in range(180)]
    await database.write(lambda session: history.write_probes(session, rows))
    now = NOON + 4 * HOUR_MS
    for _ in range(3):
        await database.write(lambda session: thin(session, now))
    tallies = await database.read(lambda session: history.tallies(session, now))
    assert tallies["a"].day.up == tallies["a"].month.up == 180
