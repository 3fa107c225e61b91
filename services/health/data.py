"""Checks of what the program keeps: the secret store and the database. They leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.blocking import in_daemon_thread
from services.errors import ServiceError, VaultLocked
from services.health.doctor import TIME_LIMIT, Finding, Level
from services.storage import DatabaseLocation, Reader, SchemaState

if TYPE_CHECKING:
    from services.security import SecretStore

LITTLE_SPACE = 100 * 1024 * 1024
NO_SPACE = 5 * 1024 * 1024
_SERVER_SECONDS = 3
_CHECK_SECONDS = 3.0
# SQLite calls back after this many of its instructions; a few milliseconds.
_INSTRUCTIONS = 100_000


class SecretsCheck:
    """Which store is in force, and whether it takes, returns and removes an entry."""

    def __init__(self, open_secrets: Callable[[], Awaitable[SecretStore]], file: Path) -> None:
        self._open = open_secrets
        self._file = file

    async def __call__(self) -> Sequence[Finding]:
        try:
            store = await self._open()
            if store.locked:
                return [self._locked(store), *await self._readable_by_others()]
            await store.probe()
        except VaultLocked as error:
            return [Finding("secrets", Level.WARN, error.message, error.advice)]
        except ServiceError as error:
            return [Finding("secrets", Level.FAIL, error.message, error.advice)]
        where = f" {self._file}" if store.kind == "file" else ""
        working = Finding(
            "secrets", Level.OK, f"{store.label}{where}; an entry was written, read and removed"
        )
        return [working, *await self._readable_by_others()]

    def _locked(self, store: SecretStore) -> Finding:
        if store.kind == "keyring":
            return Finding(
                "secrets", Level.WARN, f"{store.label}, locked", "Unlock it, then run doctor again"
            )
        if not self._file.exists():
            return Finding(
                "secrets",
                Level.OK,
                f"{store.label} {self._file}, made when the first key is stored (no keyring is used here)",
                "Think of a passphrase for it, or set CALLBOARD_PASSPHRASE",
            )
        return Finding(
            "secrets",
            Level.WARN,
            f"{store.label} {self._file}, locked",
            "Type the passphrase when the console asks, or set CALLBOARD_PASSPHRASE",
        )

    async def _readable_by_others(self) -> list[Finding]:
        try:
            mode = stat.S_IMODE((await asyncio.to_thread(self._file.stat)).st_mode)
        except OSError:
            return []
        if os.name == "nt" or not mode & 0o077:
            return []
        return [
            Finding(
                "secrets file",
                Level.WARN,
                f"{self._file} is readable by other users (mode {mode:o})",
                f"chmod 600 {self._file}",
            )
        ]


class DatabaseCheck:
    """Which database, whether it can be read and written, its schema, its disk."""

    def __init__(
        self,
        where: DatabaseLocation,
        *,
        free_space: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._where = where
        self._free_space = free_space

    async def __call__(self) -> Sequence[Finding]:
        work = self._sqlite if self._where.is_sqlite else self._server
        return await in_daemon_thread(work, TIME_LIMIT)

    # -- in a thread ------------------------------------------------------------------------------

    def _sqlite(self) -> list[Finding]:
        assert self._where.path is not None  # noqa: S101 - decided by the caller
        path = self._where.path
        disk = self._disk(path)
        if not path.exists():
            return [self._absent(path), *disk]
        findings = [self._schema()]
        if findings[0].level is Level.FAIL:
            return findings + disk
        findings += [finding for finding in (_writable(path), _whole(path)) if finding is not None]
        return findings + disk

    def _absent(self, path: Path) -> Finding:
        folder = _nearest_folder(path)
        if os.access(folder, os.W_OK | os.X_OK):
            return Finding("database", Level.OK, f"{path}, made at the first start")
        return Finding(
            "database",
            Level.FAIL,
            f"{path} cannot be made: {folder} is not writable",
            "Give yourself write access to that folder, or set CALLBOARD_HOME elsewhere",
        )

    def _schema(self) -> Finding:
        reader = Reader(self._where)
        try:
            state = reader.schema()
            rows = (
                [] if state is SchemaState.MISSING else reader.rows("SELECT version_num FROM alembic_version")
            )
        except ServiceError as error:
            return Finding("database", Level.FAIL, error.message, error.advice)
        finally:
            reader.close()
        version = str(rows[0][0]) if rows else ""
        found = (
            f"{self._where.label}, "
            + {
                SchemaState.MISSING: "empty; its tables are made at the first start",
                SchemaState.OLDER: f"schema {version}; it is upgraded at the next start",
                SchemaState.CURRENT: f"schema {version}",
                SchemaState.NEWER: f"schema {version}, from a newer version of Callboard",
            }[state]
        )
        if state is SchemaState.NEWER:
            advice = "Update Callboard, or use another database; nothing in this one was changed"
            return Finding("database", Level.FAIL, found, advice)
        return Finding("database", Level.OK, found)

    def _disk(self, path: Path) -> list[Finding]:
        free = self._free_space(_nearest_folder(path))
        size = f"{free / 1024**3:.1f} GB free" if free >= 1024**3 else f"{free / 1024**2:.0f} MB free"
        if free >= LITTLE_SPACE:
            return [Finding("disk", Level.OK, size)]
        level = Level.FAIL if free < NO_SPACE else Level.WARN
        return [Finding("disk", level, f"only {size}", "Free some space on the disk of the database")]

    def _server(self) -> list[Finding]:
        import psycopg

        try:
            with psycopg.connect(
                self._where.dsn, connect_timeout=_SERVER_SECONDS, autocommit=True
            ) as connection:
                row = connection.execute(
                    "SELECT current_setting('server_version'), current_setting('transaction_read_only'),"
                    " has_schema_privilege(current_schema(), 'CREATE')"
                ).fetchone()
        except psycopg.Error as error:
            lines = str(error).strip().splitlines() or ["no answer"]
            return [
                Finding(
                    "database",
                    Level.FAIL,
                    f"{self._where.label} cannot be used: {lines[0]}",
                    "Check that the server runs, and the host, user, password and name in database_url",
                )
            ]
        version, read_only, may_create = row or ("unknown", "off", True)
        findings = [self._schema(), Finding("server", Level.OK, f"PostgreSQL {version}")]
        if read_only == "on" or not may_create:
            why = "the server is read-only" if read_only == "on" else "this user may not create tables"
            advice = "Use a writable server and a user with CREATE on the schema"
            findings[1] = Finding("server", Level.FAIL, f"PostgreSQL {version}, {why}", advice)
        return findings


def _nearest_folder(path: Path) -> Path:
    return next((folder for folder in path.parents if folder.is_dir()), Path(path.anchor or "."))


def _writable(path: Path) -> Finding | None:
    """A finding when the file cannot be written; being written by somebody at this moment is fine."""
    advice = "Give yourself write access to the file and its folder, or set CALLBOARD_HOME elsewhere"
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.5)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            return None
        return Finding("database file", Level.FAIL, f"{path} cannot be written: {error}", advice)
    finally:
        connection.close()
    if not os.access(path.parent, os.W_OK):
        return Finding("database file", Level.FAIL, f"{path.parent} is not writable", advice)
    return None


def _whole(path: Path) -> Finding:
    """SQLite's own quick check, given up after a few seconds on a very large file."""
    import time

    connection = sqlite3.connect(path, isolation_level=None, timeout=1)
    until = time.monotonic() + _CHECK_SECONDS
    connection.set_progress_handler(lambda: int(time.monotonic() > until), _INSTRUCTIONS)
    try:
        connection.execute("PRAGMA query_only=ON")
        answers = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            return Finding("integrity", Level.OK, "too large to check in a few seconds")
        answers = [str(error)]
    finally:
        connection.close()
    if answers == ["ok"]:
        return Finding("integrity", Level.OK, "quick check passed")
    return Finding(
        "integrity",
        Level.FAIL,
        f"{path} is damaged: {'; '.join(answers)}",
        "Copy the file away; restore a backup, or start a new one and sync again",
    )
