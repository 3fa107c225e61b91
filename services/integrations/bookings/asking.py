"""What is asked of bookings, checked and put into its form before anybody is asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from services.errors import UsageError
from services.integrations.bookings.mapping import Partner
from services.integrations.bookings.model import Outcome
from services.integrations.bookings.times import at_zone, day_window, is_sane, moment
from services.integrations.effects import Deed
from services.integrations.orders import Ordering
from services.text import clean_line

LONGEST_RANGE: Final = dt.timedelta(days=31)
"""Of free times that are asked for at once."""


PAST_MINUTES: Final = 1
"""How far in the past a time may be: somebody books for now."""


class Terms(Ordering, total=False):
    """Who books. `anyway`: a time that is past is meant, as where a booking is entered afterwards."""

    anyway: bool


def refuse_past(at: dt.datetime, now: int) -> None:
    """Raises UsageError for a time before now (epoch milliseconds)."""
    zone = at.tzinfo if isinstance(at.tzinfo, ZoneInfo) else ZoneInfo("UTC")
    present = at_zone(now, zone)
    if at < present - dt.timedelta(minutes=PAST_MINUTES):
        raise UsageError(
            f"{at.astimezone(zone):%Y-%m-%d %H:%M} {zone.key} is past: it is {present:%Y-%m-%d %H:%M} now",
            advice="Choose a time to come, or add --anyway to enter one that has been",
            code="past",
        )


def deed_of(outcome: Outcome, *, made_up: bool) -> Deed:
    result = {**outcome.fields, "state": outcome.state.value}
    if outcome.starts_at is not None:
        result["starts_at"] = outcome.starts_at
    return Deed(outcome.provider_id, result, made_up)


def checked(given: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """The values of a booking: times in the partner's zone, texts on one line. Raises UsageError."""
    at = given.get("at")
    if isinstance(at, str) and at:
        at = moment(at, zone)
    if not isinstance(at, dt.datetime):
        raise UsageError("A booking needs a time", advice="Give it with --at", code="missing_value")
    at = at.replace(tzinfo=zone) if at.tzinfo is None else at.astimezone(zone)
    if at.second or at.microsecond:
        raise UsageError("A booking is at a whole minute", advice="Leave the seconds out", code="bad_time")
    texts = {name: clean_line(value) for name, value in given.items() if isinstance(value, str)}
    if not texts.get("name"):
        raise UsageError("A booking needs a name", advice="Give it with --name", code="missing_value")
    return {**given, **texts, "at": at}


def range_of(
    now: int, day: dt.date | str, begin: dt.datetime | str, end: dt.datetime | str, zone: ZoneInfo
) -> tuple[dt.datetime, dt.datetime]:
    """From and to before; of nothing said the rest of today. Raises UsageError."""
    start = moment(begin, zone) if isinstance(begin, str) and begin else begin
    stop = moment(end, zone) if isinstance(end, str) and end else end
    if isinstance(day, str) and day:
        given = day
        try:
            day = dt.date.fromisoformat(given)
        except ValueError:
            day = dt.date.min
        if not is_sane(day):
            raise UsageError(
                f"{clean_line(given)!r} is no day", advice="Write it as 2027-03-01", code="bad_time"
            )
    today = at_zone(now, zone)
    if isinstance(start, dt.datetime):
        stop = stop if isinstance(stop, dt.datetime) else day_window(start.date(), zone)[1]
    elif isinstance(day, dt.date):
        start, stop = day_window(day, zone)
    else:
        start = today
        stop = stop if isinstance(stop, dt.datetime) else day_window(today.date(), zone)[1]
    if not dt.timedelta(0) < stop - start <= LONGEST_RANGE:
        raise UsageError(
            f"From {start:%Y-%m-%d %H:%M} to {stop:%Y-%m-%d %H:%M} is no range",
            advice=f"Give a day, or a range of up to {LONGEST_RANGE.days} days",
            code="bad_time",
        )
    return start, stop


def not_offered(partner: Partner, action: str) -> UsageError:
    offered = ", ".join(word for word in partner.operations if word != "probe")
    return UsageError(
        f"{partner.title} does not offer {clean_line(action)}",
        advice=f"It offers {offered}",
        code="not_offered",
    )
