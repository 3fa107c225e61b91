"""The writer commits whole units, the reader needs no SQLAlchemy, and every failure is said in words."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.event import listen
from sqlmodel import Session, select

from services.errors import ServiceError, UsageError
from services.storage import Database, DatabaseLocation, Reader, SchemaState
from services.storage.database import make_engine
from services.storage.migrations import upgrade
from services.storage.reader import HEAD
from services.storage.tables import Company, Lease


@pytest.fixture
def where(tmp_path: Path) -> DatabaseLocation:
    return DatabaseLocation(path=tmp_path / "data" / "callboard.db")


def company(name: str) -> Company:
    return Company(name=name, created_at=1)


def names(session: Session) -> list[str]:
    return [row.name for row in session.exec(select(Company).order_by(Company.name))]


async def test_a_new_database_is_made_with_its_folder_and_version(where: DatabaseLocation) -> None:
    reader = Reader(where)
    assert reader.schema() is SchemaState.MISSING
    database = await Database.open(where)
    assert reader.schema() is SchemaState.CURRENT
    assert reader.rows("PRAGMA journal_mode") == [("wal",)]
    reader.close()
    await database.aclose()


async def test_one_failing_write_takes_no_other_down(where: DatabaseLocation) -> None:
    database = await Database.open(where)

    def insert(name: str, fail: bool) -> object:
        def work(session: Session) -> str:
            session.add(company(name))
            session.flush()
            if fail:
                raise UsageError("on purpose")
            return name

        return database.write(work)

    jobs = [insert(f"c{number:02}", fail=number % 3 == 0) for number in range(30)]
    results = await asyncio.gather(*jobs, return_exceptions=True)  # type: ignore[call-overload]
    stored = await database.read(names)
    assert stored == [f"c{number:02}" for number in range(30) if number % 3]
    assert all(isinstance(result, UsageError) == (number % 3 == 0) for number, result in enumerate(results))
    await database.aclose()


async def test_a_failing_write_that_is_alone_leaves_nothing(where: DatabaseLocation) -> None:
    database = await Database.open(where)

    def work(session: Session) -> None:
        session.add(company("half"))
        session.flush()
        raise UsageError("on purpose")

    with pytest.raises(UsageError):
        await database.write(work)
    assert await database.read(names) == []
    await database.write(lambda session: session.add(company("whole")))
    assert await database.read(names) == ["whole"]
    await database.aclose()


async def test_a_cancelled_caller_does_not_tear_the_write(where: DatabaseLocation) -> None:
    database = await Database.open(where)
    task = asyncio.create_task(database.write(lambda session: session.add(company("kept"))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.aclose()
    database = await Database.open(where)
    assert await database.read(names) == ["kept"]
    await database.aclose()


async def test_closing_finishes_what_was_queued(where: DatabaseLocation) -> None:
    database = await Database.open(where)
    writes = [
        asyncio.create_task(database.write(lambda session, n=n: session.add(company(f"{n:03}"))))
        for n in range(200)
    ]
    await asyncio.sleep(0)
    await database.aclose()
    await asyncio.gather(*writes)
    assert len(Reader(where).rows("SELECT id FROM company")) == 200
    with pytest.raises(ServiceError, match="closed"):
        await database.write(lambda session: None)


async def test_two_processes_may_create_it_at_once(where: DatabaseLocation) -> None:
    script = (
        "import asyncio, sys; from services.storage import *; w = DatabaseLocation.from_url(sys.argv[1]);"
        "asyncio.run(Database.open(w)); print('ok')"
    )
    url = f"sqlite:///{where.path}"
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    outputs = await asyncio.gather(*(child.communicate() for child in children))
    assert [out for out, _ in outputs] == [b"ok\n"] * 4


def test_all_versions_are_one_transaction(where: DatabaseLocation) -> None:
    """Between two of them another process would take the lock, and both would make the next one."""
    assert where.path is not None
    where.path.parent.mkdir()
    engine = make_engine(where)
    seen: list[str] = []
    for name in ("begin", "commit", "rollback"):
        listen(engine, name, lambda _, name=name: seen.append(name))
    upgrade(engine)
    engine.dispose()
    assert seen == ["begin", "commit"]


async def test_opening_waits_while_another_program_makes_the_file(where: DatabaseLocation) -> None:
    """SQLite refuses the switch to the write-ahead log at once; opening must wait for it all the same."""
    assert where.path is not None
    where.path.parent.mkdir()
    maker = sqlite3.connect(where.path, isolation_level=None)
    maker.execute("BEGIN IMMEDIATE")
    maker.execute("CREATE TABLE somebody_elses (x)")
    opening = asyncio.create_task(Database.open(where))
    done, _ = await asyncio.wait({opening}, timeout=0.3)
    assert not done
    maker.execute("COMMIT")
    maker.close()
    database = await opening
    assert await database.read(names) == []
    await database.aclose()


async def test_a_newer_database_is_left_alone(where: DatabaseLocation) -> None:
    database = await Database.open(where)
    await database.aclose()
    assert where.path is not None
    with sqlite3.connect(where.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = where.path.read_bytes()
    with pytest.raises(ServiceError, match="newer version") as caught:
        await Database.open(where)
    assert "update" in caught.value.advice.lower()
    assert where.path.read_bytes() == before


async def test_a_file_that_is_no_database_is_named_and_kept(where: DatabaseLocation) -> None:
    assert where.path is not None
    where.path.parent.mkdir()
    where.path.write_bytes(b"this is not a database, but somebody may want it" * 100)
    before = where.path.read_bytes()
    with pytest.raises(ServiceError, match="damaged or is not a database") as caught:
        await Database.open(where)
    assert "Move the file away" in caught.value.advice
    assert where.path.read_bytes() == before


def test_the_reader_notices_writes_of_others_only(where: DatabaseLocation) -> None:
    asyncio.run(_create(where))
    assert where.path is not None
    reader = Reader(where)
    assert not reader.written_elsewhere()
    assert not reader.written_elsewhere()
    with sqlite3.connect(where.path) as other:
        other.execute("INSERT INTO company (name, created_at) VALUES ('acme', 1)")
    assert reader.written_elsewhere()
    assert not reader.written_elsewhere()
    with sqlite3.connect(where.path) as other:
        other.execute("INSERT INTO lease VALUES ('scheduler', 'me', 1, 2)")
    assert not reader.written_elsewhere()
    reader.close()


async def _create(where: DatabaseLocation) -> None:
    database = await Database.open(where)
    await database.aclose()


def test_the_reader_cannot_write(where: DatabaseLocation) -> None:
    asyncio.run(_create(where))
    reader = Reader(where)
    with pytest.raises(ServiceError):
        reader.rows("DELETE FROM company")
    reader.close()


def test_the_head_is_the_newest_migration() -> None:
    folder = Path(__file__).parents[3] / "services" / "storage" / "migrations" / "versions"
    newest = max(path.name.split("_")[0] for path in folder.glob("[0-9]*.py"))
    assert newest == HEAD


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("postgresql://ann:canary@db.test:5433/calls?sslmode=require", "postgresql://db.test:5433/calls"),
        ("postgresql+psycopg://ann:canary@db.test/calls", "postgresql://db.test/calls"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, label: str) -> None:
    where = DatabaseLocation.from_url(url)
    assert where.label == label
    assert "canary" not in repr(where)


@pytest.mark.parametrize("url", ["mysql://x/y", "callboard.db", "", "sqlite://"])
def test_an_unknown_address_says_what_is_allowed(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        DatabaseLocation.from_url(url)
    assert "sqlite:////" in caught.value.advice


def test_reading_imports_no_sqlalchemy() -> None:
    code = (
        "import sys; import services.storage, services.agents; "
        "print(sorted({'sqlalchemy', 'sqlmodel', 'pydantic', 'httpx', 'alembic'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_leases_and_text_survive_any_characters(where: DatabaseLocation) -> None:
    database = await Database.open(where)
    owner = "ü\u202e🗣 \\' \" %s ?"
    await database.write(lambda s: s.add(Lease(name="n", owner=owner, acquired_at=1, expires_at=2)))
    assert await database.read(lambda s: s.exec(select(Lease.owner)).one()) == owner
    await database.aclose()
