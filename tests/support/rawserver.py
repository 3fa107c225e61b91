"""A socket server that plays scripted bytes: for answers no well-behaved server would give."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Seen:
    """One request as it came over the socket."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass(frozen=True)
class Reply:
    """Bytes to send; then the connection is kept, closed, or held open in silence until the server ends."""

    raw: bytes
    then: str = "keep"
    before: Callable[[], Awaitable[object]] | None = None
    """Awaited before anything is sent."""
    drip: bytes = b""
    """Sent one byte at a time, for ever, after `raw`."""


def reply(data: Any = None, *, status: int = 200, body: bytes | str | None = None, **headers: str) -> Reply:
    """A whole, proper answer: `data` as JSON, or `body` as it is. Header names take `_` for `-`."""
    payload = json.dumps(data).encode() if body is None else body.encode() if isinstance(body, str) else body
    fields = {"content-type": "application/json", "content-length": str(len(payload))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Reply(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + payload)


Handler = Callable[[Seen], Reply]


@dataclass
class RawServer:
    """A running server: where it is, what it has seen, how many requests it had at once."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]


@asynccontextmanager
async def raw_server(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Serves on a free loopback port until the block ends."""
    server = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_converse(server, handler, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in server._writers:
            writer.close()


def scripted(replies: Iterable[Reply]) -> Handler:
    """Answers in this order; the last one stands for all that follow."""
    rest = list(replies)
    return lambda _seen: rest.pop(0) if len(rest) > 1 else rest[0]


async def _converse(
    server: RawServer, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    server._writers.add(writer)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            seen = await _request(reader)
            server.seen.append(seen)
            server.in_flight += 1
            server.most = max(server.most, server.in_flight)
            try:
                if not await _play(handler(seen), writer):
                    break
            finally:
                server.in_flight -= 1
    writer.close()


async def _play(answer: Reply, writer: asyncio.StreamWriter) -> bool:
    if answer.before is not None:
        await answer.before()
    writer.write(answer.raw)
    await writer.drain()
    while answer.drip:
        writer.write(answer.drip[:1])
        await writer.drain()
        await asyncio.sleep(0.01)
    if answer.then == "hang":
        await asyncio.Event().wait()
    return answer.then == "keep"


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server context with a certificate that nobody trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "raw server")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
