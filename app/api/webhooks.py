"""What vendors send by themselves: delivery of messages. The vendor's signature is their authentication."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Path, Request, Response
from starlette.requests import ClientDisconnect

from app.api.errors import Refused
from app.api.guard import LARGEST_BODY, too_large
from app.api.models import Error

BODY_SECONDS: Final = 10.0
Answer = tuple[int, bytes | str, str]
"""Status, body, content type."""


class MessageHooks(Protocol):
    """What the API needs of the messages service. `url` is the address that the vendor called."""

    async def whatsapp_challenge(self, integration_id: int, query: Mapping[str, str]) -> Answer: ...
    async def take_whatsapp(self, integration_id: int, headers: Mapping[str, str], body: bytes) -> Answer: ...
    async def take_twilio_status(
        self, integration_id: int, headers: Mapping[str, str], body: bytes, url: str
    ) -> Answer: ...


Integration = Annotated[int, Path(ge=1, le=2**31 - 1, description="the id of the integration")]
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "taken", "content": {"text/plain": {}, "text/xml": {}, "application/json": {}}},
    400: {"description": "not what the vendor sends", "content": {"text/plain": {}, "application/json": {}}},
    401: {"description": "no or a wrong signature", "content": {"text/plain": {}, "application/json": {}}},
    403: {"description": "no or a wrong signature", "content": {"text/plain": {}, "application/json": {}}},
    404: {"description": "no such integration", "content": {"text/plain": {}, "application/json": {}}},
    408: {"model": Error, "description": "the body did not come in time"},
    413: {"model": Error, "description": "the body is too large"},
    422: {"model": Error, "description": "the id is no number"},
    503: {"model": Error, "description": "busy, or the database does not answer"},
}


def router(messages: MessageHooks, public_url: str) -> APIRouter:
    """The webhooks of the messages service; `public_url` is how vendors call this server."""
    routes = APIRouter(prefix="/webhooks", tags=["webhooks"], responses=_RESPONSES)

    @routes.get("/whatsapp/{integration_id}", operation_id="whatsapp_challenge")
    async def whatsapp_challenge(integration_id: Integration, request: Request) -> Response:
        """Meta's question whether this address is ours."""
        return _response(await messages.whatsapp_challenge(integration_id, dict(request.query_params)))

    @routes.post("/whatsapp/{integration_id}", operation_id="whatsapp_events")
    async def whatsapp(integration_id: Integration, request: Request) -> Response:
        """Delivery and replies on WhatsApp."""
        body = await _body(request)
        return _response(await messages.take_whatsapp(integration_id, _headers(request), body))

    @routes.post("/twilio/messages/{integration_id}", operation_id="twilio_message_status")
    async def twilio(integration_id: Integration, request: Request) -> Response:
        """Delivery of text messages."""
        body = await _body(request)
        url = called_url(request, public_url)
        return _response(await messages.take_twilio_status(integration_id, _headers(request), body, url))

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
    status, body, content_type = answer
    return Response(body, status, media_type=content_type or "text/plain")
