"""A company that is removed takes its maintenance windows and the rules of its checks along."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlmodel import select

from services.health.leaving import forget_company
from services.storage import Database, DatabaseLocation
from services.storage.tables import (
    Agent,
    Audit,
    Company,
    Connection,
    HealthRule,
    Integration,
    MaintenanceWindow,
)
from tests.support.world import FakeClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(DatabaseLocation(path=tmp_path / "callboard.db"))
    yield opened
    await opened.aclose()


async def test_what_is_the_companys_goes_and_all_else_stays(database: Database) -> None:
    scopes = (
        "company:acme", "company:Other", "*", "agent", "agent:1", "agent:2", "provider:Acme/retell",
        "provider:Other/retell", "integration:1", "integration:2",
    )  # fmt: skip
    ids = [scope for scope in scopes if "/" in scope or scope[-1].isdigit()]

    def prepare(session) -> None:  # type: ignore[no-untyped-def]
        for number, name in ((1, "Acme"), (2, "Other")):
            session.add(Company(id=number, name=name, created_at=0))
            session.flush()
            session.add(
                Connection(
                    id=number, company_id=number, provider="retell", residency="us", base_url="", created_at=0
                )
            )
            session.flush()
            session.add(
                Agent(
                    id=number,
                    connection_id=number,
                    remote_id=f"a{number}",
                    name="A",
                    created_at=0,
                    updated_at=0,
                )
            )
            session.add(
                Integration(
                    id=number, company_id=number, kind="crm", adapter="hubspot", name="CRM", created_at=0
                )
            )
        for scope in scopes:
            session.add(
                MaintenanceWindow(scope=scope, actor="ann", created_at=0, cron="0 3 * * *", minutes=5)
            )
        for check in ids:
            session.add(HealthRule(check_id=check, failure_threshold=3))

    await database.write(prepare)

    async def open_database() -> Database:
        return database

    assert await forget_company(open_database, FakeClock(), "ACME", "ann") == (4, 3)
    assert await forget_company(open_database, FakeClock(), "nobody", "ann") == (0, 0)
    left = await database.read(lambda session: {row.scope for row in session.exec(select(MaintenanceWindow))})
    assert left == {
        "company:Other", "*", "agent", "agent:2", "provider:Other/retell", "integration:2",
    }  # fmt: skip
    rules = await database.read(lambda session: {row.check_id for row in session.exec(select(HealthRule))})
    assert rules == {"agent:2", "provider:Other/retell", "integration:2"}
    (line,) = await database.read(lambda session: list(session.exec(select(Audit))))
    assert (line.action, line.subject, line.actor) == ("health.forget", "Acme", "ann")
