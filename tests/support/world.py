"""Real services over a real database and the simulator, with a clock the test moves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from services.container import Services
from services.model import AgentCard, Outcome, SyncReport
from services.options import ServiceOptions
from services.resilience import Limits
from services.security import MemoryStore
from services.storage import DatabaseLocation
from tests.support.simulator import RunningSimulator

START = 1_790_000_000_000


class FakeClock:
    """Wall time stands still until `advance`; monotonic time runs on with it, so that durations are real."""

    def __init__(self, now: int = START) -> None:
        self.time = now
        self.moved = 0.0

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return time.monotonic() + self.moved

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0) -> None:
        step = seconds + 60 * minutes + 3600 * hours
        self.time += round(step * 1000)
        self.moved += step


@contextlib.asynccontextmanager
async def services_on(
    simulator: RunningSimulator,
    folder: Path,
    *,
    clock: FakeClock | None = None,
    vendors: tuple[str, ...] = ("retell", "elevenlabs"),
    company: str = "acme",
    database: DatabaseLocation | None = None,
    concurrency: int | None = None,
    limits: Limits = Limits(),  # noqa: B008  # immutable
) -> AsyncIterator[Services]:
    """Services whose one company is connected to the simulator; made anew or found in the database."""
    secrets = MemoryStore()
    services = Services(
        ServiceOptions(
            database=database or DatabaseLocation(path=folder / "callboard.db"),
            secrets_file=folder / "secrets.json",
            concurrency=concurrency,
            limits=limits,
        ),
        clock=clock or FakeClock(),
        secrets=secrets,
    )
    try:
        if not await services.companies.list():
            await services.companies.add(company)
        have = {connection.provider.value for connection in await services.companies.connections(company)}
        for vendor in vendors:
            address = simulator.retell_url if vendor == "retell" else simulator.elevenlabs_url
            if vendor not in have:
                await services.companies.add_connection(company, vendor, key=simulator.key, base_url=address)
        for connection in await services.companies.connections(company):
            await secrets.set(connection.secret_name, simulator.key)
        yield services
    finally:
        await services.aclose()


def outcomes(report: SyncReport) -> dict[str, Outcome]:
    """Outcome by vendor id."""
    return {row.agent_id: row.outcome for row in report.outcomes}


def by_agent(cards: list[AgentCard]) -> dict[str, AgentCard]:
    return {card.agent_id: card for card in cards}
