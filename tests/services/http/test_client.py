"""Requests through a policy: what is repeated, what is held back, what is asked all the same."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from typing import Any

import pytest

from services.errors import Category, ServiceError
from services.http import Call, Http, HttpOptions
from services.resilience import (
    Breaker,
    BreakerOptions,
    BreakerState,
    Limits,
    MemoryWindows,
    Policy,
    RateLimiter,
    Subject,
)
from services.security import Secret
from tests.support.fake_time import FakeTime
from tests.support.rawserver import Reply, Seen, raw_server, reply, scripted

KEY = "key-for-tests-0123456789"
FINE = reply({"fine": True})
BROKEN = reply({"message": "broken"}, status=503)
READ, WRITE = Call("GET", "/thing"), Call("POST", "/thing", body={"a": 1})
Connect = Callable[..., Http]


@pytest.fixture
def connect(fake_time: FakeTime) -> Connect:
    def build(url: str, **options: Any) -> Http:
        settings: dict[str, Any] = {
            "vendor": "Partner",
            "base_url": url,
            "key": Secret(KEY),
            "clock": fake_time,
            "sleep": fake_time.sleep,
            "rng": random.Random(7),
            "timeout": 5.0,
            "user_agent": "tests",
        }
        return Http(HttpOptions(**(settings | options)))

    return build


def policy(fake_time: FakeTime, limiter: RateLimiter | None = None, **options: Any) -> Policy:
    breaker = Breaker("Partner (acme)", BreakerOptions(**options), fake_time)
    return Policy(
        "Partner (acme)",
        fake_time,
        breaker=breaker,
        limiter=limiter,
        sleep=fake_time.sleep,
        rng=random.Random(7),
    )


async def code_of(http: Http, call: Call = READ, **how: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        await http.json(call, **how)
    return caught.value.code


# What is repeated


async def test_a_read_is_repeated_and_a_write_is_not(connect: Connect) -> None:
    async with raw_server(scripted([BROKEN, FINE])) as server:
        http = connect(server.url)
        assert (await http.json(READ)).data == {"fine": True}
        assert len(server.seen) == 2
        await http.aclose()
    async with raw_server(scripted([BROKEN, FINE])) as server:
        http = connect(server.url)
        assert await code_of(http, WRITE, write=True) == "server_error"
        assert len(server.seen) == 1
        await http.aclose()


async def test_a_write_with_an_idempotency_key_is_repeated_and_carries_it_every_time(
    connect: Connect,
) -> None:
    async with raw_server(scripted([BROKEN, Reply(b"", then="close"), FINE])) as server:
        http = connect(server.url)
        await http.json(WRITE, write=True, idempotency_key="intent-7")
        assert [seen.headers["idempotency-key"] for seen in server.seen] == ["intent-7"] * 3
        assert {seen.body for seen in server.seen} == {b'{"a":1}'}
        await http.aclose()


async def test_the_wait_for_a_place_costs_no_retry_budget(connect: Connect, fake_time: FakeTime) -> None:
    """Two minutes in the queue, then a failure: it is tried again although the budget is 45 s."""
    first, go_on = asyncio.Event(), asyncio.Event()
    answers = iter([BROKEN, FINE])

    async def wait() -> None:
        first.set()
        await go_on.wait()

    def answer(seen: Seen) -> Reply:
        return Reply(FINE.raw, before=wait) if seen.path == "/slow" else next(answers)

    async with raw_server(answer) as server:
        http = connect(server.url, concurrency=1)
        slow = asyncio.create_task(http.json(Call("GET", "/slow")))
        await first.wait()
        queued = asyncio.create_task(http.json(READ))
        for _ in range(20):  # until it stands in the queue
            await asyncio.sleep(0)
        fake_time.seconds += 120
        go_on.set()
        assert (await queued).data == {"fine": True}
        await slow
        await http.aclose()


# What is held back


async def test_failing_calls_open_the_breaker_and_the_rest_is_not_sent(
    connect: Connect, fake_time: FakeTime
) -> None:
    async with raw_server(scripted([BROKEN])) as server:
        http = connect(server.url, policy=policy(fake_time))
        for _ in range(5):
            assert await code_of(http) == "server_error"
        assert len(server.seen) == 20
        with pytest.raises(ServiceError) as caught:
            await http.json(READ)
        error = caught.value
        assert (error.code, error.category) == ("breaker_open", Category.TRANSIENT)
        assert error.message.startswith("Partner (acme) is not asked for now")
        assert len(server.seen) == 20
        await http.aclose()


async def test_one_thing_that_always_fails_does_not_open_it(connect: Connect, fake_time: FakeTime) -> None:
    """Calls count, not attempts, and a success in between starts the count anew."""
    http_policy = policy(fake_time)
    async with raw_server(lambda seen: BROKEN if seen.path == "/broken" else FINE) as server:
        http = connect(server.url, policy=http_policy)
        for _ in range(8):
            assert await code_of(http, Call("GET", "/broken")) == "server_error"
            await http.json(READ)
        assert http_policy.breaker.view().state is BreakerState.CLOSED
        await http.aclose()


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
async def test_a_refusal_is_no_illness(connect: Connect, fake_time: FakeTime, status: int) -> None:
    http_policy = policy(fake_time, failure_threshold=1)
    async with raw_server(scripted([reply({}, status=status)])) as server:
        http = connect(server.url, policy=http_policy)
        await code_of(http)
        assert http_policy.breaker.view().state is BreakerState.CLOSED
        await http.aclose()


async def test_after_an_outage_all_of_many_requests_get_through(
    connect: Connect, fake_time: FakeTime
) -> None:
    """Half open lets one through at a time: the others wait for what comes of it instead of failing."""
    state = {"well": False}
    http_policy = policy(fake_time, failure_threshold=1, open_seconds=30.0)
    async with raw_server(lambda _: FINE if state["well"] else BROKEN) as server:
        http = connect(server.url, policy=http_policy)
        await code_of(http)
        assert http_policy.breaker.view().state is BreakerState.OPEN
        state["well"] = True
        fake_time.seconds += 30

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(0.001)

        patient = connect(server.url, policy=http_policy, sleep=sleep)
        answers = await asyncio.gather(*(patient.json(READ) for _ in range(40)))
        assert len(answers) == 40
        assert http_policy.breaker.view().state is BreakerState.CLOSED
        await http.aclose()
        await patient.aclose()


async def test_if_the_try_fails_those_who_waited_are_told(connect: Connect, fake_time: FakeTime) -> None:
    http_policy = policy(fake_time, failure_threshold=1, open_seconds=30.0)
    async with raw_server(scripted([BROKEN])) as server:

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(0.001)

        http = connect(server.url, policy=http_policy, sleep=sleep)
        await code_of(http)
        sent = len(server.seen)
        fake_time.seconds += 30
        codes = await asyncio.gather(*(code_of(http) for _ in range(20)))
        assert sorted(codes) == ["breaker_open"] * 19 + ["server_error"]
        assert len(server.seen) == sent + 1
        await http.aclose()


async def test_what_insists_is_asked_and_its_answers_close_the_breaker(
    connect: Connect, fake_time: FakeTime
) -> None:
    state = {"well": False}
    http_policy = policy(fake_time, failure_threshold=1)
    async with raw_server(lambda _: FINE if state["well"] else BROKEN) as server:
        http = connect(server.url, policy=http_policy)
        await code_of(http)
        assert await code_of(http) == "breaker_open"
        assert await code_of(http, insist=True) == "server_error"
        assert http_policy.breaker.view().state is BreakerState.OPEN
        state["well"] = True
        await http.json(READ, insist=True)
        assert http_policy.breaker.view().state is BreakerState.HALF_OPEN
        # Others may try from now on; one answer more is enough, whoever gets it.
        await http.json(READ, insist=True)
        assert http_policy.breaker.view().state is BreakerState.CLOSED
        await http.json(READ)
        await http.aclose()


async def test_a_subject_is_limited_and_without_one_nothing_is(connect: Connect, fake_time: FakeTime) -> None:
    limits = Limits(minute=2, hour=0, day=0, burst=0)
    limiter = RateLimiter(MemoryWindows(fake_time), account=limits)
    async with raw_server(scripted([FINE])) as server:
        http = connect(server.url, policy=policy(fake_time, limiter))
        for _ in range(5):
            await http.json(READ)
        acme = Subject(account="acme")
        await http.json(READ, subject=acme)
        await http.json(READ, subject=acme)
        assert await code_of(http, subject=acme) == "limited"
        assert len(server.seen) == 7
        await http.aclose()


async def test_what_insists_waits_for_no_place(connect: Connect) -> None:
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        taken.set()
        await go_on.wait()

    def answer(seen: Seen) -> Reply:
        return Reply(FINE.raw, before=wait) if seen.path == "/slow" else FINE

    async with raw_server(answer) as server:
        http = connect(server.url, concurrency=1)
        slow = [asyncio.create_task(http.json(Call("GET", "/slow"))) for _ in range(3)]
        await taken.wait()
        await http.json(READ, insist=True)
        assert (http.stats.in_flight, http.stats.queued) == (1, 2)
        go_on.set()
        await asyncio.gather(*slow)
        assert server.most == 2
        await http.aclose()


async def test_a_request_that_is_cancelled_at_any_moment_spoils_none_after_it(connect: Connect) -> None:
    async with raw_server(scripted([FINE])) as server:
        http = connect(server.url, concurrency=1)
        for steps in range(60):
            asking = asyncio.create_task(http.json(READ))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            async with asyncio.timeout(5):
                await http.json(READ, attempts=1)
        assert http.stats.in_flight == 0
        await http.aclose()


# What is sent


async def test_key_header_basic_or_nothing(connect: Connect) -> None:
    async with raw_server(scripted([FINE])) as server:
        for options in ({}, {"header": "x-key", "prefix": ""}, {"user": "AC1"}, {"key": None}):
            http = connect(server.url, **options)
            await http.json(READ)
            await http.aclose()
        bearer, plain, basic, none = (seen.headers for seen in server.seen)
    assert bearer["authorization"] == f"Bearer {KEY}"
    assert plain["x-key"] == KEY
    assert "authorization" not in plain
    assert base64.b64decode(basic["authorization"].removeprefix("Basic ")).decode() == f"AC1:{KEY}"
    assert "authorization" not in none


async def test_headers_of_a_call_come_on_top(connect: Connect) -> None:
    async with raw_server(scripted([FINE])) as server:
        http = connect(server.url)
        await http.json(Call("GET", "/", headers={"x-version": "2", "accept": "text/plain"}))
        headers = server.seen[0].headers
        assert (headers["x-version"], headers["accept"]) == ("2", "text/plain")
        assert headers["authorization"] == f"Bearer {KEY}"
        await http.aclose()


async def test_files_travel_as_a_multipart_form(connect: Connect) -> None:
    async with raw_server(scripted([BROKEN, FINE])) as server:
        http = connect(server.url)
        call = Call("POST", "/", form={"name": "menu"}, files={"file": ("menu.txt", b"Soup\n", "text/plain")})
        await http.json(call)
        assert len(server.seen) == 2
        for seen in server.seen:
            assert seen.headers["content-type"].startswith("multipart/form-data")
            for part in (b'name="name"', b"menu", b'filename="menu.txt"', b"text/plain", b"Soup\n"):
                assert part in seen.body
        await http.aclose()


@pytest.mark.parametrize("options", [{}, {"user": "AC1"}])
async def test_a_key_that_is_repeated_is_masked(connect: Connect, options: dict[str, Any]) -> None:
    async with raw_server(scripted([reply({"message": f"no {KEY} here"}, status=400)])) as server:
        http = connect(server.url, **options)
        with pytest.raises(ServiceError) as caught:
            await http.json(READ)
        assert KEY not in caught.value.message
        assert "no … here" in caught.value.message
        await http.aclose()
