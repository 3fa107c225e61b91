"""Sync: list, decide, read what must be read, write each agent as it arrives, report every outcome.

A run is one owned task; connections are worked on side by side, one agent's failure touches no other.
Whatever ends a run — the work done, a cancel, a failure, a kill — every agent is left either as it was
or as it is now, and `syncing` exists only in memory.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from sqlmodel import Session

from services.agents import runs
from services.agents.mirror import (
    Prepared,
    Writer,
    load_mirrored,
    prepare,
    store_checked,
    store_connection_failure,
    store_failure,
    store_gone,
    store_reading,
    store_same,
)
from services.agents.outcomes import first_failure, log_failure, planned, predicted, status_of
from services.agents.plan import Action, Rules, Step, Verdict, certain_reads, plan
from services.agents.progress import LiveSync
from services.agents.request import SyncRequest
from services.agents.sources import Reading, Source, source_of
from services.clock import Clock
from services.companies import CompanyService, ConnectionClients
from services.companies.clients import Client
from services.companies.service import actor
from services.errors import ServiceError, UsageError
from services.events import (
    AgentReading,
    AgentsChanged,
    AgentSettled,
    Event,
    EventBus,
    SyncFinished,
    SyncPlanned,
    SyncStarted,
)
from services.memory import give_back
from services.model import ConnectionInfo, ErrorInfo, Outcome, OutcomeRow, SyncReport
from services.storage import Database

log = logging.getLogger("callboard.sync")

HEARTBEAT = 5.0
"""Seconds between two signs of life of a run."""

AT_ONCE = 50
"""Outcomes told before the event loop gets its turn: telling a thousand would hold it for too long."""

MANY = 200
"""Agents in a run from which on its memory is given back to the system afterwards."""

PIPELINE = 2
"""Readers per allowed request: while one stores what it read, another uses its place at the vendor."""


@dataclass(slots=True)
class _Run:
    """One run in memory."""

    id: str
    request: SyncRequest
    started_at: int
    started: float
    live: LiveSync
    settled_since: int | None = None
    cancelled: bool = False
    work: asyncio.Task[None] | None = None
    outcomes: list[OutcomeRow] = field(default_factory=list)
    errors: list[OutcomeRow] = field(default_factory=list)
    clients: dict[int, tuple[Client, int]] = field(default_factory=dict)
    """Clients in use, with their request count when the run took them."""
    matched: bool = False
    open: dict[tuple[int, str], OutcomeRow] = field(default_factory=dict)
    """What is planned and not settled, as the outcome it gets when the run is cancelled."""


class SyncService:
    """Starts, cancels and reports runs. One run works at a time in a process; others wait their turn."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        companies: CompanyService,
        clients: ConnectionClients,
        bus: EventBus,
        clock: Clock,
        *,
        stale_after_ms: int = 3_600_000,
        new_id: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        self._open_database = open_database
        self._companies = companies
        self._clients = clients
        self._bus = bus
        self._clock = clock
        self._stale_after_ms = stale_after_ms
        self._new_id = new_id
        # One thread: several would take the interpreter lock from the loop and send requests late.
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="callboard-digest")
        self._turn = asyncio.Lock()
        self._runs: dict[str, tuple[_Run, asyncio.Task[SyncReport]]] = {}
        self.active: LiveSync | None = None
        """The run that works now, or the last one that did."""

    def start(self, request: SyncRequest) -> str:
        """Begin a run and return its id; events on the bus tell how it goes.

        A failure of the whole run is told by `SyncFinished` (status and message), not raised here.
        """
        run_id, task = self._begin(request)
        task.add_done_callback(_consume)
        return run_id

    async def run(self, request: SyncRequest) -> SyncReport:
        """Run to the end. Raises UsageError for an unknown company or agent, ServiceError when the
        database or the secret store fails; failures at a vendor are part of the report."""
        run_id, task = self._begin(request)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.cancel(run_id)
            await asyncio.wait({task})
            raise

    def cancel(self, run_id: str | None = None) -> bool:
        """Stop a run (all, without an id): what is settled stays. Says whether there was one."""
        found = [run for run, _ in self._runs.values() if run_id is None or run.id == run_id]
        for run in found:
            run.cancelled = True
            if run.work is not None:
                run.work.cancel()
        return bool(found)

    @property
    def waiting(self) -> int:
        """Runs that wait for the working one to end."""
        return max(0, len(self._runs) - 1)

    async def aclose(self) -> None:
        """Cancel what runs and wait until it is recorded."""
        self.cancel()
        tasks = [task for _, task in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks)
        self._preparing.shutdown(wait=False)

    # -- one run ------------------------------------------------------------------------------------

    def _begin(self, request: SyncRequest) -> tuple[str, asyncio.Task[SyncReport]]:
        run_id = self._new_id()
        request = replace(request, actor=request.actor or actor())
        live = LiveSync(run_id, scope=request.scope, cause=request.cause, forced=request.force)
        run = _Run(run_id, request, self._clock.now(), self._clock.monotonic(), live)
        task = asyncio.create_task(self._drive(run), name=f"sync {run_id}")
        self._runs[run_id] = (run, task)
        return run_id, task

    async def _drive(self, run: _Run) -> SyncReport:
        failure: Exception | None = None
        try:
            async with self._turn:
                run.started_at, run.started = self._clock.now(), self._clock.monotonic()
                self.active = run.live
                self._tell(run, SyncStarted(run.id, run.request.scope, run.request.cause, run.request.force))
                run.work = asyncio.create_task(self._work(run), name=f"sync {run.id}, work")
                if run.cancelled:
                    run.work.cancel()
                await asyncio.wait({run.work})
                if not run.work.cancelled():
                    failure = first_failure(run.work.exception())
                report = await self._finish(run, failure)
        finally:
            self._runs.pop(run.id, None)
        self._tell(run, SyncFinished(run.id, report))
        if failure is not None:
            raise failure
        return report

    async def _work(self, run: _Run) -> None:
        database = await self._open_database()
        if run.request.resume is not None:
            earlier = await database.read(lambda session: runs.resumable(session, run.request.resume or ""))
            run.settled_since = earlier.settled_since
            run.request = earlier.request
        connections = await self._companies.connections(run.request.company)
        if not connections:
            owner = run.request.company
            raise UsageError(
                f"{owner} has no connection to a vendor yet" if owner else "No company has a connection yet",
                advice="add one: callboard connection add COMPANY VENDOR",
                code="no_connections",
            )
        scope = await database.read(lambda session: runs.scope_of(session, run.request, connections))
        now = self._clock.now()
        if not run.request.dry_run:
            await database.write(
                lambda session: runs.begin(session, run.id, run.request, run.started_at, now)
            )
        async with asyncio.TaskGroup() as group:
            heartbeat = group.create_task(self._beat(run, database))
            async with asyncio.TaskGroup() as inner:
                for connection in connections:
                    only = scope.get(connection.id) if scope is not None else None
                    if scope is None or only is not None:
                        inner.create_task(self._connection(run, database, connection, only))
            heartbeat.cancel()
        if scope is not None and not run.matched and not run.errors:
            raise UsageError(
                f"There is no agent {run.request.agent or run.request.scope!r}",
                advice="list them: callboard agents list",
                code="no_agent",
            )

    async def _beat(self, run: _Run, database: Database) -> None:
        while not run.request.dry_run:
            await asyncio.sleep(HEARTBEAT)
            await database.write(lambda session: runs.beat(session, run.id, self._clock.now()))

    async def _finish(self, run: _Run, failure: Exception | None) -> SyncReport:
        for row in run.open.values():
            self._settle(run, row, key=None)
        run.open.clear()
        cancelled = run.work is not None and run.work.cancelled()
        requests = 0
        for client, before in run.clients.values():
            client.drop_caches()
            requests += client.stats.requests - before
        report = SyncReport(
            run_id=run.id,
            status=status_of(run.outcomes, run.errors, cancelled=cancelled, failed=failure is not None),
            outcomes=tuple(
                sorted(run.outcomes, key=lambda row: (row.company.lower(), row.name.lower(), row.agent_id))
            ),
            errors=tuple(run.errors),
            requests=requests,
            duration_ms=round((self._clock.monotonic() - run.started) * 1000),
            started_at=run.started_at,
            dry_run=run.request.dry_run,
        )
        message = "; ".join(row.error.message for row in run.errors if row.error)
        causes = {row.error.message for row in run.outcomes if row.error}
        if not message and len(causes) == 1:
            message = causes.pop()
        if failure is not None:
            message = (
                failure.message if isinstance(failure, ServiceError) else "An unexpected failure, see the log"
            )
            log.error("run %s failed: %s", run.id, message, exc_info=failure)
        run.live.message = message
        if not run.request.dry_run:
            await self._record_end(run, report, message)
        if len(run.outcomes) >= MANY:
            await asyncio.to_thread(give_back)
        return report

    async def _record_end(self, run: _Run, report: SyncReport, message: str) -> None:
        now = self._clock.now()
        try:
            database = await self._open_database()
            await database.write(lambda session: runs.end(session, report, message, now))
        except ServiceError as error:
            # The report still reaches the operator; the row is found interrupted by the next run.
            log.exception("run %s could not be recorded: %s", run.id, error.message)

    # -- one connection -----------------------------------------------------------------------------

    async def _connection(
        self, run: _Run, database: Database, connection: ConnectionInfo, only: frozenset[str] | None
    ) -> None:
        source: Source | None = None
        try:
            mirrored = await database.read(lambda session: load_mirrored(session, connection.id))
            try:
                client = await self._clients.client(connection)
                run.clients[connection.id] = (client, client.stats.requests)
                source = source_of(client, fresh=run.request.force)
                if not run.request.dry_run:
                    source.expect(certain_reads(mirrored, self._rules(run), only))
                listed = await source.list_agents()
            except Exception as error:
                in_scope = [agent for agent in mirrored.values() if only is None or agent.remote_id in only]
                known = (
                    error if isinstance(error, ServiceError) else self._unexpected(connection, "its lists")
                )
                await self._connection_failed(run, database, connection, in_scope, known)
                return
            rules = self._rules(run)
            verdicts: dict[str, Verdict] = {
                remote_id: source.verdict(agent)
                for remote_id, agent in mirrored.items()
                if remote_id in listed
            }
            steps = plan(listed, mirrored, verdicts, rules, only)
            run.matched = run.matched or bool(steps)
            await self._carry_out(run, database, connection, source, client, steps)
            if not run.request.dry_run and only is None:
                at = self._clock.now()
                await database.write(lambda session: runs.listed(session, connection.id, at))
        finally:
            if source is not None:
                await source.aclose()

    async def _carry_out(
        self,
        run: _Run,
        database: Database,
        connection: ConnectionInfo,
        source: Source,
        client: Client,
        steps: Sequence[Step],
    ) -> None:
        to_read = [step for step in steps if step.action is Action.READ]
        for step in steps:
            run.open[connection.id, step.remote_id] = planned(connection, step, Outcome.CANCELLED)
        known = tuple(step.mirrored.id for step in to_read if step.mirrored is not None)
        self._tell(run, SyncPlanned(run.id, connection.id, len(steps), len(to_read), known))
        if run.request.dry_run:
            for step in steps:
                self._settle(run, predicted(connection, step), key=(connection.id, step.remote_id))
            return
        await self._settle_unread(run, database, connection, steps)
        waiting = iter(to_read)
        readers = min(len(to_read), client.stats.limit * PIPELINE)

        async def reader() -> None:
            for step in waiting:
                await self._agent(run, database, connection, source, step)

        async with asyncio.TaskGroup() as group:
            for _ in range(readers):
                group.create_task(reader())

    async def _settle_unread(
        self, run: _Run, database: Database, connection: ConnectionInfo, steps: Sequence[Step]
    ) -> None:
        """Everything that needs no detail: agents the list proves right, fresh ones, and those gone."""
        writer = self._writer(run, connection)
        verified = [step for step in steps if step.action is Action.VERIFIED]
        fresh = [step for step in steps if step.action is Action.FRESH]
        failed_before = [
            step.mirrored.id for step in fresh if step.mirrored and step.mirrored.status.value == "error"
        ]
        ids = [step.mirrored.id for step in verified if step.mirrored]
        if ids or failed_before:
            await database.write(lambda session: store_checked(session, ids, failed_before, writer.at))
        for number, step in enumerate((*verified, *fresh)):
            row = planned(connection, step, Outcome.UNCHANGED)
            self._settle(run, row, key=(connection.id, step.remote_id))
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        for step in steps:
            if step.action is Action.GONE:
                await self._gone(run, database, writer, step)
        if verified or failed_before:
            self._bus.publish(AgentsChanged(tuple(ids + failed_before)))

    async def _agent(
        self, run: _Run, database: Database, connection: ConnectionInfo, source: Source, step: Step
    ) -> None:
        """Read one agent and store it. Only a failing database ends more than this agent."""
        if step.mirrored is not None:
            self._tell(run, AgentReading(run.id, step.mirrored.id))
        try:
            reading = await source.read(step.remote_id)
            same = step.mirrored is not None and reading.same_as(step.mirrored.marker)
            prepared = None if same else await self._prepared(connection, reading)
        except ServiceError as error:
            await self._agent_failed(run, database, connection, step, error)
            return
        except Exception:
            unexpected = self._unexpected(connection, f"agent {step.remote_id}")
            await self._agent_failed(run, database, connection, step, unexpected)
            return
        writer = self._writer(run, connection)
        if prepared is None:
            if await self._store(
                run, database, writer, lambda session: store_same(session, writer, step, reading)
            ):
                return
            prepared = await self._prepared(connection, reading)  # another process wrote meanwhile
        ready = prepared
        await self._store(
            run, database, writer, lambda session: [store_reading(session, writer, step, ready)]
        )

    async def _prepared(self, connection: ConnectionInfo, reading: Reading) -> Prepared:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._preparing, prepare, connection.provider, reading)

    async def _agent_failed(
        self, run: _Run, database: Database, connection: ConnectionInfo, step: Step, error: ServiceError
    ) -> None:
        writer = self._writer(run, connection)
        if error.code == "not_found" and step.mirrored is not None:
            await self._gone(run, database, writer, step)
            return
        log_failure(run.id, connection, step.remote_id, error)
        info = ErrorInfo(error.category.value, error.message, error.advice)
        await self._store(run, database, writer, lambda session: [store_failure(session, writer, step, info)])

    async def _gone(self, run: _Run, database: Database, writer: Writer, step: Step) -> None:
        await self._store(run, database, writer, lambda session: [store_gone(session, writer, step)])

    async def _store(
        self, run: _Run, database: Database, writer: Writer, work: Callable[[Session], list[OutcomeRow]]
    ) -> list[OutcomeRow]:
        """Write and settle what was written. A cancel in between waits: what is stored is told as stored."""
        write = asyncio.ensure_future(database.write(work))
        try:
            return await asyncio.shield(write)
        finally:
            if not write.done():
                await asyncio.wait({write})
            if not write.cancelled() and write.exception() is None:
                for row in write.result():
                    self._settle(run, row, key=(writer.connection.id, row.agent_id))

    async def _connection_failed(
        self,
        run: _Run,
        database: Database,
        connection: ConnectionInfo,
        mirrored: Sequence[runs.Mirrored],
        error: ServiceError,
    ) -> None:
        log_failure(run.id, connection, "", error)
        info = ErrorInfo(error.category.value, error.message, error.advice)
        run.errors.append(
            OutcomeRow(
                connection.company, connection.provider, "", "", Outcome.FAILED, info, at=self._clock.now()
            )
        )
        alive = [agent for agent in mirrored if agent.gone_at is None]
        self._tell(run, SyncPlanned(run.id, connection.id, len(alive), 0, ()))
        run.matched = run.matched or bool(alive)
        if run.request.dry_run:
            return
        writer = self._writer(run, connection)

        def write(session: Session) -> list[OutcomeRow]:
            return store_connection_failure(session, writer, alive, info)

        await self._store(run, database, writer, write)

    # -- small parts --------------------------------------------------------------------------------

    def _writer(self, run: _Run, connection: ConnectionInfo) -> Writer:
        return Writer(run.id, connection, self._clock.now(), run.request.actor, run.request.cause)

    def _rules(self, run: _Run) -> Rules:
        return Rules(
            now=self._clock.now(),
            stale_after_ms=self._stale_after_ms,
            force=run.request.force,
            settled_since=run.settled_since,
        )

    def _unexpected(self, connection: ConnectionInfo, what: str) -> ServiceError:
        """While an exception nobody foresaw is handled: the log has it whole, the operator a sentence."""
        log.exception("%s, %s: reading %s", connection.company, connection.provider, what)
        return ServiceError(
            f"Reading {what} failed in a way Callboard does not know",
            advice="see the sync log for the details, and report them",
            code="unexpected",
        )

    def _settle(self, run: _Run, row: OutcomeRow, key: tuple[int, str] | None) -> None:
        if key is not None:
            run.open.pop(key, None)
        run.outcomes.append(row)
        self._tell(run, AgentSettled(run.id, row))
        if row.agent_row is not None and row.outcome not in (Outcome.UNCHANGED, Outcome.CANCELLED):
            self._bus.publish(AgentsChanged((row.agent_row,)))

    def _tell(self, run: _Run, event: Event) -> None:
        run.live.apply(event)
        self._bus.publish(event)


def _consume(task: asyncio.Task[SyncReport]) -> None:
    """Take the exception of a run nobody waits for; it was logged and told by `SyncFinished`."""
    if not task.cancelled():
        task.exception()
