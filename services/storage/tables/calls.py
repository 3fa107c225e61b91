"""Calls, their transcripts, telephony accounts."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Text
from sqlmodel import Field, SQLModel

from services.storage.tables.columns import time_column


class CallRecord(SQLModel, table=True):
    """One call. Written before anything is dialled; a row that is not `ended` and whose heartbeat stopped
    belongs to a program that was killed.

    `brief`, `latency` and `tools` are JSON; empty where the company keeps no transcript.
    """

    __tablename__ = "call_record"

    id: str = Field(primary_key=True)
    company_id: int | None = Field(
        default=None, sa_column=Column(ForeignKey("company.id", ondelete="CASCADE"), index=True)
    )
    agent_row: int | None = Field(
        default=None, sa_column=Column(ForeignKey("agent.id", ondelete="SET NULL"), index=True)
    )
    company: str
    provider: str
    agent_id: str
    agent_name: str
    transport: str
    state: str
    actor: str
    simulated: bool = False
    number: str = ""
    from_number: str = ""
    intent: str = ""
    """Phone only: the key under which the call was ordered, and so placed at most once."""
    conversation_id: str = ""
    vendor_call_id: str = ""
    started_at: int = Field(sa_column=time_column(nullable=False, index=True))
    live_at: int | None = Field(default=None, sa_column=time_column())
    ended_at: int | None = Field(default=None, sa_column=time_column())
    heartbeat_at: int = Field(sa_column=time_column(nullable=False))
    reason: str | None = None
    detail: str = Field(default="", sa_column=Column(Text, nullable=False))
    turns: int = 0
    p50_ms: int | None = None
    p95_ms: int | None = None
    cost: float | None = None
    currency: str = ""
    folder: str = ""
    has_audio: bool = False
    has_transcript: bool = False
    brief: str = Field(default="", sa_column=Column(Text, nullable=False))
    latency: str = Field(default="", sa_column=Column(Text, nullable=False))
    tools: str = Field(default="", sa_column=Column(Text, nullable=False))


class CallLine(SQLModel, table=True):
    """One line of a call's transcript; `t` in milliseconds since the call's start, `data` JSON."""

    __tablename__ = "call_line"

    id: int | None = Field(default=None, primary_key=True)
    call_id: str = Field(
        sa_column=Column(ForeignKey("call_record.id", ondelete="CASCADE"), nullable=False, index=True)
    )
    t: int
    who: str
    text: str = Field(default="", sa_column=Column(Text, nullable=False))
    data: str = Field(default="", sa_column=Column(Text, nullable=False))


class Telephony(SQLModel, table=True):
    """A company's access to Twilio, and which numbers may be dialled. The token is in the secret store."""

    __tablename__ = "telephony"

    company_id: int = Field(
        sa_column=Column(ForeignKey("company.id", ondelete="CASCADE"), primary_key=True, autoincrement=False)
    )
    account_sid: str
    base_url: str
    allowed_numbers: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    created_at: int = Field(sa_column=time_column(nullable=False))
