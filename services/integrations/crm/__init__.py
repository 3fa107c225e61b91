"""Contacts, deals and notes in a customer-relations system: HubSpot, a generic service, or simulated.

Names are loaded on first use: the words are light, the service brings the database and the clients.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.integrations.crm.model import (
        Change,
        ContactData,
        CrmPage,
        CrmRecord,
        DealData,
        NoteData,
        RecordKind,
        Written,
    )
    from services.integrations.crm.service import CrmService

__all__ = [
    "Change",
    "ContactData",
    "CrmPage",
    "CrmRecord",
    "CrmService",
    "DealData",
    "NoteData",
    "RecordKind",
    "Written",
]

_HOMES: Final = {
    "model": (
        "Change",
        "ContactData",
        "CrmPage",
        "CrmRecord",
        "DealData",
        "NoteData",
        "RecordKind",
        "Written",
    ),
    "service": ("CrmService",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
