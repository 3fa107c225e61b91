"""The policy around a check, seen and switched from a process that does not probe."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from services.errors import ServiceError, UsageError
from services.health.vitals import Vitals, restored
from services.resilience import BreakerState, BreakerView, Budget, Level, Limits, Subject
from services.storage.tables import Audit, HealthRequest
from tests.support.scheduling import until

RETELL = "provider:acme/retell"
NAME = "Retell (acme)"
FEW = Limits(minute=5, hour=0, day=0, burst=0)
SECONDS = st.floats(0, 1e5, allow_nan=False)


def retell_of(service):
    return next(check for check in service.view().checks if check.id == RETELL)


async def two(watch):
    """A process that probes and one that follows, each with policies of its own, and a round of both."""
    watch.world.add(RETELL, name="Retell", policy=NAME, subject=Subject(account="acme"))
    watch.world.add("system:database", company="")
    first = await watch.service(name="one:11:x", own_policies=True)
    second = await watch.service(name="two:22:y", own_policies=True)
    policies = watch.policies_of[0]
    policies.of(NAME, limiter=policies.limiter(account=FEW))
    await watch.round(first, second)
    return first, second, policies.of(NAME)


# -- seen -----------------------------------------------------------------------------------------


async def test_a_follower_shows_the_policy_of_the_process_that_probes(shared) -> None:
    first, second, policy = await two(shared)
    policy.rates = (("requests left", "17 of 20"),)
    await policy.limiter.take(Subject(account="acme"))
    await shared.round(first, second)
    mine, theirs = retell_of(first), retell_of(second)
    assert mine.breaker == theirs.breaker == BreakerView(BreakerState.CLOSED)
    assert [(each.limit, each.used) for each in theirs.budgets] == [(5, 1)]
    assert theirs.budgets == mine.budgets
    assert ("requests left", "17 of 20") in theirs.facts
    assert theirs.facts == mine.facts


async def test_a_breaker_that_opens_is_seen_at_the_next_exchange_and_counts_down(shared) -> None:
    """No probe has to come first; and the time it stays open is counted from when it opened."""
    first, second, policy = await two(shared)
    shared.clock.advance(seconds=10)
    await policy.breaker.trip()
    shared.clock.advance(seconds=3)
    await first.tick()
    shared.clock.advance(seconds=3)
    await second.tick()
    assert retell_of(second).breaker.state is BreakerState.OPEN
    # 30 s less the 6 that passed, and the moment that this takes.
    left = retell_of(second).breaker.reopens_in
    assert 0 < left <= 24
    shared.clock.advance(seconds=4)
    assert retell_of(second).breaker.reopens_in == pytest.approx(left - 4)
    shared.clock.advance(seconds=100)
    assert retell_of(second).breaker.reopens_in == 0.0
    await policy.breaker.reset()
    await first.tick()
    await second.tick()
    assert retell_of(second).breaker.state is BreakerState.CLOSED


async def test_a_follower_says_when_its_own_breaker_refuses(watch) -> None:
    """Its own calls are refused although the one that probes is let through."""
    _, second, _ = await two(watch)
    own = watch.policies_of[1].of(NAME)
    await own.breaker.trip()
    theirs = retell_of(second)
    assert theirs.breaker.state is BreakerState.CLOSED
    assert ("breaker here", "open in this process") in theirs.facts


async def test_who_takes_over_shows_its_own(watch) -> None:
    first, second, policy = await two(watch)
    await policy.breaker.trip()
    await watch.round(first, second, seconds=3)
    own = watch.policies_of[1].of(NAME)
    await first.aclose()
    await second.tick()
    assert second.holder
    assert retell_of(second).breaker == own.breaker.view() == BreakerView(BreakerState.CLOSED)


async def test_a_single_look_shows_the_policy_of_the_process_that_probes(watch) -> None:
    """As `callboard health` does it: a breaker that lives for a moment says nothing."""
    first, _, policy = await two(watch)
    await policy.breaker.trip()
    await first.tick()
    single = await watch.service(start=False, own_policies=True)
    watch.policies_of[2].of(NAME)
    view = await single.check_now(confirm=True)
    assert next(check for check in view.checks if check.id == RETELL).breaker.state is BreakerState.OPEN


async def test_what_an_older_version_stored_is_shown_without(watch) -> None:
    first, _, _ = await two(watch)
    await first.aclose()

    def older(session) -> None:
        from services.storage.tables import HealthState as StateRow

        row = session.get(StateRow, RETELL)
        data = json.loads(row.data)
        assert data.pop("policy")
        row.data = json.dumps(data)

    await watch.databases[0].write(older)
    third = await watch.service(start=False, own_policies=True)
    await third.check_now([])
    assert retell_of(third).state.value == "up"
    assert retell_of(third).breaker is None


BREAKERS = st.builds(
    BreakerView,
    st.sampled_from(BreakerState),
    st.integers(0, 99),
    st.integers(0, 9),
    st.just(0),
    SECONDS,
    st.booleans(),
    st.booleans(),
)
BUDGETS = st.builds(
    Budget, st.sampled_from(Level), st.text(), st.integers(0, 10**9), st.integers(0), SECONDS, st.booleans()
)


@given(st.integers(0, 2**45), BREAKERS, st.lists(BUDGETS), st.lists(st.tuples(st.text(), st.text())))
def test_vitals_are_stored_as_json_and_come_back(at, breaker, budgets, rates) -> None:
    vitals = Vitals(at, breaker, tuple(budgets), tuple(rates))
    assert restored(json.loads(json.dumps(vitals.stored()))) == vitals


@given(BREAKERS, st.lists(BUDGETS), st.integers(0, 2**40), st.integers(0, 2**30))
def test_figures_that_count_down_do_so_by_the_clock(breaker, budgets, at, passed) -> None:
    vitals = Vitals(at, breaker, tuple(budgets))
    later = vitals.breaker_at(at + passed)
    assert replace(later, reopens_in=0.0) == replace(breaker, reopens_in=0.0)
    if breaker.state is BreakerState.OPEN:
        assert later.reopens_in == pytest.approx(max(0.0, breaker.reopens_in - passed / 1000))
    for before, after in zip(budgets, vitals.budgets_at(at + passed), strict=True):
        assert after.frees_in == pytest.approx(max(0.0, before.frees_in - passed / 1000))
    assert vitals.breaker_at(at) == breaker


# -- switched -------------------------------------------------------------------------------------


async def asked(watch) -> int:
    """How many requests wait for the process that probes."""

    def count(session) -> int:
        rows = session.exec(select(HealthRequest)).all()
        return sum(row.done_at is None for row in rows)

    return await watch.databases[0].read(count)


async def test_a_breaker_is_switched_by_the_process_that_probes(shared) -> None:
    first, second, policy = await two(shared)
    await policy.breaker.trip()
    own = shared.policies_of[1].of(NAME)
    await own.breaker.trip()
    await shared.round(first, second, seconds=3)
    closing = asyncio.create_task(second.reset_breaker(RETELL, actor="maria"))
    await until(lambda: asked(shared))
    assert policy.breaker.view().state is BreakerState.OPEN
    assert not closing.done()
    await first.tick()
    await closing
    assert policy.breaker.view().state is own.breaker.view().state is BreakerState.CLOSED
    # It is on the screen when the wait is over.
    assert retell_of(second).breaker.state is BreakerState.CLOSED
    assert "breaker here" not in dict(retell_of(second).facts)
    opening = asyncio.create_task(second.trip_breaker(RETELL, actor="maria"))
    await until(lambda: asked(shared))
    await first.tick()
    await opening
    assert policy.breaker.view().state is BreakerState.OPEN
    assert retell_of(second).breaker.state is BreakerState.OPEN
    rows = await shared.databases[0].read(
        lambda session: [
            (row.actor, row.action, row.subject, row.cause, row.before, row.after)
            for row in session.exec(select(Audit))
        ]
    )
    opened, closed = '{"breaker": "open"}', '{"breaker": "closed"}'
    assert rows == [
        ("maria", "breaker.close", RETELL, "by hand", opened, closed),
        ("maria", "breaker.open", RETELL, "by hand", closed, opened),
    ]


async def test_a_process_that_does_not_answer_is_told_and_nothing_is_done_later(watch) -> None:
    first, second, policy = await two(watch)
    await policy.breaker.trip()
    await watch.round(first, second, seconds=3)
    closing = asyncio.create_task(second.reset_breaker(RETELL))
    await until(lambda: asked(watch))
    watch.clock.advance(hours=3)
    with pytest.raises(ServiceError) as told:
        await closing
    assert "another process (one, 11)" in told.value.message
    assert "takes over" in told.value.advice
    assert await asked(watch) == 0
    await first.tick()
    assert policy.breaker.view().state is BreakerState.OPEN


async def test_who_takes_over_while_it_waits_does_it_itself(watch) -> None:
    first, second, policy = await two(watch)
    own = watch.policies_of[1].of(NAME)
    await policy.breaker.trip()
    await own.breaker.trip()
    await watch.round(first, second, seconds=3)
    closing = asyncio.create_task(second.reset_breaker(RETELL))
    await until(lambda: asked(watch))
    watch.clock.advance(minutes=1)
    await second.tick()
    assert second.holder
    await closing
    assert retell_of(second).breaker.state is BreakerState.CLOSED
    assert policy.breaker.view().state is BreakerState.OPEN


async def test_what_was_asked_by_a_process_that_died_is_not_done_hours_later(watch) -> None:
    first, second, policy = await two(watch)
    await policy.breaker.trip()
    await watch.round(first, second, seconds=3)
    asking = asyncio.create_task(second.reset_breaker(RETELL))
    await until(lambda: asked(watch))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    watch.clock.advance(hours=1)
    await first.tick()
    assert policy.breaker.view().state is BreakerState.OPEN
    assert await asked(watch) == 0


async def test_what_has_no_breaker_anywhere(watch) -> None:
    _, second, _ = await two(watch)
    for check_id in ("system:database", "no:such"):
        with pytest.raises(UsageError) as told:
            await second.reset_breaker(check_id)
        assert told.value.code == "no_breaker"
    assert await asked(watch) == 0


async def test_a_process_that_has_the_breaker_no_more_says_so(watch) -> None:
    _, second, _ = await two(watch)
    watch.policies_of[0].drop(NAME)
    closing = asyncio.create_task(second.reset_breaker(RETELL))
    await until(lambda: asked(watch))
    await watch.open[0].tick()
    with pytest.raises(ServiceError) as told:
        await closing
    assert told.value.code == "no_breaker"
