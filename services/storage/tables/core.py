"""Companies, connections, the mirror, sync runs, the audit log, the schedule."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Text, UniqueConstraint, true
from sqlmodel import Field, SQLModel

from services.storage.tables.columns import time_column


class Company(SQLModel, table=True):
    """A tenant."""

    __tablename__ = "company"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    created_at: int = Field(sa_column=time_column(nullable=False))
    keep_audio: bool = Field(default=True, sa_column=Column(Boolean, nullable=False, server_default=true()))
    """Whether recordings of calls keep both audio tracks."""
    keep_transcript: bool = Field(
        default=True, sa_column=Column(Boolean, nullable=False, server_default=true())
    )
    """Whether recordings of calls keep what was said, and what the agent was told."""
    message_days: int | None = None
    """Days for which the texts of its messages are kept: 0 for ever, None as the settings say."""


class Connection(SQLModel, table=True):
    """A company's access to one vendor. Its key is in the secret store, never here."""

    __tablename__ = "connection"
    # Row ids are never used again: the name of a secret is made from this one.
    __table_args__ = (UniqueConstraint("company_id", "provider"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    company_id: int = Field(sa_column=Column(ForeignKey("company.id", ondelete="CASCADE"), nullable=False))
    provider: str
    base_url: str
    residency: str
    created_at: int = Field(sa_column=time_column(nullable=False))
    last_sync_at: int | None = Field(default=None, sa_column=time_column())


class Bundle(SQLModel, table=True):
    """One immutable configuration of one agent: the vendor's own JSON of every part.

    `content` is a JSON array of `{"kind", "id", "text"}`, `text` being the wire JSON as received.
    Equal digests of one agent share a row.
    """

    __tablename__ = "bundle"
    __table_args__ = (UniqueConstraint("agent_id", "digest"),)

    id: int | None = Field(default=None, primary_key=True)
    agent_id: int = Field(sa_column=Column(ForeignKey("agent.id", ondelete="CASCADE"), nullable=False))
    digest: str
    content: str = Field(sa_column=Column(Text, nullable=False))
    created_at: int = Field(sa_column=time_column(nullable=False))


class Agent(SQLModel, table=True):
    """The mirror of one agent at a vendor, with the fields a card shows.

    `status` is pending, synced or error; `syncing` is never stored, so no crash can leave it behind.
    `marker` is what the vendor's list said at the time of the last read (see `services.agents.sources`).
    """

    __tablename__ = "agent"
    __table_args__ = (
        UniqueConstraint("connection_id", "remote_id"),
        Index("ix_agent_updated_at", "updated_at"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    connection_id: int = Field(
        sa_column=Column(ForeignKey("connection.id", ondelete="CASCADE"), nullable=False)
    )
    remote_id: str
    name: str
    status: str = "pending"
    drift: str = "unknown"
    release: str = ""
    voice: str = ""
    language: str = ""
    model: str = ""
    function_count: int | None = None
    marker: str = ""
    checked_at: int | None = Field(default=None, sa_column=time_column())
    changed_at: int | None = Field(default=None, sa_column=time_column())
    gone_at: int | None = Field(default=None, sa_column=time_column())
    updated_at: int = Field(sa_column=time_column(nullable=False))
    error_category: str | None = None
    error_message: str | None = None
    error_advice: str | None = None
    # Rows of `bundle`, without a foreign key: the two tables refer to each other.
    base_bundle_id: int | None = None
    local_bundle_id: int | None = None
    remote_bundle_id: int | None = None


class Snapshot(SQLModel, table=True):
    """An immutable record that an agent had this bundle: why, by whom, when."""

    __tablename__ = "snapshot"

    id: int | None = Field(default=None, primary_key=True)
    agent_id: int = Field(
        sa_column=Column(ForeignKey("agent.id", ondelete="CASCADE"), nullable=False, index=True)
    )
    bundle_id: int = Field(sa_column=Column(ForeignKey("bundle.id", ondelete="CASCADE"), nullable=False))
    cause: str
    actor: str
    at: int = Field(sa_column=time_column(nullable=False))


class SyncRun(SQLModel, table=True):
    """One sync run. A row still `running` whose heartbeat stopped belongs to a dead process."""

    __tablename__ = "sync_run"

    id: str = Field(primary_key=True)
    scope: str
    request: str
    """The request as JSON, so that a cancelled or interrupted run can be resumed."""
    cause: str
    actor: str
    forced: bool
    status: str
    started_at: int = Field(sa_column=time_column(nullable=False, index=True))
    heartbeat_at: int = Field(sa_column=time_column(nullable=False))
    ended_at: int | None = Field(default=None, sa_column=time_column())
    counts: str = "{}"
    requests: int = 0
    message: str = Field(default="", sa_column=Column(Text, nullable=False))


class SyncOutcome(SQLModel, table=True):
    """What a run did about one agent. `unchanged` is counted in the run and writes no row."""

    __tablename__ = "sync_outcome"

    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(
        sa_column=Column(ForeignKey("sync_run.id", ondelete="CASCADE"), nullable=False, index=True)
    )
    agent_id: int | None = Field(
        default=None, sa_column=Column(ForeignKey("agent.id", ondelete="CASCADE"), index=True)
    )
    company: str
    provider: str
    remote_id: str
    name: str
    outcome: str
    detail: str = ""
    error_category: str | None = None
    error_message: str | None = None
    error_advice: str | None = None
    at: int = Field(sa_column=time_column(nullable=False))


class Audit(SQLModel, table=True):
    """Who did what to what, when and why; `before` and `after` are short JSON texts without secrets."""

    __tablename__ = "audit"

    id: int | None = Field(default=None, primary_key=True)
    at: int = Field(sa_column=time_column(nullable=False, index=True))
    actor: str
    action: str
    subject: str
    cause: str = ""
    before: str = Field(default="", sa_column=Column(Text, nullable=False))
    after: str = Field(default="", sa_column=Column(Text, nullable=False))


class Lease(SQLModel, table=True):
    """A named right that one process holds until it expires unless renewed."""

    __tablename__ = "lease"

    name: str = Field(primary_key=True)
    owner: str
    acquired_at: int = Field(sa_column=time_column(nullable=False))
    expires_at: int = Field(sa_column=time_column(nullable=False))


class Firing(SQLModel, table=True):
    """One due time of one schedule. Its id is derived from both, so inserting it claims it exactly once."""

    __tablename__ = "firing"

    id: str = Field(primary_key=True)
    schedule: str = Field(index=True)
    due_at: int = Field(sa_column=time_column(nullable=False))
    claimed_by: str
    claimed_at: int = Field(sa_column=time_column(nullable=False))
    finished_at: int | None = Field(default=None, sa_column=time_column())
    result: str = ""
