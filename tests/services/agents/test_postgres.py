"""The same mirror, sync and companies on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from services.agents import SyncRequest
from services.errors import ServiceError
from services.model import Outcome, RunStatus
from services.storage import Database, DatabaseLocation, Reader, SchemaState
from tests.support.simulator import running_simulator
from tests.support.world import FakeClock, outcomes, services_on

ALL = SyncRequest()


@pytest.fixture
def where(postgres_url: str) -> DatabaseLocation:
    return DatabaseLocation.from_url(postgres_url)


async def test_a_sync_on_postgresql_from_empty_to_removed(where: DatabaseLocation, tmp_path: Path) -> None:
    clock = FakeClock()
    async with (
        running_simulator(agents=13, seed=5) as simulator,
        services_on(simulator, tmp_path, clock=clock, database=where) as services,
    ):
        assert not await services.agents.changed_elsewhere()
        report = await services.sync.run(ALL)
        assert report.status is RunStatus.DONE
        assert report.counts()["created"] == 13
        assert await services.agents.changed_elsewhere()
        clock.advance(minutes=5)
        assert set(outcomes(await services.sync.run(ALL)).values()) == {Outcome.UNCHANGED}
        cards = await services.agents.cards()
        edited, gone, broken = cards[0], cards[1], cards[2]
        await simulator.edit(edited.agent_id, "agent")
        await simulator.remove(gone.agent_id)
        await simulator.fault(f"truncate:{broken.agent_id}")
        clock.advance(minutes=5)
        told = outcomes(await services.sync.run(SyncRequest(force=True)))
        assert told[edited.agent_id] is Outcome.UPDATED
        assert told[gone.agent_id] is Outcome.GONE
        assert told[broken.agent_id] is Outcome.FAILED
        assert (await services.agents.history(edited.id))[0].outcome is Outcome.UPDATED
        assert await services.agents.bundle(edited.id) is not None
        run = (await services.agents.runs())[0]
        assert run.status is RunStatus.PARTIAL
        assert {row.outcome for row in await services.agents.run_outcomes(run.id)} == {
            Outcome.UPDATED,
            Outcome.GONE,
            Outcome.FAILED,
        }
        assert await services.agents.audit()
        assert await services.agents.last_sync_at() == clock.now()
        await services.companies.remove("acme")
        assert await services.agents.cards() == []


async def test_four_openings_at_once_make_one_schema(where: DatabaseLocation) -> None:
    opened = await asyncio.gather(*(Database.open(where) for _ in range(4)))
    for database in opened:
        await database.aclose()
    reader = Reader(where)
    assert await asyncio.to_thread(reader.schema) is SchemaState.CURRENT
    reader.close()


async def test_a_server_that_began_anew_is_no_failure_of_the_next_read(
    where: DatabaseLocation, postgres_url: str
) -> None:
    """A connection that was kept over the server's absence says nothing of the server."""
    await (await Database.open(where)).aclose()
    reader = Reader(where)
    (process,) = reader.rows("SELECT pg_backend_pid()")
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", process)
    (again,) = reader.rows("SELECT pg_backend_pid()")
    assert again != process
    with pytest.raises(ServiceError, match="answered"):
        reader.rows("SELECT nothing FROM company")
    reader.close()


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    where = DatabaseLocation.from_url("postgresql://ann:canary-pw@127.0.0.1:1/calls")
    with pytest.raises(ServiceError) as caught:
        await Database.open(where)
    assert "127.0.0.1:1/calls cannot be reached" in caught.value.message
    assert "canary-pw" not in repr(caught.value) + caught.value.advice
