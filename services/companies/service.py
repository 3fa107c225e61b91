"""Companies and connections: add, list, test, rotate, remove, each with its audit row."""

from __future__ import annotations

import builtins
import getpass
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

from sqlalchemy import func
from sqlmodel import Session, col, select

from services.clock import Clock
from services.companies.clients import ConnectionClients
from services.errors import Category, ServiceError, UsageError
from services.events import AgentsChanged, CompaniesChanged, EventBus
from services.model import CompanyInfo, ConnectionInfo, ErrorInfo, Provider
from services.providers import DEFAULT_BASE_URLS, residency_hosts
from services.security import SecretStore
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Agent, Company, Connection
from services.text import clean_line

LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """What a test of a key found. `code` is `ok` or the error's stable word (`wrong_key`, …)."""

    ok: bool
    account: str
    code: str
    error: ErrorInfo | None
    took_ms: int


class CompanyService:
    """Tenants and their access to vendors."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        open_secrets: Callable[[], Awaitable[SecretStore]],
        clients: ConnectionClients,
        bus: EventBus,
        clock: Clock,
        *,
        before_remove: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`before_remove` is given the name of a company that is about to be removed."""
        self._before_remove = before_remove
        self._open_database = open_database
        self._open_secrets = open_secrets
        self._clients = clients
        self._bus = bus
        self._clock = clock

    async def list(self) -> builtins.list[CompanyInfo]:
        """Every company by name, with how many connections and agents it has."""
        return await (await self._open_database()).read(_companies)

    async def connections(self, company: str | None = None) -> builtins.list[ConnectionInfo]:
        """The connections of one company (UsageError when unknown) or of all, by company and vendor."""
        database = await self._open_database()
        if company is None:
            return await database.read(_connections)
        name = company
        return await database.read(lambda session: _connections(session, _company(session, name)))

    async def add(self, name: str) -> CompanyInfo:
        """Add a company. Raises UsageError for an unusable or taken name."""
        cleaned = clean_line(name)
        if not cleaned or len(cleaned) > LONGEST_NAME:
            raise UsageError(
                "A company's name has 1 to 60 visible characters", advice="choose a shorter, plain name"
            )
        now = self._clock.now()

        def write(session: Session) -> CompanyInfo:
            for company in session.exec(select(Company)):
                if company.name.casefold() == cleaned.casefold():
                    raise UsageError(
                        f"The company {company.name} exists already",
                        advice="choose another name, or add a connection to it",
                    )
            row = Company(name=cleaned, created_at=now)
            session.add(row)
            record(session, at=now, actor=actor(), action="company.add", subject=cleaned)
            session.flush()
            return CompanyInfo(id=row.id or 0, name=cleaned, created_at=now)

        database = await self._open_database()
        added: CompanyInfo = await database.write(write)
        self._bus.publish(CompaniesChanged())
        return added

    async def remove(self, name: str) -> None:
        """Remove a company with its connections, keys, mirrored agents and their history. Not undoable."""
        database = await self._open_database()
        connections = await self.connections(name)
        if self._before_remove is not None:
            await self._before_remove(name)
        for connection in connections:
            await self.remove_connection(connection.company, connection.provider)
        now = self._clock.now()

        def write(session: Session) -> None:
            company = _company(session, name)
            record(session, at=now, actor=actor(), action="company.remove", subject=company.name)
            session.delete(company)

        await database.write(write)
        self._bus.publish(CompaniesChanged())
        self._bus.publish(AgentsChanged())

    async def keep(
        self, name: str, *, audio: bool | None = None, transcript: bool | None = None
    ) -> CompanyInfo:
        """Decide what recordings of the company's calls keep from now on; None leaves a switch as it is.

        What was recorded before stays until it is deleted. Raises UsageError for an unknown company.
        """
        now = self._clock.now()

        def write(session: Session) -> CompanyInfo:
            company = _company(session, name)
            before = {"audio": company.keep_audio, "transcript": company.keep_transcript}
            company.keep_audio = company.keep_audio if audio is None else audio
            company.keep_transcript = company.keep_transcript if transcript is None else transcript
            after = {"audio": company.keep_audio, "transcript": company.keep_transcript}
            if after != before:
                session.add(company)
                record(
                    session,
                    at=now,
                    actor=actor(),
                    action="company.keep",
                    subject=company.name,
                    before=before,
                    after=after,
                )
            session.flush()
            return next(info for info in _companies(session) if info.id == company.id)

        changed = await (await self._open_database()).write(write)
        self._bus.publish(CompaniesChanged())
        return changed

    async def connection(self, company: str, provider: str) -> ConnectionInfo:
        """One connection, by names. Raises UsageError naming the nearest when there is none."""
        vendor = parse_provider(provider)
        for connection in await self.connections(company):
            if connection.provider is vendor:
                return connection
        raise UsageError(
            f"{company} has no connection to {vendor}",
            advice=f"add it: callboard connection add {company} {vendor}",
        )

    async def add_connection(
        self,
        company: str,
        provider: str,
        *,
        key: str,
        base_url: str | None = None,
        residency: str | None = None,
    ) -> ConnectionInfo:
        """Store a connection and its key. Nothing is asked of the vendor here; see `test_key`.

        The key is stored before the row: a row without a key would fail every sync, a key without a
        row is removed again.
        """
        vendor = parse_provider(provider)
        address = resolve_address(vendor, base_url, residency)
        secrets = await self._open_secrets()
        database = await self._open_database()
        now = self._clock.now()

        def insert(session: Session) -> ConnectionInfo:
            owner = _company(session, company)
            taken = session.exec(
                select(Connection).where(
                    Connection.company_id == owner.id, Connection.provider == vendor.value
                )
            ).first()
            if taken is not None:
                raise UsageError(
                    f"{owner.name} has a connection to {vendor} already",
                    advice=f"change its key with: callboard connection rotate {owner.name} {vendor}",
                )
            row = Connection(
                company_id=owner.id or 0,
                provider=vendor.value,
                base_url=address,
                residency=residency or "global",
                created_at=now,
            )
            session.add(row)
            record(
                session,
                at=now,
                actor=actor(),
                action="connection.add",
                subject=f"{owner.name}, {vendor}",
                after={"base_url": address, "residency": row.residency},
            )
            session.flush()
            return _connection_info(row, owner.name)

        added = await database.write(insert)
        try:
            await secrets.set(added.secret_name, key)
        except BaseException:
            await database.write(lambda session: _delete_connection(session, added.id))
            raise
        self._bus.publish(CompaniesChanged())
        return added

    async def rotate(self, company: str, provider: str, *, key: str) -> ConnectionInfo:
        """Replace a connection's key; the mirror and its history stay."""
        connection = await self.connection(company, provider)
        secrets = await self._open_secrets()
        await secrets.set(connection.secret_name, key)
        await self._clients.drop(connection.id)
        await self._audit("connection.rotate", connection)
        self._bus.publish(CompaniesChanged())
        return connection

    async def remove_connection(self, company: str, provider: str) -> None:
        """Forget a connection, its key, and the mirror of its agents with their history."""
        connection = await self.connection(company, provider)
        secrets = await self._open_secrets()
        await self._clients.drop(connection.id)
        await (await self._open_database()).write(lambda session: _delete_connection(session, connection.id))
        await secrets.delete(connection.secret_name)
        await self._audit("connection.remove", connection)
        self._bus.publish(CompaniesChanged())
        self._bus.publish(AgentsChanged())

    async def test(self, company: str, provider: str) -> ConnectionCheck:
        """Ask the vendor's cheapest authenticated endpoint with the stored key."""
        connection = await self.connection(company, provider)
        started = self._clock.monotonic()
        try:
            client = await self._clients.client(connection)
            account = await client.check()
        except ServiceError as error:
            return self._failed(error, started)
        return self._passed(account.name, started)

    async def test_key(
        self, provider: str, *, key: str, base_url: str | None = None, residency: str | None = None
    ) -> ConnectionCheck:
        """The same for a key that is not stored yet. Raises UsageError for an unusable address."""
        vendor = parse_provider(provider)
        address = resolve_address(vendor, base_url, residency)
        started = self._clock.monotonic()
        client = self._clients.open(vendor, address, key)
        try:
            account = await client.check()
        except ServiceError as error:
            return self._failed(error, started)
        finally:
            with suppress(Exception):
                await client.aclose()
        return self._passed(account.name, started)

    def _passed(self, account: str, started: float) -> ConnectionCheck:
        return ConnectionCheck(True, account, "ok", None, self._since(started))

    def _failed(self, error: ServiceError, started: float) -> ConnectionCheck:
        info = ErrorInfo(error.category.value, error.message, error.advice)
        return ConnectionCheck(False, "", error.code or error.category.value, info, self._since(started))

    def _since(self, started: float) -> int:
        return round((self._clock.monotonic() - started) * 1000)

    async def _audit(self, action: str, connection: ConnectionInfo) -> None:
        subject = f"{connection.company}, {connection.provider}"
        now = self._clock.now()
        await (await self._open_database()).write(
            lambda session: record(session, at=now, actor=actor(), action=action, subject=subject)
        )


def actor() -> str:
    """Who acts: the name of the operating system's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown user"


def parse_provider(name: str) -> Provider:
    """The vendor of this name. Raises UsageError listing the vendors."""
    try:
        return Provider(name.strip().lower())
    except ValueError:
        allowed = ", ".join(vendor.value for vendor in Provider)
        raise UsageError(f"{clean_line(name)!r} is not a vendor", advice=f"use one of: {allowed}") from None


def resolve_address(provider: Provider, base_url: str | None, residency: str | None) -> str:
    """Where a connection's requests go, from what was chosen. Raises UsageError for a wrong choice."""
    hosts = residency_hosts(provider)
    if residency is not None and residency not in hosts:
        allowed = ", ".join(hosts) or "none"
        raise UsageError(
            f"{provider} has no data region {clean_line(residency)!r}", advice=f"use one of: {allowed}"
        )
    if base_url:
        from services.http import normalize_base_url

        return normalize_base_url(base_url)
    return hosts[residency] if residency else DEFAULT_BASE_URLS[provider]


def _company(session: Session, name: str) -> Company:
    rows = session.exec(select(Company)).all()
    for row in rows:
        if row.name.casefold() == name.strip().casefold():
            return row
    near = get_close_matches(name, [row.name for row in rows], n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else "list them with: callboard company list"
    raise UsageError(f"There is no company {clean_line(name)!r}", advice=advice)


def _companies(session: Session) -> list[CompanyInfo]:
    connections: dict[int, int] = {}
    agents: dict[int, int] = {}
    counted = (
        select(Connection.company_id, func.count(func.distinct(Connection.id)), func.count(col(Agent.id)))
        .join(Agent, col(Agent.connection_id) == Connection.id, isouter=True)
        .group_by(col(Connection.company_id))
    )
    for company_id, connection_count, agent_count in session.exec(counted):
        connections[company_id], agents[company_id] = connection_count, agent_count
    return [
        CompanyInfo(
            id=row.id or 0,
            name=row.name,
            created_at=row.created_at,
            connections=connections.get(row.id or 0, 0),
            agents=agents.get(row.id or 0, 0),
            keep_audio=row.keep_audio,
            keep_transcript=row.keep_transcript,
        )
        for row in session.exec(select(Company).order_by(Company.name))
    ]


def _connections(session: Session, company: Company | None = None) -> list[ConnectionInfo]:
    query = (
        select(Connection, Company.name, func.count(col(Agent.id)))
        .join(Company, col(Company.id) == Connection.company_id)
        .join(Agent, col(Agent.connection_id) == Connection.id, isouter=True)
        .group_by(col(Connection.id), Company.name)
        .order_by(Company.name, Connection.provider)
    )
    if company is not None:
        query = query.where(Connection.company_id == company.id)
    return [_connection_info(row, name, agents) for row, name, agents in session.exec(query)]


def _connection_info(row: Connection, company: str, agents: int = 0) -> ConnectionInfo:
    return ConnectionInfo(
        id=row.id or 0,
        company_id=row.company_id,
        company=company,
        provider=Provider(row.provider),
        base_url=row.base_url,
        residency=row.residency,
        created_at=row.created_at,
        last_sync_at=row.last_sync_at,
        agents=agents,
    )


def _delete_connection(session: Session, connection_id: int) -> None:
    row = session.get(Connection, connection_id)
    if row is not None:
        session.delete(row)


def require(connections: list[ConnectionInfo]) -> list[ConnectionInfo]:
    """The connections, or an error that says how to get one."""
    if not connections:
        raise ServiceError(
            "No company has a connection to a vendor yet",
            category=Category.PERMANENT,
            advice="add one: callboard company add NAME, then callboard connection add NAME retell",
            code="no_connections",
        )
    return connections
