"""Typed events: a service writes the database, then says so here; screens listen and re-read.

The bus belongs to one event loop. Publishing never awaits and never fails because of a listener:
a listener is a plain function that only marks something dirty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from services.model import OutcomeRow, SyncReport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """The base of everything that is published."""


@dataclass(frozen=True, slots=True)
class AgentsChanged(Event):
    """Rows of the mirror changed: their ids, or an empty tuple for "read all again"."""

    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CompaniesChanged(Event):
    """A company or a connection was added, changed or removed."""


@dataclass(frozen=True, slots=True)
class SyncStarted(Event):
    """A run began. `scope` is for people: `all`, a company's name, `3 agents`."""

    run_id: str
    scope: str
    cause: str
    forced: bool


@dataclass(frozen=True, slots=True)
class SyncPlanned(Event):
    """One connection has been listed: how many agents there are to decide on, and how many are read.

    `reading` are the mirror ids of known agents that are going to be read.
    """

    run_id: str
    connection_id: int
    total: int
    to_read: int
    reading: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AgentReading(Event):
    """A known agent's detail is being read now."""

    run_id: str
    id: int


@dataclass(frozen=True, slots=True)
class AgentSettled(Event):
    """One agent's outcome is known and, if it had to be, written."""

    run_id: str
    row: OutcomeRow


@dataclass(frozen=True, slots=True)
class SyncFinished(Event):
    """A run ended, whichever way."""

    run_id: str
    report: SyncReport


@dataclass(frozen=True, slots=True)
class ScheduleChanged(Event):
    """The next scheduled sync moved, or who runs it did; `next_at` is None when nothing is scheduled."""

    next_at: int | None


@dataclass(frozen=True, slots=True)
class ScheduleRan(Event):
    """A due time that this process took is settled. `report` is None where no sync came about."""

    schedule: str
    cause: str
    due_at: int
    finished_at: int
    result: str
    """What is stored of it, in words: `done: 12 unchanged, 1 updated`, or why there was no sync."""
    report: SyncReport | None


@dataclass(frozen=True, slots=True)
class CallsChanged(Event):
    """Calls began, went live, ended or were deleted: their ids, or an empty tuple for "read all again"."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyChanged(Event):
    """A breaker opened, closed or began to try: the name of its policy."""

    name: str


@dataclass(frozen=True, slots=True)
class HealthChanged(Event):
    """Checks were probed, came or went: their ids, or an empty tuple for "read all again"."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertRaised(Event):
    """Somebody is to be told: something is down or degraded, or (`over`) up again.

    `bell` and `desktop` say whether an operator wants the terminal to ring, or the desktop to show it.
    """

    check_id: str
    text: str
    over: bool = False
    bell: bool = False
    desktop: bool = False


@dataclass(frozen=True, slots=True)
class IntegrationsChanged(Event):
    """An integration was added, changed or removed."""


@dataclass(frozen=True, slots=True)
class MessagesChanged(Event):
    """Messages were sent or their delivery moved on: their ids, or an empty tuple for "read all again"."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MessagesReceived(Event):
    """Somebody wrote to us: the ids of the messages that came in."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BookingsChanged(Event):
    """Bookings were made, changed or cancelled: their ids, or an empty tuple for "read all again"."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KnowledgeChanged(Event):
    """Sources of a knowledge base came, changed or went."""


@dataclass(frozen=True, slots=True)
class DecisionsChanged(Event):
    """The orchestrator decided where a request goes."""


E = TypeVar("E", bound=Event)
Unsubscribe = Callable[[], None]


class EventBus:
    """Publish and subscribe within one process and one event loop."""

    def __init__(self) -> None:
        self._listeners: list[tuple[type[Event], Callable[[Event], None]]] = []

    def subscribe(self, kind: type[E], listener: Callable[[E], None]) -> Unsubscribe:
        """Call `listener` for every event of this kind (or a subclass); returns how to stop."""
        entry = (kind, listener)
        self._listeners.append(entry)  # type: ignore[arg-type]  # the isinstance check in publish keeps it true

        def unsubscribe() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell every listener, in the order they subscribed."""
        for kind, listener in tuple(self._listeners):
            if isinstance(event, kind):
                try:
                    listener(event)
                except Exception:
                    log.exception("a listener of %s failed", type(event).__name__)
