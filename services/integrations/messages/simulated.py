"""The stand-in where nothing is configured: it sends nothing, and says so everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.integrations.messages.model import Channel, MessageRow, MessageState, Order, Report
from services.integrations.messages.port import one_line, phone_number, require_text, subject_of
from services.resilience import Attempt, Policy

REMARK: Final = "Simulated: no integration for messages is configured, nothing was sent"


class SimulatedAdapter:
    """Takes every message and delivers none."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def checked(self, order: Order) -> Order:
        """The same checks as where it would be real, so that a rehearsal is one."""
        require_text(order, templates=order.channel in (Channel.SMS, Channel.WHATSAPP))
        return replace(order, to=recipient(order.channel, order.to))

    async def send(self, order: Order) -> Report:
        async def pretend(attempt: Attempt) -> Report:
            return Report(
                MessageState.DELIVERED, provider_id=f"simulated-{order.id}", detail=REMARK, simulated=True
            )

        return await self._policy.run(pretend, subject=subject_of(order), write=True)

    async def look(self, message: MessageRow) -> Report | None:
        return None

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        """What was only pretended never happened."""
        return None

    async def probe(self) -> str:
        return "simulated"

    async def aclose(self) -> None:
        """Holds nothing."""


def recipient(channel: Channel, text: str) -> str:
    """A recipient in the form its channel has. Raises UsageError."""
    if channel is Channel.EMAIL:
        from services.integrations.messages.smtp import parse_address

        return parse_address(text).addr_spec
    if channel is Channel.CHAT:
        return one_line(text, "a recipient")
    if channel is Channel.WHATSAPP:
        from services.integrations.messages.whatsapp import parse_recipient

        return parse_recipient(text)
    return phone_number(text)
