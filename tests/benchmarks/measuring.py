"""What the benchmarks share: figures and their targets, a simulator process, filled mirrors."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.runtime import open_services
from services.clock import Clock, SystemClock
from services.container import Services
from services.model import Provider
from tests.support.environment import child_environment
from tests.support.program import CALLBOARD, real_environment
from tests.support.simulator import RunningSimulator


@dataclass(frozen=True)
class Figure:
    """One measured number. `target` is the most it may be (the least with `least`); None: for information."""

    name: str
    value: float
    unit: str
    target: float | None = None
    least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "value": round(self.value, 3), "met": self.met}


def unmet(figures: Sequence[Figure]) -> list[str]:
    """The figures that miss their target, in words; what a benchmark test asserts to be empty."""
    return [
        f"{figure.name}: {figure.value:.3g} {figure.unit}, not {'≥' if figure.least else '≤'} {figure.target}"
        for figure in figures
        if figure.met is False
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


class MovableClock(SystemClock):
    """The machine's clock, which can be put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now(self) -> int:
        return super().now() + self.ahead_ms

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_ms / 1000


@contextlib.contextmanager
def simulator_process(home: Path, agents: int, latency_ms: float = 0) -> Iterator[RunningSimulator]:
    """A simulator that takes no time from the process that is measured."""
    home.mkdir(parents=True, exist_ok=True)
    words = [
        "simulator",
        "--agents",
        str(agents),
        "--latency",
        str(latency_ms),
        "--announce",
        "json",
        "--exit-with-parent",
    ]
    process = subprocess.Popen(
        [*CALLBOARD, *words],
        env=child_environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield RunningSimulator(told["retell"], told["elevenlabs"], told["twilio"], told["key"])
    finally:
        process.terminate()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@contextlib.asynccontextmanager
async def services_of(
    home: Path, *, clock: Clock | None = None, concurrency: int | None = None, health: bool = True
) -> AsyncIterator[Services]:
    """The services on the data folder `home`, in this process, wired as the program wires them."""
    more = {"CALLBOARD_CONCURRENCY": str(concurrency)} if concurrency else {}
    more["CALLBOARD_HEALTH"] = "on" if health else "off"
    services = open_services(environ=console_environment(home, **more))
    if clock is not None:
        services.clock = clock
    try:
        yield services
    finally:
        await services.aclose()


async def add_company(services: Services, simulator: RunningSimulator, *vendors: Provider) -> None:
    """A company `acme` with a connection to each of the simulator's vendors."""
    urls = {Provider.RETELL: simulator.retell_url, Provider.ELEVENLABS: simulator.elevenlabs_url}
    await services.companies.add("acme")
    for vendor in vendors or tuple(urls):
        await services.companies.add_connection("acme", vendor, key=simulator.key, base_url=urls[vendor])


async def fill_mirror(home: Path, simulator: RunningSimulator) -> None:
    """Set up the company and sync everything once."""
    from services.agents import SyncRequest

    async with services_of(home) as services:
        await add_company(services, simulator)
        report = await services.sync.run(SyncRequest())
        assert report.counts()["created"] == len(report.outcomes) > 0, report.counts()


def console_environment(home: Path, **more: str) -> dict[str, str]:
    """For a console on `home` that starts nothing by itself."""
    settings = {"CALLBOARD_HOURLY_SYNC": "false", "CALLBOARD_DAILY_SYNC": "off"}
    return real_environment(home, **{**settings, **more})


def compile_everything() -> None:
    """Write the bytecode of the program, so that no measured start does."""
    import compileall

    root = Path(__file__).resolve().parents[2]
    for package in ("app", "screens", "services"):
        compileall.compile_dir(root / package, quiet=2)


def cores() -> int:
    return os.cpu_count() or 1
