"""Any service that speaks this small contract sends the messages of every channel (`COMMUNICATIONS_API_URL`).

    POST <url>/messages                       Authorization: Bearer <key>    Idempotency-Key: <our id>
        {"channel", "to", "subject", "body", "template": {"name", "language", "parameters"} or null,
         "company", "reference": <our id>}
        -> 200, 201 or 202 {"id", "status", "detail"?, "sender"?}
    GET <url>/messages/{id}                   -> {"id", "status", "detail"?, "error"?: {"code", "message"}}
    GET <url>/messages?idempotency_key=<key>  -> {"messages": [the same object]}, empty if it never came

`status` is queued, sending, sent, delivered, read, failed. The same Idempotency-Key never makes a second
message: the service answers with the first one. Errors: `{"error": {"message", "code"?}}` with 4xx or 5xx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from services.errors import Category, ServiceError
from services.http.client import Call, segment
from services.integrations.messages.model import MessageRow, MessageState, Order, Report
from services.integrations.messages.over_http import Line
from services.integrations.messages.port import (
    cannot_tell,
    error_info,
    require_text,
    subject_of,
    text_of,
)
from services.integrations.messages.simulated import recipient
from services.model import ErrorInfo
from services.text import clean_line

_STATES: Final = {
    "queued": MessageState.SENDING,
    **{state.value: state for state in MessageState if state is not MessageState.QUEUED},
}


def report_of(data: Mapping[str, Any]) -> Report | None:
    """What an object of the contract says; None for what is no report."""
    state = _STATES.get(text_of(data.get("status")).strip().lower())
    if state is None:
        return None
    detail = clean_line(text_of(data.get("detail")))[:300]
    error = _error(data.get("error"), detail) if state is MessageState.FAILED else None
    return Report(
        state, text_of(data.get("id"))[:200], clean_line(text_of(data.get("sender")))[:200], detail, error
    )


def _error(said: object, detail: str) -> ErrorInfo:
    known = said if isinstance(said, dict) else {}
    text = clean_line(text_of(known.get("message")))[:240] or detail or "no reason was given"
    return error_info(
        ServiceError(
            f"The message was not delivered: {text.rstrip('.')}",
            category=Category.PERMANENT,
            advice="Look at the message in that service, and correct what it names",
        )
    )


class GatewayAdapter:
    """One such service."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def checked(self, order: Order) -> Order:
        require_text(order, templates=True)
        return replace(order, to=recipient(order.channel, order.to))

    async def send(self, order: Order) -> Report:
        body = {
            "channel": order.channel.value,
            "to": order.to,
            "subject": order.subject,
            "body": order.body,
            "template": order.template.as_dict() if order.template else None,
            "company": order.company,
            "reference": order.id,
        }
        data = await self._line.order(
            Call("POST", "/messages", body=body), subject=subject_of(order), idempotency_key=order.id
        )
        report = report_of(data)
        if report is None or not report.provider_id:
            raise ServiceError(
                f"{self._line.vendor} answered without id or status of the message",
                category=Category.TRANSIENT,
                advice="Check that the address is a service that speaks the contract for messages",
                code="answer_lost",
            )
        return report

    async def look(self, message: MessageRow) -> Report | None:
        path = f"/messages/{segment(message.provider_id, 'a message')}"
        return report_of(await self._line.ask(Call("GET", path), attempts=1))

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        data = await self._line.ask(Call("GET", "/messages", {"idempotency_key": message.id}))
        rows = data.get("messages")
        if not isinstance(rows, list):
            raise cannot_tell(self._line.vendor, "was asked, and its answer says nothing of the message")
        if not rows:
            return None
        report = report_of(rows[0]) if isinstance(rows[0], dict) else None
        if report is None:
            raise cannot_tell(self._line.vendor, "was asked, and its answer says nothing of the message")
        return report

    async def probe(self) -> str:
        """Asks for a key that nobody has: the cheapest question of the contract, and free."""
        await self._line.ask(Call("GET", "/messages", {"idempotency_key": "callboard-probe"}))
        return "answers"

    async def aclose(self) -> None:
        await self._line.aclose()
