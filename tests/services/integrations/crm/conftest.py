"""A company whose CRM is in the simulator, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage import Database, DatabaseLocation
from tests.support.integrating import Bench
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401
from tests.support.simulator import RunningSimulator, running_simulator


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2) as running:
        yield running


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(DatabaseLocation(path=tmp_path / "callboard.db"))
    yield opened
    await opened.aclose()


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    made = Bench(database)
    await made.add_company()
    yield made
    await made.aclose()
