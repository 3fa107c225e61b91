from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.errors import ServiceError
from services.http.cache import SharedCache


class Source:
    """Counts its fetches and lets each finish when told."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []
        self.cancelled = 0

    async def fetch(self) -> int:
        gate = asyncio.Event()
        self.gates.append(gate)
        number = len(self.gates)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_kept_for_its_age_then_fetched_again(fake_time: Any) -> None:
    cache, calls = SharedCache(fake_time), 0

    async def fetch() -> int:
        nonlocal calls
        calls += 1
        return calls

    assert await cache.get("k", fetch, ttl=60) == 1
    fake_time.seconds += 59.9
    assert await cache.get("k", fetch, ttl=60) == 1
    fake_time.seconds += 0.2
    assert await cache.get("k", fetch, ttl=60) == 2
    assert await cache.get("k", fetch, ttl=60, fresh=True) == 3
    assert await cache.get("k", fetch, ttl=60) == 3
    cache.drop()
    assert await cache.get("k", fetch, ttl=60) == 4


async def test_callers_of_one_moment_share_one_fetch(fake_time: Any) -> None:
    cache, source = SharedCache(fake_time), Source()
    tasks = [asyncio.create_task(cache.get("k", source.fetch, ttl=60)) for _ in range(3)]
    await settle()
    assert len(source.gates) == 1
    tasks[0].cancel()
    await settle()
    assert tasks[0].cancelled()
    source.gates[0].set()
    assert await asyncio.gather(*tasks[1:]) == [1, 1]


async def test_the_fetch_ends_with_its_last_caller(fake_time: Any) -> None:
    cache, source = SharedCache(fake_time), Source()
    tasks = [asyncio.create_task(cache.get("k", source.fetch, ttl=60)) for _ in range(2)]
    await settle()
    for task in tasks:
        task.cancel()
    newcomer = asyncio.create_task(cache.get("k", source.fetch, ttl=60))
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    for gate in source.gates:
        gate.set()
    assert isinstance(await newcomer, int)
    assert all(task.cancelled() for task in tasks)


async def test_fresh_never_takes_an_answer_that_was_asked_for_before(fake_time: Any) -> None:
    cache, source = SharedCache(fake_time), Source()
    old = asyncio.create_task(cache.get("k", source.fetch, ttl=60))
    await settle()
    fresh = asyncio.create_task(cache.get("k", source.fetch, ttl=60, fresh=True))
    await settle()
    source.gates[1].set()
    assert await fresh == 2
    source.gates[0].set()
    assert await old == 1
    # The older answer came later and must not replace the newer one.
    assert await cache.get("k", source.fetch, ttl=60) == 2


async def test_what_was_on_its_way_when_dropped_is_not_kept(fake_time: Any) -> None:
    cache, source = SharedCache(fake_time), Source()
    first = asyncio.create_task(cache.get("k", source.fetch, ttl=60))
    await settle()
    cache.drop()
    source.gates[0].set()
    assert await first == 1
    second = asyncio.create_task(cache.get("k", source.fetch, ttl=60))
    await settle()
    source.gates[1].set()
    assert await second == 2


async def test_a_failure_reaches_every_caller_and_is_not_kept(fake_time: Any) -> None:
    cache = SharedCache(fake_time)
    answers: list[Any] = [ServiceError("no"), 5]

    async def fetch() -> Any:
        await asyncio.sleep(0)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    results = await asyncio.gather(*(cache.get("k", fetch, ttl=60) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [ServiceError, ServiceError]
    assert await cache.get("k", fetch, ttl=60) == 5


async def test_closing_ends_the_fetch_and_tells_its_callers(fake_time: Any) -> None:
    cache, source = SharedCache(fake_time), Source()
    task = asyncio.create_task(cache.get("k", source.fetch, ttl=60))
    await settle()
    await cache.aclose()
    with pytest.raises(ServiceError) as caught:
        await task
    assert caught.value.code == "closed"
    assert source.cancelled == 1
