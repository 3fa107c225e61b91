"""Bookings as they are stored: their own row for what people ask, their effect's for what happened."""

from __future__ import annotations

import json
from typing import Final

from sqlmodel import Session, select

from services.integrations.bookings.model import Booking, BookingKind, BookingState, Execution, Route
from services.integrations.bookings.ways import Way
from services.integrations.effects import EffectRow, EffectState
from services.model import ErrorInfo
from services.storage.tables import Booking as BookingRow
from services.storage.tables import Effect

EFFECT: Final = "booking"
"""The kind of the effects of bookings; other actions of partners are below it (`booking.cancel`)."""

_OF_EFFECT: Final = {
    EffectState.INTENDED: BookingState.REQUESTED,
    EffectState.FAILED: BookingState.FAILED,
    EffectState.UNKNOWN: BookingState.UNKNOWN,
}


def booking_of(row: EffectRow, kind: BookingKind, way: Way, at: int) -> BookingRow:
    """The row of a booking that is being made. `at`: epoch milliseconds."""
    how = {"route": way.route.value, "integration": way.integration, "timezone": way.zone.key}
    request = {**row.request, **how}
    return BookingRow(
        id=row.id,
        effect_id=row.id,
        company_id=row.company_id,
        kind=kind.value,
        partner=row.target,
        state=BookingState.REQUESTED.value,
        simulated=way.simulated,
        who=str(row.request.get("name") or ""),
        starts_at=at,
        request=json.dumps(request, ensure_ascii=False, sort_keys=True),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def booking_ended(session: Session, row: EffectRow) -> None:
    """Bring the booking up to date with what became of its effect."""
    booking = session.exec(select(BookingRow).where(BookingRow.effect_id == row.id)).first()
    if booking is None:
        return
    booking.state = state_of(row).value
    booking.provider_id = row.provider_id
    booking.result = json.dumps(dict(row.result), ensure_ascii=False, sort_keys=True)
    booking.updated_at = row.updated_at
    at = row.result.get("starts_at")
    if isinstance(at, int):
        # The partner's word counts: it may have moved the time.
        booking.starts_at = at
    session.add(booking)


def execution_of(row: EffectRow, action: str, route: Route) -> Execution:
    """What became of an action, by its effect."""
    return Execution(
        row.id,
        row.target,
        action,
        row.state,
        route,
        row.simulated,
        row.provider_id,
        row.result,
        row.error,
        row.fresh,
    )


def execution_of_booking(booking: Booking, action: str) -> Execution:
    """A booking as the execution of the action that made it."""
    undone = {
        BookingState.FAILED: EffectState.FAILED,
        BookingState.UNKNOWN: EffectState.UNKNOWN,
    }
    return Execution(
        booking.effect_id,
        booking.partner,
        action,
        undone.get(booking.state, EffectState.DONE),
        booking.route,
        booking.simulated,
        booking.provider_id,
        {**booking.result, "booking": booking.id, "state": booking.state.value},
        booking.error,
        booking.fresh,
    )


def state_of(row: EffectRow) -> BookingState:
    """The booking's state by its effect's; of a deed that was done, what the partner said."""
    if row.state in _OF_EFFECT:
        return _OF_EFFECT[row.state]
    return BookingState(row.result.get("state", BookingState.CONFIRMED))


def read_booking(row: BookingRow, effect: Effect) -> Booking:
    """A stored booking, with its effect's error."""
    request = json.loads(row.request)
    error = None
    if effect.error_category and row.state in (BookingState.FAILED, BookingState.UNKNOWN):
        error = ErrorInfo(effect.error_category, effect.error_message or "", effect.error_advice or "")
    return Booking(
        id=row.id,
        effect_id=row.effect_id,
        company_id=row.company_id,
        kind=BookingKind(row.kind),
        partner=row.partner,
        state=BookingState(row.state),
        simulated=row.simulated,
        route=Route(request.pop("route", Route.SIMULATION)),
        provider_id=row.provider_id,
        who=row.who,
        starts_at=row.starts_at,
        integration=request.pop("integration", ""),
        timezone=request.pop("timezone", "UTC"),
        request=request,
        result=json.loads(row.result),
        error=error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
