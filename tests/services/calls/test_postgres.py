"""The same calls on a real PostgreSQL server, and databases of the version before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from services.calls import store
from services.calls.archive import folded
from services.calls.messages import AgentSpeech, Cost, Ended, Typed
from services.calls.model import CallTarget, EndReason, TransportKind
from services.storage import Database, DatabaseLocation
from services.storage.database import make_engine, prepare_schema
from services.storage.migrations import upgrade
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401
from tests.support.simulator import running_simulator
from tests.support.world import FakeClock, services_on

TARGET = CallTarget(None, "agent_1", "Front desk", "acme", "retell")
STORY = folded(
    (
        (100, AgentSpeech("Guten Tag, 100% da!")),
        (900, Typed("hello")),
        (1400, AgentSpeech("Hi.", event_id=2)),
        (2000, Ended(EndReason.AGENT_ENDED)),
        (2100, Cost(0.21, "USD", True)),
    )
)


async def test_calls_on_postgresql(postgres_url: str, tmp_path: Path) -> None:  # noqa: F811
    where = DatabaseLocation.from_url(postgres_url)
    clock = FakeClock()
    async with (
        running_simulator(agents=2) as simulator,
        services_on(simulator, tmp_path, clock=clock, database=where) as services,
    ):
        database = await services.open_database()
        company_id, audio, transcript = await database.read(lambda s: store.keeping(s, "acme"))
        assert (audio, transcript) == (True, True)
        await services.companies.keep("acme", audio=False)
        assert (await database.read(lambda s: store.keeping(s, "acme")))[1:] == (False, True)
        for name in ("one", "two"):
            row = store.new_record(
                name, TARGET, TransportKind.TEXT, company_id=company_id, now=clock.now(), actor="me"
            )
            await database.write(lambda s, row=row: store.insert(s, row))
        await database.write(
            lambda s: store.finish(
                s, "one", STORY, transcript=True, reason="agent_ended", ended_at=clock.now() + 2000
            )
        )
        found = await services.calls.row("one")
        assert (found.cost, found.currency, found.turns, found.p50_ms) == (0.21, "USD", 2, 500)
        assert [row.id for row in await services.calls.rows(text="100% DA")] == ["one"]
        clock.advance(minutes=3)
        assert await services.calls.recover() == 1
        assert (await services.calls.row("two")).reason is EndReason.INTERRUPTED
        await services.companies.remove("acme")
        assert await services.calls.rows() == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_database_of_the_first_version_is_brought_up_to_date(kind, request, tmp_path):
    if kind == "sqlite":
        where = DatabaseLocation(path=tmp_path / "old.db")
    else:
        where = DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))

    def make_old() -> None:
        engine = make_engine(where)
        try:
            upgrade(engine, "0001")
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO company (name, created_at) VALUES ('acme', 7)"))
        finally:
            engine.dispose()

    await asyncio.to_thread(make_old)
    await asyncio.to_thread(prepare_schema, where)
    database = await Database.open(where)
    try:
        company_id, audio, transcript = await database.read(lambda session: store.keeping(session, "acme"))
    finally:
        await database.aclose()
    assert company_id
    assert (audio, transcript) == (True, True)
