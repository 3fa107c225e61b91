"""Calls in the database: the row written before anything is dialled, its life, and its transcript."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from services.calls.archive import entry_json, tool_calls
from services.calls.live import Entry, LiveCall
from services.calls.model import CallRow, CallState, CallTarget, EndReason, TransportKind
from services.errors import ServiceError
from services.storage.journal import record
from services.storage.tables import Agent, CallLine, CallRecord, Company, Connection

COLUMNS = (
    "id, company, provider, agent_id, agent_name, transport, state, started_at, live_at, ended_at, reason,"
    " detail, turns, p50_ms, p95_ms, cost, currency, conversation_id, number, simulated, folder, has_audio,"
    " has_transcript, actor"
)
LIST = f"SELECT {COLUMNS} FROM call_record"  # noqa: S608  # the columns are the constant above


def row_of(values: Sequence[Any]) -> CallRow:
    """A row of `LIST` as a `CallRow`."""
    return CallRow(
        id=values[0],
        company=values[1],
        provider=values[2],
        agent_id=values[3],
        agent_name=values[4],
        transport=TransportKind(values[5]),
        state=CallState(values[6]),
        started_at=values[7],
        live_at=values[8],
        ended_at=values[9],
        reason=EndReason(values[10]) if values[10] else None,
        detail=values[11],
        turns=values[12],
        p50_ms=values[13],
        p95_ms=values[14],
        cost=values[15],
        currency=values[16],
        conversation_id=values[17],
        number=values[18],
        simulated=bool(values[19]),
        folder=values[20],
        has_audio=bool(values[21]),
        has_transcript=bool(values[22]),
        actor=values[23],
    )


def keeping(session: Session, company: str) -> tuple[int | None, bool, bool]:
    """A company's id and whether it keeps audio and transcripts; everything is kept without a company."""
    found = session.exec(select(Company).where(Company.name == company)).first()
    return (found.id, found.keep_audio, found.keep_transcript) if found else (None, True, True)


def insert(session: Session, row: CallRecord) -> None:
    """Write the row of a call that is about to begin; one that dials a number is audited."""
    session.add(row)
    if row.transport == TransportKind.PHONE.value:
        record(
            session,
            at=row.started_at,
            actor=row.actor,
            action="call.dial",
            subject=f"{row.agent_name}, {row.company}",
            after={"number": row.number, "call": row.id},
        )


def new_record(
    call_id: str, target: CallTarget, kind: TransportKind, *, company_id: int | None, now: int, **fields: Any
) -> CallRecord:
    """The row of a call that is about to begin."""
    return CallRecord(
        id=call_id,
        company_id=company_id,
        agent_row=target.agent_row,
        company=target.company,
        provider=target.provider,
        agent_id=target.agent_id,
        agent_name=target.name,
        transport=kind.value,
        state=CallState.PREPARING.value,
        started_at=now,
        heartbeat_at=now,
        **fields,
    )


def change(session: Session, call_id: str, **fields: Any) -> None:
    """Update columns of one call."""
    session.execute(update(CallRecord).where(col(CallRecord.id) == call_id).values(**fields))


def beat(session: Session, call_ids: Iterable[str], now: int) -> None:
    """Say that these calls are still carried by a living program."""
    session.execute(update(CallRecord).where(col(CallRecord.id).in_(list(call_ids))).values(heartbeat_at=now))


def finish(session: Session, call_id: str, live: LiveCall, *, transcript: bool, **fields: Any) -> None:
    """Store how a call ended and, where it is kept, its transcript, tools and latencies."""
    entries = list(live.entries)
    values: dict[str, Any] = {
        "state": CallState.ENDED.value,
        "turns": live.agent_turns,
        "p50_ms": live.latency_percentile(0.5),
        "p95_ms": live.latency_percentile(0.95),
        "latency": json.dumps([[turn.turn, turn.t, turn.ms] for turn in live.latencies]),
        **fields,
    }
    if live.cost is not None:
        values.update(cost=live.cost.amount, currency=live.cost.currency)
    if live.conversation_id:
        values["conversation_id"] = live.conversation_id
    if transcript:
        values["tools"] = json.dumps(tool_calls(entries), ensure_ascii=False)
    change(session, call_id, **values)
    session.execute(delete(CallLine).where(col(CallLine.call_id) == call_id))
    if transcript:
        session.add_all(_line(call_id, entry) for entry in entries)


def _line(call_id: str, entry: Entry) -> CallLine:
    data = entry_json(entry)
    for name in ("t", "who", "text"):
        del data[name]
    return CallLine(
        call_id=call_id,
        t=entry.t,
        who=entry.who.value,
        text=entry.text,
        data=json.dumps(data, ensure_ascii=False) if data else "",
    )


def unfinished(session: Session, before: int) -> dict[str, str]:
    """Calls that never ended and whose program has not been heard of since `before`, each with the key of
    an order to dial whose outcome was never written (empty without one)."""
    rows = session.exec(
        select(CallRecord).where(CallRecord.state != CallState.ENDED.value, CallRecord.heartbeat_at < before)
    )
    return {row.id: "" if row.conversation_id or row.vendor_call_id else row.intent for row in rows}


def take_over(session: Session, call_id: str, before: int, now: int) -> bool:
    """Claim a call whose program was not heard of since `before`; False when another was faster."""
    claimed = session.execute(
        update(CallRecord)
        .where(
            col(CallRecord.id) == call_id,
            col(CallRecord.state) != CallState.ENDED.value,
            col(CallRecord.heartbeat_at) < before,
        )
        .values(heartbeat_at=now)
    )
    return bool(claimed.rowcount)  # type: ignore[attr-defined]  # an UPDATE's result has it


def ended_before(session: Session, before: int) -> list[str]:
    """Calls that ended before a time."""
    return list(
        session.exec(
            select(CallRecord.id).where(
                CallRecord.state == CallState.ENDED.value, CallRecord.started_at < before
            )
        )
    )


def of_company(session: Session, company: str) -> list[str]:
    """Every call of a company."""
    return list(session.exec(select(CallRecord.id).where(CallRecord.company == company)))


def folders(session: Session, call_ids: Sequence[str]) -> dict[str, str]:
    """The recording's folder of each of these calls that exist."""
    rows = session.exec(select(CallRecord).where(col(CallRecord.id).in_(list(call_ids))))
    return {row.id: row.folder for row in rows}


def remove(session: Session, call_ids: Sequence[str]) -> None:
    """Forget calls and their transcripts."""
    session.execute(delete(CallLine).where(col(CallLine.call_id).in_(list(call_ids))))
    session.execute(delete(CallRecord).where(col(CallRecord.id).in_(list(call_ids))))


def target_of(session: Session, agent_row: int) -> tuple[CallTarget, Mapping[str, Any]]:
    """The agent of a mirror id and its connection's columns. Raises ServiceError when it is gone."""
    found = session.exec(
        select(Agent, Connection, Company.name)
        .join(Connection, col(Connection.id) == Agent.connection_id)
        .join(Company, col(Company.id) == Connection.company_id)
        .where(Agent.id == agent_row)
    ).first()
    if found is None:
        raise ServiceError(
            "That agent is no longer in the mirror", advice="Sync, and choose it again", code="no_agent"
        )
    agent, connection, company = found
    target = CallTarget(agent_row, agent.remote_id, agent.name, company, connection.provider, connection.id)
    return target, {"base_url": connection.base_url, "residency": connection.residency}
