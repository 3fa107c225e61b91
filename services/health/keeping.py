"""What is known, kept in the database: written by the process that probes, read by the others.

`round` is one exchange with the database. Until it succeeds nothing is lost that there is room for; what
somebody has to be told is told even while the database is away, by the process that probed last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from services.clock import Clock
from services.errors import ServiceError
from services.health import claims, history, maintenance, store
from services.health.alerts import AlertDesk, served
from services.health.board import Board
from services.health.claims import Claim
from services.health.history import Probe, Stretches
from services.health.incidents import Incidents, Notice, Trouble, alert_again
from services.health.model import Channel, CheckKind, CheckSpec, HealthState, Incident, Reading, Rule, Window
from services.health.places import who
from services.health.requests import Done, Request, waiting
from services.health.vitals import Vitals

if TYPE_CHECKING:
    from sqlmodel import Session

    from services.storage import Database

MOST_WAITING: Final = 50_000
"""Probes kept while the database is away; of more the oldest are dropped."""
MOST_STATES: Final = 300
"""Standings that are stored in one round."""
THIN_EVERY: Final = 300.0
UNTOLD_MS: Final = 3_600_000
"""How long after it an end that nobody was told of is told by the process that takes over."""
JUDGED: Final = 200
MAINTAINED: Final = 500
ADOPTED: Final = 100
"""Checks that are judged, looked at for maintenance, taken over between two turns of the event loop."""


@dataclass(slots=True)
class Settings:
    """What operators decided, as the database had it last."""

    rules: dict[str, Rule] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)


@dataclass(slots=True)
class Exchange:
    """What one round brought."""

    held: bool = False
    owner: str = ""
    settings: Settings = field(default_factory=Settings)
    states: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    newest_state: int = 0
    probes: list[Probe] = field(default_factory=list)
    newest_probe: int = 0
    told: list[tuple[Incident, bool]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    unsent: list[Claim] = field(default_factory=list)


class Keeping:
    """The memory of one process, and its share of the database's."""

    def __init__(
        self,
        board: Board,
        desk: AlertDesk,
        owner: str,
        clock: Clock,
        quiet_ms: int,
        lease_ms: int,
        vitals: Callable[[CheckSpec], Vitals | None] = lambda spec: None,
    ) -> None:
        """`vitals`: what is to be stored of the policy around a check."""
        self._board = board
        self._vitals = vitals
        self._desk = desk
        self._owner = owner
        self._clock = clock
        self._lease_ms = lease_ms
        self._incidents = Incidents(board, quiet_ms)
        self._settings = Settings()
        self._stretches = Stretches()
        self._probes: list[Probe] = []
        self._dirty: dict[str, None] = {}
        self._touched: dict[str, None] = {}
        self._gone: list[str] = []
        self._last: dict[str, tuple[HealthState, Reading]] = {}
        self._notices: list[Notice] = []
        self._told_from_memory: list[Notice] = []
        self._unsent: list[Claim] = []
        self._newest_state = 0
        self._newest_probe = 0
        self._requests: list[Request] = []
        self._answers: dict[int, Done] = {}
        self._told_at = 0
        self._thinned_at: float | None = None
        self._maintained = True
        """Whether anything may be in maintenance: what was stored of an earlier process, at first."""
        self._loaded = False
        self.holder = False
        self.leader = ""
        """The name of the process that probes, `HOST:PID:…`; empty when none does."""
        self.lost = False
        """Whether the database could not be used the last time."""

    @property
    def prober(self) -> str:
        """Who probes, for people."""
        return who(self.leader, self._owner)

    @property
    def follows(self) -> bool:
        """Whether another process probes, and says how things stand."""
        return bool(self.leader) and not self.holder

    @property
    def rules(self) -> dict[str, Rule]:
        return self._settings.rules

    # -- what happens -------------------------------------------------------------------------------

    def found(self, check_id: str, counted: HealthState, reading: Reading, at: int, *, grouped: bool) -> None:
        """Remember a reading and how it counts."""
        if not self.holder:
            return
        self._touched[check_id] = None
        if counted is HealthState.PENDING:
            return
        message, category = reading.message, reading.category
        if not grouped:
            self._probes.append(Probe(check_id, at, counted, reading.took_ms, category, message))
            self._dirty[check_id] = None
            return
        ended = self._stretches.add(check_id, at, counted, message, category)
        if ended is not None:
            self._probes.append(ended)
        if self._last.get(check_id) != (counted, reading):
            self._last[check_id] = (counted, reading)
            self._dirty[check_id] = None

    def touched(self, check_id: str) -> None:
        """Its state changed without a reading."""
        if self.holder:
            self._touched[check_id] = None
            self._dirty[check_id] = None

    def outdated(self, check_ids: Iterable[str]) -> None:
        """What is stored of these is no longer so: store it anew, before all else."""
        if self.holder:
            self._dirty = {**dict.fromkeys(check_ids), **self._dirty}

    def take_requests(self) -> list[Request]:
        """What other processes ask of this one."""
        found, self._requests = self._requests, []
        return found

    def gone(self, check_ids: Iterable[str]) -> None:
        """These are no longer watched."""
        ids = list(check_ids)
        self._incidents.gone(ids, self._clock.now())
        if self.holder:
            self._gone += ids
        for check_id in ids:
            self._last.pop(check_id, None)
            self._dirty.pop(check_id, None)

    async def judge(self, now: int, *, all_open: bool = False) -> bool:
        """Judge what was touched, and what is open to question because of it; a part at a time.

        With `all_open` everything that is open to question is judged, since time has passed. Says whether
        somebody has to be told.
        """
        if not self.holder:
            return False
        touched, self._touched = self._touched, {}
        wanted = self._incidents.affected(touched)
        if all_open:
            wanted = list(dict.fromkeys((*wanted, *self._incidents.undecided)))
        async for part in parts(wanted, JUDGED):
            if self._stepped_down():
                return False
            self._notices += self._incidents.look(part, now)
        return bool(self._notices)

    def _stepped_down(self) -> bool:
        """Whether another process has the lease by now."""
        return not self.holder

    def take_urgent(self) -> set[str]:
        """What should be probed at once."""
        urgent, self._incidents.urgent = self._incidents.urgent, set()
        return urgent

    async def maintain(self, now: int) -> None:
        """Let checks be in maintenance as the windows say at this moment, a part at a time."""
        spans = maintenance.running(self._settings.windows, now)
        if not spans and not self._maintained:
            return
        self._maintained = bool(spans)
        async for part in parts(list(self._board), MAINTAINED):
            for standing in part:
                until = maintenance.until(spans, standing.spec) if spans else None
                if until != standing.maintenance_until and standing.spec.id in self._board:
                    self._board.set_maintenance(standing.spec.id, until, now)
                    self.touched(standing.spec.id)

    # -- with the database --------------------------------------------------------------------------

    async def load(self, database: Database, beats: Mapping[str, int]) -> None:
        """Take up what is stored of these checks; `beats`: how many probes of each to show."""
        now, most = self._clock.now(), max(beats.values(), default=0)
        wanted = [check_id for check_id, count in beats.items() if count]

        def read(session: Session) -> tuple[store.Stored, Settings, int]:
            told = store.newest_told(session)
            return store.load(session, now, wanted, most), _settings(session), told

        stored, self._settings, told_at = await database.read(read)
        async for part in parts([each for each in stored.tallies.items() if each[0] in beats], MAINTAINED):
            for check_id, tally in part:
                standing = self._board.find(check_id)
                if standing is not None:
                    standing.tally = tally
        async for some in parts(list(stored.beats.items()), ADOPTED):
            for check_id, found in some:
                standing = self._board.find(check_id)
                if standing is not None:
                    standing.beats.extend(found)
        await self._adopt({key: data for key, data in stored.states.items() if key in beats})
        if not self._loaded:
            self._loaded, self._told_at = True, told_at
            self._newest_state, self._newest_probe = stored.newest_state, stored.newest_probe

    async def read_settings(self, database: Database) -> None:
        """Take up what operators decided."""
        self._settings = await database.read(_settings)

    async def round(self, database: Database, *, lead: bool = True, oust: str = "") -> list[str]:
        """Renew the lease and write, or read what the one who has it wrote; returns whose state changed.

        Without `lead` a lease that nobody has is left alone; `oust`: from whom it is taken.
        """
        now = self._clock.now()
        was_holder = self.holder
        exchange = await (
            self._lead(database, now) if was_holder else self._follow(database, now, lead, oust)
        )
        self.lost = False
        self._settings = exchange.settings
        self.holder = exchange.held
        self.leader = exchange.owner
        self._requests = exchange.requests
        changed: list[str] = []
        if not was_holder:
            changed = await self._catch_up(exchange)
            if self.holder:
                await self._take_over(database)
        elif not self.holder:
            self._step_down()
        if self.holder:
            await self.judge(now, all_open=True)
            await self._tell(database, now)
            await self._thin(database)
        return changed

    async def _lead(self, database: Database, now: int) -> Exchange:
        batch = self._batch()
        gone, self._gone = self._gone, []
        busy = self._desk.in_hand()

        def work(session: Session) -> Exchange:
            held, owner = store.renew(session, self._owner, now, self._lease_ms)
            if held:
                store.write(session, batch, now)
                store.forget_states(session, gone)
            asked = waiting(session, now) if held else []
            late = claims.take(session, self._owner, now, busy) if held else []
            return Exchange(held, owner, _settings(session), requests=asked, unsent=late)

        try:
            exchange = await database.write(work)
        except ServiceError:
            self._put_back(batch)
            self._gone = [*gone, *self._gone]
            raise
        self._unsent += exchange.unsent
        return exchange

    async def answer(self, database: Database, answers: Mapping[int, Done]) -> None:
        """Say what became of requests, by id, together with how things stand after it."""
        self._answers.update(answers)
        self.holder = (await self._lead(database, self._clock.now())).held

    async def _follow(self, database: Database, now: int, lead: bool, oust: str) -> Exchange:
        def read(session: Session) -> Exchange:
            owner = store.holder(session, now)
            states, newest = store.states_since(session, self._newest_state)
            probes, newest_probe = history.probes_after(session, self._newest_probe)
            told = store.told_since(session, self._told_at + 1)
            return Exchange(False, owner, _settings(session), states, newest, probes, newest_probe, told)

        exchange = await database.read(read)

        def take(session: Session) -> tuple[bool, str]:
            store.release(session, oust)
            return store.renew(session, self._owner, now, self._lease_ms)

        if lead and exchange.owner in ("", oust):
            exchange.held, exchange.owner = await database.write(take)
        return exchange

    async def _catch_up(self, exchange: Exchange) -> list[str]:
        for probe in exchange.probes:
            standing = self._board.find(probe.check_id)
            if standing is not None:
                standing.tally.add(probe.at, probe.state, probe.took_ms, probe.count)
                standing.beats.append(history.beat_of(probe))
        changed = await self._adopt(exchange.states)
        self._newest_state, self._newest_probe = exchange.newest_state, exchange.newest_probe
        for incident, over in exchange.told:
            self._desk.announce(incident, over, self._settings.channels)
            told_at = incident.over_alerted_at if over else incident.alerted_at
            self._told_at = max(self._told_at, told_at or 0)
        return changed

    async def _adopt(self, states: Mapping[str, Mapping[str, object]]) -> list[str]:
        changed: list[str] = []
        async for part in parts(list(states.items()), ADOPTED):
            changed += [
                check_id
                for check_id, data in part
                if self._board.adopt(check_id, partial(store.restore, data=data))
            ]
        return changed

    async def _take_over(self, database: Database) -> None:
        since = self._clock.now() - UNTOLD_MS

        def read(session: Session) -> tuple[list[Trouble], dict[str, int], list[Trouble]]:
            return *store.open_troubles(session), store.untold_ends(session, since)

        troubles, told_at, ended = await database.read(read)
        # Of the system what is not watched from here is another machine's: nobody goes on with it.
        known = [each for each in troubles if each.check_id in self._board or each.kind is CheckKind.SYSTEM]
        self._incidents.restore(known, told_at)
        gone = [each.check_id for each in known if each.check_id not in self._board]
        self._incidents.gone(gone, self._clock.now())
        self._notices += self._incidents.ended(ended, self._clock.now())

    def _step_down(self) -> None:
        """Another process has the lease: what was found since is its business."""
        self._incidents.forget()
        self._stretches.take()
        self._probes.clear()
        self._dirty.clear()
        self._touched.clear()
        self._notices.clear()
        self._told_from_memory.clear()
        self._unsent.clear()
        self._last.clear()
        self._gone.clear()
        self._answers.clear()

    def _batch(self) -> store.Batch:
        states = {}
        # The rest waits for the next round: writing thousands down would hold the event loop.
        for check_id in list(self._dirty)[:MOST_STATES]:
            del self._dirty[check_id]
            standing = self._board.find(check_id)
            if standing is not None:
                standing.vitals = self._vitals(standing.spec)
                states[check_id] = store.saved(standing)
        troubles = list(self._incidents.changed.values())
        batch = store.Batch(self._probes, states, troubles, self._answers)
        self._probes, self._answers = [], {}
        self._incidents.changed = {}
        return batch

    def _put_back(self, batch: store.Batch) -> None:
        self._probes = (batch.probes + self._probes)[-MOST_WAITING:]
        self._dirty = {**dict.fromkeys(batch.states), **self._dirty}
        self._answers = {**batch.answers, **self._answers}
        for trouble in batch.troubles:
            self._incidents.changed[id(trouble)] = trouble

    async def _tell(self, database: Database, now: int) -> None:
        """Tell what nobody else has told: the database decides, once for each incident and state."""
        for notice in self._told_from_memory:
            await self._claim(database, notice, now)
        self._told_from_memory.clear()
        if self._incidents.changed and self._notices:
            # A notice of what is not stored yet: its incident first.
            self.holder = (await self._lead(database, now)).held
        while self._notices and self.holder:
            notice, channels = self._notices[0], self._settings.channels
            leases = {
                channel.id: claims.name_of(notice.trouble.id or 0, notice.alert.state, channel)
                for channel in channels
                if served(channel, notice.alert)
            }
            mine = await self._claim(database, notice, now, leases.values())
            del self._notices[0]
            if mine:
                self._told_at = max(self._told_at, now)
                self._desk.deliver(notice.alert, channels, leases)
        await self._send_again(database, now)

    async def _claim(
        self, database: Database, notice: Notice, now: int, leases: Collection[str] = ()
    ) -> bool:
        """Whether it is for this process to tell; `leases`: of the channels that are to be told."""
        trouble, state = notice.trouble, notice.alert.state

        def work(session: Session) -> bool:
            mine = store.claim(session, trouble, state, now)
            if mine:
                claims.note(session, self._owner, now, leases)
            return mine

        return await database.write(work)

    async def _send_again(self, database: Database, now: int) -> None:
        """Send what was claimed, by this process or another one, and did not go out in its time."""
        unsent, self._unsent = self._unsent, []
        if not unsent:
            return
        ids = {claim.incident_id for claim in unsent}
        known = await database.read(lambda session: store.incidents_by_id(session, ids))
        channels = {channel.id: channel for channel in self._settings.channels if channel.enabled}
        for claim in unsent:
            incident, channel = known.get(claim.incident_id), channels.get(claim.channel_id)
            if incident is None or channel is None:
                self._desk.give_up(claim.name)  # nobody is to be told any more
            else:
                alert = alert_again(self._board, incident, claim.state, now)
                self._desk.send_again(alert, channel, claim.name)

    async def tell_from_memory(self) -> None:
        """The database is away: tell all the same, and note it there once it is back."""
        await self.judge(self._clock.now(), all_open=True)
        if self.holder:
            for notice in self._notices:
                self._desk.deliver(notice.alert, self._settings.channels)
            self._told_from_memory += self._notices
            self._notices.clear()

    async def _thin(self, database: Database) -> None:
        now = self._clock.monotonic()
        if self._thinned_at is None:
            self._thinned_at = now
        elif now - self._thinned_at >= THIN_EVERY:
            self._thinned_at = now
            await self._thin_now(database)

    async def _thin_now(self, database: Database) -> None:
        at = self._clock.now()

        def work(session: Session) -> None:
            history.thin(session, at)
            store.forget_old(session, at)

        await database.write(work)

    async def finish(self, database: Database) -> None:
        """Write what is left, and give the lease back."""
        self._probes += self._stretches.take()
        now = self._clock.now()
        if (await self._lead(database, now)).held:
            while self._dirty:
                await self._lead(database, now)
            await self._tell(database, now)
            await self._thin_now(database)
            await database.write(lambda session: store.release(session, self._owner))
        self.holder = False


T = TypeVar("T")


async def parts(found: Sequence[T], size: int) -> AsyncIterator[Sequence[T]]:
    """So many at a time, with a turn of the event loop between two parts."""
    for start in range(0, len(found), size):
        if start:
            await asyncio.sleep(0)
        yield found[start : start + size]


def _settings(session: Session) -> Settings:
    return Settings(store.rules(session), store.windows(session), store.channels(session))
