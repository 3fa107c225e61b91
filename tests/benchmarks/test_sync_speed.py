"""How fast a sync is against what its own concurrency limit allows, and how little a second one does."""

from __future__ import annotations

import math
import sqlite3
import time
from pathlib import Path

import pytest

from services.agents import SyncRequest
from services.model import Provider
from tests.benchmarks.measuring import (
    Figure,
    MovableClock,
    add_company,
    median,
    services_of,
    simulator_process,
    unmet,
)
from tests.support.simulator import RunningSimulator

AGENTS = 65
LATENCY_MS = 100
RUNS = 3


async def full_sync(
    home: Path, simulator: RunningSimulator, concurrency: int | None
) -> tuple[float, dict[str, int], int]:
    """Seconds, requests by kind and the connection's limit of a first sync of all ElevenLabs agents."""
    async with services_of(home, concurrency=concurrency) as services:
        await add_company(services, simulator, Provider.ELEVENLABS)
        await services.open_database()
        (connection,) = await services.companies.connections()
        client = await services.clients.client(connection)
        limit = client.stats.limit
        await simulator.reset_stats()
        started = time.perf_counter()
        report = await services.sync.run(SyncRequest())
        took = time.perf_counter() - started
        assert report.counts()["created"] == AGENTS, report.counts()
        return took, (await simulator.stats())["by_kind"], limit


def ideal(by_kind: dict[str, int], limit: int) -> float:
    """Seconds with no work in between: the list first, then everything else in full rows of `limit`."""
    details = sum(by_kind.values()) - 1
    return (1 + math.ceil(details / limit)) * LATENCY_MS / 1000


def watch_rows(database: Path) -> sqlite3.Connection:
    """Counts every row of `bundle` and `snapshot` that is written from now on."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("CREATE TABLE written (what TEXT)")
    for table in ("bundle", "snapshot"):
        for verb in ("INSERT", "UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER watch_{table}_{verb} AFTER {verb} ON {table}"
                f" BEGIN INSERT INTO written VALUES ('{table} {verb}'); END"
            )
    return connection


async def second_syncs(home: Path, simulator: RunningSimulator) -> list[Figure]:
    """A sync within the hour, and a stale one at Retell with nothing changed."""
    clock = MovableClock()
    async with services_of(home, clock=clock) as services:
        await add_company(services, simulator)
        await services.sync.run(SyncRequest())
        watch = watch_rows(home / "data" / "callboard.db")
        try:
            figures = []
            for name, ahead in (("within the hour", 0), ("stale", 2 * 3_600_000)):
                clock.ahead_ms += ahead
                await simulator.reset_stats()
                started = time.perf_counter()
                report = await services.sync.run(SyncRequest())
                took = time.perf_counter() - started
                stats = await simulator.stats()
                assert report.counts()["unchanged"] == len(report.outcomes), report.counts()
                retell = _not_lists(stats["retell"]["by_kind"])
                both = _not_lists(stats["by_kind"])
                rows = watch.execute("SELECT count(*) FROM written").fetchone()[0]
                figures += [
                    Figure(f"second sync, {name}: detail requests at Retell", retell, "requests", 0),
                    Figure(
                        f"second sync, {name}: detail requests at both",
                        both,
                        "requests",
                        0 if not ahead else None,
                    ),
                    Figure(f"second sync, {name}: bundle and snapshot rows written", rows, "rows", 0),
                    Figure(f"second sync, {name}: time", took, "s"),
                ]
            return figures
        finally:
            watch.close()


def _not_lists(by_kind: dict[str, int]) -> int:
    return sum(count for kind, count in by_kind.items() if kind != "list")


async def measure(folder: Path) -> list[Figure]:
    with simulator_process(folder / "simulator", 2 * AGENTS, LATENCY_MS) as simulator:
        times, ratios = [], []
        for run in range(RUNS):
            took, by_kind, limit = await full_sync(folder / f"parallel{run}", simulator, None)
            times.append(took)
            ratios.append(took / ideal(by_kind, limit))
        alone, _, _ = await full_sync(folder / "alone", simulator, 1)
        figures = [
            Figure("full sync of 65 ElevenLabs agents, 100 ms: time", median(times), "s"),
            Figure("full sync: concurrency limit of the connection", limit, "requests"),
            Figure("full sync: requests", sum(by_kind.values()), "requests"),
            Figure("full sync: time to the ideal of its own limit", median(ratios), "×", 1.3),
            Figure("full sync: faster than one request at a time", alone / median(times), "×", 5, least=True),
        ]
        return figures + await second_syncs(folder / "second", simulator)


@pytest.mark.benchmark
async def test_sync_speed(tmp_path):
    assert not unmet(await measure(tmp_path))
