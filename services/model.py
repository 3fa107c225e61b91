"""The words of the program as types: shared by every service, importing nothing heavy.

Times are epoch milliseconds, UTC. Everything here is immutable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Provider(StrEnum):
    """A vendor that hosts agents."""

    RETELL = "retell"
    ELEVENLABS = "elevenlabs"


class SyncStatus(StrEnum):
    """How the last sync of an agent went. `SYNCING` is never stored: it is true only while a run works."""

    PENDING = "pending"
    SYNCING = "syncing"
    SYNCED = "synced"
    ERROR = "error"


class Drift(StrEnum):
    """How the local and the remote bundle stand to their common base."""

    IN_SYNC = "in_sync"
    LOCAL_AHEAD = "local_ahead"
    REMOTE_AHEAD = "remote_ahead"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What a sync run did about one agent."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    GONE = "gone"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunStatus(StrEnum):
    """The state of a sync run. A run whose process died is found `INTERRUPTED`."""

    RUNNING = "running"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A stored or reported error: category (see `services.errors.Category`), message, advice."""

    category: str
    message: str
    advice: str

    def as_dict(self) -> dict[str, str]:
        return {"category": self.category, "message": self.message, "advice": self.advice}


@dataclass(frozen=True, slots=True)
class AgentCard:
    """Everything a card shows of one agent, read from the mirror in one query."""

    id: int
    company: str
    connection_id: int
    provider: Provider
    agent_id: str
    """The vendor's id of the agent."""
    name: str
    status: SyncStatus
    drift: Drift
    release: str
    """The release badge in words, e.g. `v12 published`, `main, v4 draft`; empty when unknown."""
    voice: str
    language: str
    model: str
    function_count: int | None
    """Functions (Retell) or tools (ElevenLabs) of the agent; None when no bundle was ever read."""
    checked_at: int | None
    """When the mirror was last known to equal the vendor's copy."""
    changed_at: int | None
    """When the mirrored bundle last changed."""
    gone_at: int | None
    """When the vendor was first seen without this agent."""
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class CompanyInfo:
    """A tenant and how much it holds."""

    id: int
    name: str
    created_at: int
    connections: int = 0
    agents: int = 0
    keep_audio: bool = True
    """Whether recordings of its calls keep the audio."""
    keep_transcript: bool = True
    """Whether recordings of its calls keep what was said."""


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A company's access to one vendor. The key itself is in the secret store, under `secret_name`."""

    id: int
    company_id: int
    company: str
    provider: Provider
    base_url: str
    """Where requests go, without a trailing slash."""
    residency: str
    """The vendor's data region (`global`, `us`, `eu`, `in`, `sg`); `global` unless chosen."""
    created_at: int
    last_sync_at: int | None = None
    agents: int = 0

    @property
    def secret_name(self) -> str:
        return f"connection/{self.id}"


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """What one run did about one agent, for tables, JSON and history."""

    company: str
    provider: Provider
    agent_id: str
    name: str
    outcome: Outcome
    error: ErrorInfo | None = None
    agent_row: int | None = None
    """The mirror's own id of the agent; None for one that was never stored."""
    detail: str = ""
    """A short remark: which parts changed, why nothing was read."""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The result of a sync run, whole."""

    run_id: str
    status: RunStatus
    outcomes: tuple[OutcomeRow, ...]
    errors: tuple[OutcomeRow, ...] = ()
    """Connections that could not be listed at all (their `agent_id` is empty)."""
    requests: int = 0
    duration_ms: int = 0
    started_at: int = 0
    dry_run: bool = False

    def counts(self) -> dict[str, int]:
        """How many agents by outcome; every outcome is present."""
        counts = {outcome.value: 0 for outcome in Outcome}
        for row in self.outcomes:
            counts[row.outcome.value] += 1
        return counts


@dataclass(frozen=True, slots=True)
class SyncRunInfo:
    """A stored sync run, for the activity screen and the history of an agent."""

    id: str
    scope: str
    cause: str
    actor: str
    forced: bool
    status: RunStatus
    started_at: int
    ended_at: int | None
    counts: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    message: str = ""
