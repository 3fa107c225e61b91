"""What vendors send by themselves: delivery of messages, and messages that people wrote.

The vendor's signature is their authentication.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.requests import ClientDisconnect

from app.api.errors import Refused
from app.api.guard import LARGEST_BODY, too_large
from app.api.models import Error

BODY_SECONDS: Final = 10.0


class Answer(Protocol):
    """What the messages service answers."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> str: ...


class MessageHooks(Protocol):
    """What the API needs of the messages service. `url` is the address that the vendor called."""

    async def whatsapp_challenge(self, query: Mapping[str, str]) -> Answer: ...
    async def take_whatsapp(self, headers: Mapping[str, str], body: bytes) -> Answer: ...
    async def take_twilio_status(self, headers: Mapping[str, str], body: bytes, url: str) -> Answer: ...
    async def take_chat(self, headers: Mapping[str, str], body: bytes) -> Answer: ...


_TEXT: dict[str, Any] = {"content": {"text/plain": {}, "application/json": {}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "taken", "content": {"text/plain": {}, "text/xml": {}}},
    400: {"description": "not what the vendor sends", **_TEXT},
    401: {"description": "no or a wrong signature", **_TEXT},
    403: {"description": "the wrong token", **_TEXT},
    408: {"model": Error, "description": "the body did not come in time"},
    413: {"description": "the body is too large", **_TEXT},
    503: {"description": "busy, or it could not be stored: send it again", **_TEXT},
}


def router(messages: MessageHooks, public_url: str) -> APIRouter:
    """The webhooks of the messages service; `public_url` is how vendors call this server."""
    routes = APIRouter(
        prefix="/webhooks", tags=["webhooks"], responses=_RESPONSES, default_response_class=PlainTextResponse
    )

    @routes.get("/whatsapp", operation_id="whatsapp_challenge")
    async def whatsapp_challenge(request: Request) -> Response:
        """Meta's question whether this address is ours."""
        return _response(await messages.whatsapp_challenge(dict(request.query_params)))

    @routes.post("/whatsapp", operation_id="whatsapp_events")
    async def whatsapp(request: Request) -> Response:
        """Delivery on WhatsApp and what people wrote, signed with the app secret."""
        return _response(await messages.take_whatsapp(_headers(request), await _body(request)))

    @routes.post("/twilio/messages", operation_id="twilio_message_status")
    async def twilio(request: Request) -> Response:
        """Delivery of text messages and those that came in, signed with the account's token."""
        url = called_url(request, public_url)
        return _response(await messages.take_twilio_status(_headers(request), await _body(request), url))

    @routes.post("/chat", operation_id="chat_events")
    async def chat(request: Request) -> Response:
        """Delivery of chat messages, signed as a Standard Webhook."""
        return _response(await messages.take_chat(_headers(request), await _body(request)))

    return routes


def called_url(request: Request, public_url: str) -> str:
    """The address as the vendor wrote it, which its signature covers: never decoded and encoded again."""
    path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    query = request.scope["query_string"].decode("latin-1")
    base = public_url.rstrip("/") or f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    return f"{base}{path}{'?' + query if query else ''}"


async def _body(request: Request) -> bytes:
    """The body, as long as it is small and comes in time."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > LARGEST_BODY:
                    raise too_large()
                parts.append(part)
    except TimeoutError:
        raise Refused(408, "The body did not come in time", code="slow_body") from None
    except ClientDisconnect:
        raise Refused(400, "The connection ended before the body", code="cut_off") from None
    return b"".join(parts)


def _headers(request: Request) -> dict[str, str]:
    return dict(request.headers.items())


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, {"content-type": answer.content_type})
