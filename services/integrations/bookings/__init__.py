"""Reservations and appointments through partners: directly, through a gateway, or simulated.

Names are loaded on first use: what a booking is called is light, the service brings the database and YAML.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.integrations.bookings.catalogue import PartnerCatalogue
    from services.integrations.bookings.model import Booking, BookingState, Execution, Route, Slot
    from services.integrations.bookings.service import BookingService

__all__ = ["Booking", "BookingService", "BookingState", "Execution", "PartnerCatalogue", "Route", "Slot"]

_HOMES: Final = {
    "catalogue": ("PartnerCatalogue",),
    "model": ("Booking", "BookingState", "Execution", "Route", "Slot"),
    "service": ("BookingService",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
