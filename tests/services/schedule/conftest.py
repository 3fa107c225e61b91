from __future__ import annotations

import pytest

from services.storage import DatabaseLocation
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401
from tests.support.scheduling import Bench

NOON = "2026-11-20T12:10:00Z"


@pytest.fixture
async def bench(tmp_path):
    """Schedulers on one SQLite file."""
    made = Bench(DatabaseLocation(path=tmp_path / "callboard.db"), NOON)
    await made.connect()
    yield made
    await made.aclose()


@pytest.fixture(params=["sqlite", "postgresql"])
async def shared(request, tmp_path):
    """Schedulers on one database of either kind."""
    if request.param == "sqlite":
        where = DatabaseLocation(path=tmp_path / "callboard.db")
    else:
        where = DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))
    made = Bench(where, NOON)
    await made.connect()
    yield made
    await made.aclose()
