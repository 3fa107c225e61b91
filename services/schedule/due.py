"""When a schedule is due: pure arithmetic on epoch milliseconds and a cron line in a time zone.

A daily time follows the rules of Debian's cron on the two odd days of a year: a time that the clock
skips in spring comes as soon as the clock is past the gap, one that it shows twice in autumn comes the
first time only. An hourly schedule simply comes every hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim

from services.errors import UsageError

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

LOOK_BACK_MS = 4 * DAY_MS
"""Every schedule is due at least once in this time, even where a calendar day was left out."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One recurring sync."""

    key: str
    """The stable word in the id of its firings."""
    cron: str
    """Five fields, in `zone`."""
    zone: tzinfo
    force: bool
    """Whether it reads every agent, or only what is stale."""
    cause: str
    """What its runs are recorded with."""


def schedules(timezone: str, *, hourly: bool, daily: str | None) -> tuple[Schedule, ...]:
    """The schedules that are switched on, the one that covers the others first.

    `daily` is `HH:MM` in `timezone`, or None for off. Raises UsageError for an unknown zone.
    """
    zone = zone_of(timezone)
    found = []
    if daily is not None:
        hour, minute = (int(part) for part in daily.split(":"))
        found.append(Schedule("daily", f"{minute} {hour} * * *", zone, force=True, cause="daily schedule"))
    if hourly:
        found.append(Schedule("stale", "0 * * * *", zone, force=False, cause="hourly schedule"))
    return tuple(found)


def next_due(schedule: Schedule, after: int) -> int:
    """The first due time later than `after`; both in epoch milliseconds."""
    return next(_due_times(schedule, after))


def soonest_due(among: Iterable[Schedule], after: int) -> int | None:
    """The first due time of any of these later than `after`; None without a schedule."""
    return min((next_due(schedule, after) for schedule in among), default=None)


def latest_due(schedule: Schedule, after: int | None, until: int) -> int | None:
    """The last due time later than `after` (None: ever) and not later than `until`; None without one."""
    earliest = until - LOOK_BACK_MS
    start = earliest if after is None else max(after, earliest)
    latest = None
    for due in _due_times(schedule, start):
        if due > until:
            break
        latest = due
    return latest


def firing_id(schedule: Schedule, due: int) -> str:
    """The id of one firing, the same whoever computes it: `sync:stale:2026-11-20T12:00:00Z`."""
    return f"sync:{schedule.key}:{_moment(due, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}"


def _due_times(schedule: Schedule, after: int) -> Iterator[int]:
    last = after
    for moment in CronSim(schedule.cron, _moment(after, schedule.zone)):
        due = round(moment.timestamp()) * 1000
        # Asked within the hour that an autumn day repeats, the cron line names a time of its first
        # pass, which is over.
        if due > last:
            yield due
            last = due


def _moment(at: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at // 1000, tz=UTC).astimezone(zone)


def zone_of(name: str) -> tzinfo:
    """The zone of this name; raises UsageError when this machine does not know it."""
    if name in ("", "UTC"):
        return UTC  # known even where there is no time zone database
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UsageError(
            f"the time zone {name!r} is not known on this machine",
            advice="set timezone to a zone such as Europe/Berlin, or install the time zone database (tzdata)",
            code="bad_setting",
        ) from None
