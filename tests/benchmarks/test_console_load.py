"""1,000 agents at 50 ms are read again while the console is open: how late the loop is, keys to paint."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.measuring import (
    Figure,
    console_environment,
    fill_mirror,
    percentile,
    simulator_process,
    unmet,
)
from tests.support.terminal import Terminal

AGENTS = 1000
LATENCY_MS = 50
PROBE = Path(__file__).with_name("probe.py")
ROOT = Path(__file__).resolve().parents[2]
HEAVY = "┏"
"""The corner of the chosen card: its place says where the cursor is."""


def cursor(text: str) -> tuple[int, int] | None:
    """Row and column of the chosen card."""
    for row, line in enumerate(text.splitlines()):
        if HEAVY in line:
            return row, line.index(HEAVY)
    return None


def running(home: Path) -> bool:
    """Whether the newest sync run still works."""
    with contextlib.closing(sqlite3.connect(home / "data" / "callboard.db", timeout=5)) as connection:
        newest = connection.execute("SELECT status FROM sync_run ORDER BY started_at DESC LIMIT 1").fetchone()
    return bool(newest == ("running",))


def press_keys(terminal: Terminal, home: Path, seed: int) -> list[float]:
    """Right, left, right, … at random moments until the sync has ended; when each was pressed."""
    chance = random.Random(seed)
    pressed: list[float] = []
    while running(home):
        terminal.listen(0.12 + 0.08 * chance.random())
        pressed.append(time.monotonic())
        terminal.send("lh"[len(pressed) % 2 - 1])
        assert len(pressed) < 1500, terminal.text()
    terminal.settle()
    return pressed


def delays(terminal: Terminal, pressed: list[float]) -> list[float]:
    """Replays what was written: seconds from each key to the cursor on the card where it belongs."""
    places = [(at, cursor(picture.text())) for at, picture in terminal.replay() if at >= pressed[0] - 1]
    begin = next(place for at, place in reversed(places) if at <= pressed[0])
    other = next(place for at, place in places if at > pressed[0] and place not in (None, begin))
    found = []
    for number, key in enumerate(pressed):
        wanted = begin if number % 2 else other
        found.append(next(at for at, place in places if at > key and place == wanted) - key)
    return found


async def measure(folder: Path) -> list[Figure]:
    home, result = folder / "home", folder / "watch.json"
    with simulator_process(folder / "simulator", AGENTS) as simulator:
        await fill_mirror(home, simulator)
        await simulator.fault(f"latency:ms={LATENCY_MS}")
        command = [sys.executable, "-P", str(PROBE), str(result)]
        environment = console_environment(home, PYTHONPATH=str(ROOT))
        with Terminal(command, environment) as terminal:
            terminal.wait_for(f"{AGENTS:,} agents", 60)
            terminal.settle(1.5)
            terminal.signal(signal.SIGUSR1)
            await simulator.reset_stats()
            started = time.monotonic()
            terminal.send("F")
            while not running(home):
                terminal.pump(0.02)
            pressed = press_keys(terminal, home, 1)
            took = time.monotonic() - started
            stats = await simulator.stats()
            terminal.signal(signal.SIGUSR2)
            while not result.exists():
                terminal.pump(0.1)
            watched = json.loads(result.read_text())
            keys = delays(terminal, pressed)
            print("\n".join(f"{ms:6.1f} ms  {what}" for ms, what in watched["worst"][:8]), file=sys.stderr)
    late, held = watched["late"], watched["held"]
    return [
        Figure("1,000 agents at 50 ms, console open: forced sync", took, "s"),
        Figure("1,000 agents: requests", stats["requests"], "requests"),
        Figure("1,000 agents: most requests in flight", stats["max_in_flight"], "requests"),
        Figure("1,000 agents: event loop held, p99 of ticks", percentile(late, 99), "ms", 16),
        Figure("1,000 agents: event loop held, worst tick", max(late), "ms"),
        Figure("1,000 agents: callbacks over 16 ms", sum(ms > 16 for ms in held), "callbacks"),
        Figure("1,000 agents: longest callback", max(held), "ms"),
        Figure("1,000 agents: key to paint, p95", percentile(keys, 95) * 1000, "ms", 50),
        Figure("1,000 agents: key to paint, median", percentile(keys, 50) * 1000, "ms"),
        Figure("1,000 agents: keys measured", len(keys), "keys"),
    ]


@pytest.mark.benchmark
async def test_console_load(tmp_path):
    assert not unmet(await measure(tmp_path))
