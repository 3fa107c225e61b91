"""How bookings, free times and other orders at partners look: in words and as documented JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.output import ago, iso, print_table, say
from services.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.integrations.bookings.model import Action, Booking, Execution, Slot

STYLES = {"confirmed": "green", "done": "green", "failed": "red", "unknown": "yellow"}


def print_slots(slots: Sequence[Slot]) -> None:
    """Free times; only the columns of which the partner says something."""
    columns = {
        "TIME": [local_time(slot.starts_at, slot.timezone) for slot in slots],
        "ENDS": [
            "" if slot.ends_at is None else local_time(slot.ends_at, slot.timezone)[11:] for slot in slots
        ],
        "SEATS": ["" if slot.seats is None else str(slot.seats) for slot in slots],
        "SLOT": [slot.id for slot in slots],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    right = tuple(index for index, name in enumerate(shown) if name == "SEATS")
    print_table(tuple(shown), list(zip(*shown.values(), strict=True)), right=right)


def print_bookings(found: Sequence[Booking]) -> None:
    print_table(
        ("BOOKING", "WHAT", "PARTNER", "STATE", "TIME", "WHO", "NUMBER"),
        [
            (
                booking.id[:8],
                booking.kind,
                booking.partner + (" (simulated)" if booking.simulated else ""),
                booking.state,
                "" if booking.starts_at is None else local_time(booking.starts_at, booking.timezone),
                booking.who,
                booking.provider_id,
            )
            for booking in found
        ],
        styles=STYLES,
    )


def print_actions(found: Sequence[Action], now: int) -> None:
    print_table(
        ("ORDER", "AT", "COMPANY", "PARTNER", "ACTION", "STATE", "NUMBER"),
        [
            (
                action.id[:8],
                ago(action.created_at, now),
                action.company,
                action.partner + (" (simulated)" if action.simulated else ""),
                action.action,
                action.state,
                action.provider_id,
            )
            for action in found
        ],
        styles=STYLES,
    )
    if any(action.state == "unknown" for action in found):
        say("After a look at the partner's: callboard booking settle ORDER done (or failed)")


def local_time(at: int, timezone: str) -> str:
    from services.integrations.bookings.times import at_zone, zone_named

    try:
        return f"{at_zone(at, zone_named(timezone)):%Y-%m-%d %H:%M}"
    except UsageError:
        return iso(at) or ""


def slot_dict(slot: Slot) -> dict[str, Any]:
    from services.integrations.bookings.times import at_zone, zone_named

    return {
        "starts_at": iso(slot.starts_at),
        "ends_at": iso(slot.ends_at),
        "local": at_zone(slot.starts_at, zone_named(slot.timezone)).isoformat(timespec="minutes"),
        "timezone": slot.timezone,
        "slot": slot.id,
        "seats": slot.seats,
        "simulated": slot.simulated,
    }


def as_dict(booking: Booking) -> dict[str, Any]:
    """The documented JSON of a booking."""
    return {
        "id": booking.id,
        "kind": booking.kind.value,
        "partner": booking.partner,
        "state": booking.state.value,
        "route": booking.route.value,
        "simulated": booking.simulated,
        "provider_id": booking.provider_id,
        "who": booking.who,
        "starts_at": iso(booking.starts_at),
        "integration": booking.integration,
        "timezone": booking.timezone,
        "request": dict(booking.request),
        "result": dict(booking.result),
        "error": booking.error.as_dict() if booking.error else None,
        "created_at": iso(booking.created_at),
        "updated_at": iso(booking.updated_at),
        "fresh": booking.fresh,
    }


def execution_dict(execution: Execution) -> dict[str, Any]:
    """The documented JSON of an execution."""
    return {
        "id": execution.id,
        "partner": execution.partner,
        "action": execution.action,
        "state": execution.state.value,
        "route": execution.route.value,
        "simulated": execution.simulated,
        "provider_id": execution.provider_id,
        "result": dict(execution.result),
        "error": execution.error.as_dict() if execution.error else None,
        "fresh": execution.fresh,
    }


def action_dict(action: Action) -> dict[str, Any]:
    """The documented JSON of an order that is no booking."""
    return {
        "id": action.id,
        "company": action.company,
        "partner": action.partner,
        "action": action.action,
        "state": action.state.value,
        "simulated": action.simulated,
        "provider_id": action.provider_id,
        "integration": action.integration,
        "result": dict(action.result),
        "error": action.error.as_dict() if action.error else None,
        "created_at": iso(action.created_at),
        "updated_at": iso(action.updated_at),
    }
