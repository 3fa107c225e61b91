"""WebSockets on the simulator's ports: one object for a connection, and where handlers are registered.

A vendor has `sockets: SocketRoutes`. To serve one:

    vendor.sockets.add("/v2/monitor-call/*", self._monitor)          # kind "call" for statistics and faults

    async def _monitor(self, socket: Socket, ids: list[str], query: dict[str, str],
                       headers: Mapping[bytes, bytes]) -> None:
        if not allowed:
            await socket.refuse(failure(401))        # an HTTP answer instead of the upgrade, or
        await socket.accept("chosen-subprotocol")    # accept first, then close with a code of your own
        ...
        await socket.send_text(text)
        await socket.close(1000, "call_ended")

Everything that waits raises `Closed` once the connection has ended, whoever ended it; a handler may let it
pass. When the handler returns, the socket is closed with 1000; when it raises, with 1011. When the simulator
stops, the handler's task is cancelled and awaited: `finally` blocks run, then the peer gets 1012.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from services.simulator.wire import Reply, Router

Message = dict[str, Any]

MOST_BYTES = 64 * 1024 * 1024
"""Larger messages of a client close its connection with 1009."""


class Closed(Exception):
    """The connection has ended. `code` is 1005 when the peer gave none, 1006 when it just went away."""

    def __init__(self, code: int = 1005, reason: str = "") -> None:
        super().__init__(f"closed with {code} {reason}".strip())
        self.code = code
        self.reason = reason


class Socket:
    """One WebSocket. Sending may be done by several tasks, receiving by one."""

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        transport: asyncio.Transport,
        subprotocols: Sequence[str] = (),
    ) -> None:
        self._receive = receive
        self._send = send
        self._transport = transport
        self._connected = False
        self._gone = False
        self._broken = False
        self.subprotocols = tuple(subprotocols)
        """What the client offers."""
        self.accepted = False
        self.refused: int | None = None
        """Status of the HTTP answer that was given instead of an upgrade."""
        self.ended: Closed | None = None

    async def accept(self, subprotocol: str = "") -> None:
        """Answer the upgrade with 101."""
        await self._connect()
        await self._out({"type": "websocket.accept", "subprotocol": subprotocol or None})
        self.accepted = True

    async def refuse(self, reply: Reply) -> None:
        """Answer the upgrade with `reply`, as plain HTTP."""
        await self._connect()
        headers = [*reply.headers, (b"content-type", reply.content_type)]
        start = {"type": "websocket.http.response.start", "status": reply.status, "headers": headers}
        self.refused = reply.status
        await self._out(start)
        await self._out({"type": "websocket.http.response.body", "body": reply.body})
        self.ended = Closed(1006)

    async def receive(self) -> str | bytes:
        """The next message. Raises `Closed`."""
        if self._gone and self.ended is not None:
            raise self.ended
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self._gone = True
            if self.ended is None or self._broken:
                self.ended = Closed(message.get("code") or 1005, message.get("reason") or "")
            raise self.ended
        text: str | None = message.get("text")
        return text if text is not None else bytes(message.get("bytes") or b"")

    async def receive_text(self) -> str:
        """The next message as text. Raises `Closed`; binary that is not UTF-8 shows as “�”."""
        message = await self.receive()
        return message if isinstance(message, str) else message.decode("utf-8", "replace")

    async def receive_bytes(self) -> bytes:
        """The next message as bytes. Raises `Closed`."""
        message = await self.receive()
        return message.encode() if isinstance(message, str) else message

    async def send_text(self, text: str) -> None:
        await self._out({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        await self._out({"type": "websocket.send", "bytes": data})

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake; nothing when it has ended already. A reason is cut to 123 bytes."""
        if self.ended is not None or not self.accepted:
            return
        ended = Closed(code, reason.encode()[:123].decode("utf-8", "ignore"))
        try:
            await self._out({"type": "websocket.close", "code": code, "reason": ended.reason})
        except Closed:
            return
        self.ended = ended

    def abort(self) -> None:
        """Break the connection off, as a crash or a failing network does."""
        self.ended = self.ended or Closed(1006)
        self._transport.abort()

    async def _connect(self) -> None:
        if not self._connected:
            self._connected = True
            message = await self._receive()
            if message["type"] != "websocket.connect":
                self.ended = Closed(1006)
                raise self.ended

    async def _out(self, message: Message) -> None:
        if self.ended is not None:
            raise self.ended
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            # The peer has gone; `receive` will say how.
            self._broken = self._broken or self.ended is None
            self.ended = self.ended or Closed(1006)
            raise self.ended from error


class SocketHandler(Protocol):
    """Serves one connection; see the module's text."""

    async def __call__(
        self, socket: Socket, ids: list[str], query: dict[str, str], headers: Mapping[bytes, bytes], /
    ) -> None: ...


class SocketRoutes:
    """Where a vendor's sockets are."""

    _METHOD = "SOCKET"

    def __init__(self) -> None:
        self._router = Router()

    def add(self, template: str, handler: SocketHandler, kind: str = "call") -> None:
        """`template` marks variables as `*`; their values are the handler's `ids`."""
        self._router.add(self._METHOD, template, kind, handler)

    def find(self, path: str) -> tuple[SocketHandler, str, str, list[str]] | None:
        """Handler, kind, template and ids for a path."""
        route, ids = self._router.find(self._METHOD, path)
        return None if route is None else (route.handler, route.kind, route.template, ids)
