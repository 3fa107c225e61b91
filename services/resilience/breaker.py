"""The circuit breaker: after enough failures a dependency is left alone for a while, then tried carefully.

`Machine` is the algorithm, pure and synchronous, times in seconds given by the caller. `Breaker` is what a
policy holds: the same over a clock, in memory or shared between processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Final, Protocol

from services.clock import Clock
from services.errors import Category, ServiceError
from services.resilience.rules import duration

GLANCE: Final = 1.0
"""Seconds after which to ask again while others are trying: they may be done any moment."""


class BreakerState(StrEnum):
    """Closed lets everything through, open nothing, half open a few to try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(StrEnum):
    """How a call ended, as far as the dependency's health goes."""

    SUCCEEDED = "succeeded"
    """It answered, be it with a refusal that is no sign of illness."""
    FAILED = "failed"
    """It is unwell."""
    RELEASED = "released"
    """The call ended without telling anything about it."""


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

    def __post_init__(self) -> None:
        if min(self.failure_threshold, self.success_threshold, self.half_open_concurrency) < 1:
            raise ValueError("a breaker with a threshold or a concurrency below 1 would never close again")


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A breaker at one moment. `reopens_in`: seconds until the next call is let through; 0 unless open."""

    state: BreakerState
    failures: int = 0
    """Failed calls in a row; those that opened it, while open."""
    successes: int = 0
    probing: int = 0
    """Calls that are just trying, half open."""
    reopens_in: float = 0.0
    shared: bool = False
    """Whether other processes see the same."""
    degraded: bool = False
    """Whether it should be shared but the store is lost, so that each process counts for itself."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; given back with its outcome, once."""

    generation: int
    probe: str = ""
    """The name of the half-open place it holds, empty when closed."""
    shared: bool = False
    """Whether the shared store gave it, and so is told of its outcome."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No leave. `seconds`: when to ask again at the earliest."""

    seconds: float
    trying: bool = False
    """Whether that is because others are just trying, and not because it is open."""


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
        self._names = count(1)

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
            return Refusal(max(0.0, min(GLANCE, oldest + self.options.probe_seconds - now)), trying=True)
        name = str(next(self._names))
        self._probes[name] = now
        return Permit(self.generation, name)

    def report(self, permit: Permit, outcome: Outcome, now: float) -> None:
        """The call of this permit ended so. It counts only for the generation it began in."""
        if permit.generation != self.generation:
            return
        self._probes.pop(permit.probe, None)
        if outcome is Outcome.SUCCEEDED:
            self.failures = 0
            if self.state is BreakerState.HALF_OPEN:
                self.successes += 1
                if self.successes >= self.options.success_threshold:
                    self._become(BreakerState.CLOSED)
        elif outcome is Outcome.FAILED:
            self.failures += 1
            if self.state is BreakerState.HALF_OPEN or self.failures >= self.options.failure_threshold:
                self.trip(now)

    def succeeded(self, permit: Permit, now: float) -> None:
        """The dependency answered, be it with a refusal that is no sign of illness."""
        self.report(permit, Outcome.SUCCEEDED, now)

    def failed(self, permit: Permit, now: float) -> None:
        """The dependency is unwell."""
        self.report(permit, Outcome.FAILED, now)

    def released(self, permit: Permit) -> None:
        """The call ended without telling anything about the dependency."""
        self.report(permit, Outcome.RELEASED, 0.0)

    def proved(self) -> None:
        """A call that went out without leave succeeded: it counts for trying, and begins that if need be."""
        if self.state is BreakerState.OPEN:
            self._become(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            self.successes += 1
            if self.successes >= self.options.success_threshold:
                self._become(BreakerState.CLOSED)

    def reset(self) -> None:
        """Close it."""
        self._become(BreakerState.CLOSED)

    def trip(self, now: float) -> None:
        """Open it, or let it stay open from now on as long as at first."""
        failures = self.failures
        self._become(BreakerState.OPEN)
        self.failures = failures
        self._opened_at = now

    def adopt(self, view: BreakerView, now: float) -> None:
        """Go on from what another one is like; permits given before count no more."""
        self._become(view.state)
        self._opened_at = now + view.reopens_in - self.options.open_seconds
        self.failures, self.successes = view.failures, view.successes

    def view(self, now: float) -> BreakerView:
        left = 0.0
        if self.state is BreakerState.OPEN:
            left = max(0.0, self._opened_at + self.options.open_seconds - now)
        return BreakerView(self.state, self.failures, self.successes, len(self._probes), left)

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
    """Breakers that several processes see. Methods raise `ServiceError` when the store is lost.

    Each answers with the breaker as it is after it.
    """

    async def admit(self, name: str, options: BreakerOptions) -> tuple[Permit | Refusal, BreakerView]: ...

    async def report(
        self, name: str, options: BreakerOptions, permit: Permit, outcome: Outcome
    ) -> BreakerView: ...

    def report_later(self, name: str, options: BreakerOptions, permit: Permit, outcome: Outcome) -> None:
        """The same without waiting for it, and without an answer."""

    async def view(self, name: str, options: BreakerOptions) -> BreakerView: ...

    async def prove(self, name: str, options: BreakerOptions) -> BreakerView:
        """A call that went out without a permit succeeded."""

    async def force(self, name: str, options: BreakerOptions, *, open_it: bool) -> BreakerView:
        """Open or close it by hand."""


class Breaker:
    """One dependency's breaker. Belongs to one event loop.

    With `shared` the other processes' calls count too. While that store is lost this process goes on by
    itself, from what was known last, and the view says `degraded`.
    """

    def __init__(
        self,
        name: str,
        options: BreakerOptions,
        clock: Clock,
        *,
        shared: SharedBreakers | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.options = options
        self._clock = clock
        self._machine = Machine(options)
        self._shared = shared
        self._degraded = False
        self._trying = 0
        """How many are trying in all processes, as the shared store said last."""
        self._learned_at = 0.0
        self._own_places: set[str] = set()
        """Shared places that calls of this process hold."""
        self._on_change = on_change
        self._told = (BreakerState.CLOSED, False)

    async def admit(self) -> Permit:
        """Leave for one call. Raises `ServiceError` (`breaker_open`) when there is none."""
        answer = await self._ask(self._shared) if self._shared is not None else None
        if answer is None:
            answer = self._machine.admit(self._clock.monotonic())
            self._tell()
        if isinstance(answer, Refusal):
            raise breaker_open(self.name, answer)
        return answer

    async def report(self, permit: Permit, outcome: Outcome) -> None:
        """The call of this permit ended so. Never raises, and never waits longer than the store may take."""
        self._own_places.discard(permit.probe)
        if permit.shared and self._shared is not None:
            try:
                view = await self._shared.report(self.name, self.options, permit, outcome)
            except ServiceError:
                self._lost(outcome)
            else:
                self._learn(view)
            return
        self._machine.report(permit, outcome, self._clock.monotonic())
        self._tell()

    def release(self, permit: Permit) -> None:
        """`released`, from where nothing can be awaited: a cancelled call."""
        self._own_places.discard(permit.probe)
        if permit.shared and self._shared is not None:
            self._trying = max(0, self._trying - bool(permit.probe))
            self._shared.report_later(self.name, self.options, permit, Outcome.RELEASED)
        else:
            self._machine.report(permit, Outcome.RELEASED, self._clock.monotonic())

    async def succeeded(self, permit: Permit) -> None:
        await self.report(permit, Outcome.SUCCEEDED)

    async def failed(self, permit: Permit) -> None:
        await self.report(permit, Outcome.FAILED)

    async def released(self, permit: Permit) -> None:
        await self.report(permit, Outcome.RELEASED)

    async def proved(self) -> None:
        """A call that went out without leave succeeded: it counts like one that was let through to try."""
        if self._shared is not None:
            try:
                self._learn(await self._shared.prove(self.name, self.options))
                return
            except ServiceError:
                self._degraded = True
        self._machine.proved()
        self._tell()

    async def reset(self) -> None:
        """Close it by hand."""
        await self._force(open_it=False)

    async def trip(self) -> None:
        """Open it by hand: nothing is let through until `open_seconds` have passed."""
        await self._force(open_it=True)

    async def refresh(self) -> bool:
        """Learn what other processes did. Returns False where the shared store is lost; never raises."""
        if self._shared is None:
            return True
        try:
            view = await self._shared.view(self.name, self.options)
        except ServiceError:
            self._lost(None)
            return False
        self._learn(view)
        return True

    def view(self) -> BreakerView:
        """What is known of it now, without asking anybody."""
        view = self._machine.view(self._clock.monotonic())
        if self._shared is None:
            return view
        probing = view.probing
        if not self._degraded and view.state is BreakerState.HALF_OPEN:
            # Others may be done any moment; what they were doing a while ago says nothing about now.
            fresh = self._clock.monotonic() < self._learned_at + GLANCE
            probing = max(len(self._own_places), self._trying if fresh else 0)
        return BreakerView(
            view.state,
            view.failures,
            view.successes,
            probing,
            view.reopens_in,
            shared=not self._degraded,
            degraded=self._degraded,
        )

    async def _ask(self, shared: SharedBreakers) -> Permit | Refusal | None:
        try:
            answer, view = await shared.admit(self.name, self.options)
        except ServiceError:
            self._lost(None)
            return None
        self._learn(view)
        if isinstance(answer, Permit) and answer.probe:
            self._own_places.add(answer.probe)
        return answer

    async def _force(self, *, open_it: bool) -> None:
        if self._shared is not None:
            try:
                self._learn(await self._shared.force(self.name, self.options, open_it=open_it))
                return
            except ServiceError:
                self._degraded = True
        if open_it:
            self._machine.trip(self._clock.monotonic())
        else:
            self._machine.reset()
        self._tell()

    def _learn(self, view: BreakerView) -> None:
        self._degraded = False
        self._trying, self._learned_at = view.probing, self._clock.monotonic()
        self._machine.adopt(view, self._learned_at)
        self._tell()

    def _lost(self, outcome: Outcome | None) -> None:
        """Go on alone. An outcome that the store could not be told counts here."""
        self._degraded = True
        if outcome is not None:
            machine = self._machine
            machine.report(Permit(machine.generation), outcome, self._clock.monotonic())
        self._tell()

    def _tell(self) -> None:
        now = (self._machine.state, self._degraded)
        if now != self._told:
            self._told = now
            self._on_change()


def breaker_open(name: str, refusal: Refusal) -> ServiceError:
    """The error of a call that was not made."""
    why = "it failed several times in a row; next try"
    if refusal.trying:
        why = "another call is just trying whether it works again; ask again"
    return ServiceError(
        f"{name} is not asked for now: {why} in {duration(refusal.seconds)}",
        category=Category.TRANSIENT,
        advice="Wait, or look at the health screen for what it failed with",
        code="breaker_open",
        retry_after=refusal.seconds,
    )
