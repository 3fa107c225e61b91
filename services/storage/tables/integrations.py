"""Integrations and what was done through them: effects, messages, bookings, knowledge, LLM decisions."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, LargeBinary, String, UniqueConstraint
from sqlmodel import Field, SQLModel

from services.storage.tables.columns import company_column, text_column, time_column


class Integration(SQLModel, table=True):
    """Something outside that agents and workflows use. Its secret is in the secret store.

    `kind` is `messages`, `bookings`, `knowledge`, `crm` or `llm`; `adapter` says how it is spoken to;
    `config` is JSON without secrets.
    """

    __tablename__ = "integration"
    __table_args__ = (
        UniqueConstraint("company_id", "kind", "name"),  # where there is no company: see `partial`
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    company_id: int | None = Field(default=None, sa_column=company_column())
    kind: str
    adapter: str
    name: str
    base_url: str = ""
    config: str = Field(default="{}", sa_column=text_column())
    enabled: bool = True
    created_at: int = Field(sa_column=time_column(nullable=False))


class Effect(SQLModel, table=True):
    """The intent to do something to the world, written before it is done, and what became of it.

    `key` is the caller's idempotency key: one row, and so one effect, per company and key. `state` is
    `intended`, `done`, `failed` (certainly not done) or `unknown` (perhaps done; a person decides).
    `request` and `result` are JSON.
    """

    __tablename__ = "effect"
    __table_args__ = (UniqueConstraint("company_id", "key"),)  # where there is no company: see `partial`

    id: str = Field(primary_key=True)
    company_id: int | None = Field(default=None, sa_column=company_column(index=False))
    kind: str = Field(index=True)
    key: str
    target: str
    actor: str
    state: str
    simulated: bool = False
    owner: str = ""
    """The process that performs it, so that others know whether it may still be under way."""
    integration_id: int | None = None
    integration: str = Field(default="", sa_column=Column(String, nullable=False, server_default=""))
    """By which it was ordered, so that the same one can be asked afterwards; its name, for people."""
    request: str = Field(default="{}", sa_column=text_column())
    result: str = Field(default="{}", sa_column=text_column())
    provider_id: str = ""
    attempts: int = 0
    error_category: str | None = None
    error_message: str | None = None
    error_advice: str | None = None
    created_at: int = Field(sa_column=time_column(nullable=False, index=True))
    updated_at: int = Field(sa_column=time_column(nullable=False))
    ended_at: int | None = Field(default=None, sa_column=time_column())


class Message(SQLModel, table=True):
    """One message to one recipient; its id is its effect's.

    `state` ends in `delivered`, `read`, `failed` or `unknown`. `template` is JSON, empty without one.
    """

    __tablename__ = "message"

    id: str = Field(primary_key=True)
    effect_id: str = Field(
        sa_column=Column(ForeignKey("effect.id", ondelete="CASCADE"), nullable=False, unique=True)
    )
    company_id: int | None = Field(default=None, sa_column=company_column())
    channel: str
    adapter: str
    integration_id: int | None = None
    integration: str = ""
    """The name of the integration at that time, for people."""
    agent_row: int | None = Field(default=None, sa_column=Column(ForeignKey("agent.id", ondelete="SET NULL")))
    recipient: str
    sender: str = ""
    subject: str = ""
    body: str = Field(default="", sa_column=text_column())
    template: str = Field(default="", sa_column=text_column())
    state: str
    remark: str = Field(default="", sa_column=text_column())
    """What is known besides the state, in words."""
    resend_of: str = ""
    """The id of the message that was ordered again with this one."""
    simulated: bool = False
    provider_id: str = Field(default="", index=True)
    error_category: str | None = None
    error_message: str | None = None
    error_advice: str | None = None
    created_at: int = Field(sa_column=time_column(nullable=False, index=True))
    updated_at: int = Field(sa_column=time_column(nullable=False))
    next_look_at: int | None = Field(default=None, sa_column=time_column(index=True))
    """When its delivery is asked for next; None once nothing more is expected."""
    text_removed_at: int | None = Field(default=None, sa_column=time_column())
    """When subject, body and the template's values were deleted because they had become too old."""


class MessageEvent(SQLModel, table=True):
    """One step of a message's delivery. `dedup` makes a repeated report harmless."""

    __tablename__ = "message_event"
    __table_args__ = (UniqueConstraint("message_id", "dedup"),)

    id: int | None = Field(default=None, primary_key=True)
    message_id: str = Field(sa_column=Column(ForeignKey("message.id", ondelete="CASCADE"), nullable=False))
    dedup: str
    at: int = Field(sa_column=time_column(nullable=False))
    state: str
    source: str
    detail: str = Field(default="", sa_column=text_column())


class InboundMessage(SQLModel, table=True):
    """A message that somebody wrote to us. `provider_id` is the vendor's: stored once, however often sent.

    `sender` is a telephone number, or the id of a user towards the business where there is no number.
    """

    __tablename__ = "inbound_message"
    __table_args__ = (UniqueConstraint("integration_id", "provider_id"),)

    id: str = Field(primary_key=True)
    company_id: int | None = Field(default=None, sa_column=company_column())
    channel: str
    adapter: str
    integration_id: int
    integration: str
    """The name of the integration at that time, for people."""
    provider_id: str
    sender: str
    sender_user: str = ""
    """The user's id towards the business, also where the number is known: numbers change."""
    sender_name: str = ""
    recipient: str = ""
    kind: str
    """`text`, or what the vendor calls it: image, audio, button, …"""
    body: str = Field(default="", sa_column=text_column())
    reply_to: str = ""
    """The vendor's id of the message that it answers."""
    sent_at: int = Field(sa_column=time_column(nullable=False))
    received_at: int = Field(sa_column=time_column(nullable=False, index=True))
    text_removed_at: int | None = Field(default=None, sa_column=time_column())


class Booking(SQLModel, table=True):
    """A reservation or an appointment made through a partner. `request` and `result` are JSON."""

    __tablename__ = "booking"

    id: str = Field(primary_key=True)
    effect_id: str = Field(
        sa_column=Column(ForeignKey("effect.id", ondelete="CASCADE"), nullable=False, unique=True)
    )
    company_id: int | None = Field(default=None, sa_column=company_column())
    kind: str
    partner: str
    state: str
    simulated: bool = False
    provider_id: str = ""
    who: str = ""
    starts_at: int | None = Field(default=None, sa_column=time_column())
    request: str = Field(default="{}", sa_column=text_column())
    result: str = Field(default="{}", sa_column=text_column())
    created_at: int = Field(sa_column=time_column(nullable=False, index=True))
    updated_at: int = Field(sa_column=time_column(nullable=False))


class KnowledgeSource(SQLModel, table=True):
    """One document of a company's knowledge base. `digest` is of its text."""

    __tablename__ = "knowledge_source"
    __table_args__ = (UniqueConstraint("company_id", "uri"),)

    id: int | None = Field(default=None, primary_key=True)
    company_id: int | None = Field(default=None, sa_column=company_column(index=False))
    title: str
    kind: str
    uri: str
    media_type: str = ""
    digest: str = ""
    size: int = 0
    chunk_count: int = 0
    embedding_model: str = ""
    created_at: int = Field(sa_column=time_column(nullable=False))
    updated_at: int = Field(sa_column=time_column(nullable=False))


class KnowledgeChunk(SQLModel, table=True):
    """A piece of a source that an answer can be made of. `embedding`: little-endian float32, unit length."""

    __tablename__ = "knowledge_chunk"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    source_id: int = Field(
        sa_column=Column(ForeignKey("knowledge_source.id", ondelete="CASCADE"), nullable=False, index=True)
    )
    ordinal: int
    heading: str = ""
    text: str = Field(sa_column=text_column())
    embedding: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))


class LlmDecision(SQLModel, table=True):
    """One decision of the orchestrator: which agent, why, from whom, and what it cost."""

    __tablename__ = "llm_decision"

    id: str = Field(primary_key=True)
    company_id: int | None = Field(default=None, sa_column=company_column())
    at: int = Field(sa_column=time_column(nullable=False, index=True))
    actor: str = ""
    request: str = Field(default="", sa_column=text_column())
    agent_row: int | None = Field(default=None, sa_column=Column(ForeignKey("agent.id", ondelete="SET NULL")))
    agent_name: str = ""
    reason: str = Field(default="", sa_column=text_column())
    confidence: float | None = None
    source: str = ""
    """`model`, `rules` or `none`."""
    model: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    currency: str = ""
    took_ms: int = 0
    simulated: bool = False
    error_category: str | None = None
    error_message: str | None = None
    error_advice: str | None = None
