"""Times of partners and people: time zones named, gaps and repetitions of summer time never guessed."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.errors import UsageError
from services.text import clean_line


def zone_named(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises UsageError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"{clean_line(name)!r} is no time zone",
            advice="Use a name such as Europe/Berlin or America/New_York",
            code="bad_timezone",
        ) from None


def is_sane(at: dt.date) -> bool:
    """Whether anybody may book then: far from the ends of the calendar, where arithmetic with it fails."""
    return 2000 <= at.year <= 2999


def read_time(text: object) -> dt.datetime | None:
    """A time that a partner wrote in ISO 8601, with an offset or without; None for what is none."""
    try:
        at = dt.datetime.fromisoformat(text.strip()) if isinstance(text, str) else None
    except ValueError:
        return None
    return at if at is not None and is_sane(at) else None


def moment(text: str, zone: ZoneInfo) -> dt.datetime:
    """A time that a person wrote: ISO 8601, with an offset or else in `zone`.

    Raises UsageError for what is no time, for one that the clocks skip, and for one that occurs twice.
    """
    at = read_time(text)
    if at is None:
        raise UsageError(
            f"{clean_line(text)!r} is no time",
            advice="Write it as 2027-03-01T19:30, or with an offset: 2027-03-01T19:30+01:00",
            code="bad_time",
        )
    if at.tzinfo is not None:
        return at.astimezone(zone)
    local = at.replace(tzinfo=zone)
    shown = f"{at:%Y-%m-%d %H:%M} in {zone.key}"
    if not exists(local):
        raise UsageError(
            f"{shown} does not exist: the clocks go forward then",
            advice="Choose a time before or after",
            code="bad_time",
        )
    if is_twice(local):
        first, second = (local.replace(fold=fold).strftime("%z") for fold in (0, 1))
        raise UsageError(
            f"{shown} occurs twice: the clocks go back then",
            advice=f"Write the offset, {_spelled(first)} or {_spelled(second)}",
            code="bad_time",
        )
    return local


def day_window(day: dt.date, zone: ZoneInfo) -> tuple[dt.datetime, dt.datetime]:
    """From midnight to midnight in the zone: 23 to 25 hours."""
    begin, end = (
        _real(dt.datetime.combine(each, dt.time(), tzinfo=zone)) for each in (day, day + dt.timedelta(days=1))
    )
    return begin, end


def exists(local: dt.datetime) -> bool:
    """Whether clocks of its zone ever show this time."""
    return _real(local).replace(tzinfo=None, fold=0) == local.replace(tzinfo=None, fold=0)


def is_twice(local: dt.datetime) -> bool:
    """Whether clocks of its zone show this time twice."""
    return exists(local) and local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def milliseconds(at: dt.datetime) -> int:
    """Epoch milliseconds of an aware time."""
    return round(at.timestamp() * 1000)


def at_zone(at: int, zone: ZoneInfo) -> dt.datetime:
    """The time of epoch milliseconds in a zone."""
    return dt.datetime.fromtimestamp(at / 1000, zone)


def _real(local: dt.datetime) -> dt.datetime:
    return local.astimezone(dt.UTC).astimezone(local.tzinfo)


def _spelled(offset: str) -> str:
    return f"{offset[:3]}:{offset[3:5]}"
