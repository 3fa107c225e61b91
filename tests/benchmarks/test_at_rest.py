"""What the console costs while nothing happens, and what one changed card costs."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.benchmarks.measuring import (
    Figure,
    console_environment,
    fill_mirror,
    median,
    percentile,
    services_of,
    simulator_process,
    unmet,
)
from tests.support.program import CALLBOARD
from tests.support.terminal import Terminal

AGENTS = 1000
MANY = 10_000
SECONDS = 30
CHANGES = 40


async def resting(folder: Path) -> list[Figure]:
    """Memory after warm-up and one sync of everything; processor time and bytes while nothing happens."""
    home = folder / "home"
    with simulator_process(folder / "simulator", AGENTS) as simulator:
        await fill_mirror(home, simulator)
        with Terminal(CALLBOARD, console_environment(home)) as terminal:
            terminal.wait_for(f"{AGENTS:,} agents", 60)
            terminal.settle(1.5)
            process = psutil.Process(terminal.process.pid)
            warm = process.memory_info().rss
            terminal.send("F")
            terminal.wait_for(lambda text: "synced" in text.splitlines()[-2], 120)
            terminal.settle(2)
            rss = process.memory_info().rss
            before, started = process.cpu_times(), time.monotonic()
            written = terminal.listen(SECONDS)
            after, took = process.cpu_times(), time.monotonic() - started
    busy = after.user + after.system - before.user - before.system
    return [
        Figure("memory: console with 1,000 agents, warm", warm / 1e6, "MB"),
        Figure("memory: the same after a forced sync", rss / 1e6, "MB", 110),
        Figure("idle: processor", 100 * busy / took, "%", 1),
        Figure(f"idle: bytes to the terminal in {SECONDS} s", written, "bytes", 0),
    ]


def insert_many(database: Path) -> None:
    """Multiply the one agent of the mirror."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(agent)") if row[1] != "id"]
        kept = ", ".join(column for column in columns if column not in ("remote_id", "name"))
        connection.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY - 1})"
            f" INSERT INTO agent (remote_id, name, {kept})"
            f" SELECT remote_id || '-' || n.i, name || ' ' || n.i, {kept}"
            " FROM n, (SELECT * FROM agent ORDER BY id LIMIT 1)"
        )
        connection.commit()


class LoopTime:
    """Processor time of everything the event loop runs."""

    def __init__(self) -> None:
        self.total = 0.0

    @contextlib.contextmanager
    def watching(self) -> Iterator[LoopTime]:
        run = asyncio.Handle._run  # type: ignore[attr-defined]

        def timed(handle: Any) -> None:
            started = time.thread_time()
            try:
                run(handle)
            finally:
                self.total += time.thread_time() - started

        asyncio.Handle._run = timed  # type: ignore[attr-defined]
        try:
            yield self
        finally:
            asyncio.Handle._run = run  # type: ignore[attr-defined]


async def changing(folder: Path) -> list[Figure]:
    """Loop time of one changed card among 10,000: from the event over the re-read to the painted cells."""
    from app.console import Callboard
    from services.events import AgentsChanged

    home = folder / "many"
    with simulator_process(folder / "one", 1) as simulator:
        await fill_mirror(home, simulator)
    insert_many(home / "data" / "callboard.db")
    # What a card costs, without the checks of 10,000 agents beside it.
    async with services_of(home, health=False) as services:
        cards = await services.agents.cards()
        assert len(cards) == MANY
        app = Callboard(services)
        async with app.run_test(size=(120, 40)) as pilot:
            while not app.live.board.loaded or not app.live.secret_label:
                await pilot.pause(0.05)
            await asyncio.sleep(1.0)
            shown = app.live.board.shown[0]
            loop = LoopTime()
            spent: list[float] = []
            with (
                contextlib.closing(sqlite3.connect(home / "data" / "callboard.db")) as other,
                loop.watching(),
            ):
                idle = await settled(loop, 0.3)
                for number in range(CHANGES):
                    other.execute("UPDATE agent SET voice = ? WHERE id = ?", (f"Voice {number}", shown.id))
                    other.commit()
                    await services.agents.changed_elsewhere()  # so that the console's own look finds nothing
                    before = loop.total
                    services.bus.publish(AgentsChanged((shown.id,)))
                    await settled(loop, 0.3)
                    spent.append(loop.total - before)
                    assert app.live.board.shown[0].voice == f"Voice {number}"
    return [
        Figure("one changed card of 10,000: loop time, median", 1000 * median(spent), "ms", 2),
        Figure("one changed card of 10,000: loop time, p95", 1000 * percentile(spent, 95), "ms"),
        Figure("the same time with no change", 1000 * idle, "ms"),
    ]


async def settled(loop: LoopTime, seconds: float) -> float:
    """Let the loop work for so long; returns the loop time that took."""
    before = loop.total
    await asyncio.sleep(seconds)
    return loop.total - before


async def measure(folder: Path) -> list[Figure]:
    return [*await changing(folder), *await resting(folder)]


@pytest.mark.benchmark
async def test_at_rest(tmp_path):
    assert not unmet(await measure(tmp_path))
