"""Integrations on a real database, with what their services are made of and nothing else."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.events import EventBus
from services.integrations.adapters import adapters_of
from services.integrations.bookings import BookingService, PartnerCatalogue
from services.integrations.crm import CrmService
from services.integrations.effects import Effects
from services.integrations.registry import IntegrationService
from services.resilience import Policies
from services.security import MemoryStore
from services.storage import Database
from services.storage.tables import Company
from tests.support.world import FakeClock

COMPANY = "acme"


async def no_wait(seconds: float) -> None:
    """The sleep of tests that retry."""


class Bench:
    """One company's integrations; services on top of them are made by the test. `aclose` ends those."""

    def __init__(
        self,
        database: Database,
        *,
        gateways: Mapping[str, tuple[str, str]] | None = None,
        partners: Path | None = None,
        timeout: float = 20.0,
    ) -> None:
        self.database = database
        self.clock = FakeClock()
        self.secrets = MemoryStore()
        self.bus = EventBus()
        self.policies = Policies(self.clock, sleep=no_wait, rng=random.Random(1))
        self.timeout = timeout
        self.catalogue = PartnerCatalogue(partners)
        self.integrations = IntegrationService(
            self.open_database,
            self.open_secrets,
            self.bus,
            self.clock,
            adapters=adapters_of(partners=partners),
            gateways=gateways,
        )
        self.effects = Effects(self.open_database, self.clock)
        self._made: list[Any] = []

    async def open_database(self) -> Database:
        return self.database

    async def open_secrets(self) -> MemoryStore:
        return self.secrets

    async def add_company(self, name: str = COMPANY) -> None:
        await self.database.write(lambda session: session.add(Company(name=name, created_at=0)))

    def bookings(self) -> BookingService:
        made = BookingService(
            self.open_database,
            self.integrations,
            self.effects,
            self.policies,
            self.bus,
            self.clock,
            partners=self.catalogue,
            timeout=self.timeout,
        )
        self._made.append(made)
        return made

    def crm(self) -> CrmService:
        made = CrmService(self.integrations, self.effects, self.policies, self.clock, timeout=self.timeout)
        self._made.append(made)
        return made

    async def aclose(self) -> None:
        for made in self._made:
            await made.aclose()
