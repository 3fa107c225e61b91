"""Every service, wired once, each built when it is first asked for.

Screens and commands receive a `Services` and nothing else. Building it opens and imports nothing:
reading cards needs the standard library only, so the first frame does not wait for SQLModel, httpx,
the keyring or the scheduler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from services.agents import AgentService
from services.clock import Clock, SystemClock
from services.errors import ServiceError
from services.events import EventBus, PolicyChanged
from services.options import ConsoleOptions, ServiceOptions
from services.outside import OutsideServices
from services.resilience import Policies
from services.storage import Reader

if TYPE_CHECKING:
    from services.agents import SyncService
    from services.calls.service import CallService
    from services.calls.telephony import TelephonyService
    from services.companies import CompanyService, ConnectionClients
    from services.demo import Demo
    from services.resilience.shared import SharedStore
    from services.schedule import Scheduler
    from services.security import SecretStore
    from services.storage import Database


class Services(OutsideServices):
    """The services of one data folder (or of the demo) in one process and one event loop."""

    def __init__(
        self,
        options: ServiceOptions,
        *,
        settings: ConsoleOptions | None = None,
        demo: Demo | None = None,
        real: Callable[[], Services] | None = None,
        clock: Clock | None = None,
        on_first_use: Callable[[], None] | None = None,
        secrets: SecretStore | None = None,
    ) -> None:
        """`on_first_use` runs once, in a thread, before the database is opened: it sets up the log files.

        `real` is set in the demo: it opens the services of the configured data folder, where a first
        company is added.
        """
        self.options = options
        self.settings = settings or ConsoleOptions(stale_after=options.stale_after_minutes)
        self.demo = demo
        self.real = real
        self.clock: Clock = clock or SystemClock()
        self.bus = EventBus()
        self.reader = Reader(options.database)
        self.agents = AgentService(self.reader, self.clock)
        self.policies = Policies(
            self.clock,
            on_change=lambda name: self.bus.publish(PolicyChanged(name)),
            default_limits=options.limits,
            default_breaker=options.breaker,
            shared=_shared_store(options, self.clock),
        )
        self._on_first_use = on_first_use
        self._database: Database | None = None
        self._secrets = secrets
        self._opening = asyncio.Lock()
        self._opening_secrets = asyncio.Lock()

    async def open_database(self) -> Database:
        """The database, created or upgraded where needed. Raises ServiceError; may be asked again."""
        async with self._opening:
            if self._database is None:
                if self._on_first_use is not None:
                    await asyncio.to_thread(self._on_first_use)
                database_class = await asyncio.to_thread(_database_class)
                self._database = await database_class.open(self.options.database)
            return self._database

    async def open_secrets(self) -> SecretStore:
        """The secret store in force; one that needs a passphrase comes back locked."""
        if self.demo is not None:
            return self.demo.secrets
        async with self._opening_secrets:
            if self._secrets is None:
                from services.security import open_store

                self._secrets = await open_store(
                    self.options.secret_store,
                    file=self.options.secrets_file,
                    passphrase=self.options.passphrase,
                    service=self.options.secret_service,
                )
            return self._secrets

    def secrets_at_a_glance(self) -> tuple[str, bool] | None:
        """The label of the secret store and whether it is locked, as `open_secrets` will find them.

        None where only opening it can tell. Reads a file: call it in a thread.
        """
        if self.demo is not None:
            return self.demo.secrets.label, self.demo.secrets.locked
        if self._secrets is not None:
            return self._secrets.label, self._secrets.locked
        from services.security import store_at_a_glance

        return store_at_a_glance(
            self.options.secret_store,
            file=self.options.secrets_file,
            passphrase=bool(self.options.passphrase),
            service=self.options.secret_service,
        )

    def next_sync_at_a_glance(self) -> int | None:
        """When the next scheduled sync is due, as the schedule will say once it runs; None without one.

        The first call imports the cron arithmetic: call it in a thread.
        """
        from services.schedule import schedules, soonest_due

        try:
            among = schedules(
                self.options.timezone, hourly=self.options.hourly_sync, daily=self.options.daily_sync
            )
        except ServiceError:
            return None  # a wrong time zone is told when the schedule starts
        return soonest_due(among, self.clock.now())

    @property
    def demo_control(self) -> Demo:
        """The demo's fault switch. Raises ServiceError outside of the demo."""
        if self.demo is None:
            raise ServiceError(
                "This is not the demo", advice="open it with: callboard --demo", code="not_demo"
            )
        return self.demo

    @property
    def secrets_label(self) -> str:
        """Which secret store is in use, for the status line; empty until it was opened."""
        if self.demo is not None:
            return "demo keys"
        return self._secrets.label if self._secrets is not None else ""

    @cached_property
    def clients(self) -> ConnectionClients:
        from services.companies import ConnectionClients
        from services.companies.clients import ClientOptions

        return ConnectionClients(
            self.open_secrets,
            self.clock,
            ClientOptions(
                concurrency=self.options.concurrency,
                timeout=self.options.request_timeout_seconds,
                list_cache=self.options.list_cache_seconds,
                metrics_cache=self.options.metrics_cache_seconds,
            ),
            self.policies,
            self.demo.addresses if self.demo is not None else None,
        )

    @cached_property
    def companies(self) -> CompanyService:
        from services.companies import CompanyService
        from services.companies.service import actor
        from services.health.leaving import forget_company

        async def forget(company: str) -> None:
            await self.calls.delete_company(company)
            await self.telephony.forget(company)
            await self.integrations.forget(company)
            await forget_company(self.open_database, self.clock, company, actor())

        return CompanyService(
            self.open_database,
            self.open_secrets,
            self.clients,
            self.bus,
            self.clock,
            before_remove=forget,
        )

    @cached_property
    def sync(self) -> SyncService:
        from services.agents import SyncService

        return SyncService(
            self.open_database,
            self.companies,
            self.clients,
            self.bus,
            self.clock,
            stale_after_ms=self.options.stale_after_minutes * 60_000,
        )

    @cached_property
    def telephony(self) -> TelephonyService:
        from services.calls.telephony import TelephonyService

        standing = self.demo.twilio_account if self.demo is not None else None
        return TelephonyService(
            self.open_database, self.open_secrets, self.bus, self.clock, standing, self.policies
        )

    @cached_property
    def calls(self) -> CallService:
        from services.calls.history import CallOptions
        from services.calls.service import CallService

        options = self.options
        return CallService(
            self.open_database,
            self.reader,
            self.agents,
            self.companies,
            self.clients,
            lambda: self.telephony,
            self.bus,
            self.clock,
            CallOptions(
                folder=options.calls_folder or options.secrets_file.parent / "calls",
                keep_days=options.calls_keep_days,
                input_device=options.input_device,
                output_device=options.output_device,
                echo=options.echo_cancellation,
                client_tools=options.client_tools,
            ),
        )

    @cached_property
    def schedule(self) -> Scheduler:
        from services.schedule import Scheduler, SchedulerOptions

        return Scheduler(
            self.open_database,
            self.sync,
            self.bus,
            self.clock,
            SchedulerOptions(
                timezone=self.options.timezone,
                hourly=self.options.hourly_sync,
                daily=self.options.daily_sync,
            ),
        )

    @property
    def stale_after_ms(self) -> int:
        """How old a check may be, in milliseconds, before an agent counts as stale."""
        return self.options.stale_after_minutes * 60_000

    async def warm(self) -> None:
        """Import and open, off the loop, what the first key press will need. Raises ServiceError."""
        await asyncio.to_thread(_import_heavy)
        await self.open_database()
        if self.demo is not None and await self.demo.prepare(self.companies, self.integrations):
            from services.agents import SyncRequest

            self.sync.start(SyncRequest(cause="first look"))

    async def start_background(self) -> None:
        """Start what works by itself: the schedule, the checks, the care for calls and messages."""
        await self.schedule.start()
        await self.calls.start_care()
        await self.messages.start()
        self.order_care.start()
        if self.options.health:
            await self.health.start()

    async def aclose(self) -> None:
        """Stop and close everything that was opened, in the order of dependence."""
        built = self.__dict__
        if "schedule" in built:
            await self.schedule.aclose()
        await self.close_outside()
        if "calls" in built:
            await self.calls.aclose()
        if "sync" in built:
            await self.sync.aclose()
        if "clients" in built:
            await self.clients.aclose()
        if self._database is not None:
            await self._database.aclose()
            self._database = None
        await self.policies.aclose()
        self.reader.close()
        if self.demo is not None:
            await self.demo.aclose()


def _shared_store(options: ServiceOptions, clock: Clock) -> SharedStore | None:
    if not options.redis_url:
        return None
    from services.resilience.shared import SharedStore

    return SharedStore(options.redis_url, clock)


def _database_class() -> type[Database]:
    from services.storage import Database

    return Database


def _import_heavy() -> None:
    """Load the libraries of a sync, so that the first `s` does not wait for them."""
    import services.agents.sync
    import services.calls.service
    import services.companies.service
    import services.health.service
    import services.integrations.messages.service
    import services.schedule
    import services.security.opening  # noqa: F401
