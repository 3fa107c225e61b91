"""A company with three agents, and an orchestrator over a real database and the simulated models."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from sqlmodel import Session, select

from services.integrations.llm import Orchestrator
from services.storage import DatabaseLocation
from services.storage.tables import Agent, Bundle, Company, Connection
from tests.services.integrations.knowledge.world import World, world_on
from tests.support.simulator import RunningSimulator

AGENTS = (
    ("Billing", "en-US", "You answer questions about invoices, bills and payment."),
    ("Rezeption", "de-DE", "Du nimmst Reservierungen für Zimmer und Tische an."),
    ("Tech support", "en-GB", "You help with broken devices and passwords."),
)


class Routing:
    """The world, its orchestrator, and the simulated endpoint."""

    def __init__(self, world: World, simulator: RunningSimulator, orchestrator: Orchestrator) -> None:
        self.world = world
        self.simulator = simulator
        self.orchestrator = orchestrator

    async def model(
        self, adapter: str = "openai", company: str = "acme", *, name: str = "", **config: str
    ) -> None:
        path = "/llm/anthropic" if adapter == "anthropic" else "/llm/v1"
        prices = {"price_in": "1", "price_out": "10"}
        await self.world.integrations.add(
            adapter,
            name=name,
            company=company,
            base_url=self.simulator.partners_url + path,
            config={"model": "sim-1", **prices, **config},
            secret=self.simulator.key,
        )

    async def say(self, *replies: dict[str, Any]) -> None:
        """What the model answers next."""
        await self._call("POST", "/llm/__script", {"replies": list(replies)})

    async def asked(self) -> list[dict[str, Any]]:
        """The bodies the endpoint was sent."""
        found = await self._call("GET", "/llm/__requests")
        return [each["body"] for each in found["requests"]]

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.request(method, self.simulator.partners_url + path, json=body)
            return answer.raise_for_status().json()


def bundle(prompt: str, *functions: str) -> str:
    """A Retell bundle as the mirror keeps it."""
    engine = {"general_prompt": prompt, "general_tools": [{"name": name} for name in functions]}
    parts = [
        {"kind": "agent", "id": "a", "text": "{}"},
        {"kind": "engine", "id": "l", "text": json.dumps(engine)},
    ]
    return json.dumps(parts)


def add_agents(
    session: Session,
    company: str,
    agents: tuple[tuple[str, str, str], ...] = AGENTS,
    provider: str = "retell",
) -> None:
    owner = session.exec(select(Company).where(Company.name == company)).one()
    connection = Connection(
        company_id=owner.id or 0, provider=provider, base_url="https://x.example", residency="", created_at=1
    )
    session.add(connection)
    session.flush()
    for name, language, prompt in agents:
        agent = Agent(
            connection_id=connection.id or 0,
            remote_id=f"agent_{name.lower().replace(' ', '_')}",
            name=name,
            language=language,
            updated_at=1,
        )
        session.add(agent)
        session.flush()
        row = Bundle(agent_id=agent.id or 0, digest="d", content=bundle(prompt, "end_call"), created_at=1)
        session.add(row)
        session.flush()
        agent.remote_bundle_id = row.id
        session.add(agent)


@contextlib.asynccontextmanager
async def routing_on(
    where: Path | DatabaseLocation, simulator: RunningSimulator, clock: Any = None, **options: Any
) -> AsyncIterator[Routing]:
    async with world_on(where, clock) as world:
        await world.database.write(lambda session: add_agents(session, "acme"))
        sleep = getattr(clock, "sleep", asyncio.sleep)
        orchestrator = Orchestrator(
            world.open,
            world.integrations,
            world.policies,
            world.bus,
            world.clock,
            knowledge=lambda: world.knowledge,
            sleep=sleep,
            **options,
        )
        try:
            yield Routing(world, simulator, orchestrator)
        finally:
            await orchestrator.aclose()
