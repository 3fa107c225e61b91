"""What processes ask of the one that probes: its breakers are its own, and only it can switch them.

Plain functions on a session, each meant for one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from typing import cast as typed

from sqlalchemy import CursorResult, delete
from sqlmodel import Session, col, select

from services.companies.service import actor as user
from services.storage.journal import record
from services.storage.tables import HealthRequest

ASKED_FOR_MS: Final = 60_000
"""How long anybody waits for an answer, and some more."""


class Act(StrEnum):
    """What can be done to a breaker by hand."""

    CLOSE = "close"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Request:
    """What another process asks of the one that probes."""

    id: int
    check_id: str
    act: Act


@dataclass(frozen=True, slots=True)
class Done:
    """What became of an act: the breaker before and after it, and why it was wanted as far as is known.

    `error`: why it could not be done; empty where it was.
    """

    error: str = ""
    before: str = ""
    after: str = ""
    cause: str = ""


def ask(session: Session, check_id: str, act: Act, actor: str, now: int) -> int:
    """Ask for it; returns the number to look for the answer by."""
    request = HealthRequest(check_id=check_id, act=act.value, actor=actor or user(), asked_at=now)
    session.add(request)
    session.flush()
    return request.id or 0


def note(session: Session, check_id: str, act: Act, actor: str, now: int, done: Done) -> None:
    """Write into the audit log that somebody switched a breaker."""
    record(
        session,
        at=now,
        actor=actor or user(),
        action=f"breaker.{act.value}",
        subject=check_id,
        cause=done.cause,
        before={"breaker": done.before},
        after={"breaker": done.after},
    )


def answer(session: Session, number: int) -> str | None:
    """Why it could not be done, empty where it was; None while nobody has done it."""
    query = select(HealthRequest.error).where(
        HealthRequest.id == number, col(HealthRequest.done_at).is_not(None)
    )
    return session.execute(query).scalar()


def withdraw(session: Session, number: int) -> bool:
    """Ask no longer; False where it was done meanwhile."""
    undone = (col(HealthRequest.id) == number) & col(HealthRequest.done_at).is_(None)
    result = typed("CursorResult[Any]", session.execute(delete(HealthRequest).where(undone)))
    return result.rowcount == 1


def waiting(session: Session, now: int) -> list[Request]:
    """What is asked for, oldest first. Nobody waits for what was asked long ago: that is forgotten."""
    session.execute(delete(HealthRequest).where(col(HealthRequest.asked_at) < now - ASKED_FOR_MS))
    query = select(HealthRequest).where(col(HealthRequest.done_at).is_(None))
    return [
        Request(row.id or 0, row.check_id, Act(row.act))
        for row in session.exec(query.order_by(col(HealthRequest.id)))
    ]


def write_answers(session: Session, answers: Mapping[int, Done], now: int) -> None:
    """Say what became of requests, by id."""
    for number, done in answers.items():
        row = session.get(HealthRequest, number)
        if row is None or row.done_at is not None:
            continue  # withdrawn at the last moment
        row.done_at, row.error = now, done.error
        if not done.error:
            note(session, row.check_id, Act(row.act), row.actor, now, done)
