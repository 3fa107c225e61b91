"""When a check may fail without an alert: absolute times, or a cron line in a time zone for some minutes.

The length of a recurring window is real time, so on the days on which the clock is changed it ends as many
minutes after its beginning as on every other day. A beginning that the clock skips comes as soon as the
clock is past the gap, one that it shows twice comes the first time only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

from services.errors import UsageError
from services.health.model import CheckKind, CheckSpec, Window
from services.schedule.due import Schedule, latest_due, next_due, zone_of

MINUTE_MS: Final = 60_000
LONGEST_MINUTES: Final = 48 * 60
EVERYTHING: Final = "*"
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Span:
    """One time of maintenance, from `start` to before `end`."""

    window: Window
    start: int
    end: int


def validate(window: Window) -> None:
    """Raises UsageError for a window that cannot be."""
    if not window.scope:
        raise UsageError("Maintenance of nothing", advice="name a check, a kind, company:NAME or *")
    zone_of(window.timezone)
    if window.cron:
        if window.starts_at is not None or window.ends_at is not None:
            raise UsageError(
                "A maintenance window has either a beginning and an end or a cron line",
                advice="leave one of them out",
            )
        _check_cron(window.cron)
        if not 1 <= window.minutes <= LONGEST_MINUTES:
            raise UsageError(
                f"A recurring maintenance window lasts 1 to {LONGEST_MINUTES} minutes", code="bad_minutes"
            )
        if _never_ends(window):
            raise UsageError(
                f"Maintenance by {window.cron!r}, {window.minutes} min each time, begins again before it is "
                "over: it would not end",
                advice="give fewer minutes, or let it recur less often; what is not to be watched at all is "
                "switched off with: callboard health rules set CHECK --off",
                code="never_ends",
            )
        return
    if window.starts_at is None or window.ends_at is None or window.ends_at <= window.starts_at:
        raise UsageError(
            "A maintenance window ends after it begins", advice="give a later end, or a duration"
        )


def _check_cron(line: str) -> None:
    fields = len(line.split())
    # Six would be read as well, the first of them as seconds: a slip that makes a window of every minute.
    reason = "" if fields == 5 else f"it has {fields} field{'' if fields == 1 else 's'}"
    if not reason:
        try:
            CronSim(line, _EPOCH)
        except CronSimError as error:
            reason = str(error).lower()
    if reason:
        raise UsageError(
            f"The cron line {line!r} cannot be read: {reason}",
            advice="give five fields, such as '0 3 * * sun' for Sundays at three",
            code="bad_cron",
        )


def _never_ends(window: Window) -> bool:
    """Whether a recurring window has no break in the first week: it would be maintenance for good.

    Nobody who plans maintenance means that, and nobody would ever be told of anything again.
    """
    length = timedelta(minutes=window.minutes)
    times = iter(CronSim(window.cron, _EPOCH))
    first = last = next(times)
    for begins in times:
        if begins - last > length:
            return False
        if begins - first > _WEEK:
            return True
        last = begins
    return False


def covers(window: Window, spec: CheckSpec) -> bool:
    """Whether the window is for this check."""
    scope = window.scope
    if scope in (EVERYTHING, spec.id, spec.kind.value):
        return True
    kind, separator, name = scope.partition(":")
    return bool(separator) and kind == "company" and name.casefold() == spec.company.casefold() != ""


def span_at(window: Window, now: int) -> Span | None:
    """The time of maintenance that is running, if one is."""
    if not window.cron:
        start, end = window.starts_at or 0, window.ends_at or 0
        return Span(window, start, end) if start <= now < end else None
    length = window.minutes * MINUTE_MS
    begun = latest_due(_schedule(window), now - length, now)
    return Span(window, begun, begun + length) if begun is not None else None


def next_span(window: Window, now: int) -> Span | None:
    """The next one that has not begun yet; None when there is none."""
    if not window.cron:
        start, end = window.starts_at or 0, window.ends_at or 0
        return Span(window, start, end) if start > now else None
    start = next_due(_schedule(window), now)
    return Span(window, start, start + window.minutes * MINUTE_MS)


def running(windows: Iterable[Window], now: int) -> list[Span]:
    """The windows that are running."""
    return [span for window in windows if (span := span_at(window, now)) is not None]


def until(spans: Sequence[Span], spec: CheckSpec) -> int | None:
    """When the maintenance of a check ends, of those that are running; None when it is in none."""
    return max((span.end for span in spans if covers(span.window, spec)), default=None)


def check_scope(scope: str, specs: Iterable[CheckSpec]) -> None:
    """Raises UsageError for a scope that names nothing, with what comes nearest."""
    known = list(specs)
    if scope == EVERYTHING or scope in list(CheckKind):
        return
    window = Window(0, scope)
    if any(covers(window, spec) for spec in known):
        return
    from difflib import get_close_matches

    names = [spec.id for spec in known] + [f"company:{spec.company}" for spec in known if spec.company]
    near = get_close_matches(scope, [*names, *CheckKind], n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else "callboard health lists the checks"
    raise UsageError(f"There is no check, kind or company {scope!r}", advice=advice, code="unknown_check")


def _schedule(window: Window) -> Schedule:
    return Schedule("maintenance", window.cron, zone_of(window.timezone), force=False, cause="")
