"""The database's side of the schedule: who holds the lease, and which due times have been taken.

Plain functions on a session, each meant to be one write transaction, written so that they are also
right when two processes run them at the same moment on PostgreSQL's default isolation:

* The lease decides who has the timers. It is taken by a conditional UPDATE (or the first INSERT), so
  that of two takers one changes no row. It is an economy and a fence, not what makes a run unique.
* A firing makes it unique: its primary key is made of schedule and due time, and it is inserted before
  the sync starts. Whoever inserts second has lost, whatever it believes about the lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, Update, delete, func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from services.schedule.due import DAY_MS, HOUR_MS, Schedule, firing_id, latest_due
from services.storage.tables import Connection, Firing, Lease

LEASE = "scheduler"

FAR_AHEAD_MS = HOUR_MS
"""A lease that runs longer than this was written by a clock that was wrong, and binds nobody."""

KEPT_MS = 90 * DAY_MS
"""How long firings are kept."""

BASELINE = "baseline: nothing was due before"
COVERED = "covered by the daily sync"
NOTHING = "nothing to sync: no company has a connection yet"
ABANDONED = "abandoned: the process that ran it ended; the next hourly sync reads what is still stale"


@dataclass(frozen=True, slots=True)
class Claim:
    """A due time that this process has taken. One with a `result` is settled already: nothing to run."""

    id: str
    schedule: Schedule
    due_at: int
    result: str = ""


def take_lease(session: Session, owner: str, now: int, lasts: int, name: str = LEASE) -> bool:
    """Renew our lease, or take it when it is free or expired; says whether we hold it. `lasts` in ms."""
    mine = update(Lease).where(col(Lease.name) == name, col(Lease.owner) == owner)
    if _changed(session, mine.values(expires_at=now + lasts)):
        return True
    free = update(Lease).where(
        col(Lease.name) == name,
        (col(Lease.expires_at) <= now) | (col(Lease.expires_at) > now + lasts + FAR_AHEAD_MS),
    )
    if _changed(session, free.values(owner=owner, acquired_at=now, expires_at=now + lasts)):
        return True
    if session.get(Lease, name) is not None:
        return False
    return _inserted(session, Lease(name=name, owner=owner, acquired_at=now, expires_at=now + lasts))


def release_lease(session: Session, owner: str, name: str = LEASE) -> None:
    """Give it back, so that another process need not wait until it expires."""
    session.execute(delete(Lease).where(col(Lease.name) == name, col(Lease.owner) == owner))


def claim_due(session: Session, schedules: Sequence[Schedule], owner: str, now: int) -> list[Claim]:
    """Take what is due and has not been taken: at most one claim is to be run, the others are settled.

    Of several missed due times of a schedule only the latest is taken; a schedule without any firing
    gets a baseline instead of a run, so that a new database does not begin with a "missed" sync. Where
    two schedules are due, the first of `schedules` covers the others. Takes nothing without the lease.
    """
    lease = session.get(Lease, LEASE, populate_existing=True)
    if lease is None or lease.owner != owner:
        return []
    claims: list[Claim] = []
    connected: int = session.exec(select(func.count()).select_from(Connection)).one()
    for schedule in schedules:
        last: int | None = session.exec(
            select(func.max(Firing.due_at)).where(Firing.schedule == schedule.key)
        ).one()
        due = latest_due(schedule, last, now)
        if due is None:
            continue
        result = ""
        if last is None:
            result = BASELINE
        elif not connected:
            result = NOTHING
        elif any(not claim.result for claim in claims):
            result = COVERED
        claim = take_firing(session, schedule, due, owner, now, result)
        if claim is not None and last is not None:
            claims.append(claim)
    if claims:
        session.execute(delete(Firing).where(col(Firing.due_at) < now - KEPT_MS))
    return claims


def take_firing(
    session: Session, schedule: Schedule, due: int, owner: str, now: int, result: str = ""
) -> Claim | None:
    """Take one due time, settled at once where there is a `result`; None when somebody else has it."""
    row = Firing(
        id=firing_id(schedule, due),
        schedule=schedule.key,
        due_at=due,
        claimed_by=owner,
        claimed_at=now,
        finished_at=now if result else None,
        result=result,
    )
    return Claim(row.id, schedule, due, result) if _inserted(session, row) else None


def finish(session: Session, claim_id: str, now: int, result: str) -> None:
    """Record how the run of a firing ended."""
    session.execute(update(Firing).where(col(Firing.id) == claim_id).values(finished_at=now, result=result))


def close_abandoned(session: Session, owner: str, now: int, after: int) -> int:
    """Settle the firings whose process died in the middle; returns how many. `after` in ms.

    A process counts as dead when another has held the lease for `after`. Its run is not repeated: what
    it had written is whole, agents it did not reach are stale by the next hourly sync, and a run that
    kills its process would otherwise kill every process in turn. Should the process live after all
    (it was only suspended), its own `finish` has the last word.
    """
    lease = session.get(Lease, LEASE, populate_existing=True)
    if lease is None or lease.owner != owner or lease.acquired_at > now - after:
        return 0
    return _changed(
        session,
        update(Firing)
        .where(col(Firing.finished_at).is_(None), col(Firing.claimed_by) != owner)
        .values(finished_at=now, result=ABANDONED),
    )


def _changed(session: Session, statement: Update) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def _inserted(session: Session, row: Firing | Lease) -> bool:
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True
