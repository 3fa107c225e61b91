"""A call is ordered at most once: what is written before the order, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Placed:
    """A call that was placed. Ids are empty where the vendor did not tell them."""

    conversation_id: str
    """The vendor's id of the conversation (ElevenLabs) or the call (Retell)."""
    call_sid: str = ""
    """Twilio's id of the call."""
    from_number: str = ""


class IntentLog(Protocol):
    """Where it is written that a call is about to be placed. Every method is durable on return."""

    async def begin(self, number: str) -> str:
        """Before the order: the id under which it is placed, never used for another."""
        ...

    async def placed(self, ids: Placed) -> None:
        """The vendor has taken the order."""
        ...

    async def failed(self, error: ServiceError, certain: bool) -> None:
        """The order failed; with `certain` false the call may have been placed all the same."""
        ...
