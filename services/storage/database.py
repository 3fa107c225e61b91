"""Transactions: one writer thread with group commit, readers in threads, one code for both databases.

SQLAlchemy is used synchronously, off the event loop. Writes queue up for a single thread; whatever
has gathered while it worked is committed together, each function inside a savepoint of its own, so
that a failing one takes nothing else down and a sync of a thousand agents does not pay a thousand
disk flushes.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection as EngineConnection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from services.errors import ServiceError
from services.storage.failures import explain
from services.storage.location import DatabaseLocation
from services.storage.reader import Reader, SchemaState, newer

T = TypeVar("T")
Job = tuple[Callable[[Session], Any], "Future[Any]"]

MOST_PER_COMMIT = 64
BUSY_SECONDS = 10.0


class Database:
    """One open database. `open` brings the schema up to date first."""

    def __init__(self, where: DatabaseLocation) -> None:
        self.where = where
        self.engine = make_engine(where)
        self._writing = self.engine.execution_options(callboard_write=True)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="callboard-writer", daemon=True)
        self._closed = False
        self._writer.start()

    @classmethod
    async def open(cls, where: DatabaseLocation) -> Database:
        """Create or upgrade the schema where needed and open the database. Raises ServiceError."""
        await asyncio.to_thread(prepare_schema, where)
        return cls(where)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in the writer's next transaction; returns once it is committed.

        A caller that is cancelled stops waiting; the write still happens, whole. Raises ServiceError.
        """
        if self._closed:
            raise ServiceError("The database is closed", advice="start the program again")
        future: Future[T] = Future()
        self._jobs.put((work, future))
        return await asyncio.wrap_future(future)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction of its own in a thread. Raises ServiceError."""

        def run() -> T:
            try:
                with Session(self.engine) as session:
                    return work(session)
            except Exception as error:
                raise explain(error, self.where) from error

        return await asyncio.to_thread(run)

    async def aclose(self) -> None:
        """Finish what is queued and close every connection."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._writer.join)
            await asyncio.to_thread(self.engine.dispose)

    def _write_loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            stop = False
            while len(batch) < MOST_PER_COMMIT:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                    break
                batch.append(following)
            self._commit(batch)
            if stop:
                return

    def _commit(self, batch: list[Job]) -> None:
        results: list[tuple[Future[Any], Any]] = []
        failures: list[tuple[Future[Any], Exception]] = []
        try:
            with Session(self._writing) as session:
                for work, future in batch:
                    # From here on a caller can no longer take the future back; one that already
                    # did is not told, but its write happens like any other.
                    waited_for = future.set_running_or_notify_cancel()
                    try:
                        # One that is alone in its transaction needs no savepoint to be taken back whole.
                        with session.begin_nested() if len(batch) > 1 else session.begin():
                            value = work(session)
                        if waited_for:
                            results.append((future, value))
                    except Exception as error:
                        if waited_for:
                            failures.append((future, explain(error, self.where)))
                session.commit()
        except Exception as error:
            failures = [(future, explain(error, self.where)) for _, future in batch if not future.cancelled()]
            results = []
        for future, value in results:
            future.set_result(value)
        for future, failure in failures:
            future.set_exception(failure)


def make_engine(where: DatabaseLocation) -> Engine:
    """An engine with the settings both databases need."""
    if not where.is_sqlite:
        return create_engine(
            where.sqlalchemy_url,
            pool_size=4,
            max_overflow=2,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5},
        )
    engine = create_engine(
        where.sqlalchemy_url, poolclass=NullPool if str(where.path) == ":memory:" else None
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # pysqlite must not open transactions on its own: savepoints and BEGIN IMMEDIATE are ours.
        connection.isolation_level = None
        for pragma in ("busy_timeout=10000", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        _use_wal(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: EngineConnection) -> None:
        # A write transaction takes its lock at the start: upgrading a read lock later may fail at once.
        writes = connection.get_execution_options().get("callboard_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_wal(connection: Any) -> None:
    """Switch to the write-ahead log, waiting for others that open the same new file.

    The switch is the one statement that SQLite refuses at once instead of waiting for `busy_timeout`.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def prepare_schema(where: DatabaseLocation) -> None:
    """Create the database or bring it to this program's schema version. Blocking; raises ServiceError."""
    reader = Reader(where)
    try:
        state = reader.schema()
    finally:
        reader.close()
    if state is SchemaState.CURRENT:
        return
    if state is SchemaState.NEWER:
        raise newer(where)
    try:
        if where.path is not None:
            where.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        from services.storage.migrations import upgrade

        engine = make_engine(where)
        try:
            upgrade(engine)
        finally:
            engine.dispose()
    except Exception as error:
        raise explain(error, where) from error
