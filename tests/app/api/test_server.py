"""Over real sockets: slow and hostile clients, limits, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import httpx
import pytest

from app.api import server as module
from app.api import webhooks
from app.api.guard import LARGEST_BODY
from app.api.server import listen
from app.api.token import addresses_of, needs_token
from services.errors import ServiceError, UsageError
from tests.app.api.api_world import (
    BEARER,
    TOKEN,
    ApiServices,
    api_of,
    body_of,
    client_of,
    listening,
    port_of,
    said,
)

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def services():
    return ApiServices()


@pytest.fixture
async def server(services):
    async with listening(api_of(services)) as running:
        yield running


async def test_it_answers_over_a_socket(server):
    async with httpx.AsyncClient(base_url=server.urls[0]) as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        assert (await client.get("/health/", headers=BEARER)).json()["overall"] == "healthy"
        head = await client.head("/health/", headers=BEARER)
        assert int(head.headers["content-length"]) > 100
        assert head.content == b""
        assert (await client.get("/livez")).json() == {"status": "alive"}  # the connection is still in step


NO_REQUESTS = {
    "words": b"nonsense\r\n\r\n",
    "bad utf-8": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "huge header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: "
    + b"y" * 100_000
    + b"\r\nConnection: close\r\n\r\n",
    "huge path": b"GET /" + b"z" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "negative length": b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "unknown coding": b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
}


@pytest.mark.parametrize("raw", NO_REQUESTS.values(), ids=NO_REQUESTS)
async def test_what_is_no_request(server, raw):
    answer = await said(server, raw)
    # One that is too large is refused by the parser or, where it came whole at once, by the guard.
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert body_of(answer)["error"]["code"] in ("bad_request", "large_head")
    assert (await said(server, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).startswith(
        b"HTTP/1.1 200 OK"
    )


NO_NAMES = {
    "encoded traversal": "..%2f..%2f..%2fetc%2fpasswd",
    "traversal": "../../etc/passwd",
    "twice encoded": "%252e%252e",
    "bad utf-8": "%ff%fe%c0%af",
    "null": "%00",
    "10,000 characters": "a" * 10_000,
    "new header": "%0d%0aSet-Cookie:x",
    "emoji": "%F0%9F%98%80",
    "sql": "'%20OR%201=1--",
    "template": "{name}",
    "turned": "%E2%80%AE",
}


@pytest.mark.parametrize("name", NO_NAMES.values(), ids=NO_NAMES)
async def test_names_that_are_none(server, name):
    request = f"GET /health/agents/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = await said(server, f"{request}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert len(answer) < 2000
    assert b"\r\nSet-Cookie" not in answer
    body_of(answer)
    # A name with a line end is no address of ours at all.
    refused = b"HTTP/1.1 404 " if "%0d" in name else b"HTTP/1.1 401 "
    assert (await said(server, f"{request}\r\n".encode())).startswith(refused)


async def test_a_client_that_sends_nothing_or_too_slowly_is_let_go(services, monkeypatch):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.2)
    async with listening(api_of(services)) as server:
        for raw in (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n", GET + b"GET /livez HT"):
            answer = await said(server, raw)
            assert answer.rpartition(b"HTTP/1.1 ")[2].startswith(b"408 "), answer
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        with contextlib.suppress(ConnectionError):  # a byte at a time does not win time
            async with asyncio.timeout(20):
                while True:
                    writer.write(b"y")
                    await writer.drain()
                    await asyncio.sleep(0.01)
        writer.close()


async def test_a_body_that_nobody_reads_ends_the_connection(server):
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    answer = await said(server, head + b"x" * 10)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer


async def test_too_many_connections(services, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 3)
    async with listening(api_of(services)) as server:
        open_ones = [await asyncio.open_connection("127.0.0.1", port_of(server)) for _ in range(3)]
        for reader, writer in open_ones:
            writer.write(GET)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        refused = await said(server, b"")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert body_of(refused)["error"]["code"] == "busy"
        for _, writer in open_ones:
            writer.close()


async def test_too_many_requests_at_once_and_one_that_takes_too_long(services):
    never = asyncio.Event()

    async def stuck() -> bool:
        await never.wait()
        return True

    services.health.ready = stuck
    async with client_of(api_of(services, most_requests=2, patience=0.3)) as ask:
        answers = await asyncio.gather(*(ask.get("/readyz") for _ in range(5)))
        codes = sorted(answer.json()["error"]["code"] for answer in answers)
        assert {answer.status_code for answer in answers} == {503}
        assert codes == ["busy"] * 3 + ["slow"] * 2
        assert (await ask.get("/livez")).status_code == 200


async def test_the_end_waits_for_what_is_under_way(services):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def ready() -> bool:
        begun.set()
        await go_on.wait()
        return True

    services.health.ready = ready
    async with listening(api_of(services)) as server:
        port = port_of(server)
        asking = asyncio.create_task(said(server, GET.replace(b"livez", b"readyz")))
        idle = await asyncio.open_connection("127.0.0.1", port)
        await begun.wait()
        ending = asyncio.create_task(server.aclose())
        await asyncio.sleep(0)
        with pytest.raises(OSError, match=r"(?i)refused|connect"):
            await asyncio.open_connection("127.0.0.1", port)
        go_on.set()
        assert (await asking).startswith(b"HTTP/1.1 200 OK")
        await ending
        assert await idle[0].read() == b""
        idle[1].close()
        await server.aclose()


async def test_webhooks_get_the_very_bytes(services):
    app = api_of(services, public_url="https://callboard.example.com")
    raw = b'{"a": 1,\n "b": "\xc3\xa9"}'
    async with listening(app) as server, httpx.AsyncClient(base_url=server.urls[0]) as client:
        question = {"hub.mode": "subscribe", "hub.verify_token": "known", "hub.challenge": "42"}
        asked = await client.get("/webhooks/whatsapp", params=question)
        assert (asked.status_code, asked.text) == (200, "42")
        assert (await client.get("/webhooks/whatsapp")).status_code == 403
        signed = {"X-Hub-Signature-256": "sha256=ab"}
        assert (await client.post("/webhooks/whatsapp", content=raw, headers=signed)).status_code == 200
        told = await client.post("/webhooks/twilio/messages?bodySHA256=%2Fab", content=b"MessageSid=SM1")
        assert (told.text, told.headers["content-type"]) == ("ok", "text/plain; charset=utf-8")
        assert (await client.post("/webhooks/chat", content=raw)).status_code == 401
    (first, second) = services.messages.taken
    assert (first[0]["x-hub-signature-256"], first[1]) == ("sha256=ab", raw)
    assert second[2] == "https://callboard.example.com/webhooks/twilio/messages?bodySHA256=%2Fab"


async def test_without_a_public_url_the_address_is_the_one_that_was_called(services):
    async with client_of(api_of(services)) as ask:
        await ask.post("/webhooks/twilio/messages?a=%20b")
    assert services.messages.taken[0][2] == "http://127.0.0.1:8470/webhooks/twilio/messages?a=%20b"


async def test_a_webhook_takes_a_small_body_that_comes_in_time(services, monkeypatch):
    monkeypatch.setattr(webhooks, "BODY_SECONDS", 0.2)
    head = b"POST /webhooks/whatsapp HTTP/1.1\r\nHost: x\r\n"
    async with listening(api_of(services)) as server:
        told = await said(server, head + b"Content-Length: %d\r\n\r\n" % (LARGEST_BODY + 1))
        assert told.startswith(b"HTTP/1.1 413 ")
        piece = b"%x\r\n%s\r\n" % (65_536, b"x" * 65_536)
        told = await said(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 20)
        assert told.startswith(b"HTTP/1.1 413 ") or told == b""  # the refusal may be lost in what still came
        told = await said(server, head + b"Content-Length: 10\r\n\r\nabc")
        assert told.startswith(b"HTTP/1.1 408 ")
    assert services.messages.taken == []


async def test_without_a_messages_service_there_are_no_webhooks(services):
    del services.messages
    async with client_of(api_of(services)) as ask:
        assert (await ask.post("/webhooks/whatsapp")).status_code == 404


async def test_a_port_that_is_taken(server):
    with pytest.raises(ServiceError) as caught:
        listen([(socket.AF_INET, "127.0.0.1")], port_of(server))
    assert caught.value.code == "port_busy"
    assert str(port_of(server)) in caught.value.message


def test_several_addresses_share_the_port_and_absent_ones_are_left_out():
    absent = (socket.AF_INET, "192.0.2.1")
    opened = listen([(socket.AF_INET, "127.0.0.1"), absent, (socket.AF_INET, "127.0.0.2")], 0)
    try:
        assert len({each.getsockname()[1] for each in opened}) == 1
        assert [each.getsockname()[0] for each in opened] == ["127.0.0.1", "127.0.0.2"]
    finally:
        for each in opened:
            each.close()
    with pytest.raises(ServiceError, match="no address of this machine"):
        listen([absent], 0)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("127.0.0.1", False), ("127.9.9.9", False), ("::1", False), ("localhost", False),
        ("0.0.0.0", True), ("::", True), ("192.0.2.1", True), ("::ffff:192.0.2.1", True),
    ],
)  # fmt: skip
async def test_which_addresses_others_reach(host, public):
    assert needs_token(await addresses_of(host, 8470)) is public


async def test_a_host_that_is_none():
    for host in ("no such host", "a..b", "x" * 300):
        with pytest.raises(UsageError):
            await addresses_of(host, 8470)


async def test_openapi_is_for_everybody_and_names_no_other_host(server):
    async with httpx.AsyncClient(base_url=server.urls[0]) as client:
        answer = await client.get("/openapi.json")
        for page in ("/docs", "/redoc", "/"):
            assert (await client.get(page)).status_code == 404
    text = json.dumps(answer.json())
    assert "://" not in text
    assert TOKEN not in text
