"""A call of 2,000 lines on screen: levels at 20 a second, five messages a second; loop, keys, bytes."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.measuring import Figure, console_environment, percentile, unmet
from tests.support.terminal import Terminal

PROBE = Path(__file__).with_name("call_probe.py")
ROOT = Path(__file__).resolve().parents[2]
CURSOR = "▸"
FOLLOWING_SECONDS = 10.0
KEYS = 60


def cursor(text: str) -> int | None:
    """The row of the chosen line; the last two lines have the sign as well."""
    for row, line in enumerate(text.splitlines()[:-2]):
        if line.startswith(CURSOR):
            return row
    return None


def delays(terminal: Terminal, pressed: list[float]) -> list[float]:
    """Replays what was written: seconds from each key to the cursor on the line where it belongs."""
    places = [(at, cursor(picture.text())) for at, picture in terminal.replay() if at >= pressed[0] - 1]
    found = []
    for number, key in enumerate(pressed[1:], 1):
        before = next((place for at, place in reversed(places) if at <= key), None)
        moved = (at for at, place in places if at > key and place is not None and place != before)
        at = next(moved, None)
        assert at is not None, f"key {number} was never seen"
        found.append(at - key)
    return found


async def measure(folder: Path) -> list[Figure]:
    result = folder / "watch.json"
    environment = console_environment(folder / "home", PYTHONPATH=str(ROOT))
    with Terminal([sys.executable, "-P", str(PROBE), str(result)], environment) as terminal:
        terminal.wait_for("latency by turn", 60)
        terminal.listen(1.5)
        terminal.signal(signal.SIGUSR1)
        wrote = terminal.written
        terminal.listen(FOLLOWING_SECONDS)
        wrote = terminal.written - wrote
        chance, pressed = random.Random(1), []
        terminal.send("k")
        terminal.listen(0.3)
        for number in range(KEYS):
            terminal.listen(0.12 + 0.08 * chance.random())
            pressed.append(time.monotonic())
            terminal.send("kj"[number % 2])
        terminal.listen(0.5)
        terminal.signal(signal.SIGUSR2)
        while not result.exists():
            terminal.pump(0.1)
        watched = json.loads(result.read_text())
        keys = delays(terminal, pressed)
        print("\n".join(f"{ms:6.1f} ms  {what}" for ms, what in watched["worst"][:8]), file=sys.stderr)
    late, held = watched["late"], watched["held"]
    return [
        Figure("call of 2,000 lines: event loop held, p99 of ticks", percentile(late, 99), "ms", 16),
        Figure("call of 2,000 lines: event loop held, worst tick", max(late), "ms"),
        Figure("call of 2,000 lines: longest callback", max(held), "ms"),
        Figure("call of 2,000 lines: key to paint, p95", percentile(keys, 95) * 1000, "ms", 50),
        Figure("call of 2,000 lines: key to paint, median", percentile(keys, 50) * 1000, "ms"),
        Figure("call of 2,000 lines: written to the terminal", wrote / 1000 / FOLLOWING_SECONDS, "kB/s", 40),
    ]


@pytest.mark.benchmark
async def test_call_screen(tmp_path):
    assert not unmet(await measure(tmp_path))
