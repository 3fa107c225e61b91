"""What a policy costs: the limiter in memory and in Redis, and everything around one call that works.

In memory the processor's time is measured, not the clock's, since that hardly depends on busy neighbours.
Time moves on by 20 ms with each question, so that grants leave the windows all the time; all questions are
granted, which is what costs most.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.clock import SystemClock
from services.resilience import Attempt, Limits, MemoryWindows, Policies, RateLimiter, Subject
from tests.benchmarks.measuring import Figure, median, unmet
from tests.support.fake_time import FakeTime

ROUNDS = 9
CHECKS = 10_000
WIDE = 1_000_000
SUBJECTS = [Subject("acme", f"agent {n % 20}", f"user {n}") for n in range(500)]


class Ticking(FakeTime):
    """A clock that moves on by 20 ms each time it is asked."""

    def monotonic(self) -> float:
        self.seconds += 0.02
        return self.seconds


def limiter(burst: int, clock: FakeTime) -> RateLimiter:
    wide = Limits(burst=burst, minute=WIDE, hour=WIDE, day=WIDE)
    return RateLimiter(MemoryWindows(clock), account=wide, agent=wide, user=wide)


async def processor_seconds(work: Callable[[int], Awaitable[object]]) -> float:
    """Of one call, the median of several rounds after a first."""
    took = []
    for _ in range(ROUNDS + 1):
        started = time.process_time()
        for number in range(CHECKS):
            await work(number)
        took.append((time.process_time() - started) / CHECKS)
    return median(took[1:])


async def in_memory() -> list[Figure]:
    figures = []
    for words, burst, target in (
        ("9 windows (account, agent, user × minute, hour, day)", 0, 100_000),
        ("12 windows (burst too)", WIDE, None),
    ):
        asked = limiter(burst, Ticking())
        took = await processor_seconds(lambda n, asked=asked: asked.take(SUBJECTS[n % 500]))  # type: ignore[misc]
        figures.append(Figure(f"limiter in memory, {words}", 1 / took, "checks/s", target, least=True))
    strict = RateLimiter(MemoryWindows(Ticking()))
    took = await processor_seconds(lambda n: strict.take(SUBJECTS[n % 500]))
    figures.append(Figure("limiter in memory, the default limits, most refused", 1 / took, "checks/s"))
    took = await processor_seconds(lambda n: asked.budgets(SUBJECTS[n % 500]))
    figures.append(Figure("limiter in memory, what is left of 12 windows", took * 1e6, "µs"))
    return figures


async def around_a_call() -> list[Figure]:
    async def work(attempt: Attempt) -> int:
        return attempt.number

    bare = await processor_seconds(lambda n: work(Attempt()))
    clock = Ticking()
    policies = Policies(clock)
    plain = policies.of("Plain")
    limited = policies.of("Limited", limiter=limiter(WIDE, clock))
    without = await processor_seconds(lambda n: plain.run(work))
    full = await processor_seconds(lambda n: limited.run(work, subject=SUBJECTS[n % 500]))
    return [
        Figure("policy: 12 windows and breaker around a call that works", (full - bare) * 1e6, "µs", 50),
        Figure("policy: breaker alone", (without - bare) * 1e6, "µs"),
    ]


async def in_redis() -> list[Figure]:
    """By the clock on the wall, the server's work included. Nothing where no server is installed."""
    if shutil.which("redis-server") is None:
        return []
    from services.resilience.shared import SharedStore
    from tests.support.redis import running_redis

    figures = []
    with running_redis() as server:
        store = SharedStore(server.url, patience=10)
        wide = Limits(burst=WIDE, minute=WIDE, hour=WIDE, day=WIDE)
        policies = Policies(SystemClock(), shared=store, default_limits=wide)
        asked = policies.limiter()
        policy = policies.of("Limited", limiter=asked)
        await store.check()

        async def work(attempt: Attempt) -> int:
            return attempt.number

        async def rate(at_once: int, ask: Callable[[int], Awaitable[object]], total: int = 2000) -> float:
            async def one(start: int) -> None:
                for number in range(start, total, at_once):
                    await ask(number)

            started = time.perf_counter()
            await asyncio.gather(*(one(start) for start in range(at_once)))
            return total / (time.perf_counter() - started)

        for at_once in (1, 16):
            checks = await rate(at_once, lambda n: asked.take(SUBJECTS[n % 500]))
            figures.append(Figure(f"limiter in Redis, 12 windows, {at_once} at once", checks, "checks/s"))
        calls = await rate(1, lambda n: policy.run(work, subject=SUBJECTS[n % 500]))
        figures.append(Figure("policy in Redis around a call that works", 1000 / calls, "ms"))
        assert store.available
        await policies.aclose()
    return figures


async def measure(_: Path) -> list[Figure]:
    return [*await in_memory(), *await around_a_call(), *await in_redis()]


@pytest.mark.benchmark
async def test_resilience(tmp_path: Path) -> None:
    assert not unmet(await measure(tmp_path))
