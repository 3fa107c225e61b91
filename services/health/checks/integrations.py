"""Checks of the integrations: their own test where they have one, else whether their address answers.

An integration's test is the one that `callboard integration test` runs: harmless, authenticated, through its
policy. What stands in for an integration that nobody configured is shown as what it is, a simulation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from services.clock import Clock
from services.errors import Category
from services.health.checks.connections import DATABASE, SECRETS
from services.health.checks.endpoints import Endpoints, host_of
from services.health.model import CheckKind, CheckSpec, HealthState, Reading
from services.integrations.model import UNLISTED, IntegrationInfo, Origin, Resolved
from services.resilience import RULES, Subject

if TYPE_CHECKING:
    from services.integrations.registry import IntegrationService

Check = Callable[[Resolved], Awaitable[Reading]]
"""A check of one adapter that can say more than its test: quota, a balance."""


def spec_of(
    info: IntegrationInfo,
    service: Callable[[], IntegrationService],
    endpoints: Endpoints,
    clock: Clock,
    *,
    interval: float,
    failures: int,
    slow_ms: float | None,
    checks: Mapping[str, Check],
    simulated: bool = False,
    depends_on: tuple[str, ...] = (DATABASE, SECRETS),
) -> CheckSpec:
    """The check of one integration. `simulated`: what answers is the simulator."""

    async def probe() -> Reading:
        own = checks.get(info.adapter)
        if own is not None:
            started = clock.monotonic()
            found = await own(Resolved(info, await service().secret_of(info)))
            if found.took_ms is None:
                found = _timed(found, (clock.monotonic() - started) * 1000)
        else:
            found = await read(info, service(), endpoints)
        return replace(found, simulated=True) if simulated else found

    inside = info.origin in (Origin.SIMULATION, Origin.BUILT_IN)
    return CheckSpec(
        id=info.check_id,
        kind=CheckKind.INTEGRATION,
        name=info.name,
        probe=probe,
        company=info.company,
        policy="" if inside else info.policy,
        # A mail server or a partner need not be asked as often as what a call hangs on.
        interval=max(interval, 300.0 if inside else 60.0),
        timeout=30.0,
        failure_threshold=failures,
        slow_ms=None if inside else slow_ms,
        depends_on=(DATABASE,) if inside else depends_on,
        subject=Subject(account=info.company) if info.company else None,
        simulated=simulated,
        critical=False,
    )


IN_WORDS: Final = {"local": "documents are kept and searched here", "rules": "rules route requests here"}
"""What the program does itself, by adapter."""


async def read(info: IntegrationInfo, service: IntegrationService, endpoints: Endpoints) -> Reading:
    """Test it; one that has no test is looked at from outside."""
    facts = _facts(info)
    if info.origin is Origin.SIMULATION:
        return Reading(HealthState.UP, "simulated: nothing is configured", "", facts=facts, simulated=True)
    if info.origin is Origin.BUILT_IN:
        return Reading(HealthState.UP, IN_WORDS[info.adapter], "", facts=facts)
    found = await service.check(info)
    if not found.asked:
        return await _from_outside(info, endpoints, facts)
    if found.error is None:
        return Reading(HealthState.UP, found.detail or "answers", "", "", float(found.took_ms), facts)
    category = Category(found.error.category)
    # It answers, only not as it is to be used.
    mild = category is Category.RATE_LIMIT or found.code == UNLISTED
    return Reading(
        HealthState.DEGRADED if mild else HealthState.DOWN,
        found.error.message,
        found.error.advice or RULES[category].advice,
        category.value,
        float(found.took_ms),
        facts,
    )


async def _from_outside(
    info: IntegrationInfo, endpoints: Endpoints, facts: tuple[tuple[str, str], ...]
) -> Reading:
    host = host_of(info.base_url) if info.base_url else None
    if host is None:
        return Reading(HealthState.UP, "has no test of its own", facts=facts)
    await endpoints.look({host})
    known = endpoints.known(host)
    if known.ok is False:
        return Reading(
            HealthState.DOWN,
            f"{host} cannot be used: {known.remark}",
            "Check that the service runs, and its address",
            Category.TRANSIENT.value,
            facts=facts,
        )
    remark = "reachable; it has no test of its own" if known.ok else f"not tested: {known.remark}"
    return Reading(HealthState.UP, remark, facts=facts)


def _facts(info: IntegrationInfo) -> tuple[tuple[str, str], ...]:
    facts = [("kind", info.kind.value), ("adapter", info.adapter)]
    if info.base_url:
        facts.append(("address", info.base_url))
    if info.origin is Origin.ENVIRONMENT:
        facts.append(("from", "the environment"))
    return tuple(facts)


def _timed(reading: Reading, took_ms: float) -> Reading:
    return replace(reading, took_ms=took_ms)
