"""What providers send unasked: checked against every secret that could have signed it, then stored.

Nothing is stored of what is not signed, and a report reaches only messages of an integration whose secret
signed it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlmodel import Session

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.events import EventBus, MessagesReceived
from services.integrations.messages import adapters as names
from services.integrations.messages import inbox, store, webhooks
from services.integrations.messages.incoming import twilio_message
from services.integrations.messages.model import Received, Report
from services.integrations.messages.webhooks import Answer, Reported
from services.integrations.model import IntegrationInfo, Kind
from services.security import SecretStore
from services.storage import Database

if TYPE_CHECKING:
    from services.integrations.registry import IntegrationService

log = logging.getLogger(__name__)


class Receiver:
    """Answers webhooks. `take` writes one report to one message."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        open_secrets: Callable[[], Awaitable[SecretStore]],
        integrations: IntegrationService,
        bus: EventBus,
        clock: Clock,
        take: Callable[[str, Report, str], Awaitable[Any]],
    ) -> None:
        self._open_database = open_database
        self._open_secrets = open_secrets
        self._integrations = integrations
        self._bus = bus
        self._clock = clock
        self._store = take

    async def whatsapp_challenge(self, query: Mapping[str, str]) -> Answer:
        return await _answered(self._whatsapp_challenge(query))

    async def whatsapp(self, headers: Mapping[str, str], body: bytes) -> Answer:
        return await _answered(self._whatsapp(headers, body))

    async def twilio(self, headers: Mapping[str, str], body: bytes, url: str) -> Answer:
        return await _answered(self._twilio(headers, body, url))

    async def chat(self, headers: Mapping[str, str], body: bytes) -> Answer:
        return await _answered(self._chat(headers, body))

    async def _whatsapp_challenge(self, query: Mapping[str, str]) -> Answer:
        tokens = [await self._secret(info, "verify_token") for info in await self._of(names.WHATSAPP)]
        return webhooks.challenge_of(query, tokens)

    async def _whatsapp(self, headers: Mapping[str, str], body: bytes) -> Answer:
        if len(body) > webhooks.MOST_BYTES:
            return webhooks.TOO_LARGE
        signers = [
            info
            for info in await self._of(names.WHATSAPP)
            if webhooks.hub_signature_fits(await self._secret(info, "app_secret"), headers, body)
        ]
        if not signers:
            return webhooks.NOT_SIGNED
        found = webhooks.read_whatsapp(body)
        if found is None:
            return webhooks.UNREADABLE
        by_number = {str(info.config.get("phone_number_id", "")): info for info in signers}
        # One app may serve several numbers: the report goes to those of its own number.
        reports, messages = [], []
        for number, each in found:
            own = by_number.get(number)
            if isinstance(each, Reported):
                reports.append(([own] if own is not None else signers, each))
            elif own is not None:  # else it was written to a number that is none of ours
                messages.append((own, each))
        await self._kept(messages)
        return await self._stored(reports)

    async def _twilio(self, headers: Mapping[str, str], body: bytes, url: str) -> Answer:
        if len(body) > webhooks.MOST_BYTES:
            return webhooks.TOO_LARGE
        fields = dict(webhooks.parse_form(body))
        account = fields.get("AccountSid", "")
        signers = []
        for info in await self._of(names.TWILIO_SMS):
            if not webhooks.same(str(info.config.get("account_sid", "")), account):
                continue
            token, shared = await self._secret(info, ""), await self._secret(info, "shared_key")
            if webhooks.twilio_signature_fits(token, shared, url, headers, body):
                signers.append(info)
        if not signers:
            return webhooks.NOT_SIGNED
        received = twilio_message(fields)
        if received is not None:
            await self._kept([(_addressed(signers, fields), received)])
            return webhooks.NO_REPLY
        reported = webhooks.read_twilio(fields, urlsplit(url).query)
        return await self._stored([] if reported is None else [(signers, reported)])

    async def _chat(self, headers: Mapping[str, str], body: bytes) -> Answer:
        if len(body) > webhooks.MOST_BYTES:
            return webhooks.TOO_LARGE
        now = self._clock.now()
        signers = [
            info
            for info in await self._of(names.CHAT)
            if webhooks.standard_signature_fits(await self._secret(info, ""), headers, body, now)
        ]
        if not signers:
            return webhooks.NOT_SIGNED
        reported = webhooks.read_chat(body)
        return webhooks.UNREADABLE if reported is None else await self._stored([(signers, reported)])

    async def _stored(self, found: Iterable[tuple[list[IntegrationInfo], Reported]]) -> Answer:
        """Write every report to its message; what is about no message of ours is answered all the same."""
        database = await self._open_database()
        for signers, reported in found:
            ids = {info.id for info in signers if info.id is not None}
            message_id = await database.read(
                partial(
                    store.find_reported,
                    integration_ids=ids,
                    message_id=reported.message_id,
                    provider_id=reported.provider_id,
                )
            )
            if message_id is None:
                continue
            with suppress(UsageError):  # deleted in this moment
                await self._store(message_id, reported.report, "report")
        return webhooks.OK

    async def _kept(self, messages: Sequence[tuple[IntegrationInfo, Received]]) -> None:
        """Store what people wrote, each once however often it is sent."""
        if not messages:
            return
        now = self._clock.now()

        def write(session: Session) -> list[str]:
            ids = [inbox.keep(session, received, info, now) for info, received in messages]
            return [each for each in ids if each is not None]

        new = await (await self._open_database()).write(write)
        if new:
            self._bus.publish(MessagesReceived(tuple(new)))

    async def _of(self, adapter: str) -> list[IntegrationInfo]:
        return [
            info
            for info in await self._integrations.list()
            if info.kind is Kind.MESSAGES and info.adapter == adapter and info.id is not None
        ]

    async def _secret(self, info: IntegrationInfo, name: str) -> str:
        path = f"{info.secret_name}/{name}" if name else info.secret_name
        return await (await self._open_secrets()).get(path) or ""


def _addressed(signers: list[IntegrationInfo], fields: Mapping[str, str]) -> IntegrationInfo:
    """Of several integrations with one Twilio account, the one whose number or service was written to."""
    for name, field in (("from", "To"), ("messaging_service", "MessagingServiceSid")):
        wanted = fields.get(field, "").removeprefix("whatsapp:")
        for info in signers:
            if wanted and str(info.config.get(name, "")).strip() == wanted:
                return info
    return signers[0]


async def _answered(work: Awaitable[Answer]) -> Answer:
    """What cannot be checked or stored now, the provider is asked to send again."""
    try:
        return await work
    except ServiceError as error:
        log.warning("a report could not be stored: %s", error.message)
        return webhooks.TRY_AGAIN
