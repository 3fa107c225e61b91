"""Health services on one database, with a clock that stands still and probes that the test decides."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from services.errors import ServiceError
from services.events import AlertRaised, EventBus, PolicyChanged
from services.health.alerts import AlertDesk
from services.health.model import Alert, Channel, CheckKind, CheckSpec, HealthState, Reading
from services.health.plan import Group, Plan
from services.health.service import HealthOptions, HealthService
from services.resilience import Policies
from services.security import MemoryStore
from services.storage import Database, DatabaseLocation
from tests.support.world import FakeClock

FINE = Reading(HealthState.UP, "fine")
GONE = Reading(HealthState.DOWN, "503 service unavailable", "Wait for the vendor", "transient")


@dataclass
class FakeWorld:
    """What is watched, and how it is: readings by check (or an exception to raise); all else is fine."""

    readings: dict[str, Reading | Exception] = field(default_factory=dict)
    specs: list[CheckSpec] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    failure: ServiceError | None = None

    def add(self, check_id: str, *depends_on: str, **changes) -> CheckSpec:
        async def probe() -> Reading:
            self.asked.append(check_id)
            found = self.readings.get(check_id, FINE)
            if isinstance(found, Exception):
                raise found
            return found

        kind, _, name = check_id.partition(":")
        settings = {"company": "acme", "depends_on": depends_on, "name": name, **changes}
        spec = CheckSpec(id=check_id, kind=CheckKind(kind), probe=probe, **settings)
        self.specs.append(spec)
        return spec

    async def build(self) -> Plan:
        if self.failure is not None:
            raise self.failure
        return Plan(self.specs, self.groups)


@dataclass
class FakeSender:
    """Stands for the network: keeps what was sent, or fails."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    failure: ServiceError | None = None

    async def send(self, channel: Channel, secret: str, alert: Alert) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((channel.kind, alert.text))


class Watch:
    """Any number of health services ("processes") on one database; each with a bus of its own."""

    def __init__(self, where: DatabaseLocation) -> None:
        self.where = where
        self.clock = FakeClock()
        self.world = FakeWorld()
        self.sender = FakeSender()
        self.secrets = MemoryStore()
        self.policies = Policies(self.clock)
        self.databases: list[Database] = []
        self.open: list[HealthService] = []
        self.raised: list[AlertRaised] = []
        self.buses: list[EventBus] = []
        self.policies_of: list[Policies] = []

    async def open_secrets(self) -> MemoryStore:
        return self.secrets

    async def service(
        self,
        *,
        start: bool = True,
        name: str = "",
        raised: Callable[[AlertRaised], None] | None = None,
        own_policies: bool = False,
        world: FakeWorld | None = None,
        **options: float | str,
    ) -> HealthService:
        """A service that acts only in `tick` and `check_now`: nothing in it waits for the clock.

        `own_policies`: as another process has them; kept in `policies_of`. `world`: what this process
        finds, where that is something else than what others find.
        """
        database = await Database.open(self.where)
        self.databases.append(database)

        async def opened() -> Database:
            return database

        bus = EventBus()
        self.buses.append(bus)
        bus.subscribe(AlertRaised, raised or self.raised.append)
        policies = self.policies
        if own_policies:
            policies = Policies(self.clock, on_change=lambda name: bus.publish(PolicyChanged(name)))
        self.policies_of.append(policies)
        desk = AlertDesk(opened, self.open_secrets, policies, bus, self.clock, sender=self.sender)
        settings = {"tick": 3600.0, "quiet": 0.0, **options}
        made = HealthService(
            opened,
            world or self.world,
            policies,
            desk,
            bus,
            self.clock,
            HealthOptions(**settings),  # type: ignore[arg-type]
            rng=random.Random(1),
            new_owner=lambda: name or f"host:{len(self.open)}:x",
        )
        self.open.append(made)
        if start:
            await made.start()
        return made

    async def round(self, *services: HealthService, seconds: float = 30) -> None:
        """Time passes; the first of these that probes does so, then all exchange with the database."""
        self.clock.advance(seconds=seconds)
        for service in services:
            if service.holder:
                await service.check_now()
        for service in services:
            await service.tick()

    async def aclose(self) -> None:
        for service in self.open:
            await service.aclose()
        for database in self.databases:
            await database.aclose()


def state_of(service: HealthService, check_id: str) -> HealthState:
    return next(check.state for check in service.view().checks if check.id == check_id)
