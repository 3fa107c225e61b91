"""Start-up through a pseudo-terminal, against a Textual program with one label, interleaved."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.benchmarks.measuring import (
    Figure,
    compile_everything,
    console_environment,
    fill_mirror,
    median,
    simulator_process,
    unmet,
)
from tests.support.program import CALLBOARD
from tests.support.terminal import Terminal

RUNS = 9
AGENTS = 1000
LABEL = Path(__file__).with_name("one_label.py")
QUIET = 0.8
"""Seconds without output after which a start is over."""


def start(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float, float]:
    """Seconds from the start to the first paint, to the last card, and to the last change at all."""
    with Terminal(command, environment) as terminal:
        while not terminal.pump(5):
            assert terminal.process.poll() is None, terminal.text()
        terminal.settle(QUIET)
        final = terminal.text()
        first = terminal.moment(lambda text: bool(text.strip()))
        cards = terminal.moment(lambda text: body(text) == body(final))
        whole = terminal.moment(lambda text: text == final)
    assert first is not None
    assert cards is not None
    assert whole is not None
    return first, cards, whole


def body(text: str) -> list[str]:
    """The screen without its first line and the two at its foot, which tell what is looked up later."""
    return text.splitlines()[1:-2]


def answer(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds until a command that only prints has ended."""
    started = time.monotonic()
    subprocess.run(command, env=dict(environment), stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


async def measure(folder: Path) -> list[Figure]:
    compile_everything()
    home = folder / "home"
    with simulator_process(folder / "simulator", AGENTS) as simulator:
        await fill_mirror(home, simulator)
    environment = console_environment(home)
    label: list[float] = []
    starts: list[tuple[float, float, float]] = []
    helps: list[float] = []
    demos: list[tuple[float, float, float]] = []
    for run in range(RUNS + 1):
        measured = (
            start([sys.executable, "-P", str(LABEL)], environment),
            start(CALLBOARD, environment),
            answer([*CALLBOARD, "--help"], environment),
            start(CALLBOARD, console_environment(folder / f"new{run}")),
        )
        if run:  # the first of each only warms the caches
            label.append(measured[0][0])
            starts.append(measured[1])
            helps.append(measured[2])
            demos.append(measured[3])
    one = median(label)
    first, cards, whole = (median([start[part] for start in starts]) for part in range(3))
    return [
        Figure("start: one label, first paint", one * 1000, "ms"),
        Figure("start: console, first paint", first * 1000, "ms"),
        Figure("start: console, every card of 1,000 agents", cards * 1000, "ms"),
        Figure("start: console, nothing changes any more", whole * 1000, "ms"),
        Figure("start: first paint to one label", first / one, "×", 1.7),
        Figure("start: complete picture to one label", cards / one, "×", 2.5),
        Figure("start: last status detail to one label", whole / one, "×"),
        Figure("start: --help to one label", median(helps) / one, "×", 0.5),
        Figure("start: --help", median(helps) * 1000, "ms"),
        Figure("start: very first start, first paint", median([start[0] for start in demos]) * 1000, "ms"),
        Figure(
            "start: very first start, demo agents on screen",
            median([start[1] for start in demos]) * 1000,
            "ms",
        ),
    ]


@pytest.mark.benchmark
async def test_start(tmp_path):
    assert not unmet(await measure(tmp_path))
