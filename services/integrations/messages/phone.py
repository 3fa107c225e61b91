"""A message by telephone: an agent calls the number and gets the text as one of its variables.

The call is one of `services.calls`, with its intent written before it is dialled, its allow-list and its
recording. Without a list nobody is called unless a person confirmed the number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from services.calls.messages import Connected, Ended, Message
from services.calls.model import END_WORDS, Brief, CallRow, CallState, EndReason, TransportKind
from services.calls.request import CallRequest
from services.calls.telephony.numbers import Permission, permission, require_permission
from services.errors import Category, ServiceError, UsageError
from services.integrations.effects import NotDone
from services.integrations.messages.model import Channel, MessageRow, MessageState, Order, Report
from services.integrations.messages.port import (
    MOST_CHARACTERS,
    cannot_tell,
    error_info,
    phone_number,
    refuse_subject,
    subject_of,
)
from services.integrations.model import IntegrationInfo, untestable
from services.resilience import Attempt, Policy

if TYPE_CHECKING:
    from services.calls.service import CallService
    from services.calls.session import CallSession
    from services.calls.telephony import TelephonyService

VARIABLE: Final = "message"
_SKEW_MS: Final = 1_000
_UNSURE: Final = frozenset({EndReason.MAYBE_PLACED, EndReason.INTERRUPTED})


class PhoneAdapter:
    """Calls by the company's agents. `calls` and `telephony` are asked for when they are needed."""

    def __init__(
        self,
        info: IntegrationInfo,
        calls: Callable[[], CallService],
        telephony: Callable[[], TelephonyService],
        policy: Policy,
    ) -> None:
        self._source = str(info.config.get("from") or "").strip()
        self._variable = str(info.config.get("variable") or VARIABLE).strip()
        self._calls = calls
        self._telephony = telephony
        self._policy = policy

    async def checked(self, order: Order) -> Order:
        """Also asks whether the number may be called, and whether the agent would say the text."""
        refuse_subject(order)
        if order.template is not None:
            raise UsageError("A phone call has no template", advice="Give the text", code="no_templates")
        if len(order.body) > MOST_CHARACTERS[Channel.PHONE]:
            raise UsageError("The text is too long to be said", advice="Shorten it", code="too_long")
        if order.agent_row is None:
            raise UsageError(
                "A message by phone needs the agent that calls",
                advice="Name it with --agent",
                code="no_agent",
            )
        order = replace(order, to=phone_number(order.to))
        known = await self._telephony().show(order.company)
        require_permission(order.to, known.allowed, confirmed=order.confirmed)
        listed = permission(order.to, known.allowed) is Permission.ALLOWED
        order = replace(order, confirmed=order.confirmed or listed)
        await self._require_words(order)
        return order

    async def send(self, order: Order) -> Report:
        async def dial(attempt: Attempt) -> CallSession:
            return await self._dial(order)

        session = await self._policy.run(dial, subject=subject_of(order), write=True)
        row = await self._calls().row(session.id)
        return replace(report_of(row), provider_id=session.id, simulated=row.simulated)

    async def look(self, message: MessageRow) -> Report | None:
        await self._calls().recover()
        return report_of(await self._calls().row(message.provider_id))

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        """A call has a row before it is dialled: without a row there was no call."""
        await self._calls().recover()
        rows = await self._calls().rows(
            1000, transport=TransportKind.PHONE, agent_row=message.agent_row, company=message.company
        )
        fitting = [
            row
            for row in rows
            if row.id not in taken
            and row.started_at >= message.created_at - _SKEW_MS
            and row.number in ("", message.recipient)
        ]
        if not fitting:
            return None
        if len(fitting) > 1:
            raise cannot_tell("The list of calls", f"has {len(fitting)} that could be it")
        return replace(report_of(fitting[0]), provider_id=fitting[0].id, simulated=fitting[0].simulated)

    async def probe(self) -> str:
        """Nothing of its own: the vendors' connections have checks."""
        raise untestable("Calls go by the agents' vendors, whose connections are tested by themselves")

    async def aclose(self) -> None:
        """The calls belong to their own service."""

    def _request(self, order: Order) -> CallRequest:
        variables = {self._variable: order.body} if order.body.strip() else {}
        return CallRequest(
            order.agent_row,
            TransportKind.PHONE,
            Brief(subject=f"message {order.id}", variables=variables),
            number=order.to,
            from_number=self._source,
            devices=False,
            confirmed=order.confirmed,
            counted=True,
        )

    async def _require_words(self, order: Order) -> None:
        """A text that the agent would not use would be lost without a word. Raises UsageError."""
        prepared = await self._calls().prepare(self._request(order))
        if prepared.target.company.casefold() != order.company.casefold():
            raise UsageError(
                f"{prepared.target.name} is not an agent of {order.company}",
                advice="List them with: callboard agents list",
                code="foreign_agent",
            )
        place = f"{{{{{self._variable}}}}}"
        for part in prepared.parts:
            if part.use == "refused":
                raise UsageError(
                    f"{prepared.target.name} would refuse the call because of {part.name}",
                    advice=part.why,
                    code="brief_refused",
                )
            if part.use == "ignored" and part.key[:1] == ("variable",):
                raise UsageError(
                    f"{prepared.target.name} would not say the text: nothing in it names {place}",
                    advice=f"Put {place} into its prompt and sync, or leave the text empty",
                    code="brief_refused",
                )

    async def _dial(self, order: Order) -> CallSession:
        """Until the vendor has taken the call, or it is over. What fails before is certain: nobody rang."""
        try:
            session = await self._calls().start(self._request(order))
        except ServiceError as error:
            raise NotDone.because(error) from None
        await _placed(session)
        ended = session.live.ended
        if ended is not None and ended.reason in _UNSURE:
            raise ServiceError(
                ended.detail or "It is not known whether the call was placed",
                category=Category.TRANSIENT,
                advice="Ask whether it rang before calling again",
                code="answer_lost",
            )
        return session


async def _placed(session: CallSession) -> None:
    changed = asyncio.Event()

    def listen(at: int, message: Message) -> None:
        if isinstance(message, Connected | Ended):
            changed.set()

    unsubscribe = session.subscribe_messages(listen)
    try:
        if not session.live.conversation_id and session.live.ended is None:
            await changed.wait()
    finally:
        unsubscribe()


def report_of(row: CallRow) -> Report:
    """What a call's row says of the message: delivered once somebody was talked to."""
    answered = row.live_at is not None
    if row.state is not CallState.ENDED or row.reason is None:
        state = MessageState.SENT if answered or row.state is CallState.RINGING else MessageState.SENDING
        return Report(state, detail=f"The call is {row.state.value}", dedup=f"call {row.state.value}")
    words: Mapping[EndReason, str] = END_WORDS
    said = f"The call: {words[row.reason]}"
    facts: dict[str, Any] = {"detail": said, "dedup": f"ended {row.reason.value}"}
    if answered and row.reason is not EndReason.INTERRUPTED:
        return Report(MessageState.DELIVERED, **facts)
    if row.reason in _UNSURE:
        return Report(MessageState.UNKNOWN, last=True, **facts)
    error = error_info(
        ServiceError(
            f"{said}{f' ({row.detail})' if row.detail else ''}".rstrip("."),
            category=Category.TRANSIENT if row.reason in _LATER else Category.PERMANENT,
            advice="Call again later, or use another channel"
            if row.reason in _LATER
            else "See callboard calls",
        )
    )
    return Report(MessageState.FAILED, error=error, **facts)


_LATER: Final = frozenset({EndReason.BUSY, EndReason.NO_ANSWER, EndReason.LIMIT, EndReason.UNREACHABLE})
