"""The circuit breaker: after enough failures a dependency is left alone for a while, then tried carefully.

`Machine` is the algorithm, pure and synchronous, times in seconds given by the caller. `Breaker` is what a
policy holds: the same over a clock, in memory or shared between processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.clock import Clock
from services.errors import Category, ServiceError


class BreakerState(StrEnum):
    """Closed lets everything through, open nothing, half open a few to try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When it opens and closes. `open_seconds`: how long nothing is let through."""

    failure_threshold: int = 5
    """Failed calls in a row after which it opens."""
    open_seconds: float = 30.0
    success_threshold: int = 2
    """Successful calls in a row, half open, after which it closes."""
    half_open_concurrency: int = 1
    """Calls let through at the same time while half open."""
    probe_seconds: float = 120.0
    """After which a half-open call that never reported back no longer holds its place (its process died)."""


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A breaker at one moment. `reopens_in`: seconds until the next call is let through; 0 unless open."""

    state: BreakerState
    failures: int = 0
    successes: int = 0
    probing: int = 0
    reopens_in: float = 0.0
    shared: bool = False
    """Whether other processes see the same."""
    degraded: bool = False
    """Whether it should be shared but the store is lost, so that each process counts for itself."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; given back with its outcome."""

    generation: int
    probe: str = ""
    """The name of the half-open place it holds, empty when closed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No leave. `seconds`: when to ask again at the earliest."""

    seconds: float


class Machine:
    """The breaker's state. Every transition starts a new generation; outcomes of older ones are ignored."""

    def __init__(self, options: BreakerOptions) -> None:
        self.options = options
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.successes = 0
        self.generation = 0
        self._opened_at = 0.0
        self._probes: dict[str, float] = {}

    def admit(self, now: float) -> Permit | Refusal:
        """Leave for one call at the time `now`, or when to ask again."""
        if self.state is BreakerState.CLOSED:
            return Permit(self.generation)
        if self.state is BreakerState.OPEN:
            left = self._opened_at + self.options.open_seconds - now
            if left > 0:
                return Refusal(left)
            self._become(BreakerState.HALF_OPEN)
        self._forget_dead(now)
        if len(self._probes) >= self.options.half_open_concurrency:
            oldest = min(self._probes.values())
            return Refusal(max(0.0, min(1.0, oldest + self.options.probe_seconds - now)))
        name = f"{self.generation}.{now!r}.{len(self._probes)}"
        self._probes[name] = now
        return Permit(self.generation, name)

    def succeeded(self, permit: Permit, now: float) -> None:
        """The dependency answered, be it with a refusal that is no sign of illness."""
        if permit.generation != self.generation:
            return
        self._probes.pop(permit.probe, None)
        self.failures = 0
        if self.state is BreakerState.HALF_OPEN:
            self.successes += 1
            if self.successes >= self.options.success_threshold:
                self._become(BreakerState.CLOSED)

    def failed(self, permit: Permit, now: float) -> None:
        """The dependency is unwell."""
        if permit.generation != self.generation:
            return
        self._probes.pop(permit.probe, None)
        self.failures += 1
        if self.state is BreakerState.HALF_OPEN or self.failures >= self.options.failure_threshold:
            self._open(now)

    def released(self, permit: Permit) -> None:
        """The call ended without telling anything about the dependency."""
        self._probes.pop(permit.probe, None)

    def reset(self) -> None:
        """Close it by hand."""
        self._become(BreakerState.CLOSED)

    def trip(self, now: float) -> None:
        """Open it by hand."""
        self._open(now)

    def view(self, now: float) -> BreakerView:
        left = 0.0
        state = self.state
        if state is BreakerState.OPEN:
            left = max(0.0, self._opened_at + self.options.open_seconds - now)
        return BreakerView(state, self.failures, self.successes, len(self._probes), left)

    def _open(self, now: float) -> None:
        failures = self.failures
        self._become(BreakerState.OPEN)
        self.failures = failures
        self._opened_at = now

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.generation += 1
        self.failures = self.successes = 0
        self._probes.clear()

    def _forget_dead(self, now: float) -> None:
        limit = now - self.options.probe_seconds
        for name in [name for name, since in self._probes.items() if since <= limit]:
            del self._probes[name]


class SharedBreakers(Protocol):
    """Breakers that several processes see. Methods raise `ServiceError` when the store is lost."""

    async def admit(self, name: str, options: BreakerOptions) -> Permit | Refusal: ...
    async def report(self, name: str, options: BreakerOptions, permit: Permit, outcome: str) -> None:
        """`outcome` is `succeeded`, `failed` or `released`."""

    async def view(self, name: str, options: BreakerOptions) -> BreakerView: ...
    async def force(self, name: str, options: BreakerOptions, *, open_it: bool) -> None: ...


class Breaker:
    """One dependency's breaker. Belongs to one event loop."""

    def __init__(
        self,
        name: str,
        options: BreakerOptions,
        clock: Clock,
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._clock = clock
        self._machine = Machine(options)
        self._on_change = on_change

    async def admit(self) -> Permit:
        """Leave for one call. Raises `ServiceError` (`breaker_open`) when there is none."""
        before = self._machine.state
        answer = self._machine.admit(self._clock.monotonic())
        self._told(before)
        if isinstance(answer, Refusal):
            raise breaker_open(self.name, answer.seconds)
        return answer

    async def succeeded(self, permit: Permit) -> None:
        before = self._machine.state
        self._machine.succeeded(permit, self._clock.monotonic())
        self._told(before)

    async def failed(self, permit: Permit) -> None:
        before = self._machine.state
        self._machine.failed(permit, self._clock.monotonic())
        self._told(before)

    async def released(self, permit: Permit) -> None:
        self._machine.released(permit)

    async def reset(self) -> None:
        """Close it by hand."""
        before = self._machine.state
        self._machine.reset()
        self._told(before)

    async def trip(self) -> None:
        """Open it by hand: nothing is let through until `open_seconds` have passed."""
        before = self._machine.state
        self._machine.trip(self._clock.monotonic())
        self._told(before)

    def view(self) -> BreakerView:
        """What is known of it now, without asking anybody."""
        return self._machine.view(self._clock.monotonic())

    def _told(self, before: BreakerState) -> None:
        if self._machine.state is not before:
            self._on_change()


def breaker_open(name: str, seconds: float) -> ServiceError:
    """The error of a call that was not made."""
    wait = max(1, round(seconds))
    return ServiceError(
        f"{name} is not asked for now: it failed several times in a row; next try in {wait} s",
        category=Category.TRANSIENT,
        advice="Wait, or look at the health screen for what it failed with",
        code="breaker_open",
        retry_after=seconds,
    )
