"""A lane: one connection to one server, over which one request at a time goes out.

httpx brings requests, responses and their decoding, httpcore speaks HTTP/1.1. Left out are httpx' client and
httpcore's pool: cookies, redirects and the care for connections in the plural cost more than the exchange of
a small document itself. Where the environment names a proxy the whole client is used, which knows the rules.
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import httpcore
import httpx

KEPT: Final = 5.0
"""Seconds an unused connection is kept: servers close theirs, too, and a request must not meet that."""


class Lane(Protocol):
    """Sends one request at a time and keeps its connection for the next."""

    async def send(self, request: httpx.Request) -> httpx.Response:
        """The response, its body still to be read and closed. Raises what httpx raises."""
        ...

    async def aclose(self) -> None:
        """Close the connection, whatever goes on over it."""
        ...


def lane_to(context: ssl.SSLContext, *, local: bool) -> Lane:
    """A new lane; it connects with its first request. `local`: to this machine, where no proxy counts."""
    return _Direct(context) if local or not urllib.request.getproxies() else _Proxied(context)


class _Direct:
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._connection: httpcore.AsyncHTTPConnection | None = None

    async def send(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        sent = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        connection = await self._connected(sent.url.origin)
        with _as_httpx():
            answer = await connection.handle_async_request(sent)
        body = _Body(answer)
        return httpx.Response(answer.status, headers=answer.headers, stream=body, request=request)

    async def _connected(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """The connection, or a new one where it is gone or was unused for too long."""
        known = self._connection
        if known is not None and not known.is_closed() and not known.has_expired():
            return known
        if known is not None:
            await known.aclose()
        self._connection = httpcore.AsyncHTTPConnection(origin, self._context, keepalive_expiry=KEPT)
        return self._connection

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.aclose()


class _Proxied:
    def __init__(self, context: ssl.SSLContext) -> None:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEPT)
        self._client = httpx.AsyncClient(verify=context, limits=limits, follow_redirects=False)

    async def send(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, stream=True)

    async def aclose(self) -> None:
        await self._client.aclose()


class _Body(httpx.AsyncByteStream):
    """A body on its way in."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._answer.aiter_stream():
                yield part

    async def aclose(self) -> None:
        with _as_httpx():
            await self._answer.aclose()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise httpcore's failures as those of httpx, which have the same names."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
        httpcore.ConnectionNotAvailable,
    ) as error:
        known: type[httpx.TransportError] = getattr(httpx, type(error).__name__, httpx.NetworkError)
        raise known(str(error)) from error
