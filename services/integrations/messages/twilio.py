"""SMS by Twilio's Messages resource. Shapes: Twilio's OpenAPI document of 2026-04.

Twilio takes no idempotency key: an order whose answer was lost is looked for among the newest messages to
that number instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from services.errors import Category, ServiceError, UsageError
from services.http.client import Call, segment
from services.integrations.messages.model import MessageRow, MessageState, Order, Report
from services.integrations.messages.over_http import Line
from services.integrations.messages.port import (
    cannot_tell,
    error_info,
    phone_number,
    refuse_subject,
    require_text,
    subject_of,
    text_of,
)
from services.integrations.model import IntegrationInfo
from services.resilience.bodies import explain
from services.text import clean_line

SKEW_MS: Final = 120_000
"""How far Twilio's clock may be behind ours."""
_SENDER_NAME: Final = re.compile(r"[A-Za-z0-9 +_&-]{1,11}")
_SERVICE: Final = re.compile(r"MG[0-9a-fA-F]{32}")
_ACCOUNT: Final = re.compile(r"AC[0-9a-fA-F]{32}")
_CONTENT: Final = re.compile(r"HX[0-9a-fA-F]{32}")

STATES: Final[Mapping[str, MessageState]] = {
    "accepted": MessageState.SENDING,
    "scheduled": MessageState.SENDING,
    "queued": MessageState.SENDING,
    "sending": MessageState.SENDING,
    "sent": MessageState.SENT,
    "partially_delivered": MessageState.SENT,
    "delivered": MessageState.DELIVERED,
    "read": MessageState.READ,
    "undelivered": MessageState.FAILED,
    "failed": MessageState.FAILED,
    "canceled": MessageState.FAILED,
}


def report_of(data: Mapping[str, Any]) -> Report | None:
    """What a message resource, or the fields of a callback, say; None for what is no report of a message."""
    sid, status = text_of(data.get("sid")), text_of(data.get("status"))
    state = STATES.get(status)
    if state is None or not sid:
        return None
    error = None
    if state is MessageState.FAILED:
        said = "It was cancelled at Twilio" if status == "canceled" else ""
        told = {
            "error_code": data.get("error_code"),
            "error_message": text_of(data.get("error_message")) or said,
        }
        error = error_info(explain("Twilio", 0, told).error())
    return Report(state, sid, sender=text_of(data.get("from")), error=error)


class TwilioAdapter:
    """One account and one sender, or a messaging service that chooses it."""

    def __init__(self, info: IntegrationInfo, line: Line) -> None:
        config = info.config
        self._line = line
        self.account = account_of(info)
        self.service = str(config.get("messaging_service") or "").strip()
        self.sender = _sender(str(config.get("from") or "").strip())
        if self.service and not _SERVICE.fullmatch(self.service):
            raise UsageError(
                "That is no messaging service of Twilio",
                advice="It is MG and 32 letters and digits",
                code="bad_option",
            )
        if not self.service and not self.sender:
            raise UsageError(
                "SMS by Twilio needs a sender",
                advice="Give --set from=+… or --set messaging_service=MG…",
                code="missing_option",
            )
        self._callback = str(config.get("status_callback") or "").strip()
        self._root = f"/2010-04-01/Accounts/{self.account}"

    async def checked(self, order: Order) -> Order:
        refuse_subject(order)
        require_text(order, templates=True)
        if order.template is not None and not _CONTENT.fullmatch(order.template.name):
            raise UsageError(
                "A template at Twilio is named by its content SID",
                advice="It is HX and 32 letters and digits; copy it from the Content Template Builder",
                code="bad_template",
            )
        return replace(order, to=phone_number(order.to))

    async def send(self, order: Order) -> Report:
        data = await self._line.order(
            Call("POST", f"{self._root}/Messages.json", form=self._form(order)), subject=subject_of(order)
        )
        report = report_of(data)
        if report is None:
            raise ServiceError(
                "Twilio answered without the id of a message",
                category=Category.TRANSIENT,
                advice="Look at the message log in Twilio's console before sending it again",
                code="answer_lost",
            )
        return report

    async def look(self, message: MessageRow) -> Report | None:
        sid = segment(message.provider_id, "a message")
        return report_of(await self._line.ask(Call("GET", f"{self._root}/Messages/{sid}.json"), attempts=1))

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        """The one message to this number, of this text and of that time, that is nobody else's.

        Not narrowed by `DateSent`: a message that is still queued has none. None found, or several, and it
        cannot be told: Twilio promises no moment at which a message is listed.
        """
        query: dict[str, str | int | None] = {"To": message.recipient, "PageSize": 50}
        if not self.service:
            query["From"] = self.sender
        data = await self._line.ask(Call("GET", f"{self._root}/Messages.json", query))
        rows = data.get("messages")
        fitting = [
            row
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, dict)
            and text_of(row.get("sid")) not in taken
            and _time(row.get("date_created")) >= message.created_at - SKEW_MS
            # Trial accounts have a sentence put before every text; a template's text is not known here.
            and (message.template is not None or text_of(row.get("body")).endswith(message.body))
        ]
        found = report_of(fitting[0]) if len(fitting) == 1 else None
        if found is None:
            how_many = f"{len(fitting)} messages" if fitting else "no message"
            raise cannot_tell("Twilio", f"was asked, and lists {how_many} that could be it")
        return found

    async def probe(self) -> str:
        """Reads the account's own record, which Twilio does not charge for."""
        data = await self._line.ask(Call("GET", f"{self._root}.json"))
        return clean_line(text_of(data.get("friendly_name"))) or "answers"

    async def aclose(self) -> None:
        await self._line.aclose()

    def _form(self, order: Order) -> dict[str, str]:
        form = {"To": order.to}
        form |= {"MessagingServiceSid": self.service} if self.service else {"From": self.sender}
        if order.template is not None:
            form["ContentSid"] = order.template.name
            if order.template.parameters:
                form["ContentVariables"] = json.dumps(dict(order.template.parameters), ensure_ascii=False)
        else:
            form["Body"] = order.body
        if self._callback:
            # Our own id comes back with every report, also with one that is faster than the answer.
            parts = urlsplit(self._callback)
            query = urlencode([*parse_qsl(parts.query), ("message", order.id)])
            form["StatusCallback"] = urlunsplit(parts._replace(query=query))
        return form


def account_of(info: IntegrationInfo) -> str:
    """The account SID of an integration. Raises UsageError."""
    sid = str(info.config.get("account_sid", "")).strip()
    if not _ACCOUNT.fullmatch(sid):
        raise UsageError(
            "That is not a Twilio account SID",
            advice="Copy the account SID (AC and 32 letters and digits) from the Twilio console",
            code="bad_account_sid",
        )
    return sid


def _sender(text: str) -> str:
    """A number in E.164, or a sender name of up to 11 characters with a letter among them."""
    if not text or (_SENDER_NAME.fullmatch(text) and any(char.isalpha() for char in text)):
        return text
    return phone_number(text)


def _time(value: object) -> int:
    """Epoch milliseconds of an RFC 2822 time; 0 for what is none."""
    try:
        return int(parsedate_to_datetime(str(value)).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return 0
