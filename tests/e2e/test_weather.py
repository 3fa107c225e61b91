"""Bad weather: everything the services hang on fails for a while, one thing after the other, and comes back.

The real services of two companies, without a console, behind fault proxies: both vendors, a partner (HubSpot)
and a real Redis. They are asked and synced all the while. Nothing here measures time; what must hold is that
the states follow each fault and its end without help, that an order given meanwhile is done at most once, and
that nothing is left behind: no error that only a log would hear of, no task, no open file. The long one, with
a console and figures, is `python tests/benchmarks/run.py soak`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from services.agents import SyncRequest
from services.container import Services
from services.errors import ServiceError
from services.health.model import CheckView, HealthState
from services.integrations.crm import DealData, RecordKind
from services.model import Provider, RunStatus
from services.options import ServiceOptions
from services.resilience import BreakerOptions
from services.security import MemoryStore
from services.storage import DatabaseLocation
from tests.benchmarks.soak_report import Ears, open_files
from tests.support.fault_proxy import (
    CLEAR,
    Fault,
    FaultProxy,
    black_hole,
    fault_proxy,
    garbage,
    resets,
    storm,
)
from tests.support.redis import RedisServer, own_redis  # noqa: F401
from tests.support.simulator import RunningSimulator, running_simulator

UP, DEGRADED, DOWN = HealthState.UP, HealthState.DEGRADED, HealthState.DOWN
COMPANIES = ("acme", "beta")
WEATHER: tuple[tuple[Fault, HealthState], ...] = (
    (resets(), DOWN),
    (black_hole(), DOWN),
    (storm("1"), DEGRADED),
    (garbage(), DOWN),
)
"""Faults, and the state that each leads to."""
INTERVAL = 2.0
"""Seconds between two probes of one thing; less leaves a probe too little time on a busy machine."""
PATIENCE = 60.0
"""Seconds after which what does not come true fails the test; never a measure of speed."""
REDIS = "system:redis"
Told = Callable[[], str]


class World:
    """The services, what they hang on, and what is done with them meanwhile."""

    def __init__(self, services: Services, proxies: list[FaultProxy], partner: str) -> None:
        self.services = services
        self.proxies = proxies
        self.outside = [f"provider:{name}/{vendor}" for name in COMPANIES for vendor in Provider]
        self.outside.append(partner)
        self.syncs: Counter[RunStatus] = Counter()
        self.answers: Counter[str] = Counter()

    def check(self, ident: str) -> CheckView | None:
        return next((each for each in self.services.health.view().checks if each.id == ident), None)

    async def becomes(self, state: HealthState, *idents: str, when: str) -> None:
        """Wait until each of these checks was seen in a state."""
        missing = set(idents)

        def found() -> dict[str, str]:
            checks = {ident: self.check(ident) for ident in missing}
            return {ident: f"{each.state}: {each.message}" if each else "" for ident, each in checks.items()}

        def fits() -> bool:
            # One after the other: on a busy machine one of them may miss a probe while another recovers.
            seen = {ident for ident in missing if (each := self.check(ident)) and each.state is state}
            missing.difference_update(seen)
            return not missing

        await until(fits, lambda: f"{when}: not {state}, but {found()}")

    async def rain(self, fault: Fault, state: HealthState) -> None:
        """Let everything outside fail like this until all states say so, then clear up again."""
        for proxy in self.proxies:
            proxy.fault = fault
        await self.becomes(state, *self.outside, when=f"in {fault.name}")
        await self.order(fault.name)
        for proxy in self.proxies:
            proxy.fault = CLEAR
        await self.becomes(UP, *self.outside, when=f"after {fault.name}")

    async def order(self, name: str) -> None:
        """A deal with a key of its own; in such weather it may fail, and may have been done all the same."""
        with contextlib.suppress(ServiceError):
            await self.services.crm.create_deal("acme", DealData(name), key=name, actor="test")

    # -- load ---------------------------------------------------------------------------------------

    async def sync(self) -> None:
        while True:
            report = await self.services.sync.run(SyncRequest(force=True, actor="test"))
            self.syncs[report.status] += 1
            await asyncio.sleep(1.0)

    async def read(self, client: Any) -> None:
        """Ask for agents all the time, and give up waiting now and then."""
        for patience in itertools.cycle((0.05, 5.0)):
            try:
                async with asyncio.timeout(patience):
                    await client.list_agents()
                self.answers["answered"] += 1
            except (ServiceError, TimeoutError) as error:
                self.answers[type(error).__name__] += 1
            await asyncio.sleep(0.2)


async def until(fits: Callable[[], bool], told: Told) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not fits():  # noqa: ASYNC110  # what is waited for announces itself in no other way
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(told()) from None


@asynccontextmanager
async def opened(simulator: RunningSimulator, redis: RedisServer, folder: Path) -> AsyncIterator[World]:
    """Two companies whose vendors and whose CRM are behind proxies, all of them watched."""
    options = ServiceOptions(
        database=DatabaseLocation(path=folder / "callboard.db"),
        secrets_file=folder / "secrets.json",
        request_timeout_seconds=1.0,
        list_cache_seconds=0.0,
        health_interval_seconds=INTERVAL,
        breaker=BreakerOptions(open_seconds=INTERVAL),
        hourly_sync=False,
        daily_sync=None,
        redis_url=redis.url,
    )
    urls = (simulator.retell_url, simulator.elevenlabs_url, f"{simulator.partners_url}/hubspot")
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(fault_proxy(url)) for url in urls]
        services = Services(options, secrets=MemoryStore())
        stack.push_async_callback(services.aclose)
        for company in COMPANIES:
            await services.companies.add(company)
            for vendor, proxy in zip(Provider, proxies, strict=False):
                await services.companies.add_connection(
                    company, vendor, key=simulator.key, base_url=proxy.url
                )
        crm = await services.integrations.add(
            "hubspot", company="acme", base_url=proxies[-1].url, secret=simulator.key
        )
        # Integrations are asked once a minute unless somebody wants it otherwise.
        await services.start_background()
        await services.health.set_rule(crm.check_id, interval=INTERVAL)
        yield World(services, proxies, crm.check_id)


@asynccontextmanager
async def busy(world: World) -> AsyncIterator[None]:
    """Keep it asked and synced meanwhile."""
    clients = [
        await world.services.clients.client(each) for each in await world.services.companies.connections()
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.sync())]
        tasks += [group.create_task(world.read(client)) for client in clients]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def test_everything_follows_the_weather_and_recovers_without_help(
    tmp_path: Path,
    own_redis: RedisServer,  # noqa: F811
) -> None:
    async with running_simulator(agents=6) as simulator:
        idle, files = set(asyncio.all_tasks()), open_files()
        with Ears() as ears:
            async with opened(simulator, own_redis, tmp_path) as world:
                await world.becomes(UP, *world.outside, REDIS, when="at the start")
                async with busy(world):
                    for fault, state in WEATHER:
                        await world.rain(fault, state)
                    await without_redis(world, own_redis)
                await recovered(world)
            left = [repr(task) for task in asyncio.all_tasks() - idle if not task.done()]
        assert left == []
        assert not ears.heard
        # A leak would be one for each of hundreds of requests; what libraries open once and keep is none.
        await until(lambda: open_files() <= files + 3, lambda: f"{open_files()} open files, {files} before")
    assert all(not name.startswith("failed") for proxy in world.proxies for name in proxy.counts)
    for fault, _ in WEATHER:
        assert all(proxy.counts[fault.name] for proxy in world.proxies), f"{fault.name} struck nobody"


async def without_redis(world: World, redis: RedisServer) -> None:
    """Each process counts for itself meanwhile: nothing that can be reached counts as down for it."""
    redis.kill()
    await world.becomes(DEGRADED, REDIS, when="without Redis")
    answered = world.answers["answered"]
    await until(lambda: world.answers["answered"] > answered + 5, lambda: f"no answers: {world.answers}")
    await world.order("without Redis")
    await world.becomes(UP, *world.outside, when="without Redis")
    redis.start()
    await world.becomes(UP, REDIS, when="with Redis again")


async def recovered(world: World) -> None:
    """Everything works again, and what was ordered in bad weather was done once or not at all."""
    services = world.services
    report = await services.sync.run(SyncRequest(force=True, actor="test"))
    assert report.status is RunStatus.DONE, report.errors
    assert world.syncs[RunStatus.DONE] > 0
    assert world.syncs.total() > world.syncs[RunStatus.DONE], "no sync met bad weather"
    await world.order("fine weather")
    page = await services.crm.search("acme", RecordKind.DEAL, limit=100)
    there = Counter(record.fields.get("name", "") for record in page.records)
    states = {change.target: change.state for change in await services.crm.changes("acme")}
    assert set(states) == {*(fault.name for fault, _ in WEATHER), "without Redis", "fine weather"}
    allowed = {"done": {1}, "failed": {0}, "unknown": {0, 1}}
    assert all(there[name] in allowed[state] for name, state in states.items()), (there, states)
    assert states["without Redis"] == states["fine weather"] == "done"
