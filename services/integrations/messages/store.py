"""Messages and their steps in the database. Every function runs in its caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import update
from sqlmodel import Session, col, select

from services.errors import UsageError
from services.integrations.messages.model import (
    Channel,
    MessageEventRow,
    MessageRow,
    MessageState,
    Order,
    Report,
    Template,
    furthest,
    next_look,
)
from services.integrations.model import Resolved
from services.model import ErrorInfo
from services.security import redact
from services.storage.tables import Company, Message, MessageEvent

_LONGEST_REMARK: Final = 1_000


def insert(
    session: Session, order: Order, by: Resolved, company_id: int, resend_of: str, attempt: int = 1
) -> None:
    """The message before it is handed over; one that never left takes the place of what it was."""
    info = by.info
    template = json.dumps(order.template.as_dict(), ensure_ascii=False) if order.template else ""
    session.merge(
        Message(
            id=order.id,
            effect_id=order.id,
            company_id=company_id,
            channel=order.channel.value,
            adapter=info.adapter,
            integration_id=info.id,
            integration=info.name,
            agent_row=order.agent_row,
            recipient=order.to,
            subject=order.subject,
            body=order.body,
            template=template,
            state=MessageState.QUEUED.value,
            resend_of=resend_of,
            simulated=by.pretended or by.simulated,
            created_at=order.created_at,
            updated_at=order.created_at,
        )
    )
    session.flush()
    key = "queued" if attempt == 1 else f"queued/{attempt}"
    _note(session, order.id, order.created_at, MessageState.QUEUED, "send", "", key)


def apply(
    session: Session, message_id: str, report: Report, source: str, now: int, *, asked: bool
) -> tuple[MessageRow, bool] | None:
    """Fold a report in; the row after it, and whether anything changed. None for an unknown message.

    The state only moves forward, whatever the order of reports. `asked`: whether the provider can be asked
    again while the message is not at its end.
    """
    row = session.get(Message, message_id, with_for_update=True, populate_existing=True)
    if row is None:
        return None
    before = MessageState(row.state)
    after = furthest(before, report.state)
    if report.last and report.state is MessageState.UNKNOWN and before is MessageState.SENDING:
        after = MessageState.UNKNOWN  # our own judgement, after everybody was asked
    changed = _note(session, row.id, report.at or now, report.state, source, report.detail, report.key)
    if report.provider_id and not row.provider_id:
        row.provider_id, changed = report.provider_id, True
    row.sender = row.sender or report.sender
    row.simulated = row.simulated or report.simulated
    if after is not before or (report.state is before and report.detail):
        row.remark = redact(report.detail)[:_LONGEST_REMARK]
    if after is not before:
        row.state, changed = after.value, True
        error = report.error if after in (MessageState.FAILED, MessageState.UNKNOWN) else None
        row.error_category = error.category if error else None
        row.error_message = redact(error.message) if error else None
        row.error_advice = redact(error.advice) if error else None
    row.next_look_at = None if after.final or report.last or not asked else next_look(row.created_at, now)
    if changed:
        row.updated_at = now
    session.add(row)
    session.flush()
    return _row(row, _company_name(session, row.company_id)), changed


def stop(session: Session, message_id: str, remark: str, now: int) -> None:
    """Follow it no further; its state stays what was last known."""
    row = session.get(Message, message_id, with_for_update=True, populate_existing=True)
    if row is not None and not MessageState(row.state).final:
        row.next_look_at, row.updated_at = None, now
        if remark:
            row.remark = f"{row.remark}; {remark}"[:_LONGEST_REMARK] if row.remark else remark
        session.add(row)


def due(session: Session, now: int, limit: int) -> list[MessageRow]:
    """Messages whose provider is to be asked now, the longest waiting first."""
    rows = session.exec(
        select(Message, Company.name)
        .join(Company, col(Company.id) == col(Message.company_id), isouter=True)
        .where(col(Message.next_look_at) <= now)
        .order_by(col(Message.next_look_at))
        .limit(limit)
    )
    return [_row(row, name or "") for row, name in rows]


def next_due(session: Session) -> int | None:
    """When the next message is due, if one is followed."""
    return session.exec(
        select(Message.next_look_at)
        .where(col(Message.next_look_at).is_not(None))
        .order_by(col(Message.next_look_at))
        .limit(1)
    ).first()


def claim(session: Session, message_id: str, seen: int | None, until: int) -> bool:
    """Take the next look upon oneself: of several processes that saw the same `next_look_at`, one gets it."""
    due_then = col(Message.next_look_at).is_(None) if seen is None else col(Message.next_look_at) == seen
    done = session.execute(
        update(Message).where(col(Message.id) == message_id, due_then).values(next_look_at=until)
    )
    count: int = done.rowcount  # type: ignore[attr-defined]  # an update has one
    return count == 1


def wait_for_look(session: Session, message_id: str, at: int | None) -> None:
    """When to look next, after a look that failed."""
    session.execute(
        update(Message)
        .where(col(Message.id) == message_id, col(Message.next_look_at).is_not(None))
        .values(next_look_at=at)
    )


def left_behind(session: Session, before: int) -> list[MessageRow]:
    """Messages that are still `queued` although nobody has touched them since: their process is gone."""
    rows = session.exec(
        select(Message, Company.name)
        .join(Company, col(Company.id) == col(Message.company_id), isouter=True)
        .where(Message.state == MessageState.QUEUED.value, col(Message.updated_at) < before)
    )
    return [_row(row, name or "") for row, name in rows]


def provider_ids(session: Session, integration_id: int | None, since: int) -> frozenset[str]:
    """The provider's ids of messages that are known already."""
    same = (
        col(Message.integration_id).is_(None)
        if integration_id is None
        else col(Message.integration_id) == integration_id
    )
    found = session.exec(select(Message.provider_id).where(same, col(Message.created_at) >= since))
    return frozenset(each for each in found if each)


def holder(session: Session, message: MessageRow, provider_id: str) -> str | None:
    """The other message of the same integration that the provider's id belongs to already."""
    if not provider_id:
        return None
    same = select(Message.id).where(Message.provider_id == provider_id, Message.id != message.id)
    if message.integration_id is None:
        same = same.where(col(Message.integration_id).is_(None), Message.adapter == message.adapter)
    else:
        same = same.where(Message.integration_id == message.integration_id)
    return session.exec(same).first()


def find_reported(
    session: Session, integration_ids: Collection[int], message_id: str, provider_id: str
) -> str | None:
    """The id of the message that a report of one of these integrations is about."""
    own = col(Message.integration_id).in_(integration_ids)
    if message_id:
        row = session.get(Message, message_id)
        fits = row is not None and row.integration_id in integration_ids
        if row is not None and fits and row.provider_id in ("", provider_id or row.provider_id):
            return row.id
    if provider_id:
        return session.exec(select(Message.id).where(own, Message.provider_id == provider_id)).first()
    return None


def one(session: Session, wanted: str) -> MessageRow:
    """A message by its id or the unique beginning of one. Raises UsageError."""
    text = wanted.strip().lower()
    plain = text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    found = session.exec(
        select(Message, Company.name)
        .join(Company, col(Company.id) == col(Message.company_id), isouter=True)
        .where(col(Message.id).like(plain + "%", escape="!"))
        .order_by(col(Message.id))
        .limit(2)
    ).all()
    if not text or not found:
        raise UsageError(
            f"There is no message {wanted[:40]!r}",
            advice="list them with: callboard message list",
            code="unknown_message",
        )
    if len(found) > 1 and found[0][0].id != text:
        raise UsageError(
            f"{wanted[:40]!r} is the beginning of several messages",
            advice="Give more of the id",
            code="ambiguous_message",
        )
    return _row(found[0][0], found[0][1] or "")


def listed(
    session: Session,
    *,
    company_id: int | None,
    channel: Channel | None,
    state: MessageState | None,
    limit: int,
) -> list[MessageRow]:
    """Messages, the newest first."""
    query = select(Message, Company.name).join(
        Company, col(Company.id) == col(Message.company_id), isouter=True
    )
    if company_id is not None:
        query = query.where(Message.company_id == company_id)
    if channel is not None:
        query = query.where(Message.channel == channel.value)
    if state is not None:
        query = query.where(Message.state == state.value)
    query = query.order_by(col(Message.created_at).desc(), col(Message.id)).limit(limit)
    return [_row(row, name or "") for row, name in session.exec(query)]


def events(session: Session, message_id: str) -> list[MessageEventRow]:
    """The steps of one message, in the order in which they became known."""
    rows = session.exec(
        select(MessageEvent).where(MessageEvent.message_id == message_id).order_by(col(MessageEvent.id))
    )
    return [MessageEventRow(row.at, MessageState(row.state), row.source, row.detail) for row in rows]


def _note(
    session: Session, message_id: str, at: int, state: MessageState, source: str, detail: str, key: str
) -> bool:
    """Store one step unless it is known; whether it was new. The message's row is locked."""
    known = select(MessageEvent.id).where(MessageEvent.message_id == message_id, MessageEvent.dedup == key)
    if session.exec(known).first() is not None:
        return False
    session.add(
        MessageEvent(
            message_id=message_id,
            dedup=key,
            at=at,
            state=state.value,
            source=source,
            detail=redact(detail)[:_LONGEST_REMARK],
        )
    )
    return True


def _company_name(session: Session, company_id: int | None) -> str:
    found = session.get(Company, company_id) if company_id is not None else None
    return found.name if found is not None else ""


def _template(text: str) -> Template | None:
    if not text:
        return None
    data: dict[str, Any] = json.loads(text)
    return Template(data["name"], data.get("language", ""), data.get("parameters", {}))


def _row(row: Message, company: str) -> MessageRow:
    error = None
    if row.error_category:
        error = ErrorInfo(row.error_category, row.error_message or "", row.error_advice or "")
    return MessageRow(
        id=row.id,
        company_id=row.company_id,
        company=company,
        channel=Channel(row.channel),
        adapter=row.adapter,
        integration_id=row.integration_id,
        integration=row.integration,
        agent_row=row.agent_row,
        recipient=row.recipient,
        sender=row.sender,
        subject=row.subject,
        body=row.body,
        template=_template(row.template),
        state=MessageState(row.state),
        remark=row.remark,
        resend_of=row.resend_of,
        simulated=row.simulated,
        provider_id=row.provider_id,
        error=error,
        created_at=row.created_at,
        updated_at=row.updated_at,
        next_look_at=row.next_look_at,
        text_removed_at=row.text_removed_at,
    )
