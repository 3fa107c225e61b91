"""Partners that are not there: what stands in where nothing is configured, and says so everywhere.

Days have the same times open, each once; what was booked here is gone.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection
from typing import Final
from zoneinfo import ZoneInfo

from services.errors import ServiceError
from services.integrations.bookings.model import BookingKind, BookingState, Outcome, Slot
from services.integrations.bookings.times import milliseconds

ZONE: Final = ZoneInfo("UTC")
_OPEN: Final = {BookingKind.RESERVATION: (18, 22), BookingKind.APPOINTMENT: (9, 17)}
_STEP: Final = dt.timedelta(minutes=30)


def free_times(kind: BookingKind, begin: dt.datetime, end: dt.datetime, taken: Collection[int]) -> list[Slot]:
    """The open times from `begin` to before `end` that are not among `taken` (epoch milliseconds)."""
    first, last = _OPEN[kind]
    found = []
    day = begin.astimezone(ZONE).date()
    while day <= end.astimezone(ZONE).date():
        at = dt.datetime.combine(day, dt.time(first), tzinfo=ZONE)
        while at.hour < last:
            moment = milliseconds(at)
            if begin <= at < end and moment not in taken:
                found.append(Slot(moment, milliseconds(at + _STEP), timezone=ZONE.key, simulated=True))
            at += _STEP
        day += dt.timedelta(days=1)
    return found


def booked(key: str, at: int | None, taken: Collection[int]) -> Outcome:
    """A made-up booking; raises ServiceError for a time that is among `taken`."""
    if at is not None and at in taken:
        raise ServiceError(
            "That time is taken (simulated)",
            advice="Ask for free times again: callboard booking availability",
            code="taken",
        )
    number = hashlib.sha256(key.encode()).hexdigest()[:8].upper()
    return Outcome(f"SIM-{number}", BookingState.CONFIRMED, at, {"note": "simulated: nothing was booked"})


def cancelled(provider_id: str) -> Outcome:
    return Outcome(provider_id, BookingState.CANCELLED, fields={"note": "simulated: nothing was cancelled"})
