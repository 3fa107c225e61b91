"""Parts for tests of the schedule: a sync that only counts, an alarm that rings when told, a short wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel import col, select

from services.agents import SyncRequest
from services.events import EventBus
from services.model import Outcome, OutcomeRow, Provider, RunStatus, SyncReport
from services.schedule import Scheduler, SchedulerOptions
from services.storage import Database, DatabaseLocation
from services.storage.tables import Company, Connection, Firing
from tests.support.world import FakeClock

HOUR = 3_600_000


def at(text: str) -> int:
    """Epoch milliseconds of an ISO time with an offset or Z."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@dataclass
class FakeSync:
    """Stands for the sync service: remembers what it was asked, ends at once unless `gate` is closed."""

    requests: list[SyncRequest] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def run(self, request: SyncRequest) -> SyncReport:
        self.requests.append(request)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        row = OutcomeRow("acme", Provider.RETELL, "agent_1", "One", Outcome.UNCHANGED)
        return SyncReport(f"run{len(self.requests)}", RunStatus.DONE, (row,))


class ManualTimer:
    """Rings when the test says so."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.ring = ring
        self.at: int | None = None
        self.closed = False

    def start(self) -> None:
        pass

    def set(self, at: int | None) -> None:
        self.at = at

    def close(self) -> None:
        self.closed = True


class Bench:
    """Any number of schedulers on one database, all with one clock that stands still."""

    def __init__(self, where: DatabaseLocation, now: str) -> None:
        self.where = where
        self.clock = FakeClock(at(now))
        self.databases: list[Database] = []
        self.timers: list[ManualTimer] = []
        self.open: list[Scheduler] = []

    async def scheduler(
        self, sync: FakeSync, *, bus: EventBus | None = None, name: str = "", **options: object
    ) -> Scheduler:
        """A started scheduler with a database connection of its own; it acts only in `check`."""
        database = await Database.open(self.where)
        self.databases.append(database)

        async def opened() -> Database:
            return database

        def make_timer(ring: Callable[[], None]) -> ManualTimer:
            self.timers.append(ManualTimer(ring))
            return self.timers[-1]

        settings = {"renew_seconds": 3600.0, **options}
        scheduler = Scheduler(
            opened,
            sync,  # type: ignore[arg-type]
            bus or EventBus(),
            self.clock,
            SchedulerOptions(**settings),  # type: ignore[arg-type]
            make_timer=make_timer,
            new_owner=lambda: name or f"owner{len(self.open)}",
        )
        await scheduler.start()
        self.open.append(scheduler)
        return scheduler

    async def connect(self) -> None:
        """Add a company with a connection, so that there is something to sync."""

        def add(session):
            company = Company(name="acme", created_at=0)
            session.add(company)
            session.flush()
            session.add(
                Connection(company_id=company.id, provider="retell", base_url="", residency="", created_at=0)
            )

        database = await Database.open(self.where)
        await database.write(add)
        await database.aclose()

    async def firings(self) -> dict[str, Firing]:
        """What is stored, by id without its `sync:`."""

        def read(session):
            rows = session.exec(select(Firing).order_by(col(Firing.due_at)))
            return {row.id.removeprefix("sync:"): row.model_copy() for row in rows}

        return await self.databases[0].read(read)

    async def aclose(self) -> None:
        for scheduler in self.open:
            await scheduler.aclose()
        for database in self.databases:
            await database.aclose()


async def idle(*schedulers: Scheduler) -> None:
    """Wait until none of them runs a sync."""
    await until(lambda: not any(scheduler.busy for scheduler in schedulers))


async def until(condition: Callable[[], bool | Awaitable[bool]], limit: float = 20.0) -> None:
    """Wait until the condition holds; fails long after it should have."""
    deadline = time.monotonic() + limit
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)
