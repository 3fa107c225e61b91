"""For how long texts are kept, and their end: a company's own word, else the settings'.

Texts are those of messages, and what orders say of people (`services.integrations.retention`).

A message whose text is gone stays with everything else that is known of it: whom it reached, when, by what,
and what became of it. What is still followed keeps its text, since its provider is asked by it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from sqlmodel import Session, col, select

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.events import BookingsChanged, EventBus, MessagesChanged
from services.integrations import retention
from services.integrations.messages.model import Kept, MessageState
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Company, InboundMessage, Message

log = logging.getLogger(__name__)

KEEP_DAYS: Final = 90
"""Unless the settings or the company say otherwise; 0 is for ever."""
MOST_DAYS: Final = 3_650
CARE_SECONDS: Final = 6 * 3600.0
DAY_MS: Final = 86_400_000
_AT_ONCE: Final = 500
"""Rows in one transaction, so that others may write in between."""


class KeptTexts:
    """The texts of one data folder's messages and orders. `days` is what the settings say."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        bus: EventBus,
        clock: Clock,
        *,
        days: int = KEEP_DAYS,
    ) -> None:
        self.days = days
        self._open_database = open_database
        self._bus = bus
        self._clock = clock
        self._care: asyncio.Task[None] | None = None

    async def of(self, company: str | None = None) -> list[Kept]:
        """For how long each company, or one, keeps texts; by name. Raises UsageError for an unknown one."""

        def read(session: Session) -> list[Kept]:
            rows = session.exec(select(Company).order_by(Company.name)).all()
            wanted = rows if company is None else [_named(session, company)]
            return [self._kept(row) for row in wanted]

        return await (await self._open_database()).read(read)

    async def set(self, company: str, days: int | None, *, actor: str = "") -> Kept:
        """Keep a company's texts for so many days, 0 for ever, None as the settings say.

        What is older by then goes with the next sweep. Raises UsageError.
        """
        if days is not None and not 0 <= days <= MOST_DAYS:
            raise UsageError(
                f"{days} is no number of days",
                advice=f"Give 1 to {MOST_DAYS:,}, or keep them for ever",
                code="bad_value",
            )
        now = self._clock.now()

        def write(session: Session) -> Kept:
            row = _named(session, company)
            before, row.message_days = row.message_days, days
            if before != days:
                session.add(row)
                record(
                    session,
                    at=now,
                    actor=actor,
                    action="message.keep",
                    subject=row.name,
                    before={"days": before},
                    after={"days": days},
                )
            return self._kept(row)

        return await (await self._open_database()).write(write)

    async def sweep(self) -> int:
        """Delete the texts that have become too old; of how many messages and orders."""
        now = self._clock.now()
        database = await self._open_database()
        kept = await self.of()
        gone = ordered = 0
        for company_id, name, days in [(each.company_id, each.company, each.days) for each in kept] + [
            (None, "", self.days)
        ]:
            if days:
                whose = (database, company_id, name, days, now)
                gone += await self._sweep_one(*whose, _remove, "message.text.remove", "messages")
                ordered += await self._sweep_one(*whose, _remove_of_orders, "order.words.remove", "orders")
        if gone:
            self._bus.publish(MessagesChanged())
        if ordered:
            self._bus.publish(BookingsChanged())
        return gone + ordered

    async def start(self) -> None:
        """Sweep now and every few hours, until `aclose`."""
        if self._care is None:
            self._care = asyncio.create_task(self._run(), name="texts of messages")

    async def aclose(self) -> None:
        care, self._care = self._care, None
        if care is not None:
            care.cancel()
            await asyncio.gather(care, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except ServiceError as error:
                log.warning("old texts of messages could not be deleted: %s", error.message)
            await asyncio.sleep(CARE_SECONDS)

    async def _sweep_one(
        self,
        database: Database,
        company_id: int | None,
        name: str,
        days: int,
        now: int,
        remove: Callable[[Session, int | None, int, int], int],
        action: str,
        what: str,
    ) -> int:
        before = now - days * DAY_MS
        gone = 0
        while True:
            count = await database.write(lambda session: remove(session, company_id, before, now))
            gone += count
            if count < _AT_ONCE:
                break
        if gone:
            await database.write(
                lambda session: record(
                    session,
                    at=now,
                    actor="callboard",
                    action=action,
                    subject=name or "no company",
                    cause=f"older than {days} days",
                    after={what: gone},
                )
            )
        return gone

    def _kept(self, row: Company) -> Kept:
        own = row.message_days
        return Kept(row.id or 0, row.name, self.days if own is None else own, own is not None)


def _remove_of_orders(session: Session, company_id: int | None, before: int, now: int) -> int:
    return retention.remove_words(session, company_id, before, _AT_ONCE)


def _remove(session: Session, company_id: int | None, before: int, now: int) -> int:
    """Delete the texts of some messages that are older; of how many, `_AT_ONCE` at the most."""
    mine = col(Message.company_id).is_(None) if company_id is None else col(Message.company_id) == company_id
    sent = session.exec(
        select(Message)
        .where(
            mine,
            col(Message.created_at) < before,
            col(Message.text_removed_at).is_(None),
            col(Message.next_look_at).is_(None),
            Message.state != MessageState.QUEUED.value,
        )
        .limit(_AT_ONCE)
    ).all()
    for row in sent:
        row.subject = row.body = ""
        if row.template:
            row.template = json.dumps({**json.loads(row.template), "parameters": {}}, ensure_ascii=False)
        row.text_removed_at = now
        session.add(row)
    if len(sent) == _AT_ONCE:
        return _AT_ONCE
    theirs = (
        col(InboundMessage.company_id).is_(None)
        if company_id is None
        else col(InboundMessage.company_id) == company_id
    )
    came = session.exec(
        select(InboundMessage)
        .where(
            theirs,
            col(InboundMessage.received_at) < before,
            col(InboundMessage.text_removed_at).is_(None),
        )
        .limit(_AT_ONCE - len(sent))
    ).all()
    for row_in in came:
        row_in.body, row_in.sender_name, row_in.text_removed_at = "", "", now
        session.add(row_in)
    return len(sent) + len(came)


def _named(session: Session, name: str) -> Company:
    wanted = name.strip().casefold()
    found = next((row for row in session.exec(select(Company)) if row.name.casefold() == wanted), None)
    if found is None:
        raise UsageError(
            f"There is no company {name.strip()[:60]!r}",
            advice="list them with: callboard company list",
            code="unknown_company",
        )
    return found
