"""Probes as they are kept: every one for a day, by the hour for a week, by the day for a season.

The arithmetic is pure; the rest are plain functions on a session, each meant for one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy import insert as plain_insert
from sqlmodel import Session, col

from services.health.model import Beat, HealthState, HistoryPoint
from services.health.tally import (
    DAY_MS,
    HOUR_MS,
    Counts,
    Tally,
    bucket_of,
    decode_spread,
    encode_spread,
    percentile,
)
from services.storage.tables import HealthProbe, HealthRollup

POINT_MS: Final = 300_000
"""One point of a day's history."""

RAW_MS: Final = 25 * HOUR_MS
HOURS_MS: Final = 8 * DAY_MS
DAYS_MS: Final = 90 * DAY_MS
GRACE_MS: Final = 120_000
"""How long after its end an hour is added up: what was probed in it has been written by then."""

_FIELD: Final = {
    HealthState.UP: "up",
    HealthState.DEGRADED: "degraded",
    HealthState.DOWN: "down",
    HealthState.MAINTENANCE: "maintenance",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement (or `count` equal ones, the last of which was at `at`)."""

    check_id: str
    at: int
    state: HealthState
    took_ms: float | None = None
    category: str = ""
    message: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Rollup:
    """The probes of one check in one period. `buckets`: how many took how long, see `tally.bucket_of`."""

    check_id: str
    start: int
    length_ms: int
    counts: Counts
    buckets: tuple[tuple[int, int], ...] = ()

    def percentile(self, share: float) -> float | None:
        sizes = dict(self.buckets)
        return percentile((sizes.get(bucket, 0) for bucket in range(max(sizes, default=-1) + 1)), share)


def roll_up(probes: Iterable[Probe], length_ms: int) -> list[Rollup]:
    """The probes counted by check and period; no probe is lost and none is counted twice."""
    counts: dict[tuple[str, int], Counter[str]] = {}
    buckets: dict[tuple[str, int], Counter[int]] = {}
    for probe in probes:
        field = _FIELD.get(probe.state)
        if field is None:
            continue
        key = (probe.check_id, probe.at - probe.at % length_ms)
        counts.setdefault(key, Counter())[field] += probe.count
        if probe.took_ms is not None and probe.state is not HealthState.DOWN:
            buckets.setdefault(key, Counter())[bucket_of(probe.took_ms)] += probe.count
    return [
        Rollup(key[0], key[1], length_ms, Counts(**found), tuple(sorted(buckets.get(key, {}).items())))
        for key, found in counts.items()
    ]


def merge(rollups: Iterable[Rollup], length_ms: int) -> list[Rollup]:
    """Shorter periods added up to longer ones."""
    counts: dict[tuple[str, int], list[int]] = {}
    buckets: dict[tuple[str, int], Counter[int]] = {}
    for each in rollups:
        key = (each.check_id, each.start - each.start % length_ms)
        total = counts.setdefault(key, [0, 0, 0, 0])
        of_each = (each.counts.up, each.counts.degraded, each.counts.down, each.counts.maintenance)
        for place, count in enumerate(of_each):
            total[place] += count
        spread = buckets.setdefault(key, Counter())
        for bucket, count in each.buckets:
            spread[bucket] += count
    return [
        Rollup(key[0], key[1], length_ms, Counts(*total), tuple(sorted(buckets[key].items())))
        for key, total in counts.items()
    ]


def points(probes: Sequence[Probe], length_ms: int) -> list[HistoryPoint]:
    """The probes of one check by period, durations exact; periods without probes are left out."""
    durations: dict[int, list[float]] = {}
    for probe in probes:
        if probe.took_ms is not None and probe.state is not HealthState.DOWN:
            durations.setdefault(probe.at - probe.at % length_ms, []).append(probe.took_ms)
    return [
        _point(each, *_percentiles(durations.get(each.start, [])))
        for each in sorted(roll_up(probes, length_ms), key=lambda each: each.start)
    ]


def _percentiles(durations: list[float]) -> tuple[float | None, float | None]:
    ordered = sorted(durations)
    if not ordered:
        return None, None
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95))  # type: ignore[return-value]


def _point(each: Rollup, p50: float | None, p95: float | None) -> HistoryPoint:
    counts = each.counts
    return HistoryPoint(
        each.start, each.length_ms, counts.up, counts.degraded, counts.down, counts.maintenance, p50, p95
    )


class Stretches:
    """Makes rows of readings that come by the thousand in rounds: one row for a row of equal ones.

    A stretch is written when its state changes, when its hour is over, and at the end.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[Any]] = {}

    def add(self, check_id: str, at: int, state: HealthState, message: str, category: str) -> Probe | None:
        """Take one in; returns the stretch that it ended, if any."""
        held = self._open.get(check_id)
        if held is not None and held[0] is state and held[1] // HOUR_MS == at // HOUR_MS:
            held[1], held[2], held[3], held[4] = at, held[2] + 1, message, category
            return None
        self._open[check_id] = [state, at, 1, message, category]
        return _stretch(check_id, held) if held is not None else None

    def take(self) -> list[Probe]:
        """End all of them."""
        held, self._open = self._open, {}
        return [_stretch(check_id, each) for check_id, each in held.items()]


def _stretch(check_id: str, held: Sequence[Any]) -> Probe:
    state, at, count, message, category = held
    return Probe(check_id, at, state, None, category, message, count)


# -- in the database --------------------------------------------------------------------------------

_COLUMNS: Final[tuple[Any, ...]] = (
    HealthProbe.check_id,
    HealthProbe.at,
    HealthProbe.state,
    HealthProbe.took_ms,
    HealthProbe.count,
)


def write_probes(session: Session, probes: Sequence[Probe]) -> None:
    """Store them."""
    if probes:
        session.execute(
            plain_insert(HealthProbe),
            [
                {
                    "check_id": probe.check_id,
                    "at": probe.at,
                    "state": probe.state.value,
                    "took_ms": probe.took_ms,
                    "count": probe.count,
                    "category": probe.category,
                    # What went well needs no words.
                    "message": "" if probe.state is HealthState.UP else probe.message,
                }
                for probe in probes
            ],
        )


def _probe(row: Any) -> Probe:
    return Probe(row[0], row[1], HealthState(row[2]), row[3], count=row[4])


def beat_of(probe: Probe) -> Beat:
    """The probe in a heartbeat strip."""
    return Beat(probe.at, probe.state, probe.took_ms)


def probes_since(session: Session, since: int, check_id: str = "") -> list[Probe]:
    """The kept probes from this time on, of one check or all, oldest first."""
    query = select(*_COLUMNS).where(col(HealthProbe.at) >= since)
    if check_id:
        query = query.where(col(HealthProbe.check_id) == check_id)
    return [_probe(row) for row in session.execute(query.order_by(col(HealthProbe.at)))]


def probes_after(session: Session, row_id: int) -> tuple[list[Probe], int]:
    """The probes stored after this row, and the id of the last one: how other processes follow."""
    query = select(*_COLUMNS, col(HealthProbe.id)).where(col(HealthProbe.id) > row_id)
    rows = session.execute(query.order_by(col(HealthProbe.id))).all()
    return [_probe(row) for row in rows], rows[-1][5] if rows else row_id


def newest_row(session: Session) -> int:
    """The id of the latest stored probe; 0 without one."""
    return int(session.execute(select(func.max(HealthProbe.id))).scalar() or 0)


def beats_of(session: Session, check_ids: Iterable[str], most: int) -> dict[str, list[Beat]]:
    """The latest probes of each of these checks, oldest first."""
    found: dict[str, list[Beat]] = {}
    for check_id in check_ids:
        query = (
            select(col(HealthProbe.at), col(HealthProbe.state), col(HealthProbe.took_ms))
            .where(col(HealthProbe.check_id) == check_id)
            .order_by(col(HealthProbe.at).desc())
            .limit(most)
        )
        rows = session.execute(query).all()
        if rows:
            found[check_id] = [Beat(at, HealthState(state), took) for at, state, took in reversed(rows)]
    return found


def tallies(session: Session, now: int) -> dict[str, Tally]:
    """What is stored of the last 24 hours and 30 days, by check."""
    found: dict[str, Tally] = {}

    def of(check_id: str) -> Tally:
        tally = found.get(check_id)
        if tally is None:
            tally = found[check_id] = Tally()
        return tally

    day = col(HealthRollup.start) // DAY_MS
    sums = [func.sum(column) for column in _COUNTS]
    month = (
        select(col(HealthRollup.check_id), day, *sums)
        .where(col(HealthRollup.start) >= (now // DAY_MS - 30) * DAY_MS)
        .group_by(col(HealthRollup.check_id), day)
        .order_by(day)
    )
    for check_id, number, *counts in session.execute(month):
        of(check_id).add_day(int(number) * DAY_MS, Counts(*(int(count or 0) for count in counts)))
    hours = (
        select(col(HealthRollup.check_id), col(HealthRollup.start), *_COUNTS, col(HealthRollup.spread))
        .where(
            col(HealthRollup.start) >= (now // HOUR_MS - 24) * HOUR_MS, col(HealthRollup.length_ms) == HOUR_MS
        )
        .order_by(col(HealthRollup.start))
    )
    for check_id, start, *counts, spread in session.execute(hours):
        tally = of(check_id)
        tally.add_hour(start, Counts(*counts))
        if spread:
            tally.add_durations(start, decode_spread(spread))
    for probe in probes_since(session, _open_since(session)):
        of(probe.check_id).add(probe.at, probe.state, probe.took_ms, probe.count)
    return found


_COUNTS: Final[tuple[Any, ...]] = (
    HealthRollup.up,
    HealthRollup.degraded,
    HealthRollup.down,
    HealthRollup.maintenance,
)


def _open_since(session: Session) -> int:
    """From when on probes are not added up yet."""
    latest = session.execute(
        select(func.max(HealthRollup.start)).where(col(HealthRollup.length_ms) == HOUR_MS)
    ).scalar()
    return int(latest) + HOUR_MS if latest is not None else 0


def thin(session: Session, now: int) -> None:
    """Add up hours that are over, then days; forget what is too old. May be called at any time."""
    complete = (now - GRACE_MS) // HOUR_MS * HOUR_MS
    start = _open_since(session)
    while True:
        first = session.execute(select(func.min(HealthProbe.at)).where(col(HealthProbe.at) >= start)).scalar()
        if first is None:
            break
        start = int(first) // HOUR_MS * HOUR_MS
        if start >= complete:
            break
        query = select(*_COLUMNS).where(col(HealthProbe.at) >= start, col(HealthProbe.at) < start + HOUR_MS)
        _store(session, roll_up((_probe(row) for row in session.execute(query)), HOUR_MS))
        start += HOUR_MS
    session.execute(delete(HealthProbe).where(col(HealthProbe.at) < min(now - RAW_MS, complete)))
    _merge_days(session, (now - HOURS_MS) // DAY_MS * DAY_MS)
    session.execute(delete(HealthRollup).where(col(HealthRollup.start) < now - DAYS_MS))


def _merge_days(session: Session, until: int) -> None:
    old = (col(HealthRollup.start) < until, col(HealthRollup.length_ms) == HOUR_MS)
    rows = session.execute(select(*_ROLLUP).where(*old)).all()
    if rows:
        session.execute(delete(HealthRollup).where(*old))
        _store(session, merge((_rollup(row) for row in rows), DAY_MS))


_ROLLUP: Final[tuple[Any, ...]] = (
    HealthRollup.check_id,
    HealthRollup.start,
    HealthRollup.length_ms,
    *_COUNTS,
    HealthRollup.spread,
)


def _rollup(row: Any) -> Rollup:
    check_id, start, length_ms, *counts, spread = row
    return Rollup(check_id, start, length_ms, Counts(*counts), tuple(decode_spread(spread)))


def _store(session: Session, rollups: Sequence[Rollup]) -> None:
    if rollups:
        session.execute(
            plain_insert(HealthRollup),
            [
                {
                    "check_id": each.check_id,
                    "start": each.start,
                    "length_ms": each.length_ms,
                    "up": each.counts.up,
                    "degraded": each.counts.degraded,
                    "down": each.counts.down,
                    "maintenance": each.counts.maintenance,
                    "p50_ms": each.percentile(0.5),
                    "p95_ms": each.percentile(0.95),
                    "spread": encode_spread(each.buckets),
                }
                for each in rollups
            ],
        )


def read_history(session: Session, check_id: str, since: int, now: int) -> list[HistoryPoint]:
    """The history of one check: by five minutes for a day, by hours or days where more is asked for."""
    raw_from = max(since, now - RAW_MS + HOUR_MS)
    if since >= raw_from:
        return points(probes_since(session, since, check_id), POINT_MS)
    query = (
        select(*_ROLLUP)
        .where(
            col(HealthRollup.check_id) == check_id,
            col(HealthRollup.start) + col(HealthRollup.length_ms) > since,
        )
        .order_by(col(HealthRollup.start))
    )
    older = [_rollup(row) for row in session.execute(query)]
    found = [_point(each, each.percentile(0.5), each.percentile(0.95)) for each in older]
    after = older[-1].start + older[-1].length_ms if older else since
    recent = probes_since(session, max(after, since), check_id)
    return found + points(recent, HOUR_MS)
