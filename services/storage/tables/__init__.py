"""The tables, as SQLModel classes. Times are epoch milliseconds (UTC) in BIGINT columns.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from services.storage.tables.calls import CallLine, CallRecord, Telephony
from services.storage.tables.core import (
    Agent,
    Audit,
    Bundle,
    Company,
    Connection,
    Firing,
    Lease,
    Snapshot,
    SyncOutcome,
    SyncRun,
)
from services.storage.tables.health import (
    AlertChannel,
    HealthIncident,
    HealthProbe,
    HealthRequest,
    HealthRollup,
    HealthRule,
    HealthState,
    MaintenanceWindow,
)
from services.storage.tables.integrations import (
    Booking,
    Effect,
    InboundMessage,
    Integration,
    KnowledgeChunk,
    KnowledgeSource,
    LlmDecision,
    Message,
    MessageEvent,
)

__all__ = [
    "Agent",
    "AlertChannel",
    "Audit",
    "Booking",
    "Bundle",
    "CallLine",
    "CallRecord",
    "Company",
    "Connection",
    "Effect",
    "Firing",
    "HealthIncident",
    "HealthProbe",
    "HealthRequest",
    "HealthRollup",
    "HealthRule",
    "HealthState",
    "InboundMessage",
    "Integration",
    "KnowledgeChunk",
    "KnowledgeSource",
    "Lease",
    "LlmDecision",
    "MaintenanceWindow",
    "Message",
    "MessageEvent",
    "Snapshot",
    "SyncOutcome",
    "SyncRun",
    "Telephony",
]
