"""One connection, kept and made anew; over TLS, through a proxy; failures are those of httpx."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from services.http.lanes import Lane, lane_to
from tests.support.rawserver import Reply, raw_server, reply, scripted, self_signed

FINE = reply({"fine": True})
CLOSED = Reply(FINE.raw, then="close")


def untrusting() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@asynccontextmanager
async def opened(context: ssl.SSLContext | None = None, *, local: bool = True) -> AsyncIterator[Lane]:
    lane = lane_to(context or untrusting(), local=local)
    try:
        yield lane
    finally:
        await lane.aclose()


async def got(lane: Lane, url: str, read: float | None = None) -> httpx.Response:
    """The whole answer; `read`: seconds to wait for each part of it."""
    response = await lane.send(httpx.Request("GET", url, extensions={"timeout": {"read": read}}))
    await response.aread()
    await response.aclose()
    return response


async def test_the_connection_is_kept_and_made_anew_when_the_server_closed_it() -> None:
    async with raw_server(scripted([FINE, FINE, CLOSED, FINE])) as server, opened() as lane:
        for number in range(4):
            assert (await got(lane, f"{server.url}/{number}?a=b%20c")).json() == {"fine": True}
            assert len(server._writers) == (2 if number == 3 else 1)
            if number == 2:
                for writer in server._writers:
                    await writer.wait_closed()
        assert [seen.target for seen in server.seen] == [f"/{number}?a=b%20c" for number in range(4)]
        assert {seen.headers["host"] for seen in server.seen} == {f"127.0.0.1:{server.port}"}


async def test_packed_bodies_are_unpacked() -> None:
    packed = reply(body=gzip.compress(json.dumps({"fine": 1}).encode()), content_encoding="gzip")
    async with raw_server(scripted([packed])) as server, opened() as lane:
        assert (await got(lane, server.url)).json() == {"fine": 1}


async def test_over_tls_only_what_is_trusted(tmp_path: Path) -> None:
    tls = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    async with raw_server(scripted([FINE]), tls=tls) as server:
        async with opened(trusting) as lane:
            for _ in range(2):
                assert (await got(lane, server.url)).json() == {"fine": True}
            assert len(server._writers) == 1
        async with opened(ssl.create_default_context()) as lane:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await got(lane, server.url)
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Reply(b"", then="close"), httpx.RemoteProtocolError),
        (Reply(b"SSH-2.0-OpenSSH\r\n", then="close"), httpx.RemoteProtocolError),
        (Reply(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf", then="close"), httpx.RemoteProtocolError),
        (Reply(b"", then="hang"), httpx.ReadTimeout),
    ],
)
async def test_broken_answers_are_failures_of_httpx(answer: Reply, failure: type[Exception]) -> None:
    async with raw_server(scripted([answer])) as server, opened() as lane:
        with pytest.raises(failure):
            await got(lane, server.url, read=0.2)


async def test_where_nothing_listens() -> None:
    async with raw_server(scripted([FINE])) as server:
        gone = server.url
    async with opened() as lane:
        with pytest.raises(httpx.ConnectError):
            await got(lane, gone)


async def test_a_proxy_of_the_environment_counts_but_not_towards_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with raw_server(scripted([FINE])) as proxy, raw_server(scripted([FINE])) as here:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        async with opened(local=False) as lane:
            assert (await got(lane, "http://vendor.invalid/thing")).json() == {"fine": True}
        async with opened(local=True) as lane:
            await got(lane, f"{here.url}/thing")
    assert [seen.target for seen in proxy.seen] == ["http://vendor.invalid/thing"]
    assert [seen.target for seen in here.seen] == ["/thing"]
