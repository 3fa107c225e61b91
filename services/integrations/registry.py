"""Which services a company's agents and workflows use: configured ones, the environment's, or a simulation.

For each kind the first that exists is taken: the company's own, one for all companies, the service that the
environment names, and at last a simulation that says it is one.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import delete
from sqlmodel import Session, col, select

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.events import EventBus, IntegrationsChanged
from services.http.addresses import normalize_base_url
from services.security import Secret, SecretStore
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Company, Integration
from services.text import clean_line

SIMULATED: Final = "simulated"
"""The adapter of a kind for which nothing is configured."""


class Kind(StrEnum):
    """What an integration is for."""

    MESSAGES = "messages"
    BOOKINGS = "bookings"
    KNOWLEDGE = "knowledge"
    CRM = "crm"
    LLM = "llm"


class Origin(StrEnum):
    """Where it was found."""

    COMPANY = "company"
    SHARED = "shared"
    ENVIRONMENT = "environment"
    SIMULATION = "simulation"


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """One way of speaking to a service, as its module describes it.

    `config`: what has to or may be said besides the address, name to one sentence; names that end in `*` are
    required. `secret`: what its secret is called, empty if it has none. `default_url`: where it is else.
    """

    name: str
    kind: Kind
    title: str
    secret: str = ""
    secret_required: bool = True
    default_url: str = ""
    needs_url: bool = False
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IntegrationInfo:
    """One integration as stored or found. The secret is never part of it."""

    id: int | None
    company_id: int | None
    company: str
    """Empty for one that serves every company."""
    kind: Kind
    adapter: str
    name: str
    base_url: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    origin: Origin = Origin.COMPANY
    created_at: int = 0

    @property
    def secret_name(self) -> str:
        return f"integration/{self.id}"

    @property
    def policy(self) -> str:
        """The name of the policy around it, and what people call it."""
        return f"{self.name} ({self.company})" if self.company else self.name

    @property
    def check_id(self) -> str:
        """The id of its health check."""
        return f"integration:{self.id}" if self.id is not None else f"integration:{self.kind}/{self.origin}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """An integration ready for use: with its secret, which may be empty."""

    info: IntegrationInfo
    secret: Secret

    @property
    def simulated(self) -> bool:
        return self.info.adapter == SIMULATED


class IntegrationService:
    """Adds, lists, finds and removes integrations.

    `gateways` are the environment's services by kind: `(address, key)`. `adapters` are all there are;
    `addresses` replaces stored addresses by integration name (the demo's simulator moves at every start).
    """

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        open_secrets: Callable[[], Awaitable[SecretStore]],
        bus: EventBus,
        clock: Clock,
        *,
        adapters: Callable[[], Mapping[str, AdapterInfo]],
        gateways: Mapping[str, tuple[str, str]] | None = None,
        addresses: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
    ) -> None:
        self._open_database = open_database
        self._open_secrets = open_secrets
        self._bus = bus
        self._clock = clock
        self._adapters = adapters
        self._gateways = dict(gateways or {})
        self._addresses = addresses

    def adapters(self, kind: Kind | None = None) -> list[AdapterInfo]:
        """What can be added, by kind and name."""
        found = [info for info in self._adapters().values() if kind is None or info.kind is kind]
        return sorted(found, key=lambda info: (list(Kind).index(info.kind), info.name))

    def adapter(self, name: str) -> AdapterInfo:
        """Raises UsageError for an unknown one."""
        known = self._adapters()
        if name not in known:
            near = get_close_matches(name, list(known), n=1, cutoff=0.5)
            advice = f"did you mean {near[0]}?" if near else "list them with: callboard integration adapters"
            raise UsageError(
                f"There is no adapter {clean_line(name)!r}", advice=advice, code="unknown_adapter"
            )
        return known[name]

    async def add(
        self,
        adapter: str,
        *,
        name: str = "",
        company: str = "",
        base_url: str = "",
        config: Mapping[str, Any] | None = None,
        secret: str = "",
        actor: str = "",
    ) -> IntegrationInfo:
        """Store one. Without a company it serves all. Raises UsageError for what cannot be."""
        how = self.adapter(adapter)
        given = dict(config or {})
        _check_config(how, given)
        address = base_url or how.default_url
        if how.needs_url and not address:
            raise UsageError(f"{how.title} needs an address", advice="Give it with --url", code="no_url")
        if address and "://" in address and address.startswith(("http://", "https://")):
            address = normalize_base_url(address)
        if how.secret and how.secret_required and not secret.strip():
            raise UsageError(
                f"{how.title} needs its {how.secret}",
                advice="Type it when asked, or pipe it in",
                code="no_secret",
            )
        now = self._clock.now()
        title = clean_line(name) or adapter

        def write(session: Session) -> IntegrationInfo:
            owner = _company(session, company) if company else None
            row = Integration(
                company_id=owner.id if owner else None,
                kind=how.kind.value,
                adapter=adapter,
                name=title,
                base_url=address,
                config=json.dumps(given, ensure_ascii=False, sort_keys=True),
                created_at=now,
            )
            same = select(Integration).where(Integration.kind == row.kind, Integration.name == row.name)
            for other in session.exec(same):
                if other.company_id == row.company_id:
                    raise UsageError(
                        f"There is an integration {title!r} already",
                        advice="Give this one another name, or remove the other",
                        code="taken",
                    )
            session.add(row)
            session.flush()
            record(
                session,
                at=now,
                actor=actor,
                action="integration.add",
                subject=title,
                after={"adapter": adapter, "url": address, "company": owner.name if owner else "all"},
            )
            return _info(row, owner.name if owner else "")

        database = await self._open_database()
        added = await database.write(write)
        if secret.strip():
            try:
                await (await self._open_secrets()).set(added.secret_name, secret.strip())
            except BaseException:
                await database.write(
                    lambda session: session.execute(
                        delete(Integration).where(col(Integration.id) == added.id)
                    )
                )
                raise
        self._bus.publish(IntegrationsChanged())
        return added

    async def remove(self, integration_id: int, *, actor: str = "") -> IntegrationInfo:
        """Forget one and its secret. Raises UsageError for an unknown one."""
        now = self._clock.now()

        def write(session: Session) -> IntegrationInfo:
            row, owner = _one(session, integration_id)
            info = _info(row, owner)
            record(
                session,
                at=now,
                actor=actor,
                action="integration.remove",
                subject=info.name,
                before={"adapter": info.adapter, "url": info.base_url, "company": owner or "all"},
            )
            session.delete(row)
            return info

        gone = await (await self._open_database()).write(write)
        await (await self._open_secrets()).delete(gone.secret_name)
        self._bus.publish(IntegrationsChanged())
        return gone

    async def list(self, company: str | None = None) -> list[IntegrationInfo]:
        """Every stored one, and what the environment or the simulation stands in for; by kind and name.

        `company` leaves out what other companies use.
        """

        def read(session: Session) -> list[IntegrationInfo]:
            names = {row.id: row.name for row in session.exec(select(Company))}
            if company is not None:
                _company(session, company)
            return [_info(row, names.get(row.company_id, "")) for row in session.exec(select(Integration))]

        stored = await (await self._open_database()).read(read)
        if company is not None:
            wanted = company.strip().casefold()
            stored = [info for info in stored if not info.company or info.company.casefold() == wanted]
        missing = [kind for kind in Kind if not any(i.kind is kind and i.enabled for i in stored)]
        found = [*stored, *(self._stand_in(kind) for kind in missing)]
        return sorted(
            found, key=lambda info: (list(Kind).index(info.kind), info.name.casefold(), info.id or 0)
        )

    async def resolve(
        self, kind: Kind, company_id: int | None, *, name: str = "", adapter: str = ""
    ) -> Resolved:
        """The integration to use, with its secret.

        `name` (an integration's) or `adapter` narrow the choice; a name that nobody has is a UsageError, an
        adapter that is not configured falls through to the stand-ins. Raises ServiceError when its secret
        is missing from the store.
        """

        def read(session: Session) -> list[IntegrationInfo]:
            names = {row.id: row.name for row in session.exec(select(Company))}
            rows = session.exec(
                select(Integration).where(Integration.kind == kind.value, col(Integration.enabled).is_(True))
            )
            return [
                _info(row, names.get(row.company_id, ""))
                for row in rows
                if row.company_id in (None, company_id)
            ]

        found = await (await self._open_database()).read(read)
        found.sort(key=lambda info: (info.company_id is None, info.id or 0))
        if name:
            found = [info for info in found if info.name.casefold() == name.strip().casefold()]
            if not found:
                raise UsageError(
                    f"There is no integration {clean_line(name)!r} for {kind}",
                    advice="list them with: callboard integration list",
                    code="unknown_integration",
                )
        if adapter:
            found = [info for info in found if info.adapter == adapter]
        if not found:
            stand_in = self._stand_in(kind)
            _, key = self._gateways.get(kind.value, ("", ""))
            return Resolved(stand_in, Secret(key if stand_in.origin is Origin.ENVIRONMENT else ""))
        info = found[0]
        return Resolved(await self._at(info), await self.secret_of(info))

    async def secret_of(self, info: IntegrationInfo) -> Secret:
        """The secret of a stored integration. Raises ServiceError when it needs one and there is none."""
        how = self._adapters().get(info.adapter)
        value = await (await self._open_secrets()).get(info.secret_name) or ""
        if not value and how is not None and how.secret and how.secret_required:
            raise ServiceError(
                f"No {how.secret} is stored for {info.policy}",
                category=Category.AUTHENTICATION,
                advice="Remove the integration and add it again",
                code="no_key",
            )
        return Secret(value)

    async def _at(self, info: IntegrationInfo) -> IntegrationInfo:
        if self._addresses is None:
            return info
        from dataclasses import replace

        return replace(info, base_url=(await self._addresses()).get(info.name, info.base_url))

    def _stand_in(self, kind: Kind) -> IntegrationInfo:
        url, _ = self._gateways.get(kind.value, ("", ""))
        if url:
            return IntegrationInfo(
                None,
                None,
                "",
                kind,
                GATEWAY_ADAPTERS[kind],
                f"{kind} gateway",
                url,
                origin=Origin.ENVIRONMENT,
            )
        return IntegrationInfo(None, None, "", kind, SIMULATED, f"simulated {kind}", origin=Origin.SIMULATION)


GATEWAY_ADAPTERS: Final[Mapping[Kind, str]] = {
    Kind.MESSAGES: "http-messages",
    Kind.BOOKINGS: "http-bookings",
    Kind.KNOWLEDGE: "http-knowledge",
    Kind.CRM: "http-crm",
    Kind.LLM: SIMULATED,
}
"""The adapter of the generic HTTP service of each kind."""


def _check_config(how: AdapterInfo, given: Mapping[str, Any]) -> None:
    names = {name.rstrip("*"): name.endswith("*") for name in how.config}
    for name in given:
        if name not in names:
            known = ", ".join(names) or "there is none"
            raise UsageError(
                f"{how.title} has no option {name!r}", advice=f"Options: {known}", code="bad_option"
            )
    for name, required in names.items():
        if required and not given.get(name):
            raise UsageError(
                f"{how.title} needs the option {name}: {how.config[name + '*']}",
                advice=f"Give it with --set {name}=…",
                code="missing_option",
            )


def _company(session: Session, name: str) -> Company:
    rows = session.exec(select(Company)).all()
    found = next((row for row in rows if row.name.casefold() == name.strip().casefold()), None)
    if found is None:
        near = get_close_matches(name, [row.name for row in rows], n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else "list them with: callboard company list"
        raise UsageError(f"There is no company {clean_line(name)!r}", advice=advice, code="unknown_company")
    return found


def _one(session: Session, integration_id: int) -> tuple[Integration, str]:
    row = session.get(Integration, integration_id)
    if row is None:
        raise UsageError(
            f"There is no integration {integration_id}",
            advice="list them with: callboard integration list",
            code="unknown_integration",
        )
    owner = session.get(Company, row.company_id) if row.company_id is not None else None
    return row, owner.name if owner else ""


def _info(row: Integration, company: str) -> IntegrationInfo:
    return IntegrationInfo(
        id=row.id,
        company_id=row.company_id,
        company=company,
        kind=Kind(row.kind),
        adapter=row.adapter,
        name=row.name,
        base_url=row.base_url,
        config=json.loads(row.config),
        enabled=row.enabled,
        origin=Origin.COMPANY if row.company_id is not None else Origin.SHARED,
        created_at=row.created_at,
    )
