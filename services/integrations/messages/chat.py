"""Chat by webhook: each message is posted to one address, signed as a Standard Webhook where there is a key.

    POST <address>
    webhook-id: <our id of the message>      webhook-timestamp: <seconds>
    webhook-signature: v1,<base64 of HMAC-SHA256(secret, "id.timestamp.body")>
    {"id", "channel": "chat", "to", "subject", "body", "company", "sent_at"}

A 2xx means that the receiver has it; what becomes of it then the receiver may tell in its answer,
`{"state": "delivered"}`, or later to our own webhook, signed in the same way.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from services.clock import Clock
from services.http.client import Call
from services.integrations.messages.model import MessageRow, MessageState, Order, Report, furthest
from services.integrations.messages.over_http import Line, object_if_any
from services.integrations.messages.port import (
    cannot_tell,
    one_line,
    require_text,
    subject_of,
    text_of,
)
from services.integrations.messages.webhooks import standard_signature
from services.integrations.model import untestable
from services.security import Secret

REMARK: Final = "The receiver took it; it has not told what became of it"


class ChatAdapter:
    """One receiver. Never repeats a post: not every receiver keeps book of `webhook-id`."""

    def __init__(self, line: Line, secret: Secret, clock: Clock) -> None:
        self._line = line
        self._secret = secret
        self._clock = clock

    async def checked(self, order: Order) -> Order:
        require_text(order)
        return replace(order, to=one_line(order.to, "a recipient"))

    async def send(self, order: Order) -> Report:
        now = self._clock.now()
        body = json.dumps(
            {
                "id": order.id,
                "channel": order.channel.value,
                "to": order.to,
                "subject": order.subject,
                "body": order.body,
                "company": order.company,
                "sent_at": now,
            },
            separators=(",", ":"),
        ).encode()
        headers = {"content-type": "application/json", "webhook-id": order.id}
        if self._secret:
            stamp = now // 1000
            headers["webhook-timestamp"] = str(stamp)
            headers["webhook-signature"] = standard_signature(self._secret.reveal(), order.id, stamp, body)
        answer = await self._line.order(
            Call("POST", "", content=body, headers=headers), subject=subject_of(order), parser=object_if_any
        )
        from services.integrations.messages.gateway import report_of

        said = report_of({**answer, "id": "", "status": answer.get("state")})
        state = MessageState.SENT if said is None else furthest(MessageState.SENT, said.state)
        detail = said.detail if said is not None else ""
        return Report(
            state,
            text_of(answer.get("id"))[:200],
            detail=detail or ("" if state.final else REMARK),
            error=said.error if said is not None else None,
        )

    async def look(self, message: MessageRow) -> Report | None:
        return None

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        raise cannot_tell("The receiver of the chat")

    async def probe(self) -> str:
        """Nothing can be asked of a webhook without sending something."""
        raise untestable("A webhook cannot be asked without sending something")

    async def aclose(self) -> None:
        await self._line.aclose()
