"""A receiver of webhooks on loopback, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

PATIENCE = 20.0


@dataclass
class Got:
    """One request: `target` is its path with the query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))


@dataclass
class Receiver:
    """What came in, in order; `answer` decides on status and body, 200 without one."""

    url: str = ""
    answer: Callable[[Got], Awaitable[tuple[int, bytes]]] | None = None
    requests: asyncio.Queue[Got] = field(default_factory=asyncio.Queue)

    async def next(self) -> Got:
        """The next request; waits for it."""
        async with asyncio.timeout(PATIENCE):
            return await self.requests.get()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            method, target, _ = first.split(" ")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
                if name
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            got = Got(method, target, headers, body)
            status, text = (200, b"ok") if self.answer is None else await self.answer(got)
            self.requests.put_nowait(got)
            fields = b"content-length: %d\r\ncontent-type: text/plain\r\nconnection: close" % len(text)
            writer.write(b"HTTP/1.1 %d X\r\n%b\r\n\r\n%b" % (status, fields, text))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run one until the block is left."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
