"""The shapes of the answers, for the OpenAPI document and for tests. `documents` makes what they describe."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.errors import Category
from services.health.model import CheckKind, HealthState, Overall
from services.resilience import BreakerState, Level

Share = float | None


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ErrorDetail(_Shape):
    category: Category
    message: str = Field(description="what happened and why")
    advice: str = Field(description="what to do about it; may be empty")
    code: str = Field(description="a short stable word for programs")


class Error(_Shape):
    """Every answer that is not the one asked for."""

    error: ErrorDetail


class UpOrDown(_Shape):
    """All that is told without a token."""

    status: Literal["up", "down"]


class Alive(_Shape):
    status: Literal["alive"]


class Ready(_Shape):
    status: Literal["ready", "not_ready"]


class Counts(_Shape):
    """How many checks are in each state."""

    up: int
    pending: int
    degraded: int
    down: int
    maintenance: int
    waits: int = Field(description="what they hang on is down; held_by names it")


class Kinds(_Shape):
    provider: Counts
    agent: Counts
    integration: Counts
    orchestrator: Counts
    system: Counts


class Problem(_Shape):
    id: str
    kind: CheckKind
    name: str
    company: str
    state: HealthState
    since: datetime | None
    message: str
    advice: str
    held_by: str = Field(description="the check that causes it; empty when it is its own cause")


class Health(_Shape):
    contract: Literal["callboard.api.health/1"] = Field(alias="schema")
    status: Literal["up", "down"]
    overall: Overall
    reason: str = Field(description="one sentence; empty when healthy")
    version: str
    watching: bool = Field(description="false while this process does not probe")
    watched_by: str = Field(description="who probes for all on this database, in words; empty for nobody")
    checked_at: datetime | None
    counts: Counts
    kinds: Kinds
    problems: list[Problem] = Field(description="what is not well, causes and the worst first, at most 100")
    problems_total: int


class BreakerShape(_Shape):
    state: BreakerState
    failures: int
    reopens_in: float = Field(description="seconds")
    shared: bool
    degraded: bool


class BudgetShape(_Shape):
    level: Level
    window: str
    limit: int
    used: int
    remaining: int
    frees_in: float = Field(description="seconds until one more is free")


class LastError(_Shape):
    message: str
    advice: str
    at: datetime | None


class CheckShape(_Shape):
    id: str
    kind: CheckKind
    name: str
    company: str
    state: HealthState
    since: datetime | None
    checked_at: datetime | None
    next_at: datetime | None
    message: str
    advice: str
    category: str
    took_ms: float | None
    simulated: bool
    failures: int = Field(description="failed probes in a row")
    failure_threshold: int
    held_by: str
    dependents: int
    critical: bool = Field(description="down, it makes the whole unhealthy")
    uptime_24h: Share = Field(description="share from 0 to 1")
    uptime_30d: Share
    p50_ms: float | None = Field(description="of the last 24 hours, as p95_ms")
    p95_ms: float | None
    breaker: BreakerShape | None
    budgets: list[BudgetShape]
    maintenance_until: datetime | None
    last_error: LastError | None


class Fact(_Shape):
    label: str
    value: str


class BeatShape(_Shape):
    at: datetime
    state: HealthState
    took_ms: float | None


class CheckDetail(CheckShape):
    facts: list[Fact]
    beats: list[BeatShape] = Field(description="the latest probes, oldest first, at most 60")


class Agents(_Shape):
    contract: Literal["callboard.api.agents/1"] = Field(alias="schema")
    checked_at: datetime | None
    counts: Counts = Field(description="of all agents, whatever was asked for")
    total: int = Field(description="how many match the question")
    offset: int
    agents: list[CheckShape]


class Agent(_Shape):
    contract: Literal["callboard.api.agent/1"] = Field(alias="schema")
    checked_at: datetime | None
    agents: list[CheckDetail] = Field(description="several where companies use the same name")


class Orchestrator(_Shape):
    contract: Literal["callboard.api.orchestrator/1"] = Field(alias="schema")
    checked_at: datetime | None
    configured: bool
    counts: Counts
    checks: list[CheckDetail]


class DependencyCounts(_Shape):
    provider: Counts
    integration: Counts
    system: Counts


class Dependencies(_Shape):
    contract: Literal["callboard.api.dependencies/1"] = Field(alias="schema")
    checked_at: datetime | None
    counts: DependencyCounts
    total: int
    offset: int
    dependencies: list[CheckShape]
