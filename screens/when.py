"""Times as people read them, in the configured zone."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache


@lru_cache(maxsize=8)
def zone_of(name: str) -> tzinfo:
    """The zone, or UTC when this machine does not know it."""
    if name:
        from zoneinfo import ZoneInfo

        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            return UTC
    return UTC


def exact(at: int | None, zone: str) -> str:
    """A full time with its zone: `2026-03-01 14:02:33 CET`; `never` without one."""
    if at is None:
        return "never"
    return datetime.fromtimestamp(at / 1000, zone_of(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def clock_time(at: int, now: int, zone: str) -> str:
    """The short time of an event near now: `14:00`, with the date when it is on another day."""
    then = datetime.fromtimestamp(at / 1000, zone_of(zone))
    today = datetime.fromtimestamp(now / 1000, zone_of(zone)).date()
    return then.strftime("%H:%M" if then.date() == today else "%b %d %H:%M")


def moment(at: int, now: int, zone: str) -> str:
    """A time for a column of a table: `14:02:33`, with the date when it is on another day."""
    then = datetime.fromtimestamp(at / 1000, zone_of(zone))
    today = datetime.fromtimestamp(now / 1000, zone_of(zone)).date()
    form = "%b %d %H:%M" if then.year == today.year else "%Y-%m-%d"
    return then.strftime("%H:%M:%S" if then.date() == today else form)


def took(milliseconds: int) -> str:
    """A duration in one short unit: `240 ms`, `4.2 s`, `3 min 05 s`."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds // 60_000} min {milliseconds // 1000 % 60:02d} s"
