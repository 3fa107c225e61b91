from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Callable
from typing import Any

import pytest

from services.errors import Category, ServiceError
from services.http.failures import retry_after, spell_seconds
from services.model import Provider
from tests.support.rawserver import Reply, Seen, raw_server, reply, scripted

Connect = Callable[..., Any]
AGENT = reply({"agent_id": "a"})


def busy(**headers: str) -> Reply:
    return reply({"message": "slow down"}, status=429, **headers)


async def test_reads_are_tried_again_with_growing_jittered_waits(connect: Connect, fake_time: Any) -> None:
    bad = [reply({}, status=500), Reply(b"", then="close"), reply({}, status=503)]
    async with raw_server(scripted([*bad, AGENT])) as server, connect(server.url) as client:
        await client.agent("a")
        assert (client.stats.requests, client.stats.retries) == (4, 3)
    for wait, top in zip(fake_time.slept, (0.5, 1.0, 2.0), strict=True):
        assert top / 2 <= wait <= top


async def test_gives_up_after_four_attempts(connect: Connect) -> None:
    async with raw_server(scripted([reply({}, status=500)])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError):
            await client.agent("a")
        assert len(server.seen) == client.stats.requests == 4


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
async def test_what_cannot_get_better_is_asked_once(connect: Connect, fake_time: Any, status: int) -> None:
    async with raw_server(scripted([reply({}, status=status)])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError):
            await client.agent("a")
        assert len(server.seen) == 1
    assert not fake_time.slept


async def test_the_list_by_post_is_a_read_too(connect: Connect) -> None:
    answers = [reply({}, status=502), reply({"items": [], "has_more": False})]
    async with raw_server(scripted(answers)) as server, connect(server.url) as client:
        assert await client.list_agents() == []
        assert [seen.method for seen in server.seen] == ["POST", "POST"]
        assert server.seen[1].body == b"{}"


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after_ms": "1500", "retry_after": "30"}, 1.5),
        ({"retry_after": "0"}, 0),
    ],
)
async def test_retry_after_is_honoured(
    connect: Connect, fake_time: Any, headers: dict[str, str], least: float
) -> None:
    async with raw_server(scripted([busy(**headers), AGENT])) as server, connect(server.url) as client:
        await client.agent("a")
    assert least <= max(fake_time.slept) <= least + 0.5


async def test_retry_after_as_a_date(connect: Connect, fake_time: Any) -> None:
    at = email.utils.formatdate(fake_time.now() / 1000 + 12, usegmt=True)
    async with raw_server(scripted([busy(retry_after=at), AGENT])) as server, connect(server.url) as client:
        await client.agent("a")
    assert 11 <= max(fake_time.slept) <= 12.5


async def test_a_wait_beyond_the_budget_is_reported_instead(connect: Connect, fake_time: Any) -> None:
    async with raw_server(scripted([busy(retry_after="90")])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError) as caught:
            await client.agent("a")
        assert len(server.seen) == 1
    error = caught.value
    assert error.category is Category.RATE_LIMIT
    assert error.retry_after == 90
    assert "429 too many requests, retry in 90 s" in error.message
    assert not fake_time.slept


async def test_waits_add_up_to_the_budget(connect: Connect, fake_time: Any) -> None:
    async with raw_server(scripted([busy(retry_after="20")])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError) as caught:
            await client.agent("a")
        assert len(server.seen) == 3
    assert "retry in 20 s" in caught.value.message


async def test_429_halves_and_success_grows_back(connect: Connect) -> None:
    answers = [busy(), *[AGENT] * 60]
    async with raw_server(scripted(answers)) as server, connect(server.url, concurrency=8) as client:
        await client.agent("a")
        assert client.stats.limit == 4
        for _ in range(4 + 5 + 6 + 7):
            await client.agent("a")
        assert client.stats.limit == 8


@pytest.mark.parametrize(("provider", "most"), [(Provider.RETELL, 10), (Provider.ELEVENLABS, 10)])
async def test_concurrency_is_bounded_and_used(connect: Connect, provider: Provider, most: int) -> None:
    full = asyncio.Event()
    held = 0

    async def wait() -> None:
        nonlocal held
        held += 1
        if held == most:
            full.set()
        await full.wait()

    slow = Reply(AGENT.raw, before=wait)
    async with raw_server(lambda _: slow) as server, connect(server.url, provider) as client:
        await asyncio.gather(*(client.agent(f"a{n}") for n in range(40)))
        assert server.most == client.stats.max_in_flight == most
        assert client.stats.requests == 40


async def test_a_vendor_that_allows_less_is_found_out(connect: Connect) -> None:
    """A server that refuses more than three at once: everything arrives, with few refusals."""
    refused = under_way = 0

    async def work() -> None:
        nonlocal under_way
        await asyncio.sleep(0.002)
        under_way -= 1

    def answer(_: Seen) -> Reply:
        nonlocal refused, under_way
        if under_way == 3:
            refused += 1
            return busy()
        under_way += 1
        return Reply(AGENT.raw, before=work)

    async with raw_server(answer) as server, connect(server.url, concurrency=16) as client:
        results = await asyncio.gather(*(client.agent(f"a{n}") for n in range(80)), return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    assert not failed
    assert refused < 80


async def test_a_request_that_waits_to_retry_holds_no_place(connect: Connect, fake_time: Any) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await go_on.wait()

    bad = iter([reply({}, status=500)])
    async with (
        raw_server(lambda _: next(bad, AGENT)) as server,
        connect(server.url, concurrency=1, sleep=sleep) as client,
    ):
        first = asyncio.create_task(client.agent("first"))
        await waiting.wait()
        await client.agent("second")
        go_on.set()
        await first
        assert server.paths() == ["/get-agent/first", "/get-agent/second", "/get-agent/first"]


async def test_cancelled_while_waiting_to_retry(connect: Connect) -> None:
    waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with (
        raw_server(scripted([reply({}, status=500)])) as server,
        connect(server.url, sleep=sleep) as client,
    ):
        task = asyncio.create_task(client.agent("a"))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats.in_flight == 0


@pytest.mark.parametrize("value", ["", "soon", "-5", "nan", "1e9999", "Mon, 99 Foo 2026", "9" * 400])
def test_a_senseless_retry_after_is_ignored(value: str) -> None:
    assert retry_after({"retry-after": value}, 0) is None


def test_seconds_in_words() -> None:
    assert [spell_seconds(s) for s in (0.2, 40, 300, 7300)] == ["1 s", "40 s", "5 min", "2 h"]
