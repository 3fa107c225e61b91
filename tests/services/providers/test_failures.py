"""Every way an answer can be wrong, over real sockets: the category, the words, and no key in them."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.errors import Category, ServiceError
from services.model import Provider
from services.providers import open_client
from tests.support.rawserver import Reply, raw_server, reply, scripted, self_signed

KEY = "key-for-tests-0123456789"
Connect = Callable[..., Any]

NAMES_THE_ADDRESS = {"html", "redirect", "unreachable", "certificate", "tls", "timeout"}
"""Failures where a wrong address may be the cause, so the operator must see it."""


async def failure(
    connect: Connect, answer: Reply, provider: Provider = Provider.RETELL, **options: Any
) -> ServiceError:
    async with raw_server(scripted([answer])) as server, connect(server.url, provider, **options) as client:
        with pytest.raises(ServiceError) as caught:
            await client.agent("agent_1")
        error = caught.value
        assert error.message
        if error.code in NAMES_THE_ADDRESS:
            assert str(server.port) in error.message
        assert KEY not in "".join(traceback.format_exception(error)) + error.advice
        assert error.advice
        assert not error.message.endswith(".")
        return error


RETELL_BODIES = [
    (
        401,
        {"status": "error", "message": "Invalid API key."},
        "wrong_key",
        Category.AUTHENTICATION,
        "Invalid API key",
    ),
    (
        401,
        {"error_message": "Key gone", "message": "other"},
        "wrong_key",
        Category.AUTHENTICATION,
        "Key gone",
    ),
    (403, {"error": "Forbidden"}, "missing_permission", Category.AUTHENTICATION, "lacks a permission"),
    (
        402,
        {"status": "error", "message": "Trial ended"},
        "payment_required",
        Category.PERMANENT,
        "Trial ended",
    ),
    (404, {"status": "error", "message": "No agent"}, "not_found", Category.PERMANENT, "No agent"),
    (
        422,
        {"status": "error", "message": "Cannot find asset"},
        "not_found",
        Category.PERMANENT,
        "Cannot find asset",
    ),
    (422, {"status": "error", "message": "Bad"}, "invalid_request", Category.PERMANENT, "Bad"),
    (
        429,
        {"status": "error", "message": "Slow"},
        "rate_limited",
        Category.RATE_LIMIT,
        "429 too many requests",
    ),
    (
        500,
        {"status": "error", "message": "Oops"},
        "server_error",
        Category.TRANSIENT,
        "500 internal server error: Oops",
    ),
    (503, None, "server_error", Category.TRANSIENT, "503 service unavailable"),
    (504, None, "server_error", Category.TIMEOUT, "504"),
    (418, ["?"], "refused", Category.PERMANENT, "418"),
    (599, {"message": {"deep": 1}}, "server_error", Category.TRANSIENT, "599"),
]


@pytest.mark.parametrize(("status", "body", "code", "category", "said"), RETELL_BODIES)
async def test_retell_status(
    connect: Connect, status: int, body: Any, code: str, category: Category, said: str
) -> None:
    error = await failure(connect, reply(body, status=status))
    assert (error.code, error.category) == (code, category)
    assert said in error.message


ELEVENLABS_BODIES = [
    (
        401,
        {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}},
        "wrong_key",
        "refused the key",
    ),
    (
        401,
        {
            "detail": {
                "status": "missing_permissions",
                "message": "The key is missing the permission convai_read.",
            }
        },
        "missing_permission",
        "lacks the permission convai_read",
    ),
    (
        403,
        {"detail": {"type": "x", "code": "missing_permissions", "message": "?"}},
        "missing_permission",
        "lacks a",
    ),
    (401, {"detail": {"status": "quota_exceeded", "message": "0 left"}}, "quota_exceeded", "0 left"),
    (
        422,
        {"detail": [{"loc": ["query", "cursor"], "msg": "bad", "type": "x"}]},
        "invalid_request",
        "query.cursor: bad",
    ),
    (404, {"detail": "Not Found"}, "not_found", "Not Found"),
    (429, {"detail": {"status": "system_busy", "message": "busy"}}, "rate_limited", "busy"),
    (500, {"detail": [17, {"loc": None}]}, "server_error", "500"),
]


@pytest.mark.parametrize(("status", "body", "code", "said"), ELEVENLABS_BODIES)
async def test_elevenlabs_status(connect: Connect, status: int, body: Any, code: str, said: str) -> None:
    error = await failure(connect, reply(body, status=status), Provider.ELEVENLABS)
    assert error.code == code
    assert said in error.message


async def test_a_permission_is_named_in_the_advice_too(connect: Connect) -> None:
    error = await failure(connect, reply(ELEVENLABS_BODIES[1][1], status=401), Provider.ELEVENLABS)
    assert "convai_read" in error.advice


async def test_a_key_repeated_by_the_vendor_is_masked(connect: Connect) -> None:
    error = await failure(connect, reply({"message": f"key {KEY} is unknown"}, status=401))
    assert KEY not in error.message
    assert "unknown" in error.message


async def test_a_hostile_message_is_cleaned_and_cut(connect: Connect) -> None:
    error = await failure(connect, reply({"message": "\x1b[2J\u202eevil\n" + "x" * 9000}, status=400))
    assert "\x1b" not in error.message
    assert "\u202e" not in error.message
    assert "\n" not in error.message
    assert len(error.message) < 400


async def test_html_with_200_is_a_wrong_address(connect: Connect) -> None:
    page = reply(body="<!DOCTYPE html><html>Sign in</html>", content_type="text/html")
    error = await failure(connect, page)
    assert (error.code, error.category) == ("html", Category.PERMANENT)
    assert "web page" in error.message


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_web_page_never_passes_for_the_vendor_speaking(connect: Connect, status: int) -> None:
    """A firewall's page is no wrong key, and a page of another server is no deleted agent."""
    error = await failure(connect, reply(body="<html>no</html>", status=status, content_type="text/html"))
    assert (error.code, error.category) == ("html", Category.PERMANENT)
    assert str(status) in error.message


async def test_html_of_a_gateway_error_is_a_server_error(connect: Connect) -> None:
    error = await failure(
        connect, reply(body="<html>Bad gateway</html>", status=502, content_type="text/html")
    )
    assert error.code == "server_error"
    assert "<html>" not in error.message


async def test_truncated_json_is_told_and_tried_again(connect: Connect) -> None:
    cut, whole = reply(body='{"agent_id": "agent_1", "na'), reply({"agent_id": "agent_1"})
    async with raw_server(scripted([cut, whole])) as server, connect(server.url) as client:
        assert (await client.agent("agent_1")).data == {"agent_id": "agent_1"}
        assert client.stats.requests == 2
    error = await failure(connect, cut)
    assert (error.code, error.category) == ("truncated", Category.TRANSIENT)
    assert "breaks off" in error.message


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"", "not_json", "empty"),
        (b"hello", "not_json", "not JSON"),
        (b"[]", "wrong_shape", "expected an agent with 'agent_id', got a list"),
        (b'{"name":"x"}', "wrong_shape", "got an object with name"),
        (b'{"agent_id":7}', "wrong_shape", "agent_id"),
        (b'{"agent_id":"\xff"}', "not_json", "UTF-8"),
        (b"[" * 5000 + b"]" * 5000, "too_deep", "nested"),
        (b"\xef\xbb\xbf[]", "wrong_shape", "got a list"),
    ],
)
async def test_a_body_that_cannot_be_used(connect: Connect, body: bytes, code: str, said: str) -> None:
    error = await failure(connect, reply(body=body))
    assert error.code == code
    assert said in error.message


@pytest.mark.parametrize(
    "location", ["https://login.example.com/x?token=hunter2", "/elsewhere", "", "http://["]
)
async def test_redirects_are_explained_not_followed(connect: Connect, location: str) -> None:
    error = await failure(connect, reply({}, status=302, location=location))
    assert error.code == "redirect"
    assert "hunter2" not in error.message
    if "login" in location:
        assert "https://login.example.com" in error.message


async def test_a_connection_dropped_in_the_middle(connect: Connect) -> None:
    for raw in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"):
        error = await failure(connect, Reply(raw, then="close"))
        assert (error.code, error.category) == ("connection_lost", Category.TRANSIENT)


async def test_bytes_that_are_not_http(connect: Connect) -> None:
    assert (await failure(connect, Reply(b"SSH-2.0-OpenSSH\r\n\r\n", then="close"))).code == "connection_lost"


async def test_garbled_compression(connect: Connect) -> None:
    assert (
        await failure(connect, reply(body=b"\x1f\x8bnope", content_encoding="gzip"))
    ).code == "connection_lost"


async def test_silence_ends_as_a_timeout(connect: Connect) -> None:
    error = await failure(connect, Reply(b"", then="hang"), timeout=0.1)
    assert (error.code, error.category) == ("timeout", Category.TIMEOUT)


async def test_a_body_that_trickles_for_ever_ends_as_a_timeout(connect: Connect) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n{"
    error = await failure(connect, Reply(head, drip=b" "), timeout=0.2)
    assert (error.code, error.category) == ("timeout", Category.TIMEOUT)


async def test_an_endless_body_is_cut_off(connect: Connect) -> None:
    bomb = gzip.compress(b" " * (3 * 1024 * 1024))
    async with (
        raw_server(scripted([reply(body=bomb, content_encoding="gzip")])) as server,
        connect(server.url) as client,
    ):
        client._http._options = dataclasses.replace(client._http._options, max_body=2 * 1024 * 1024)
        with pytest.raises(ServiceError) as caught:
            await client.agent("agent_1")
    assert caught.value.code == "too_large"
    assert "2 MB" in caught.value.message
    assert client.stats.requests == 1


async def test_nothing_listens(connect: Connect) -> None:
    async with raw_server(scripted([reply({})])) as server:
        url = server.url
    async with connect(url) as client:
        with pytest.raises(ServiceError) as caught:
            await client.agent("a")
    assert caught.value.code == "unreachable"
    assert "connection refused" in caught.value.message


async def test_a_name_that_does_not_resolve(connect: Connect) -> None:
    async with connect("https://nowhere.invalid") as client:
        with pytest.raises(ServiceError) as caught:
            await client.check()
    error = caught.value
    assert error.code == "unreachable"
    assert "nowhere.invalid" in error.message
    assert "DNS" in error.message


async def test_a_certificate_nobody_trusts(connect: Connect, tmp_path: Path) -> None:
    async with (
        raw_server(scripted([reply({})]), tls=self_signed(tmp_path)) as server,
        connect(server.url) as client,
    ):
        with pytest.raises(ServiceError) as caught:
            await client.agent("a")
    assert (caught.value.code, caught.value.category) == ("certificate", Category.PERMANENT)
    assert "certificate" in caught.value.message.lower()
    assert client.stats.requests == 1


async def test_https_to_a_port_that_speaks_http(connect: Connect) -> None:
    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, connect(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(ServiceError) as caught:
            await client.agent("a")
    assert caught.value.code == "tls"
    assert "https" in caught.value.advice


@pytest.mark.parametrize(
    "key", ["", "  ", "two words", "zwölf-zwölf-zwölf", "line\nbreak-and-more", "q\x00q"]
)
async def test_a_key_that_no_header_can_carry(connect: Connect, key: str) -> None:
    with pytest.raises(ServiceError) as caught:
        connect("https://api.example.com", key=key)
    assert caught.value.code == "wrong_key"
    assert not key.strip() or key not in caught.value.message


async def test_white_space_around_a_pasted_key_is_no_part_of_it(connect: Connect) -> None:
    async with raw_server(scripted([reply({"agent_id": "a"})])) as server:
        async with connect(server.url, key=f"  {KEY}\n") as client:
            await client.agent("a")
        assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_key_shows_nowhere(
    connect: Connect, caplog: pytest.LogCaptureFixture, fake_time: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    for provider in Provider:
        for answer in (reply({"agent_id": "a"}), reply({"m": 1}, status=500), Reply(b"", then="close")):
            async with raw_server(scripted([answer])) as server, connect(server.url, provider) as client:
                assert KEY not in repr(client) + repr(vars(client)) + repr(vars(client._http))
                [outcome] = await asyncio.gather(client.agent("a"), return_exceptions=True)
                if isinstance(outcome, ServiceError):
                    assert KEY not in "".join(traceback.format_exception(outcome))
                    # What a vendor library raised holds the request, and so the key.
                    assert (outcome.__cause__, outcome.__context__) == (None, None)
    assert KEY not in caplog.text
    assert all(record.name.split(".")[0] not in ("httpx", "httpcore") for record in caplog.records)


async def test_an_id_cannot_leave_its_path(connect: Connect) -> None:
    async with (
        raw_server(scripted([reply({"agent_id": "a"})])) as server,
        connect(server.url + "/base") as client,
    ):
        await client.agent("../x?y=1#z/ü")
        assert server.seen[0].target == "/base/get-agent/..%2Fx%3Fy%3D1%23z%2F%C3%BC"
        for odd in ("", ".", ".."):
            with pytest.raises(ServiceError):
                await client.agent(odd)
        assert len(server.seen) == 1


async def test_a_large_document_comes_whole(connect: Connect) -> None:
    text = json.dumps({"agent_id": "a", "prompt": "wörter " * 1_500_000})
    async with raw_server(scripted([reply(body=text)])) as server, connect(server.url) as client:
        assert (await client.agent("a")).text == text


async def test_cancelling_reaches_the_request(connect: Connect) -> None:
    arrived = asyncio.Event()

    async def arrive() -> None:
        arrived.set()

    hang = Reply(b"", then="hang", before=arrive)
    async with raw_server(scripted([hang])) as server, connect(server.url) as client:
        task = asyncio.create_task(client.agent("a"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats.in_flight == 0


async def test_a_closed_client_says_so(connect: Connect) -> None:
    client = connect("http://127.0.0.1:9")
    await client.aclose()
    await client.aclose()
    with pytest.raises(ServiceError) as caught:
        await client.agent("a")
    assert caught.value.code == "closed"


def test_open_client_needs_no_running_loop(fake_time: Any) -> None:
    assert open_client(Provider.RETELL, base_url="https://api.example.com", key=KEY, clock=fake_time)
