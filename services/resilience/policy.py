"""The one way a dependency is called: limit, breaker, retry, fallback, in that order.

A policy belongs to one dependency in one event loop. The breaker counts calls, not attempts: what a retry
mends is no failure.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Generic, TypeVar, cast

from services.clock import Clock
from services.errors import ServiceError
from services.resilience.breaker import Breaker, BreakerOptions, BreakerState, BreakerView
from services.resilience.limits import RateLimiter, Subject, limited
from services.resilience.retry import Attempt, RetryOptions, Sleep, retry
from services.resilience.rules import trips

T = TypeVar("T")
_KEPT_VALUES: Final = 256
_KEPT_DURATIONS: Final = 200


class Source(StrEnum):
    """Where a value came from. Everything but `LIVE` is degraded and must be shown as such."""

    LIVE = "live"
    FALLBACK = "fallback"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """A value and how it came about. `age`: seconds since a stale value was live."""

    value: T
    source: Source = Source.LIVE
    reason: ServiceError | None = None
    """Why it is not live."""
    age: float = 0.0

    @property
    def degraded(self) -> bool:
        return self.source is not Source.LIVE


@dataclass(frozen=True, slots=True)
class Fallback(Generic[T]):
    """What to do instead of failing, tried in this order: the last good value, a function, a value.

    `key` names what is remembered of good answers; `max_age` (seconds) bounds how old one may be.
    """

    key: Hashable = None
    max_age: float = float("inf")
    function: Callable[[ServiceError], Awaitable[T]] | None = None
    value: T | None = None
    has_value: bool = False


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
    last_error: ServiceError | None = None
    last_error_at: int | None = None
    """Epoch milliseconds."""
    last_success_at: int | None = None
    durations_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_DURATIONS))
    """How long the latest live calls took, retries and waits included, oldest first."""


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A policy at one moment, for screens and metrics."""

    name: str
    breaker: BreakerView
    stats: PolicyStats


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
            decision = await self.limiter.take(subject)
            if not decision.allowed:
                stats.refused_by_limit += 1
                raise limited(self.name, decision)
        try:
            permit = await self.breaker.admit()
        except ServiceError:
            stats.refused_by_breaker += 1
            raise
        probing = bool(permit.probe)
        most = min(attempts or self._retry.attempts, self._retry.attempts)
        if probing or (write and not idempotency_key):
            most = 1
        options = self._retry if most == self._retry.attempts else replace(self._retry, attempts=most)
        started = self._clock.monotonic()
        try:
            value = await retry(
                self._counted(work),
                options,
                clock=self._clock,
                sleep=self._sleep,
                rng=self._rng,
                before_retry=self._may_retry,
            )
        except Exception as error:
            await (self.breaker.failed if trips(error) else self.breaker.succeeded)(permit)
            stats.failures += 1
            if isinstance(error, ServiceError):
                stats.last_error, stats.last_error_at = error, self._clock.now()
            raise
        except BaseException:
            await self.breaker.released(permit)
            raise
        await self.breaker.succeeded(permit)
        stats.last_success_at = self._clock.now()
        stats.durations_ms.append((self._clock.monotonic() - started) * 1000)
        return value

    async def call(
        self,
        work: Callable[[Attempt], Awaitable[T]],
        fallback: Fallback[T],
        *,
        subject: Subject | None = None,
        write: bool = False,
        idempotency_key: str | None = None,
        attempts: int | None = None,
    ) -> Result[T]:
        """Like `run`, but with something instead of a failure, marked as such; raises without one."""
        try:
            value = await self.run(
                work, subject=subject, write=write, idempotency_key=idempotency_key, attempts=attempts
            )
        except ServiceError as error:
            result = await self._instead(fallback, error)
            if result is None:
                raise
            self.stats.degraded += 1
            return result
        if fallback.key is not None:
            self._good[fallback.key] = (value, self._clock.monotonic())
            self._good.move_to_end(fallback.key)
            if len(self._good) > _KEPT_VALUES:
                self._good.popitem(last=False)
        return Result(value)

    def view(self) -> PolicyView:
        return PolicyView(self.name, self.breaker.view(), self.stats)

    async def _instead(self, fallback: Fallback[T], error: ServiceError) -> Result[T] | None:
        kept = self._good.get(fallback.key) if fallback.key is not None else None
        if kept is not None:
            age = self._clock.monotonic() - kept[1]
            if age <= fallback.max_age:
                return Result(cast(T, kept[0]), Source.STALE, error, age)
        if fallback.function is not None:
            return Result(await fallback.function(error), Source.FALLBACK, error)
        if fallback.has_value:
            return Result(cast(T, fallback.value), Source.FALLBACK, error)
        return None

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


class Policies:
    """Every policy of the process by name; made when first asked for, listed for the health screen."""

    def __init__(
        self,
        clock: Clock,
        *,
        on_change: Callable[[str], None] = lambda name: None,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._sleep = sleep
        self._rng = rng
        self._policies: dict[str, Policy] = {}

    def of(
        self,
        name: str,
        *,
        breaker: BreakerOptions | None = None,
        retry_options: RetryOptions | None = None,
        limiter: RateLimiter | None = None,
    ) -> Policy:
        """The policy of this name. The options count when it is made; later ones are ignored."""
        policy = self._policies.get(name)
        if policy is None:
            made = Breaker(
                name, breaker or BreakerOptions(), self._clock, on_change=lambda: self._on_change(name)
            )
            policy = self._policies[name] = Policy(
                name,
                self._clock,
                limiter=limiter,
                breaker=made,
                retry_options=retry_options,
                sleep=self._sleep,
                rng=self._rng,
            )
        return policy

    def views(self) -> list[PolicyView]:
        """All of them, by name."""
        return [self._policies[name].view() for name in sorted(self._policies)]

    def find(self, name: str) -> Policy | None:
        return self._policies.get(name)

    def drop(self, name: str) -> None:
        """Forget one whose dependency is gone."""
        self._policies.pop(name, None)
