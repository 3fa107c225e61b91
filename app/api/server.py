"""The listening end: uvicorn inside a running loop, with the limits that it does not have itself."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.errors import JSON, Refused
from app.api.guard import LARGEST_HEAD
from services.errors import Category, ServiceError

MOST_CONNECTIONS: Final = 512
HEAD_SECONDS: Final = 10.0
"""For a whole request line with its headers, from the connection or from the answer before."""
IDLE_SECONDS: Final = 30
DRAIN_SECONDS: Final = 5

log = logging.getLogger(__name__)


class _Protocol(H11Protocol):
    """Ends connections that send nothing, or their headers a byte at a time, and those beyond the limit.

    uvicorn bounds only the time between an answer and the next byte. What it answers by itself is given
    our shape.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(
                Refused(
                    503,
                    "Too many connections are open",
                    code="busy",
                    category=Category.TRANSIENT,
                    advice="Close some, or try again in a few seconds",
                )
            )
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._met()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._met()
        elif not self.transport.is_closing():
            self._arm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The beginning of the next request came along with the one that has been answered.
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._arm()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer is under way already
            return
        self._refuse(
            Refused(400, "This is no HTTP request that can be read", code="bad_request", advice="Correct it")
        )

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _met(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(Refused(408, "The request did not come in time", code="slow_request"))

    def _refuse(self, refused: Refused) -> None:
        self._met()
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        body = refused.body
        head = (
            f"HTTP/1.1 {refused.status} {_PHRASES[refused.status]}\r\ncontent-type: {JSON}\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("latin-1") + body)
        self.transport.close()


_PHRASES: Final = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class ApiServer:
    """Serves one application on some sockets. Installs no signal handlers: its owner closes it."""

    def __init__(self, app: Any, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            h11_max_incomplete_event_size=LARGEST_HEAD,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)

    @property
    def urls(self) -> list[str]:
        """Where it listens: one address for each socket."""
        places = [listener.getsockname()[:2] for listener in self._sockets]
        return [
            f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in places
        ]

    async def start(self) -> None:
        await self._server.startup(sockets=self._sockets)

    async def aclose(self) -> None:
        """Take no more requests, finish those under way, then end every connection. May be called twice."""
        sockets, self._sockets = self._sockets, []
        if not sockets:
            return
        if self._server.started:
            await self._server.shutdown(sockets)
        for listener in sockets:
            listener.close()


def listen(addresses: Sequence[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    """Bound sockets, all on one port. Raises `ServiceError` when the port is taken or not allowed.

    Of a name with several addresses those that this machine does not have (`::1` without IPv6) are left out.
    """
    opened: list[socket.socket] = []
    absent: ServiceError | None = None
    try:
        for family, address in addresses:
            try:
                opened.append(_bound(family, address, port))
            except ServiceError as error:
                if error.code != "no_address":
                    raise
                absent = error
            port = port or (opened[0].getsockname()[1] if opened else 0)
        if absent is not None and not opened:
            raise absent
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener: socket.socket | None = None
    try:
        # asyncio turns Nagle's algorithm off only where the protocol is named.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        # Listening now tells a port that is taken; bind alone may not when both sides reuse addresses.
        listener.listen(256)
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        raise _cannot(address, port, getattr(error, "errno", None)) from error
    return listener


def _cannot(address: str, port: int, number: int | None) -> ServiceError:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    code = "port_busy"
    if number == errno.EADDRINUSE:
        what, advice = "is in use by another program", "Choose another port, or 0 to have one chosen"
    elif number in (errno.EACCES, errno.EPERM):
        what, advice = "may not be opened by this user", "Choose a port from 1024 on"
    elif number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        code = "no_address"
        what, advice = "is no address of this machine", "Use 127.0.0.1, or an address that this machine has"
    else:
        what, advice = "cannot be opened", "Choose another address or port"
    return ServiceError(f"{where} {what}", advice=advice, code=code)
