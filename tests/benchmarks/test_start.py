"""Start-up through a pseudo-terminal, against a Textual program with one label, interleaved."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
PICTURE = ("5 Activity", "next sync", "? keys")
LABEL = Path(__file__).with_name("one_label.py")
QUIET = 1.5
"""Seconds without output after which a start is over: longer than everything slow to import takes."""


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first paint, to the last card, and to the complete picture.

    The picture is complete with the last byte written before it is quiet: a status that comes late, or a
    style alone that changes, makes it complete only then.
    """

    first: float
    cards: float
    whole: float


def start(command: Sequence[str], environment: Mapping[str, str], shows: Sequence[str] = ()) -> Start:
    """Start it and wait until it is quiet. `shows` must be in the first and last line of the picture."""
    with Terminal(command, environment) as terminal:
        while not terminal.pump(5):
            assert terminal.process.poll() is None, terminal.text()
        terminal.settle(QUIET)
        final = terminal.text()
        first = terminal.moment(lambda text: bool(text.strip()))
        cards = terminal.moment(lambda text: text.splitlines()[1:-2] == final.splitlines()[1:-2])
        whole = terminal.chunks[-1][0] - terminal.started
        assert first is not None
        assert cards is not None
        lines = final.splitlines()
        assert all(text in lines[0] + lines[-1] for text in shows), final
    return Start(first, cards, whole)


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
    # The header tells of a schedule; one that is not due while this runs.
    later = time.strftime("%H:00", time.localtime(time.time() + 12 * 3600))
    environment = console_environment(home, CALLBOARD_DAILY_SYNC=later)
    label: list[float] = []
    starts: list[Start] = []
    helps: list[float] = []
    demos: list[Start] = []
    for run in range(RUNS + 1):
        measured = (
            start([sys.executable, "-P", str(LABEL)], environment),
            start(CALLBOARD, environment, PICTURE),
            answer([*CALLBOARD, "--help"], environment),
            start(CALLBOARD, console_environment(folder / f"new{run}")),
        )
        if run:  # the first of each only warms the caches
            label.append(measured[0].first)
            starts.append(measured[1])
            helps.append(measured[2])
            demos.append(measured[3])
    one = median(label)
    first, cards, whole = (
        median([getattr(start, part) for start in starts]) for part in ("first", "cards", "whole")
    )
    demo_first, demo_cards = (median([getattr(demo, part) for demo in demos]) for part in ("first", "cards"))
    return [
        Figure("start: one label, first paint", one * 1000, "ms"),
        Figure("start: console, first paint", first * 1000, "ms"),
        Figure("start: console, every card of 1,000 agents", cards * 1000, "ms"),
        Figure("start: console, complete picture", whole * 1000, "ms"),
        Figure("start: first paint to one label", first / one, "×", 1.7),
        Figure("start: complete picture to one label", whole / one, "×", 2.5),
        Figure("start: --help to one label", median(helps) / one, "×", 0.5),
        Figure("start: --help", median(helps) * 1000, "ms"),
        Figure("start: very first start, first paint", demo_first * 1000, "ms"),
        Figure("start: very first start, demo agents on screen", demo_cards * 1000, "ms"),
    ]


@pytest.mark.benchmark
async def test_start(tmp_path):
    assert not unmet(await measure(tmp_path))
