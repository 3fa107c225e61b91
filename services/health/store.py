"""The database's side of health: how checks stand, incidents, rules, maintenance, channels, the lease.

Plain functions on a session, each meant for one transaction. Whoever holds the lease `health` probes and
writes; the others read. An incident is told by whoever's conditional UPDATE finds it untold.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Final
from typing import cast as typed

from sqlalchemy import CursorResult, delete, func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from services.errors import UsageError
from services.health import requests
from services.health.board import Standing
from services.health.history import Probe, beats_of, newest_row, tallies, write_probes
from services.health.incidents import RANK, Trouble
from services.health.model import (
    Beat,
    Channel,
    CheckKind,
    HealthState,
    Incident,
    Reading,
    Rule,
    Window,
)
from services.health.tally import DAY_MS, Tally
from services.health.vitals import Vitals, restored
from services.schedule.ledger import release_lease, take_lease
from services.storage.tables import (
    AlertChannel,
    Company,
    HealthIncident,
    HealthRule,
    Lease,
    MaintenanceWindow,
)
from services.storage.tables import HealthState as StateRow
from services.text import clean_line

LEASE: Final = "health"
INCIDENTS_KEPT_MS: Final = 365 * DAY_MS

_KEPT: Final = (
    "since", "asked_at", "checked_at", "next_at", "failures", "troubles", "trouble_at", "recovered_at",
    "maintenance_until", "last_error", "last_error_at", "last_error_advice",
)  # fmt: skip


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    probes: list[Probe] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    answers: dict[int, requests.Done] = field(default_factory=dict)
    """What became of requests, by id."""


@dataclass(slots=True)
class Stored:
    """Everything a process knows when it begins."""

    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    newest_state: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    beats: dict[str, list[Beat]] = field(default_factory=dict)
    newest_probe: int = 0


# -- the lease --------------------------------------------------------------------------------------


def renew(session: Session, owner: str, now: int, lasts: int) -> tuple[bool, str]:
    """Renew or take the lease (`lasts` in ms); says whether we hold it, and who does."""
    held = take_lease(session, owner, now, lasts, LEASE)
    lease = session.get(Lease, LEASE, populate_existing=True)
    return held, lease.owner if lease is not None else ""


def holder(session: Session, now: int) -> str:
    """Who holds it; empty when nobody does."""
    lease = session.get(Lease, LEASE, populate_existing=True)
    return lease.owner if lease is not None and lease.expires_at > now else ""


def release(session: Session, owner: str) -> None:
    """Give it back."""
    release_lease(session, owner, LEASE)


# -- how checks stand -------------------------------------------------------------------------------


def saved(standing: Standing) -> str:
    """A standing as it is stored."""
    reading = standing.reading
    data: dict[str, Any] = {name: getattr(standing, name) for name in _KEPT}
    data["state"] = standing.state.value
    if reading is not None:
        data["reading"] = {
            "state": reading.state.value,
            "message": reading.message,
            "advice": reading.advice,
            "category": reading.category,
            "took_ms": reading.took_ms,
            "facts": reading.facts,
            "simulated": reading.simulated,
        }
    if standing.vitals is not None:
        data["policy"] = standing.vitals.stored()
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def restore(standing: Standing, data: Mapping[str, Any]) -> None:
    """Let a standing be as it was stored; what cannot be read leaves it as it is."""
    try:
        state = HealthState(data["state"])
        found = data.get("reading")
        reading = None
        if found is not None:
            facts = tuple((str(label), str(value)) for label, value in found["facts"])
            reading = Reading(**{**found, "state": HealthState(found["state"]), "facts": facts})
        values = {name: data[name] for name in _KEPT}
        vitals = _vitals(data)
    except (KeyError, TypeError, ValueError):
        return  # written by a version that kept other things: the next probe tells
    standing.state, standing.reading, standing.vitals = state, reading, vitals
    for name, value in values.items():
        setattr(standing, name, value)


def _vitals(data: Mapping[str, Any]) -> Vitals | None:
    found = data.get("policy")
    return None if found is None else restored(found)


def load(session: Session, now: int, check_ids: Sequence[str], most_beats: int) -> Stored:
    """What is stored of these checks. Takes long where there is much: never on the event loop."""
    states, newest = states_since(session, 0)
    return Stored(
        states=states,
        newest_state=newest,
        tallies=tallies(session, now),
        beats=beats_of(session, check_ids, most_beats),
        newest_probe=newest_row(session),
    )


def states_since(session: Session, since: int) -> tuple[dict[str, dict[str, Any]], int]:
    """The standings that were written at this time or later, by check; and when the latest of all was."""
    rows = session.execute(
        select(StateRow.check_id, StateRow.data, StateRow.updated_at).where(col(StateRow.updated_at) >= since)
    )
    found, newest = {}, since
    for check_id, data, updated_at in rows:
        newest = max(newest, updated_at)
        value = json.loads(data)
        if isinstance(value, dict):
            found[check_id] = value
    return found, newest


def write_states(session: Session, states: Mapping[str, str], now: int) -> None:
    """Store standings by check, whether they were stored before or not."""
    if not states:
        return
    rows = [{"check_id": key, "updated_at": now, "data": data} for key, data in states.items()]
    insert: Any
    if session.get_bind().dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert
    statement = insert(StateRow)
    changed = {"updated_at": statement.excluded.updated_at, "data": statement.excluded.data}
    session.execute(statement.on_conflict_do_update(index_elements=["check_id"], set_=changed), rows)


def forget_states(session: Session, check_ids: Iterable[str]) -> None:
    """These are no longer watched."""
    for check_id in check_ids:
        row = session.get(StateRow, check_id)
        if row is not None:
            session.delete(row)


def write(session: Session, batch: Batch, now: int) -> None:
    """Store a batch. Gives new incidents their id. Only in a transaction in which the lease is held."""
    write_probes(session, batch.probes)
    write_states(session, batch.states, now)
    for trouble in batch.troubles:
        write_trouble(session, trouble)
    requests.write_answers(session, batch.answers, now)


# -- incidents --------------------------------------------------------------------------------------


def write_trouble(session: Session, trouble: Trouble) -> None:
    """Store an incident as it is now; one that another process opened for the same check is taken over."""
    stored = trouble.content()
    values: dict[str, Any] = {
        "state": trouble.state.value,
        "cause": trouble.cause,
        "message": trouble.message,
        "advice": trouble.advice,
        "ended_at": trouble.ended_at,
    }
    if trouble.id is None:
        row = HealthIncident(
            check_id=trouble.check_id,
            name=trouble.name,
            kind=trouble.kind.value,
            started_at=trouble.started_at,
            **values,
        )
        try:
            with session.begin_nested():
                session.add(row)
            trouble.id = row.id
        except IntegrityError:
            trouble.id = _open_of(session, trouble.check_id)
    if trouble.id is not None:
        session.execute(update(HealthIncident).where(col(HealthIncident.id) == trouble.id).values(**values))
    trouble.stored = stored


def _open_of(session: Session, check_id: str) -> int | None:
    query = select(HealthIncident.id).where(
        HealthIncident.check_id == check_id, col(HealthIncident.ended_at).is_(None)
    )
    return session.execute(query).scalar()


def claim(session: Session, trouble: Trouble, state: HealthState, now: int) -> bool:
    """The right to tell of an incident's state (`UP`: of its end); of all who ask exactly one gets it."""
    row = col(HealthIncident.id) == trouble.id
    if state is HealthState.UP:
        statement = update(HealthIncident).where(
            row,
            col(HealthIncident.alerted_state) != "",
            col(HealthIncident.over_alerted_at).is_(None),
        )
        told: dict[str, Any] = {"over_alerted_at": now}
    else:
        milder = [each for each, rank in RANK.items() if rank < RANK[state.value]]
        statement = update(HealthIncident).where(row, col(HealthIncident.alerted_state).in_(milder))
        first = func.coalesce(col(HealthIncident.alerted_at), now)
        told = {"alerted_state": state.value, "alerted_at": first}
    result = typed("CursorResult[Any]", session.execute(statement.values(**told)))
    return result.rowcount == 1


def open_troubles(session: Session) -> tuple[list[Trouble], dict[str, int]]:
    """The open incidents, and when each check was last told of."""
    rows = session.exec(select(HealthIncident).where(col(HealthIncident.ended_at).is_(None)))
    troubles = [_trouble(row) for row in rows]
    told = session.execute(
        select(HealthIncident.check_id, func.max(HealthIncident.alerted_at))
        .where(col(HealthIncident.alerted_at).is_not(None))
        .group_by(HealthIncident.check_id)
    )
    return troubles, {check_id: int(at) for check_id, at in told}


def untold_ends(session: Session, since: int) -> list[Trouble]:
    """The incidents that ended since then, were told of, and whose end nobody was told of."""
    query = select(HealthIncident).where(
        col(HealthIncident.ended_at) >= since,
        col(HealthIncident.alerted_state) != "",
        col(HealthIncident.over_alerted_at).is_(None),
    )
    return [_trouble(row) for row in session.exec(query.order_by(col(HealthIncident.id)))]


def _trouble(row: HealthIncident) -> Trouble:
    return Trouble(
        row.check_id,
        row.name,
        CheckKind(row.kind),
        HealthState(row.state),
        row.started_at,
        row.cause,
        row.message,
        row.advice,
        row.ended_at,
        row.alerted_at,
        row.alerted_state,
        row.id,
    )


def incidents_by_id(session: Session, ids: Collection[int]) -> dict[int, Incident]:
    """These incidents, as far as they exist."""
    rows = session.exec(select(HealthIncident).where(col(HealthIncident.id).in_(list(ids))))
    return {row.id or 0: _incident(row) for row in rows}


def incidents(session: Session, limit: int, check_id: str | None, now: int, quiet: float) -> list[Incident]:
    """The newest incidents. `quiet`: seconds for which nobody is told again of what was told of."""
    quiet_ms = round(quiet * 1000)
    query = select(HealthIncident)
    if check_id is not None:
        query = query.where(HealthIncident.check_id == check_id)
    order = (col(HealthIncident.started_at).desc(), col(HealthIncident.id).desc())
    found = [_incident(row) for row in session.exec(query.order_by(*order).limit(limit))]
    told = _told_of(session, [each for each in found if each.alerted_at is None and not each.cause], quiet_ms)
    return [replace(each, repeats=_repeated(each, told[each.check_id], now, quiet_ms)) for each in found]


def _told_of(session: Session, untold: Sequence[Incident], quiet_ms: int) -> Mapping[str, list[int]]:
    """When somebody was told of the checks of these, as far back as that may have held them back."""
    told: dict[str, list[int]] = defaultdict(list)
    if untold:
        first = min(each.started_at for each in untold) - quiet_ms
        query = select(HealthIncident.check_id, HealthIncident.alerted_at).where(
            col(HealthIncident.check_id).in_({each.check_id for each in untold}),
            col(HealthIncident.alerted_at) >= first,
        )
        for check_id, at in session.execute(query):
            told[check_id].append(at)
    return told


def _repeated(incident: Incident, told: Iterable[int], now: int, quiet_ms: int) -> int | None:
    """The alert for whose sake nobody was told of an incident for as long as it lasted."""
    if incident.alerted_at is not None or incident.cause:
        return None
    end = now if incident.ended_at is None else incident.ended_at
    return max((at for at in told if at <= end < at + quiet_ms), default=None)


def told_since(session: Session, since: int) -> list[tuple[Incident, bool]]:
    """The incidents told of at this time or later, and whether it was their end that was told."""
    query = select(HealthIncident).where(
        (col(HealthIncident.alerted_at) >= since) | (col(HealthIncident.over_alerted_at) >= since)
    )
    found = []
    for row in session.exec(query.order_by(col(HealthIncident.id))):
        if row.alerted_at is not None and row.alerted_at >= since:
            found.append((_incident(row), False))
        if row.over_alerted_at is not None and row.over_alerted_at >= since:
            found.append((_incident(row), True))
    return found


def newest_told(session: Session) -> int:
    """When anybody was told of anything last; 0 for never."""
    columns = (func.max(HealthIncident.alerted_at), func.max(HealthIncident.over_alerted_at))
    return max(int(found or 0) for found in session.execute(select(*columns)).one())


def _incident(row: HealthIncident) -> Incident:
    return Incident(
        id=row.id or 0,
        check_id=row.check_id,
        name=row.name,
        kind=CheckKind(row.kind),
        state=HealthState(row.state),
        cause=row.cause,
        message=row.message,
        advice=row.advice,
        started_at=row.started_at,
        ended_at=row.ended_at,
        alerted_at=row.alerted_at,
        over_alerted_at=row.over_alerted_at,
    )


# -- rules, windows, channels -----------------------------------------------------------------------


def rules(session: Session) -> dict[str, Rule]:
    """What operators changed, by check."""
    return {row.check_id: rule(row) for row in session.exec(select(HealthRule))}


def rule(row: HealthRule) -> Rule:
    return Rule(row.check_id, row.enabled, row.interval_seconds, row.failure_threshold, row.slow_ms)


def windows(session: Session) -> list[Window]:
    """Every maintenance window, oldest first."""
    rows = session.exec(select(MaintenanceWindow).order_by(col(MaintenanceWindow.id)))
    return [window(row) for row in rows]


def window(row: MaintenanceWindow) -> Window:
    return Window(
        id=row.id or 0,
        scope=row.scope,
        reason=row.reason,
        timezone=row.timezone,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        cron=row.cron,
        minutes=row.minutes,
        actor=row.actor,
    )


def channels(session: Session) -> list[Channel]:
    """Every alert channel, oldest first."""
    names = {row.id: row.name for row in session.exec(select(Company))}
    rows = session.exec(select(AlertChannel).order_by(col(AlertChannel.id)))
    return [channel(row, names.get(row.company_id, "")) for row in rows]


def channel(row: AlertChannel, company: str) -> Channel:
    return Channel(
        id=row.id or 0,
        kind=row.kind,
        target=row.target,
        company=company,
        config=json.loads(row.config),
        least=HealthState(row.least),
        enabled=row.enabled,
        sent_at=row.sent_at,
        last_error=row.last_error,
    )


def note_delivery(session: Session, channel_id: int, at: int, error: str) -> None:
    """Keep how the latest alert over a channel went."""
    values: dict[str, Any] = {"last_error": error} if error else {"last_error": "", "sent_at": at}
    session.execute(update(AlertChannel).where(col(AlertChannel.id) == channel_id).values(**values))


def forget_old(session: Session, now: int) -> None:
    """Ended incidents of more than a year ago, and windows that ended 90 days ago."""
    session.execute(delete(HealthIncident).where(col(HealthIncident.ended_at) < now - INCIDENTS_KEPT_MS))
    session.execute(delete(MaintenanceWindow).where(col(MaintenanceWindow.ends_at) < now - 90 * DAY_MS))


def company(session: Session, name: str) -> Company:
    """The company of this name. Raises UsageError with the nearest one."""
    rows = session.exec(select(Company)).all()
    found = next((row for row in rows if row.name.casefold() == name.strip().casefold()), None)
    if found is None:
        near = get_close_matches(name, [row.name for row in rows], n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else "list them with: callboard company list"
        raise UsageError(f"There is no company {clean_line(name)!r}", advice=advice, code="unknown_company")
    return found
