"""The part of the container that reaches beyond the agents' vendors: integrations and what they do."""

from __future__ import annotations

import socket
from functools import cached_property
from typing import TYPE_CHECKING

from services.clock import Clock
from services.events import EventBus
from services.options import ServiceOptions
from services.resilience import Policies
from services.storage import Reader

if TYPE_CHECKING:
    from services.calls.service import CallService
    from services.calls.telephony import TelephonyService
    from services.companies import CompanyService, ConnectionClients
    from services.demo import Demo
    from services.health.service import HealthService
    from services.integrations.bookings import BookingService
    from services.integrations.care import OrderCare
    from services.integrations.crm import CrmService
    from services.integrations.effects import Effects
    from services.integrations.knowledge import KnowledgeService
    from services.integrations.llm import Orchestrator
    from services.integrations.messages import MessageService
    from services.integrations.registry import IntegrationService
    from services.security import SecretStore
    from services.storage import Database


class OutsideServices:
    """Integrations and the services on top of them, each built when first asked for."""

    options: ServiceOptions
    policies: Policies
    bus: EventBus
    clock: Clock
    reader: Reader
    demo: Demo | None

    if TYPE_CHECKING:  # the container has them

        async def open_database(self) -> Database: ...
        async def open_secrets(self) -> SecretStore: ...
        @property
        def companies(self) -> CompanyService: ...
        @property
        def clients(self) -> ConnectionClients: ...
        @property
        def calls(self) -> CallService: ...
        @property
        def telephony(self) -> TelephonyService: ...

    @cached_property
    def integrations(self) -> IntegrationService:
        from services.integrations.adapters import adapters_of
        from services.integrations.registry import IntegrationService, Kind

        return IntegrationService(
            self.open_database,
            self.open_secrets,
            self.bus,
            self.clock,
            adapters=adapters_of(partners=self.options.partners_folder),
            gateways={kind: (gateway.url, gateway.key) for kind, gateway in self.options.gateways.items()},
            addresses=self.demo.partner_addresses if self.demo is not None else None,
            gone=self.policies.drop,
            probes={
                Kind.MESSAGES: lambda resolved: self.messages.probe(resolved),
                Kind.BOOKINGS: lambda resolved: self.bookings.probe(resolved),
                Kind.KNOWLEDGE: lambda resolved: self.knowledge.probe(resolved),
                Kind.CRM: lambda resolved: self.crm.probe(resolved),
                Kind.LLM: lambda resolved: self.orchestrator.probe(resolved),
            },
        )

    @cached_property
    def effects(self) -> Effects:
        from services.integrations.effects import Effects

        return Effects(self.open_database, self.clock)

    @cached_property
    def messages(self) -> MessageService:
        from services.integrations.messages import MessageService

        return MessageService(
            self.open_database,
            self.open_secrets,
            self.integrations,
            self.effects,
            self.policies,
            self.bus,
            self.clock,
            calls=lambda: self.calls,
            telephony=lambda: self.telephony,
            limiter=self.policies.limiter(),
            timeout=self.options.request_timeout_seconds,
            keep_days=self.options.messages_keep_days,
        )

    @cached_property
    def knowledge(self) -> KnowledgeService:
        from services.integrations.knowledge import KnowledgeService

        return KnowledgeService(
            self.open_database,
            self.integrations,
            self.policies,
            self.bus,
            self.clock,
            limiter=self.policies.limiter(),
        )

    @cached_property
    def bookings(self) -> BookingService:
        from services.integrations.bookings import BookingService, PartnerCatalogue

        return BookingService(
            self.open_database,
            self.integrations,
            self.effects,
            self.policies,
            self.bus,
            self.clock,
            partners=PartnerCatalogue(self.options.partners_folder),
            limiter=self.policies.limiter(),
            timeout=self.options.request_timeout_seconds,
        )

    @cached_property
    def crm(self) -> CrmService:
        from services.integrations.crm import CrmService

        return CrmService(
            self.integrations,
            self.effects,
            self.policies,
            self.clock,
            limiter=self.policies.limiter(),
            timeout=self.options.request_timeout_seconds,
        )

    @cached_property
    def order_care(self) -> OrderCare:
        from services.integrations.care import OrderCare

        return OrderCare(
            self.effects,
            {"booking": lambda: self.bookings.give_up(), "crm": lambda: self.crm.give_up()},
            timeout=self.options.request_timeout_seconds,
        )

    @cached_property
    def orchestrator(self) -> Orchestrator:
        from services.integrations.llm import Orchestrator

        return Orchestrator(
            self.open_database,
            self.integrations,
            self.policies,
            self.bus,
            self.clock,
            knowledge=lambda: self.knowledge,
            limiter=self.policies.limiter(),
            timezone=self.options.timezone,
            simulated=self.demo is not None,
        )

    @cached_property
    def health(self) -> HealthService:
        from services.health.alerts import AlertDesk
        from services.health.checks import CatalogOptions, StandardCatalog
        from services.health.service import HealthOptions, HealthService

        options = self.options
        catalog = StandardCatalog(
            self.open_database,
            self.open_secrets,
            self.reader,
            self.companies,
            self.clients,
            self.clock,
            CatalogOptions(
                database=options.database,
                data_folder=options.secrets_file.parent,
                interval_seconds=options.health_interval_seconds,
                failures=options.health_failures,
                stale_after_minutes=options.stale_after_minutes,
                scheduled=options.hourly_sync or options.daily_sync is not None,
                redis_url=options.redis_url,
                simulated=self.demo is not None,
            ),
            integrations=lambda: self.integrations,
        )
        desk = AlertDesk(
            self.open_database,
            self.open_secrets,
            self.policies,
            self.bus,
            self.clock,
            integrations=lambda: self.integrations,
        )
        return HealthService(
            self.open_database,
            catalog,
            self.policies,
            desk,
            self.bus,
            self.clock,
            HealthOptions(
                interval=options.health_interval_seconds,
                failures=options.health_failures,
                timezone=options.timezone,
                # A file is only ever on one machine.
                host="" if options.database.is_sqlite else socket.gethostname(),
            ),
        )

    async def close_outside(self) -> None:
        """Close those that were built, first what asks the others."""
        for name in ("order_care", "health", "orchestrator", "messages", "bookings", "crm", "knowledge"):
            if name in self.__dict__:
                await getattr(self, name).aclose()
