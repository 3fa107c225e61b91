"""Alerts that were claimed and have not gone out yet, as leases: what a crash leaves behind others send.

An incident is claimed once (see `store.claim`). In the same transaction each channel that is to be told gets
a lease of its own, `alert/INCIDENT/STATE/CHANNEL`. Before an alert is sent its lease is renewed, afterwards
it is given back; one that ran out is taken over by whoever probes. So an alert goes out at least once, and a
second time only where a process ended between sending it and writing that down. Its key stays the same.
Where nobody took it though they might later, the lease stays and runs out ever later, for a day.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import CursorResult, delete, update
from sqlmodel import Session, col, select

from services.health.model import Channel, HealthState
from services.schedule.ledger import FAR_AHEAD_MS
from services.storage.tables import HealthIncident, Lease

PREFIX: Final = "alert/"
LASTS_MS: Final = 180_000
"""Longer than sending one alert takes at most, its retries included."""
FORGOTTEN_MS: Final = 86_400_000
"""After a day an alert is no news any more."""
FIRST_WAIT_MS: Final = 60_000
LONGEST_WAIT_MS: Final = 1_800_000
"""Between one try and the next, which is as far away as the alert is old."""
MOST: Final = 50
"""How many are taken over at once."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One alert that one channel is still to be told; `name` is the lease's."""

    name: str
    incident_id: int
    state: HealthState
    """`UP`: that it is over."""
    channel_id: int


def name_of(incident_id: int, state: HealthState, channel: Channel) -> str:
    return f"{PREFIX}{incident_id}/{state.value}/{channel.id}"


def note(session: Session, owner: str, now: int, names: Iterable[str]) -> None:
    """These are to be sent by this process."""
    for name in names:
        session.merge(Lease(name=name, owner=owner, acquired_at=now, expires_at=now + LASTS_MS))


def renew(session: Session, owner: str, now: int, name: str) -> bool:
    """Whether it is still this process that is to send it; then it has time again."""
    mine = update(Lease).where(col(Lease.name) == name, col(Lease.owner) == owner)
    return _changed(session, mine.values(expires_at=now + LASTS_MS))


def put_off(session: Session, owner: str, now: int, name: str) -> None:
    """Nobody took it this time: it is due again later."""
    lease = session.get(Lease, name)
    if lease is not None and lease.owner == owner:
        lease.expires_at = now + min(LONGEST_WAIT_MS, max(FIRST_WAIT_MS, now - lease.acquired_at))
        session.add(lease)


def settle(session: Session, owner: str, names: Collection[str]) -> None:
    """These need not be sent any more."""
    if names:
        session.execute(delete(Lease).where(col(Lease.name).in_(list(names)), col(Lease.owner) == owner))


def take(session: Session, owner: str, now: int, busy: Collection[str]) -> list[Claim]:
    """Take over what nobody sent in its time. `busy`: what this process has in hand; it gets more time."""
    late = (col(Lease.expires_at) <= now) | (col(Lease.expires_at) > now + LASTS_MS + FAR_AHEAD_MS)
    rows = session.exec(
        select(Lease).where(col(Lease.name).startswith(PREFIX, autoescape=True), late).limit(MOST)
    ).all()
    found = []
    for row in rows:
        name, before, since = row.name, row.owner, row.acquired_at
        taken = _changed(
            session,
            update(Lease)
            .where(col(Lease.name) == name, col(Lease.owner) == before, late)
            .values(owner=owner, expires_at=now + LASTS_MS),
        )
        claim = _read(name)
        if not taken or name in busy:
            continue
        if (
            claim is None
            or now - since > FORGOTTEN_MS
            or session.get(HealthIncident, claim.incident_id) is None
        ):
            settle(session, owner, [name])
        else:
            found.append(claim)
    return found


def _read(name: str) -> Claim | None:
    try:
        _, incident, state, channel = name.split("/")
        return Claim(name, int(incident), HealthState(state), int(channel))
    except ValueError:
        return None


def _changed(session: Session, statement: Any) -> bool:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1
