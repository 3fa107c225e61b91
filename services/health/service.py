"""The health of everything the agents depend on: probed by one process, seen by all.

Of the processes that have one database open, the one with the lease `health` probes and writes; the others
read what it wrote and show the same. A look that an operator asks for (`check_now`) is always made by the
process that was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Unpack

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.events import AgentsChanged, CompaniesChanged, EventBus, IntegrationsChanged, PolicyChanged
from services.health import history, store
from services.health.alerts import AlertDesk
from services.health.arranging import Arrangement, arrange
from services.health.board import BEATS, Board
from services.health.breakers import Breakers
from services.health.keeping import Keeping
from services.health.model import (
    Channel,
    CheckSpec,
    HealthState,
    HealthView,
    HistoryPoint,
    Incident,
    Overall,
    Reading,
    Rule,
    RuleChanges,
    Window,
)
from services.health.overall import judge_part
from services.health.places import Keys, host_of, owner_name, seen_from
from services.health.plan import Catalog, Plan
from services.health.requests import Act
from services.health.runner import Job, Probed, Runner
from services.health.settings import HealthSettings
from services.health.showing import Showing
from services.resilience import Policies
from services.text import clean_line

if TYPE_CHECKING:
    from services.storage import Database

log = logging.getLogger("callboard.health")

DATABASE: Final = "system:database"
REBUILD: Final = 60.0
"""Seconds after which what is to be watched is looked up again, word of a change or not."""
ANSWERS: Final = 4.0
"""Seconds that another process may take, besides two of its rounds, to do what it is asked for."""
CHUNK: Final = 50
"""Checks that are taken in or drawn up between two turns of the event loop."""


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """Times in seconds."""

    interval: float = 30.0
    failures: int = 2
    """Failed probes in a row after which something is down, unless the check says otherwise."""
    tick: float = 3.0
    """How often the lease is renewed, what was found written, or what others found read."""
    lease: float = 20.0
    quiet: float = 900.0
    """How long after an alert nobody is told again that the same check is in trouble."""
    concurrency: int = 16
    timezone: str = "UTC"
    """In which maintenance is meant where nothing else is said."""
    host: str = ""
    """The name of this machine, where those who share the database may be on several; else empty."""


class HealthService:
    """Probes, remembers, tells. Belongs to one event loop; close it with `aclose`."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        catalog: Catalog,
        policies: Policies,
        desk: AlertDesk,
        bus: EventBus,
        clock: Clock,
        options: HealthOptions = HealthOptions(),  # immutable
        *,
        rng: random.Random | None = None,
        new_owner: Callable[[], str] = owner_name,
    ) -> None:
        self._open_database = open_database
        self._catalog = catalog
        self._policies = policies
        self._desk = desk
        self._bus = bus
        self._clock = clock
        self._options = options
        self._owner = desk.owner = new_owner()
        self._board = Board()
        self._showing = Showing(self._board, policies, bus, clock)
        quiet, lease = round(options.quiet * 1000), round(options.lease * 1000)
        self._keeping = Keeping(self._board, desk, self._owner, clock, quiet, lease, self._showing.vitals)
        patience = 2 * options.tick + ANSWERS
        self._breakers = Breakers(self._board, policies, self._keeping, open_database, clock, patience)
        self._settings = HealthSettings(open_database, clock)
        self._keys = Keys(self._board, options.host)
        self._seen_from: str | None = None
        self._runner = Runner(clock, self._took, began=self._began, concurrency=options.concurrency, rng=rng)
        self._plan = Plan((), ())
        self._database: Database | None = None
        self._prepared = False
        self._outdated = True
        self._built_at = 0.0
        self._started = False
        self._closing = False
        self._wake = asyncio.Event()
        self._ticking = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._subscriptions: list[Callable[[], None]] = []

    # -- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to probe, or to follow the process that does. Raises ServiceError without a database."""
        if self._started:
            return
        self._started = True
        try:
            await self._prepare()
            await self.tick()
        except BaseException:
            self._started = False
            raise
        self._keeper = asyncio.create_task(self._keep(), name="health keeper")

    async def aclose(self) -> None:
        """Stop: what was found is written, the lease given back. May be called twice."""
        self._closing = True
        self._wake.set()
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._subscriptions.clear()
        await self._runner.stop()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        if self._database is not None and self._keeping.holder:
            with contextlib.suppress(ServiceError):  # the lease expires by itself
                await self._keeping.finish(self._database)
        await self._desk.aclose()
        self._showing.close()
        self._started = False

    @property
    def holder(self) -> bool:
        """Whether this process is the one that probes for all."""
        return self._keeping.holder

    def ready(self) -> bool:
        """Whether it knows how things stand: checks are set up and the database could be read lately."""
        return self._prepared and not self._keeping.lost

    async def _prepare(self) -> None:
        """Everything up to the first probe: what is to be watched, and what is known of it."""
        async with self._ticking:
            if self._prepared:
                return
            self._database = await self._open_database()
            await self._rebuild()
            await self._keeping.load(self._database, self._plan.kept_beats())
            await self._refresh()
            self._prepared = True
            for kind in (CompaniesChanged, IntegrationsChanged, AgentsChanged):
                self._subscriptions.append(self._bus.subscribe(kind, lambda _: self._changed()))
            self._subscriptions.append(self._bus.subscribe(PolicyChanged, self._switched))

    def _changed(self) -> None:
        self._outdated = True

    def _switched(self, event: PolicyChanged) -> None:
        """A breaker opened or closed: those who follow read it in the standing of what is behind it."""
        self._showing.stale()
        self._keeping.outdated(spec.id for spec in self._plan.specs if spec.policy == event.name)

    async def _keep(self) -> None:
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.tick):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.tick()
            except Exception:
                log.exception("a round of the health service failed")

    async def tick(self) -> None:
        """One round of housekeeping: what to watch, the lease, writing or reading, alerts."""
        async with self._ticking:
            if self._closing or self._database is None:
                return
            try:
                before = self._keeping.holder
                await self._keys.look(self._plan)
                lead = self._keys.lead(lasting=self._started)
                changed = await self._keeping.round(self._database, lead=lead, oust=self._keys.helpless())
                self._keys.seen(self._keeping.leader, self._clock.now())
                if self._is_outdated():
                    await self._rebuild()
                if before and not self._keeping.holder:
                    await self._runner.stop()
                if self._started:
                    self._runner.start(None if self._keeping.holder else self._plan.own)
                if self._keeping.holder and not before:
                    self._runner.expedite(self._plan.own)  # nobody has stored these yet
                await self._breakers.obey(self._database)
            except ServiceError as error:
                changed = await self._lost(error)
            # What other processes found out about a breaker that all share.
            await self._policies.refresh()
            await self._keeping.maintain(self._clock.now())
            await self._refresh(changed)
            self._runner.expedite(self._plan.jobs_of(self._keeping.take_urgent()))

    async def _lost(self, error: ServiceError) -> list[str]:
        """The database refuses: say so, whoever would have probed it. Probing goes on from memory."""
        if not self._keeping.lost:
            log.warning("the health service cannot use the database: %s", error.message)
        self._keeping.lost = True
        if self._keeping.holder:
            await self._keeping.tell_from_memory()
            standing = self._board.find(DATABASE)
            if standing is not None and standing.state is not HealthState.DOWN:
                self._runner.expedite(self._plan.jobs_of([DATABASE]))
            return []
        if DATABASE not in self._board:
            return []
        now = self._clock.now()
        reading = Reading(HealthState.DOWN, error.message, error.advice, error.category.value)
        self._board.apply(DATABASE, reading, now, now)
        return [DATABASE]

    # -- what is watched ----------------------------------------------------------------------------

    def _is_outdated(self) -> bool:
        """Whether something may have changed; other processes change things without a word here."""
        old = self._clock.monotonic() - self._built_at >= REBUILD
        moved = self._viewpoint() != self._seen_from
        return self._outdated or old or moved or self._plan.rules != self._keeping.rules

    def _viewpoint(self) -> str | None:
        """Whose machine is told of besides this one: that of the process which is followed."""
        if not self._started or not self._keeping.follows:
            return None
        return host_of(self._keeping.leader) if self._options.host else ""

    async def _rebuild(self) -> None:
        self._outdated, self._built_at = False, self._clock.monotonic()
        try:
            plan = await self._catalog.build()
        except ServiceError:
            self._outdated = True
            raise
        rules, before = self._keeping.rules, self._board.arranged
        self._seen_from = prober = self._viewpoint()

        def prepare() -> tuple[Plan, Arrangement, list[Job]]:
            ruled = seen_from(plan, self._options.host, prober).with_rules(rules)
            return ruled, arrange(ruled.specs, before), ruled.jobs()

        # Thousands of checks are sorted beside the event loop, and then taken in step by step.
        self._plan, arranged, jobs = await asyncio.to_thread(prepare)
        for _ in self._board.rearrange(arranged):
            await asyncio.sleep(0)
        self._keeping.gone(arranged.gone)
        self._runner.set_jobs(jobs)
        elsewhere = {each: BEATS for each in arranged.came if arranged.specs[each].elsewhere}
        if elsewhere and self._database is not None:
            await self._keeping.load(self._database, elsewhere)
        if arranged.gone:
            self._showing.changed(())

    # -- what is found ------------------------------------------------------------------------------

    def _began(self, job: Job) -> None:
        if len(job.checks) <= CHUNK:
            for check_id in job.checks:
                self._board.set_probing(check_id, True)

    async def _took(self, probed: Probed) -> None:
        """Take in what a job found, a part at a time."""
        grouped = bool(self._plan.group_of(probed.job.id))
        for start in range(0, len(probed.readings), CHUNK):
            part = probed.readings[start : start + CHUNK]
            for check_id, reading in part:
                self._keys.found(check_id, reading)
                counted = self._board.apply(check_id, reading, probed.asked_at, probed.at)
                if counted is not None and not self._keys.blind(check_id):
                    self._keeping.found(check_id, counted, reading, probed.at, grouped=grouped)
            if start + CHUNK >= len(probed.readings) and self._board.doubtful(probed.job.checks):
                self._runner.look_again(probed.job.id)
            next_at = self._next_at(probed.job.id)
            for check_id, _ in part:
                self._board.set_probing(check_id, False)
                self._board.set_next(check_id, next_at)
            await self._refresh()
            await asyncio.sleep(0)
        if not grouped:
            await self._breakers.down(probed.job.checks if self._started else ())
            await self._showing.count_budgets(self._plan.spec(probed.job.id))
        if await self._keeping.judge(self._clock.now()):
            self._wake.set()  # somebody is to be told, which does not wait for the next round
        self._runner.expedite(self._plan.jobs_of(self._keeping.take_urgent()))

    def _next_at(self, job_id: str) -> int | None:
        due = self._runner.table.due_at(job_id)
        if due is None:
            return None
        return self._clock.now() + round((due - self._clock.monotonic()) * 1000)

    async def _refresh(self, changed: Iterable[str] = ()) -> None:
        """Draw up anew what changed, a part at a time, and say so."""
        for check_id in changed:
            self._board.touch(check_id)
        while not self._board.settled:
            self._showing.changed(self._board.refresh(self._clock.now(), CHUNK))
            if not self._board.settled:
                await asyncio.sleep(0)

    # -- what is asked ------------------------------------------------------------------------------

    def view(self) -> HealthView:
        """Everything as it is known now. Asks nobody and is made anew only when something changed."""
        keeping = self._keeping
        started = self._started and keeping.holder
        return self._showing.view(started=started, prober=keeping.prober, follows=keeping.follows)

    def judge(self, ids: Iterable[str]) -> tuple[Overall, str]:
        """How these are, together with what they wait for, and why: what the view says of all."""
        return judge_part(self._board, self.view(), ids)

    async def check_now(self, ids: Sequence[str] | None = None, *, confirm: bool = False) -> HealthView:
        """Probe these checks (None: all) at once and wait for it.

        With `confirm` what fails is probed again until its threshold says whether it is down. Raises
        UsageError for a check that does not exist, ServiceError without a database.
        """
        await self._prepare()
        if self._outdated or not self._started:
            await self.tick()
        wanted = self._known(ids) if ids is not None else list(self._board.ids)
        await self._runner.check(self._plan.jobs_of(wanted))
        while confirm and (unsure := [each for each in wanted if self._unsure(each)]):
            await self._runner.check(self._plan.jobs_of(unsure))
        if self._keeping.holder:
            await self.tick()
        return self.view()

    def _unsure(self, check_id: str) -> bool:
        standing = self._board.find(check_id)
        if standing is None or standing.spec.elsewhere:
            return False
        return standing.state is HealthState.PENDING and standing.failures > 0

    def _known(self, ids: Sequence[str]) -> list[str]:
        for check_id in ids:
            if check_id not in self._board:
                near = get_close_matches(check_id, list(self._board.ids), n=1, cutoff=0.4)
                advice = f"did you mean {near[0]}?" if near else "callboard health lists the checks"
                raise UsageError(
                    f"There is no check {clean_line(check_id)!r}", advice=advice, code="unknown_check"
                )
        return list(ids)

    async def history(self, check_id: str, hours: int = 24) -> list[HistoryPoint]:
        """The past of one check: by five minutes for a day, by hours or days for more; oldest first."""
        await self._prepare()
        database, now = await self._open_database(), self._clock.now()
        if self._keeping.holder:
            await self.tick()
        since = now - hours * 3_600_000
        return await database.read(lambda session: history.read_history(session, check_id, since, now))

    async def incidents(self, limit: int = 100, check_id: str | None = None) -> list[Incident]:
        """The newest incidents, of one check or of all."""
        database, now, quiet = await self._open_database(), self._clock.now(), self._options.quiet
        return await database.read(lambda session: store.incidents(session, limit, check_id, now, quiet))

    def specs(self) -> tuple[CheckSpec, ...]:
        """What is watched, with the operator's rules applied."""
        return tuple(self._plan.specs)

    # -- what operators decide ----------------------------------------------------------------------

    async def rules(self) -> list[Rule]:
        """What was changed about checks, by check."""
        return await self._settings.rules()

    async def set_rule(self, check_id: str, *, actor: str = "", **changes: Unpack[RuleChanges]) -> Rule:
        """Change how a check is probed; what is not named stays as it is. Raises UsageError."""
        await self._prepare()
        if check_id not in self._keeping.rules:
            self._known([check_id])
        rule = await self._settings.change_rule(check_id, changes, actor)
        self._changed()
        await self._reread()
        return rule

    async def maintenance(self) -> list[Window]:
        """Every maintenance window, those that are over for less than 90 days included."""
        return await self._settings.maintenance()

    async def add_maintenance(
        self,
        scope: str,
        *,
        starts_at: int | None = None,
        ends_at: int | None = None,
        cron: str = "",
        minutes: int = 0,
        timezone: str = "",
        reason: str = "",
        actor: str = "",
    ) -> Window:
        """Plan maintenance; without a beginning it begins now. Raises UsageError for what cannot be."""
        await self._prepare()
        timezone = timezone or self._options.timezone
        window = Window(0, scope, reason, timezone, starts_at, ends_at, cron, minutes, actor)
        added = await self._settings.add_maintenance(window, self._plan.specs)
        await self._reread()
        return added

    async def end_maintenance(self, window_id: int, *, actor: str = "") -> Window:
        """End a window that is running, or take back one that has not begun or recurs."""
        ended = await self._settings.end_maintenance(window_id, actor)
        await self._reread()
        return ended

    async def alerts(self) -> list[Channel]:
        """Where alerts go."""
        return await self._desk.channels()

    async def add_alert(
        self,
        kind: str,
        target: str = "",
        *,
        company: str = "",
        config: dict[str, object] | None = None,
        least: HealthState = HealthState.DEGRADED,
        secret: str = "",
        actor: str = "",
    ) -> Channel:
        """Tell over one more channel. Raises UsageError for one that cannot work."""
        added = await self._desk.add(
            kind, target, company=company, config=config, least=least, secret=secret, actor=actor
        )
        await self._reread()
        return added

    async def remove_alert(self, channel_id: int, *, actor: str = "") -> Channel:
        """Tell over this channel no longer."""
        gone = await self._desk.remove(channel_id, actor)
        await self._reread()
        return gone

    async def test_alert(self, channel_id: int) -> Channel:
        """Send a test over a channel and wait for it. Raises ServiceError saying why it did not arrive."""
        return await self._desk.test(channel_id)

    async def reset_breaker(self, check_id: str, *, actor: str = "") -> None:
        """Close the breaker of what this check watches, here and in the process that probes.

        Raises UsageError where it has none, ServiceError when that process does not answer.
        """
        await self._switch(check_id, Act.CLOSE, actor)

    async def trip_breaker(self, check_id: str, *, actor: str = "") -> None:
        """Open the breaker of what this check watches, as if it had failed; raises like `reset_breaker`."""
        await self._switch(check_id, Act.OPEN, actor)

    async def _switch(self, check_id: str, act: Act, actor: str) -> None:
        await self._breakers.force(check_id, act, actor)
        if self._keeping.follows:
            await self.tick()  # read how it is now

    async def _reread(self) -> None:
        """Go by what an operator just decided."""
        if self._database is not None:
            await self._keeping.read_settings(self._database)
            await self.tick()
