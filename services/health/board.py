"""How every check stands: readings in, states and views out. Pure; times are given by the caller.

A reading becomes a state by the check's threshold, its limit for slowness and its maintenance window. What
hangs on something that is down is *held*: its own state goes on being kept, but is nobody's news.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from services.health.arranging import Arrangement, arrange
from services.health.model import Beat, CheckSpec, CheckView, HealthState, Reading
from services.health.tally import Tally
from services.health.vitals import Vitals

BEATS: Final = 60
"""Probes in a heartbeat strip."""

STEP: Final = 200
"""Checks that come, change or go between two turns of the event loop."""


@dataclass(slots=True)
class Standing:
    """One check as it stands. `failures`: readings in a row that found it down; `troubles`: not up."""

    spec: CheckSpec
    state: HealthState = HealthState.PENDING
    since: int | None = None
    asked_at: int | None = None
    """When the latest probe began."""
    checked_at: int | None = None
    next_at: int | None = None
    reading: Reading | None = None
    failures: int = 0
    troubles: int = 0
    trouble_at: int | None = None
    """When the first reading of the present row of troubles came."""
    recovered_at: int | None = None
    """When the reading came that ended the latest row of failures."""
    maintenance_until: int | None = None
    last_error: str = ""
    last_error_at: int | None = None
    last_error_advice: str = ""
    probing: bool = False
    vitals: Vitals | None = None
    """What the process that probes said of its policy; for all others to show."""
    beats: deque[Beat] = field(default_factory=lambda: deque(maxlen=BEATS))
    tally: Tally = field(default_factory=Tally)

    @property
    def blocking(self) -> bool:
        """Whether what hangs on it cannot be blamed: it is down, known and in maintenance or not."""
        return self.state is HealthState.DOWN or (self.state is HealthState.MAINTENANCE and self.failures > 0)

    @property
    def doubtful(self) -> bool:
        """Whether it has just failed for the first time, which its threshold does not yet call down."""
        return self.state is HealthState.PENDING and self.failures == 1

    @property
    def well(self) -> bool:
        """Whether its latest reading found nothing wrong."""
        return self.reading is not None and self.troubles == 0 and self.reading.state is HealthState.UP


class Board:
    """All checks. Belongs to one event loop; nothing here waits."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._arranged = Arrangement()
        self._views: dict[str, CheckView] = {}
        self._dirty: dict[str, None] = {}
        self._last_beat: dict[HealthState, Beat] = {}

    def __contains__(self, check_id: str) -> bool:
        return check_id in self._standings

    def __iter__(self) -> Iterator[Standing]:
        return iter(self._standings.values())

    def standing(self, check_id: str) -> Standing:
        """Raises KeyError for a check that does not exist."""
        return self._standings[check_id]

    def find(self, check_id: str) -> Standing | None:
        return self._standings.get(check_id)

    @property
    def ids(self) -> Sequence[str]:
        """In the order of the panels: by kind, company and name."""
        return self._arranged.order

    # -- what there is ------------------------------------------------------------------------------

    def set_specs(self, specs: Iterable[CheckSpec]) -> tuple[list[str], list[str]]:
        """Watch these and no others, at once. Returns the ids that came and the ids that went.

        What is known of a check that stays is kept, whatever of it changed.
        """
        arranged = arrange(specs, self._arranged)
        for _ in self.rearrange(arranged):
            pass
        return list(arranged.came), list(arranged.gone)

    @property
    def arranged(self) -> Arrangement:
        """What is watched; the next one is worked out from it, on any thread."""
        return self._arranged

    def rearrange(self, arranged: Arrangement) -> Iterator[None]:
        """The same with an arrangement that was worked out from the present one, step by step.

        Between two steps others may use the board: until the last newcomer is there the old order holds.
        """
        for number, spec in enumerate(arranged.specs.values(), 1):
            known = self._standings.get(spec.id)
            if known is None:
                self._standings[spec.id] = Standing(spec)
            else:
                known.spec = spec
            if number % STEP == 0:
                yield
        self._arranged = arranged
        self._dirty.update(dict.fromkeys(arranged.stale))
        yield
        for number, check_id in enumerate(arranged.gone, 1):
            self._standings.pop(check_id, None)
            self._views.pop(check_id, None)
            self._dirty.pop(check_id, None)
            if number % STEP == 0:
                yield

    def title(self, check_id: str) -> str:
        """What people call it; with its company where another one is called the same."""
        standing = self._standings.get(check_id)
        if standing is None:
            return check_id
        spec = standing.spec
        return f"{spec.name} ({spec.company})" if self._arranged.ambiguous(spec) else spec.name

    def ancestors(self, check_id: str) -> list[str]:
        """The checks it hangs on, directly or not; those that do not exist are left out."""
        found: dict[str, None] = {}
        ahead = list(self._standings[check_id].spec.depends_on)
        while ahead:
            parent = ahead.pop()
            if parent in found or parent not in self._standings or parent == check_id:
                continue
            found[parent] = None
            ahead += self._standings[parent].spec.depends_on
        return list(found)

    def descendants(self, check_id: str) -> list[str]:
        """The checks that hang on it, directly or not."""
        return [each for each in self._arranged.descendants([check_id]) if each != check_id]

    def cause(self, check_id: str) -> str:
        """The id of what it is held by: the first cause, where that hangs on something, too. Else empty."""
        blocking = [parent for parent in self.ancestors(check_id) if self._standings[parent].blocking]
        roots = [
            parent
            for parent in blocking
            if not any(self._standings[each].blocking for each in self.ancestors(parent))
        ]
        return min(roots or blocking, default="")

    # -- what happens -------------------------------------------------------------------------------

    def apply(self, check_id: str, reading: Reading, asked_at: int, at: int) -> HealthState | None:
        """Take a reading in; returns the state as which it counts, None where there is no such check.

        `asked_at` and `at`: when the probe began and ended.
        """
        standing = self._standings.get(check_id)
        if standing is None:
            return None
        blocked = standing.blocking
        reading = _judged(reading, standing.spec)
        self._count(standing, reading, asked_at, at)
        until = standing.maintenance_until
        counted = reading.state
        if until is not None and at < until:
            counted = HealthState.MAINTENANCE
        state = counted
        if counted is HealthState.DOWN and standing.failures < standing.spec.failure_threshold:
            state = HealthState.DOWN if standing.state is HealthState.DOWN else HealthState.PENDING
        self._enter(standing, state, at)
        if counted is not HealthState.PENDING:
            standing.beats.append(self._beat(at, counted, reading.took_ms))
            standing.tally.add(at, counted, reading.took_ms)
        self._touch(standing, blocked)
        return counted

    def _count(self, standing: Standing, reading: Reading, asked_at: int, at: int) -> None:
        standing.reading, standing.asked_at, standing.checked_at = reading, asked_at, at
        if reading.state is HealthState.DOWN:
            standing.failures += 1
        else:
            if standing.failures:
                standing.recovered_at = at
            standing.failures = 0
        if reading.state in (HealthState.DOWN, HealthState.DEGRADED):
            standing.troubles += 1
            if standing.troubles == 1:
                standing.trouble_at = at
            standing.last_error, standing.last_error_at = reading.message, at
            standing.last_error_advice = reading.advice
        else:
            standing.troubles, standing.trouble_at = 0, None

    def _beat(self, at: int, state: HealthState, took_ms: float | None) -> Beat:
        """A beat; what a round finds of many checks is one object for all of them."""
        if took_ms is not None:
            return Beat(at, state, took_ms)
        last = self._last_beat.get(state)
        if last is None or last.at != at:
            last = self._last_beat[state] = Beat(at, state)
        return last

    def doubtful(self, check_ids: Iterable[str]) -> bool:
        """Whether all of these should be looked at again before their turn (see `Standing.doubtful`)."""
        found = [standing for each in check_ids if (standing := self._standings.get(each)) is not None]
        return bool(found) and all(standing.doubtful for standing in found)

    def set_maintenance(self, check_id: str, until: int | None, now: int) -> None:
        """Begin, prolong or end (None) its maintenance."""
        standing = self._standings[check_id]
        if standing.maintenance_until == until:
            return
        blocked = standing.blocking
        standing.maintenance_until = until
        if until is not None and now < until:
            self._enter(standing, HealthState.MAINTENANCE, now)
        elif standing.state is HealthState.MAINTENANCE:
            self._enter(standing, self._after_maintenance(standing), now)
        self._touch(standing, blocked)

    def _after_maintenance(self, standing: Standing) -> HealthState:
        if standing.reading is None:
            return HealthState.PENDING
        if standing.reading.state is not HealthState.DOWN:
            return standing.reading.state
        enough = standing.failures >= standing.spec.failure_threshold
        return HealthState.DOWN if enough else HealthState.PENDING

    def set_probing(self, check_id: str, probing: bool) -> None:
        standing = self._standings.get(check_id)
        if standing is not None and standing.probing != probing:
            standing.probing = probing
            self._dirty[check_id] = None

    def set_next(self, check_id: str, next_at: int | None) -> None:
        standing = self._standings.get(check_id)
        if standing is not None and standing.next_at != next_at:
            standing.next_at = next_at
            self._dirty[check_id] = None

    def adopt(self, check_id: str, change: Callable[[Standing], None]) -> bool:
        """Let another process say how it stands; False where there is no such check."""
        standing = self._standings.get(check_id)
        if standing is None:
            return False
        blocked = standing.blocking
        change(standing)
        self._touch(standing, blocked)
        return True

    def touch(self, check_id: str) -> None:
        """Something of it was changed from outside: build its view anew."""
        if check_id in self._standings:
            self._dirty[check_id] = None

    def _enter(self, standing: Standing, state: HealthState, at: int) -> None:
        if state is not standing.state or standing.since is None:
            standing.state, standing.since = state, at

    def _touch(self, standing: Standing, was_blocking: bool) -> None:
        self._dirty[standing.spec.id] = None
        if standing.blocking != was_blocking:
            self._dirty.update(dict.fromkeys(self.descendants(standing.spec.id)))

    # -- what is shown ------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether every view is up to date."""
        return not self._dirty

    def refresh(self, now: int, most: int | None = None) -> list[str]:
        """Bring views up to date, at most so many; returns whose they are."""
        done = list(self._dirty)[:most]
        for check_id in done:
            del self._dirty[check_id]
            self._views[check_id] = self._build(self._standings[check_id], now)
        return done

    def view(self, check_id: str) -> CheckView | None:
        """The one of a check as it was at the latest `refresh`; None before the first."""
        return self._views.get(check_id)

    def views(self) -> list[CheckView]:
        """All of them in the order of the panels, as they were at the latest `refresh`."""
        return [self._views[check_id] for check_id in self._arranged.order if check_id in self._views]

    def _build(self, standing: Standing, now: int) -> CheckView:
        spec, reading, tally = standing.spec, standing.reading, standing.tally
        tally.advance(now)
        cause = self.cause(spec.id) if spec.depends_on else ""
        state, since = standing.state, standing.since
        if cause and state is not HealthState.MAINTENANCE:
            state, since = HealthState.WAITS, self._standings[cause].since
        return CheckView(
            id=spec.id,
            kind=spec.kind,
            name=spec.name,
            company=spec.company,
            state=state,
            since=since,
            checked_at=standing.checked_at,
            next_at=standing.next_at,
            message=reading.message if reading else "",
            advice=reading.advice if reading else "",
            category=reading.category if reading else "",
            took_ms=reading.took_ms if reading else None,
            facts=reading.facts if reading else (),
            simulated=spec.simulated or (reading is not None and reading.simulated),
            failures=standing.failures,
            failure_threshold=spec.failure_threshold,
            held_by=self.title(cause) if cause else "",
            dependents=self._arranged.dependents.get(spec.id, 0),
            beats=tuple(standing.beats),
            uptime_24h=tally.uptime_24h,
            uptime_30d=tally.uptime_30d,
            p50_ms=tally.percentile(0.5),
            p95_ms=tally.percentile(0.95),
            maintenance_until=standing.maintenance_until,
            last_error=standing.last_error,
            last_error_at=standing.last_error_at,
            last_error_advice=standing.last_error_advice,
            probing=standing.probing,
            interval=spec.interval,
            depends_on=spec.depends_on,
            critical=spec.critical,
            policy=spec.policy,
        )


def _judged(reading: Reading, spec: CheckSpec) -> Reading:
    """The reading, degraded where the answer took too long."""
    slow = spec.slow_ms
    if reading.state is not HealthState.UP or slow is None or reading.took_ms is None:
        return reading
    if reading.took_ms < slow:
        return reading
    return replace(
        reading,
        state=HealthState.DEGRADED,
        message=f"Slow: answered after {_time(reading.took_ms)}, expected within {_time(slow)}",
        advice=reading.advice or "Look at the vendor's status page and at the network; it works, but slowly",
        category=reading.category or "timeout",
    )


def _time(took_ms: float) -> str:
    return f"{took_ms / 1000:.1f} s" if took_ms >= 1000 else f"{took_ms:.0f} ms"
