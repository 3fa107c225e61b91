"""What a message is, and how its state may move. Imports nothing heavy; times are epoch milliseconds, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from services.model import ErrorInfo


class Channel(StrEnum):
    """The way to a person."""

    SMS = "sms"
    EMAIL = "email"
    WHATSAPP = "whatsapp"
    PHONE = "phone"
    CHAT = "chat"


class MessageState(StrEnum):
    """How far a message has come."""

    QUEUED = "queued"
    """Written down here, not yet handed over."""
    UNKNOWN = "unknown"
    """It may have been handed over: the answer was lost. Never sent again by itself."""
    SENDING = "sending"
    """The provider has it."""
    SENT = "sent"
    """It is on its way to the recipient, beyond the provider."""
    FAILED = "failed"
    """It was certainly not delivered."""
    DELIVERED = "delivered"
    READ = "read"

    @property
    def final(self) -> bool:
        """Whether nothing more is expected. A delivered one may still be read, where that is told."""
        return self in (MessageState.FAILED, MessageState.DELIVERED, MessageState.READ)


_ORDER: Final = {state: rank for rank, state in enumerate(MessageState)}
"""Reports arrive twice, late and in any order: the state is the furthest of all that was ever reported.

A delivery outweighs a failure, since it was seen to happen; a failure outweighs everything before it.
"""


def furthest(one: MessageState, other: MessageState) -> MessageState:
    """The state after both were reported, in whichever order and however often."""
    return one if _ORDER[one] >= _ORDER[other] else other


@dataclass(frozen=True, slots=True)
class Template:
    """A text that was approved beforehand, with values for its places.

    `name` is WhatsApp's name of it, or Twilio's content SID (`HX…`). Names of parameters that are all
    numbers from 1 on are positions.
    """

    name: str
    language: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "language": self.language, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a message, from its provider: after handing it over, when asked, or unasked.

    `dedup` names the report among all of its message, so that a repeated one is stored once; empty for
    the state itself.
    """

    state: MessageState
    provider_id: str = ""
    sender: str = ""
    detail: str = ""
    error: ErrorInfo | None = None
    simulated: bool = False
    at: int | None = None
    dedup: str = ""
    last: bool = False
    """Nothing more will be told, whatever the state."""

    @property
    def key(self) -> str:
        return self.dedup or self.state.value


@dataclass(frozen=True, slots=True)
class Order:
    """One message to hand over. `id` is the message's own and the key under which it is sent once."""

    id: str
    company: str
    channel: Channel
    to: str
    subject: str = ""
    body: str = ""
    template: Template | None = None
    agent_row: int | None = None
    actor: str = ""
    confirmed: bool = False
    """A person has seen what a phone call costs and whom it reaches."""
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One stored message."""

    id: str
    company_id: int | None
    company: str
    channel: Channel
    adapter: str
    integration_id: int | None
    integration: str
    agent_row: int | None
    recipient: str
    sender: str
    subject: str
    body: str
    template: Template | None
    state: MessageState
    remark: str
    resend_of: str
    simulated: bool
    provider_id: str
    error: ErrorInfo | None
    created_at: int
    updated_at: int
    next_look_at: int | None
    text_removed_at: int | None = None
    """When subject, text and the template's values were deleted for their age."""

    @property
    def followed(self) -> bool:
        """Whether more is expected: its provider is asked again."""
        return self.next_look_at is not None


@dataclass(frozen=True, slots=True)
class MessageEventRow:
    """One step of a message. `source`: `send`, `look`, `report` (unasked), `settle`."""

    at: int
    state: MessageState
    source: str
    detail: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message that somebody wrote to us, as its vendor reports it; every text cleaned and cut.

    `sender` is a telephone number where it is known, else `sender_user`, the user's id towards the business.
    """

    channel: Channel
    provider_id: str
    sender: str
    sender_user: str = ""
    sender_name: str = ""
    """As the sender calls itself."""
    recipient: str = ""
    kind: str = "text"
    """`text`, or what the vendor calls it: image, audio, button, …"""
    body: str = ""
    reply_to: str = ""
    """The vendor's id of the message that it answers."""
    sent_at: int | None = None


@dataclass(frozen=True, slots=True)
class InboundRow:
    """One stored message that came in. `company` is empty where nobody can tell whose it is."""

    id: str
    company_id: int | None
    company: str
    channel: Channel
    integration_id: int
    integration: str
    provider_id: str
    sender: str
    sender_user: str
    sender_name: str
    recipient: str
    kind: str
    body: str
    reply_to: str
    sent_at: int
    received_at: int
    text_removed_at: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """For how many days a company keeps the texts of its messages; 0 for ever."""

    company_id: int
    company: str
    days: int
    own: bool
    """Whether the company says so itself, not the settings."""


FIRST_LOOK_MS: Final = 2_000
LONGEST_LOOK_MS: Final = 3_600_000
FOLLOWED_FOR_MS: Final = 72 * 3_600_000
"""After which nobody reports any more: carriers give up after three days at most."""


def next_look(created_at: int, now: int) -> int | None:
    """When to ask next about a message that is not at its end: after half its age again; None to give up."""
    age = max(0, now - created_at)
    if age >= FOLLOWED_FOR_MS:
        return None
    return now + min(LONGEST_LOOK_MS, max(FIRST_LOOK_MS, age // 2))
