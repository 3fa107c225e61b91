"""What watching costs: 500 checks a minute, written to a real database, and views asked for often."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from pathlib import Path

import pytest

from services.clock import SystemClock
from services.events import EventBus
from services.health.alerts import AlertDesk
from services.health.model import CheckKind, CheckSpec, HealthState, Reading
from services.health.plan import FixedCatalog
from services.health.service import HealthOptions, HealthService
from services.resilience import Policies
from services.security import MemoryStore
from services.storage import Database, DatabaseLocation
from tests.benchmarks.measuring import Figure, percentile, unmet

CHECKS = 250
INTERVAL = 30.0
"""Seconds between two probes of each: 500 a minute in all."""
SECONDS = 65
VIEWS = 2000


def specs() -> list[CheckSpec]:
    """Checks whose probes answer at once and hardly ever with the same duration."""
    rng = random.Random(7)

    async def probe() -> Reading:
        took = rng.uniform(20, 400)
        return Reading(HealthState.UP, "answers", took_ms=took, facts=(("lines", "3 of 20 calls at once"),))

    return [
        CheckSpec(
            id=f"provider:company{place}/retell",
            kind=CheckKind.PROVIDER,
            name="Retell",
            probe=probe,
            company=f"company{place}",
            interval=INTERVAL,
            policy=f"Retell (company{place})",
        )
        for place in range(CHECKS)
    ]


def busy() -> float:
    """Processor seconds of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(folder: Path) -> list[Figure]:
    database = await Database.open(DatabaseLocation(path=folder / "callboard.db"))
    clock, bus, secrets = SystemClock(), EventBus(), MemoryStore()
    policies = Policies(clock)
    for place in range(CHECKS):
        policies.of(f"Retell (company{place})")

    async def opened() -> Database:
        return database

    async def unlocked() -> MemoryStore:
        return secrets

    desk = AlertDesk(opened, unlocked, policies, bus, clock)
    catalog = FixedCatalog(tuple(specs()))
    service = HealthService(opened, catalog, policies, desk, bus, clock, HealthOptions(interval=INTERVAL))
    await service.start()
    await service.check_now()
    before, probed_before, started = busy(), probes(service), time.monotonic()
    await asyncio.sleep(SECONDS)
    used, took = busy() - before, time.monotonic() - started
    probed = probes(service) - probed_before
    views = view_times(service)
    await service.aclose()
    await database.aclose()
    return [
        Figure("health: checks a minute", probed * 60 / took, "checks", 450, least=True),
        Figure("health: processor for 500 checks a minute", 100 * used / probed * 500 / 60, "%", 3),
        Figure(f"health: a view of {CHECKS} checks after a probe, p99", percentile(views, 99), "ms", 10),
    ]


def probes(service: HealthService) -> int:
    """How many probes were made so far."""
    return sum(standing.tally.day.total for standing in service._board)


def view_times(service: HealthService) -> list[float]:
    """Processor milliseconds of a view in which one check was just probed."""
    found = []
    ids = [spec.id for spec in service.specs()]
    for turn in range(VIEWS):
        service._board.touch(ids[turn % len(ids)])
        service._showing.changed(service._board.refresh(0))
        started = time.thread_time()
        service.view()
        found.append(1000 * (time.thread_time() - started))
    return found


@pytest.mark.benchmark
async def test_health(tmp_path):
    assert not unmet(await measure(tmp_path))
