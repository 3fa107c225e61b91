"""Figures for Prometheus: a registry of what this process counts, and the checks and policies beside it.

Nothing is labelled with what a caller sends: requests carry the template of their address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector

from app import __version__
from app.api.exposition import CheckLines, policies_text
from app.api.guard import Exchange
from services.clock import Clock
from services.events import EventBus, SyncFinished
from services.health.model import HealthView
from services.resilience import Policies

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LAG_EVERY: Final = 0.5
"""Seconds between two looks at how late the loop is."""
LEAST_AGE: Final = 1.0
"""Seconds for which a text is used again."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST"})
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAGS: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 5)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads


class Metrics:
    """What is counted: `start` listens to events and measures the loop, `aclose` ends that."""

    def __init__(self, bus: EventBus, policies: Policies | None, clock: Clock) -> None:
        self._bus = bus
        self._policies = policies
        self._clock = clock
        self._registry = registry = CollectorRegistry()
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
            buckets=_LAGS, registry=registry,
        )  # fmt: skip
        self._syncs = Counter(
            "callboard_sync_runs", "Sync runs of this process by how they ended.", ("status",),
            registry=registry,
        )  # fmt: skip
        self._synced_at = Gauge(
            "callboard_sync_ended_timestamp_seconds", "When the latest sync run that ended so ended.",
            ("status",), registry=registry,
        )  # fmt: skip
        self._checks = CheckLines()
        self._seen: dict[str, int] = {}
        self._since = clock.now()
        """Probes of another process or an earlier start are not counted."""
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
        """Everything in Prometheus' text format, used again for a second. Made in slices, on the loop:

        a thread that computes takes the interpreter from the loop for 5 ms at a time, over and over.
        """
        async with self._making:
            now = self._clock.monotonic()
            if self._text is None or now - self._text[0] >= LEAST_AGE:
                self._observe(view)
                await asyncio.sleep(0)
                checks = await self._checks.text(view)
                policies = policies_text(self._policies.views()) if self._policies is not None else ""
                text = generate_latest(self._registry) + (checks + policies).encode("utf-8", "replace")
                self._text = (now, text)
            return self._text[1]

    def _observe(self, view: HealthView) -> None:
        """Put every probe since the last look into the histogram of its kind.

        A check keeps its latest probes: only with scrapes further apart than those are some missed.
        """
        seen = {}
        for check in view.checks:
            latest = newest = self._seen.get(check.id, self._since)
            for beat in reversed(check.beats):
                if beat.at <= latest:
                    break
                newest = max(newest, beat.at)
                if beat.took_ms is not None:
                    self._probes.labels(check.kind.value).observe(beat.took_ms / 1000)
            seen[check.id] = newest
        self._seen = seen

    def _synced(self, event: SyncFinished) -> None:
        status = event.report.status.value
        self._syncs.labels(status).inc()
        self._synced_at.labels(status).set(self._clock.now() / 1000)

    async def _watch_loop(self) -> None:
        while True:
            due = time.monotonic() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self._lag.observe(max(0.0, time.monotonic() - due))
