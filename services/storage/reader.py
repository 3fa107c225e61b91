"""Reads for the screens over the plain DB-API: one connection, no SQLAlchemy.

The first frame of the console is drawn from here, so importing this module must stay cheap (SQLModel
costs more than the rest of the start together). Statements are written in the SQL that SQLite and
PostgreSQL share, with `?` as the placeholder.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.errors import ServiceError
from services.storage.failures import explain, on_read_only_disk
from services.storage.location import DatabaseLocation

HEAD = "0004"
"""The schema version this program writes: the newest file of `migrations/versions`."""

KNOWN = ("0001", "0002", "0003", "0004")
"""Every schema version this program can upgrade from, oldest first, ending with HEAD."""


_STAMP = """
SELECT max(a.updated_at), max(a.checked_at), count(a.id),
       (SELECT max(id) FROM connection), (SELECT count(*) FROM connection),
       (SELECT max(id) FROM company), (SELECT count(*) FROM company),
       (SELECT count(*) FROM call_record), (SELECT max(ended_at) FROM call_record)
FROM agent a
"""
"""Differs whenever anything on the agents, calls or companies screen does."""


class SchemaState(StrEnum):
    """What a look at the database's version says."""

    MISSING = "missing"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


class Reader:
    """A read connection, opened at the first question and shared by the threads that ask."""

    def __init__(self, where: DatabaseLocation) -> None:
        self.where = where
        self._lock = threading.Lock()
        self._connection: Any = None
        self._stamp: tuple[Any, ...] | None = None
        self._version: tuple[Any, ...] = ()

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one SELECT. Raises ServiceError; an SQLite file that does not exist reads as no rows."""
        return self._run(lambda connection: _select(connection, sql, parameters, self.where.is_sqlite), [])

    def schema(self) -> SchemaState:
        """How the stored schema compares with this program's."""
        try:
            found = self.rows("SELECT version_num FROM alembic_version")
        except ServiceError as error:
            if error.code == "missing_table":
                return SchemaState.MISSING
            if error.code == "newer_database":
                return SchemaState.NEWER
            raise
        if not found:
            return SchemaState.MISSING
        version = str(found[0][0])
        if version == HEAD:
            return SchemaState.CURRENT
        return SchemaState.OLDER if version in KNOWN else SchemaState.NEWER

    def written_elsewhere(self) -> bool:
        """Whether what the screens show changed since this was last asked, whoever wrote it.

        The first answer is False. Housekeeping (leases, heartbeats) does not count; on SQLite a look
        at the file's version spares the question while nobody writes at all.
        """
        if self.where.is_sqlite:
            found = self._run(lambda connection: connection.execute("PRAGMA data_version").fetchall(), [])
            version = tuple(found[0]) if found else ()
            if version == self._version and self._stamp is not None:
                return False
            self._version = version
        found = self.rows(_STAMP)
        stamp = tuple(found[0]) if found else ()
        changed = self._stamp is not None and stamp != self._stamp
        self._stamp = stamp
        return changed

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self, read: Callable[[Any], list[tuple[Any, ...]]], empty: list[tuple[Any, ...]]) -> list[Any]:
        with self._lock:
            kept = self._connection
            try:
                try:
                    return self._ask(read, empty)
                except Exception:
                    # One that was kept and that the server ended meanwhile says nothing of the server now.
                    if not getattr(kept, "broken", False):
                        raise
                    self._drop()
                    return self._ask(read, empty)
            except ServiceError:
                raise
            except Exception as error:
                text = str(error).lower()
                if "no such table" in text or ("relation" in text and "does not exist" in text):
                    raise ServiceError("The database has no tables yet", code="missing_table") from error
                self._drop()
                raise explain(error, self.where) from error

    def _ask(self, read: Callable[[Any], list[tuple[Any, ...]]], empty: list[tuple[Any, ...]]) -> list[Any]:
        if self._connection is None:
            if self.where.path is not None and not self.where.path.exists():
                return empty
            connection = _connect(self.where)
            _refuse_newer(connection, self.where)
            self._connection = connection
        return read(self._connection)

    def _drop(self) -> None:
        """Forget a connection that failed, so that the next question opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:
                return  # it is given up because it failed; that it cannot even be closed is no news


def newer(where: DatabaseLocation) -> ServiceError:
    """What is said about a database whose version this program does not know."""
    return ServiceError(
        f"{where.label} was written by a newer version of Callboard",
        advice="Update Callboard, or set CALLBOARD_HOME to another folder; nothing was changed",
        code="newer_database",
    )


def _refuse_newer(connection: Any, where: DatabaseLocation) -> None:
    """Raise before anything is read that a newer version may have given another meaning."""
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except Exception as error:
        text = str(error).lower()
        if "no such table" in text or "does not exist" in text:
            return
        connection.close()
        raise
    if any(str(version) not in KNOWN for (version,) in found):
        connection.close()
        raise newer(where)


def _connect(where: DatabaseLocation) -> Any:
    if where.path is not None:
        return _open_file(where, where.path)
    import psycopg

    return psycopg.connect(where.dsn, autocommit=True, connect_timeout=5)


def _open_file(where: DatabaseLocation, path: Path) -> sqlite3.Connection:
    """A connection that only reads. On a read-only disk SQLite has no place for the files beside a WAL
    database; a file that was closed properly can be read without them, since nobody can change it."""

    def connect(place: str, *, uri: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(place, check_same_thread=False, isolation_level=None, timeout=5, uri=uri)
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("PRAGMA query_only=ON")
        return connection

    connection = connect(str(path), uri=False)
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
    except sqlite3.OperationalError as error:
        connection.close()
        journal = path.with_name(path.name + "-wal")
        closed_properly = not journal.exists() or journal.stat().st_size == 0
        if "unable to open" in str(error) and closed_properly and on_read_only_disk(where):
            return connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        raise
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _select(connection: Any, sql: str, parameters: Sequence[object], sqlite: bool) -> list[tuple[Any, ...]]:
    statement = sql if sqlite else sql.replace("?", "%s")
    found: list[tuple[Any, ...]] = connection.execute(statement, tuple(parameters)).fetchall()
    return found
