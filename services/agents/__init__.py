"""Agents: the mirror and what is read from it, sync, drift.

Reading (`AgentService`) is cheap to import; syncing brings SQLModel and httpx with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.agents.bundles import BundlePart, BundleView
from services.agents.progress import LiveSync
from services.agents.queries import AgentEvent, AgentService, AuditRow

if TYPE_CHECKING:
    from services.agents.request import SyncRequest
    from services.agents.sync import SyncService

__all__ = [
    "AgentEvent",
    "AgentService",
    "AuditRow",
    "BundlePart",
    "BundleView",
    "LiveSync",
    "SyncRequest",
    "SyncService",
]


def __getattr__(name: str) -> Any:
    if name == "SyncRequest":
        from services.agents.request import SyncRequest

        return SyncRequest
    if name == "SyncService":
        from services.agents.sync import SyncService

        return SyncService
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
