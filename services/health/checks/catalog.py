"""What is to be watched, as the database and the settings have it now."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from services.clock import Clock
from services.health.checks import connections, integrations, system
from services.health.checks.agents import AgentRounds
from services.health.checks.connections import DATABASE, SECRETS
from services.health.checks.endpoints import Endpoints
from services.health.checks.network import NETWORK, NetworkProbe, leaves
from services.health.checks.references import References
from services.health.checks.releases import Releases
from services.health.model import CheckKind, CheckSpec, Local, Reading
from services.health.plan import Plan
from services.health.reach import Host
from services.http.addresses import is_loopback
from services.integrations.model import IntegrationInfo
from services.model import ConnectionInfo
from services.providers import VENDOR_NAMES
from services.storage import DatabaseLocation, Reader

if TYPE_CHECKING:
    from services.companies import CompanyService, ConnectionClients
    from services.integrations.registry import IntegrationService
    from services.security import SecretStore
    from services.storage import Database

MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """What the settings say; times in the unit their name says."""

    database: DatabaseLocation
    data_folder: Path
    interval_seconds: float = 30.0
    failures: int = 2
    slow_ms: float | None = 3000.0
    """From this response time on a vendor or an integration counts as degraded."""
    stale_after_minutes: int = 60
    scheduled: bool = True
    """Whether any sync is done by the clock."""
    redis_url: str | None = field(default=None, repr=False)
    simulated: bool = False
    """Whether the vendors are simulated on this machine (the demo): its own addresses may then be tried."""


class StandardCatalog:
    """Every connection, agent, integration, and what the program itself stands on."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        open_secrets: Callable[[], Awaitable[SecretStore]],
        reader: Reader,
        companies: CompanyService,
        clients: ConnectionClients,
        clock: Clock,
        options: CatalogOptions,
        *,
        integrations: Callable[[], IntegrationService] | None = None,
        checks: Mapping[str, integrations.Check] | None = None,
        audio: bool = True,
    ) -> None:
        """`checks`: by adapter, for integrations whose test alone says too little."""
        self._open_database = open_database
        self._open_secrets = open_secrets
        self._companies = companies
        self._clients = clients
        self._clock = clock
        self._options = options
        self._integrations = integrations
        self._checks = dict(checks or {})
        self._audio = audio
        self._accounts = connections.Accounts(clock)
        self._endpoints = Endpoints(clock, local=options.simulated)
        # Apart, so that a look at one integration does not forget the hosts of all agents.
        self._addresses = Endpoints(clock, local=True)
        self._agents = AgentRounds(
            reader,
            companies.connections,
            self._endpoints,
            References(clients, clock),
            Releases(clients, clock),
            clock,
            interval=max(MINUTE, options.interval_seconds),
            failures=options.failures,
            stale_after_ms=options.stale_after_minutes * 60_000,
            simulated=self._is_simulated,
        )

    async def build(self) -> Plan:
        """Raises ServiceError when the database cannot be read."""
        found = await self._companies.connections()
        specs = [self._connection(connection) for connection in found]
        specs += await self._agents.specs()
        if self._integrations is not None:
            infos = await self._integrations().list()
            specs += [self._integration(info) for info in infos if info.enabled]
        specs.append(
            self._system("orchestrator", CheckKind.ORCHESTRATOR, self._orchestrator, depends_on=(DATABASE,))
        )
        specs += self._of_system(found)
        if any(NETWORK in spec.depends_on for spec in specs):
            probe = NetworkProbe(self._addresses_away, os.environ)
            system_check = partial(self._system, kind=CheckKind.SYSTEM, interval=MINUTE, critical=True)
            specs.append(system_check("network", probe=probe, local=Local.MACHINE))
        return Plan(specs, (self._agents.group(),))

    def _connection(self, connection: ConnectionInfo) -> CheckSpec:
        options = self._options
        away = () if self._is_simulated(connection) else self._network
        return connections.spec_of(
            connection,
            self._clients,
            self._accounts,
            self._clock,
            interval=options.interval_seconds,
            failures=options.failures,
            slow_ms=options.slow_ms,
            simulated=self._is_simulated,
            depends_on=(SECRETS, *away),
        )

    def _integration(self, info: IntegrationInfo) -> CheckSpec:
        assert self._integrations is not None  # noqa: S101  # asked by the caller
        options = self._options
        return integrations.spec_of(
            info,
            self._integrations,
            self._addresses,
            self._clock,
            interval=options.interval_seconds,
            failures=options.failures,
            slow_ms=options.slow_ms,
            checks=self._checks,
            simulated=options.simulated and info.id is not None,
            depends_on=(DATABASE, SECRETS, *(self._network if leaves(info.base_url) else ())),
        )

    @property
    def _network(self) -> tuple[str, ...]:
        return () if self._options.simulated else (NETWORK,)

    def _of_system(self, found: Sequence[ConnectionInfo]) -> list[CheckSpec]:
        options, clock = self._options, self._clock
        system_check = partial(self._system, kind=CheckKind.SYSTEM)
        machine_check = partial(system_check, local=Local.MACHINE)
        database = system.DatabaseProbe(self._open_database, options.database, clock)
        secrets = system.SecretsProbe(self._open_secrets, clock, self._needs_keys)
        checks = [
            system_check("database", probe=database, critical=True, slow_ms=1000.0),
            system_check("secrets", probe=secrets, critical=True, name="secret store", local=Local.PROCESS),
            machine_check("disk", probe=system.DiskProbe(options.data_folder), interval=MINUTE),
        ]
        if options.scheduled and found:
            lease = system.LeaseProbe(self._open_database, clock)
            checks.append(system_check("schedule", probe=lease, depends_on=(DATABASE,)))
        if options.redis_url:
            redis = system.RedisProbe(options.redis_url, clock)
            checks.append(system_check("redis", probe=redis, name="Redis"))
        if not all(self._is_simulated(connection) for connection in found):
            probe = system.ClockProbe(self._hosts, clock)
            checks.append(machine_check("clock", probe=probe, interval=15 * MINUTE, failure_threshold=1))
        if self._audio:
            checks.append(machine_check("audio", probe=system.AudioProbe(), interval=10 * MINUTE))
        return checks

    def _system(
        self,
        word: str,
        kind: CheckKind,
        probe: Callable[[], Awaitable[Reading]],
        *,
        name: str = "",
        interval: float = 0.0,
        critical: bool = False,
        slow_ms: float | None = None,
        failure_threshold: int = 0,
        depends_on: tuple[str, ...] = (),
        local: Local | None = None,
    ) -> CheckSpec:
        return CheckSpec(
            id=f"{kind.value}:{word}" if kind is CheckKind.SYSTEM else word,
            kind=kind,
            name=name or word,
            probe=probe,
            interval=max(interval, self._options.interval_seconds),
            timeout=15.0,
            failure_threshold=failure_threshold or self._options.failures,
            slow_ms=slow_ms,
            depends_on=depends_on,
            critical=critical,
            local=local,
        )

    async def _orchestrator(self) -> Reading:
        return await system.OrchestratorProbe(self._open_database, self._clock)()

    async def _needs_keys(self) -> bool:
        return bool(await self._companies.connections())

    async def _hosts(self) -> Sequence[Host]:
        """The vendors' hosts; a simulator on this machine has this machine's clock."""
        found = {
            connection.base_url: Host(VENDOR_NAMES[connection.provider], connection.base_url, used=True)
            for connection in await self._companies.connections()
            if not self._is_simulated(connection)
        }
        return list(found.values())

    async def _addresses_away(self) -> Sequence[str]:
        """Of everything watched that is not on this machine, as far as it has an address of its own."""
        found = [each.base_url for each in await self._companies.connections()]
        if self._integrations is not None:
            found += [info.base_url for info in await self._integrations().list() if info.enabled]
        return [url for url in found if url]

    def _is_simulated(self, connection: ConnectionInfo) -> bool:
        if self._options.simulated:
            return True
        # Neither vendor runs on anybody's own machine: what does is the simulator.
        return is_loopback(urlsplit(connection.base_url).hostname or "")
