"""Health as the screens see it, in memory: checks that a test sets, probes that end when it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from services.clock import Clock
from services.errors import ServiceError
from services.events import EventBus, HealthChanged
from services.health.model import (
    Beat,
    CheckKind,
    CheckView,
    HealthState,
    HealthView,
    HistoryPoint,
    Incident,
    Overall,
    Window,
)
from services.resilience import BreakerState, BreakerView, Budget, Level

NOON = 1_772_366_400_000
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
UP, DOWN, DEGRADED = HealthState.UP, HealthState.DOWN, HealthState.DEGRADED
PENDING, MAINTENANCE = HealthState.PENDING, HealthState.MAINTENANCE
CLOSED = BreakerView(BreakerState.CLOSED)


def beats(*runs: tuple[HealthState, int], base: float = 200.0) -> tuple[Beat, ...]:
    """Probes half a minute apart, the last one two seconds before noon; response times that vary a little."""
    states = [state for state, count in runs for _ in range(count)]
    first = NOON - 2 * SECOND - 30 * SECOND * (len(states) - 1)
    return tuple(
        Beat(
            first + 30 * SECOND * number,
            state,
            None if state in (DOWN, PENDING) else base + (number * 7) % 11 * base / 20,
        )
        for number, state in enumerate(states)
    )


def check(ident: str, kind: CheckKind, name: str, state: HealthState = UP, **more: Any) -> CheckView:
    """A check that was probed two seconds before noon."""
    more.setdefault("company", "acme" if kind is not CheckKind.SYSTEM else "")
    more.setdefault("since", NOON - 3 * HOUR if state is UP else NOON - 7 * MINUTE)
    more.setdefault("checked_at", NOON - 2 * SECOND)
    more.setdefault("next_at", NOON + 28 * SECOND)
    more.setdefault("beats", beats((UP, 60 if state is UP else 46), (state, 0 if state is UP else 14)))
    more.setdefault("uptime_24h", 1.0 if state is UP else 0.987)
    more.setdefault("uptime_30d", 0.9994)
    return CheckView(ident, kind, name, state=state, **more)


def never_probed(view: CheckView) -> CheckView:
    """The same before its first probe."""
    return CheckView(view.id, view.kind, view.name, view.company, PENDING, None, None, None, probing=True)


def agents(count: int, *, held_by: str = "", first: int = 1) -> list[CheckView]:
    names = ("Reception", "Booking", "Outbound", "Support", "Billing", "Survey", "Triage", "Concierge")
    places = ("DE", "EN", "Bot", "Paris", "Night", "Clinic")
    made = []
    for number in range(first, first + count):
        name = f"{names[number % 8]} {places[number % 6]}" + (f" {number}" if number > 12 else "")
        made.append(
            check(
                f"agent:{number}",
                CheckKind.AGENT,
                name,
                message="mirror 4 min old, webhook ok, 3 tools reachable",
                facts=(("vendor", "retell" if number % 3 else "elevenlabs"), ("mirror", "4 min old")),
                held_by=held_by,
                depends_on=(f"provider:acme/{'retell' if number % 3 else 'elevenlabs'}",),
            )
        )
    return [replace(each, state=HealthState.WAITS) for each in made] if held_by else made


def others(simulated: bool = True) -> list[CheckView]:
    """Integrations, the orchestrator and the system, all well."""
    return [
        check(
            "integration:1",
            CheckKind.INTEGRATION,
            "HubSpot",
            p50_ms=172,
            p95_ms=310,
            breaker=CLOSED,
            uptime_24h=0.999,
            beats=beats((UP, 60), base=180),
            message="the token is valid",
        ),
        check(
            "integration:2", CheckKind.INTEGRATION, "Doctolib", simulated=simulated, beats=(), uptime_24h=None
        ),
        check(
            "integration:3",
            CheckKind.INTEGRATION,
            "Twilio SMS",
            p50_ms=88,
            p95_ms=120,
            breaker=CLOSED,
            beats=beats((UP, 60), base=90),
            message="balance 41.20 $",
        ),
        check(
            "orchestrator:acme",
            CheckKind.ORCHESTRATOR,
            "gpt-5-mini",
            p50_ms=640,
            p95_ms=1_240,
            breaker=CLOSED,
            beats=beats((UP, 60), base=700),
            message="routes 42 agents",
        ),
        check("system:database", CheckKind.SYSTEM, "database", p95_ms=2, message="SQLite, schema 0003"),
        check("system:disk", CheckKind.SYSTEM, "disk", message="18.2 GB free"),
        check("system:secrets", CheckKind.SYSTEM, "secrets", message="keyring, open"),
        check("system:clock", CheckKind.SYSTEM, "clock", message="right to within a second"),
    ]


def providers() -> list[CheckView]:
    budgets = (
        Budget(Level.ACCOUNT, "minute", 60, 6),
        Budget(Level.ACCOUNT, "hour", 1_000, 90),
    )
    return [
        check("provider:acme/retell", CheckKind.PROVIDER, "Retell", p50_ms=240, p95_ms=420, breaker=CLOSED,
              dependents=33, budgets=budgets, message="key valid, 3 of 20 calls"),
        check("provider:acme/elevenlabs", CheckKind.PROVIDER, "ElevenLabs", p50_ms=150, p95_ms=210,
              breaker=CLOSED, dependents=11, budgets=budgets, message="key valid, 61 % of the quota left"),
    ]  # fmt: skip


def healthy(agent_count: int = 42) -> HealthView:
    checks = (*providers(), *agents(agent_count), *others())
    return HealthView(Overall.HEALTHY, "", checks, NOON - 2 * SECOND)


def outage(agent_count: int = 42) -> HealthView:
    """Retell is down and its agents wait for it; another agent is degraded, an integration in maintenance."""
    retell, eleven = providers()
    retell = replace(
        retell,
        state=DOWN,
        since=NOON - 8 * MINUTE,
        message="Retell answers 503",
        advice="Nothing to do here: it is tried again by itself; see status.retellai.com",
        category="transient",
        failures=16,
        beats=beats((UP, 44), (DOWN, 16)),
        uptime_24h=0.987,
        p95_ms=None,
        breaker=BreakerView(BreakerState.OPEN, failures=5, reopens_in=12.0),
        last_error="Retell answers 503",
        last_error_at=NOON - 2 * SECOND,
        last_error_advice="Nothing to do here: it is tried again by itself; see status.retellai.com",
    )
    held = max(0, agent_count - 11)
    fine = agents(min(agent_count, 11), first=held + 1)
    if fine:
        fine[-1] = replace(
            fine[-1],
            state=DEGRADED,
            since=NOON - 40 * MINUTE,
            message="its webhook answers in 2.3 s",
            advice="Look at the server behind https://hooks.example/retell",
            beats=beats((UP, 50), (DEGRADED, 10), base=600),
            p95_ms=2_310,
        )
    rest = others()
    rest[2] = replace(rest[2], state=MAINTENANCE, maintenance_until=NOON + HOUR)
    checks = (retell, eleven, *agents(held, held_by="Retell"), *fine, *rest)
    reason = f"Retell is down; {held} agents and 2 workflows hang on it"
    return HealthView(Overall.UNHEALTHY, reason, checks, NOON - 3 * SECOND)


class FakeHealth:
    """Fits `screens.health_ports.Health`."""

    def __init__(self, bus: EventBus, clock: Clock, shown: HealthView | None = None) -> None:
        self._bus, self._clock = bus, clock
        self.shown = shown or HealthView(Overall.HEALTHY, "", (), None)
        self.views = 0
        self.failure: ServiceError | None = None
        self.asked: list[tuple[str, ...] | None] = []
        self.hold: asyncio.Event | None = None
        """While set to an event, probes end when it is set."""
        self.cancelled = 0
        self.breakers: list[tuple[str, str]] = []
        self.windows: list[Window] = []
        self.ended: list[int] = []
        self.incident_rows: list[Incident] = incident_rows()
        self.history_reads: list[tuple[str, int]] = []

    def show(self, view: HealthView) -> None:
        """Let everything stand like this, and say so."""
        self.shown = view
        self._bus.publish(HealthChanged())

    def change(self, ident: str, **to: Any) -> None:
        """Let one check stand otherwise, and say so."""
        checks = tuple(replace(each, **to) if each.id == ident else each for each in self.shown.checks)
        self.shown = replace(self.shown, checks=checks)
        self._bus.publish(HealthChanged((ident,)))

    def view(self) -> HealthView:
        self.views += 1
        return self.shown

    async def check_now(self, ids: Sequence[str] | None = None, /) -> None:
        if self.failure is not None:
            raise self.failure
        self.asked.append(tuple(ids) if ids is not None else None)
        wanted = set(ids) if ids is not None else {each.id for each in self.shown.checks}
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        now = self._clock.now()
        checks = tuple(
            replace(each, checked_at=now + 1) if each.id in wanted else each for each in self.shown.checks
        )
        self.show(replace(self.shown, checks=checks, checked_at=now))

    async def history(self, check_id: str, hours: int, /) -> list[HistoryPoint]:
        self.history_reads.append((check_id, hours))
        length = HOUR if hours > 24 else 5 * MINUTE
        count = hours * HOUR // length
        first = NOON - NOON % length - (count - 1) * length
        points = []
        for number in range(count):
            bad = 0.55 < number / count < 0.6
            worse = number / count > 0.97
            up, down = (0, 10) if worse else (7, 0) if bad else (10, 0)
            p50 = None if worse else 180.0 + number * 13 % 60
            points.append(
                HistoryPoint(
                    first + number * length,
                    length,
                    up,
                    3 if bad else 0,
                    down,
                    0,
                    p50,
                    None if p50 is None else p50 * (3.1 if bad else 1.6),
                )
            )
        return points

    async def incidents(self, limit: int = 50, check_id: str | None = None) -> list[Incident]:
        return [each for each in self.incident_rows if check_id in (None, each.check_id)][:limit]

    async def reset_breaker(self, check_id: str, /) -> None:
        if self.failure is not None:
            raise self.failure
        self.breakers.append(("reset", check_id))
        self.change(check_id, breaker=CLOSED)

    async def trip_breaker(self, check_id: str, /) -> None:
        self.breakers.append(("trip", check_id))
        self.change(check_id, breaker=BreakerView(BreakerState.OPEN, reopens_in=30.0))

    async def add_maintenance(self, scope: str, /, *, minutes: int, reason: str = "") -> Window:
        now = self._clock.now()
        window = Window(
            len(self.windows) + 1,
            scope,
            reason,
            starts_at=now,
            ends_at=now + minutes * MINUTE,
            minutes=minutes,
        )
        self.windows.append(window)
        self.change(scope, state=MAINTENANCE, maintenance_until=window.ends_at)
        return window

    async def end_maintenance(self, window_id: int, /) -> None:
        self.ended.append(window_id)
        window = next(each for each in self.windows if each.id == window_id)
        self.windows.remove(window)
        self.change(window.scope, state=UP, maintenance_until=None)

    async def maintenance(self) -> list[Window]:
        return list(self.windows)


def incident_rows() -> list[Incident]:
    retell = ("provider:acme/retell", "Retell", CheckKind.PROVIDER)
    return [
        Incident(3, *retell, DOWN, "", "Retell answers 503", "It is tried again", NOON - 8 * MINUTE, None,
                 NOON - 7 * MINUTE),
        Incident(2, *retell, DEGRADED, "", "Retell answers in 4.1 s", "", NOON - 11 * HOUR, NOON - 10 * HOUR,
                 None),
        Incident(1, *retell, DOWN, "", "The key lacks a permission", "Renew it", NOON - 80 * HOUR,
                 NOON - 79 * HOUR, NOON - 80 * HOUR),
    ]  # fmt: skip
