"""Writes of the mirror: each function is one agent's change, whole, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, update
from sqlmodel import Session, col, select

from services.agents.bundles import Features, bundle_digest, encode_parts, read_features
from services.agents.drift import classify
from services.agents.plan import Mirrored, Step
from services.agents.sources import Reading
from services.model import ConnectionInfo, Drift, ErrorInfo, Outcome, OutcomeRow, Provider, SyncStatus
from services.storage.journal import record
from services.storage.tables import Agent, Bundle, Snapshot, SyncOutcome

MOST_IDS = 500
"""Row ids in one statement: below every database's limit of parameters."""

READ_SAME = "read, nothing changed"

_SAME = (
    update(Agent)
    .where(
        col(Agent.id) == bindparam("agent"),
        col(Agent.marker) == bindparam("before"),
        col(Agent.gone_at).is_(None),
        col(Agent.remote_bundle_id).is_not(None),
    )
    .values(
        checked_at=bindparam("at"),
        status=SyncStatus.SYNCED.value,
        marker=bindparam("now"),
        error_category=None,
        error_message=None,
        error_advice=None,
    )
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reading made ready to store: costly work that needs no database."""

    content: str
    digest: str
    features: Features
    marker: str


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, in which run, and when (epoch milliseconds)."""

    run_id: str
    connection: ConnectionInfo
    at: int
    actor: str
    cause: str


def prepare(provider: Provider, reading: Reading) -> Prepared:
    """Digest, encode and summarise a reading. Takes long for a large bundle: call it in a thread."""
    return Prepared(
        content=encode_parts(reading.parts),
        digest=bundle_digest(provider, reading.parts),
        features=read_features(provider, reading.parts),
        marker=reading.marker,
    )


def load_mirrored(session: Session, connection_id: int) -> dict[str, Mirrored]:
    """What the mirror knows of one connection's agents, by vendor id."""
    query = (
        select(Agent, Bundle.digest)
        .join(Bundle, col(Bundle.id) == col(Agent.remote_bundle_id), isouter=True)
        .where(Agent.connection_id == connection_id)
    )
    return {
        agent.remote_id: Mirrored(
            id=agent.id or 0,
            remote_id=agent.remote_id,
            name=agent.name,
            status=SyncStatus(agent.status),
            marker=agent.marker,
            checked_at=agent.checked_at,
            gone_at=agent.gone_at,
            digest=digest,
            has_bundle=digest is not None,
        )
        for agent, digest in session.exec(query)
    }


def store_same(session: Session, writer: Writer, step: Step, reading: Reading) -> list[OutcomeRow]:
    """Note the check of an agent that was read just as it was before, byte for byte.

    Nothing is written, and no outcome returned, when another process has stored something else since the
    step was planned. One statement, without the ORM's objects: of a thousand agents few have changed.
    """
    before = step.mirrored
    if before is None:
        return []
    values = {"agent": before.id, "before": before.marker, "now": reading.marker, "at": writer.at}
    if session.connection().execute(_SAME, values).rowcount != 1:
        return []
    return [_row(writer, step, before.id, Outcome.UNCHANGED, READ_SAME)]


def store_reading(session: Session, writer: Writer, step: Step, prepared: Prepared) -> OutcomeRow:
    """Bring one agent's row, bundle and snapshot up to what was read; equal content only notes the check."""
    agent = _agent(session, writer, step)
    created = agent.id is None
    if created:
        session.add(agent)
        session.flush()
    assert agent.id is not None  # noqa: S101  # flushed above
    known = session.get(Bundle, agent.remote_bundle_id) if agent.remote_bundle_id else None
    agent.checked_at = writer.at
    agent.status = SyncStatus.SYNCED.value
    agent.error_category = agent.error_message = agent.error_advice = None
    agent.marker = prepared.marker
    came_back, agent.gone_at = agent.gone_at is not None, None
    if known is not None and known.digest == prepared.digest:
        if came_back:
            agent.updated_at = writer.at
            return _noted(session, writer, step, agent, Outcome.UPDATED, "back at the vendor")
        return _row(writer, step, agent.id, Outcome.UNCHANGED, READ_SAME)
    _move_to(session, writer, agent, prepared, known)
    outcome = Outcome.CREATED if known is None else Outcome.UPDATED
    record(
        session,
        at=writer.at,
        actor=writer.actor,
        action=f"agent.{outcome.value}",
        subject=f"{writer.connection.company}, {agent.name} ({agent.remote_id})",
        cause=f"sync {writer.run_id}, {writer.cause}",
        before={"bundle": known.digest} if known else None,
        after={"bundle": prepared.digest, "drift": agent.drift},
    )
    return _noted(session, writer, step, agent, outcome, agent.release)


def store_failure(session: Session, writer: Writer, step: Step, error: ErrorInfo) -> OutcomeRow:
    """Mark one agent as failed; its last good bundle stays. An unknown agent gets a row without one."""
    agent = _agent(session, writer, step)
    agent.status = SyncStatus.ERROR.value
    agent.error_category, agent.error_message, agent.error_advice = (
        error.category,
        error.message,
        error.advice,
    )
    agent.marker = ""
    agent.updated_at = writer.at
    session.add(agent)
    session.flush()
    return _noted(session, writer, step, agent, Outcome.FAILED, "", error)


def store_gone(session: Session, writer: Writer, step: Step) -> OutcomeRow:
    """Mark one agent as no longer at the vendor; everything stored of it stays."""
    agent = _agent(session, writer, step)
    agent.gone_at = agent.updated_at = writer.at
    agent.status = SyncStatus.SYNCED.value
    agent.error_category = agent.error_message = agent.error_advice = None
    session.add(agent)
    session.flush()
    record(
        session,
        at=writer.at,
        actor=writer.actor,
        action="agent.gone",
        subject=f"{writer.connection.company}, {agent.name} ({agent.remote_id})",
        cause=f"sync {writer.run_id}, {writer.cause}",
    )
    return _noted(session, writer, step, agent, Outcome.GONE, "kept in the mirror")


def store_checked(
    session: Session, verified: Sequence[int], fresh_after_error: Sequence[int], at: int
) -> None:
    """Note the time of the check for agents that the list proved right, and clear a failed listing's mark.

    `fresh_after_error` were not checked, but the listing that had failed works again.
    """
    clear = {
        "status": SyncStatus.SYNCED.value,
        "error_category": None,
        "error_message": None,
        "error_advice": None,
    }
    for ids, values in (
        (verified, {**clear, "checked_at": at}),
        (fresh_after_error, {**clear, "updated_at": at}),
    ):
        for start in range(0, len(ids), MOST_IDS):
            chunk = ids[start : start + MOST_IDS]
            session.execute(update(Agent).where(col(Agent.id).in_(chunk)).values(**values))


def store_connection_failure(
    session: Session, writer: Writer, mirrored: Sequence[Mirrored], error: ErrorInfo
) -> list[OutcomeRow]:
    """The connection could not be listed: its agents show why. Their markers stay, so that the next
    successful list needs no detail reads."""
    rows = []
    ids = [agent.id for agent in mirrored]
    values = {
        "status": SyncStatus.ERROR.value,
        "error_category": error.category,
        "error_message": error.message,
        "error_advice": error.advice,
        "updated_at": writer.at,
    }
    for start in range(0, len(ids), MOST_IDS):
        session.execute(
            update(Agent).where(col(Agent.id).in_(ids[start : start + MOST_IDS])).values(**values)
        )
    for agent in mirrored:
        row = OutcomeRow(
            company=writer.connection.company,
            provider=writer.connection.provider,
            agent_id=agent.remote_id,
            name=agent.name,
            outcome=Outcome.FAILED,
            error=error,
            agent_row=agent.id,
            at=writer.at,
        )
        session.add(_stored(writer, row))
        rows.append(row)
    return rows


def _agent(session: Session, writer: Writer, step: Step) -> Agent:
    """The agent's row; a new, unsaved one when there is none. Another process may have made it meanwhile."""
    found = session.exec(
        select(Agent).where(Agent.connection_id == writer.connection.id, Agent.remote_id == step.remote_id)
    ).first()
    return found or Agent(
        connection_id=writer.connection.id, remote_id=step.remote_id, name=step.name, updated_at=writer.at
    )


def _move_to(
    session: Session, writer: Writer, agent: Agent, prepared: Prepared, known: Bundle | None
) -> None:
    """Point the agent at the bundle that was read. Local edits stay: then only the remote side moves.

    `known` is the remote bundle so far; without one the agent has none at all.
    """
    assert agent.id is not None  # noqa: S101  # saved by the caller
    bundle = None
    if known is not None:
        bundle = session.exec(
            select(Bundle).where(Bundle.agent_id == agent.id, Bundle.digest == prepared.digest)
        ).first()
    if bundle is None:
        bundle = Bundle(
            agent_id=agent.id, digest=prepared.digest, content=prepared.content, created_at=writer.at
        )
        session.add(bundle)
        session.flush()
    assert bundle.id is not None  # noqa: S101  # flushed above
    untouched = agent.local_bundle_id == agent.base_bundle_id
    agent.remote_bundle_id = bundle.id
    if untouched:
        agent.base_bundle_id = agent.local_bundle_id = bundle.id
    agent.drift = (Drift.IN_SYNC if untouched else _drift(session, agent)).value
    features = prepared.features
    agent.name = features.name or agent.name
    agent.release, agent.voice = features.release, features.voice
    agent.language, agent.model = features.language, features.model
    agent.function_count = features.function_count
    agent.changed_at = agent.updated_at = writer.at
    session.add(agent)
    session.add(
        Snapshot(
            agent_id=agent.id,
            bundle_id=bundle.id,
            cause=f"sync {writer.run_id}, {writer.cause}",
            actor=writer.actor,
            at=writer.at,
        )
    )


def _drift(session: Session, agent: Agent) -> Drift:
    ids = (agent.base_bundle_id, agent.local_bundle_id, agent.remote_bundle_id)
    digests = {row.id: row.digest for row in session.exec(select(Bundle).where(col(Bundle.id).in_(ids)))}
    base, local, remote = (digests.get(one) for one in ids)
    return classify(base, local, remote)


def _row(
    writer: Writer,
    step: Step,
    agent_row: int | None,
    outcome: Outcome,
    detail: str,
    error: ErrorInfo | None = None,
) -> OutcomeRow:
    return OutcomeRow(
        company=writer.connection.company,
        provider=writer.connection.provider,
        agent_id=step.remote_id,
        name=step.name,
        outcome=outcome,
        error=error,
        agent_row=agent_row,
        detail=detail,
        at=writer.at,
    )


def _noted(
    session: Session,
    writer: Writer,
    step: Step,
    agent: Agent,
    outcome: Outcome,
    detail: str,
    error: ErrorInfo | None = None,
) -> OutcomeRow:
    """The outcome, stored with its run: only for agents something happened to."""
    row = _row(writer, step, agent.id, outcome, detail, error)
    session.add(_stored(writer, row))
    return row


def _stored(writer: Writer, row: OutcomeRow) -> SyncOutcome:
    return SyncOutcome(
        run_id=writer.run_id,
        agent_id=row.agent_row,
        company=row.company,
        provider=row.provider.value,
        remote_id=row.agent_id,
        name=row.name,
        outcome=row.outcome.value,
        detail=row.detail,
        error_category=row.error.category if row.error else None,
        error_message=row.error.message if row.error else None,
        error_advice=row.error.advice if row.error else None,
        at=writer.at,
    )
