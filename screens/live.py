"""The live state behind the screens: the board, the running sync, what the status line says.

Events only mark something dirty; `flush`, called by one timer, re-reads what is dirty and says what changed.
No widget in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from screens.board import Board
from screens.ports import Services
from screens.textfit import sentence
from services.agents.progress import LiveSync
from services.errors import ServiceError
from services.events import (
    AgentReading,
    AgentsChanged,
    AgentSettled,
    CallsChanged,
    CompaniesChanged,
    Event,
    HealthChanged,
    MessagesChanged,
    ScheduleChanged,
    SyncFinished,
    SyncPlanned,
    SyncStarted,
)
from services.model import RunStatus, SyncReport

if TYPE_CHECKING:
    from screens.call_ports import Session
    from services.health.model import HealthView

HEALTH_EVERY = 0.25
"""Seconds between two looks at the health: probes end all the time."""
MANY = 200
"""From this many changed agents on, reading the whole mirror once is cheaper than one read each."""
_NETWORK = {"transient", "timeout"}


@dataclass(slots=True)
class Changes:
    """What a flush found. `everything` says that the shown cards or their order are others now."""

    everything: bool = False
    places: set[int] = field(default_factory=set)
    """Of the shown cards that changed."""
    counts: bool = False
    """Other numbers of agents are in some state, be these agents shown or not."""
    grown: bool = False
    sync: bool = False
    companies: bool = False
    status: bool = False
    finished: bool = False
    calls: bool = False
    """A call began, moved on, ended or was deleted."""
    messages: bool = False
    """A message was sent, moved on or came in."""
    health: bool = False
    """Checks were probed, came or went; `status` as well if the whole stands otherwise now."""

    @property
    def beyond_cards(self) -> bool:
        """Whether more may look different than single cards and the counts by state."""
        others = (self.everything, self.grown, self.sync, self.companies, self.status, self.finished)
        return any((*others, self.calls, self.messages))

    def __bool__(self) -> bool:
        return bool(self.places) or self.counts or self.health or self.beyond_cards


class Live:
    """Holds what the screens show and keeps it true.

    `wake` is called when there is something to flush; with `seconds`, when it may wait that long.
    """

    def __init__(self, services: Services, wake: Callable[..., None]) -> None:
        self.services = services
        self.board = Board()
        self.sync: LiveSync | None = None
        self.failure = ""
        """Why the database cannot be read, or empty. What was read before stays, and is stale."""
        self.failed_at = 0
        """Since when, while there is a failure."""
        self.offline = False
        self.next_at: int | None = None
        self.secret_label = ""
        self.secret_locked = False
        self.last_sync_at: int | None = None
        self.has_connections = False
        self.calls: list[Session] = []
        """The calls that go on, the oldest first."""
        self.call_ended: Callable[[Session], None] = lambda session: None
        """Told of every call that was going on and is over."""
        self.health: HealthView | None = None
        """Everything that is watched, as it was at `health_at`; None until it is known."""
        self.health_at = 0.0
        """On the monotonic clock; countdowns are counted from there."""
        self._wake = wake
        self._ids: set[int] = set()
        self._changes = Changes()
        self._all = False
        self._unsubscribe = services.bus.subscribe(Event, self._listen)

    def close(self) -> None:
        self._unsubscribe()

    @property
    def syncing(self) -> bool:
        return self.sync is not None and not self.sync.finished

    @property
    def resumable(self) -> str | None:
        """The run that can be gone on with: the last one, if it was cancelled or interrupted."""
        if self.sync is not None and self.sync.status in (RunStatus.CANCELLED, RunStatus.INTERRUPTED):
            return self.sync.run_id
        return None

    def fail(self, error: ServiceError) -> bool:
        """The database could not be read: say so until it can. Returns whether that is news."""
        news = not self.failure
        if news:
            self.failed_at = self.services.clock.now()
        self.failure = sentence(error.message, error.advice)
        if not self.board.cards:
            self.board.loaded = False
        return news

    def answered(self) -> bool:
        """The database answers: if it had failed, everything is read again. Returns whether it had."""
        if self.failure:
            self.mark_all()
        return bool(self.failure)

    def mark_all(self) -> None:
        """Somebody else wrote: read the whole mirror again at the next flush, and the calls."""
        self._all = True
        self._changes.calls = self._changes.messages = True
        self._changes.health = self.health is not None
        self._wake()

    def mark_status(self) -> None:
        self._changes.status = True
        self._wake()

    def _listen(self, event: Event) -> None:
        match event:
            case AgentsChanged(ids=ids):
                self._ids.update(ids)
                self._all = self._all or not ids
            case SyncStarted() | SyncPlanned() | AgentReading() | AgentSettled():
                self._changes.sync = True
            case SyncFinished(report=report):
                self._changes.sync = self._changes.finished = self._changes.status = True
                self.offline = _looks_offline(report)
            case CompaniesChanged():
                self._changes.companies = self._all = True
            case CallsChanged():
                self._changes.calls = True
            case MessagesChanged():
                self._changes.messages = True
            case HealthChanged():
                self._changes.health = True
                self._wake(HEALTH_EVERY)
                return
            case ScheduleChanged(next_at=next_at):
                self.next_at = next_at
                self._changes.status = True
            case _:
                return
        self._wake()

    async def glance(self) -> None:
        """Learn what can be told at once of the secret store and the schedule, both of which open later."""
        secrets, next_at = await asyncio.to_thread(
            lambda: (self.services.secrets_at_a_glance(), self.services.next_sync_at_a_glance())
        )
        if secrets is not None and not self.secret_label:
            self.secret_label, self.secret_locked = secrets
        self.next_at = next_at

    async def flush(self) -> Changes:
        """Re-read what is dirty. Raises what the reads raise."""
        ids, whole, changes = self._ids, self._all, self._changes
        self._ids, self._all, self._changes = set(), False, Changes()
        failed = self.failure
        if changes.sync:
            self.sync = self.services.sync.active
            changes.places.update(self.board.set_syncing(self.sync.reading if self.sync else ()))
        if changes.calls:
            self._look_at_calls()
        if changes.health and self.look_at_health():
            changes.status = True
        if whole or len(ids) > MANY:
            places = await self.load()
            changes.everything = places is None
            changes.places.update(places or ())
            changes.counts = changes.status = True
            self.failure = ""
        else:
            await self._reread(ids, changes)
        if failed and not self.failure:
            changes.everything = True
        if changes.finished:
            self.last_sync_at = await self.services.agents.last_sync_at()
            if not changes.everything:
                self.board.arrange()
                changes.everything = True
        return changes

    def look_at_health(self) -> bool:
        """Take over how everything stands; returns whether the whole stands otherwise than before."""
        before, self.health = self.health, self.services.health.view()  # made anew only when it differs
        self.health_at = self.services.clock.monotonic()
        return before is None or before.overall is not self.health.overall

    def _look_at_calls(self) -> None:
        before, self.calls = self.calls, list(self.services.calls.active)
        for session in before:
            if session not in self.calls:
                self.call_ended(session)

    async def load(self) -> set[int] | None:
        """Read the whole mirror; returns the places of cards that differ, None when anything may."""
        cards = await self.services.agents.cards()
        self.has_connections = bool(cards) or await self.services.agents.connection_count() > 0
        self.last_sync_at = await self.services.agents.last_sync_at()
        if not self.board.loaded:
            return self.board.merge(cards, None)
        return self.board.merge(cards, await asyncio.to_thread(self.board.differing, cards))

    async def _reread(self, ids: set[int], changes: Changes) -> None:
        if not ids:
            return
        cards = await self.services.agents.cards_of(sorted(ids))
        if len(cards) < len(ids):
            self.mark_all()
        board = self.board
        shown, known, companies = len(board.shown), len(board.cards), board.companies
        counts = dict(board.counts)
        for card in cards:
            place = board.update(card)
            if place is not None:
                changes.places.add(place)
        changes.grown = len(board.shown) != shown
        changes.counts = counts != dict(board.counts)
        if len(board.cards) != known or board.companies is not companies:
            changes.status = True


def _looks_offline(report: SyncReport) -> bool:
    """Nothing could be listed, and each time for a reason of the network."""
    errors = [row.error for row in report.errors if row.error is not None]
    return bool(errors) and not report.outcomes and all(error.category in _NETWORK for error in errors)
