"""The words of bookings as types. Times are epoch milliseconds, UTC. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, overload

from services.integrations.model import EffectState
from services.model import ErrorInfo


class BookingState(StrEnum):
    """How a booking stands.

    `REQUESTED` is under way or was left so by a process that died; `PENDING` is accepted but not confirmed by
    the partner; `UNKNOWN` may have been made, and a person has to look.
    """

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    PENDING = "pending"
    CANCELLED = "cancelled"
    FAILED = "failed"
    UNKNOWN = "unknown"


class BookingKind(StrEnum):
    """What is booked."""

    RESERVATION = "reservation"
    APPOINTMENT = "appointment"


class Route(StrEnum):
    """How the partner is reached."""

    DIRECT = "direct"
    GATEWAY = "gateway"
    SIMULATION = "simulation"


@dataclass(frozen=True, slots=True)
class Slot:
    """A time that can be booked. `timezone`: the partner's, in which people read the time."""

    starts_at: int
    ends_at: int | None = None
    id: str = ""
    """The partner's own name of the slot, where booking it needs one."""
    seats: int | None = None
    timezone: str = "UTC"
    simulated: bool = False


class Availability(Sequence[Slot]):
    """The free times, in their order.

    `degraded`: why it is an earlier answer, and from when; empty, and `age` (seconds) None, when the partner
    was asked just now.
    """

    def __init__(self, slots: Iterable[Slot], degraded: str = "", age: float | None = None) -> None:
        self._slots = tuple(slots)
        self.degraded = degraded
        self.age = age

    def __len__(self) -> int:
        return len(self._slots)

    @overload
    def __getitem__(self, index: int) -> Slot: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Slot]: ...
    def __getitem__(self, index: int | slice) -> Slot | Sequence[Slot]:
        return self._slots[index]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a partner answered to an order. `starts_at`: as the partner says, if it does."""

    provider_id: str = ""
    state: BookingState = BookingState.CONFIRMED
    starts_at: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Booking:
    """A stored reservation or appointment."""

    id: str
    effect_id: str
    company_id: int | None
    kind: BookingKind
    partner: str
    state: BookingState
    simulated: bool
    route: Route
    provider_id: str
    who: str
    starts_at: int | None
    integration: str
    """The stored integration it was made by; empty for the environment's or a simulation."""
    timezone: str
    request: Mapping[str, Any]
    result: Mapping[str, Any]
    error: ErrorInfo | None
    created_at: int
    updated_at: int
    fresh: bool = False
    """Whether this request made it; False for one that was there before."""


@dataclass(frozen=True, slots=True)
class Action:
    """One stored order at a partner that is no booking: a cancellation, or what else the partner knows."""

    id: str
    company: str
    partner: str
    action: str
    state: EffectState
    provider_id: str
    integration: str
    simulated: bool
    result: Mapping[str, Any]
    error: ErrorInfo | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of an action at a partner. `id` is its effect's, empty for a question."""

    id: str
    partner: str
    action: str
    state: EffectState
    route: Route
    simulated: bool
    provider_id: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    error: ErrorInfo | None = None
    fresh: bool = True
