"""Sending messages, at most once each, and everything that is known of them afterwards."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlmodel import Session, col, select

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.events import EventBus, MessagesChanged
from services.integrations.effects import Deed, EffectRow, Effects, EffectState, Intent
from services.integrations.messages import adapters as names
from services.integrations.messages import inbox, store
from services.integrations.messages.following import Follower
from services.integrations.messages.keeping import KEEP_DAYS, KeptTexts
from services.integrations.messages.model import (
    Channel,
    InboundRow,
    MessageEventRow,
    MessageRow,
    MessageState,
    Order,
    Report,
    Template,
)
from services.integrations.messages.opening import Adapters
from services.integrations.messages.outcomes import lost, never, told
from services.integrations.messages.port import MessageAdapter, cannot_tell
from services.integrations.messages.receiving import Receiver
from services.integrations.messages.webhooks import Answer
from services.integrations.model import IntegrationInfo, Kind, Resolved
from services.integrations.orders import again
from services.resilience import Policies, RateLimiter
from services.security import Secret, SecretStore
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Agent, Company, Connection

if TYPE_CHECKING:
    from services.calls.service import CallService
    from services.calls.telephony import TelephonyService
    from services.integrations.registry import IntegrationService

log = logging.getLogger(__name__)

EFFECT: Final = "message"
LOST_AFTER_MS: Final = 150_000
"""After which an order without an end is that of a process that is gone: longer than any may take, while
requests have their usual time limit.
"""
ASKED_FOR_MS: Final = 900_000
"""How long a provider is asked whether it has a message whose answer was lost."""


class MessageService:
    """Messages of all companies in one data folder, in one process and one event loop.

    `calls` and `telephony` carry messages by phone; `limiter` counts every message for its company, agent
    and user. Nothing is followed by itself before `start`.
    """

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        open_secrets: Callable[[], Awaitable[SecretStore]],
        integrations: IntegrationService,
        effects: Effects,
        policies: Policies,
        bus: EventBus,
        clock: Clock,
        *,
        calls: Callable[[], CallService] | None = None,
        telephony: Callable[[], TelephonyService] | None = None,
        limiter: RateLimiter | None = None,
        timeout: float = 30.0,
        keep_days: int = KEEP_DAYS,
    ) -> None:
        self._open_database = open_database
        self._integrations = integrations
        self._effects = effects
        self._bus = bus
        self._clock = clock
        self._adapters = Adapters(policies, limiter, clock, calls=calls, telephony=telephony, timeout=timeout)
        self._receiver = Receiver(open_database, open_secrets, integrations, bus, clock, self._take)
        self._follower = Follower(self, open_database, clock)
        self.texts = KeptTexts(open_database, bus, clock, days=keep_days)
        """For how long texts are kept."""
        # Several attempts and the waits between them, or every step of handing in an e-mail.
        self._lost_after = max(LOST_AFTER_MS, round(5_000 * timeout))
        self._under_way: set[str] = set()

    # -- sending ----------------------------------------------------------------------------------

    async def send_message(
        self,
        company: str,
        channel: Channel,
        to: str,
        *,
        body: str = "",
        subject: str = "",
        template: Template | None = None,
        agent_id: int | None = None,
        integration: str = "",
        idempotency_key: str = "",
        actor: str = "",
        confirmed: bool = False,
        resend_of: str = "",
    ) -> MessageRow:
        """Send a message unless the key was used before; the row says how it stands then.

        A failed order is no exception but the row's `state` and `error`: `failed` was certainly not sent,
        `unknown` perhaps, and is never sent again by itself. The same key gets the same row, whatever its
        state. `agent_id` is the mirror's id of the agent that sends; `integration` a name, else the
        company's own for the channel, a shared one, the environment's, or the simulation. `confirmed`: a
        person has seen whom a phone call reaches.

        Raises UsageError for what cannot be sent, before anything is written.
        """
        company_id = await self._integrations.company_id(company)
        company = await self._checked_parties(company_id, agent_id)
        resolved = await self._choose(company_id, channel, integration)
        info = resolved.info
        adapter = await self._adapters.of(resolved)
        order = Order(
            "", company, channel, to, subject, body, template, agent_id, actor, confirmed, self._clock.now()
        )
        order = await adapter.checked(order)
        begun: list[str] = []
        outcome: list[Report] = []

        async def perform(effect: EffectRow) -> Deed:
            begun.append(effect.id)
            self._under_way.add(effect.id)
            report = await adapter.send(replace(order, id=effect.id))
            outcome.append(report)
            said = {"state": report.state.value, "sender": report.sender, "detail": report.detail}
            return Deed(report.provider_id, said, report.simulated or resolved.pretended)

        def begin(session: Session, effect: EffectRow) -> None:
            own = replace(order, id=effect.id)
            store.insert(session, own, resolved, company_id, resend_of, effect.attempts)
            _journal(session, order, info, actor, resend_of)

        def end(session: Session, effect: EffectRow) -> None:
            report = outcome[0] if outcome else told(effect)
            store.apply(session, effect.id, report, "send", self._clock.now(), asked=_asked(info))

        try:
            effect = await self._effects.once(
                Intent(
                    EFFECT,
                    idempotency_key,
                    order.to,
                    company_id,
                    actor,
                    _request(order, info),
                    info.id,
                    info.name,
                    resolved.simulated or resolved.pretended,
                ),
                perform,
                also=begin,
                ended=end,
            )
        except ServiceError:
            if not begun:
                raise  # nothing was tried; what fails later stands in the row
            row = await self.get(begun[0])
        else:
            row = await self.get(effect.id)
        finally:
            self._under_way.difference_update(begun)
        self._bus.publish(MessagesChanged((row.id,)))
        self._follower.wake()
        return row

    async def resend(self, message_id: str, *, actor: str = "", confirmed: bool = False) -> MessageRow:
        """Send the same again as a new message: by explicit order only, whatever became of the first."""
        before = await self.get(message_id)
        if before.text_removed_at is not None:
            raise UsageError(
                "The text of that message is not kept any more",
                advice="Send it anew: callboard message send",
                code="text_removed",
            )
        integration = ""
        if before.integration_id is not None:
            with suppress(UsageError):  # gone meanwhile: what the company has now for the channel
                integration = (await self._integrations.get(before.integration_id)).name
        return await self.send_message(
            before.company,
            before.channel,
            before.recipient,
            body=before.body,
            subject=before.subject,
            template=before.template,
            agent_id=before.agent_row,
            integration=integration,
            actor=actor,
            confirmed=confirmed,
            resend_of=before.id,
        )

    async def probe(self, resolved: Resolved) -> str:
        """Ask an integration whether it works; what it says in a few words. Raises ServiceError."""
        return await (await self._adapters.of(resolved)).probe()

    # -- reading ----------------------------------------------------------------------------------

    async def get(self, message_id: str) -> MessageRow:
        """One message by its id or the unique beginning of it. Raises UsageError."""
        return await (await self._open_database()).read(lambda session: store.one(session, message_id))

    async def list(
        self,
        company: str | None = None,
        *,
        channel: Channel | None = None,
        state: MessageState | None = None,
        limit: int = 50,
    ) -> list[MessageRow]:
        """Messages, the newest first."""
        company_id = await self._integrations.company_id(company) if company is not None else None
        return await (await self._open_database()).read(
            lambda session: store.listed(
                session, company_id=company_id, channel=channel, state=state, limit=limit
            )
        )

    async def received(
        self,
        company: str | None = None,
        *,
        channel: Channel | None = None,
        beginning: str = "",
        limit: int = 50,
    ) -> Sequence[InboundRow]:
        """What people wrote to us, the newest first. `beginning`: only those whose id begins so."""
        company_id = await self._integrations.company_id(company) if company is not None else None
        return await (await self._open_database()).read(
            lambda session: inbox.listed(
                session, company_id=company_id, channel=channel, beginning=beginning, limit=limit
            )
        )

    async def events(self, message_id: str) -> Sequence[MessageEventRow]:
        """Everything that became known of one message, in that order."""
        return await (await self._open_database()).read(lambda session: store.events(session, message_id))

    # -- following --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Follow every message to its end, settle what a killed program left and delete old texts.

        Until `aclose`.
        """
        self._follower.start()
        await self.texts.start()

    async def look(self, message: MessageRow) -> MessageRow:
        """Ask the provider about one message now, unless another process does; its row afterwards.

        A provider that cannot be asked now is asked again later; no exception.
        """
        await self._follower.look(message)
        return await self.get(message.id)

    async def look_at_due(self) -> int:
        """Ask about every message whose time has come; returns how many were asked about."""
        return await self._follower.look_at_due()

    def follow(self, message_id: str, *, seconds: float) -> AsyncIterator[MessageRow]:
        """The message now and after every change, until its end or for so many seconds."""
        return self._follower.follow(message_id, seconds)

    async def settle(self, *, older_than_ms: int | None = None) -> Sequence[MessageRow]:
        """Decide what became of orders whose process is gone: ask the provider, else they are `unknown`."""
        settled = []
        age = self._lost_after if older_than_ms is None else older_than_ms
        for effect in await self._effects.open_ones(EFFECT, older_than_ms=age):
            if effect.id in self._under_way:
                continue
            with suppress(UsageError):  # another process was faster, or the message is gone
                settled.append(await self.ask_for_lost(await self.get(effect.id)))
        if settled:
            self._bus.publish(MessagesChanged(tuple(row.id for row in settled)))
        return tuple(settled)

    async def ask_for_lost(self, message: MessageRow) -> MessageRow:
        """Ask whether a message whose answer was lost was taken over, and write what is known then.

        Raises UsageError when it is decided already.
        """
        now = self._clock.now()
        try:
            found = await self._found(message)
        except ServiceError as error:
            # A provider may list a message a while after it took it; then it is for a person to decide.
            young = names.can_be_asked(message.adapter) and now - message.created_at < ASKED_FOR_MS
            retry = error.code != "cannot_tell" or young
            if message.state is MessageState.UNKNOWN:  # only when to ask again changes
                return await self._take(message.id, lost(error), "settle", retry=retry)
            state, report = EffectState.UNKNOWN, lost(error)
            cause = "nobody could say whether it was taken over"
        else:
            retry = names.can_be_asked(message.adapter)
            state, report = (EffectState.DONE, found) if found is not None else (EffectState.FAILED, never())
            cause = "it was found at the provider" if found is not None else "it was never taken over"
        deed = Deed(report.provider_id, {"state": report.state.value}) if state is EffectState.DONE else None

        def write(session: Session, effect: EffectRow) -> None:
            other = store.holder(session, message, report.provider_id)
            if other is not None:  # the same text twice, both answers lost, and one of them came through
                raise cannot_tell(message.integration, "was asked, and has only one that another message is")
            store.apply(session, message.id, report, "settle", now, asked=retry)

        await self._effects.settle(message.id, state, cause=cause, actor="callboard", deed=deed, also=write)
        return await self.get(message.id)

    async def _found(self, message: MessageRow) -> Report | None:
        adapter = await self.adapter_of(message)
        since = message.created_at - ASKED_FOR_MS
        taken = await (await self._open_database()).read(
            lambda session: store.provider_ids(session, message.integration_id, since)
        )
        found = await adapter.find(message, taken)
        young = self._clock.now() - message.created_at < self._lost_after
        if found is None and young and message.adapter == names.GATEWAY:
            raise cannot_tell(message.integration, "was asked too soon: the order may be on its way")
        return found

    async def again(self, message: MessageRow) -> Resolved:
        """The integration by which a message went. Raises UsageError when it is gone or changed."""
        if message.adapter == names.PHONE and message.integration_id is None:
            return Resolved(_BUILT_IN_PHONE, Secret(""))
        return await again(
            self._integrations,
            Kind.MESSAGES,
            message.company_id,
            message.integration_id,
            message.integration,
            message.adapter,
        )

    async def report(self, message: MessageRow, report: Report) -> None:
        """What the provider said of a message when it was asked."""
        await self._take(message.id, report, "look")

    async def stop_following(self, message: MessageRow, remark: str = "") -> None:
        """Nothing more will be learnt of a message; why, in words."""
        now = self._clock.now()
        await (await self._open_database()).write(
            lambda session: store.stop(session, message.id, remark, now)
        )
        self._bus.publish(MessagesChanged((message.id,)))

    async def adapter_of(self, message: MessageRow) -> MessageAdapter:
        """The open adapter by which a message went. Raises ServiceError."""
        return await self._adapters.of(await self.again(message))

    # -- webhooks ---------------------------------------------------------------------------------

    async def whatsapp_challenge(self, query: Mapping[str, str]) -> Answer:
        """Meta asks whether this address is ours (`GET`): the challenge, or 403."""
        return await self._receiver.whatsapp_challenge(query)

    async def take_whatsapp(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Meta reports (`POST`, signed with an app secret over the bytes as received)."""
        return await self._receiver.whatsapp(headers, body)

    async def take_twilio_status(self, headers: Mapping[str, str], body: bytes, url: str) -> Answer:
        """Twilio reports (`POST` of a form). `url`: the public address that was asked, with its query."""
        return await self._receiver.twilio(headers, body, url)

    async def take_chat(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """The receiver of a chat reports (`POST`, signed as a Standard Webhook)."""
        return await self._receiver.chat(headers, body)

    async def aclose(self) -> None:
        """Stop following and close every connection."""
        await self._follower.aclose()
        await self.texts.aclose()
        await self._adapters.aclose()

    # -- inside -----------------------------------------------------------------------------------

    async def _checked_parties(self, company_id: int, agent_id: int | None) -> str:
        """The company's name as it is written: its limits go by it. Raises UsageError for a foreign agent."""

        def read(session: Session) -> tuple[str, bool]:
            company = session.get(Company, company_id)
            own = select(Agent.id).join(Connection, col(Connection.id) == col(Agent.connection_id))
            own = own.where(Agent.id == agent_id, Connection.company_id == company_id)
            known = agent_id is None or session.exec(own).first() is not None
            return company.name if company is not None else "", known

        name, known = await (await self._open_database()).read(read)
        if not known:
            raise UsageError(
                f"There is no agent {agent_id} of {name}",
                advice="list them with: callboard agents list",
                code="unknown_agent",
            )
        return name

    async def _choose(self, company_id: int, channel: Channel, name: str) -> Resolved:
        if name:
            resolved = await self._integrations.resolve(Kind.MESSAGES, company_id, name=name)
            if not names.serves(resolved.info.adapter, channel):
                raise UsageError(
                    f"{resolved.info.name} does not send by {channel}",
                    advice="Choose another channel or integration",
                    code="wrong_channel",
                )
            return resolved
        own = await self._integrations.resolve(Kind.MESSAGES, company_id, adapter=names.OF_CHANNEL[channel])
        if own.info.id is not None:
            return own
        if channel is Channel.PHONE:
            # Calls need no integration: the company's connections and its allow-list are all there is to it.
            return Resolved(_BUILT_IN_PHONE, Secret(""))
        return await self._integrations.resolve(Kind.MESSAGES, company_id, adapter=names.GATEWAY)

    async def _take(
        self, message_id: str, report: Report, source: str, *, retry: bool | None = None
    ) -> MessageRow:
        """Write a report, and let the effect know if it was open. Raises UsageError without the message."""
        now = self._clock.now()

        def write(session: Session) -> tuple[MessageRow, bool]:
            known = store.one(session, message_id)
            asked = names.can_be_asked(known.adapter) if retry is None else retry
            done = store.apply(session, message_id, report, source, now, asked=asked)
            return done if done is not None else (known, False)

        row, changed = await (await self._open_database()).write(write)
        if report.state not in (MessageState.QUEUED, MessageState.UNKNOWN):
            effect = await self._effects.get(message_id)
            if effect is not None and effect.state in (EffectState.INTENDED, EffectState.UNKNOWN):
                with suppress(UsageError):
                    await self._effects.settle(
                        message_id,
                        EffectState.DONE,
                        cause=f"the provider reported it {report.state}",
                        actor="callboard",
                        deed=Deed(row.provider_id, {"state": report.state.value}),
                    )
        if changed:
            self._bus.publish(MessagesChanged((message_id,)))
        return row


_BUILT_IN_PHONE: Final = IntegrationInfo(None, None, "", Kind.MESSAGES, names.PHONE, "phone calls")


def _asked(info: IntegrationInfo) -> bool:
    return names.can_be_asked(info.adapter)


def _request(order: Order, info: IntegrationInfo) -> dict[str, Any]:
    """What makes two requests with one key the same; the text, and a template's values, only as a digest."""
    template = order.template
    values = json.dumps(dict(template.parameters), sort_keys=True) if template else ""
    text = f"{order.subject}\0{order.body}\0{values}".encode("utf-8", "surrogatepass")
    return {
        "channel": order.channel.value,
        "integration": info.name,
        "text_sha256": hashlib.sha256(text).hexdigest(),
        "template": [template.name, template.language] if template else None,
        "agent": order.agent_row,
    }


def _journal(session: Session, order: Order, info: IntegrationInfo, actor: str, resend_of: str) -> None:
    record(
        session,
        at=order.created_at,
        actor=actor,
        action="message.resend" if resend_of else "message.send",
        subject=order.to,
        cause=f"again after {resend_of}" if resend_of else "",
        after={"company": order.company, "channel": order.channel.value, "integration": info.name},
    )
