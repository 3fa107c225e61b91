"""Counting probes over a day and a month, and how long they took, in little and constant memory.

Everything is pure: times are epoch milliseconds given by the caller. Hours and days are those of UTC. A
window holds the running hour (or day) and the whole ones before it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.health.model import HealthState

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

COUNTED: Final = (HealthState.UP, HealthState.DEGRADED, HealthState.DOWN, HealthState.MAINTENANCE)
"""The states of probes, in the order in which they are counted."""

_PLACE: Final = {state: place for place, state in enumerate(COUNTED)}
_KINDS: Final = len(COUNTED)

FINEST_MS: Final = 0.1
GROWTH: Final = 1.1
BUCKETS: Final = 160
"""Durations are sorted into buckets that grow by a tenth, from 0.1 ms to minutes: right to within 5 %."""

_LOG: Final = math.log(GROWTH)


def bucket_of(took_ms: float) -> int:
    """The bucket of a duration."""
    if took_ms <= FINEST_MS:
        return 0
    return min(BUCKETS - 1, 1 + int(math.log(took_ms / FINEST_MS) / _LOG))


def duration_of(bucket: int) -> float:
    """The duration in the middle of a bucket, in ms."""
    return float(FINEST_MS * GROWTH ** (bucket - 0.5)) if bucket else FINEST_MS


@dataclass(frozen=True, slots=True)
class Counts:
    """How many probes ended how."""

    up: int = 0
    degraded: int = 0
    down: int = 0
    maintenance: int = 0

    @property
    def uptime(self) -> float | None:
        """The share that found it usable; maintenance does not count, and nothing is None."""
        asked = self.up + self.degraded + self.down
        return (self.up + self.degraded) / asked if asked else None

    @property
    def total(self) -> int:
        return self.up + self.degraded + self.down + self.maintenance


class Ring:
    """Counts by slot (an hour's or a day's number), the sum of the latest `size` slots kept up to date."""

    __slots__ = ("_counts", "_newest", "_size", "totals")

    def __init__(self, size: int) -> None:
        self._size = size
        self._counts = array("I", bytes(4 * size * _KINDS))
        self._newest = -1
        self.totals = [0] * _KINDS

    def add(self, slot: int, place: int, count: int = 1) -> None:
        """Count in a slot; one that is older than the window is left out."""
        self.advance(slot)
        if slot > self._newest - self._size:
            self._counts[(slot % self._size) * _KINDS + place] += count
            self.totals[place] += count

    def advance(self, slot: int) -> None:
        """Let the window end with this slot, if it does not end later already."""
        if slot <= self._newest:
            return
        first = max(self._newest + 1, slot - self._size + 1)
        for gone in range(first, slot + 1):
            start = (gone % self._size) * _KINDS
            for place in range(_KINDS):
                self.totals[place] -= self._counts[start + place]
                self._counts[start + place] = 0
        self._newest = slot

    @property
    def counts(self) -> Counts:
        return Counts(*self.totals)


class Spread:
    """How long probes took, by slot; the percentiles of the latest `size` slots."""

    __slots__ = ("_newest", "_size", "_slots", "_sum")

    def __init__(self, size: int) -> None:
        self._size = size
        self._slots: dict[int, array[int]] = {}
        self._sum = array("I", bytes(4 * BUCKETS))
        self._newest = -1

    def add(self, slot: int, bucket: int, count: int = 1) -> None:
        self.advance(slot)
        if slot <= self._newest - self._size:
            return
        held = self._slots.get(slot)
        if held is None:
            held = self._slots[slot] = array("I", bytes(4 * BUCKETS))
        held[bucket] += count
        self._sum[bucket] += count

    def advance(self, slot: int) -> None:
        if slot <= self._newest:
            return
        self._newest = slot
        for old in [old for old in self._slots if old <= slot - self._size]:
            for bucket, count in enumerate(self._slots.pop(old)):
                if count:
                    self._sum[bucket] -= count

    def percentile(self, share: float) -> float | None:
        return percentile(self._sum, share)


class Tally:
    """What is known of one check's past: counts of 24 hours and 30 days, durations of 24 hours."""

    __slots__ = ("_days", "_hours", "_spread")

    def __init__(self) -> None:
        self._hours = Ring(25)
        self._days = Ring(31)
        self._spread: Spread | None = None

    def add(self, at: int, state: HealthState, took_ms: float | None = None, count: int = 1) -> None:
        """Count a probe (or several of the same kind); a state that is none of a probe's is left out."""
        place = _PLACE.get(state)
        if place is None:
            return
        self._hours.add(at // HOUR_MS, place, count)
        self._days.add(at // DAY_MS, place, count)
        if took_ms is not None and state is not HealthState.DOWN:
            self.add_durations(at, ((bucket_of(took_ms), count),))

    def add_hour(self, at: int, counts: Counts) -> None:
        """Count what is stored of an hour, for the 24 hours only."""
        for place, count in enumerate((counts.up, counts.degraded, counts.down, counts.maintenance)):
            if count:
                self._hours.add(at // HOUR_MS, place, count)

    def add_day(self, at: int, counts: Counts) -> None:
        """Count what is stored of a day, for the 30 days only."""
        for place, count in enumerate((counts.up, counts.degraded, counts.down, counts.maintenance)):
            if count:
                self._days.add(at // DAY_MS, place, count)

    def add_durations(self, at: int, buckets: Iterable[tuple[int, int]]) -> None:
        """Count durations by bucket."""
        if self._spread is None:
            self._spread = Spread(25)
        for bucket, count in buckets:
            self._spread.add(at // HOUR_MS, bucket, count)

    def advance(self, now: int) -> None:
        """Let what is too old fall out."""
        self._hours.advance(now // HOUR_MS)
        self._days.advance(now // DAY_MS)
        if self._spread is not None:
            self._spread.advance(now // HOUR_MS)

    @property
    def uptime_24h(self) -> float | None:
        return self._hours.counts.uptime

    @property
    def uptime_30d(self) -> float | None:
        return self._days.counts.uptime

    @property
    def day(self) -> Counts:
        return self._hours.counts

    @property
    def month(self) -> Counts:
        return self._days.counts

    def percentile(self, share: float) -> float | None:
        """A duration of the last 24 hours in ms, `share` between 0 and 1; of probes that got an answer."""
        return self._spread.percentile(share) if self._spread is not None else None


def percentile(buckets: Iterable[int], share: float) -> float | None:
    """The duration below which this share of the counted ones lies."""
    counted = list(buckets)
    total = sum(counted)
    if not total:
        return None
    wanted, seen = share * total, 0
    for bucket, count in enumerate(counted):
        seen += count
        if count and seen >= wanted:
            return duration_of(bucket)
    return duration_of(len(counted) - 1)


def encode_spread(buckets: Iterable[tuple[int, int]]) -> str:
    """Counts by bucket as a short text: `37:12 38:4`."""
    return " ".join(f"{bucket}:{count}" for bucket, count in sorted(buckets) if count)


def decode_spread(text: str) -> list[tuple[int, int]]:
    """What `encode_spread` wrote."""
    pairs = (pair.partition(":") for pair in text.split())
    return [(int(bucket), int(count)) for bucket, _, count in pairs]
