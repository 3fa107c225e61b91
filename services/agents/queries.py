"""What the screens and the command line read of agents: plain SQL, in a thread, nothing heavy imported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from services.agents.bundles import BundleView, decode_parts, read_facts
from services.agents.progress import DEAD_AFTER_MS
from services.clock import Clock
from services.errors import ServiceError
from services.model import (
    AgentCard,
    Drift,
    ErrorInfo,
    Outcome,
    OutcomeRow,
    Provider,
    RunStatus,
    SyncRunInfo,
    SyncStatus,
)
from services.storage import Reader

T = TypeVar("T")

_CARDS = """
SELECT a.id, c.name, a.connection_id, n.provider, a.remote_id, a.name, a.status, a.drift, a.release,
       a.voice, a.language, a.model, a.function_count, a.checked_at, a.changed_at, a.gone_at,
       a.error_category, a.error_message, a.error_advice
FROM agent a JOIN connection n ON n.id = a.connection_id JOIN company c ON c.id = n.company_id
"""
_RUNS = """
SELECT id, scope, cause, actor, forced, status, started_at, ended_at, counts, requests, message,
       heartbeat_at FROM sync_run
"""
_OUTCOMES = """
SELECT company, provider, remote_id, name, outcome, error_category, error_message, error_advice,
       agent_id, detail, at
FROM sync_outcome
"""


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """One entry of an agent's history of syncs."""

    at: int
    outcome: Outcome
    cause: str
    detail: str
    error: ErrorInfo | None
    run_id: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One entry of the audit log; `detail` is cause, before and after in one line."""

    at: int
    actor: str
    action: str
    subject: str
    detail: str


class AgentService:
    """Reads of the mirror. Works with no network; an unfilled database reads as empty."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    async def cards(self) -> list[AgentCard]:
        """Every agent, by company then name. Raises ServiceError when the database cannot be read."""
        return await self._cards(_CARDS + " ORDER BY lower(c.name), lower(a.name), a.id")

    async def cards_of(self, ids: Sequence[int]) -> list[AgentCard]:
        """The cards of these mirror ids, those that exist."""
        found: list[AgentCard] = []
        for start in range(0, len(ids), 400):
            chunk = ids[start : start + 400]
            marks = ", ".join("?" for _ in chunk)
            found += await self._cards(f"{_CARDS} WHERE a.id IN ({marks})", chunk)
        return found

    async def card(self, agent_id: int) -> AgentCard | None:
        """One agent by mirror id."""
        found = await self.cards_of([agent_id])
        return found[0] if found else None

    async def bundle(self, agent_id: int) -> BundleView | None:
        """The agent's bundle as the vendor last had it; None when it was never read."""
        rows = await self._rows(
            "SELECT b.content, b.digest, b.created_at, n.provider FROM agent a"
            " JOIN bundle b ON b.id = a.remote_bundle_id JOIN connection n ON n.id = a.connection_id"
            " WHERE a.id = ?",
            [agent_id],
        )
        return await asyncio.to_thread(_bundle, rows[0]) if rows else None

    async def history(self, agent_id: int, limit: int = 50) -> list[AgentEvent]:
        """What syncs did about an agent, newest first. Checks that found nothing new leave no entry."""
        rows = await self._rows(
            "SELECT o.at, o.outcome, r.cause, o.detail, o.error_category, o.error_message, o.error_advice,"
            " o.run_id FROM sync_outcome o JOIN sync_run r ON r.id = o.run_id"
            " WHERE o.agent_id = ? ORDER BY o.at DESC, o.id DESC LIMIT ?",
            [agent_id, limit],
        )
        return [
            AgentEvent(at, Outcome(outcome), cause, detail, _error(category, message, advice), run_id)
            for at, outcome, cause, detail, category, message, advice, run_id in rows
        ]

    async def runs(self, limit: int = 50) -> list[SyncRunInfo]:
        """Sync runs, newest first. One whose process died reads as interrupted, recorded or not."""
        now = self._clock.now()
        return [
            _run(row, now)
            for row in await self._rows(_RUNS + " ORDER BY started_at DESC, id LIMIT ?", [limit])
        ]

    async def run_outcomes(self, run_id: str) -> list[OutcomeRow]:
        """What one run did, agent by agent, failures first; unchanged agents are only counted in the run."""
        rows = await self._rows(
            _OUTCOMES
            + " WHERE run_id = ? ORDER BY CASE outcome WHEN 'failed' THEN 0 ELSE 1 END, company, name",
            [run_id],
        )
        return [
            OutcomeRow(
                company=row[0],
                provider=Provider(row[1]),
                agent_id=row[2],
                name=row[3],
                outcome=Outcome(row[4]),
                error=_error(row[5], row[6], row[7]),
                agent_row=row[8],
                detail=row[9],
                at=row[10],
            )
            for row in rows
        ]

    async def audit(self, limit: int = 200) -> list[AuditRow]:
        """The newest audit entries."""
        rows = await self._rows(
            "SELECT at, actor, action, subject, cause, before, after FROM audit"
            " ORDER BY at DESC, id DESC LIMIT ?",
            [limit],
        )
        return [
            AuditRow(at, actor, action, subject, _joined(cause, before, after))
            for at, actor, action, subject, cause, before, after in rows
        ]

    async def company_names(self) -> list[str]:
        """The names of all companies, sorted."""
        return [name for (name,) in await self._rows("SELECT name FROM company ORDER BY lower(name)")]

    async def connection_count(self) -> int:
        """How many connections to vendors there are."""
        rows = await self._rows("SELECT count(*) FROM connection")
        return int(rows[0][0]) if rows else 0

    async def last_sync_at(self) -> int | None:
        """When any connection was last listed successfully: the age of the mirror."""
        rows = await self._rows("SELECT max(last_sync_at) FROM connection")
        return rows[0][0] if rows else None

    async def changed_elsewhere(self) -> bool:
        """Whether somebody wrote the database since the last call; the first call says False."""
        try:
            return await asyncio.to_thread(self._reader.written_elsewhere)
        except ServiceError as error:
            if error.code == "missing_table":
                return False
            raise

    async def _cards(self, sql: str, parameters: Sequence[object] = ()) -> list[AgentCard]:
        # Made in the thread as well: 10,000 of them would hold the loop for several frames.
        return await self._read(lambda: [_card(row) for row in self._reader.rows(sql, parameters)])

    async def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return await self._read(lambda: self._reader.rows(sql, parameters))

    async def _read(self, read: Callable[[], list[T]]) -> list[T]:
        try:
            return await asyncio.to_thread(read)
        except ServiceError as error:
            if error.code == "missing_table":
                return []
            raise


def _card(row: tuple[Any, ...]) -> AgentCard:
    return AgentCard(
        id=row[0],
        company=row[1],
        connection_id=row[2],
        provider=Provider(row[3]),
        agent_id=row[4],
        name=row[5],
        status=SyncStatus(row[6]),
        drift=Drift(row[7]),
        release=row[8],
        voice=row[9],
        language=row[10],
        model=row[11],
        function_count=row[12],
        checked_at=row[13],
        changed_at=row[14],
        gone_at=row[15],
        error=_error(row[16], row[17], row[18]),
    )


def _error(category: str | None, message: str | None, advice: str | None) -> ErrorInfo | None:
    return ErrorInfo(category, message or "", advice or "") if category else None


def _run(row: tuple[Any, ...], now: int) -> SyncRunInfo:
    status = RunStatus(row[5])
    if status is RunStatus.RUNNING and row[11] < now - DEAD_AFTER_MS:
        status = RunStatus.INTERRUPTED
    return SyncRunInfo(
        id=row[0],
        scope=row[1],
        cause=row[2],
        actor=row[3],
        forced=bool(row[4]),
        status=status,
        started_at=row[6],
        ended_at=row[7],
        counts=json.loads(row[8]),
        requests=row[9],
        message=row[10],
    )


def _bundle(row: tuple[Any, ...]) -> BundleView:
    parts = decode_parts(row[0])
    return BundleView(parts, row[1], row[2], read_facts(Provider(row[3]), parts))


def _joined(cause: str, before: str, after: str) -> str:
    parts = [cause, f"before {before}" if before else "", f"after {after}" if after else ""]
    return " · ".join(part for part in parts if part)
