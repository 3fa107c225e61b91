"""The part of the container that reaches beyond the agents' vendors: integrations and what they do."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from services.clock import Clock
from services.events import EventBus
from services.options import ServiceOptions
from services.resilience import Policies

if TYPE_CHECKING:
    from services.calls.service import CallService
    from services.calls.telephony import TelephonyService
    from services.demo import Demo
    from services.integrations.effects import Effects
    from services.integrations.knowledge import KnowledgeService
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
    demo: Demo | None

    if TYPE_CHECKING:  # the container has them

        async def open_database(self) -> Database: ...
        async def open_secrets(self) -> SecretStore: ...
        @property
        def calls(self) -> CallService: ...
        @property
        def telephony(self) -> TelephonyService: ...

    @cached_property
    def integrations(self) -> IntegrationService:
        from services.integrations.adapters import adapters_of
        from services.integrations.registry import IntegrationService

        return IntegrationService(
            self.open_database,
            self.open_secrets,
            self.bus,
            self.clock,
            adapters=adapters_of(partners=self.options.partners_folder),
            gateways={kind: (gateway.url, gateway.key) for kind, gateway in self.options.gateways.items()},
            addresses=self.demo.partner_addresses if self.demo is not None else None,
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

    async def close_outside(self) -> None:
        """Close those that were built."""
        for name in ("messages", "knowledge"):
            if name in self.__dict__:
                await getattr(self, name).aclose()
