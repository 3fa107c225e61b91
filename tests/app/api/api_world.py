"""The API over services that answer from lists, and ways to ask it: in memory and over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.api import ApiOptions, ApiServer, create_app
from app.api.server import listen
from services.health.model import CheckView, HealthView, Overall
from services.integrations.messages.webhooks import NOT_SIGNED, OK, Answer, challenge_of
from services.resilience import Policies
from services.security import Secret
from tests.app.fakes import FakeServices
from tests.support.fake_health import healthy
from tests.support.fake_time import FakeTime

TOKEN = "vV3kq-canary-token-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class WatchedHealth:
    """A health service whose view a test sets."""

    shown: HealthView = field(default_factory=healthy)
    is_ready: bool = True
    views: int = 0
    failure: Exception | None = None

    def view(self) -> HealthView:
        self.views += 1
        if self.failure is not None:
            raise self.failure
        return self.shown

    async def ready(self) -> bool:
        return self.is_ready


@dataclass
class TakenHooks:
    """A messages service that notes what vendors sent."""

    taken: list[tuple[Any, ...]] = field(default_factory=list)

    async def whatsapp_challenge(self, query: Mapping[str, str]) -> Answer:
        return challenge_of(query, ["known"])

    async def take_whatsapp(self, headers: Mapping[str, str], body: bytes) -> Answer:
        self.taken.append((dict(headers), body))
        return OK

    async def take_twilio_status(self, headers: Mapping[str, str], body: bytes, url: str) -> Answer:
        self.taken.append((dict(headers), body, url))
        return OK

    async def take_chat(self, headers: Mapping[str, str], body: bytes) -> Answer:
        return NOT_SIGNED


class ApiServices(FakeServices):
    """The services that the API looks at."""

    def __init__(self, view: HealthView | None = None, time: FakeTime | None = None) -> None:
        super().__init__()
        self.time = time or FakeTime()
        self.clock = self.time  # type: ignore[assignment]
        self.health = WatchedHealth(view or healthy())
        self.messages = TakenHooks()
        self.policies = Policies(self.time)


def api_of(services: ApiServices, *, token: str | None = TOKEN, **options: Any) -> Any:
    """The application, with ids that count."""
    numbers = itertools.count(1)
    more = {"new_id": lambda: f"r{next(numbers)}", **options}
    return create_app(services, ApiOptions(token=Secret(token) if token else None, **more))  # type: ignore[arg-type]


def client_of(app: Any, *, client: str = "192.0.2.7", **more: Any) -> httpx.AsyncClient:
    """A client without a socket."""
    transport = httpx.ASGITransport(app, client=(client, 4711), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8470", **more)


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[ApiServer]:
    """The application on a port of loopback."""
    server = ApiServer(app, listen([(socket.AF_INET, "127.0.0.1")], 0))
    await server.start()
    try:
        yield server
    finally:
        await server.aclose()


def port_of(server: ApiServer) -> int:
    return int(server.urls[0].rpartition(":")[2])


async def said(server: ApiServer, raw: bytes, *, patience: float = 20) -> bytes:
    """Everything the server answers to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    try:
        writer.write(raw)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        parts = []
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(patience):
                while part := await reader.read(65536):
                    parts.append(part)
        return b"".join(parts)
    finally:
        writer.close()


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def of_checks(*checks: CheckView, overall: Overall = Overall.HEALTHY, reason: str = "") -> HealthView:
    return HealthView(overall, reason, checks, 1_772_366_400_000)
