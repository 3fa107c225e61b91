"""The fault proxy does what its faults say: what a client sees of each, also on connections already open."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable

import pytest

from services.clock import SystemClock
from services.errors import ServiceError
from services.http import Call, Http, HttpOptions
from services.resilience import limit_time
from tests.support.fault_proxy import (
    CLEAR,
    Fault,
    FaultProxy,
    black_hole,
    fault_proxy,
    garbage,
    half_json,
    latency,
    resets,
    storm,
    trickle,
)
from tests.support.rawserver import RawServer, raw_server, reply

READ = Call("GET", "/thing")
BIG = {"text": "x" * 200_000}


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(lambda seen: reply(BIG if seen.path == "/big" else {"fine": True})) as running:
        yield running


@pytest.fixture
async def proxy(server: RawServer) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(server.url) as running:
        yield running


@pytest.fixture
async def http(proxy: FaultProxy) -> AsyncIterator[Http]:
    client = client_of(proxy.url)
    yield client
    await client.aclose()


def client_of(url: str, timeout: float = 5.0) -> Http:
    options = HttpOptions(
        vendor="Partner",
        base_url=url,
        key=None,
        clock=SystemClock(),
        timeout=timeout,
        user_agent="t",
        sleep=at_once,
    )
    return Http(options)


async def code_of(http: Http, call: Call = READ) -> str:
    with pytest.raises(ServiceError) as caught:
        await http.json(call, attempts=1)
    return caught.value.code


async def test_without_a_fault_everything_passes(http: Http, proxy: FaultProxy, server: RawServer) -> None:
    for _ in range(3):
        await http.json(READ)
    await http.json(Call("POST", "/thing", body=BIG))
    assert (await http.json(Call("GET", "/big"))).data == BIG
    assert proxy.counts == {"none": 5}
    assert proxy.connections == proxy.open == 1
    assert len(server.seen[3].body) > 200_000


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (resets(), "connection_lost"),
        (resets("answer"), "connection_lost"),
        (storm(), "rate_limited"),
        (garbage(), "connection_lost"),
        (half_json(), "truncated"),
    ],
)
@pytest.mark.parametrize("already_open", [True, False])
async def test_a_fault_strikes_and_goes(
    http: Http, proxy: FaultProxy, fault: Fault, code: str, already_open: bool
) -> None:
    if already_open:
        await http.json(READ)
    proxy.fault = fault
    for _ in range(2):
        assert await code_of(http) == code
    assert proxy.counts[fault.name] >= 2
    proxy.fault = CLEAR
    assert (await http.json(READ)).data == {"fine": True}


async def test_an_answer_in_the_server_s_stead_takes_the_whole_request(
    http: Http, proxy: FaultProxy, server: RawServer
) -> None:
    proxy.fault = storm()
    assert await code_of(http, Call("POST", "/thing", body=BIG)) == "rate_limited"
    proxy.fault = CLEAR
    await http.json(READ)
    assert server.paths() == ["/thing"]
    assert proxy.connections == 1


async def test_a_storm_names_a_time(http: Http, proxy: FaultProxy) -> None:
    proxy.fault = storm("7")
    with pytest.raises(ServiceError) as caught:
        await http.json(READ, attempts=1)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("already_open", [True, False])
async def test_a_black_hole_never_answers_and_later_connections_work(
    proxy: FaultProxy, server: RawServer, already_open: bool
) -> None:
    http = client_of(proxy.url, timeout=0.2)
    if already_open:
        await http.json(READ)
    seen = len(server.seen)
    proxy.fault = black_hole()
    assert await code_of(http) == "timeout"
    assert len(server.seen) == seen
    proxy.fault = CLEAR
    await http.json(READ)
    await http.aclose()


async def test_who_has_little_time_learns_that_it_failed(proxy: FaultProxy) -> None:
    """A probe is given up long before a request is: that is a failure, and the breaker counts it."""
    http = client_of(proxy.url, timeout=60.0)
    proxy.fault = black_hole()

    async def ask() -> ServiceError:
        limit_time(2.0)
        with pytest.raises(ServiceError) as caught:
            await http.json(READ)
        return caught.value

    error = await asyncio.wait_for(asyncio.create_task(ask()), 30)
    assert error.code == "timeout"
    assert "request timeout" not in error.advice
    assert http.policy.breaker.view().failures == 1
    await http.aclose()


async def test_an_answer_on_its_way_falls_into_the_hole() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await go_on.wait()

    held = dataclasses.replace(reply({"fine": True}), before=wait)
    async with raw_server(lambda _: held) as server, fault_proxy(server.url) as proxy:
        http = client_of(proxy.url, timeout=0.3)
        asking = asyncio.create_task(code_of(http))
        await asked.wait()
        proxy.fault = black_hole()
        go_on.set()
        assert await asking == "timeout"
        await http.aclose()


async def took(asking: Awaitable[object]) -> float:
    started = time.monotonic()
    await asking
    return time.monotonic() - started


async def test_latency_and_trickle_take_their_time(http: Http, proxy: FaultProxy) -> None:
    proxy.fault = latency(0.1, 0.05)
    assert await took(http.json(READ)) >= 0.1
    proxy.fault = trickle(1_000_000)
    assert await took(http.json(Call("GET", "/big"))) >= 0.15


async def test_trickling_ends_with_the_fault(http: Http, proxy: FaultProxy) -> None:
    proxy.fault = trickle(1)
    asking = asyncio.create_task(http.json(Call("GET", "/big")))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asking), 0.3)
    proxy.fault = CLEAR
    assert (await asking).data == BIG


async def test_the_end_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with raw_server(lambda _: reply({"fine": True})) as server, fault_proxy(server.url) as proxy:
        http = client_of(proxy.url, timeout=30.0)
        await http.json(READ)
        proxy.fault = black_hole()
        asking = [asyncio.create_task(code_of(http)) for _ in range(3)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.gather(*asking)), 0.2)
        await proxy.aclose()
        assert set(await asyncio.gather(*asking)) <= {"connection_lost", "unreachable"}
        assert proxy.open == 0
        assert set(proxy.counts) == {"none", "black hole"}
        await http.aclose()
    assert not {task for task in asyncio.all_tasks() - before if not task.done()}
