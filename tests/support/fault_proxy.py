"""A TCP proxy between a client and a server, with faults that can be switched while connections are open.

    async with fault_proxy(server_url) as proxy:
        client = connect(proxy.url)
        proxy.fault = Fault("black hole", silent=True)

What a fault does, it does from the next request (or the next part of an answer) on, also on connections
that were open before. Answers in the server's stead need to know where a request begins: a client's first
bytes after an answer, which holds for every client that waits for its answer. An upgraded connection (a
web socket) is passed on as it is; of the faults only those that need no HTTP strike it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

_CHUNK: Final = 64 * 1024
_SLICE: Final = 0.05
"""Seconds between two parts of a trickled answer."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """What goes wrong on the way. Without anything set nothing does. Times in seconds."""

    name: str
    latency: float = 0.0
    jitter: float = 0.0
    """The answer comes later by `latency` and up to `jitter` more."""
    reset: Literal["", "request", "answer"] = ""
    """RST: as soon as a connection or a request comes, or in the middle of the answer."""
    silent: bool = False
    """Connections are taken and requests swallowed; nothing ever comes back, also after the fault's end."""
    rate: float = 0.0
    """Bytes a second that an answer comes in; 0: as fast as it can."""
    answer: bytes = b""
    """Sent in the server's stead; `close` says whether the connection ends after it."""
    close: bool = False


CLEAR: Final = Fault("none")


def latency(seconds: float, jitter: float = 0.0) -> Fault:
    return Fault("latency", latency=seconds, jitter=jitter)


def resets(at: Literal["request", "answer"] = "request") -> Fault:
    return Fault("resets" if at == "request" else "resets in the middle", reset=at)


def black_hole() -> Fault:
    return Fault("black hole", silent=True)


def trickle(rate: float) -> Fault:
    return Fault("trickle", rate=rate)


def storm(retry_after: str = "") -> Fault:
    """Every request is answered 429, with `retry-after` if that is given."""
    headers = f"retry-after: {retry_after}\r\n" if retry_after else ""
    return Fault("429 storm", answer=_http(429, b'{"status":"error","message":"Too many requests"}', headers))


def garbage(seed: int = 1) -> Fault:
    """Bytes that are no HTTP."""
    return Fault("garbage", answer=random.Random(seed).randbytes(512), close=True)


def half_json() -> Fault:
    """A proper answer whose JSON stops in the middle."""
    whole = json.dumps({"items": [{"agent_id": f"agent_{n}", "agent_name": "x" * 20} for n in range(20)]})
    return Fault("half JSON", answer=_http(200, whole[: len(whole) // 2].encode()))


def _http(status: int, body: bytes, headers: str = "") -> bytes:
    headers = f"content-type: application/json\r\n{headers}content-length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} X\r\n{headers}\r\n".encode() + body


@dataclass
class FaultProxy:
    """A running proxy. `counts`: requests by the name of the fault that struck them (`none` for none)."""

    target: str
    url: str = ""
    fault: Fault = CLEAR
    counts: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    """How many were ever taken."""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _listener: asyncio.Server | None = None

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._tasks)

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()[:2]
        parts = urlsplit(self.target)
        self.url = f"http://{host}:{port}{parts.path.rstrip('/')}"

    async def aclose(self) -> None:
        """Ends every connection and waits until nothing of them is left."""
        if self._listener is not None:
            self._listener.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(_Connection(self, reader, writer).run())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counts[f"failed in the proxy: {type(error).__name__}"] += 1


@asynccontextmanager
async def fault_proxy(target: str) -> AsyncIterator[FaultProxy]:
    """A proxy to `target` (a base URL) on a free loopback port, until the block ends."""
    proxy = FaultProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()


class _Connection:
    """One client's connection and, once something was passed on, the server's."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server: asyncio.StreamWriter | None = None
        self._answers: asyncio.Task[None] | None = None
        self._answering = False
        """Whether the server has the word: what the client sends now belongs to its last request."""
        self._tunnel = False

    async def run(self) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._converse()
        finally:
            if self._answers is not None:
                self._answers.cancel()
                await asyncio.gather(self._answers, return_exceptions=True)
            for writer in (self._server, self._writer):
                if writer is not None:
                    writer.transport.abort()

    async def _converse(self) -> None:
        proxy = self._proxy
        if proxy.fault.reset == "request":
            proxy.counts[proxy.fault.name] += 1
            self._reset()
            return
        while data := await self._reader.read(_CHUNK):
            fault = proxy.fault
            begins = not self._answering and not self._tunnel
            if begins:
                proxy.counts[fault.name] += 1
            if fault.silent:
                await self._swallow()
                return
            if fault.reset == "request":
                self._reset()
                return
            if fault.answer and begins:
                await self._rest_of_request(data)
                self._writer.write(fault.answer)
                await self._writer.drain()
                if fault.close:
                    return
                continue
            self._answering = True
            self._tunnel = self._tunnel or (begins and _UPGRADE.search(data) is not None)
            server = await self._passed_on()
            server.write(data)
            await server.drain()
        # The client has closed; what the server still says reaches nobody.

    async def _passed_on(self) -> asyncio.StreamWriter:
        if self._server is None:
            parts = urlsplit(self._proxy.target)
            reader, self._server = await asyncio.open_connection(parts.hostname, parts.port)
            self._answers = asyncio.create_task(self._answer(reader))
        return self._server

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        """Passes on what the server sends, as the fault of the moment lets it."""
        proxy = self._proxy
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                begins, self._answering = self._answering, False
                late = proxy.fault.latency + proxy.rng.uniform(0, proxy.fault.jitter)
                if begins and late > 0:
                    await asyncio.sleep(late)
                if proxy.fault.silent:
                    continue
                if proxy.fault.reset == "answer":
                    self._writer.write(data[: len(data) // 2])
                    with contextlib.suppress(OSError):
                        await self._writer.drain()
                    self._reset()
                    return
                await self._send(data)
        self._writer.close()  # as the server did; it ends `_converse` too

    async def _send(self, data: bytes) -> None:
        while data and self._proxy.fault.rate > 0:
            size = max(1, round(self._proxy.fault.rate * _SLICE))
            self._writer.write(data[:size])
            data = data[size:]
            await self._writer.drain()
            await asyncio.sleep(_SLICE)
        self._writer.write(data)
        await self._writer.drain()

    async def _swallow(self) -> None:
        while await self._reader.read(_CHUNK):
            pass

    async def _rest_of_request(self, data: bytes) -> None:
        """Reads a request whose first bytes are `data` to its end."""
        while b"\r\n\r\n" not in data:
            data += await self._some()
        head, _, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        left = int(length[1]) - len(body) if length else 0
        while left > 0:
            left -= len(await self._some())

    async def _some(self) -> bytes:
        data = await self._reader.read(_CHUNK)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        return data

    def _reset(self) -> None:
        """Close with a RST: what was not sent yet is lost, and the other side is told so."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
