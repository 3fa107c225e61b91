"""`python tests/benchmarks/run.py soak`, or `soak.py --minutes 3`: bad weather between us and the vendors.

A simulator runs in a process of its own, behind a fault proxy for each vendor. The real services of a data
folder watch their connections, sync again and again and are asked besides, while the proxies go through
their faults; a console in a pseudo-terminal does the same on a folder of its own. What must hold:

* nothing crashes: no task ends unheard, nothing is logged as an error, the console lives;
* nothing grows without a bound: the queues for places, the tasks, the open files, the memory;
* states follow: down (for a 429 storm degraded) within two intervals, up again as fast, without help;
* the console's event loop is never held for long: the 99th percentile of its ticks is at most 16 ms late.

Prints the figures as JSON. The exit code is 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from services.agents import SyncRequest  # noqa: E402
from services.clock import SystemClock  # noqa: E402
from services.container import Services  # noqa: E402
from services.errors import ServiceError  # noqa: E402
from services.health.model import CheckKind, CheckView, HealthState  # noqa: E402
from services.health.service import HealthOptions, HealthService  # noqa: E402
from services.model import Provider, RunStatus  # noqa: E402
from services.options import ServiceOptions  # noqa: E402
from services.providers import VENDOR_NAMES  # noqa: E402
from services.security import MemoryStore  # noqa: E402
from services.storage import DatabaseLocation  # noqa: E402
from tests.benchmarks.measuring import (  # noqa: E402
    Figure,
    console_environment,
    percentile,
    services_of,
    simulator_process,
    unmet,
)
from tests.benchmarks.soak_report import (  # noqa: E402
    Ears,
    Follow,
    Report,
    Samples,
    figures_of,
    memory_mb,
    open_files,
    stack_of,
)
from tests.support.fault_proxy import (  # noqa: E402
    CLEAR,
    Fault,
    FaultProxy,
    black_hole,
    fault_proxy,
    garbage,
    half_json,
    latency,
    resets,
    storm,
    trickle,
)
from tests.support.simulator import RunningSimulator  # noqa: E402
from tests.support.terminal import Terminal  # noqa: E402

COMPANIES: Final = ("acme", "beta")
READERS: Final = 4
"""How many ask each connection for agents all the time, and often give up waiting."""
TIMEOUT: Final = 1.0
"""Seconds a request may take."""
GRACE: Final = 0.5
"""Seconds that a busy machine may take for itself; the promise of two intervals has no other allowance."""
PATIENCE: Final = 90.0
"""Seconds after its time within which a soak must have ended: the last fault, a sync, the console's end."""
SAMPLE: Final = 0.5
MINUTES: Final = 10.0
"""How long the long one takes."""
DOWN: Final = frozenset({HealthState.DOWN})
SLOWED: Final = frozenset({HealthState.DEGRADED})
UP: Final = frozenset({HealthState.UP})
FINE: Final = frozenset({HealthState.UP, HealthState.DEGRADED})

WEATHER: Final[tuple[tuple[Fault, frozenset[HealthState]], ...]] = (
    (resets(), DOWN),
    (black_hole(), DOWN),
    (latency(0.2, 0.3), FINE),
    (garbage(), DOWN),
    (storm("1"), SLOWED),
    (half_json(), DOWN),
    (resets("answer"), DOWN),
    (trickle(30), DOWN),
    (storm(), SLOWED),
)
"""Faults, and the states that each must lead to."""


class Soak:
    """One soak over the services of this process."""

    def __init__(
        self, services: Services, health: HealthService, proxies: dict[Provider, FaultProxy], report: Report
    ) -> None:
        self._services = services
        self._health = health
        self._proxies = proxies
        self._report = report
        self._rng = random.Random(4)
        self._clients: list[Any] = []
        self.samples = Samples()

    async def run(self, seconds: float) -> None:
        """Until the time is over and the weather of every vendor has cleared up."""
        ends = time.monotonic() + seconds
        for connection in await self._services.companies.connections():
            self._clients.append(await self._services.clients.client(connection))
        async with asyncio.TaskGroup() as group:
            load = [group.create_task(self._sample()), group.create_task(self._sync())]
            load += [
                group.create_task(self._read(client)) for client in self._clients for _ in range(READERS)
            ]
            async with asyncio.TaskGroup() as weather:
                for number, (provider, proxy) in enumerate(self._proxies.items()):
                    weather.create_task(self._weather(provider, proxy, number, ends))
            for task in load:
                task.cancel()

    # -- weather --------------------------------------------------------------------------------------

    async def _weather(self, provider: Provider, proxy: FaultProxy, number: int, ends: float) -> None:
        """Fault after fault, each until the states have followed and a while longer, then fine again."""
        await self._becomes(provider, UP, self._deadline(), "at the start")
        turn = number * len(WEATHER) // len(self._proxies)
        while time.monotonic() < ends:
            fault, wanted = WEATHER[turn % len(WEATHER)]
            turn += 1
            follow = self._report.follows.setdefault(fault.name, Follow())
            proxy.fault = fault
            follow.seen.append(await self._becomes(provider, wanted, self._deadline(), f"in a {fault.name}"))
            await self._stays(provider, wanted, fault.name)
            proxy.fault = CLEAR
            follow.over.append(await self._becomes(provider, UP, self._deadline(), f"after a {fault.name}"))
            await asyncio.sleep(self._report.interval * self._rng.uniform(0.5, 1.5))

    def _deadline(self) -> float:
        """Seconds within which states follow, whatever happens."""
        return 2 * self._report.interval + GRACE

    async def _becomes(
        self, provider: Provider, wanted: frozenset[HealthState], limit: float, when: str
    ) -> float:
        """Seconds until every connection to the vendor is in such a state."""
        started = time.monotonic()
        while len(found := self._checks(provider)) < len(COMPANIES) or any(
            check.state not in wanted for check in found
        ):
            if (took := time.monotonic() - started) > max(3 * limit, 30.0):
                break
            await asyncio.sleep(0.05)
        took = time.monotonic() - started
        if took > limit:
            states = {check.company: f"{check.state} ({check.message})" for check in self._checks(provider)}
            self._broke(f"{provider} {when}: {states} after {took:.1f} s, not within {limit:.1f} s")
        return took

    async def _stays(self, provider: Provider, wanted: frozenset[HealthState], name: str) -> None:
        """For two more probes the states remain as they are."""
        ends = time.monotonic() + 2 * self._report.interval
        while time.monotonic() < ends:
            for check in self._checks(provider):
                if check.state not in wanted:
                    self._broke(f"{provider} in a {name}: {check.company} became {check.state} again")
                    return
            await asyncio.sleep(0.1)

    def _checks(self, provider: Provider) -> list[CheckView]:
        name = VENDOR_NAMES[provider]
        checks = self._health.view().checks
        return [each for each in checks if each.kind is CheckKind.PROVIDER and each.name == name]

    def _broke(self, what: str) -> None:
        if len(self._report.broken) < 40:
            self._report.broken.append(what)

    # -- load -----------------------------------------------------------------------------------------

    async def _sync(self) -> None:
        """One sync after the other; most of them strike bad weather."""
        while True:
            report = await self._services.sync.run(SyncRequest(force=True, actor="soak"))
            self._report.syncs[str(report.status)] += 1
            await asyncio.sleep(2.0)

    async def _read(self, client: Any) -> None:
        """Ask for agents, and give up soon now and then."""
        while True:
            with contextlib.suppress(ServiceError, TimeoutError):
                async with asyncio.timeout(self._rng.choice((0.05, 0.3, 5.0))):
                    if listed := await client.list_agents():
                        await client.agent(self._rng.choice(listed).data["agent_id"])
            await asyncio.sleep(self._rng.uniform(0.02, 0.2))

    async def _sample(self) -> None:
        loop, samples = asyncio.get_running_loop(), self.samples
        while True:
            due = loop.time() + SAMPLE
            await asyncio.sleep(SAMPLE)
            samples.late_ms.append((loop.time() - due) * 1000)
            samples.queued.append(sum(client.stats.queued for client in self._clients))
            samples.tasks.append(len(asyncio.all_tasks()))
            samples.files.append(open_files())
            samples.memory_mb.append(memory_mb())


# The services, wired as the program wires them


@asynccontextmanager
async def services_behind(
    proxies: dict[Provider, FaultProxy], key: str, folder: Path, interval: float
) -> AsyncIterator[tuple[Services, HealthService]]:
    """Services of two companies whose connections lead through the proxies, and their health service."""
    options = ServiceOptions(
        database=DatabaseLocation(path=folder / "callboard.db"),
        secrets_file=folder / "secrets.json",
        request_timeout_seconds=TIMEOUT,
        list_cache_seconds=1.0,
        health_interval_seconds=interval,
        health_failures=2,
        hourly_sync=False,
        daily_sync=None,
    )
    services = Services(options, secrets=MemoryStore())
    try:
        for company in COMPANIES:
            await services.companies.add(company)
            for provider, proxy in proxies.items():
                await services.companies.add_connection(company, provider, key=key, base_url=proxy.url)
        health = await health_of(services, interval)
        await health.start()
        try:
            yield services, health
        finally:
            await health.aclose()
    finally:
        await services.aclose()


async def health_of(services: Services, interval: float) -> HealthService:
    """The container's health service; one over the connections alone where the container has none."""
    own = getattr(services, "health", None)
    if isinstance(own, HealthService):
        return own
    from services.health.alerts import AlertDesk
    from services.health.checks.connections import spec_of
    from services.health.plan import FixedCatalog

    clock = SystemClock()
    specs = tuple(
        spec_of(
            connection,
            services.clients,
            clock,
            interval=interval,
            failures=2,
            slow_ms=None,
            simulated=lambda _: True,
        )
        for connection in await services.companies.connections()
    )
    desk = AlertDesk(services.open_database, services.open_secrets, services.policies, services.bus, clock)
    return HealthService(
        services.open_database,
        FixedCatalog(specs),
        services.policies,
        desk,
        services.bus,
        clock,
        HealthOptions(interval=interval),
    )


# The console beside it


@dataclass
class Console:
    """A console in a pseudo-terminal, watched by `probe.py`."""

    terminal: Terminal
    result: Path
    memory_mb: list[float] = field(default_factory=list)

    async def live(self) -> None:
        """Press keys as an operator who wants to see everything, until cancelled."""
        keys = ("4", "j", "j", "\r", "\x1b", "1", "l", "h", "j", "3", "1")
        number = 0
        while True:
            await asyncio.to_thread(self.terminal.listen, 0.3)
            assert self.terminal.process.poll() is None, "the console ended"
            if number % 2 == 0:
                self.terminal.send(keys[number // 2 % len(keys)])
            number += 1
            if number % 20 == 0:
                self.memory_mb.append(memory_mb(self.terminal.process.pid))
                self.terminal.chunks.clear()  # ten minutes of output are of no use to anybody
                self.terminal._fed = 0

    async def figures(self) -> list[Figure]:
        """How late its loop was from the start of the watch until now."""
        self.terminal.signal(signal.SIGUSR2)
        while not self.result.exists():
            await asyncio.to_thread(self.terminal.listen, 0.1)
        watched = json.loads(self.result.read_text())
        late, held = watched["late"], watched["held"]
        for took, what in watched["worst"][:8]:
            print(f"{took:6.1f} ms  {what}", file=sys.stderr)
        return [
            Figure("console: event loop held, p99 of ticks", percentile(late, 99), "ms", 16),
            Figure("console: event loop held, worst tick", max(late), "ms"),
            Figure("console: callbacks over 16 ms", sum(took > 16 for took in held), "callbacks"),
            Figure("console: memory at the end", self.memory_mb[-1] if self.memory_mb else 0.0, "MB"),
        ]


@asynccontextmanager
async def console_behind(
    proxies: dict[Provider, FaultProxy], key: str, folder: Path, interval: float
) -> AsyncIterator[Console]:
    """A console on a folder of its own, whose connections lead through the same proxies."""
    home, result = folder / "home", folder / "watch.json"
    async with services_of(home) as services:
        await services.companies.add("acme")
        for provider, proxy in proxies.items():
            await services.companies.add_connection("acme", provider, key=key, base_url=proxy.url)
        await services.sync.run(SyncRequest(actor="soak"))
    environment = console_environment(
        home,
        PYTHONPATH=str(ROOT),
        CALLBOARD_HEALTH_INTERVAL=f"{interval:g}",
        CALLBOARD_REQUEST_TIMEOUT=f"{TIMEOUT:g}",
    )
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py")), str(result)]
    terminal = await asyncio.to_thread(Terminal, command, environment)
    try:
        await asyncio.to_thread(terminal.wait_for, "agents", 60)
        await asyncio.to_thread(terminal.listen, 2.0)
        terminal.signal(signal.SIGUSR1)
        yield Console(terminal, result)
    finally:
        await asyncio.to_thread(terminal.__exit__)


# All of it


async def soak(
    folder: Path, seconds: float, *, interval: float = 2.0, agents: int = 24, console: bool = True
) -> Report:
    """Let it rain for so long; see the module. `interval`: seconds between two probes."""
    report = Report(seconds, interval)
    with Ears() as ears, simulator_process(folder / "simulator", agents) as simulator:
        work = asyncio.create_task(_soak(folder, simulator, report, console=console))
        await asyncio.wait({work}, timeout=seconds + PATIENCE)
        if not work.done():
            report.broken.append(f"it did not end within {PATIENCE:g} s after its time")
            report.notes += [stack_of(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]
            work.cancel()
            await asyncio.wait({work}, timeout=10)
        if work.done() and not work.cancelled() and (failure := work.exception()) is not None:
            report.broken.append("".join(traceback.format_exception(failure))[-3000:])
    report.broken += [f"{times} × {what}" for what, times in ears.heard.most_common(10)]
    report.broken += unmet(report.figures)
    return report


async def _soak(folder: Path, simulator: RunningSimulator, report: Report, *, console: bool) -> None:
    idle, files = set(asyncio.all_tasks()), open_files()
    targets = {Provider.RETELL: simulator.retell_url, Provider.ELEVENLABS: simulator.elevenlabs_url}
    async with AsyncExitStack() as stack:
        proxies = {each: await stack.enter_async_context(fault_proxy(url)) for each, url in targets.items()}
        shown: Console | None = None
        if console:
            shown = await stack.enter_async_context(
                console_behind(proxies, simulator.key, folder, report.interval)
            )
        services, health = await stack.enter_async_context(
            services_behind(proxies, simulator.key, folder / "services", report.interval)
        )
        work = Soak(services, health, proxies, report)
        await beside(shown.live if shown is not None else None, work.run(report.seconds))
        report.figures += figures_of(work.samples)
        report.figures += await _recovered(services)
        if shown is not None:
            report.figures += await shown.figures()
        report.requests = {str(each): dict(proxy.counts) for each, proxy in proxies.items()}
        for provider, proxy in proxies.items():
            failed = [name for name in proxy.counts if name.startswith("failed")]
            report.notes += [f"the proxy of {provider}: {name}" for name in failed]
    left = [task for task in asyncio.all_tasks() - idle if not task.done()]
    report.figures.append(Figure("tasks left at the end", len(left), "tasks", 0))
    report.figures.append(Figure("open files left at the end", open_files() - files, "files", 8))
    report.notes += [repr(task)[:200] for task in left[:5]]


async def beside(forever: Callable[[], Awaitable[None]] | None, work: Awaitable[None]) -> None:
    """Do the work with something else going on as long; a failure of either ends both."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(forever()) if forever is not None else None  # type: ignore[arg-type]
        await work
        if task is not None:
            task.cancel()


async def _recovered(services: Services) -> Sequence[Figure]:
    """After the weather everything works again by itself: one sync, without a failure."""
    report = await services.sync.run(SyncRequest(force=True, actor="soak"))
    failed = (
        0
        if report.status is RunStatus.DONE
        else len(report.errors) + sum(row.error is not None for row in report.outcomes)
    )
    return [Figure("the sync after the weather: failures", failed, "failures", 0)]


async def measure(folder: Path) -> list[Figure]:
    """The long one, for `run.py`: its figures, and how many promises were broken."""
    report = await soak(folder, MINUTES * 60)
    print("\n".join((*report.broken, *report.notes)), file=sys.stderr)
    follows = [took for each in report.follows.values() for took in (*each.seen, *each.over)]
    return [
        *report.figures,
        Figure("states follow a fault or its end, most", max(follows, default=0.0), "s"),
        Figure("promises broken", len(report.broken), "promises", 0),
    ]


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two probes")
    parser.add_argument("--agents", type=int, default=24)
    parser.add_argument("--no-console", action="store_true", help="services only")
    given = parser.parse_args(words)
    from tests.support.environment import keep, scrubbed

    for name in [name for name in os.environ if not keep(name)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="callboard-soak-") as folder:
        os.environ.update(scrubbed(Path(folder)))
        report = asyncio.run(
            soak(
                Path(folder),
                given.minutes * 60,
                interval=given.interval,
                agents=given.agents,
                console=not given.no_console,
            )
        )
    print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
