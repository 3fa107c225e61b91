"""What health is made of: checks, their probes, and the view of all of them at one moment.

Times are epoch milliseconds, UTC; durations say their unit. Everything here is immutable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypedDict

from services.resilience import BreakerView, Budget, Subject


class HealthState(StrEnum):
    """How a check stands. `PENDING`: never probed, or failing but not yet often enough to say so.

    `WAITS` is for views only: what it hangs on is down, so that its own readings say nothing of it.
    """

    UP = "up"
    PENDING = "pending"
    DEGRADED = "degraded"
    DOWN = "down"
    MAINTENANCE = "maintenance"
    WAITS = "waits"


class Overall(StrEnum):
    """The whole, in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class CheckKind(StrEnum):
    """What is watched; the panels of the screen, in this order."""

    PROVIDER = "provider"
    AGENT = "agent"
    INTEGRATION = "integration"
    ORCHESTRATOR = "orchestrator"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one probe found, before thresholds: `UP`, `DEGRADED` or `DOWN`.

    `message` is one sentence for the panel (`403 since the key lost a permission`), `facts` label and value
    for the detail. `took_ms`: how long the dependency took to answer; None where nothing was asked.
    """

    state: HealthState
    message: str = ""
    advice: str = ""
    category: str = ""
    """The error category of a failure, see `services.errors.Category`."""
    took_ms: float | None = None
    facts: tuple[tuple[str, str], ...] = ()
    simulated: bool = False


class Local(StrEnum):
    """Of what alone something is true that is not true for all who share a database."""

    MACHINE = "machine"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One thing that is watched and how.

    `id` is stable across starts and made of words: `provider:acme/retell`, `agent:17`, `system:database`.
    `depends_on`: ids of checks this one hangs on; while one of them is down, its own failures alert nobody.
    """

    id: str
    kind: CheckKind
    name: str
    probe: Callable[[], Awaitable[Reading]] = field(repr=False, compare=False)
    company: str = ""
    policy: str = ""
    """The name of the policy whose breaker and budget belong to it; empty for none."""
    interval: float = 30.0
    """Seconds between probes, at most."""
    timeout: float = 10.0
    """Seconds one probe may take, and never more than two fifths of the interval (see `runner`)."""
    failure_threshold: int = 2
    """Failed probes in a row after which it counts as down.

    A first failure is looked at again before its turn. So a threshold of n calls down what lasts within n
    intervals (of one and two: within two), and nothing that is over before n - 2.
    """
    slow_ms: float | None = None
    """From this response time on it counts as degraded; None: never."""
    depends_on: tuple[str, ...] = ()
    simulated: bool = False
    """Whether what is watched is simulated, also while it does not answer."""
    critical: bool = True
    """Whether the whole is unhealthy while it is down, or only degraded."""
    group: str = ""
    """Checks of one group are read together, in one round; their own `probe` reads the one alone."""
    subject: Subject | None = field(default=None, compare=False)
    """Whose budgets belong to it, where its policy has limits."""
    local: Local | None = None
    """Whether it is true only of the machine, or the process, that measures it (see `places`)."""
    elsewhere: bool = False
    """Whether it is another machine or process that it is true of: shown here, and never measured here."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One probe in the heartbeat strip and the sparkline."""

    at: int
    state: HealthState
    took_ms: float | None = None


@dataclass(frozen=True, slots=True)
class CheckView:
    """One check at one moment: everything its line and its detail show."""

    id: str
    kind: CheckKind
    name: str
    company: str
    state: HealthState
    since: int | None
    """When it entered this state; None while it was never probed. Of what waits: when its cause did."""
    checked_at: int | None
    next_at: int | None
    message: str = ""
    advice: str = ""
    category: str = ""
    took_ms: float | None = None
    facts: tuple[tuple[str, str], ...] = ()
    simulated: bool = False
    failures: int = 0
    """Failed probes in a row."""
    failure_threshold: int = 2
    held_by: str = ""
    """The name of the check it waits for; its own state alerts nobody meanwhile."""
    dependents: int = 0
    """How many checks hang on it, directly or not."""
    beats: tuple[Beat, ...] = ()
    """The latest probes, oldest first, at most 60."""
    uptime_24h: float | None = None
    """Share from 0 to 1; None without probes. Maintenance does not count."""
    uptime_30d: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    """Of the last 24 hours."""
    breaker: BreakerView | None = None
    budgets: tuple[Budget, ...] = ()
    maintenance_until: int | None = None
    last_error: str = ""
    """The message of its last failure, kept when it is up again."""
    last_error_at: int | None = None
    last_error_advice: str = ""
    probing: bool = False
    interval: float = 30.0
    depends_on: tuple[str, ...] = ()
    critical: bool = True
    policy: str = ""


@dataclass(frozen=True, slots=True)
class HealthView:
    """Everything at one moment. `reason` is one sentence, empty when healthy."""

    overall: Overall
    reason: str
    checks: tuple[CheckView, ...]
    checked_at: int | None
    """When anything was probed last."""
    started: bool = True
    """False while this process does not probe (another one does, or nobody)."""
    prober: str = ""
    """Who probes, for people: `this process`, `another process (HOST, 4711)`, or empty for nobody."""

    def counts(self) -> dict[HealthState, int]:
        counts = dict.fromkeys(HealthState, 0)
        for check in self.checks:
            counts[check.state] += 1
        return counts


@dataclass(frozen=True, slots=True)
class Incident:
    """A stretch of trouble of one check; `ended_at` is None while it lasts."""

    id: int
    check_id: str
    name: str
    kind: CheckKind
    state: HealthState
    cause: str
    message: str
    advice: str
    started_at: int
    ended_at: int | None
    alerted_at: int | None
    """When somebody was told; None while nobody was, since it was held back, short, or in maintenance."""
    over_alerted_at: int | None = None
    """When its end was told."""
    repeats: int | None = None
    """When the alert was given that one of this would have repeated too soon: so nobody was told again."""


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One period of one check, for the detail: how many probes ended how, and how long they took."""

    start: int
    length_ms: int
    up: int
    degraded: int
    down: int
    maintenance: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Rule:
    """What an operator changed about one check; None leaves the check's own value."""

    check_id: str
    enabled: bool = True
    interval: float | None = None
    failure_threshold: int | None = None
    slow_ms: float | None = None
    """From this response time on it is degraded; 0: however long it takes, it is not."""


class RuleChanges(TypedDict, total=False):
    """What is to be another way in a rule: what is not named stays, None takes it back."""

    enabled: bool
    interval: float | None
    failure_threshold: int | None
    slow_ms: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which a check may fail without an alert.

    `scope` is a check's id, a kind, `company:NAME` or `*`. Either `starts_at` and `ends_at`, or `cron` in
    `timezone`, each time for `minutes`.
    """

    id: int
    scope: str
    reason: str = ""
    timezone: str = "UTC"
    starts_at: int | None = None
    ends_at: int | None = None
    cron: str = ""
    minutes: int = 0
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Channel:
    """Where alerts go: `bell`, `desktop`, `webhook`, `email` or `command`. Its secret is in the vault."""

    id: int
    kind: str
    target: str = ""
    company: str = ""
    """Only alerts of this company; empty for all."""
    config: Mapping[str, Any] = field(default_factory=dict)
    least: HealthState = HealthState.DEGRADED
    """The mildest state it is told of: degraded or down."""
    enabled: bool = True
    sent_at: int | None = None
    last_error: str = ""
    """Why the latest alert did not arrive; empty when it did."""

    @property
    def secret_name(self) -> str:
        return f"alert/{self.id}"


@dataclass(frozen=True, slots=True)
class Alert:
    """What is told. `key` is the same however often it is sent: receivers may use it to drop repeats."""

    key: str
    check_id: str
    name: str
    kind: CheckKind
    company: str
    state: HealthState
    """`UP` for "it is over"."""
    text: str
    """One sentence."""
    message: str
    advice: str
    at: int
    started_at: int
    ended_at: int | None = None
    dependents: int = 0
    simulated: bool = False
    worst: HealthState = HealthState.DOWN
    """How bad it is, or was before it was over: who is not told of this is not told of its end either."""
    test: bool = False
    """Whether nothing happened and somebody only wants to see it arrive."""

    @property
    def over(self) -> bool:
        return self.state is HealthState.UP
