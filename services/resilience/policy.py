"""The one way a dependency is called: limit, breaker, retry, fallback, in that order.

A policy belongs to one dependency in one event loop. The limit and the breaker count calls, not attempts:
what a retry mends is no failure.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar, cast

from services.clock import Clock
from services.errors import Category, ServiceError
from services.resilience.breaker import Breaker, BreakerOptions, BreakerState, BreakerView, Outcome
from services.resilience.deadline import time_left
from services.resilience.fallback import Fallback, Result, Source, bare
from services.resilience.limits import Limits, MemoryWindows, RateLimiter, Subject, Windows, limited
from services.resilience.retry import Attempt, RetryOptions, Sleep, retry
from services.resilience.rules import OWN_CODES, advice_of, is_retried, says_nothing, trips

if TYPE_CHECKING:
    from services.resilience.shared import SharedStore

T = TypeVar("T")
OnWait = Callable[[ServiceError], None]
LONGEST_TURN: Final = 90.0
"""Seconds that who waits for a turn waits at a time; beyond that somebody has to come back later."""
_KEPT_VALUES: Final = 64
_KEPT_DURATIONS: Final = 200


@dataclass(slots=True)
class PolicyStats:
    """What a policy has seen so far."""

    calls: int = 0
    failures: int = 0
    attempts: int = 0
    retries: int = 0
    refused_by_limit: int = 0
    refused_by_breaker: int = 0
    degraded: int = 0
    """Calls that `call` answered with a fallback."""
    last_error: ServiceError | None = None
    """Its words and nothing else: no traceback, no cause."""
    last_error_at: int | None = None
    """Epoch milliseconds."""
    last_success_at: int | None = None
    durations_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_DURATIONS))
    """How long the latest live calls took, retries and waits included, oldest first."""


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A policy at one moment, for screens and metrics. Nothing in it changes later."""

    name: str
    breaker: BreakerView
    stats: PolicyStats
    p50_ms: float | None = None
    """Of the latest live calls; None before the first."""
    p95_ms: float | None = None
    last_error: str = ""
    """What the last failure said, kept when all is well again."""
    last_error_category: Category | None = None
    last_error_advice: str = ""
    last_error_at: int | None = None
    """Epoch milliseconds."""


class Policy:
    """Limit, breaker, retry and fallback around one dependency. `name` is what people call it."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        limiter: RateLimiter | None = None,
        breaker: Breaker | None = None,
        retry_options: RetryOptions | None = None,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.breaker = breaker or Breaker(name, BreakerOptions(), clock)
        self.limiter = limiter
        self.stats = PolicyStats()
        self.rates: tuple[tuple[str, str], ...] = ()
        """What the other side last said of its own limits, label and figure."""
        self._clock = clock
        self._retry = retry_options or RetryOptions()
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._good: OrderedDict[Hashable, tuple[object, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Policy({self.name!r})"

    async def run(
        self,
        work: Callable[[Attempt], Awaitable[T]],
        *,
        subject: Subject | None = None,
        write: bool = False,
        idempotency_key: str | None = None,
        attempts: int | None = None,
    ) -> T:
        """What `work` returns. Raises `ServiceError` as it does, or `limited`, or `breaker_open`.

        `write` says that it changes something: it is then attempted once, unless an `idempotency_key`
        goes with every attempt (the work must send it). `attempts` bounds them below the policy's own.
        """
        stats = self.stats
        stats.calls += 1
        if self.limiter is not None and subject is not None:
            await self.take(subject)
        try:
            permit = await self.breaker.admit()
        except ServiceError as refusal:
            stats.refused_by_breaker += 1
            if refusal.code == "breaker_open" and stats.last_error is not None:
                refusal.say_more(f"the last failure: {stats.last_error.message}")
            raise
        most = self._retry.attempts if attempts is None else min(attempts, self._retry.attempts)
        if permit.probe or (write and not idempotency_key):
            most = 1
        started = self._clock.monotonic()
        try:
            value = await retry(
                self._counted(work),
                self._retry,
                clock=self._clock,
                sleep=self._sleep,
                rng=self._rng,
                attempts=most,
                before_retry=self._may_retry,
            )
        except Exception as error:
            stats.failures += 1
            self._remember(error)
            await self.breaker.report(permit, outcome_of(error))
            raise
        except BaseException:
            # Cancelled: nothing may be awaited now, and nothing is known.
            self.breaker.release(permit)
            raise
        stats.last_success_at = self._clock.now()
        stats.durations_ms.append((self._clock.monotonic() - started) * 1000)
        await self.breaker.report(permit, Outcome.SUCCEEDED)
        return value

    async def take(self, subject: Subject, *, on_wait: OnWait | None = None) -> None:
        """Count one act against the limits of its subject; what it sends then names no subject any more.

        Raises `limited`. With `on_wait` a turn that comes within `LONGEST_TURN` is waited for instead; it
        is told before each wait what is waited for, and for how long by its `retry_after`.
        """
        while self.limiter is not None:
            decision = await self.limiter.take(subject)
            if decision.allowed:
                return
            refusal = limited(self.name, decision)
            if on_wait is None or decision.retry_after > min(LONGEST_TURN, time_left()):
                self.stats.refused_by_limit += 1
                raise refusal
            on_wait(refusal)
            await self._sleep(decision.retry_after)

    async def refusal(self, subject: Subject) -> ServiceError | None:
        """What `take` would raise now; None while there is room. Takes nothing."""
        if self.limiter is None:
            return None
        decision = await self.limiter.look(subject)
        return None if decision.allowed else limited(self.name, decision)

    async def call(self, work: Callable[[], Awaitable[T]], fallback: Fallback[T]) -> Result[T]:
        """What `work` returns, or something instead of its failure, marked as such; raises without one.

        `work` asks through this policy, by `run` or by a client of it, once or several times.
        """
        try:
            value = await work()
        except ServiceError as error:
            failure = error
        else:
            if fallback.key is not None:
                self._keep(fallback.key, value)
            return Result(value)
        result = self._stale(fallback, failure) or await fallback.instead_of(failure)
        self.stats.degraded += 1
        return result

    def view(self) -> PolicyView:
        """What is known of it now, without asking anybody."""
        stats = copy(self.stats)
        stats.durations_ms = self.stats.durations_ms.copy()
        ordered = sorted(stats.durations_ms)
        error = stats.last_error
        return PolicyView(
            self.name,
            self.breaker.view(),
            stats,
            p50_ms=_percentile(ordered, 50),
            p95_ms=_percentile(ordered, 95),
            last_error=error.message if error is not None else "",
            last_error_category=error.category if error is not None else None,
            last_error_advice=advice_of(error) if error is not None else "",
            last_error_at=stats.last_error_at,
        )

    def _keep(self, key: Hashable, value: object) -> None:
        self._good[key] = (value, self._clock.monotonic())
        self._good.move_to_end(key)
        if len(self._good) > _KEPT_VALUES:
            self._good.popitem(last=False)

    def _stale(self, fallback: Fallback[T], error: ServiceError) -> Result[T] | None:
        kept = self._good.get(fallback.key) if fallback.key is not None else None
        if kept is None or not (is_retried(error) or error.code in OWN_CODES):
            return None
        age = self._clock.monotonic() - kept[1]
        return Result(cast(T, kept[0]), Source.STALE, bare(error), age) if age <= fallback.max_age else None

    def _counted(self, work: Callable[[Attempt], Awaitable[T]]) -> Callable[[Attempt], Awaitable[T]]:
        def counted(attempt: Attempt) -> Awaitable[T]:
            self.stats.attempts += 1
            return work(attempt)

        return counted

    def _may_retry(self, error: BaseException, wait: float) -> bool:
        """Others may have found out meanwhile that it is hopeless."""
        if self.breaker.view().state is BreakerState.OPEN:
            return False
        self.stats.retries += 1
        return True

    def _remember(self, error: Exception) -> None:
        if isinstance(error, ServiceError):
            # The error itself would keep alive, by its traceback, everything the call held.
            self.stats.last_error = ServiceError(
                error.message,
                category=error.category,
                advice=error.advice,
                code=error.code,
                retry_after=error.retry_after,
            )
            self.stats.last_error_at = self._clock.now()


def outcome_of(error: Exception) -> Outcome:
    """What a failed call says about its dependency."""
    if says_nothing(error):
        return Outcome.RELEASED
    return Outcome.FAILED if trips(error) else Outcome.SUCCEEDED


def _percentile(ordered: list[float], percent: int) -> float | None:
    """By the nearest rank; None without values."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None


class Policies:
    """Every policy of the process by name; made when first asked for, listed for the health screen.

    All of them count their limits in one place, so that what an account, an agent or a user asks of one
    dependency and of another adds up. With `shared` that place, and the breakers, are shared with other
    processes; it belongs to the policies from then on and is closed with them.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        on_change: Callable[[str], None] = lambda name: None,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
        default_limits: Limits = Limits(),  # noqa: B008  # immutable
        default_breaker: BreakerOptions = BreakerOptions(),  # noqa: B008
        shared: SharedStore | None = None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._sleep = sleep
        self._rng = rng
        self._default_limits = default_limits
        self._default_breaker = default_breaker
        self._policies: dict[str, Policy] = {}
        self.shared = shared
        """What is shared with other processes; None where each counts for itself."""
        self._breakers = shared.breakers() if shared is not None else None
        memory = MemoryWindows(clock)
        self.windows: Windows = shared.windows(memory) if shared is not None else memory
        """Where all limits are counted."""

    def of(
        self,
        name: str,
        *,
        breaker: BreakerOptions | None = None,
        retry_options: RetryOptions | None = None,
        limiter: RateLimiter | None = None,
    ) -> Policy:
        """The policy of this name. The options count when it is made; later ones are ignored.

        A limiter counts from when it is first named.
        """
        policy = self._policies.get(name)
        if policy is None:
            policy = self._policies[name] = Policy(
                name,
                self._clock,
                limiter=limiter,
                breaker=Breaker(
                    name,
                    breaker or self._default_breaker,
                    self._clock,
                    shared=self._breakers,
                    on_change=lambda: self._on_change(name),
                ),
                retry_options=retry_options,
                sleep=self._sleep,
                rng=self._rng,
            )
        elif policy.limiter is None:
            policy.limiter = limiter
        return policy

    def limiter(
        self, *, account: Limits | None = None, agent: Limits | None = None, user: Limits | None = None
    ) -> RateLimiter:
        """The configured limits, or these instead, counted where all others are."""
        default = self._default_limits
        return RateLimiter(
            self.windows, account=account or default, agent=agent or default, user=user or default
        )

    async def refresh(self) -> None:
        """Learn what other processes' calls did to the breakers. Never raises; nothing to do in memory.

        Meant to be called every few seconds by whoever shows the breakers.
        """
        if self.shared is None:
            return
        for name in list(self._policies):
            policy = self._policies.get(name)
            if policy is not None:
                await policy.breaker.refresh()

    def views(self) -> list[PolicyView]:
        """All of them, by name."""
        return [self._policies[name].view() for name in sorted(self._policies)]

    def find(self, name: str) -> Policy | None:
        return self._policies.get(name)

    def drop(self, name: str) -> None:
        """Forget one whose dependency is gone."""
        self._policies.pop(name, None)

    async def aclose(self) -> None:
        """Give up what is shared with other processes; from then on this one counts for itself."""
        if self.shared is not None:
            await self.shared.aclose()
