"""The policy: limit, breaker, retry and fallback in that order, and what is seen of them."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.errors import Category, ServiceError, UsageError
from services.resilience import (
    Attempt,
    BreakerOptions,
    BreakerState,
    Fallback,
    Level,
    Limits,
    Policies,
    Policy,
    RetryOptions,
    Source,
    Subject,
)
from tests.support.fake_time import FakeTime

ACME = Subject("acme", "bot", "mary")
NO_LIMIT = Limits(0, 0, 0, 0)


class World:
    """Policies over a fake time, and what they said."""

    def __init__(self, time: FakeTime, **more: Any) -> None:
        self.time = time
        self.changes: list[str] = []
        self.policies = Policies(
            time, on_change=self.changes.append, sleep=time.sleep, rng=random.Random(3), **more
        )


@pytest.fixture
def world(fake_time: FakeTime) -> World:
    return World(fake_time)


def failing(category: Category = Category.TRANSIENT, code: str = "") -> ServiceError:
    return ServiceError("The line is dead", category=category, advice="Look at the plug", code=code)


def answers(*outcomes: object) -> Callable[[Attempt], Awaitable[Any]]:
    """Work that returns or raises these, one an attempt; the last one for ever."""
    left = list(outcomes)

    async def work(attempt: Attempt) -> Any:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return work


async def fail(policy: Policy, times: int = 1, error: Exception | None = None) -> None:
    for _ in range(times):
        with pytest.raises(type(error or failing())):
            await policy.run(answers(error or failing()), attempts=1)


async def tripped(world: World) -> Policy:
    policy = world.policies.of("It")
    await fail(policy, 5)
    assert policy.breaker.view().state is BreakerState.OPEN
    return policy


# -- run ------------------------------------------------------------------------------------------


async def test_a_call_that_works(world: World) -> None:
    policy = world.policies.of("It")
    assert await policy.run(answers("yes")) == "yes"
    stats = policy.stats
    assert (stats.calls, stats.attempts, stats.failures, stats.retries) == (1, 1, 0, 0)
    assert stats.last_success_at == world.time.now()
    assert list(stats.durations_ms) == [0.0]


async def test_what_a_retry_mends_is_no_failure(world: World) -> None:
    policy = world.policies.of("It", breaker=BreakerOptions(failure_threshold=1))
    assert await policy.run(answers(failing(), failing(), "yes")) == "yes"
    assert (policy.stats.attempts, policy.stats.retries, policy.stats.failures) == (3, 2, 0)
    assert policy.breaker.view().state is BreakerState.CLOSED
    assert policy.stats.durations_ms[0] == pytest.approx(sum(world.time.slept) * 1000)


async def test_a_write_is_attempted_once(world: World) -> None:
    policy = world.policies.of("It")
    with pytest.raises(ServiceError):
        await policy.run(answers(failing(), "yes"), write=True)
    assert policy.stats.attempts == 1
    with pytest.raises(ServiceError):
        await policy.run(answers(failing(), "yes"), write=True, idempotency_key="")
    assert policy.stats.attempts == 2
    assert world.time.slept == []


async def test_a_write_with_an_idempotency_key_is_tried_again(world: World) -> None:
    policy = world.policies.of("It")
    assert await policy.run(answers(failing(), "yes"), write=True, idempotency_key="k1") == "yes"
    assert policy.stats.attempts == 2


@pytest.mark.parametrize(("asked", "made"), [(None, 3), (1, 1), (2, 2), (99, 3)])
async def test_a_call_may_ask_for_fewer_attempts_but_not_for_more(
    world: World, asked: int | None, made: int
) -> None:
    policy = world.policies.of("It", retry_options=RetryOptions(attempts=3))
    with pytest.raises(ServiceError):
        await policy.run(answers(failing()), attempts=asked)
    assert policy.stats.attempts == made


async def test_an_open_breaker_refuses_without_asking(world: World) -> None:
    policy = await tripped(world)
    with pytest.raises(ServiceError, match="It is not asked for now"):
        await policy.run(answers("yes"))
    assert (policy.stats.attempts, policy.stats.refused_by_breaker, policy.stats.failures) == (5, 1, 5)
    assert policy.stats.last_error is not None
    assert policy.stats.last_error.message == "The line is dead"  # the refusal is none of its failures


async def test_it_is_tried_with_one_attempt_and_closes(world: World) -> None:
    policy = await tripped(world)
    world.time.seconds += 30
    with pytest.raises(ServiceError, match="dead"):
        await policy.run(answers(failing(), "yes"))
    assert policy.breaker.view().state is BreakerState.OPEN
    world.time.seconds += 30
    assert await policy.run(answers("yes")) == "yes"
    assert await policy.run(answers("yes")) == "yes"
    assert policy.breaker.view().state is BreakerState.CLOSED
    assert len(world.changes) == 5
    assert set(world.changes) == {"It"}


async def test_who_waits_for_another_attempt_gives_up_when_it_opens(fake_time: FakeTime) -> None:
    policies = Policies(fake_time, sleep=fake_time.sleep, rng=random.Random(1))
    policy = policies.of("It")

    async def work(attempt: Attempt) -> None:
        await policy.breaker.trip()
        raise failing()

    with pytest.raises(ServiceError, match="dead"):
        await policy.run(work)
    assert (policy.stats.attempts, policy.stats.retries) == (1, 0)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (failing(Category.TRANSIENT), BreakerState.OPEN),
        (failing(Category.TIMEOUT), BreakerState.OPEN),
        (failing(Category.RATE_LIMIT), BreakerState.CLOSED),
        (failing(Category.PERMANENT), BreakerState.CLOSED),
        (failing(Category.AUTHENTICATION), BreakerState.CLOSED),
        (failing(Category.TRANSIENT, "breaker_open"), BreakerState.HALF_OPEN),
        (UsageError("No such agent"), BreakerState.HALF_OPEN),
        (KeyError("a fault of ours"), BreakerState.HALF_OPEN),
    ],
)
async def test_what_each_failure_says_about_the_dependency(
    world: World, error: Exception, state: BreakerState
) -> None:
    policy = world.policies.of("It", breaker=BreakerOptions(success_threshold=1))
    await policy.breaker.trip()
    world.time.seconds += 30
    await fail(policy, error=error)
    view = policy.breaker.view()
    assert view.state is state
    assert view.probing == 0


async def test_a_limit_refuses_before_the_breaker_is_asked(world: World) -> None:
    limiter = world.policies.limiter(user=Limits(minute=2))
    policy = world.policies.of("It", limiter=limiter)
    for _ in range(2):
        await policy.run(answers("yes"), subject=ACME)
    with pytest.raises(ServiceError, match="this user has used up") as caught:
        await policy.run(answers("yes"), subject=ACME)
    assert caught.value.retry_after == 60
    assert (policy.stats.calls, policy.stats.attempts, policy.stats.refused_by_limit) == (3, 2, 1)
    await policy.run(answers("yes"))  # for nobody in particular: nothing to count


async def test_retries_take_nothing_more_from_the_limit(world: World) -> None:
    limiter = world.policies.limiter()
    policy = world.policies.of("It", limiter=limiter)
    await policy.run(answers(failing(), failing(), "yes"), subject=ACME)
    assert [budget.used for budget in await limiter.budgets(ACME) if budget.window == "day"] == [1, 1, 1]


# -- cancelled ------------------------------------------------------------------------------------


async def test_cancelled_while_it_tries_it_gives_its_place_back(world: World) -> None:
    policy = await tripped(world)
    world.time.seconds += 30
    begun = asyncio.Event()

    async def work(attempt: Attempt) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(policy.run(work))
    await begun.wait()
    assert policy.breaker.view().probing == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.breaker.view().probing == 0
    assert policy.breaker.view().state is BreakerState.HALF_OPEN
    assert await policy.run(answers("yes")) == "yes"
    assert policy.stats.failures == 5  # being cancelled is no failure


async def test_a_call_that_is_closed_like_a_generator_gives_its_place_back(world: World) -> None:
    policy = await tripped(world)
    world.time.seconds += 30

    class Never:
        def __await__(self) -> Any:
            yield

    async def work(attempt: Attempt) -> None:
        await Never()

    call = policy.run(work)
    call.send(None)
    assert policy.breaker.view().probing == 1
    call.close()
    assert policy.breaker.view().probing == 0


async def test_cancelled_between_attempts_counts_nothing_against_it(world: World) -> None:
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    policy = Policies(world.time, sleep=sleep).of("It")
    task = asyncio.create_task(policy.run(answers(failing())))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.breaker.view().failures == 0


# -- turns ----------------------------------------------------------------------------------------


def limited_policy(world: World, **limits: int) -> Policy:
    most = Limits(**{"minute": 0, "hour": 0, "day": 0, "burst": 0, **limits})
    return world.policies.of(
        "It", limiter=world.policies.limiter(account=most, agent=NO_LIMIT, user=NO_LIMIT)
    )


async def test_an_act_of_several_requests_is_counted_once(world: World) -> None:
    policy = limited_policy(world, minute=2)
    await policy.take(ACME)
    assert await policy.run(answers("yes")) == "yes"
    assert await policy.run(answers("yes")) == "yes"
    assert await policy.refusal(ACME) is None
    await policy.take(ACME)
    refused = await policy.refusal(ACME)
    with pytest.raises(ServiceError) as caught:
        await policy.take(ACME)
    assert refused is not None
    assert refused.message == caught.value.message
    assert (
        (caught.value.code, caught.value.retry_after) == ("limited", refused.retry_after) == ("limited", 60)
    )
    assert "this account has used up what it may ask within one minute" in caught.value.message
    assert policy.stats.refused_by_limit == 1
    assert policy.breaker.view().failures == 0


async def test_who_waits_for_a_turn_gets_it_and_is_told(world: World) -> None:
    policy = limited_policy(world, minute=2)
    told: list[ServiceError] = []
    for _ in range(5):
        await policy.take(ACME, on_wait=told.append)
    assert [each.retry_after for each in told] == [60, 60]
    assert world.time.slept == [60, 60]
    assert policy.stats.refused_by_limit == 0


async def test_a_turn_that_comes_too_late_is_not_waited_for(world: World) -> None:
    policy = limited_policy(world, hour=1)
    told: list[ServiceError] = []
    await policy.take(ACME, on_wait=told.append)
    with pytest.raises(ServiceError, match="within one hour; room again in 60 min"):
        await policy.take(ACME, on_wait=told.append)
    assert not told
    assert world.time.slept == []


async def test_without_limits_there_is_always_room(world: World) -> None:
    policy = world.policies.of("It")
    await policy.take(ACME)
    assert await policy.refusal(ACME) is None


# -- fallback -------------------------------------------------------------------------------------


async def raising(error: ServiceError) -> str:
    raise error


def through(policy: Policy, *outcomes: object) -> Callable[[], Awaitable[Any]]:
    """Work that asks by the policy, once."""
    work = answers(*outcomes)
    return lambda: policy.run(work)


async def test_a_live_value_is_marked_as_such(world: World) -> None:
    policy = world.policies.of("It")
    result = await policy.call(through(policy, "yes"), Fallback.to("no"))
    assert (result.value, result.source, result.degraded, result.reason) == ("yes", Source.LIVE, False, None)
    assert result.why("no") == ""


async def test_the_last_good_value_with_its_age(world: World) -> None:
    policy = world.policies.of("It")
    fallback: Fallback[str] = Fallback(key="rooms", max_age=90)
    await policy.call(through(policy, "three rooms"), fallback)
    world.time.seconds += 62
    error = failing(Category.RATE_LIMIT)
    result = await policy.call(lambda: raising(error), fallback)
    assert (result.value, result.source, result.age, result.degraded) == (
        "three rooms",
        Source.STALE,
        62,
        True,
    )
    assert result.reason is error
    assert result.why("no rooms") == "as of 62 s ago, because the line is dead"
    assert policy.stats.degraded == 1
    world.time.seconds += 29
    with pytest.raises(ServiceError) as caught:
        await policy.call(lambda: raising(error), fallback)
    assert caught.value is error
    with pytest.raises(ServiceError):
        await policy.call(lambda: raising(error), Fallback(key="other rooms"))


@pytest.mark.parametrize("category", [Category.AUTHENTICATION, Category.PERMANENT])
async def test_who_is_refused_does_not_get_it_all_the_same(world: World, category: Category) -> None:
    policy = world.policies.of("It")
    await policy.call(through(policy, "three rooms"), Fallback(key="rooms"))
    with pytest.raises(ServiceError, match="The line is dead"):
        await policy.call(through(policy, failing(category)), Fallback(key="rooms"))
    instead = Fallback(key="rooms", value="none", has_value=True)
    assert (await policy.call(through(policy, failing(category)), instead)).value == "none"


async def test_a_function_then_a_value(world: World) -> None:
    policy = world.policies.of("It")
    error = failing(Category.PERMANENT)

    async def rules(reason: ServiceError) -> str:
        return f"by rule: {reason.message}"

    async def no_rule(reason: ServiceError) -> str:
        raise ServiceError("No rule fits")

    both: Fallback[str] = Fallback(function=rules, value="v", has_value=True)
    result = await policy.call(through(policy, error), both)
    assert (result.value, result.source) == ("by rule: The line is dead", Source.FALLBACK)
    assert result.why("rules instead of it") == "rules instead of it, because the line is dead"
    # What fails before there is a policy is treated alike.
    assert await both.instead_of(error) == result
    result = await policy.call(through(policy, error), Fallback(function=no_rule, value="v", has_value=True))
    assert (result.value, result.source, result.reason) == ("v", Source.FALLBACK, error)
    with pytest.raises(ServiceError, match="The line is dead"):
        await policy.call(through(policy, error), Fallback(function=no_rule))


async def test_none_can_be_the_value_instead(world: World) -> None:
    policy = world.policies.of("It")
    result: Any = await policy.call(through(policy, failing(Category.PERMANENT)), Fallback.to(None))
    assert result.value is None
    assert result.degraded


async def test_work_that_asks_several_times_is_one_call(world: World) -> None:
    policy = world.policies.of("It")

    async def twice() -> str:
        return await policy.run(answers("a")) + await policy.run(answers("b"))

    assert (await policy.call(twice, Fallback.to(""))).value == "ab"
    assert (policy.stats.calls, policy.stats.degraded) == (2, 0)


async def test_the_stale_value_comes_first_and_serves_an_open_breaker_too(world: World) -> None:
    policy = world.policies.of("It")
    fallback = Fallback(key="k", value="fixed", has_value=True)
    await policy.call(through(policy, "good"), fallback)
    await fail(policy, 5)
    result = await policy.call(through(policy, "better"), fallback)
    assert (result.value, result.source) == ("good", Source.STALE)
    assert result.reason is not None
    assert result.reason.code == "breaker_open"


@pytest.mark.parametrize("error", [UsageError("No such agent"), KeyError("a fault of ours")])
async def test_wrong_use_and_faults_of_ours_are_not_covered_up(world: World, error: Exception) -> None:
    policy = world.policies.of("It")
    fallback = Fallback(key="k", value="v", has_value=True)
    await policy.call(through(policy, "good"), fallback)
    with pytest.raises(type(error)):
        await policy.call(through(policy, error), fallback)


async def test_a_result_keeps_nothing_of_the_call_alive(world: World) -> None:
    policy = world.policies.of("It")

    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    async def work() -> str:
        large = Large()
        seen.append(weakref.ref(large))
        return await policy.run(answers(failing(Category.PERMANENT)))

    result = await policy.call(work, Fallback.to("v"))
    gc.collect()
    assert result.degraded
    assert seen[0]() is None


async def test_good_values_are_remembered_up_to_a_number(world: World) -> None:
    policy = world.policies.of("It")
    for number in range(300):
        await policy.call(through(policy, number), Fallback(key=number))
    assert len(policy._good) == 64
    result = await policy.call(through(policy, failing()), Fallback(key=299))
    assert result.value == 299
    with pytest.raises(ServiceError):
        await policy.call(through(policy, failing()), Fallback(key=0))


# -- what is seen ---------------------------------------------------------------------------------


async def test_a_view_says_how_long_calls_take_and_what_failed_last(world: World) -> None:
    policy = world.policies.of("It")
    empty = policy.view()
    assert (empty.p50_ms, empty.p95_ms, empty.last_error, empty.last_error_at) == (None, None, "", None)

    for seconds in range(1, 101):

        async def work(attempt: Attempt, seconds: int = seconds) -> None:
            world.time.seconds += seconds

        await policy.run(work)
    await fail(policy, error=ServiceError("It timed out", category=Category.TIMEOUT))
    failed_at = world.time.now()
    world.time.seconds += 5
    await policy.run(answers("yes"))
    view = policy.view()
    assert view.p50_ms == pytest.approx(50_000)
    assert view.p95_ms == pytest.approx(95_000)
    assert (view.last_error, view.last_error_category) == ("It timed out", Category.TIMEOUT)
    assert view.last_error_advice.startswith("Check the network")
    assert view.last_error_at == failed_at
    await policy.run(answers("yes"))
    assert view.stats.calls == 102, "a view does not change later"
    assert len(view.stats.durations_ms) == 101


async def test_durations_are_bounded(world: World) -> None:
    policy = world.policies.of("It")
    for _ in range(300):
        await policy.run(answers("yes"))
    assert len(policy.stats.durations_ms) == 200


async def test_the_last_error_keeps_nothing_of_its_call_alive(world: World) -> None:
    class Large:
        pass

    policy = world.policies.of("It")
    kept: list[weakref.ref[Large]] = []

    async def work(attempt: Attempt) -> None:
        large = Large()
        kept.append(weakref.ref(large))
        raise failing(Category.PERMANENT)

    with pytest.raises(ServiceError):
        await policy.run(work)
    gc.collect()
    assert kept[0]() is None
    assert policy.stats.last_error is not None
    assert policy.stats.last_error.__traceback__ is None


async def test_policies_are_made_once_and_listed_by_name(world: World) -> None:
    policies = world.policies
    first = policies.of("b", retry_options=RetryOptions(attempts=2))
    assert policies.of("b") is first
    policies.of("a")
    assert [view.name for view in policies.views()] == ["a", "b"]
    assert policies.find("b") is first
    policies.drop("b")
    policies.drop("b")
    assert policies.find("b") is None
    assert [view.name for view in policies.views()] == ["a"]
    await policies.refresh()
    await policies.aclose()


async def test_a_policy_gets_its_limiter_from_whoever_names_one_first(world: World) -> None:
    policy = world.policies.of("It")
    limiter = world.policies.limiter()
    world.policies.of("It", limiter=limiter)
    world.policies.of("It", limiter=world.policies.limiter(user=Limits(minute=1)))
    assert policy.limiter is limiter


async def test_what_is_asked_of_all_dependencies_adds_up(fake_time: FakeTime) -> None:
    policies = World(fake_time, default_limits=Limits(minute=3)).policies
    one = policies.of("One", limiter=policies.limiter())
    other = policies.of("Other", limiter=policies.limiter())
    await one.run(answers("yes"), subject=ACME)
    await other.run(answers("yes"), subject=Subject("acme", "bot", "john"))
    await one.run(answers("yes"), subject=ACME)
    with pytest.raises(ServiceError, match="this account has used up"):
        await other.run(answers("yes"), subject=ACME)
    free = policies.of(
        "Free", limiter=policies.limiter(account=NO_LIMIT, agent=NO_LIMIT, user=Limits(minute=9))
    )
    await free.run(answers("yes"), subject=ACME)
    assert free.limiter is not None
    (budget,) = [budget for budget in await free.limiter.budgets(ACME) if budget.window == "minute"]
    assert (budget.level, budget.remaining) == (Level.USER, 6)
