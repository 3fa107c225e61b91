"""What stands before every route: limits, the Host header, one shape for failures, headers, the access log.

Plain ASGI, so that it also sees what the framework itself answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any, Final

from app.api.errors import JSON, LONGEST, Refused, broken
from services.errors import Category

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY: Final = 1_000_000
LARGEST_HEAD: Final = 16_384
"""Bytes of the address and all headers."""
MOST_REQUESTS: Final = 64
"""Answered at the same time; one more is told to come back."""
PATIENCE: Final = 15.0
"""Seconds for one answer, the reading of its body included."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)

log = logging.getLogger(__name__)
access_log = logging.getLogger("callboard.access")


class Exchange:
    """One request on its way: what the log and the metrics tell of it."""

    def __init__(self, scope: Scope, request_id: bytes, client: str) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.request_id = request_id
        self.client = client
        self.status = 0
        self.size = 0
        self.route = "other"
        """The template of the address, so that the number of different ones is bounded."""


class Guard:
    """The middleware. `hosts`: names that a Host header may have, None for any."""

    def __init__(
        self,
        app: App,
        *,
        new_id: Callable[[], str],
        hosts: frozenset[str] | None,
        behind_proxy: bool,
        on_end: Callable[[Exchange, float], None],
        most_requests: int = MOST_REQUESTS,
        patience: float = PATIENCE,
    ) -> None:
        self._app = app
        self._new_id = new_id
        self._hosts = hosts
        self._behind_proxy = behind_proxy
        self._on_end = on_end
        self._most = most_requests
        self._patience = patience
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        client = client_of(scope, self._behind_proxy)
        exchange = Exchange(scope, self._id_of(headers), client)
        answer = _Answer(send, exchange, headers)
        scope = {**scope, "method": "GET" if exchange.method == "HEAD" else exchange.method}
        scope["state"] = {**scope.get("state", {}), "client": client}
        started = time.perf_counter()
        self._running += 1
        try:
            self._check(scope)
            async with asyncio.timeout(self._patience):
                await self._app(scope, receive, answer)
        except Refused as refused:
            await answer.refuse(refused)
        except TimeoutError:
            await answer.refuse(_slow())
        except Exception:
            log.exception("a request failed, id %s", exchange.request_id.decode())
            await answer.refuse(broken())
        finally:
            self._running -= 1
            took = time.perf_counter() - started
            exchange.route = getattr(scope.get("route"), "path", "other")
            self._on_end(exchange, took)
            _log(exchange, took)

    def _id_of(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The id that a proxy gave the request, or a new one."""
        given = next((value for name, value in headers if name == b"x-request-id"), b"")
        return given if _REQUEST_ID.fullmatch(given) else self._new_id().encode()

    def _check(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self._running > self._most:
            raise Refused(
                503,
                f"More than {self._most} requests are being answered already",
                code="busy",
                category=Category.TRANSIENT,
                advice="Try again in a second",
                headers={"Retry-After": "1"},
            )
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size + sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
            raise Refused(
                431,
                f"The address and the headers are larger than {LARGEST_HEAD // 1024} KB together",
                code="large_head",
                advice="Send shorter ones",
            )
        if self._hosts is not None:
            host = next((value for name, value in headers if name == b"host"), b"")
            if host_name(host.decode("latin-1")) not in self._hosts:
                raise Refused(
                    421,
                    "This server is not known by the name that the Host header gives",
                    code="wrong_host",
                    advice="Use 127.0.0.1 or localhost, or start it with a token or --public-url",
                )
        length = next((value for name, value in headers if name == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > LARGEST_BODY:
            raise too_large()


class _Answer:
    """Sends on what the application answers, with our headers, and knows how far it came."""

    def __init__(self, send: Send, exchange: Exchange, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._exchange = exchange
        self._head = exchange.method == "HEAD"
        # The rest of a body that nobody reads could come a byte at a time, forever.
        self._close = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
            ours = {name for name, _ in _SECURITY}
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in ours]
            stamp = (
                (b"date", formatdate(usegmt=True).encode()),
                (b"x-request-id", self._exchange.request_id),
            )
            end = ((b"connection", b"close"),) if self._close else ()
            message = {**message, "headers": [*kept, *_SECURITY, *stamp, *end]}
        elif message["type"] == "http.response.body":
            self._exchange.size += len(message.get("body", b""))
            if self._head:
                message = {**message, "body": b""}
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Answer with an error, unless an answer is under way: then the connection just ends."""
        if self._exchange.status:
            raise ConnectionResetError("an answer broke off")
        body = refused.body
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in refused.headers.items()
        ]
        headers += [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
        await self({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def too_large() -> Refused:
    return Refused(
        413,
        f"The body is larger than {LARGEST_BODY // 1_000_000} MB",
        code="too_large",
        advice="Send less at once",
    )


def _slow() -> Refused:
    return Refused(
        503,
        "The answer took too long",
        code="slow",
        category=Category.TIMEOUT,
        advice="Try again; if it stays slow, look at /health/dependencies",
        headers={"Retry-After": "5"},
    )


def client_of(scope: Scope, behind_proxy: bool) -> str:
    """The address of who asks; what a proxy on this machine says of it where one is expected."""
    peer = str((scope.get("client") or ("", 0))[0])
    if not behind_proxy or not is_loopback(peer):
        return peer
    told = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    last = told[-1].decode("latin-1").rpartition(",")[2].strip() if told else ""
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return peer


def is_loopback(address: str) -> bool:
    """Whether this address (no name) is reached from this machine alone."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in small letters."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _log(exchange: Exchange, took: float) -> None:
    """One line, never with the query: it may hold what a vendor or a person must not see again."""
    path = exchange.path if len(exchange.path) <= LONGEST else exchange.path[:LONGEST] + "…"
    access_log.info(
        "%s %s %s %d %d %.1f ms %s",
        exchange.client or "-",
        exchange.method if exchange.method.isalpha() else "?",
        ascii(path)[1:-1],
        exchange.status,
        exchange.size,
        took * 1000,
        exchange.request_id.decode(),
    )
