"""Which services a company's agents and workflows use: configured, the environment's, built in, simulated.

For each kind the first that exists is taken: the company's own, one for all companies, the service that the
environment names, and at last a simulation that says it is one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.events import EventBus, IntegrationsChanged
from services.http.addresses import is_loopback
from services.integrations import stored
from services.integrations.model import (
    BUILT_IN,
    GATEWAY_ADAPTERS,
    SIMULATED,
    UNTESTABLE,
    AdapterInfo,
    IntegrationCheck,
    IntegrationInfo,
    Kind,
    Origin,
    Probe,
    Resolved,
    untestable,
)
from services.model import ErrorInfo
from services.security import Secret, SecretStore
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Company, Integration
from services.text import clean_line

__all__ = [
    "GATEWAY_ADAPTERS",
    "SIMULATED",
    "AdapterInfo",
    "IntegrationCheck",
    "IntegrationInfo",
    "IntegrationService",
    "Kind",
    "Origin",
    "Probe",
    "Resolved",
]


class IntegrationService:
    """Adds, lists, finds, tests, changes and removes integrations.

    `gateways` are the environment's services by kind: `(address, key)`. `adapters` gives all there are and
    may read files the first time; `addresses` replaces stored addresses by integration name (the demo's
    simulator moves at every start). `probes` say by kind how an integration is tested. `gone` is told the
    name of a policy whose integration was removed or got another secret: what it learnt is about the old one.
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
        probes: Mapping[Kind, Probe] | None = None,
        gone: Callable[[str], None] = lambda policy: None,
    ) -> None:
        self._open_database = open_database
        self._open_secrets = open_secrets
        self._bus = bus
        self._clock = clock
        self._adapters = adapters
        self._gateways = dict(gateways or {})
        self._addresses = addresses
        self._probes = dict(probes or {})
        self._gone = gone

    def adapters(self, kind: Kind | None = None) -> list[AdapterInfo]:
        """What can be added, by kind and name."""
        found = [info for info in self._adapters().values() if kind is None or info.kind is kind]
        return sorted(found, key=lambda info: (list(Kind).index(info.kind), info.name))

    def adapter(self, name: str) -> AdapterInfo:
        """Raises UsageError for an unknown one."""
        known = self._adapters()
        if name not in known:
            advice = stored.near_to(name, known, "list them with: callboard integration adapters")
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
        draft = await self.draft(
            adapter, name=name, company=company, base_url=base_url, config=config, secret=secret
        )
        title, how = draft.name, self.adapter(adapter)
        now = self._clock.now()

        def write(session: Session) -> IntegrationInfo:
            owner = stored.company_named(session, company) if company else None
            row = Integration(
                company_id=owner.id if owner else None,
                kind=how.kind.value,
                adapter=adapter,
                name=title,
                base_url=draft.base_url,
                config=json.dumps(dict(draft.config), ensure_ascii=False, sort_keys=True),
                created_at=now,
            )
            same = select(Integration).where(Integration.kind == row.kind, Integration.name == row.name)
            for other in session.exec(same):
                if other.company_id == row.company_id:
                    raise stored.taken(title)
            try:
                with session.begin_nested():
                    session.add(row)
            except IntegrityError:  # another process was faster by a moment
                raise stored.taken(title) from None
            record(
                session,
                at=now,
                actor=actor,
                action="integration.add",
                subject=title,
                after={"adapter": adapter, "url": row.base_url, "company": owner.name if owner else "all"},
            )
            return stored.info_of(row, owner.name if owner else "")

        database = await self._open_database()
        added = await database.write(write)
        if secret.strip():
            try:
                await (await self._open_secrets()).set(added.secret_name, secret.strip())
            except BaseException:
                await database.write(
                    lambda session: stored.delete(
                        session, added.id or 0, now, actor, "its secret could not be stored"
                    )
                )
                raise
        self._bus.publish(IntegrationsChanged())
        return self._complete(added)

    async def draft(
        self,
        adapter: str,
        *,
        name: str = "",
        company: str = "",
        base_url: str = "",
        config: Mapping[str, Any] | None = None,
        secret: str = "",
    ) -> IntegrationInfo:
        """What `add` would store, for `try_out`. Raises UsageError for what cannot be."""
        await self._load()
        how = self.adapter(adapter)
        given = dict(config or {})
        address = stored.checked(how, base_url, given, secret)
        title = clean_line(name) or adapter

        def read(session: Session) -> IntegrationInfo:
            owner = stored.company_named(session, company) if company else None
            company_id = owner.id if owner else None
            same = select(Integration.company_id).where(Integration.kind == how.kind.value)
            if company_id in session.exec(same.where(Integration.name == title)).all():
                raise stored.taken(title)
            origin = Origin.SHARED if owner is None else Origin.COMPANY
            whose = owner.name if owner else ""
            return IntegrationInfo(
                None, company_id, whose, how.kind, adapter, title, address, given, origin=origin
            )

        return await (await self._open_database()).read(read)

    async def try_out(self, draft: IntegrationInfo, secret: str) -> IntegrationCheck:
        """Ask whether a draft works, before it is stored; as `check`."""
        draft = self._complete(draft)
        check = await self._asked(draft, Resolved(draft, Secret(secret.strip()), draft.simulated))
        if not check.ok:
            self._gone(draft.policy)  # what was learnt is about what is not stored
        return check

    async def remove(self, integration_id: int, *, actor: str = "") -> IntegrationInfo:
        """Forget one and its secret. Raises UsageError for an unknown one."""
        secrets = await self._open_secrets()
        await self._load()
        info = await self.get(integration_id)
        # A store that is locked says so now, while nothing is removed yet.
        await secrets.get(info.secret_name)
        now = self._clock.now()
        gone = await (await self._open_database()).write(
            lambda session: stored.delete(session, integration_id, now, actor)
        )
        how = self._adapters().get(gone.adapter)
        for name in ("", *(how.more_secrets if how else ())):
            await secrets.delete(stored.secret_name(gone, name))
        self._gone(gone.policy)
        self._bus.publish(IntegrationsChanged())
        return gone

    async def enable(self, integration_id: int, enabled: bool, *, actor: str = "") -> IntegrationInfo:
        """Switch one on or off. One that is off is as if it were not there. Raises UsageError."""
        now = self._clock.now()

        def write(session: Session) -> IntegrationInfo:
            row, owner = stored.one(session, integration_id)
            if row.enabled != enabled:
                row.enabled = enabled
                session.add(row)
                record(
                    session,
                    at=now,
                    actor=actor,
                    action="integration.enable" if enabled else "integration.disable",
                    subject=row.name,
                    before={"enabled": not enabled},
                    after={"enabled": enabled},
                )
            return stored.info_of(row, owner)

        await self._load()
        info = await (await self._open_database()).write(write)
        self._bus.publish(IntegrationsChanged())
        return self._complete(info)

    async def prefer(self, integration_id: int, *, actor: str = "") -> IntegrationInfo:
        """Put one before the others of its company that could do the same. Raises UsageError."""
        now = self._clock.now()

        def write(session: Session) -> IntegrationInfo:
            row, owner = stored.one(session, integration_id)
            config = {**json.loads(row.config), stored.PREFERRED: now}
            row.config = json.dumps(config, ensure_ascii=False, sort_keys=True)
            session.add(row)
            record(session, at=now, actor=actor, action="integration.prefer", subject=row.name)
            return stored.info_of(row, owner)

        await self._load()
        info = await (await self._open_database()).write(write)
        self._bus.publish(IntegrationsChanged())
        return self._complete(info)

    async def set_secret(
        self, integration_id: int, secret: str, *, name: str = "", actor: str = ""
    ) -> IntegrationInfo:
        """Replace its secret, or one of its further secrets by `name`. Raises UsageError."""
        info = await self.get(integration_id)
        how = self.adapter(info.adapter)
        known = {"": how.secret, **how.more_secrets}
        if not known.get(name):
            there = ", ".join(other for other in how.more_secrets) or "there is none"
            raise UsageError(
                f"{how.title} has no secret {name!r}" if name else f"{how.title} has no secret",
                advice=f"Further secrets: {there}",
                code="bad_secret",
            )
        if not secret.strip():
            raise UsageError(
                f"The {known[name]} is empty", advice="Type it when asked, or pipe it in", code="no_secret"
            )
        await (await self._open_secrets()).set(stored.secret_name(info, name), secret.strip())
        now = self._clock.now()
        await (await self._open_database()).write(
            lambda session: record(
                session, at=now, actor=actor, action="integration.rotate", subject=info.name, cause=name
            )
        )
        self._gone(info.policy)
        self._bus.publish(IntegrationsChanged())
        return info

    async def forget(self, company: str) -> None:
        """Delete the secrets of a company that is about to be removed; its rows go with it."""
        mine = [info for info in await self.list(company) if info.origin is Origin.COMPANY]
        secrets = await self._open_secrets()
        for info in mine:
            how = self._adapters().get(info.adapter)
            for name in ("", *(how.more_secrets if how else ())):
                await secrets.delete(stored.secret_name(info, name))
            self._gone(info.policy)

    async def get(self, integration_id: int) -> IntegrationInfo:
        """A stored one by its number. Raises UsageError for an unknown one."""
        await self._load()
        database = await self._open_database()
        found = await database.read(lambda session: stored.info_of(*stored.one(session, integration_id)))
        return self._complete(found)

    async def find(self, wanted: str, company: str = "") -> IntegrationInfo:
        """A stored one by its number or its name, in any case. Raises UsageError, also for several.

        `company` narrows a name that several companies use.
        """
        await self._load()

        def read(session: Session) -> IntegrationInfo:
            return stored.meant(session, wanted, company)

        return self._complete(await (await self._open_database()).read(read))

    async def company_id(self, name: str) -> int:
        """The id of a company by its name, in any case. Raises UsageError for an unknown one."""

        def read(session: Session) -> int:
            return stored.company_named(session, name).id or 0

        return await (await self._open_database()).read(read)

    async def test(self, integration_id: int) -> IntegrationCheck:
        """Ask a stored one whether it works. Raises UsageError for an unknown number."""
        return await self.check(await self.get(integration_id))

    async def check(self, info: IntegrationInfo) -> IntegrationCheck:
        """Ask whether it works, by its kind's probe; never raises a ServiceError but the answer holds it."""
        if info.adapter == SIMULATED:
            return IntegrationCheck(info, True, "Simulated: nothing is asked", code="ok")
        if info.origin is Origin.BUILT_IN:
            return IntegrationCheck(info, True, "Built in: nothing outside is asked", code="ok")
        try:
            resolved = await self._ready(info)
        except ServiceError as error:
            told = ErrorInfo(error.category.value, error.message, error.advice)
            return IntegrationCheck(info, False, "", 0, told, error.code)
        return await self._asked(info, resolved)

    async def _asked(self, info: IntegrationInfo, resolved: Resolved) -> IntegrationCheck:
        started = self._clock.monotonic()

        def took() -> int:
            return round((self._clock.monotonic() - started) * 1000)

        probe = self._probes.get(info.kind)
        try:
            if probe is None:
                raise untestable(f"{info.policy} cannot be tested: {info.kind} have no test")
            detail = await probe(resolved)
        except ServiceError as error:
            if error.code == UNTESTABLE:
                return IntegrationCheck(info, False, error.message, took(), code=error.code)
            told = ErrorInfo(error.category.value, error.message, error.advice)
            return IntegrationCheck(info, False, "", took(), told, error.code)
        return IntegrationCheck(info, True, detail, took(), code="ok")

    async def list(self, company: str | None = None) -> list[IntegrationInfo]:
        """Every stored one, and what the environment or the simulation stands in for; by kind and name.

        Of several that could do the same each names the one that is taken `before` it. `company` leaves out
        what other companies use.
        """

        def read(session: Session) -> list[IntegrationInfo]:
            names = {row.id: row.name for row in session.exec(select(Company))}
            if company is not None:
                stored.company_named(session, company)
            rows = session.exec(select(Integration))
            return [stored.info_of(row, names.get(row.company_id, "")) for row in rows]

        await self._load()
        kept = [self._complete(info) for info in await (await self._open_database()).read(read)]
        if company is not None:
            wanted = company.strip().casefold()
            kept = [info for info in kept if not info.company or info.company.casefold() == wanted]
        missing = [kind for kind in Kind if not any(i.kind is kind and i.enabled for i in kept)]
        found = [*stored.in_order(kept), *(self._stand_in(kind) for kind in missing)]
        # What stands in comes after what is stored, also where that is switched off.
        kinds = list(Kind)
        return sorted(
            found,
            key=lambda info: (kinds.index(info.kind), info.id is None, info.name.casefold(), info.id or 0),
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
                stored.info_of(row, names.get(row.company_id, ""))
                for row in rows
                if row.company_id in (None, company_id)
            ]

        await self._load()
        found = [self._complete(info) for info in await (await self._open_database()).read(read)]
        found.sort(key=stored.precedence)
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
            return await self._ready(self._stand_in(kind))
        return await self._ready(found[0])

    async def secret_of(self, info: IntegrationInfo) -> Secret:
        """The secret of a stored integration. Raises ServiceError when it needs one and there is none."""
        how = self._adapters().get(info.adapter)
        value = await (await self._open_secrets()).get(info.secret_name) or ""
        if not value and how is not None and how.secret and how.secret_required:
            raise ServiceError(
                f"No {how.secret} is stored for {info.policy}",
                category=Category.AUTHENTICATION,
                advice=f"callboard integration rotate {info.id}",
                code="no_key",
            )
        return Secret(value)

    async def _load(self) -> None:
        """The adapters, read off the loop the first time: some are described by files."""
        await asyncio.to_thread(self._adapters)

    def _complete(self, info: IntegrationInfo) -> IntegrationInfo:
        """With the address that its adapter has unless another was given, and whether it is a simulator."""
        how = self._adapters().get(info.adapter)
        if not info.base_url and how is not None:
            info = replace(info, base_url=how.default_url)
        return replace(info, simulated=self._is_pretended(info, how))

    async def _ready(self, info: IntegrationInfo) -> Resolved:
        """With its secret and at the address where it is now."""
        if info.id is None:
            _, key = self._gateways.get(info.kind.value, ("", ""))
            return Resolved(info, Secret(key if info.origin is Origin.ENVIRONMENT else ""))
        if self._addresses is not None:
            info = replace(info, base_url=(await self._addresses()).get(info.name, info.base_url))
        how = self._adapters().get(info.adapter)
        pretended = self._is_pretended(info, how)
        return Resolved(info, await self.secret_of(info), pretended=pretended)

    def _is_pretended(self, info: IntegrationInfo, how: AdapterInfo | None) -> bool:
        """Whether a vendor's service is on this machine: a simulator, as in the demo.

        Language models and embeddings really do run on people's own machines; there only the demo's are.
        """
        if info.kind in (Kind.LLM, Kind.KNOWLEDGE) and self._addresses is None:
            return False
        here = is_loopback(urlsplit(info.base_url).hostname or "")
        return how is not None and bool(how.default_url) and here

    def _stand_in(self, kind: Kind) -> IntegrationInfo:
        url, _ = self._gateways.get(kind.value, ("", ""))
        if url and kind in GATEWAY_ADAPTERS:
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
        if kind in BUILT_IN:
            return IntegrationInfo(None, None, "", kind, BUILT_IN[kind], kind.value, origin=Origin.BUILT_IN)
        return IntegrationInfo(
            None, None, "", kind, SIMULATED, kind.value, origin=Origin.SIMULATION, simulated=True
        )
