"""Trying again: exponential back-off with cap, jitter and a total budget, Retry-After honoured.

stamina counts the attempts and asks `Backoff` after each failure; the wait happens here, with an injected
sleep. A first attempt that succeeds knows nothing of it, nor is stamina imported for it.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Final, TypeVar

from services.clock import Clock
from services.errors import Category, ServiceError
from services.resilience.deadline import time_left
from services.resilience.rules import is_retried

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[object]]
BeforeRetry = Callable[[BaseException, float], bool]

_SPREAD: Final = 0.25
"""Seconds by which calls that were all told the same Retry-After are spread."""
_MOST_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """How often and how patiently. Times in seconds.

    The wait before attempt n+1 is between half and the whole of `first_wait * 2**(n-1)`, at most
    `longest_wait`, and never less than the other side asked for. `budget` bounds what attempts and waits
    may take together; a wait that would go beyond it, or beyond the time of who asks (`deadline`), is not
    begun.
    """

    attempts: int = 4
    first_wait: float = 0.5
    longest_wait: float = 8.0
    budget: float = 45.0


@dataclass(slots=True)
class Attempt:
    """One attempt, as the work sees it."""

    number: int = 1
    queued: float = 0.0
    """Seconds the work spent waiting for its turn in this attempt; they do not count against the budget."""
    ticket: object = None
    """The work's own, kept over all attempts of one call."""
    spent: float = field(default=0.0, repr=False)
    """Seconds of the budget that attempts and waits took so far."""


def always(error: BaseException, wait: float) -> bool:
    """Nothing speaks against another attempt."""
    return True


class Backoff:
    """Decides, as stamina's hook, whether to try again after a failure, and for how long to wait first.

    It answers stamina with "at once" and leaves the wait in `delay`: the caller sleeps it.
    """

    def __init__(
        self,
        options: RetryOptions,
        rng: random.Random,
        attempt: Attempt | None = None,
        *,
        attempts: int | None = None,
        before_retry: BeforeRetry = always,
    ) -> None:
        self._options = options
        self._attempts = options.attempts if attempts is None else attempts
        self._rng = rng
        self._attempt = attempt or Attempt()
        self._before_retry = before_retry
        self._failures = 0
        self._told: tuple[ServiceError, ...] = ()
        self.delay = 0.0

    def __call__(self, error: Exception) -> bool | float:
        wait = self.wait(error, self._attempt.spent)
        if wait is None or not self._before_retry(error, wait):
            return False
        self.delay = wait
        return 0.0

    def forget(self) -> None:
        """Let go of the failures seen so far."""
        self._told = ()

    def wait(self, error: BaseException, spent: float) -> float | None:
        """Seconds to wait before the next attempt; None when it should not be made."""
        options = self._options
        self._failures += 1
        if isinstance(error, ServiceError):
            # Who ordered something has to know what an attempt before the last may have done.
            error.earlier, self._told = self._told, (*self._told, error)
        if not is_retried(error) or self._failures >= self._attempts:
            return None
        if isinstance(error, ServiceError) and error.category is Category.TIMEOUT and time_left() < spent:
            return None  # what was waited for in vain has less time than before
        # Of the time of who asks, half is for the next attempt itself.
        room = min(options.budget - spent, time_left() / 2)
        doublings = min(self._failures - 1, _MOST_DOUBLINGS)
        top = min(options.longest_wait, options.first_wait * 2**doublings)
        wait = top / 2 + self._rng.uniform(0, top / 2)
        asked = error.retry_after if isinstance(error, ServiceError) else None
        if asked:
            # Never earlier than asked, and not everybody at the same moment, as far as the budget goes.
            wait = max(wait, asked + self._rng.uniform(0, _SPREAD))
            wait = max(min(wait, room), asked)
        return None if wait > room else wait


async def retry(
    work: Callable[[Attempt], Awaitable[T]],
    options: RetryOptions,
    *,
    clock: Clock,
    sleep: Sleep,
    rng: random.Random,
    attempts: int | None = None,
    before_retry: BeforeRetry = always,
) -> T:
    """The result of the first attempt that succeeds, or the last failure.

    `attempts` stands in for the options' own. `before_retry` is told of each failure that would be followed
    by another attempt, and of the wait; it may veto.
    """
    most = options.attempts if attempts is None else attempts
    attempt = Attempt()
    started = clock.monotonic()
    try:
        return await work(attempt)
    except Exception as error:
        if most <= 1 or not is_retried(error):
            raise
        failure = error
    attempt.spent = _took(clock, started, attempt)
    backoff = Backoff(options, rng, attempt, attempts=most, before_retry=before_retry)
    library = await _stamina()
    try:
        async for step in library.retry_context(on=backoff, attempts=most, timeout=None):
            with step:
                if step.num == 1:
                    raise failure  # what has happened already, for stamina to decide on
                await sleep(backoff.delay)
                attempt.spent += backoff.delay
                attempt.number, attempt.queued = step.num, 0.0
                started = clock.monotonic()
                try:
                    return await work(attempt)
                finally:
                    attempt.spent += _took(clock, started, attempt)
    finally:
        # Their tracebacks hold this frame: without this all of them would live until the next collection.
        del failure
        backoff.forget()
    raise AssertionError("the last attempt returns or raises")


def _took(clock: Clock, started: float, attempt: Attempt) -> float:
    return max(0.0, clock.monotonic() - started - attempt.queued)


async def _stamina() -> ModuleType:
    """The library, its own telling of retries switched off. The first import takes tens of milliseconds."""
    if not hasattr(sys.modules.get("stamina"), "retry_context"):
        await asyncio.to_thread(import_module, "stamina.instrumentation")
    import stamina
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks(())  # retries are told in our own words
    return stamina
