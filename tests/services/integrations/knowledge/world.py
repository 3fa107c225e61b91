"""A knowledge base over a real database, with integrations as a test wants them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from services.clock import SystemClock
from services.events import EventBus
from services.integrations.adapters import adapters_of
from services.integrations.knowledge import KnowledgeService
from services.integrations.registry import IntegrationService
from services.resilience import Policies
from services.security import MemoryStore
from services.storage import Database, DatabaseLocation
from services.storage.tables import Company


class World:
    """What a test needs of it; `knowledge` is the service itself."""

    def __init__(self, database: Database, clock: Any, **options: Any) -> None:
        self.database = database
        self.clock = clock
        self.bus = EventBus()
        self.secrets = MemoryStore()
        self.policies = Policies(clock, **({"sleep": clock.sleep} if hasattr(clock, "sleep") else {}))
        gateways: Mapping[str, tuple[str, str]] = options.pop("gateways", {})
        self.integrations = IntegrationService(
            self.open, self.open_secrets, self.bus, clock, adapters=adapters_of(), gateways=gateways
        )
        self.knowledge = KnowledgeService(
            self.open, self.integrations, self.policies, self.bus, clock, **options
        )

    async def open(self) -> Database:
        return self.database

    async def open_secrets(self) -> MemoryStore:
        return self.secrets

    async def company(self, *names: str) -> None:
        def write(session: Any) -> None:
            for name in names:
                session.add(Company(name=name, created_at=self.clock.now()))

        await self.database.write(write)


@contextlib.asynccontextmanager
async def world_on(where: Path | DatabaseLocation, clock: Any = None, **options: Any) -> AsyncIterator[World]:
    """The world in a folder, or in the database of an address; `acme` and `globex` are its companies."""
    location = where if isinstance(where, DatabaseLocation) else DatabaseLocation(path=where / "k.db")
    database = await Database.open(location)
    world = World(database, clock or SystemClock(), **options)
    try:
        await world.company("acme", "globex")
        yield world
    finally:
        await world.knowledge.aclose()
        await database.aclose()
