"""Pages of the web: what is read, and what is not read however it is asked for."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import Category, ServiceError, UsageError
from services.integrations.knowledge import fetch as fetching
from services.integrations.knowledge.fetch import FetchOptions, checked_url, fetch, is_public
from tests.support.rawserver import Reply, raw_server, reply

PAGE = "<html><title>Hours</title><body>8 to 18</body></html>"


def options(fake_time, **changes) -> FetchOptions:
    return FetchOptions(fake_time, sleep=fake_time.sleep, **{"private": True, **changes})


@asynccontextmanager
async def site(**pages: Reply):
    """A server with these pages by path (`_` for `/`)."""

    def answer(seen):
        return pages.get(seen.path.strip("/"), reply(status=404, body="no"))

    async with raw_server(answer) as server:
        yield server


def named(monkeypatch, **addresses: list[str]) -> None:
    """Names that resolve to these addresses (`_` for `.`)."""
    known = {name.replace("_", "."): found for name, found in addresses.items()}

    async def getaddrinfo(self, host, port, **more):
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


async def test_a_page_is_read(fake_time):
    page = reply(body=PAGE, content_type="text/html; charset=utf-8")
    async with site(hours=page) as server:
        found = await fetch(f"{server.url}/hours#today", options(fake_time, user_agent="callboard/9"))
        assert (found.data.decode(), found.media_type, found.name) == (
            PAGE,
            "text/html; charset=utf-8",
            "hours",
        )
        assert server.seen[0].target == "/hours"
        assert server.seen[0].headers["user-agent"] == "callboard/9"
        assert "cookie" not in server.seen[0].headers
        assert "authorization" not in server.seen[0].headers


async def test_redirects_are_followed_five_times(fake_time):
    hops = {f"r{n}": reply(status=302, body="", location=f"/r{n + 1}") for n in range(5)}
    async with site(**hops, r5=reply(body="there", content_type="text/plain")) as server:
        found = await fetch(f"{server.url}/r0", options(fake_time))
        assert (found.data, found.url) == (b"there", f"{server.url}/r5")
    async with site(**hops, r5=reply(status=302, body="", location="/r0")) as server:
        with pytest.raises(ServiceError) as caught:
            await fetch(f"{server.url}/r0", options(fake_time))
        assert caught.value.code == "redirects"
        assert len(server.seen) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x.example/", "gopher://127.0.0.1/", "//[", "http://u:p@h/"]
)
async def test_redirects_lead_to_the_web_only(fake_time, target):
    async with site(r=reply(status=302, body="", location=target)) as server:
        with pytest.raises((UsageError, ServiceError)) as caught:
            await fetch(f"{server.url}/r", options(fake_time))
        assert caught.value.code in ("bad_url", "unreachable")
        assert "u:p" not in caught.value.message


# Addresses inside


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "224.0.0.1",
    "239.1.1.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::",
    "2001:db8::1", "192.0.2.1", "not an address",
])  # fmt: skip
def test_inside(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_outside(address):
    assert is_public(address)


@given(st.ip_addresses())
def test_every_address_is_judged(address):
    judged = is_public(str(address))
    if address.is_private or address.is_loopback or address.is_link_local:
        assert not judged or getattr(address, "ipv4_mapped", None)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"]
)
async def test_this_machine_is_not_read(fake_time, host):
    async with site(secret=reply(body="secret")) as server:
        with pytest.raises(ServiceError) as caught:
            await fetch(f"http://{host}:{server.port}/secret", options(fake_time, private=False))
        assert caught.value.code in ("private_address", "unreachable")
        assert server.seen == []


async def test_a_redirect_into_the_network_is_not_followed(fake_time, monkeypatch):
    """The first hop is public by name; what it points at is not."""
    named(monkeypatch, public_example=["127.0.0.1"], inner_example=["10.0.0.7"])
    judged = fetching.is_public
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1" or judged(address))
    async with raw_server(
        lambda seen: reply(status=302, body="", location="http://inner.example/")
    ) as server:
        with pytest.raises(ServiceError) as caught:
            await fetch(f"http://public.example:{server.port}/", options(fake_time, private=False))
        assert caught.value.code == "private_address"
        assert "inner.example" in caught.value.message
        assert "10.0.0.7" in caught.value.message
        assert len(server.seen) == 1


async def test_one_inner_address_among_several_is_enough(fake_time, monkeypatch):
    named(monkeypatch, mixed_example=["93.184.216.34", "192.168.0.1"])
    with pytest.raises(ServiceError) as caught:
        await fetch("http://mixed.example/", options(fake_time, private=False))
    assert caught.value.code == "private_address"


async def test_the_name_is_resolved_once(fake_time, monkeypatch):
    """What was checked is what is connected to: a name that changes its mind in between gains nothing."""
    asked = []

    async def getaddrinfo(self, host, port, **more):
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async with site(p=reply(body="text", content_type="text/plain")) as server:
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        found = await fetch(f"http://rebind.example:{server.port}/p", options(fake_time))
        assert found.data == b"text"
    # The address itself is passed on, and an address needs no resolving.
    assert asked.count("rebind.example") == 1


# What goes wrong


async def test_too_large_a_page(fake_time, monkeypatch):
    monkeypatch.setattr(fetching, "MOST_BYTES", 1000)
    bomb = gzip.compress(b"x" * 5_000_000)
    pages = {"big": reply(body=b"x" * 1001), "zip": reply(body=bomb, content_encoding="gzip")}
    async with site(**pages) as server:
        for path in pages:
            with pytest.raises(ServiceError) as caught:
                await fetch(f"{server.url}/{path}", options(fake_time))
            assert caught.value.code == "too_large"


async def test_a_page_that_is_not_there(fake_time):
    async with site() as server:
        with pytest.raises(ServiceError) as caught:
            await fetch(f"{server.url}/gone", options(fake_time))
        assert caught.value.code == "page_refused"
        assert "answered 404" in caught.value.message
        assert caught.value.category is Category.PERMANENT
        assert len(server.seen) == 1


async def test_trouble_is_tried_again_and_retry_after_honoured(fake_time):
    answers = [reply(status=503, body="", retry_after="7"), reply(body="ok", content_type="text/plain")]
    async with raw_server(lambda seen: answers.pop(0)) as server:
        assert (await fetch(server.url, options(fake_time))).data == b"ok"
    assert sum(fake_time.slept) >= 7


async def test_nobody_there(fake_time):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServiceError) as caught:
        await fetch(f"http://127.0.0.1:{port}/", options(fake_time))
    assert caught.value.code == "unreachable"
    assert str(port) in caught.value.message


async def test_a_page_that_never_ends(fake_time):
    endless = Reply(b"HTTP/1.1 200 X\r\ncontent-type: text/plain\r\n\r\n", drip=b"x")
    async with raw_server(lambda seen: endless) as server:
        with pytest.raises(ServiceError) as caught:
            await fetch(server.url, options(fake_time, timeout=0.2))
        assert caught.value.category is Category.TIMEOUT


async def test_a_broken_answer(fake_time):
    async with raw_server(lambda seen: Reply(b"no http at all\r\n\r\n", then="close")) as server:
        with pytest.raises(ServiceError) as caught:
            await fetch(server.url, options(fake_time))
        assert caught.value.code == "connection_lost"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "acme.example",
        "ftp://x/",
        "http://",
        "http:///x",
        "https://x:0/",
        "http://x y/",
        "http://[::1",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_address(url):
    with pytest.raises(UsageError) as caught:
        checked_url(url)
    assert caught.value.code == "bad_url"


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(UsageError) as caught:
        checked_url("https://ann:canary-pw@x.example/")
    assert "canary-pw" not in caught.value.message + caught.value.advice


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_usage_error(text):
    for url in (text, f"http://{text}", f"https://x.example/{text}"):
        try:
            checked = checked_url(url)
        except UsageError:
            continue
        assert checked.lower().startswith(("http://", "https://"))
