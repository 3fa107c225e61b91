"""How a partner is reached now: directly, through a gateway, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from services.clock import Clock
from services.errors import UsageError
from services.integrations.bookings import simulated
from services.integrations.bookings.adapters import GATEWAY
from services.integrations.bookings.catalogue import PartnerCatalogue
from services.integrations.bookings.direct import DirectPartner
from services.integrations.bookings.gateway import Gateway
from services.integrations.bookings.model import Route
from services.integrations.kept import KeptClients
from services.integrations.model import SIMULATED, Kind, Resolved
from services.integrations.registry import IntegrationService
from services.resilience import Policies, Policy, RateLimiter
from services.text import clean_line


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a partner; `direct` or `gateway` is set unless it is simulated.

    `integration`: the name of the stored integration it is, and its number; empty for the environment's or
    none.
    """

    route: Route
    zone: ZoneInfo
    integration: str = ""
    integration_id: int | None = None
    direct: DirectPartner | None = None
    gateway: Gateway | None = None
    policy: Policy | None = None
    """What requests on this way go through; None where it is simulated."""
    pretended: bool = False
    """Whether the partner that answers is a simulator on this machine."""

    @property
    def simulated(self) -> bool:
        """Whether nothing is really booked."""
        return self.route is Route.SIMULATION or self.pretended


class Ways:
    """Finds the way and keeps the clients. Belongs to one event loop; `aclose` ends it."""

    def __init__(
        self,
        integrations: IntegrationService,
        policies: Policies,
        clock: Clock,
        catalogue: PartnerCatalogue,
        *,
        limiter: RateLimiter | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._integrations = integrations
        self._policies = policies
        self._clock = clock
        self._catalogue = catalogue
        self._limiter = limiter
        self._timeout = timeout
        self._clients: KeptClients[DirectPartner | Gateway] = KeptClients()

    async def to(self, company: str, partner: str, integration: str = "") -> tuple[int, Way]:
        """The company's id and its way to a partner. Raises UsageError, ServiceError."""
        company_id = await self._integrations.company_id(company)
        if integration:
            found = await self._integrations.resolve(Kind.BOOKINGS, company_id, name=integration)
            if found.info.adapter not in (partner, GATEWAY):
                raise UsageError(
                    f"The integration {found.info.name} is not for {clean_line(partner)}",
                    advice="list them with: callboard integration list",
                    code="other_partner",
                )
        else:
            found = await self._integrations.resolve(Kind.BOOKINGS, company_id, adapter=partner)
            if found.info.adapter != partner:
                found = await self._integrations.resolve(Kind.BOOKINGS, company_id, adapter=GATEWAY)
        if found.info.adapter == SIMULATED:
            await asyncio.to_thread(self._catalogue.require, partner)
            return company_id, Way(Route.SIMULATION, simulated.ZONE)
        client = await self.client(found)
        name = found.info.name if found.info.id is not None else ""
        policy = self._policy(found)
        if isinstance(client, Gateway):
            return company_id, Way(
                Route.GATEWAY, client.zone, name, found.info.id, gateway=client, policy=policy
            )
        return company_id, Way(
            Route.DIRECT,
            client.zone,
            name,
            found.info.id,
            direct=client,
            policy=policy,
            pretended=found.pretended,
        )

    async def client(self, resolved: Resolved) -> DirectPartner | Gateway:
        """The client of an integration; another one once its address, settings or secret changed."""
        partner = None
        if resolved.info.adapter != GATEWAY:
            partner = await asyncio.to_thread(self._catalogue.require, resolved.info.adapter)

        def make() -> DirectPartner | Gateway:
            policy = self._policy(resolved)
            if partner is None:
                return Gateway(resolved, policy, self._clock, timeout=self._timeout)
            return DirectPartner(partner, resolved, policy, self._clock, timeout=self._timeout)

        return self._clients.of(resolved, make)

    def _policy(self, resolved: Resolved) -> Policy:
        return self._policies.of(resolved.info.policy, limiter=self._limiter)

    async def aclose(self) -> None:
        await self._clients.aclose()
