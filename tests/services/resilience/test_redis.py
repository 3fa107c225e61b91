"""Limits and breakers in a real Redis: the same answers as in memory, and what happens when it is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import subprocess
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from services.clock import SystemClock
from services.errors import Category, ServiceError, UsageError
from services.resilience import (
    Attempt,
    BreakerOptions,
    BreakerState,
    Level,
    Limits,
    MemoryWindows,
    Outcome,
    Policies,
    Subject,
    scripts,
)
from services.resilience.breaker import Breaker, Machine, Permit, Refusal
from services.resilience.limits import LevelLimits, limited
from services.resilience.shared import RedisBreakers, SharedStore
from tests.services.resilience import redis_worker
from tests.support.fake_time import FakeTime
from tests.support.redis import PASSWORD, RedisServer

ACME = Subject("acme", "bot", "+4915112345678")
LIMITS: LevelLimits = tuple((level, Limits()) for level in Level)
LONG = 30.0
"""Seconds after which a test gives up waiting, and how patient a store is where speed is not the point."""


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[SharedStore]:
    store = SharedStore(redis_url, patience=LONG)
    yield store
    await store.aclose()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


async def until(what: Callable[[], Any], pause: float = 0.005) -> None:
    async with asyncio.timeout(LONG):
        while not what():  # noqa: ASYNC110  # what is waited for knows no event
            await asyncio.sleep(pause)


class ServerClock(FakeTime):
    """A time that the scripts read from a key, in place of the server's clock."""

    def __init__(self, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.client = client
        for name in ("TAKE", "BUDGETS", "BREAKER"):
            text = getattr(scripts, name)
            assert text.count("redis.call('TIME')") == 1
            text = text.replace("redis.call('TIME')", "redis.call('LRANGE', 'test-clock', 0, 1)")
            monkeypatch.setattr(scripts, name, text)
        self.set(self.seconds)

    def set(self, seconds: float) -> None:
        self.seconds = seconds
        self.client.delete("test-clock")
        self.client.rpush("test-clock", int(seconds), round(seconds % 1 * 1_000_000))


@pytest.fixture
def server_clock(client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> ServerClock:
    return ServerClock(client, monkeypatch)


# -- the same answers as in memory ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_windows_answer_as_those_in_memory(
    store: SharedStore, server_clock: ServerClock, seed: int
) -> None:
    rng = random.Random(seed)
    ours = MemoryWindows(server_clock)
    windows = store.windows(MemoryWindows(server_clock))
    for _ in range(3):
        limits = tuple(
            (level, Limits(rng.randint(0, 5), rng.randint(0, 6), rng.randint(1, 9), rng.randint(0, 3)))
            for level in Level
        )
        for _ in range(120):
            # In 64ths of a second, which both count exactly; all windows' lengths among them.
            gap = rng.choice((1 / 64, 1 / 4, 1.0, 7.0, 60.0, 500.0, 3600.0, 30000.0, 86400.0))
            server_clock.set(server_clock.seconds + gap)
            subject = Subject(
                rng.choice(("", "a", "b}{c")), rng.choice(("", "x")), rng.choice(("", "u", "v"))
            )
            assert await windows.take(subject, limits) == ours.take_now(subject, limits)
            assert await windows.budgets(subject, limits) == ours.budgets_now(subject, limits)
            assert windows.busiest("a", limits) == ours.busiest("a", limits)


@pytest.mark.parametrize("seed", range(4))
async def test_breakers_behave_as_those_in_memory(
    store: SharedStore, server_clock: ServerClock, seed: int
) -> None:
    rng = random.Random(seed)
    breakers = store.breakers()
    for number in range(4):
        options = BreakerOptions(
            rng.randint(1, 4), rng.randint(1, 10), rng.randint(1, 3), rng.randint(1, 3), rng.randint(1, 15)
        )
        name, machine = f"breaker {number}", Machine(options)
        calls: list[tuple[Permit, Permit]] = []
        for _ in range(150):
            now = server_clock.seconds
            match rng.randrange(9):
                case 0 | 1:
                    server_clock.set(now + rng.randint(1, 8))
                    continue
                case 2 | 3 | 4:
                    theirs, view = await breakers.admit(name, options)
                    mine = machine.admit(now)
                    if isinstance(mine, Permit):
                        assert isinstance(theirs, Permit)
                        assert (theirs.generation, bool(theirs.probe)) == (mine.generation, bool(mine.probe))
                        calls.append((theirs, mine))
                    else:
                        assert theirs == mine
                case 5 | 6 if calls:
                    theirs, mine = calls.pop(rng.randrange(len(calls)))
                    outcome = rng.choice(list(Outcome))
                    view = await breakers.report(name, options, theirs, outcome)
                    machine.report(mine, outcome, now)
                case 7 if rng.random() < 0.3:
                    view = await breakers.force(name, options, open_it=True)
                    machine.trip(now)
                case 8:
                    view = await breakers.prove(name, options)
                    machine.proved()
                case _:
                    view = await breakers.view(name, options)
            mine_view = machine.view(now)
            assert (view.state, view.failures, view.successes, view.probing, view.reopens_in) == (
                mine_view.state,
                mine_view.failures,
                mine_view.successes,
                mine_view.probing,
                mine_view.reopens_in,
            )


async def test_grants_of_one_moment_are_kept_apart(
    store: SharedStore, server_clock: ServerClock, client: redis.Redis
) -> None:
    windows = store.windows(MemoryWindows(server_clock))
    limits = ((Level.ACCOUNT, Limits(burst=3, minute=0)),)
    assert [(await windows.take(ACME, limits)).allowed for _ in range(4)] == [True, True, True, False]
    (key,) = client.keys("*:limit:*")
    assert client.zcard(key) == 3
    server_clock.set(server_clock.seconds + 1)
    assert (await windows.take(ACME, limits)).remaining == 0, "two of them left a microsecond later"


async def test_a_clock_put_back_a_little_only_makes_wait(
    store: SharedStore, server_clock: ServerClock
) -> None:
    windows = store.windows(MemoryWindows(server_clock))
    limits = ((Level.ACCOUNT, Limits(burst=1, minute=3)),)
    assert (await windows.take(ACME, limits)).allowed
    server_clock.set(server_clock.seconds - 10)
    answer = await windows.take(ACME, limits)
    assert (answer.allowed, answer.retry_after) == (False, 11.0)
    server_clock.set(server_clock.seconds + 11)
    assert (await windows.take(ACME, limits)).allowed


async def test_a_clock_put_back_by_a_year_locks_nobody_out(
    store: SharedStore, server_clock: ServerClock
) -> None:
    windows, breakers = store.windows(MemoryWindows(server_clock)), store.breakers()
    server_clock.set(1000 + 86400 * 365)
    limits = ((Level.ACCOUNT, Limits(burst=1, minute=3)),)
    assert (await windows.take(ACME, limits)).allowed
    await breakers.force("It", BreakerOptions(), open_it=True)
    server_clock.set(1000)
    assert (await windows.take(ACME, limits)).allowed
    assert (await breakers.view("It", BreakerOptions())).reopens_in == 30


async def test_a_dead_process_holds_its_place_only_for_its_lease(
    store: SharedStore, server_clock: ServerClock
) -> None:
    options = BreakerOptions(open_seconds=5, probe_seconds=20)
    dead, alive = RedisBreakers(store), RedisBreakers(store)
    await dead.force("It", options, open_it=True)
    server_clock.set(server_clock.seconds + 5)
    assert isinstance((await dead.admit("It", options))[0], Permit)
    server_clock.set(server_clock.seconds + 19)
    answer, view = await alive.admit("It", options)
    assert answer == Refusal(1.0, trying=True)
    assert view.probing == 1
    server_clock.set(server_clock.seconds + 1)
    assert isinstance((await alive.admit("It", options))[0], Permit)


async def test_who_is_trying_is_known_here_and_believed_of_others_for_a_second(
    store: SharedStore, server_clock: ServerClock, fake_time: FakeTime
) -> None:
    ours, theirs = (Breaker("It", BreakerOptions(), fake_time, shared=RedisBreakers(store)) for _ in range(2))
    await ours.trip()
    server_clock.set(server_clock.seconds + 30)
    permit = await ours.admit()
    with pytest.raises(ServiceError, match="another call is just trying"):
        await theirs.admit()
    assert (ours.view().probing, theirs.view().probing) == (1, 1)
    fake_time.seconds += 1
    assert (ours.view().probing, theirs.view().probing) == (1, 0)
    await ours.succeeded(permit)
    assert ours.view().probing == 0
    permit = await ours.admit()
    ours.release(permit)
    assert ours.view().probing == 0


# -- what is stored -------------------------------------------------------------------------------


async def test_all_keys_of_a_question_are_in_one_slot_expire_and_name_no_user(
    store: SharedStore, client: redis.Redis
) -> None:
    await store.windows(MemoryWindows(SystemClock())).take(Subject("acme {x}", "bot", "+49151"), LIMITS)
    keys = sorted(client.keys("*:limit:*"))
    assert len(keys) == 3
    assert {key.partition("{")[2].partition("}")[0] for key in keys} == {"acme%20%7Bx%7D"}
    assert not [key for key in keys if "49151" in key]
    assert all(0 < client.pttl(key) <= 86_401_000 for key in keys)
    await store.breakers().force("It", BreakerOptions(), open_it=True)
    (key,) = client.keys("*:breaker:*")
    assert 0 < client.pttl(key) <= 2 * 86_400_000


async def test_only_what_is_in_a_limited_window_is_kept(
    store: SharedStore, server_clock: ServerClock, client: redis.Redis
) -> None:
    windows = store.windows(MemoryWindows(server_clock))
    limits = ((Level.ACCOUNT, Limits(minute=100, hour=0, day=0, burst=0)),)
    for _ in range(50):
        server_clock.set(server_clock.seconds + 7)
        assert (await windows.take(ACME, limits)).allowed
    (key,) = client.keys("*:limit:*")
    assert client.zcard(key) == 9


async def test_installations_with_other_prefixes_do_not_meet(redis_url: str) -> None:
    limits = ((Level.ACCOUNT, Limits(minute=1)),)
    for prefix in ("one", "two"):
        store = SharedStore(redis_url, prefix=prefix, patience=LONG)
        windows = store.windows(MemoryWindows(SystemClock()))
        assert (await windows.take(ACME, limits)).allowed
        assert not (await windows.take(ACME, limits)).allowed
        await store.aclose()


async def test_the_socket_of_a_server_works_too(redis_server: RedisServer) -> None:
    store = SharedStore(redis_server.socket_url)
    assert await store.check() > 0
    assert store.place.endswith("/redis.sock")
    await store.aclose()


# -- several processes ----------------------------------------------------------------------------


def workers(url: str, number: int, *words: str) -> list[dict[str, Any]]:
    """What so many processes told that began this work at the same moment."""
    command = [sys.executable, "-m", redis_worker.__name__, url, *words]
    root = Path(__file__).resolve().parents[3]
    started = [
        subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=120)[0] for process in started]
        assert [process.returncode for process in started] == [0] * number
        return [json.loads(line) for line in told]
    finally:
        for process in started:
            process.kill()
            process.wait()


def most_in_any_window(times: list[int], length: int) -> int:
    """The most grants that a window of this length holds, wherever it is laid. In microseconds."""
    return max(bisect_left(times, at + length) - index for index, at in enumerate(times))


async def test_four_processes_on_one_redis_never_exceed_a_window(redis_url: str, client: redis.Redis) -> None:
    told = await asyncio.to_thread(workers, redis_url, 4, "hammer", "1000")
    assert sum(one["allowed"] + one["refused"] for one in told) >= 4000
    assert not any(one["degraded"] for one in told)
    limits = {"account": redis_worker.ACCOUNT, "agent": redis_worker.AGENT, "user": redis_worker.USER}
    granted: dict[str, int] = {}
    for key in client.keys("*:limit:*"):
        level = key.split(":")[3]
        times = [int(score) for _, score in client.zrange(key, 0, -1, withscores=True)]
        granted[level] = granted.get(level, 0) + len(times)
        assert len(set(times)) == len(times)
        for _, window, length, limit in limits[level].limited:
            assert most_in_any_window(times, round(length * 1_000_000)) <= limit, (key, window)
    # All levels or none, and every one of these as much as it may.
    allowed = sum(one["allowed"] for one in told)
    assert granted == {"account": allowed, "agent": allowed, "user": allowed}
    full = {name for one in told for name in one["full"]}
    assert "account/minute" in full
    assert full & {"account/burst", "agent/burst", "user/burst"}


async def test_a_breaker_that_one_process_opened_is_open_in_another(
    redis_url: str, store: SharedStore
) -> None:
    changes: list[str] = []
    policies = Policies(SystemClock(), on_change=changes.append, shared=store)
    policy = policies.of("The line", breaker=redis_worker.BREAKER)
    assert await policy.run(_works) == "yes"
    assert policy.breaker.view().shared
    (told,) = await asyncio.to_thread(workers, redis_url, 1, "fail", "4")
    assert told == {"codes": ["", "", "", "breaker_open"], "state": "open"}
    assert policy.breaker.view().state is BreakerState.CLOSED, "nobody asked yet"
    await policies.refresh()
    view = policy.breaker.view()
    assert (view.state, view.failures) == (BreakerState.OPEN, 3)
    assert 0 < view.reopens_in <= 600
    assert changes == ["The line"]
    with pytest.raises(ServiceError, match="not asked for now"):
        await policy.run(_works)
    await policy.breaker.reset()
    (told,) = await asyncio.to_thread(workers, redis_url, 1, "fail", "2")
    assert told == {"codes": ["", ""], "state": "closed"}


async def _works(attempt: Attempt) -> str:
    return "yes"


# -- lost and found -------------------------------------------------------------------------------


async def test_killed_in_the_middle_it_goes_on_in_memory_and_comes_back(own_redis: RedisServer) -> None:
    store = SharedStore(own_redis.url, patience=LONG, first_wait=0.01, longest_wait=0.05)
    changes: list[str] = []
    policies = Policies(SystemClock(), on_change=changes.append, shared=store)
    limiter = policies.limiter(account=Limits(burst=0, minute=5))
    policy = policies.of("It", limiter=limiter, breaker=BreakerOptions(failure_threshold=2))
    for _ in range(2):
        assert not (await limiter.take(ACME)).degraded
    await policy.run(_works)

    own_redis.kill()
    answer = await limiter.take(ACME)
    assert (answer.allowed, answer.degraded) == (True, True)
    assert answer.remaining == 2, "what was granted before is remembered here"
    assert all(budget.degraded for budget in await limiter.budgets(ACME))
    assert not store.available
    assert store.lost_since is not None
    assert await policy.run(_works, subject=ACME) == "yes"
    view = policy.breaker.view()
    assert (view.degraded, view.shared) == (True, False)
    for _ in range(2):
        with pytest.raises(ServiceError, match="dead"):
            await policy.run(_dead, attempts=1)
    assert policy.breaker.view().state is BreakerState.OPEN
    assert changes == ["It", "It"]

    own_redis.start()
    await until(lambda: store.available)
    assert store.lost_since is None
    answer = await limiter.take(ACME)
    assert (answer.allowed, answer.degraded, answer.remaining) == (True, False, 4)
    await policies.refresh()
    view = policy.breaker.view()
    assert (view.state, view.degraded, view.shared) == (BreakerState.CLOSED, False, True)
    await policies.aclose()


async def _dead(attempt: Attempt) -> None:
    raise ServiceError("It is dead", category=Category.TRANSIENT)


async def test_one_that_does_not_answer_is_not_waited_for(own_redis: RedisServer) -> None:
    store = SharedStore(own_redis.url, first_wait=0.01, longest_wait=0.05)
    policies = Policies(SystemClock(), shared=store)
    policy = policies.of("It", limiter=policies.limiter())
    await store.check()
    own_redis.freeze()
    try:
        assert await policy.run(_works, subject=ACME) == "yes"
        assert store.lost_reason == "did not answer within 250 ms"
        results = await asyncio.gather(
            *(policies.limiter(user=Limits(0, 0, 0, 0)).take(ACME) for _ in range(5))
        )
        assert all(result.degraded for result in results)
    finally:
        own_redis.thaw()
    await until(lambda: store.available)
    await policies.aclose()


@asynccontextmanager
async def slow_line(port: int) -> AsyncIterator[SimpleNamespace]:
    """A way to this port on which answers take `delay` seconds; counts them in `answers`."""
    line = SimpleNamespace(port=0, delay=0.0, answers=0)
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if answers:
                    await asyncio.sleep(line.delay)
                    line.answers += 1
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, inner_writer))
        await asyncio.gather(carry(reader, inner_writer, False), carry(inner_reader, writer, True))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def test_one_that_is_always_slow_stays_lost_until_it_is_quick(redis_server: RedisServer) -> None:
    async with slow_line(redis_server.port) as line:
        url = redis_server.url.replace(str(redis_server.port), str(line.port))
        store = SharedStore(url, first_wait=0.01, longest_wait=0.02)
        windows = store.windows(MemoryWindows(SystemClock()))
        line.delay = 0.4
        assert (await windows.take(ACME, LIMITS)).degraded
        before = line.answers
        await until(lambda: line.answers >= before + 4)
        assert not store.available, "no call shall wait for it again just because it answers at all"
        with pytest.raises(ServiceError, match="did not answer within 250 ms"):
            await store.check()
        line.delay = 0.0
        await until(lambda: store.available)
        assert not (await windows.take(ACME, LIMITS)).degraded
        await store.aclose()


async def test_one_that_never_was_there(tmp_path: Path) -> None:
    store = SharedStore(f"unix://{tmp_path}/nobody.sock", first_wait=0.01, longest_wait=0.05)
    policies = Policies(SystemClock(), shared=store)
    assert store.available, "nobody asked yet"
    limiter = policies.limiter(user=Limits(minute=1))
    answer = await limiter.take(ACME)
    assert (answer.allowed, answer.degraded) == (True, True)
    answer = await limiter.take(ACME)
    assert (answer.allowed, answer.degraded) == (False, True)
    assert "this process counts for itself" in limited("It", answer).advice
    with pytest.raises(ServiceError) as caught:
        await store.check()
    assert caught.value.message == f"Redis at {tmp_path}/nobody.sock cannot be reached"
    assert (caught.value.code, caught.value.category) == ("store_lost", Category.TRANSIENT)
    await policies.aclose()
    assert not store.available


async def test_a_restarted_one_is_asked_again_although_its_scripts_are_gone(own_redis: RedisServer) -> None:
    store = SharedStore(own_redis.url, patience=LONG)
    windows = store.windows(MemoryWindows(SystemClock()))
    assert (await windows.take(ACME, LIMITS)).remaining == 9
    with own_redis.client() as client:
        client.script_flush()
        client.client_kill_filter(_type="normal", skipme=True)
    assert not (await windows.take(ACME, LIMITS)).degraded
    await store.aclose()


async def test_one_without_room_or_rights_is_told_apart(redis_url: str, client: redis.Redis) -> None:
    store = SharedStore(redis_url, patience=LONG, first_wait=0.01, longest_wait=0.05)
    windows = store.windows(MemoryWindows(SystemClock()))
    client.config_set("maxmemory", "1")
    try:
        assert (await windows.take(ACME, LIMITS)).degraded
        assert store.lost_reason == "has no memory left"
    finally:
        client.config_set("maxmemory", "0")
    await until(lambda: store.available)
    assert not (await windows.take(ACME, LIMITS)).degraded
    await store.aclose()


async def test_closed_it_counts_as_lost(redis_url: str) -> None:
    store = SharedStore(redis_url, patience=LONG)
    windows = store.windows(MemoryWindows(SystemClock()))
    await windows.take(ACME, LIMITS)
    await store.aclose()
    await store.aclose()
    assert not store.available
    assert (await windows.take(ACME, LIMITS)).degraded
    with pytest.raises(ServiceError, match="not used any more"):
        await store.check()
    assert len(asyncio.all_tasks()) == 1


# -- cancelled ------------------------------------------------------------------------------------


async def test_a_place_taken_for_a_cancelled_call_is_given_back(
    store: SharedStore, client: redis.Redis
) -> None:
    options = BreakerOptions(open_seconds=0.001)
    breaker = Breaker("It", options, SystemClock(), shared=store.breakers())
    await store.check()
    await breaker.trip()
    await asyncio.sleep(0.002)
    task = asyncio.create_task(breaker.admit())
    await until(lambda: store._tasks, pause=0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not store._tasks)
    await breaker.refresh()
    view = breaker.view()
    assert (view.state, view.probing) == (BreakerState.HALF_OPEN, 0)
    permit = await breaker.admit()
    assert permit.probe
    assert breaker.view().probing == 1
    breaker.release(permit)
    await until(lambda: not store._tasks)
    await breaker.refresh()
    assert breaker.view().probing == 0


async def test_a_question_of_a_cancelled_call_is_still_answered(
    store: SharedStore, client: redis.Redis
) -> None:
    windows = store.windows(MemoryWindows(SystemClock()))
    await store.check()
    tasks = [asyncio.create_task(windows.take(ACME, LIMITS)) for _ in range(5)]
    await until(lambda: store._tasks, pause=0)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(done, asyncio.CancelledError)
        for done in await asyncio.gather(*tasks, return_exceptions=True)
    )
    await until(lambda: not store._tasks)
    assert not (await windows.take(ACME, LIMITS)).degraded
    assert store.available


# -- secrets --------------------------------------------------------------------------------------


async def test_no_part_of_the_address_is_told(
    redis_server: RedisServer,
    redis_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "wrong-canary-password"
    store = SharedStore(f"redis://someone:{canary}@127.0.0.1:{redis_server.port}/0", first_wait=30)
    windows = store.windows(MemoryWindows(SystemClock()))
    assert (await windows.take(ACME, LIMITS)).degraded
    with pytest.raises(ServiceError) as caught:
        await store.check()
    assert store.lost_reason == "refuses the user or the password in its address"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    await store.aclose()
    told = f"{caplog.text} {store!r} {store.place} {caught.value} {caught.value.advice}"
    assert "counts for itself" in caplog.text
    assert canary not in told
    assert "someone" not in told
    assert PASSWORD not in told


@pytest.mark.parametrize(
    "url",
    ["", "http://:canary@host", "redis://:canary@host:port/0", "redis://:canary@[::1", "unix://", "canary"],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        SharedStore(url)
    assert "canary" not in f"{caught.value} {caught.value.advice} {caught.value.__context__}"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:secret@example.org/3", "example.org:6379"),
        ("rediss://user:secret@example.org:6380", "example.org:6380"),
        ("redis://[::1]:7000", "[::1]:7000"),
        ("redis://", "localhost:6379"),
        ("unix://:secret@/run/redis.sock?db=1", "/run/redis.sock"),
    ],
)
def test_where_it_is_in_words(url: str, place: str) -> None:
    assert SharedStore(url).place == place


async def test_a_part_of_the_address_that_only_the_client_reads() -> None:
    store = SharedStore("redis://:canary@127.0.0.1:1/0?socket_timeout=canary", first_wait=30)
    with pytest.raises(ServiceError, match="a part that is not understood") as caught:
        await store.check()
    assert caught.value.__context__ is None
    await store.aclose()
