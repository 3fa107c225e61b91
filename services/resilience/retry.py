"""Trying again: exponential back-off with cap, jitter and a total budget, Retry-After honoured.

stamina decides the number of attempts; the wait happens here, with an injected sleep.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.clock import Clock
from services.errors import ServiceError
from services.resilience.rules import is_retried

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """How often and how patiently. Times in seconds.

    The wait before attempt n+1 is between half and the whole of `first_wait * 2**(n-1)`, at most
    `longest_wait`, and never less than the other side asked for. `budget` bounds what attempts and waits
    may take together; a wait that would go beyond it is not begun.
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


class Backoff:
    """Decides whether to try again after a failure, and for how long to wait first."""

    def __init__(self, options: RetryOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._failures = 0

    def wait(self, error: BaseException, spent: float) -> float | None:
        """Seconds to wait before the next attempt; None when it should not be made."""
        options = self._options
        self._failures += 1
        if not is_retried(error) or self._failures >= options.attempts:
            return None
        asked = error.retry_after if isinstance(error, ServiceError) else None
        top = min(options.longest_wait, options.first_wait * 2 ** (self._failures - 1))
        wait = top / 2 + self._rng.uniform(0, top / 2)
        if asked is not None:
            # Never earlier than asked, and not everybody at the same moment.
            wait = max(wait, asked + self._rng.uniform(0, 0.25))
        return None if spent + (asked or wait) > options.budget else wait


async def retry(
    work: Callable[[Attempt], Awaitable[T]],
    options: RetryOptions,
    *,
    clock: Clock,
    sleep: Sleep,
    rng: random.Random,
    before_retry: Callable[[BaseException, float], bool] = lambda error, wait: True,
) -> T:
    """The result of the first attempt that succeeds, or the last failure.

    `before_retry` is told of each failure that would be followed by another attempt and may veto it.
    """
    backoff = Backoff(options, rng)
    attempt = Attempt()
    while True:
        started = clock.monotonic()
        attempt.queued = 0.0
        try:
            return await work(attempt)
        except Exception as error:
            attempt.spent += max(0.0, clock.monotonic() - started - attempt.queued)
            wait = backoff.wait(error, attempt.spent)
            if wait is None or not before_retry(error, wait):
                raise
        await sleep(wait)
        attempt.spent += wait
        attempt.number += 1
