"""What was measured of everything the agents depend on, and who is told about it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index
from sqlmodel import Field, SQLModel

from services.storage.tables.columns import company_column, text_column, time_column


class HealthProbe(SQLModel, table=True):
    """One measurement of one check, as it came; thinned into `health_rollup` after a while."""

    __tablename__ = "health_probe"
    __table_args__ = (Index("ix_health_probe_check_at", "check_id", "at"),)

    id: int | None = Field(default=None, primary_key=True)
    check_id: str
    at: int = Field(sa_column=time_column(nullable=False))
    state: str
    took_ms: float | None = None
    count: int = 1
    """Probes in a row that this row stands for: what is read in one round is stored when it changes."""
    category: str = ""
    message: str = Field(default="", sa_column=text_column())


class HealthState(SQLModel, table=True):
    """How each check stands, as JSON, so that a new start and other processes know it at once."""

    __tablename__ = "health_state"

    check_id: str = Field(primary_key=True)
    updated_at: int = Field(sa_column=time_column(nullable=False, index=True))
    data: str = Field(default="{}", sa_column=text_column())


class HealthRequest(SQLModel, table=True):
    """What a process asks of the one that probes: to close or open a breaker, which is that one's own."""

    __tablename__ = "health_request"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    check_id: str
    act: str
    actor: str
    asked_at: int = Field(sa_column=time_column(nullable=False))
    done_at: int | None = Field(default=None, sa_column=time_column())
    error: str = Field(default="", sa_column=text_column())
    """Why it could not be done; empty where it was."""


class HealthRollup(SQLModel, table=True):
    """The probes of one check in one period, counted. Times of `length_ms` from `start` on."""

    __tablename__ = "health_rollup"

    check_id: str = Field(primary_key=True)
    start: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    length_ms: int = Field(sa_column=Column(BigInteger, nullable=False))
    up: int = 0
    degraded: int = 0
    down: int = 0
    maintenance: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    spread: str = Field(default="", sa_column=text_column())
    """How many took how long, see `services.health.tally`."""


class HealthIncident(SQLModel, table=True):
    """From the moment a check left `up` until it was back. `cause` is the check it was held back by.

    A check has one open incident at a time: see `partial`.
    """

    __tablename__ = "health_incident"

    id: int | None = Field(default=None, primary_key=True)
    check_id: str = Field(index=True)
    name: str
    kind: str
    state: str
    cause: str = ""
    message: str = Field(default="", sa_column=text_column())
    advice: str = Field(default="", sa_column=text_column())
    started_at: int = Field(sa_column=time_column(nullable=False, index=True))
    ended_at: int | None = Field(default=None, sa_column=time_column())
    alerted_at: int | None = Field(default=None, sa_column=time_column())
    """When it was told; None where it was suppressed or in maintenance."""
    alerted_state: str = ""
    """The worst state that was told; empty for none."""
    over_alerted_at: int | None = Field(default=None, sa_column=time_column())
    """When its end was told."""


class HealthRule(SQLModel, table=True):
    """What an operator changed about one check. None leaves the check's own value."""

    __tablename__ = "health_rule"

    check_id: str = Field(primary_key=True)
    enabled: bool = True
    interval_seconds: float | None = None
    failure_threshold: int | None = None
    slow_ms: float | None = None


class MaintenanceWindow(SQLModel, table=True):
    """A time in which a check may fail without an alert.

    `scope` is a check's id, a kind, `company:NAME` or `*`. Either `starts_at` and `ends_at`, or `cron` in
    `timezone` with `minutes`.
    """

    __tablename__ = "maintenance_window"

    id: int | None = Field(default=None, primary_key=True)
    scope: str
    reason: str = ""
    timezone: str = "UTC"
    starts_at: int | None = Field(default=None, sa_column=time_column())
    ends_at: int | None = Field(default=None, sa_column=time_column())
    cron: str = ""
    minutes: int = 0
    actor: str
    created_at: int = Field(sa_column=time_column(nullable=False))


class AlertChannel(SQLModel, table=True):
    """Where alerts go: `bell`, `desktop`, `webhook`, `email` or `command`. Secrets are in the vault."""

    __tablename__ = "alert_channel"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    company_id: int | None = Field(default=None, sa_column=company_column(index=False))
    kind: str
    target: str = ""
    config: str = Field(default="{}", sa_column=text_column())
    least: str = "degraded"
    """The mildest state it is told of."""
    enabled: bool = True
    created_at: int = Field(sa_column=time_column(nullable=False))
    sent_at: int | None = Field(default=None, sa_column=time_column())
    last_error: str = Field(default="", sa_column=text_column())
