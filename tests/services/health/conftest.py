from __future__ import annotations

import pytest

from services.storage import DatabaseLocation
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401
from tests.support.watching import Watch


@pytest.fixture
async def watch(tmp_path):
    """Health services on one SQLite file."""
    made = Watch(DatabaseLocation(path=tmp_path / "callboard.db"))
    yield made
    await made.aclose()


@pytest.fixture(params=["sqlite", "postgresql"])
async def shared(request, tmp_path):
    """Health services on one database of either kind."""
    if request.param == "sqlite":
        where = DatabaseLocation(path=tmp_path / "callboard.db")
    else:
        where = DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))
    made = Watch(where)
    yield made
    await made.aclose()
