"""WhatsApp Business Cloud API: text inside the 24 hours after a person wrote, approved templates at any time.

Shapes: Meta's OpenAPI document v23.0; `recipient` for users without a telephone number since 2026. The API
keeps no message that could be asked for: what becomes of one comes by webhook only, with our id in
`biz_opaque_callback_data`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from services.errors import Category, ServiceError, UsageError
from services.http.client import Call
from services.integrations.messages.model import MessageRow, MessageState, Order, Report, Template
from services.integrations.messages.over_http import Line
from services.integrations.messages.port import (
    cannot_tell,
    phone_number,
    refuse_subject,
    require_text,
    subject_of,
    text_of,
)
from services.integrations.model import IntegrationInfo
from services.text import clean_line

VERSION: Final = "v23.0"
NO_REPORTS: Final = "WhatsApp reports by webhook only, once one is set up"
_BUSINESS_SCOPED: Final = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")
_VERSION: Final = re.compile(r"v[0-9]{1,3}\.[0-9]{1,2}")


def is_business_scoped(recipient: str) -> bool:
    """Whether this is a user's id towards one business (BSUID, `US.1349…`), not a telephone number."""
    return _BUSINESS_SCOPED.fullmatch(recipient) is not None


def parse_recipient(text: str) -> str:
    """A telephone number in E.164, or a BSUID. Raises UsageError."""

    plain = text.strip()
    return plain if is_business_scoped(plain) else phone_number(plain)


class WhatsAppAdapter:
    """One sending number."""

    def __init__(self, info: IntegrationInfo, line: Line) -> None:
        self._line = line
        self._number = str(info.config.get("phone_number_id", "")).strip()
        version = str(info.config.get("version") or VERSION).strip()
        if not (self._number.isascii() and self._number.isdecimal()) or not _VERSION.fullmatch(version):
            raise UsageError(
                "The phone number id is digits only, the version such as v23.0",
                advice="Copy the phone number id, not the number, from the WhatsApp manager",
                code="bad_option",
            )
        self._path = f"/{version}/{self._number}"

    async def checked(self, order: Order) -> Order:
        refuse_subject(order)
        require_text(order, templates=True)
        if order.template is not None:
            if not order.template.language:
                raise UsageError(
                    "A WhatsApp template is chosen by name and language",
                    advice="Give the language with --lang, such as --lang de or --lang en_US",
                    code="no_language",
                )
            if order.body.strip():
                raise UsageError(
                    "A message has a text or a template, not both",
                    advice="Put the words into the template's --param",
                    code="two_texts",
                )
        return replace(order, to=parse_recipient(order.to))

    async def send(self, order: Order) -> Report:
        data = await self._line.order(
            Call("POST", f"{self._path}/messages", body=body_of(order)), subject=subject_of(order)
        )
        return taken_over(data)

    async def look(self, message: MessageRow) -> Report | None:
        return None

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        raise cannot_tell("WhatsApp")

    async def probe(self) -> str:
        """Reads the name of the telephone number, which Meta does not charge for."""
        data = await self._line.ask(
            Call("GET", self._path, {"fields": "verified_name,display_phone_number,quality_rating"})
        )
        return clean_line(text_of(data.get("verified_name")) or text_of(data.get("id"))) or "answers"

    async def aclose(self) -> None:
        await self._line.aclose()


def body_of(order: Order) -> dict[str, Any]:
    """The request of one message."""
    whom = "recipient" if is_business_scoped(order.to) else "to"
    body: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        whom: order.to,
        "biz_opaque_callback_data": order.id,
    }
    if order.template is None:
        return {**body, "type": "text", "text": {"body": order.body, "preview_url": False}}
    return {**body, "type": "template", "template": _template(order.template)}


def _template(template: Template) -> dict[str, Any]:
    """Named parameters carry their name; those named 1, 2, … stand at their place."""
    made: dict[str, Any] = {
        "name": template.name,
        "language": {"policy": "deterministic", "code": template.language},
    }
    names = list(template.parameters)
    if all(name.isascii() and name.isdecimal() for name in names):
        values = [{"type": "text", "text": template.parameters[name]} for name in sorted(names, key=int)]
    else:
        values = [
            {"type": "text", "parameter_name": name, "text": value}
            for name, value in template.parameters.items()
        ]
    if values:
        made["components"] = [{"type": "body", "parameters": values}]
    return made


def taken_over(data: Mapping[str, Any]) -> Report:
    """What the answer to an order says. A message without an id may have been taken: that is not known."""
    messages = data.get("messages")
    first = messages[0] if isinstance(messages, list) and messages and isinstance(messages[0], dict) else {}
    wamid = text_of(first.get("id"))
    if not wamid:
        raise ServiceError(
            "WhatsApp answered without the id of a message",
            category=Category.TRANSIENT,
            advice="Ask the recipient before sending it again",
            code="answer_lost",
        )
    held = {
        "held_for_quality_assessment": "Meta holds it back until the template's quality is assessed",
        "paused": "Meta paused the template: the message waits",
    }.get(text_of(first.get("message_status")), "")
    return Report(MessageState.SENDING, wamid, detail=held or NO_REPORTS)
