"""Figures for Prometheus, in a registry of our own. Every label has a bounded number of values.

Checks have a series each, up to a limit and the unwell first; policies likewise. Nothing is labelled with
what a caller sends: requests carry the template of their address.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app import __version__
from app.api.guard import Exchange
from services.clock import Clock
from services.events import EventBus, SyncFinished
from services.health.model import CheckKind, CheckView, HealthState, HealthView, Overall
from services.resilience import BreakerState, Policies
from services.text import clean_line

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MOST_CHECKS: Final = 2_000
MOST_POLICIES: Final = 200
LONGEST_LABEL: Final = 100
LAG_EVERY: Final = 0.5
_LEAST_AGE: Final = 1.0
_METHODS: Final = frozenset({"GET", "HEAD", "POST"})
_STATES: Final = (
    HealthState.UP, HealthState.PENDING, HealthState.DEGRADED, HealthState.DOWN, HealthState.MAINTENANCE,
)  # fmt: skip
_WORST_FIRST: Final = {HealthState.DOWN: 0, HealthState.DEGRADED: 1, HealthState.PENDING: 2}
_BREAKERS: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_OVERALL: Final = {Overall.HEALTHY: 0, Overall.DEGRADED: 1, Overall.UNHEALTHY: 2}
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CHECK_LABELS: Final = ("check", "kind", "company", "name")


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """A policy's counters at one moment."""

    name: str
    breaker: BreakerState
    calls: int
    attempts: int
    failures: int
    retries: int
    refused_by_limit: int
    refused_by_breaker: int
    degraded: int


class Metrics:
    """The registry and what feeds it: `start` listens to events and measures the loop, `aclose` ends that."""

    def __init__(self, bus: EventBus, policies: Policies | None, clock: Clock) -> None:
        self._bus = bus
        self._policies = policies
        self._clock = clock
        self.registry = registry = CollectorRegistry()
        self._snapshot = _Snapshot()
        registry.register(self._snapshot)
        ProcessCollector(registry=registry)
        Info("callboard", "The program.", registry=registry).info({"version": __version__})
        self._requests = Counter(
            "callboard_http_requests", "Requests answered by the API.", ("method", "route", "status"),
            registry=registry,
        )  # fmt: skip
        self._took = Histogram(
            "callboard_http_request_seconds", "How long the API took to answer.", ("route",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._probes = Histogram(
            "callboard_probe_seconds", "How long what is watched took to answer.", ("kind",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._lag = Histogram(
            "callboard_loop_lag_seconds", "How late the event loop came to its timers.",
            buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 5),
            registry=registry,
        )  # fmt: skip
        self._syncs = Counter(
            "callboard_sync_runs", "Sync runs of this process by how they ended.", ("status",),
            registry=registry,
        )  # fmt: skip
        self._synced_at = Gauge(
            "callboard_sync_ended_timestamp_seconds", "When the latest sync run of this process ended.",
            registry=registry,
        )  # fmt: skip
        self._seen: dict[str, int] = {}
        self._text: tuple[float, bytes] | None = None
        self._making = asyncio.Lock()
        self._resources = contextlib.ExitStack()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._resources.callback(self._bus.subscribe(SyncFinished, self._synced))
        self._watching = asyncio.create_task(self._watch_loop(), name="loop lag")

    async def aclose(self) -> None:
        """Never raises; may be called twice."""
        self._resources.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def answered(self, exchange: Exchange, took: float) -> None:
        """Count one request; `took` in seconds."""
        method = exchange.method if exchange.method in _METHODS else "other"
        self._requests.labels(method, exchange.route, str(exchange.status or 499)).inc()
        self._took.labels(exchange.route).observe(took)

    async def text(self, view: HealthView) -> bytes:
        """Everything in Prometheus' text format; made in a thread, and used again for a second."""
        async with self._making:
            now = self._clock.monotonic()
            if self._text is None or now - self._text[0] >= _LEAST_AGE:
                self._observe(view)
                self._snapshot.take(view, _policy_figures(self._policies))
                self._text = (now, await asyncio.to_thread(generate_latest, self.registry))
            return self._text[1]

    def _observe(self, view: HealthView) -> None:
        """Put every probe since the last look into the histogram of its kind.

        A check keeps its latest 60 probes: only with scrapes further apart than those are some missed.
        """
        seen = self._seen
        self._seen = {}
        for check in view.checks:
            latest = seen.get(check.id, -1)
            for beat in check.beats:
                if beat.at > latest and beat.took_ms is not None:
                    self._probes.labels(check.kind.value).observe(beat.took_ms / 1000)
            self._seen[check.id] = max(latest, check.beats[-1].at if check.beats else -1)

    def _synced(self, event: SyncFinished) -> None:
        self._syncs.labels(event.report.status.value).inc()
        self._synced_at.set(self._clock.now() / 1000)

    async def _watch_loop(self) -> None:
        while True:
            due = time.monotonic() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self._lag.observe(max(0.0, time.monotonic() - due))


def _policy_figures(policies: Policies | None) -> list[PolicyFigures]:
    views = policies.views() if policies is not None else []
    return [
        PolicyFigures(
            view.name,
            view.breaker.state,
            view.stats.calls,
            view.stats.attempts,
            view.stats.failures,
            view.stats.retries,
            view.stats.refused_by_limit,
            view.stats.refused_by_breaker,
            view.stats.degraded,
        )
        for view in views[:MOST_POLICIES]
    ]


class _Snapshot(Collector):
    """Figures of the checks and policies as they were when `take` was called."""

    def __init__(self) -> None:
        self._view: HealthView | None = None
        self._policies: list[PolicyFigures] = []

    def take(self, view: HealthView, policies: list[PolicyFigures]) -> None:
        self._view, self._policies = view, policies

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        if self._view is None:
            return
        yield from _of_health(self._view)
        yield from _of_checks(_shown(self._view.checks))
        yield from _of_policies(self._policies)


def _shown(checks: Sequence[CheckView]) -> Sequence[CheckView]:
    """All of them, or the unwell first as far as the limit goes."""
    if len(checks) <= MOST_CHECKS:
        return checks
    return sorted(checks, key=lambda check: _WORST_FIRST.get(check.state, 3))[:MOST_CHECKS]


def _of_health(view: HealthView) -> Iterator[Metric]:
    overall = GaugeMetricFamily("callboard_health", "0 healthy, 1 degraded, 2 unhealthy.")
    overall.add_metric((), _OVERALL[view.overall])
    yield overall
    checks = GaugeMetricFamily("callboard_checks", "Checks by kind and state.", labels=("kind", "state"))
    numbers = {(kind, state): 0 for kind in CheckKind for state in HealthState}
    for check in view.checks:
        numbers[check.kind, check.state] += 1
    for (kind, state), number in numbers.items():
        checks.add_metric((kind.value, state.value), number)
    yield checks
    left_out = GaugeMetricFamily("callboard_checks_left_out", "Checks that have no series of their own here.")
    left_out.add_metric((), max(0, len(view.checks) - MOST_CHECKS))
    yield left_out


def _of_checks(checks: Sequence[CheckView]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "callboard_check_state",
        "0 up, 1 pending, 2 degraded, 3 down, 4 maintenance.",
        labels=_CHECK_LABELS,
    )
    failures = GaugeMetricFamily("callboard_check_failures", "Failed probes in a row.", labels=("check",))
    took = GaugeMetricFamily("callboard_check_seconds", "How long the latest probe took.", labels=("check",))
    uptime = GaugeMetricFamily(
        "callboard_check_uptime_ratio", "Share of the time it was up.", labels=("check", "window")
    )
    left = GaugeMetricFamily(
        "callboard_rate_limit_remaining",
        "What is left of a rate limit.",
        labels=("check", "level", "window"),
    )
    for check in checks:
        name = _id_label(check.id)
        state.add_metric(
            (name, check.kind.value, _label(check.company), _label(check.name)), _STATES.index(check.state)
        )
        failures.add_metric((name,), check.failures)
        if check.took_ms is not None:
            took.add_metric((name,), check.took_ms / 1000)
        for window, share in (("24h", check.uptime_24h), ("30d", check.uptime_30d)):
            if share is not None:
                uptime.add_metric((name, window), share)
        for budget in check.budgets:
            if budget.limit:
                left.add_metric((name, budget.level.value, _label(budget.window)), budget.remaining)
    yield from (state, failures, took, uptime, left)


def _of_policies(policies: Sequence[PolicyFigures]) -> Iterator[Metric]:
    breaker = GaugeMetricFamily(
        "callboard_breaker_state", "0 closed, 1 half open, 2 open.", labels=("policy",)
    )
    refused = CounterMetricFamily(
        "callboard_policy_refused", "Calls that were not made, by what refused them.", labels=("policy", "by")
    )
    counters = {
        "calls": "Calls of a dependency.",
        "attempts": "Attempts of those calls.",
        "failures": "Calls that failed.",
        "retries": "Attempts after a failed one.",
        "degraded": "Calls answered with something instead.",
    }
    families = {
        name: CounterMetricFamily(f"callboard_policy_{name}", text, labels=("policy",))
        for name, text in counters.items()
    }
    for policy in policies:
        name = _id_label(policy.name)
        breaker.add_metric((name,), _BREAKERS[policy.breaker])
        refused.add_metric((name, "limit"), policy.refused_by_limit)
        refused.add_metric((name, "breaker"), policy.refused_by_breaker)
        for counter, family in families.items():
            family.add_metric((name,), getattr(policy, counter))
    yield from (breaker, refused, *families.values())


def _label(text: str) -> str:
    """A label's value: one line, of bounded length."""
    line = clean_line(text)
    return line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "…"


def _id_label(name: str) -> str:
    """The label of an id: two different ones never become one series."""
    label = _label(name)
    return (
        label
        if label == name
        else f"{label} {hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
    )
