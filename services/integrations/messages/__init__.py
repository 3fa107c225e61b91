"""Messages to people: SMS, e-mail, WhatsApp, phone and chat, sent at most once and followed to their end.

Light to import; the service and the adapters bring the database and the clients on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from services.integrations.messages.model import (
    Channel,
    InboundRow,
    Kept,
    MessageEventRow,
    MessageRow,
    MessageState,
    Report,
    Template,
    furthest,
)

if TYPE_CHECKING:
    from services.integrations.messages.adapters import ADAPTERS
    from services.integrations.messages.service import MessageService
    from services.integrations.messages.webhooks import Answer

__all__ = [
    "ADAPTERS",
    "Answer",
    "Channel",
    "InboundRow",
    "Kept",
    "MessageEventRow",
    "MessageRow",
    "MessageService",
    "MessageState",
    "Report",
    "Template",
    "furthest",
]

_HOME: Final = {"ADAPTERS": "adapters", "MessageService": "service", "Answer": "webhooks"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
