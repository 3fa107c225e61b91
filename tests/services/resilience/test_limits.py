"""Rate limits in memory: by examples, against a plain model, and against another library's moving window."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from services.errors import Category
from services.resilience import Budget, Decision, Level, Limits, MemoryWindows, RateLimiter, Subject
from services.resilience.limits import WINDOWS, LevelLimits, limited
from tests.support.fake_time import FakeTime

NONE = Limits(0, 0, 0, 0)
ACME = Subject("acme", "bot", "mary")


def everybody(limits: Limits) -> LevelLimits:
    return tuple((level, limits) for level in Level)


@dataclass
class Model:
    """Every grant of every name in a list, and every window counted anew each time."""

    grants: dict[tuple[Level, str, str], list[float]] = field(default_factory=dict)

    def of(self, subject: Subject, level: Level) -> list[float]:
        return self.grants.setdefault((level, subject.account, getattr(subject, level)), [])

    def inside(self, subject: Subject, level: Level, length: float, now: float) -> list[float]:
        return [at for at in self.of(subject, level) if not at + length <= now]

    def take(self, subject: Subject, limits: LevelLimits, now: float) -> Decision:
        rows = []
        for level, wanted in limits:
            for window, length in WINDOWS:
                limit = wanted.of(window)
                if getattr(subject, level) and limit:
                    inside = self.inside(subject, level, length, now)
                    free = inside[-limit] + length if len(inside) >= limit else -math.inf
                    rows.append((limit - len(inside), free, level, window))
        full = [row for row in rows if row[0] <= 0]
        if full:
            _, free, level, window = max(full, key=lambda row: row[1])
            return Decision(False, level, window, 0, pytest.approx(free - now))
        if not rows:
            return Decision(True)
        for level, wanted in limits:
            if getattr(subject, level) and wanted.limited:
                self.of(subject, level).append(now)
        left, _, level, window = min(rows, key=lambda row: row[0])
        return Decision(True, level, window, left - 1)


def most_in_any_window(times: list[float], length: float) -> int:
    """The most grants that a window of this length holds, wherever it is laid."""
    return max((bisect_left(times, at + length) - index for index, at in enumerate(times)), default=0)


# -- examples -------------------------------------------------------------------------------------


def test_the_default_limits() -> None:
    assert (Limits().burst, Limits().minute, Limits().hour, Limits().day) == (10, 60, 1_000, 10_000)
    with pytest.raises(ValueError, match="below 0"):
        Limits(hour=-1)


def test_what_is_left_is_counted_down_then_refused(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = everybody(Limits(minute=3, burst=0))
    answers = [windows.take_now(ACME, limits) for _ in range(4)]
    assert [answer.remaining for answer in answers] == [2, 1, 0, 0]
    assert answers[0] == Decision(True, Level.ACCOUNT, "minute", 2)
    assert answers[3] == Decision(False, Level.ACCOUNT, "minute", 0, 60.0)


def test_the_level_that_refuses_is_named_and_the_others_keep_theirs(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = ((Level.ACCOUNT, Limits()), (Level.AGENT, Limits(hour=5)), (Level.USER, Limits(minute=2)))
    for _ in range(2):
        assert windows.take_now(ACME, limits).allowed
    fake_time.seconds += 10
    answer = windows.take_now(ACME, limits)
    assert answer == Decision(False, Level.USER, "minute", 0, 50.0)
    budgets = {(budget.level, budget.window): budget for budget in windows.budgets_now(ACME, limits)}
    assert budgets[Level.ACCOUNT, "minute"] == Budget(Level.ACCOUNT, "minute", 60, 2)
    assert budgets[Level.AGENT, "hour"].remaining == 3
    assert budgets[Level.USER, "minute"] == Budget(Level.USER, "minute", 2, 2, 50.0)
    other = Subject("acme", "bot", "john")
    assert windows.take_now(other, limits) == Decision(True, Level.USER, "minute", 1)


def test_of_several_full_windows_the_longest_wait_decides(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = everybody(Limits(minute=2, hour=2, burst=1))
    windows.take_now(ACME, limits)
    fake_time.seconds += 1
    windows.take_now(ACME, limits)
    assert windows.take_now(ACME, limits) == Decision(False, Level.ACCOUNT, "hour", 0, 3599.0)


def test_grants_of_one_moment_leave_at_one_moment(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = ((Level.USER, Limits(minute=0, burst=3)),)
    assert [windows.take_now(ACME, limits).remaining for _ in range(3)] == [2, 1, 0]
    fake_time.seconds += 1
    assert windows.take_now(ACME, limits) == Decision(True, Level.USER, "burst", 2)


def test_a_name_belongs_to_its_account_and_its_level(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = everybody(Limits(minute=1))
    for subject in (Subject("a", "x", "y"), Subject("b", "x", "y"), Subject("", "x"), Subject("x", "y", "x")):
        assert windows.take_now(subject, limits).allowed
        assert not windows.take_now(subject, limits).allowed


def test_nothing_limited_is_nothing_remembered(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    assert windows.take_now(ACME, everybody(NONE)) == Decision(True)
    assert windows.take_now(Subject(), everybody(Limits())) == Decision(True)
    assert windows.budgets_now(ACME, everybody(NONE)) == []
    assert len(windows) == 0


def test_who_was_refused_by_another_level_leaves_no_trace(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = ((Level.ACCOUNT, Limits(minute=1)), (Level.USER, Limits()))
    windows.take_now(Subject("acme", user="0"), limits)
    for number in range(100):
        assert not windows.take_now(Subject("acme", user=f"u{number}"), limits).allowed
    assert len(windows) == 2


def test_names_are_forgotten_when_their_last_grant_has_left(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = ((Level.USER, Limits(minute=5, hour=0, day=0)),)
    for number in range(10_000):
        fake_time.seconds += 1
        windows.take_now(Subject("acme", user=f"u{number}"), limits)
    assert len(windows) <= 61


def test_a_name_that_is_asked_for_again_is_not_forgotten_for_a_new_one_beside_it(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = everybody(Limits(minute=1))
    windows.take_now(Subject("acme", "", "mary"), limits)
    fake_time.seconds += 86400
    assert windows.take_now(Subject("acme", "bot", "mary"), limits).allowed
    assert not windows.take_now(Subject("acme", "", "mary"), limits).allowed
    assert len(windows) == 3


def test_there_are_never_more_names_than_may_be(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time, most_names=100)
    for number in range(1000):
        windows.take_now(Subject("acme", user=f"u{number}"), ((Level.USER, Limits(minute=1)),))
    assert len(windows) == 100
    assert not windows.take_now(Subject("acme", user="u999"), ((Level.USER, Limits(minute=1)),)).allowed


def test_grants_that_have_left_take_no_memory(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = ((Level.ACCOUNT, Limits(minute=100, hour=0, day=0, burst=0)),)
    for _ in range(20_000):
        fake_time.seconds += 0.61
        assert windows.take_now(ACME, limits).allowed
    (log,) = windows._logs.values()
    assert len(log.times) <= 2 * 100 + 64


def test_limiters_with_other_limits_count_the_same_grants(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    wide, narrow = everybody(Limits(minute=100)), everybody(Limits(minute=4))
    for _ in range(3):
        assert windows.take_now(ACME, wide).allowed
    assert windows.take_now(ACME, narrow) == Decision(True, Level.ACCOUNT, "minute", 0)
    assert not windows.take_now(ACME, narrow).allowed
    assert windows.take_now(ACME, wide).remaining == 5  # of the burst


def test_what_was_granted_elsewhere_counts_too_even_beyond_the_limit(fake_time: FakeTime) -> None:
    windows = MemoryWindows(fake_time)
    limits = everybody(Limits(minute=3, burst=0))
    for second in range(5):
        fake_time.seconds = 1000.0 + second
        windows.note(ACME, limits)
    answer = windows.take_now(ACME, limits)
    assert not answer.allowed
    assert answer.retry_after == 58.0  # when the third of five has left
    fake_time.seconds += 58.0
    assert windows.take_now(ACME, limits) == Decision(True, Level.ACCOUNT, "minute", 0)


async def test_a_limiter_asks_for_the_three_levels(fake_time: FakeTime) -> None:
    limiter = RateLimiter(MemoryWindows(fake_time), user=Limits(minute=1))
    assert (await limiter.take(ACME)).remaining == 0
    answer = await limiter.take(ACME)
    assert answer.level is Level.USER
    assert len(await limiter.budgets(ACME)) == 12
    error = limited("OpenTable", answer)
    assert error.message == (
        "OpenTable was not asked: this user has used up what it may ask within one minute; room again in 60 s"
    )
    assert (error.code, error.category, error.retry_after) == ("limited", Category.RATE_LIMIT, 60.0)
    assert error.advice == "Wait, or raise limit_minute in the settings"


async def test_the_busiest_agent_and_user_of_an_account_are_told_with_it(fake_time: FakeTime) -> None:
    limiter = RateLimiter(MemoryWindows(fake_time), user=Limits(minute=5, burst=0))
    assert {each.level for each in await limiter.tightest("acme")} == {Level.ACCOUNT}
    for user, count in (("maria", 1), ("noor", 4), ("maria", 1), ("ada", 1)):
        for _ in range(count):
            await limiter.take(Subject("acme", agent=f"agent of {user}", user=user))
    for _ in range(5):
        await limiter.take(Subject("globex", user="noor"))  # another one of that name
    found = {
        (each.level, each.window): (each.used, each.limit)
        for each in await limiter.tightest("acme")
        if each.used
    }
    assert found[Level.ACCOUNT, "minute"] == (7, 60)
    assert found[Level.AGENT, "minute"] == (4, 60)
    assert found[Level.USER, "minute"] == (4, 5)
    assert (Level.USER, "burst") not in found  # which has no limit
    # Once that has left all windows, nobody is busy any more.
    fake_time.seconds += 90_000
    assert {each.level for each in await limiter.tightest("acme")} == {Level.ACCOUNT}


@pytest.mark.parametrize("seed", range(5))
async def test_a_look_ahead_is_what_a_take_would_answer(fake_time: FakeTime, seed: int) -> None:
    rng = random.Random(seed)
    limiter = RateLimiter(
        MemoryWindows(fake_time), account=Limits(6, 20, 50, 3), agent=Limits(4, 9, 0, 0), user=NONE
    )
    for _ in range(300):
        fake_time.seconds += rng.choice((0.0, 0.3, 1.0, 20.0, 700.0))
        ahead = await limiter.look(ACME)
        assert await limiter.look(ACME) == ahead  # and takes nothing
        taken = await limiter.take(ACME)
        if taken.allowed:
            assert (ahead.allowed, ahead.level, ahead.window) == (True, taken.level, taken.window)
            assert ahead.remaining == taken.remaining + 1
        else:
            assert ahead == taken
    assert await RateLimiter(MemoryWindows(fake_time), account=NONE, agent=NONE, user=NONE).look(
        ACME
    ) == Decision(True)


# -- exactness ------------------------------------------------------------------------------------

gaps = st.one_of(
    st.floats(0, 0.4),
    st.floats(0, 80),
    st.floats(0, 5000),
    st.sampled_from([0.0, 0.1, 1.0, 60.0, 3600.0, 86400.0]),
)
small = st.integers(0, 4)
some_limits = st.builds(Limits, minute=small, hour=small, day=small, burst=small)


@given(gaps=st.lists(gaps, max_size=60), limits=st.tuples(*([some_limits] * 3)), start=st.floats(0, 1e7))
def test_each_answer_is_that_of_a_plain_model(
    gaps: list[float], limits: tuple[Limits, Limits, Limits], start: float
) -> None:
    time, model = FakeTime(start), Model()
    windows = MemoryWindows(time)
    asked = tuple(zip(Level, limits, strict=True))
    for gap in gaps:
        time.seconds += gap
        assert windows.take_now(ACME, asked) == model.take(ACME, asked, time.seconds)
    for budget in windows.budgets_now(ACME, asked):
        length = dict(WINDOWS)[budget.window]
        assert budget.used == len(model.inside(ACME, budget.level, length, time.seconds))


@given(gaps=st.lists(gaps, min_size=1, max_size=60), limits=some_limits, start=st.floats(0, 1e9))
def test_the_wait_is_exact_to_the_last_bit(gaps: list[float], limits: Limits, start: float) -> None:
    time = FakeTime(start)
    windows = MemoryWindows(time)
    asked = everybody(limits)
    for gap in gaps:
        time.seconds += gap
        answer = windows.take_now(ACME, asked)
        if not answer.allowed:
            now, then = time.seconds, time.seconds + answer.retry_after
            # The sum of a moment and a wait may be one bit more than what the wait was made of.
            time.seconds = then - 2 * math.ulp(then)
            if time.seconds >= now:
                assert not windows.take_now(ACME, asked).allowed
            time.seconds = then
            assert windows.take_now(ACME, asked).allowed


@pytest.mark.parametrize("seed", range(5))
def test_no_window_anywhere_holds_more_than_its_limit(seed: int) -> None:
    """Thousands of questions at a pace that fills every window, an impatient and a patient asker."""
    rng, time = random.Random(seed), FakeTime(rng_start := 12345.678 + seed)
    windows = MemoryWindows(time)
    limits = Limits(burst=3, minute=20, hour=200, day=1500)
    granted: list[float] = []
    while len(granted) < 4_000:
        answer = windows.take_now(ACME, everybody(limits))
        if answer.allowed:
            granted.append(time.seconds)
            time.seconds += rng.choice((0.0, 0.0, 0.05, 0.4, 2.0))
        else:
            time.seconds += answer.retry_after if rng.random() < 0.9 else answer.retry_after * rng.random()
    for window, length in WINDOWS:
        limit = limits.of(window)
        assert all(granted[i] + length <= granted[i + limit] for i in range(len(granted) - limit)), window
        assert most_in_any_window(granted, length * (1 - 1e-9)) == limit, f"{window} is used to the full"
    assert granted[-1] - rng_start > 2 * 86400


# -- another library ------------------------------------------------------------------------------


class Reference:
    """Grants by the moving window of the library `limits`, its clock and its tidying thread taken over.

    It counts a grant for a moment longer, when exactly one length has passed: the times asked for avoid that.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, time: FakeTime) -> None:
        import limits.storage.memory as memory
        from limits.strategies import MovingWindowRateLimiter

        clock = SimpleNamespace(time=lambda: time.seconds)
        monkeypatch.setattr(memory, "time", clock)
        never = SimpleNamespace(start=lambda: None, is_alive=lambda: True, cancel=lambda: None)
        monkeypatch.setattr(
            memory,
            "threading",
            SimpleNamespace(Timer=lambda *_: never, RLock=memory.threading.RLock, Lock=memory.threading.Lock),
        )
        self.limiter = MovingWindowRateLimiter(memory.MemoryStorage())

    def take(self, wanted: list[tuple[Any, str]]) -> bool:
        """Check all, then take all: what the library itself cannot do at once."""
        if not all(self.limiter.test(item, name) for item, name in wanted):
            return False
        return [self.limiter.hit(item, name) for item, name in wanted] == [True] * len(wanted)


# Multiples of 7 ms never add up to a second, a minute, an hour or a day.
ticks = st.lists(
    st.one_of(st.integers(0, 30), st.integers(0, 20_000), st.integers(0, 2_000_000)), max_size=80
)


@pytest.mark.parametrize("window", [name for name, _ in WINDOWS])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=ticks, limit=st.integers(1, 6))
def test_one_window_grants_what_the_reference_grants(
    monkeypatch: pytest.MonkeyPatch, window: str, ticks: list[int], limit: int
) -> None:
    from limits import parse

    with monkeypatch.context() as patch:
        time = FakeTime(1000.0)
        reference, windows = Reference(patch, time), MemoryWindows(time)
        limits = (
            (
                Level.ACCOUNT,
                Limits(**{**dict.fromkeys(("burst", "minute", "hour", "day"), 0), window: limit}),
            ),
        )
        item = parse(f"{limit}/{'second' if window == 'burst' else window}")
        for tick in ticks:
            time.seconds = round(time.seconds + tick * 0.007, 3)
            ours = windows.take_now(ACME, limits)
            assert ours.allowed is reference.take([(item, "acme")])
            if ours.allowed:
                stats = reference.limiter.get_window_stats(item, "acme")
                assert stats.remaining == ours.remaining


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=ticks, users=st.lists(st.sampled_from("abc"), min_size=80, max_size=80))
def test_all_windows_of_all_levels_grant_what_the_reference_grants(
    monkeypatch: pytest.MonkeyPatch, ticks: list[int], users: list[str]
) -> None:
    from limits import parse

    with monkeypatch.context() as patch:
        time = FakeTime(1000.0)
        reference, windows = Reference(patch, time), MemoryWindows(time)
        account, agent, user = Limits(9, 30, 50, 4), Limits(7, 25, 40, 3), Limits(4, 9, 12, 2)
        limits = tuple(zip(Level, (account, agent, user), strict=True))
        for tick, name in zip(ticks, users, strict=False):
            time.seconds = round(time.seconds + tick * 0.007, 3)
            subject = Subject("acme", "bot", name)
            wanted = [
                (
                    parse(f"{level_limits.of(window)}/{'second' if window == 'burst' else window}"),
                    f"{level}/{getattr(subject, level)}",
                )
                for level, level_limits in limits
                for window, _ in WINDOWS
            ]
            assert windows.take_now(subject, limits).allowed is reference.take(wanted)


# -- ten thousand steps ---------------------------------------------------------------------------


class LimiterAgainstModel(RuleBasedStateMachine):
    steps = 0

    @initialize(
        limits=st.lists(st.tuples(*([some_limits] * 3)), min_size=1, max_size=2), start=st.floats(0, 1e6)
    )
    def begin(self, limits: list[tuple[Limits, Limits, Limits]], start: float) -> None:
        self.time, self.model = FakeTime(start), Model()
        self.windows = MemoryWindows(self.time)
        # A day is remembered from the first question on, as the model does.
        self.limits = [
            tuple(
                (level, wanted if wanted.day else Limits(wanted.minute, wanted.hour, 50, wanted.burst))
                for level, wanted in zip(Level, row, strict=True)
            )
            for row in limits
        ]
        self.last: tuple[Subject, LevelLimits, Decision] | None = None

    @rule(gap=gaps)
    def time_passes(self, gap: float) -> None:
        type(self).steps += 1
        self.time.seconds += gap

    @rule(
        account=st.sampled_from(["", "a", "b"]),
        agent=st.sampled_from(["", "x", "y"]),
        user=st.sampled_from(["", "u", "v"]),
        which=st.integers(0, 1),
    )
    def one_is_taken(self, account: str, agent: str, user: str, which: int) -> None:
        type(self).steps += 1
        subject, limits = Subject(account, agent, user), self.limits[which % len(self.limits)]
        expected = self.model.take(subject, limits, self.time.seconds)
        answer = self.windows.take_now(subject, limits)
        assert answer == expected
        self.last = (subject, limits, answer)

    @rule()
    def who_was_refused_comes_back_in_time(self) -> None:
        type(self).steps += 1
        if self.last is not None and not self.last[2].allowed:
            subject, limits, answer = self.last
            self.time.seconds += answer.retry_after
            assert self.windows.take_now(subject, limits).allowed
            assert self.model.take(subject, limits, self.time.seconds).allowed
            self.last = None

    @rule(account=st.sampled_from(["a", "b"]), which=st.integers(0, 1))
    def budgets_are_read(self, account: str, which: int) -> None:
        type(self).steps += 1
        subject, limits = Subject(account, "x", "u"), self.limits[which % len(self.limits)]
        for budget in self.windows.budgets_now(subject, limits):
            length = dict(WINDOWS)[budget.window]
            inside = self.model.inside(subject, budget.level, length, self.time.seconds)
            assert budget.used == len(inside)
            assert (budget.frees_in > 0) is (len(inside) >= budget.limit)

    @invariant()
    def no_window_holds_more_than_the_widest_limit(self) -> None:
        if not hasattr(self, "model"):
            return
        for (level, _, _), times in self.model.grants.items():
            for window, length in WINDOWS:
                limits = [dict(row)[level].of(window) for row in self.limits]
                if all(limits):
                    most = max(limits)
                    late = times[-most - 1 :]
                    assert len(late) <= most or late[0] + length <= late[-1]


def test_ten_thousand_steps_beside_a_model() -> None:
    LimiterAgainstModel.steps = 0
    run_state_machine_as_test(
        LimiterAgainstModel,
        settings=settings(
            max_examples=150,
            stateful_step_count=100,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert LimiterAgainstModel.steps >= 10_000
