"""The stored side of sync runs: begin, heartbeat, end, resume, and which agents a request means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import update
from sqlmodel import Session, col, select

from services.agents.plan import Mirrored
from services.agents.progress import DEAD_AFTER_MS
from services.agents.request import SyncRequest
from services.errors import UsageError
from services.model import ConnectionInfo, RunStatus, SyncReport
from services.storage.tables import Agent, Connection, SyncRun

__all__ = ["Mirrored", "Resumable", "beat", "begin", "end", "listed", "resumable", "scope_of"]


@dataclass(frozen=True, slots=True)
class Resumable:
    """A run that can be gone on with: its request, and since when its agents count as settled."""

    request: SyncRequest
    settled_since: int


def begin(session: Session, run_id: str, request: SyncRequest, started_at: int, now: int) -> None:
    """Record a run that starts, and find those whose process died."""
    session.execute(
        update(SyncRun)
        .where(
            col(SyncRun.status) == RunStatus.RUNNING.value, col(SyncRun.heartbeat_at) < now - DEAD_AFTER_MS
        )
        .values(status=RunStatus.INTERRUPTED.value, ended_at=SyncRun.heartbeat_at)
    )
    session.add(
        SyncRun(
            id=run_id,
            scope=request.scope,
            request=request.as_json(),
            cause=request.cause,
            actor=request.actor,
            forced=request.force,
            status=RunStatus.RUNNING.value,
            started_at=started_at,
            heartbeat_at=now,
        )
    )


def beat(session: Session, run_id: str, now: int) -> None:
    """A sign of life."""
    session.execute(update(SyncRun).where(col(SyncRun.id) == run_id).values(heartbeat_at=now))


def end(session: Session, report: SyncReport, message: str, now: int) -> None:
    """Record how a run ended."""
    session.execute(
        update(SyncRun)
        .where(col(SyncRun.id) == report.run_id)
        .values(
            status=report.status.value,
            ended_at=now,
            counts=json.dumps(report.counts()),
            requests=report.requests,
            message=message,
        )
    )


def listed(session: Session, connection_id: int, at: int) -> None:
    """A whole connection was listed and worked through at this time."""
    session.execute(update(Connection).where(col(Connection.id) == connection_id).values(last_sync_at=at))


def resumable(session: Session, run_id: str) -> Resumable:
    """The run to go on with: this one, or the newest for `last`. Raises UsageError when there is none.

    A run that is itself a resumption keeps counting from the first start, so that a run stopped twice
    still reads every agent once.
    """
    query = select(SyncRun).order_by(col(SyncRun.started_at).desc())
    if run_id != "last":
        query = query.where(SyncRun.id == run_id)
    row = session.exec(query).first()
    unfinished = (RunStatus.CANCELLED.value, RunStatus.INTERRUPTED.value, RunStatus.RUNNING.value)
    if row is None or row.status not in unfinished:
        raise UsageError(
            "There is no stopped sync to go on with" if row is None else "The last sync was not stopped",
            advice="start a new one: callboard sync",
            code="nothing_to_resume",
        )
    request = SyncRequest.from_json(row.request)
    since = row.started_at
    if request.resume is not None:
        since = min(since, resumable_since(session, request.resume, since))
    return Resumable(replace(request, resume=row.id), since)


def resumable_since(session: Session, run_id: str, default: int) -> int:
    """When the run at the start of a chain of resumptions began."""
    seen: set[str] = set()
    since = default
    while run_id not in seen:
        seen.add(run_id)
        row = session.get(SyncRun, run_id)
        if row is None:
            break
        since = min(since, row.started_at)
        following = SyncRequest.from_json(row.request).resume
        if following is None:
            break
        run_id = following
    return since


def scope_of(
    session: Session, request: SyncRequest, connections: Sequence[ConnectionInfo]
) -> dict[int, frozenset[str]] | None:
    """The vendor ids in scope by connection; None for all agents of the connections.

    A name nobody in the mirror has is taken as a vendor id: the agent may be new. Raises UsageError
    when a part of a name fits several agents.
    """
    ids = {connection.id for connection in connections}
    if request.agent_ids:
        chosen: dict[int, set[str]] = {}
        for row in session.exec(select(Agent).where(col(Agent.id).in_(request.agent_ids))):
            if row.connection_id in ids:
                chosen.setdefault(row.connection_id, set()).add(row.remote_id)
        return {connection_id: frozenset(remote) for connection_id, remote in chosen.items()}
    if request.agent is None:
        return None
    wanted = request.agent.strip().casefold()
    rows = [row for row in session.exec(select(Agent)) if row.connection_id in ids]
    for matches in (
        [row for row in rows if row.remote_id.casefold() == wanted],
        [row for row in rows if row.name.casefold() == wanted],
        [row for row in rows if wanted in row.name.casefold()],
    ):
        if len(matches) > 1:
            names = ", ".join(f"{row.name} ({row.remote_id})" for row in matches[:5])
            raise UsageError(
                f"{request.agent!r} fits {len(matches)} agents: {names}",
                advice="give the vendor's id of the one you mean",
                code="ambiguous_agent",
            )
        if matches:
            return {matches[0].connection_id: frozenset([matches[0].remote_id])}
    return {connection_id: frozenset([request.agent.strip()]) for connection_id in ids}
