"""Watching 10,000 agents: how long the event loop is held when what is watched changes, and in between."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlmodel import Session

from services.agents.bundles import BundlePart, encode_parts
from services.container import Services
from services.events import AgentsChanged, HealthChanged
from services.health.model import HealthState
from services.model import Provider
from services.storage.tables import Agent, Bundle
from tests.benchmarks.measuring import Figure, services_of, unmet

AGENTS = 10_000
COMPANIES = 10
FRAME = 16


class Watch:
    """How long each callback of the loop takes, in milliseconds: of the processor, and by the clock.

    On a busy machine the second says how busy it is; the first is what the callback asks for. The garbage
    collector, which comes in the midst of whatever allocates, is told apart.
    """

    def __init__(self) -> None:
        self.on = False
        self.used: list[float] = []
        self.took: list[float] = []
        self.worst: list[tuple[float, str]] = []
        self.collected: list[float] = []
        self._collecting = self._began = 0.0

    def install(self) -> None:
        """Time every callback of every event loop in this process."""
        run = asyncio.Handle._run  # type: ignore[attr-defined]
        watch = self

        def collects(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                watch._began = time.thread_time()
            elif watch.on and threading.current_thread() is threading.main_thread():
                took = (time.thread_time() - watch._began) * 1000
                watch._collecting += took
                watch.collected.append(took)

        gc.callbacks.append(collects)

        def timed(handle: Any) -> None:
            owner = getattr(handle._callback, "__self__", None)
            told = owner.get_name() if isinstance(owner, asyncio.Task) else str(handle._callback)[:120]
            started, used, watch._collecting = time.perf_counter(), time.thread_time(), 0.0
            try:
                run(handle)
            finally:
                if watch.on:
                    watch.used.append((time.thread_time() - used) * 1000 - watch._collecting)
                    watch.took.append((time.perf_counter() - started) * 1000)
                    if watch.used[-1] > FRAME / 2:
                        watch.worst.append((watch.used[-1], told))

        asyncio.Handle._run = timed  # type: ignore[attr-defined]


async def measure(folder: Path) -> list[Figure]:
    home = folder / "home"
    async with services_of(home) as services:
        for number in range(COMPANIES):
            name = f"company{number}"
            await services.companies.add(name)
            # Nothing listens there: whatever is asked fails at once.
            await services.companies.add_connection(
                name, Provider.RETELL, key="key_benchmark", base_url="http://127.0.0.1:9"
            )
        database = await services.open_database()
        now = services.clock.now()
        await database.write(lambda session: _fill(session, now))
        return await _measured(services)


def _fill(session: Session, now: int) -> None:
    """Agents of the companies in turn, each with a bundle of a size that is usual."""
    connections = [row[0] for row in session.execute(text("SELECT id FROM connection ORDER BY id"))]
    prompt = "You answer the telephone of a dental practice. " * 60
    agents, bundles = [], []
    for number in range(AGENTS):
        agents.append(
            {
                "id": number + 1,
                "connection_id": connections[number % len(connections)],
                "remote_id": f"agent_{number}",
                "name": f"Front desk {number}",
                "status": "synced",
                "drift": "in_sync",
                "release": "v1 published",
                "checked_at": now,
                "updated_at": now,
                "remote_bundle_id": number + 1,
            }
        )
        agent = {"agent_id": f"agent_{number}", "voice_id": "11labs-Adrian", "webhook_url": ""}
        engine = {"general_prompt": prompt, "general_tools": [{"type": "end_call"}]}
        parts = [("agent", agent), ("engine", engine)]
        content = encode_parts(BundlePart(kind, "", json.dumps(data)) for kind, data in parts)
        bundles.append(
            {
                "id": number + 1,
                "agent_id": number + 1,
                "digest": f"digest{number}",
                "content": content,
                "created_at": now,
            }
        )
    session.execute(insert(Agent), agents)
    session.execute(insert(Bundle), bundles)


async def _measured(services: Services) -> list[Figure]:
    health = services.health
    watch = Watch()
    watch.install()
    figures: list[Figure] = []

    @asynccontextmanager
    async def phase(name: str) -> AsyncIterator[None]:
        gc.collect()
        await asyncio.sleep(0)
        watch.used, watch.took, watch.worst, watch.collected, watch.on = [], [], [], [0.0], True
        yield
        await asyncio.sleep(0.2)  # what changed is told a moment later
        watch.on = False
        for took, what in sorted(watch.worst, reverse=True)[:4]:
            print(f"{name}: {took:6.1f} ms  {what}", file=sys.stderr)
        figures.append(Figure(f"{name}: loop held, processor time", max(watch.used), "ms", FRAME))
        figures.append(Figure(f"{name}: one garbage collection, longest", max(watch.collected), "ms"))
        figures.append(Figure(f"{name}: loop held, by the clock", max(watch.took), "ms"))

    # As a console does: look at everything again whenever something changed.
    services.bus.subscribe(HealthChanged, lambda _: health.view())
    async with phase("start"):
        await health.start()
    async with phase("first round"):
        await health.check_now(["agent:1"])
    states = health.view().counts()
    assert states[HealthState.UP] >= AGENTS, states
    async with phase("a round that finds the same"):
        await health.check_now(["agent:1"])
    async with phase("idle, three ticks"):
        for _ in range(3):
            await health.tick()
    database = await services.open_database()
    async with phase("one agent has another name"):
        await database.write(lambda session: session.execute(text("UPDATE agent SET name='A' WHERE id=7")))
        services.bus.publish(AgentsChanged((7,)))
        await health.tick()
    async with phase("a thousand agents are gone"):
        await database.write(
            lambda session: session.execute(text("UPDATE agent SET gone_at=1 WHERE id > 9000"))
        )
        services.bus.publish(AgentsChanged())
        await health.tick()
    async with phase("and are back"):
        await database.write(lambda session: session.execute(text("UPDATE agent SET gone_at=NULL")))
        services.bus.publish(AgentsChanged())
        await health.tick()
    async with phase("every agent has trouble"):
        await database.write(lambda session: session.execute(text("UPDATE agent SET drift='conflict'")))
        for _ in range(2):
            await health.check_now(["agent:1"])
    async with phase("and is well again"):
        await database.write(lambda session: session.execute(text("UPDATE agent SET drift='in_sync'")))
        await health.check_now(["agent:1"])
    async with phase("all vendors are down"):
        await health.check_now([spec.id for spec in health.specs() if spec.kind == "provider"], confirm=True)
    async with phase("everything is in maintenance"):
        window = await health.add_maintenance("*", minutes=5, actor="benchmark")
    async with phase("and out of it"):
        await health.end_maintenance(window.id, actor="benchmark")
    async with phase("a rule about one"):
        await health.set_rule("agent:5", interval=90.0, actor="benchmark")
    return figures


@pytest.mark.benchmark
async def test_health_agents(tmp_path):
    assert not unmet(await measure(tmp_path))
