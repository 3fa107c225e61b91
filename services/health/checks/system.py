"""Checks of what the program itself stands on: database, secrets, schedule, Redis, disk, clock, audio."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.clock import Clock
from services.errors import Category, VaultLocked
from services.health.data import LITTLE_SPACE, NO_SPACE
from services.health.doctor import Finding, Level
from services.health.model import HealthState, Reading
from services.health.reach import Host, Network
from services.resilience import time_left
from services.storage import DatabaseLocation
from services.text import age

if TYPE_CHECKING:
    from sqlmodel import Session

    from services.security import SecretStore
    from services.storage import Database

LARGE_LOG: Final = 512 * 1024 * 1024
"""Bytes of SQLite's write-ahead log from which on something keeps it from being put away."""
LEASE_OVERDUE_MS: Final = 60_000
REDIS_SECONDS: Final = 5.0

_LEVELS: Final = {
    Level.OK: HealthState.UP,
    Level.WARN: HealthState.DEGRADED,
    Level.FAIL: HealthState.DOWN,
}


class DatabaseProbe:
    """A round trip, and what there is to know about the database."""

    def __init__(
        self, open_database: Callable[[], Awaitable[Database]], where: DatabaseLocation, clock: Clock
    ) -> None:
        self._open = open_database
        self._where = where
        self._clock = clock

    async def __call__(self) -> Reading:
        database = await self._open()
        started = self._clock.monotonic()
        found = await database.read(self._ask)
        took_ms = (self._clock.monotonic() - started) * 1000
        facts = [("database", self._where.label), *found]
        state, message, advice = HealthState.UP, "answers", ""
        if self._where.path is not None:
            size, log = await asyncio.to_thread(_sizes, self._where.path)
            facts += [("size", _bytes(size)), ("write-ahead log", _bytes(log))]
            if log > LARGE_LOG:
                state, message = HealthState.DEGRADED, f"Its write-ahead log has grown to {_bytes(log)}"
                advice = "Close programs that keep the file open (backups, browsers of databases)"
        return Reading(state, message, advice, "", took_ms, tuple(facts))

    def _ask(self, session: Session) -> list[tuple[str, str]]:
        from sqlalchemy import text

        if self._where.is_sqlite:
            version = session.execute(text("SELECT sqlite_version()")).scalar()
            return [("version", f"SQLite {version}")]
        row = session.execute(
            text(
                "SELECT current_setting('server_version'), current_setting('max_connections'),"
                " (SELECT count(*) FROM pg_stat_activity), pg_database_size(current_database())"
            )
        ).one()
        pool: Any = session.get_bind().pool  # type: ignore[union-attr]  # a session is bound to its engine
        return [
            ("version", f"PostgreSQL {row[0]}"),
            ("connections", f"{row[2]} of {row[1]}"),
            ("size", _bytes(int(row[3]))),
            ("pool", f"{pool.checkedout()} of {pool.size()} in use"),
        ]


class SecretsProbe:
    """Whether keys can be read. `needed`: whether anything has a key at all."""

    def __init__(
        self,
        open_secrets: Callable[[], Awaitable[SecretStore]],
        clock: Clock,
        needed: Callable[[], Awaitable[bool]],
    ) -> None:
        self._open = open_secrets
        self._clock = clock
        self._needed = needed

    async def __call__(self) -> Reading:
        try:
            store = await self._open()
            if store.locked:
                return await self._locked(store.label)
            started = self._clock.monotonic()
            await store.get("health/probe")
        except VaultLocked as error:
            return Reading(HealthState.DOWN, error.message, error.advice, Category.AUTHENTICATION.value)
        took_ms = (self._clock.monotonic() - started) * 1000
        return Reading(HealthState.UP, f"{store.label}, open", took_ms=took_ms)

    async def _locked(self, label: str) -> Reading:
        if not await self._needed():
            return Reading(HealthState.UP, f"{label}, locked; nothing needs a key yet")
        return Reading(
            HealthState.DOWN,
            f"{label}, locked: nobody can be asked with a key",
            "Type the passphrase when the console asks, or set CALLBOARD_PASSPHRASE",
            Category.AUTHENTICATION.value,
        )


class LeaseProbe:
    """Who runs the schedule."""

    def __init__(self, open_database: Callable[[], Awaitable[Database]], clock: Clock) -> None:
        self._open = open_database
        self._clock = clock

    async def __call__(self) -> Reading:
        from services.schedule.ledger import LEASE
        from services.storage.tables import Lease

        def read(session: Session) -> tuple[str, int, int] | None:
            row = session.get(Lease, LEASE)
            return (row.owner, row.acquired_at, row.expires_at) if row is not None else None

        found, now = await (await self._open()).read(read), self._clock.now()
        if found is None:
            return Reading(
                HealthState.UP,
                "nobody runs the schedule at the moment",
                "Syncs by the clock need an open console or callboard serve",
            )
        owner, since, until = found
        host, _, rest = owner.partition(":")
        who = f"{host}, process {rest.partition(':')[0]}" if rest else host
        facts = (("held by", who), ("for", age(since, now)))
        if now > until + LEASE_OVERDUE_MS:
            return Reading(
                HealthState.DEGRADED,
                f"The process that ran the schedule ended {age(until, now)} ago without a word",
                "Open a console or start callboard serve: it takes over and makes up what was missed",
                Category.TRANSIENT.value,
                facts=facts,
            )
        return Reading(HealthState.UP, f"run by {who}", facts=facts)


class RedisProbe:
    """Whether the shared store of limits and breakers answers; without it each process counts for itself."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock

    async def __call__(self) -> Reading:
        from redis.asyncio import from_url
        from redis.exceptions import RedisError

        started = self._clock.monotonic()
        patience = min(REDIS_SECONDS, 0.8 * time_left())
        client: Any = from_url(self._url, socket_timeout=patience, socket_connect_timeout=patience)
        try:
            info = await client.info()
        except (RedisError, OSError, TimeoutError) as error:
            denied = "auth" in str(error).lower() or "noperm" in str(error).lower()
            return Reading(
                HealthState.DEGRADED,
                "Redis refuses the password or the user"
                if denied
                else "Redis does not answer: limits and breakers are each process's own",
                "Check redis_url, and whether the server runs",
                (Category.AUTHENTICATION if denied else Category.TRANSIENT).value,
            )
        finally:
            await client.aclose()
        took_ms = (self._clock.monotonic() - started) * 1000
        facts = (
            ("version", f"Redis {info.get('redis_version', 'unknown')}"),
            ("clients", str(info.get("connected_clients", ""))),
            ("memory", str(info.get("used_memory_human", ""))),
        )
        return Reading(HealthState.UP, "answers", "", "", took_ms, facts)


class DiskProbe:
    """What is free where the data is."""

    def __init__(
        self,
        folder: Path,
        *,
        free_space: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._folder = folder
        self._free_space = free_space

    async def __call__(self) -> Reading:
        free = await asyncio.to_thread(lambda: self._free_space(_existing(self._folder)))
        facts = (("folder", str(self._folder)), ("free", _bytes(free)))
        if free >= LITTLE_SPACE:
            return Reading(HealthState.UP, f"{_bytes(free)} free", facts=facts)
        return Reading(
            HealthState.DOWN if free < NO_SPACE else HealthState.DEGRADED,
            f"Only {_bytes(free)} free",
            "Free some space on the disk of the data folder; recordings of calls are the largest",
            Category.PERMANENT.value,
            facts=facts,
        )


class ClockProbe:
    """This machine's clock against the hosts of the connections."""

    def __init__(self, hosts: Callable[[], Awaitable[Sequence[Host]]], clock: Clock) -> None:
        self._hosts = hosts
        self._clock = clock

    async def __call__(self) -> Reading:
        hosts = await self._hosts()
        network = Network(hosts, os.environ, self._clock)
        try:
            found = await network.clock()
        finally:
            await network.aclose()
        if found[0].found.startswith("unknown"):
            return Reading(HealthState.PENDING, "no host to compare it with answered")
        return of_finding(found[0])


class AudioProbe:
    """The sound system, asked in a process of its own. A machine without one is no worse for it."""

    def __init__(self, ask: Callable[[], Awaitable[Sequence[Finding]]] | None = None) -> None:
        self._ask = ask

    async def __call__(self) -> Reading:
        from services.health.machine import audio

        found = (await (self._ask or audio)())[0]
        return Reading(HealthState.UP, found.found, found.advice)


class OrchestratorProbe:
    """How the latest decisions of the orchestrator came about."""

    LATEST: Final = 5

    def __init__(self, open_database: Callable[[], Awaitable[Database]], clock: Clock) -> None:
        self._open = open_database
        self._clock = clock

    async def __call__(self) -> Reading:
        from sqlmodel import col, select

        from services.storage.tables import LlmDecision

        since = self._clock.now() - 24 * 3_600_000

        def read(session: Session) -> list[LlmDecision]:
            query = select(LlmDecision).where(col(LlmDecision.at) >= since)
            return list(session.exec(query.order_by(col(LlmDecision.at).desc()).limit(200)))

        rows = await (await self._open()).read(read)
        if not rows:
            return Reading(HealthState.UP, "no decision in the last 24 hours")
        fallen = [row for row in rows if row.source != "model" and row.error_category]
        facts = (
            ("decisions in 24 h", f"{len(rows)}{'+' if len(rows) == 200 else ''}"),
            ("by rules instead of the model", str(len(fallen))),
            *((("the last time because", fallen[0].error_message or ""),) if fallen else ()),
        )
        simulated = all(row.simulated for row in rows)
        latest = rows[: self.LATEST]
        if all(row in fallen for row in latest):
            last = latest[0]
            return Reading(
                HealthState.DEGRADED,
                f"The model failed for the latest {len(latest)}: {last.error_message}",
                last.error_advice or "Test the integration: callboard integration test",
                last.error_category or "",
                facts=facts,
                simulated=simulated,
            )
        return Reading(HealthState.UP, f"{len(rows)} decisions", facts=facts, simulated=simulated)


def of_finding(finding: Finding) -> Reading:
    """A finding of the doctor as a reading."""
    state = _LEVELS[finding.level]
    return Reading(state, finding.found, finding.advice, "" if state is HealthState.UP else "permanent")


def _sizes(path: Path) -> tuple[int, int]:
    log = path.with_name(path.name + "-wal")
    return _size(path), _size(log)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _existing(folder: Path) -> Path:
    return next((each for each in (folder, *folder.parents) if each.is_dir()), Path(folder.anchor or "."))


def _bytes(count: int) -> str:
    if count >= 1024**3:
        return f"{count / 1024**3:.1f} GB"
    return f"{count / 1024**2:.1f} MB" if count >= 1024**2 else f"{count / 1024:.0f} KB"
