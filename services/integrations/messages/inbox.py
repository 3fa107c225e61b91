"""Messages that came in, in the database. Every function runs in its caller's transaction."""

from __future__ import annotations

import uuid

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from services.integrations.messages.model import Channel, InboundRow, Received
from services.integrations.model import IntegrationInfo
from services.storage.tables import Company, InboundMessage, Message


def keep(session: Session, received: Received, info: IntegrationInfo, now: int) -> str | None:
    """Store a message once; its id, None for one that is there already."""
    if info.id is None:
        return None
    known = select(InboundMessage.id).where(
        InboundMessage.integration_id == info.id, InboundMessage.provider_id == received.provider_id
    )
    if session.exec(known).first() is not None:
        return None
    row = InboundMessage(
        id=uuid.uuid4().hex,
        company_id=info.company_id if info.company_id is not None else _company_of(session, received, info),
        channel=received.channel.value,
        adapter=info.adapter,
        integration_id=info.id,
        integration=info.name,
        provider_id=received.provider_id,
        sender=received.sender,
        sender_user=received.sender_user,
        sender_name=received.sender_name,
        recipient=received.recipient,
        kind=received.kind,
        body=received.body,
        reply_to=received.reply_to,
        sent_at=min(now, received.sent_at) if received.sent_at is not None else now,
        received_at=now,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # another process took the same one
        return None
    return row.id


def listed(
    session: Session, *, company_id: int | None, channel: Channel | None, beginning: str = "", limit: int
) -> list[InboundRow]:
    """Messages that came in, the newest first. `beginning`: only those whose id begins so."""
    query = select(InboundMessage, Company.name).join(
        Company, col(Company.id) == col(InboundMessage.company_id), isouter=True
    )
    if company_id is not None:
        query = query.where(InboundMessage.company_id == company_id)
    if channel is not None:
        query = query.where(InboundMessage.channel == channel.value)
    if beginning:
        query = query.where(col(InboundMessage.id).startswith(beginning, autoescape=True))
    query = query.order_by(
        col(InboundMessage.received_at).desc(), col(InboundMessage.sent_at).desc(), col(InboundMessage.id)
    )
    return [_row(row, name or "") for row, name in session.exec(query.limit(limit))]


def _company_of(session: Session, received: Received, info: IntegrationInfo) -> int | None:
    """Of an integration that serves all companies: whichever wrote to this person last."""
    people = [each for each in (received.sender, received.sender_user) if each]
    query = (
        select(Message.company_id)
        .where(Message.integration_id == info.id, col(Message.recipient).in_(people))
        .order_by(col(Message.created_at).desc())
        .limit(1)
    )
    return session.exec(query).first()


def _row(row: InboundMessage, company: str) -> InboundRow:
    return InboundRow(
        id=row.id,
        company_id=row.company_id,
        company=company,
        channel=Channel(row.channel),
        integration_id=row.integration_id,
        integration=row.integration,
        provider_id=row.provider_id,
        sender=row.sender,
        sender_user=row.sender_user,
        sender_name=row.sender_name,
        recipient=row.recipient,
        kind=row.kind,
        body=row.body,
        reply_to=row.reply_to,
        sent_at=row.sent_at,
        received_at=row.received_at,
        text_removed_at=row.text_removed_at,
    )
