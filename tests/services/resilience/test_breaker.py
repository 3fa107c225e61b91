"""The circuit breaker: when it opens, whom it lets try, when it closes; by examples and against a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from services.errors import Category, ServiceError
from services.resilience import BreakerOptions, BreakerState, BreakerView, Outcome
from services.resilience.breaker import Breaker, Machine, Permit, Refusal, breaker_open
from tests.support.fake_time import FakeTime

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def admitted(machine: Machine, now: float) -> Permit:
    answer = machine.admit(now)
    assert isinstance(answer, Permit)
    return answer


def refused(machine: Machine, now: float) -> Refusal:
    answer = machine.admit(now)
    assert isinstance(answer, Refusal)
    return answer


def opened(options: BreakerOptions | None = None, now: float = 0.0) -> Machine:
    machine = Machine(options or BreakerOptions())
    for _ in range(machine.options.failure_threshold):
        machine.failed(admitted(machine, now), now)
    assert machine.state is OPEN
    return machine


def test_failures_in_a_row_open_it() -> None:
    machine = Machine(BreakerOptions(failure_threshold=3))
    for outcome in ("failed", "failed", "succeeded", "failed", "failed"):
        getattr(machine, outcome)(admitted(machine, 0), 0)
        assert machine.state is CLOSED
    machine.failed(admitted(machine, 5), 5)
    assert machine.state is OPEN
    view = machine.view(6)
    assert (view.failures, view.reopens_in) == (3, 29)


def test_calls_that_say_nothing_neither_open_nor_mend_it() -> None:
    machine = Machine(BreakerOptions(failure_threshold=2))
    machine.failed(admitted(machine, 0), 0)
    machine.released(admitted(machine, 0))
    assert machine.view(0).failures == 1


def test_open_it_lets_nobody_through_and_says_for_how_long() -> None:
    machine = opened()
    assert refused(machine, 0).seconds == 30
    assert refused(machine, 29.5) == Refusal(0.5)
    assert machine.state is OPEN
    assert admitted(machine, 30).probe
    assert machine.state is HALF_OPEN


def test_half_open_a_few_try_at_the_same_time() -> None:
    machine = opened(BreakerOptions(half_open_concurrency=2))
    first, second = admitted(machine, 30), admitted(machine, 30)
    assert first.probe != second.probe
    assert refused(machine, 30) == Refusal(1.0, trying=True)
    machine.released(first)
    third = admitted(machine, 30)
    assert third.probe not in (first.probe, second.probe)
    assert refused(machine, 30).trying


def test_successes_in_a_row_close_it() -> None:
    machine = opened()
    machine.succeeded(admitted(machine, 30), 31)
    assert machine.state is HALF_OPEN
    assert machine.view(31).successes == 1
    machine.succeeded(admitted(machine, 31), 32)
    assert machine.view(32) == Machine(BreakerOptions()).view(0)


def test_what_succeeds_without_leave_is_one_success_of_trying() -> None:
    machine = opened()
    machine.proved()
    assert (machine.state, machine.successes) == (HALF_OPEN, 1)
    machine.succeeded(admitted(machine, 1), 1)
    assert machine.state is CLOSED
    machine.proved()
    assert (machine.state, machine.successes) == (CLOSED, 0)
    machine = opened()
    machine.proved()
    machine.failed(admitted(machine, 1), 1)
    assert machine.state is OPEN
    machine.proved()
    machine.proved()
    assert machine.state is CLOSED


def test_one_failure_while_trying_opens_it_again() -> None:
    machine = opened()
    machine.succeeded(admitted(machine, 30), 30)
    machine.failed(admitted(machine, 30), 33)
    assert machine.state is OPEN
    assert refused(machine, 34).seconds == 29


def test_outcomes_of_calls_from_before_a_change_are_ignored() -> None:
    machine = Machine(BreakerOptions(failure_threshold=1))
    old, failing = admitted(machine, 0), admitted(machine, 0)
    machine.failed(failing, 0)
    machine.succeeded(old, 1)
    assert machine.state is OPEN
    trying = admitted(machine, 30)
    machine.failed(old, 31)
    assert machine.state is HALF_OPEN
    machine.succeeded(trying, 31)
    assert machine.view(31).successes == 1


def test_a_call_that_never_came_back_gives_up_its_place() -> None:
    machine = opened(BreakerOptions(probe_seconds=10))
    admitted(machine, 30)
    assert refused(machine, 39.5).seconds == 0.5
    assert admitted(machine, 40).probe


def test_who_tried_before_it_opened_again_holds_no_place_any_more() -> None:
    machine = opened(BreakerOptions(half_open_concurrency=2))
    admitted(machine, 30)
    machine.failed(admitted(machine, 30), 31)
    assert machine.view(31).probing == 0
    admitted(machine, 61)
    assert admitted(machine, 61).probe


def test_by_hand() -> None:
    machine = Machine(BreakerOptions())
    machine.trip(100)
    assert machine.view(110).reopens_in == 20
    machine.trip(110)
    assert machine.view(110).reopens_in == 30
    machine.reset()
    assert machine.state is CLOSED
    assert not admitted(machine, 110).probe


@pytest.mark.parametrize("name", ["failure_threshold", "success_threshold", "half_open_concurrency"])
def test_options_with_which_it_would_never_close_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="never close"):
        BreakerOptions(**{name: 0})


async def test_a_refusal_is_an_error_with_the_time_of_the_next_try(fake_time: FakeTime) -> None:
    changes: list[BreakerState] = []
    breaker = Breaker(
        "Retell", BreakerOptions(), fake_time, on_change=lambda: changes.append(breaker.view().state)
    )
    await breaker.trip()
    fake_time.seconds += 12.4
    with pytest.raises(ServiceError) as caught:
        await breaker.admit()
    error = caught.value
    assert error.message == "Retell is not asked for now: it failed several times in a row; next try in 18 s"
    assert (error.code, error.category) == ("breaker_open", Category.TRANSIENT)
    assert error.retry_after == pytest.approx(17.6)
    fake_time.seconds += 17.6
    first = await breaker.admit()
    with pytest.raises(ServiceError, match="another call is just trying"):
        await breaker.admit()
    await breaker.succeeded(first)
    await breaker.succeeded(await breaker.admit())
    await breaker.reset()
    assert changes == [OPEN, HALF_OPEN, CLOSED]


async def test_a_released_call_makes_room_for_the_next(fake_time: FakeTime) -> None:
    breaker = Breaker("It", BreakerOptions(), fake_time)
    await breaker.trip()
    fake_time.seconds += 30
    breaker.release(await breaker.admit())
    await breaker.released(await breaker.admit())
    permit = await breaker.admit()
    assert breaker.view().probing == 1
    await breaker.failed(permit)
    assert breaker.view().state is OPEN


def test_every_wait_is_told_as_at_least_a_second() -> None:
    assert "in 1 s" in breaker_open("It", Refusal(0.0)).message


# -- shared ---------------------------------------------------------------------------------------


class Elsewhere:
    """Breakers kept outside of the process, here in memory; they can be lost."""

    def __init__(self, time: FakeTime, options: BreakerOptions) -> None:
        self.time, self.machine = time, Machine(options)
        self.lost = False
        self.later: list[Outcome] = []

    def seen(self) -> BreakerView:
        if self.lost:
            raise ServiceError("It is lost", code="store_lost")
        return self.machine.view(self.time.seconds)

    async def admit(self, name: str, options: BreakerOptions) -> tuple[Permit | Refusal, BreakerView]:
        self.seen()
        answer = self.machine.admit(self.time.seconds)
        if isinstance(answer, Permit):
            answer = replace(answer, shared=True)
        return answer, self.seen()

    async def report(
        self, name: str, options: BreakerOptions, permit: Permit, outcome: Outcome
    ) -> BreakerView:
        self.seen()
        self.machine.report(permit, outcome, self.time.seconds)
        return self.seen()

    def report_later(self, name: str, options: BreakerOptions, permit: Permit, outcome: Outcome) -> None:
        self.later.append(outcome)
        self.machine.report(permit, outcome, self.time.seconds)

    async def view(self, name: str, options: BreakerOptions) -> BreakerView:
        return self.seen()

    async def prove(self, name: str, options: BreakerOptions) -> BreakerView:
        self.seen()
        self.machine.proved()
        return self.seen()

    async def force(self, name: str, options: BreakerOptions, *, open_it: bool) -> BreakerView:
        self.seen()
        if open_it:
            self.machine.trip(self.time.seconds)
        else:
            self.machine.reset()
        return self.seen()


class Shared:
    """A breaker on such, and what it told."""

    def __init__(self, time: FakeTime, **options: Any) -> None:
        self.time = time
        self.elsewhere = Elsewhere(time, BreakerOptions(**options))
        self.told: list[tuple[BreakerState, bool]] = []
        self.breaker = Breaker(
            "It", self.elsewhere.machine.options, time, shared=self.elsewhere, on_change=self.tell
        )

    def tell(self) -> None:
        view = self.breaker.view()
        assert view.shared is not view.degraded
        self.told.append((view.state, view.degraded))

    async def fail(self, times: int) -> None:
        for _ in range(times):
            await self.breaker.failed(await self.breaker.admit())


async def test_what_others_did_counts(fake_time: FakeTime) -> None:
    shared = Shared(fake_time)
    breaker, machine = shared.breaker, shared.elsewhere.machine
    assert breaker.view().shared
    for _ in range(4):
        machine.failed(admitted(machine, fake_time.seconds), fake_time.seconds)
    await shared.fail(1)
    fake_time.seconds += 12
    view = breaker.view()
    assert (view.state, view.failures, view.reopens_in) == (OPEN, 5, 18)
    with pytest.raises(ServiceError, match="in 18 s"):
        await breaker.admit()
    machine.reset()
    assert await breaker.refresh()
    assert breaker.view().state is CLOSED
    assert shared.told == [(OPEN, False), (CLOSED, False)]


async def test_lost_it_goes_on_from_what_was_known(fake_time: FakeTime) -> None:
    shared = Shared(fake_time)
    breaker = shared.breaker
    await shared.fail(5)
    fake_time.seconds += 10
    shared.elsewhere.lost = True
    with pytest.raises(ServiceError, match="in 20 s"):
        await breaker.admit()
    assert breaker.view().degraded
    fake_time.seconds += 20
    permit = await breaker.admit()
    assert (bool(permit.probe), permit.shared) == (True, False)
    assert breaker.view().probing == 1
    await breaker.succeeded(permit)
    await breaker.succeeded(await breaker.admit())
    assert breaker.view().state is CLOSED
    assert not await breaker.refresh()
    assert shared.told == [(OPEN, False), (OPEN, True), (HALF_OPEN, True), (CLOSED, True)]
    shared.elsewhere.lost = False
    assert await breaker.refresh()
    assert (breaker.view().state, breaker.view().shared) == (OPEN, True), "the others know better"


async def test_what_the_lost_store_could_not_be_told_counts_here(fake_time: FakeTime) -> None:
    shared = Shared(fake_time, failure_threshold=2)
    breaker = shared.breaker
    permits = [await breaker.admit() for _ in range(3)]
    shared.elsewhere.lost = True
    await breaker.released(permits[0])
    assert breaker.view().failures == 0
    await breaker.failed(permits[1])
    await breaker.failed(permits[2])
    assert (breaker.view().state, breaker.view().degraded) == (OPEN, True)
    assert shared.told == [(CLOSED, True), (OPEN, True)]


async def test_a_look_at_a_lost_store_finds_out(fake_time: FakeTime) -> None:
    shared = Shared(fake_time)
    shared.elsewhere.lost = True
    assert not await shared.breaker.refresh()
    assert shared.told == [(CLOSED, True)]


async def test_who_is_trying_here_is_known_and_elsewhere_believed_for_a_second(fake_time: FakeTime) -> None:
    shared = Shared(fake_time, half_open_concurrency=2)
    breaker, machine = shared.breaker, shared.elsewhere.machine
    await breaker.trip()
    fake_time.seconds += 30
    theirs = admitted(machine, fake_time.seconds)
    ours = await breaker.admit()
    assert breaker.view().probing == 2
    fake_time.seconds += 1
    assert breaker.view().probing == 1
    await breaker.released(ours)
    machine.released(theirs)
    await breaker.refresh()
    assert (breaker.view().state, breaker.view().probing) == (HALF_OPEN, 0)


async def test_what_was_let_through_alone_says_nothing_to_the_others(fake_time: FakeTime) -> None:
    shared = Shared(fake_time, failure_threshold=1)
    breaker = shared.breaker
    shared.elsewhere.lost = True
    permit = await breaker.admit()
    shared.elsewhere.lost = False
    await breaker.refresh()
    await breaker.failed(permit)
    assert breaker.view().state is shared.elsewhere.machine.state is CLOSED


@pytest.mark.parametrize("lost", [False, True])
async def test_by_hand_it_obeys_with_and_without_the_others(fake_time: FakeTime, lost: bool) -> None:
    shared = Shared(fake_time)
    shared.elsewhere.lost = lost
    await shared.breaker.trip()
    assert (shared.breaker.view().state, shared.breaker.view().degraded) == (OPEN, lost)
    await shared.breaker.reset()
    assert shared.breaker.view().state is CLOSED
    assert shared.told == [(OPEN, lost), (CLOSED, lost)]


@pytest.mark.parametrize("lost", [False, True])
async def test_what_succeeds_without_leave_counts_with_and_without_the_others(
    fake_time: FakeTime, lost: bool
) -> None:
    shared = Shared(fake_time)
    await shared.breaker.trip()
    shared.elsewhere.lost = lost
    await shared.breaker.proved()
    view = shared.breaker.view()
    assert (view.state, view.successes, view.degraded) == (HALF_OPEN, 1, lost)
    await shared.breaker.proved()
    assert shared.breaker.view().state is CLOSED


async def test_a_cancelled_call_gives_its_shared_place_back_without_waiting(fake_time: FakeTime) -> None:
    shared = Shared(fake_time)
    await shared.breaker.trip()
    fake_time.seconds += 30
    permit = await shared.breaker.admit()
    assert shared.breaker.view().probing == 1
    shared.breaker.release(permit)
    assert shared.elsewhere.later == [Outcome.RELEASED]
    assert shared.breaker.view().probing == 0
    assert (await shared.breaker.admit()).probe


# -- against a model ------------------------------------------------------------------------------


@dataclass
class Call:
    """One call that was let through, as the model sees it."""

    permit: Permit
    era: int
    trying: bool
    began: int


@dataclass
class Model:
    """What a breaker has to do, told as plainly as possible. Times are whole seconds."""

    options: BreakerOptions
    state: BreakerState = CLOSED
    era: int = 0
    """Counts the changes of state."""
    row: list[bool] = field(default_factory=list)
    """The outcomes of this era that said something."""
    opened_at: int = 0
    trying: list[Call] = field(default_factory=list)

    def enter(self, state: BreakerState, now: int) -> None:
        self.state, self.row, self.trying = state, [], []
        self.era += 1
        if state is OPEN:
            self.opened_at = now

    def may(self, now: int) -> bool:
        if self.state is OPEN and now >= self.opened_at + self.options.open_seconds:
            self.enter(HALF_OPEN, now)
        if self.state is HALF_OPEN:
            self.trying = [call for call in self.trying if now < call.began + self.options.probe_seconds]
            return len(self.trying) < self.options.half_open_concurrency
        return self.state is CLOSED

    def ended(self, call: Call, outcome: Outcome, now: int) -> None:
        if call.era != self.era:
            return
        self.trying = [other for other in self.trying if other is not call]
        if outcome is Outcome.RELEASED:
            return
        self.row.append(outcome is Outcome.SUCCEEDED)
        too_many = self.failures == self.options.failure_threshold
        if (self.state is CLOSED and too_many) or (self.state is HALF_OPEN and not self.row[-1]):
            self.enter(OPEN, now)
        elif self.state is HALF_OPEN and len(self.row) == self.options.success_threshold:
            self.enter(CLOSED, now)

    @property
    def failures(self) -> int:
        return len(self.row) - (max((i for i, good in enumerate(self.row) if good), default=-1) + 1)


class BreakerAgainstModel(RuleBasedStateMachine):
    steps = 0

    @initialize(
        failures=st.integers(1, 4),
        successes=st.integers(1, 3),
        concurrency=st.integers(1, 3),
        open_for=st.integers(1, 10),
        lease=st.integers(1, 15),
    )
    def begin(self, failures: int, successes: int, concurrency: int, open_for: int, lease: int) -> None:
        options = BreakerOptions(failures, open_for, successes, concurrency, lease)
        self.machine, self.model = Machine(options), Model(options)
        self.now = 0
        self.calls: list[Call] = []

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        type(self).steps += 1
        self.now += seconds

    @rule()
    def a_call_begins(self) -> None:
        type(self).steps += 1
        may = self.model.may(self.now)
        answer = self.machine.admit(self.now)
        assert isinstance(answer, Permit) is may
        if isinstance(answer, Permit):
            assert bool(answer.probe) is (self.model.state is HALF_OPEN)
            call = Call(answer, self.model.era, bool(answer.probe), self.now)
            self.calls.append(call)
            if call.trying:
                self.model.trying.append(call)
        elif self.model.state is OPEN:
            assert answer.seconds == self.model.opened_at + self.model.options.open_seconds - self.now > 0
        else:
            assert answer.trying
            assert 0 <= answer.seconds <= 1

    @rule(which=st.integers(0, 30), outcome=st.sampled_from([*Outcome, Outcome.FAILED]))
    def a_call_ends(self, which: int, outcome: Outcome) -> None:
        type(self).steps += 1
        if self.calls:
            call = self.calls.pop(which % len(self.calls))
            self.machine.report(call.permit, outcome, self.now)
            self.model.ended(call, outcome, self.now)

    @rule()
    def opened_by_hand(self) -> None:
        type(self).steps += 1
        if self.now % 7 == 0:  # now and then
            self.machine.trip(self.now)
            self.model.enter(OPEN, self.now)

    @rule()
    def closed_by_hand(self) -> None:
        type(self).steps += 1
        if self.now % 7 == 0:
            self.machine.reset()
            self.model.enter(CLOSED, self.now)

    @invariant()
    def both_are_alike(self) -> None:
        if not hasattr(self, "machine"):
            return
        view = self.machine.view(self.now)
        assert view.state is self.model.state
        assert view.probing <= self.model.options.half_open_concurrency
        if view.state is CLOSED:
            assert view.failures == self.model.failures < self.model.options.failure_threshold
        if view.state is HALF_OPEN:
            assert view.successes == len(self.model.row) < self.model.options.success_threshold


def test_ten_thousand_steps_beside_a_model() -> None:
    BreakerAgainstModel.steps = 0
    run_state_machine_as_test(
        BreakerAgainstModel,
        settings=settings(
            max_examples=150,
            stateful_step_count=100,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert BreakerAgainstModel.steps >= 10_000
