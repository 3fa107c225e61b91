"""Trying again: how often, how long between, and when not."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import Category, ServiceError
from services.resilience import Attempt, RetryOptions, limit_time, time_left
from services.resilience.retry import Backoff, retry
from tests.support.fake_time import FakeTime

OPTIONS = RetryOptions()


def failing(category: Category = Category.TRANSIENT, retry_after: float | None = None) -> ServiceError:
    return ServiceError("It failed", category=category, retry_after=retry_after)


class Work:
    """Fails with these, one an attempt, then succeeds. An attempt takes `queued` and `takes` seconds."""

    def __init__(self, time: FakeTime, *errors: Exception, takes: float = 0.0, queued: float = 0.0) -> None:
        self.time, self.errors, self.takes, self.queued = time, list(errors), takes, queued
        self.attempts: list[int] = []

    async def __call__(self, attempt: Attempt) -> str:
        self.attempts.append(attempt.number)
        assert attempt.queued == 0.0
        self.time.seconds += self.takes + self.queued
        attempt.queued = self.queued
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def run(work: Work, options: RetryOptions = OPTIONS, **more: Any) -> str:
    return await retry(
        work, options, clock=work.time, sleep=work.time.sleep, rng=more.pop("rng", random.Random(7)), **more
    )


async def test_a_first_attempt_that_succeeds_waits_for_nothing(fake_time: FakeTime) -> None:
    work = Work(fake_time)
    assert await run(work) == "done"
    assert work.attempts == [1]
    assert fake_time.slept == []


async def test_it_is_tried_again_with_growing_waits(fake_time: FakeTime) -> None:
    work = Work(fake_time, failing(), failing(Category.TIMEOUT), failing(Category.RATE_LIMIT))
    assert await run(work) == "done"
    assert work.attempts == [1, 2, 3, 4]
    first, second, third = fake_time.slept
    assert 0.25 <= first <= 0.5
    assert 0.5 <= second <= 1.0
    assert 1.0 <= third <= 2.0


async def test_the_last_failure_is_raised_when_all_attempts_are_used_up(fake_time: FakeTime) -> None:
    errors = [failing() for _ in range(4)]
    work = Work(fake_time, *errors)
    with pytest.raises(ServiceError) as caught:
        await run(work)
    assert caught.value is errors[3]
    assert work.attempts == [1, 2, 3, 4]
    assert len(fake_time.slept) == 3


@pytest.mark.parametrize("category", [Category.PERMANENT, Category.AUTHENTICATION])
async def test_what_would_fail_again_is_not_tried_again(fake_time: FakeTime, category: Category) -> None:
    work = Work(fake_time, failing(category))
    with pytest.raises(ServiceError):
        await run(work)
    assert work.attempts == [1]


async def test_a_later_failure_of_another_kind_ends_it(fake_time: FakeTime) -> None:
    work = Work(fake_time, failing(), KeyError("a fault of ours"))
    with pytest.raises(KeyError):
        await run(work)
    assert work.attempts == [1, 2]


@pytest.mark.parametrize("attempts", [0, 1])
async def test_one_attempt_is_one_attempt(fake_time: FakeTime, attempts: int) -> None:
    work = Work(fake_time, failing())
    with pytest.raises(ServiceError):
        await run(work, attempts=attempts)
    assert work.attempts == [1]


async def test_retry_after_is_honoured_beyond_the_longest_wait(fake_time: FakeTime) -> None:
    work = Work(fake_time, failing(Category.RATE_LIMIT, retry_after=20.0))
    await run(work)
    assert 20.0 <= fake_time.slept[0] <= 20.25


async def test_a_wait_longer_than_who_asks_is_not_begun(fake_time: FakeTime) -> None:
    """A probe of two seconds learns that it was 429, not that nobody answered."""
    limit_time(2.0)
    work = Work(fake_time, failing(Category.RATE_LIMIT, retry_after=1.5))
    with pytest.raises(ServiceError) as caught:
        await run(work)
    assert caught.value.category is Category.RATE_LIMIT
    assert fake_time.slept == []
    await run(Work(fake_time, failing(Category.RATE_LIMIT, retry_after=0.3)))
    assert len(fake_time.slept) == 1


async def test_what_was_waited_for_in_vain_is_not_asked_again_with_less_time(fake_time: FakeTime) -> None:
    """A probe ends with what it learnt, and is not cut off in the middle of a second attempt."""
    limit_time(10.0)
    silent = Work(fake_time, failing(Category.TIMEOUT), takes=20.0)
    with pytest.raises(ServiceError):
        await run(silent)
    assert silent.attempts == [1]
    for kind, takes in ((Category.TIMEOUT, 2.0), (Category.TRANSIENT, 20.0)):
        work = Work(fake_time, failing(kind), takes=takes)
        assert await run(work) == "done"
        assert work.attempts == [1, 2]


async def test_what_outlives_who_asked_has_all_the_time_there_is() -> None:
    limit_time(5.0)
    assert 0 < await asyncio.create_task(_left()) <= 5.0
    limit_time(-1.0)
    assert await asyncio.create_task(_left()) == float("inf")


async def _left() -> float:
    return time_left()


async def test_a_short_retry_after_does_not_shorten_the_wait(fake_time: FakeTime) -> None:
    work = Work(fake_time, failing(retry_after=0.0))
    await run(work)
    assert fake_time.slept[0] >= 0.25


async def test_what_is_asked_to_wait_beyond_the_budget_gives_up_at_once(fake_time: FakeTime) -> None:
    work = Work(fake_time, failing(Category.RATE_LIMIT, retry_after=46.0))
    with pytest.raises(ServiceError):
        await run(work)
    assert fake_time.slept == []


async def test_what_just_fits_into_the_budget_is_waited_for(fake_time: FakeTime) -> None:
    work = Work(fake_time, failing(Category.RATE_LIMIT, retry_after=45.0))
    assert await run(work) == "done"
    assert fake_time.slept == [45.0]


async def test_attempts_and_waits_share_the_budget(fake_time: FakeTime) -> None:
    work = Work(fake_time, *(failing(Category.TIMEOUT) for _ in range(9)), takes=20.0)
    with pytest.raises(ServiceError):
        await run(work, RetryOptions(attempts=10))
    assert work.attempts == [1, 2, 3]  # 60 s and two waits: no fourth


async def test_the_wait_for_a_turn_does_not_count(fake_time: FakeTime) -> None:
    work = Work(fake_time, *(failing() for _ in range(3)), takes=1.0, queued=100.0)
    assert await run(work) == "done"
    assert work.attempts == [1, 2, 3, 4]


async def test_a_veto_ends_it_with_the_failure_itself(fake_time: FakeTime) -> None:
    error = failing()
    told: list[tuple[BaseException, float]] = []

    def veto(failure: BaseException, wait: float) -> bool:
        told.append((failure, wait))
        return False

    with pytest.raises(ServiceError) as caught:
        await run(Work(fake_time, error), before_retry=veto)
    assert caught.value is error
    assert told[0][0] is error
    assert fake_time.slept == []


async def test_the_ticket_is_kept_over_all_attempts(fake_time: FakeTime) -> None:
    seen: list[object] = []

    async def work(attempt: Attempt) -> None:
        seen.append(attempt.ticket)
        attempt.ticket = "mine"
        if attempt.number < 3:
            raise failing()

    await retry(work, OPTIONS, clock=fake_time, sleep=fake_time.sleep, rng=random.Random(1))
    assert seen == [None, "mine", "mine"]


async def test_cancelled_while_waiting_it_makes_no_further_attempt(fake_time: FakeTime) -> None:
    waiting, work = asyncio.Event(), Work(fake_time, failing())

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(retry(work, OPTIONS, clock=fake_time, sleep=sleep, rng=random.Random(1)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.attempts == [1]


async def test_a_failure_that_was_mended_is_not_kept_alive(fake_time: FakeTime) -> None:
    class Marked(ServiceError):
        pass

    error: Marked | None = Marked("It failed", category=Category.TRANSIENT)
    kept = weakref.ref(error)
    work = Work(fake_time, error)
    error = None
    gc.disable()
    try:
        await run(work)
        await asyncio.sleep(0)
        assert kept() is None
    finally:
        gc.enable()


def test_without_a_failure_the_library_is_not_imported() -> None:
    program = """
import asyncio, random, sys
from services.clock import SystemClock
from services.errors import Category, ServiceError
from services.resilience import Policies

async def main():
    policy = Policies(SystemClock(), sleep=lambda seconds: asyncio.sleep(0)).of("It")
    async def works(attempt):
        return 1
    await policy.run(works)
    assert "stamina" not in sys.modules and "redis" not in sys.modules
    async def mends(attempt):
        if attempt.number == 1:
            raise ServiceError("No", category=Category.TRANSIENT)
    await policy.run(mends)
    assert "stamina" in sys.modules

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # the library's own telling of retries is off


@given(
    seed=st.integers(0, 2**32),
    spent=st.floats(0, 60),
    asked=st.none() | st.floats(0, 60),
    failures=st.integers(1, 2000),
    budget=st.floats(0, 60),
)
def test_no_wait_is_too_short_too_long_or_beyond_the_budget(
    seed: int, spent: float, asked: float | None, failures: int, budget: float
) -> None:
    options = RetryOptions(attempts=3000, budget=budget)
    backoff = Backoff(options, random.Random(seed))
    wait: float | None = None
    for _ in range(failures):
        wait = backoff.wait(failing(retry_after=asked), spent)
    top = min(options.longest_wait, options.first_wait * 2.0 ** min(failures - 1, 50))
    room = budget - spent
    if wait is None:
        assert max(top, asked or 0.0) > room
    else:
        assert wait >= (asked or 0.0)
        assert top / 2 <= wait or wait == pytest.approx(room)
        assert wait <= max(top, (asked or 0.0) + 0.25)
        assert wait <= room
