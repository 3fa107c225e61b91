"""Pages of the web read for the knowledge base: public addresses only, few redirects, bounded size and time.

An address that somebody types, or that a page redirects to, must not become a way into this machine's own
network: every address a name resolves to is checked, and the connection is made to the address that was
checked, not to the name once more.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import httpcore
import httpx

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.http import failures
from services.http.failures import Peer
from services.resilience import RetryOptions
from services.resilience.retry import Sleep, retry
from services.text import clean_line

MOST_BYTES: Final = 20 * 1024 * 1024
MOST_REDIRECTS: Final = 5
TIMEOUT: Final = 60.0
"""Seconds one attempt may take, redirects included."""
_RETRY: Final = RetryOptions(attempts=3, budget=90.0)
_ACCEPT: Final = "text/html, text/markdown, text/plain, application/pdf;q=0.9, */*;q=0.1"


@dataclass(frozen=True, slots=True)
class Page:
    """What an address gave. `url` is where the redirects ended, `name` the last part of its path."""

    url: str
    data: bytes
    media_type: str
    name: str


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How pages are read. `private`: whether addresses of this machine and its network may be read."""

    clock: Clock
    user_agent: str = "callboard"
    private: bool = False
    sleep: Sleep = asyncio.sleep
    rng: random.Random | None = None
    timeout: float = TIMEOUT


async def fetch(url: str, options: FetchOptions) -> Page:
    """The page behind an address. Raises UsageError for an address that cannot be read, else ServiceError."""
    address = checked_url(url)
    return await retry(
        lambda attempt: _once(address, options),
        _RETRY,
        clock=options.clock,
        sleep=options.sleep,
        rng=options.rng or random.Random(),
    )


def checked_url(url: str) -> str:
    """The address without a fragment. Raises UsageError for what is none, or carries a password."""
    text = url.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme.lower() not in ("http", "https") or not host or port == 0 or any(c <= " " for c in text):
        raise UsageError(
            f"{clean_line(text)[:200] or 'An empty text'} is not an address of the web",
            advice="Give one that begins with https:// or http://",
            code="bad_url",
        )
    if parts.username is not None or parts.password is not None:
        # Not repeated: what stands before the @ may be a password.
        raise UsageError(
            "The address carries a user name or a password",
            advice="Only pages that need no login can be read; download the file and add that",
            code="bad_url",
        )
    return parts._replace(fragment="").geturl()


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large, also where one hides inside another."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner: Iterable[Any] = ()
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = [*inner, ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    found = [part for part in inner if part is not None]
    if found:
        return all(is_public(str(part)) for part in found)
    return ip.is_global and not ip.is_multicast


async def _once(url: str, options: FetchOptions) -> Page:
    peer = _peer(url)
    try:
        async with asyncio.timeout(options.timeout), _client(options) as client:
            for _ in range(MOST_REDIRECTS + 1):
                peer = _peer(url)
                async with client.stream("GET", url) as response:
                    if response.is_redirect:
                        url = _next(url, response.headers.get("location", ""))
                        continue
                    if not response.is_success:
                        raise _refused(peer, response, options.clock)
                    data = await _body(response, peer)
                    kind = response.headers.get("content-type", "")
                    return Page(url, data, kind, _name(url))
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, TimeoutError) as exc:
        failure = failures.from_transport(peer, exc, options.timeout)
    else:
        failure = ServiceError(
            f"{peer} redirects more than {MOST_REDIRECTS} times",
            advice="Open it in a browser and give the address it ends at",
            code="redirects",
        )
    raise failure


def _next(url: str, location: str) -> str:
    try:
        return checked_url(urljoin(url, location))
    except ValueError:
        return checked_url(location)


async def _body(response: httpx.Response, peer: Peer) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes(65536):
        size += len(part)
        if size > MOST_BYTES:
            raise ServiceError(
                f"{peer.host} sends more than {MOST_BYTES // 1048576} MB, the most that is read of a page",
                advice="Download it, and add the part that matters as a file",
                code="too_large",
            )
        parts.append(part)
    return b"".join(parts)


def _refused(peer: Peer, response: httpx.Response, clock: Clock) -> ServiceError:
    status, reason = response.status_code, response.reason_phrase.lower()
    wait = failures.retry_after(response.headers, clock.now())
    categories = {429: Category.RATE_LIMIT, 408: Category.TIMEOUT, 504: Category.TIMEOUT}
    category = categories.get(status, Category.TRANSIENT if status >= 500 else Category.PERMANENT)
    advice = "Open it in a browser; if it asks for a login there, download the file and add that"
    if category is not Category.PERMANENT:
        advice = "Try again later"
    return ServiceError(
        f"{peer.host} answered {status} {clean_line(reason)}".rstrip(),
        category=category,
        advice=advice,
        code="page_refused",
        retry_after=wait,
    )


def _peer(url: str) -> Peer:
    parts = urlsplit(url)
    return Peer("The website", parts.netloc, parts.scheme)


def _name(url: str) -> str:
    parts = urlsplit(url)
    return clean_line(unquote(parts.path.rstrip("/").rpartition("/")[2])) or parts.netloc


def _client(options: FetchOptions) -> httpx.AsyncClient:
    guard = _Guard(options.private)
    return httpx.AsyncClient(
        transport=_Transport(guard),
        # A smaller window for bodies that unpack to a thousand times their size.
        headers={"user-agent": options.user_agent, "accept": _ACCEPT, "accept-encoding": "identity"},
        timeout=httpx.Timeout(options.timeout, connect=10.0),
        follow_redirects=False,
        # A proxy would resolve the name once more, where nothing checks what comes out.
        trust_env=False,
    )


class _Transport(httpx.AsyncHTTPTransport):
    """httpx over connections that the guard makes."""

    def __init__(self, guard: _Guard) -> None:
        context = httpx.create_ssl_context(trust_env=True)
        super().__init__(verify=context)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=1, network_backend=guard, http1=True
        )


class _Guard(httpcore.AsyncNetworkBackend):
    """Resolves names itself, refuses what is not public, and connects to what it checked."""

    def __init__(self, private: bool) -> None:
        self._private = private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._private:
            closed = [address for address in addresses if not is_public(address)]
            if closed:
                raise ServiceError(
                    f"{clean_line(host)} is an address inside this network ({closed[0]}), which is not read",
                    advice="Allow it with --allow-private if the page is meant; or add its file",
                    code="private_address",
                )
        failure: Exception = httpcore.ConnectError("no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("no sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
