"""Runs the scheduled syncs of one database, exactly once however many processes have it open.

Every open console and every `callboard serve` has a Scheduler. All of them know when the next sync is
due; the one that holds the lease starts it. A due time is taken by inserting its row before the sync
begins (see `services.schedule.ledger`), so that even two that both believe in their lease run it once.

What was missed (nothing was open, the machine slept, the lease had to change hands, the previous run
took too long) is made up by a single run for the latest missed time. What a dead process had begun is
not repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import tzinfo

from services.agents import SyncRequest, SyncService
from services.clock import Clock
from services.errors import ServiceError
from services.events import EventBus, ScheduleChanged, ScheduleRan
from services.model import ErrorInfo, SyncReport
from services.schedule import ledger
from services.schedule.due import Schedule, next_due, schedules, zone_of
from services.schedule.ledger import Claim
from services.schedule.timer import Timer, WallTimer
from services.storage import Database

log = logging.getLogger("callboard.schedule")

ACTOR = "schedule"
CANCELLED = "cancelled: Callboard was closed"

PATIENCE = 1.0
"""Seconds that closing waits for a round in progress."""


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """Which schedules are on, and how long the lease lasts; times in seconds."""

    timezone: str = "UTC"
    hourly: bool = True
    daily: str | None = "02:00"
    """`HH:MM` in `timezone`; None for off."""
    lease_seconds: float = 20.0
    """After this time without a renewal another process takes over."""
    renew_seconds: float = 5.0
    abandoned_seconds: float = 60.0
    """How long after a change of hands the previous holder's unfinished run counts as ended."""


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The next due time of one schedule."""

    schedule: str
    cause: str
    at: int
    forced: bool


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class Scheduler:
    """Keeps the lease, waits for the next due time, and starts what is due."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        sync: SyncService,
        bus: EventBus,
        clock: Clock,
        options: SchedulerOptions,
        *,
        make_timer: Callable[[Callable[[], None]], Timer] = WallTimer,
        new_owner: Callable[[], str] = _owner,
    ) -> None:
        """Raises UsageError for a time zone that does not exist."""
        self._open_database = open_database
        self._sync = sync
        self._bus = bus
        self._clock = clock
        self._options = options
        self._schedules: tuple[Schedule, ...] = schedules(
            options.timezone, hourly=options.hourly, daily=options.daily
        )
        self.zone: tzinfo = zone_of(options.timezone)
        """The zone in which the schedules are meant."""
        self._make_timer = make_timer
        self._owner = new_owner()
        self._timer: Timer | None = None
        self._database: Database | None = None
        self._wake = asyncio.Event()
        self._checking = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._closing = False
        self._held_until = 0
        self._told: tuple[int | None, bool, ErrorInfo | None] = (None, False, None)
        self.holder = False
        """Whether this process is the one that starts the scheduled syncs."""
        self.next_at: int | None = None
        """The next due time of any schedule, whoever will run it; None when nothing is scheduled."""
        self.problem: ErrorInfo | None = None
        """Why the schedule cannot work at the moment: the database refuses. None when it works."""

    @property
    def busy(self) -> bool:
        """Whether a scheduled sync of this process is running."""
        return self._running is not None

    def upcoming(self) -> tuple[Upcoming, ...]:
        """The next due time of every schedule that is switched on, soonest first."""
        now = self._clock.now()
        found = [
            Upcoming(schedule.key, schedule.cause, next_due(schedule, now), schedule.force)
            for schedule in self._schedules
        ]
        return tuple(sorted(found, key=lambda each: each.at))

    async def start(self) -> None:
        """Begin. Takes the lease if it is free, makes up what was missed, and keeps going until `aclose`.

        Raises ServiceError when the database cannot be opened; one that fails later only delays (see
        `problem`). With every schedule switched off there is nothing to keep.
        """
        if self._keeper is not None or not self._schedules:
            return
        self._database = await self._open_database()
        self._timer = await asyncio.to_thread(self._make_timer, self._wake.set)
        self._timer.start()
        await self.check()
        self._keeper = asyncio.create_task(self._keep(), name="schedule")

    async def aclose(self) -> None:
        """Stop: cancel a sync that runs for the schedule, record that, and give the lease back."""
        self._closing = True
        self._wake.set()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            # A round in progress may just be taking a due time: it is let finish, within reason.
            await asyncio.wait({keeper}, timeout=PATIENCE)
        await _ended(keeper)
        await _ended(self._running)
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self.holder and self._database is not None:
            self.holder = False
            with contextlib.suppress(ServiceError):  # it expires by itself
                await self._database.write(lambda session: ledger.release_lease(session, self._owner))

    async def check(self) -> None:
        """One round: renew or take the lease, start what is due, set the alarm for what comes next."""
        async with self._checking:
            now = self._clock.now()
            settled: list[Claim] = []
            try:
                settled = await self._round(now)
            except ServiceError as error:
                self.holder = self.holder and now < self._held_until
                problem = ErrorInfo(error.category.value, error.message, error.advice)
                if problem != self.problem:
                    log.warning("the schedule waits: %s", error.message)
                self.problem = problem
            else:
                self.problem = None
            upcoming = self.upcoming()
            self.next_at = upcoming[0].at if upcoming else None
            if self._timer is not None:
                self._timer.set(self.next_at)
            self._tell()
            for claim in settled:
                self._ran(claim, now, claim.result, None)

    # -- keeping ------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Check at every renewal, and at once when the alarm rings or a run has ended.

        A renewal also notices what an alarm does not: that the machine slept or its clock was set.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._options.renew_seconds)
            if self._closing:
                return
            self._wake.clear()
            try:
                await self.check()
            except Exception:
                log.exception("a round of the schedule failed")

    async def _round(self, now: int) -> list[Claim]:
        """Returns what was due and needs no run; what needs one is started."""
        database = self._database or await self._open_database()
        self._database = database
        lasts = round(self._options.lease_seconds * 1000)
        held = await database.write(lambda session: ledger.take_lease(session, self._owner, now, lasts))
        if held != self.holder:
            log.info("the schedule is run %s", "by this process" if held else "by another process")
        self.holder, self._held_until = held, now + lasts if held else 0
        if not held:
            return []
        after = round(self._options.abandoned_seconds * 1000)
        closed = await database.write(
            lambda session: ledger.close_abandoned(session, self._owner, now, after)
        )
        if closed:
            log.warning("%d scheduled run(s) of a process that ended were closed", closed)
        if self._running is not None or self._closing:
            return []  # what falls due during a run is made up once, when the run has ended
        claims = await database.write(
            lambda session: ledger.claim_due(session, self._schedules, self._owner, now)
        )
        for claim in claims:
            if not claim.result:
                self._running = asyncio.create_task(self._run(claim, database), name=f"schedule {claim.id}")
                await asyncio.sleep(0)  # it has begun, so that cancelling it finds its way to the record
        return [claim for claim in claims if claim.result not in ("", ledger.COVERED)]

    def _tell(self) -> None:
        told = (self.next_at, self.holder, self.problem)
        if told != self._told:
            self._told = told
            self._bus.publish(ScheduleChanged(self.next_at))

    # -- one run ------------------------------------------------------------------------------------

    async def _run(self, claim: Claim, database: Database) -> None:
        report: SyncReport | None = None
        result = CANCELLED
        try:
            request = SyncRequest(force=claim.schedule.force, cause=claim.schedule.cause, actor=ACTOR)
            report = await self._sync.run(request)
            result = in_words(report)
        except ServiceError as error:
            result = f"failed: {error.message}"
        except Exception:
            log.exception("the sync of %s failed", claim.id)
            result = "failed: an unexpected failure, see the log"
        finally:
            now = self._clock.now()
            try:
                await database.write(lambda session: ledger.finish(session, claim.id, now, result))
            except ServiceError as error:
                log.warning("the end of %s could not be recorded: %s", claim.id, error.message)
            self._running = None
            self._ran(claim, now, result, report)
            self._wake.set()

    def _ran(self, claim: Claim, at: int, result: str, report: SyncReport | None) -> None:
        log.info("%s: %s", claim.id, result)
        self._bus.publish(
            ScheduleRan(claim.schedule.key, claim.schedule.cause, claim.due_at, at, result, report)
        )


def in_words(report: SyncReport) -> str:
    """`done: 12 unchanged, 1 updated`; connections that could not be listed are counted, too."""
    parts = [f"{count} {outcome}" for outcome, count in report.counts().items() if count]
    if report.errors:
        parts.append(f"{len(report.errors)} connection(s) could not be listed")
    return f"{report.status.value}: {', '.join(parts) or 'no agents'}"


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task of ours and wait until it has put everything away."""
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
