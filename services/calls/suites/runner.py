"""Runs the tests of suites, several at once, over transports that somebody else opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.calls.brief import load_brief
from services.calls.model import END_WORDS, Brief
from services.calls.suites.checks import Check, check
from services.calls.suites.judge import LexicalJudge, MeaningJudge
from services.calls.suites.model import Expectation, Plan, TestStep
from services.calls.suites.talk import Talk
from services.calls.transport import Transport
from services.clock import Clock
from services.errors import ServiceError


class StartCall(Protocol):
    """Gives a transport for a test, not opened yet. Raises ServiceError."""

    async def __call__(self, plan: Plan, brief: Brief, seed: int) -> Transport: ...


class Status(StrEnum):
    """How a test went."""

    PASSED = "passed"
    FAILED = "failed"
    """An expectation did not hold."""
    ERROR = "error"
    """The conversation could not be held, so nothing is known."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """A turn and what was expected of it."""

    said: str
    replies: tuple[str, ...]
    latency_ms: int | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class RunResult:
    """One conversation of a test. Times in milliseconds."""

    number: int
    """From 1 on; a test with `repeat` has several."""
    status: Status
    took_ms: int
    steps: tuple[StepResult, ...] = ()
    problems: tuple[str, ...] = ()
    """What did not hold, or why it could not be held."""
    transcript: tuple[str, ...] = ()
    end: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class TestResult:
    """A test with all its conversations."""

    __test__ = False

    plan: Plan
    runs: tuple[RunResult, ...]

    @property
    def passed(self) -> int:
        return sum(run.status is Status.PASSED for run in self.runs)

    @property
    def status(self) -> Status:
        if self.passed >= self.plan.hold:
            return Status.PASSED
        errors = sum(run.status is Status.ERROR for run in self.runs)
        # Those that could not be held might have been enough.
        return Status.ERROR if errors and self.passed + errors >= self.plan.hold else Status.FAILED

    @property
    def took_ms(self) -> int:
        return sum(run.took_ms for run in self.runs)

    @property
    def latencies(self) -> list[int]:
        return [step.latency_ms for run in self.runs for step in run.steps if step.latency_ms is not None]


async def run_suites(
    plans: Sequence[Plan],
    start_call: StartCall,
    *,
    clock: Clock,
    jobs: int = 4,
    judge: MeaningJudge | None = None,
    on_done: Callable[[TestResult], None] | None = None,
) -> list[TestResult]:
    """Every test, at most `jobs` conversations at once; results in the order of `plans`.

    Never raises for what a test does. Cancelled, it hangs up all that run.
    """
    room = asyncio.Semaphore(max(1, jobs))
    told = judge or LexicalJudge()

    async def one(plan: Plan, number: int) -> RunResult:
        async with room:
            return await run_test(plan, number, start_call, clock, told)

    async def whole(plan: Plan) -> TestResult:
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(one(plan, number)) for number in range(1, plan.repeat + 1)]
        result = TestResult(plan, tuple(run.result() for run in runs))
        if on_done is not None:
            on_done(result)
        return result

    async with asyncio.TaskGroup() as group:
        tests = [group.create_task(whole(plan)) for plan in plans]
    return [test.result() for test in tests]


async def run_test(
    plan: Plan, number: int, start_call: StartCall, clock: Clock, judge: MeaningJudge
) -> RunResult:
    """One conversation. Its failure of any kind is the result."""
    began = clock.monotonic()

    def took() -> int:
        return round((clock.monotonic() - began) * 1000)

    talk: Talk | None = None
    steps: list[StepResult] = []
    problems: list[str] = []
    try:
        brief = await _brief(plan)
        transport = await start_call(plan, brief, plan.seed + number - 1)
        began = clock.monotonic()  # a wait for room in the limits is not the test's
        talk = Talk(transport, clock, tools=plan.tools, approve=plan.approve)
        talk.start()
        try:
            async with asyncio.timeout(plan.timeout / 1000):
                await transport.open(brief)
                await _converse(plan, talk, clock, judge, steps, problems)
        except TimeoutError:
            problems.append(f"it was not over after {plan.timeout / 1000:g} s")
        finally:
            await talk.close()
        status = Status.FAILED if problems else Status.PASSED
        advice = ""
    except ServiceError as error:
        status, advice = Status.ERROR, error.advice
        problems = [error.message, *problems]
    except Exception as error:
        status, advice = Status.ERROR, ""
        problems = [f"{type(error).__name__} in our own code: {error}"[:300], *problems]
    end = talk.ended.reason.value if talk is not None and talk.ended is not None else ""
    transcript = tuple(talk.transcript()) if talk is not None else ()
    return RunResult(number, status, took(), tuple(steps), tuple(problems), transcript, end, advice)


async def _brief(plan: Plan) -> Brief:
    if plan.brief is None:
        return Brief(variables=dict(plan.variables))
    return await load_brief(plan.brief, row=plan.row, data=plan.data, variables=plan.variables)


async def _converse(
    plan: Plan,
    talk: Talk,
    clock: Clock,
    judge: MeaningJudge,
    steps: list[StepResult],
    problems: list[str],
) -> None:
    """Play the steps; what does not hold is added to `problems`."""
    if plan.steps[0].say:
        await _greeting(plan, talk, clock, judge)
    for number, step in enumerate(plan.steps, 1):
        if talk.ended is not None:
            said = f"“{step.say}”" if step.say else f"step {number}"
            words = END_WORDS.get(talk.ended.reason, talk.ended.reason.value)
            detail = f" ({talk.ended.detail})" if talk.ended.detail else ""
            problems.append(f"the call was over before {said}: {words}{detail}")
            return
        if step.inform:
            await talk.inform(step.inform)
        if step.say:
            await talk.say(step.say)
        elif number > 1:
            talk.begin_turn()
        last = number == len(plan.steps)
        if step.say or step.expect:
            limit = step.within if step.within is not None else plan.answer_ms
            checks = await _answer(step.expect, plan, talk, clock, judge, limit)
            facts = talk.facts()
            steps.append(StepResult(step.say, facts.replies, facts.latency_ms, checks))
            problems += [_problem(number, step, each) for each in checks if not each.ok]
            if not step.expect and not facts.replies and talk.ended is None and not last:
                problems.append(f"step {number} (“{step.say}”): no answer within {limit / 1000:g} s")
    await _end(plan, talk, clock, problems)


async def _end(plan: Plan, talk: Talk, clock: Clock, problems: list[str]) -> None:
    if plan.end is not None:
        until = clock.monotonic() + plan.answer_ms / 1000
        while talk.ended is None and clock.monotonic() < until:
            await talk.wait(until - clock.monotonic())
        if talk.ended is None:
            problems.append(f"the call goes on; expected was its end: {plan.end}")
        elif talk.ended.reason.value != plan.end:
            detail = f" ({talk.ended.detail})" if talk.ended.detail else ""
            problems.append(f"the call ended with {talk.ended.reason.value}{detail}, expected: {plan.end}")
    elif talk.ended is not None and not talk.ended.reason.well:
        detail = f": {talk.ended.detail}" if talk.ended.detail else ""
        problems.append(f"the call ended badly, {END_WORDS[talk.ended.reason]}{detail}")


async def _greeting(plan: Plan, talk: Talk, clock: Clock, judge: MeaningJudge) -> None:
    """Wait until the agent has greeted, so that nobody talks over it; some agents do not greet."""
    until = clock.monotonic() + plan.greeting_ms / 1000
    while talk.ended is None and not talk.begun and clock.monotonic() < until:
        await talk.wait(until - clock.monotonic())
    if talk.begun:
        await _answer((), plan, talk, clock, judge, plan.answer_ms)


async def _answer(
    expected: Sequence[Expectation],
    plan: Plan,
    talk: Talk,
    clock: Clock,
    judge: MeaningJudge,
    limit_ms: int,
) -> tuple[Check, ...]:
    """Wait until the answer is complete, and longer while an expectation may still come true."""
    until = clock.monotonic() + limit_ms / 1000
    quiet = plan.quiet_ms / 1000
    while True:
        left = until - clock.monotonic()
        rests = talk.idle >= quiet and not talk.busy
        if talk.ended is not None or left <= 0 or rests:
            facts = talk.facts()
            checks = tuple([await check(each, facts, judge) for each in expected])
            complete = bool(facts.replies) or (bool(checks) and rests)
            settled = all(each.ok for each in checks) or any(each.final and not each.ok for each in checks)
            if talk.ended is not None or left <= 0 or (complete and settled):
                return checks
        await talk.wait(left if rests or talk.busy else min(left, max(0.001, quiet - talk.idle)))


def _problem(number: int, step: TestStep, failed: Check) -> str:
    where = f"step {number}" + (f" (“{step.say}”)" if step.say else "")
    return f"{where}: {failed.what}: {failed.detail or 'it did not hold'}"
