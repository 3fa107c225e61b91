"""Which integration is used, and what becomes of its secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from services.errors import Category, ServiceError, UsageError, VaultLocked
from services.events import EventBus, IntegrationsChanged
from services.integrations.adapters import adapters_of
from services.integrations.registry import (
    AdapterInfo,
    IntegrationService,
    Kind,
    Origin,
    Resolved,
)
from services.security import MemoryStore
from services.storage import Database, DatabaseLocation
from services.storage.tables import Audit, Company
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401
from tests.support.world import FakeClock

CANARY = "canary-4f1c9e77-in-the-mine"
CRM = AdapterInfo(
    "hubspot",
    Kind.CRM,
    "HubSpot",
    secret="private-app token",
    default_url="https://api.hubapi.example",
    config={"pipeline": "the pipeline of new deals"},
    more_secrets={"client_secret": "the app's secret"},
)
GENERIC = AdapterInfo(
    "http-crm", Kind.CRM, "A CRM over HTTP", secret="key", secret_required=False, needs_url=True
)
SHOP = AdapterInfo(
    "toast", Kind.BOOKINGS, "Toast", config={"restaurant*": "its GUID"}, default_url="https://t.example"
)
ADAPTERS = {info.name: info for info in (CRM, GENERIC, SHOP)}


class LockedStore(MemoryStore):
    locked = True  # type: ignore[misc]

    async def get(self, name: str) -> str | None:
        raise VaultLocked("The secret store needs its passphrase")

    async def set(self, name: str, value: str) -> None:
        raise VaultLocked("The secret store needs its passphrase")


@dataclass
class World:
    database: Database
    secrets: MemoryStore = field(default_factory=MemoryStore)
    events: int = 0

    def service(self, **options: Any) -> IntegrationService:
        bus = EventBus()
        bus.subscribe(IntegrationsChanged, self._count)

        async def open_database() -> Database:
            return self.database

        async def open_secrets() -> MemoryStore:
            return self.secrets

        given: dict[str, Any] = {"adapters": lambda: ADAPTERS, **options}
        return IntegrationService(open_database, open_secrets, bus, FakeClock(), **given)

    def _count(self, event: IntegrationsChanged) -> None:
        self.events += 1

    async def audit(self) -> list[Audit]:
        return await self.database.read(lambda session: list(session.exec(select(Audit).order_by(Audit.id))))  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    where = DatabaseLocation(path=tmp_path / "callboard.db")
    if request.param == "postgresql":
        where = DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))
    database = await Database.open(where)
    for number, name in enumerate(("acme", "Other"), 1):
        await database.write(
            lambda session, number=number, name=name: session.add(Company(id=number, name=name, created_at=0))
        )
    yield World(database)
    await database.aclose()


async def test_the_companys_own_then_a_shared_one_then_the_environment_then_a_simulation(
    world: World,
) -> None:
    bare = world.service()
    assert (await bare.resolve(Kind.CRM, 1)).simulated
    service = world.service(gateways={"crm": ("https://crm.example", CANARY)})
    environment = await service.resolve(Kind.CRM, 1)
    assert (environment.info.origin, environment.info.adapter) == (Origin.ENVIRONMENT, "http-crm")
    assert environment.secret.reveal() == CANARY
    await service.add("http-crm", name="everybody's", base_url="https://shared.example/")
    shared = await service.resolve(Kind.CRM, 1)
    assert (shared.info.origin, shared.info.base_url) == (Origin.SHARED, "https://shared.example")
    await service.add("hubspot", name="ours", company="ACME", secret=CANARY)
    own = await service.resolve(Kind.CRM, 1)
    assert (own.info.origin, own.info.base_url) == (Origin.COMPANY, "https://api.hubapi.example")
    assert own.secret.reveal() == CANARY
    assert (await service.resolve(Kind.CRM, 2)).info.name == "everybody's"
    assert (await service.resolve(Kind.CRM, 1, name="EVERYBODY'S")).info.origin is Origin.SHARED
    assert (await service.resolve(Kind.CRM, 2, adapter="hubspot")).info.origin is Origin.ENVIRONMENT
    with pytest.raises(UsageError, match="no integration 'nobody'"):
        await service.resolve(Kind.CRM, 1, name="nobody")


async def test_the_list_shows_what_stands_in(world: World) -> None:
    service = world.service(gateways={"messages": ("https://m.example", "")})
    await service.add("hubspot", company="acme", secret=CANARY)
    found = {(info.kind, info.origin) for info in await service.list()}
    assert found == {
        (Kind.MESSAGES, Origin.ENVIRONMENT),
        (Kind.BOOKINGS, Origin.SIMULATION),
        (Kind.KNOWLEDGE, Origin.BUILT_IN),
        (Kind.CRM, Origin.COMPANY),
        (Kind.LLM, Origin.BUILT_IN),
    }
    assert not any(info.origin is Origin.COMPANY for info in await service.list("other"))
    with pytest.raises(UsageError, match="no company"):
        await service.list("nobody")
    assert CANARY not in repr(await service.list())


@pytest.mark.parametrize(
    ("words", "message", "advice"),
    [
        ({"adapter": "hubspto"}, "There is no adapter 'hubspto'", "Did you mean hubspot?"),
        ({"adapter": "hubspot", "secret": " "}, "HubSpot needs its private-app token", "pipe it in"),
        (
            {"adapter": "hubspot", "secret": "x" * 9, "config": {"pipelin": "a"}},
            "no option 'pipelin'",
            "pipeline",
        ),
        ({"adapter": "http-crm"}, "needs an address", "--url"),
        ({"adapter": "http-crm", "base_url": "ftp://x"}, "not an http or https address", "https"),
        ({"adapter": "http-crm", "base_url": "http://crm.example"}, "plain http", "https"),
        ({"adapter": "toast"}, "needs the option restaurant: its GUID", "--set restaurant="),
        (
            {"adapter": "hubspot", "secret": "x" * 9, "company": "acne"},
            "no company 'acne'",
            "Did you mean acme?",
        ),
    ],
)
async def test_what_cannot_be_is_told_with_advice(
    world: World, words: Any, message: str, advice: str
) -> None:
    service = world.service()
    with pytest.raises(UsageError) as caught:
        await service.add(**words)
    assert message in caught.value.message
    assert advice in caught.value.advice
    assert world.events == 0
    assert all(info.id is None for info in await service.list())


@pytest.mark.parametrize("company", ["acme", ""])
async def test_a_name_is_taken_once_also_by_two_at_the_same_moment(world: World, company: str) -> None:
    second = await Database.open(world.database.where)
    try:
        services = [world.service(), World(second).service()]
        results = await asyncio.gather(
            *(services[n % 2].add("hubspot", company=company, secret="x" * 9, name="same") for n in range(6)),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, Exception)]
        assert len(failures) == 5
        assert all("already" in str(failure) for failure in failures)
    finally:
        await second.aclose()


async def test_a_secret_that_cannot_be_stored_leaves_nothing(world: World) -> None:
    world.secrets = LockedStore()
    service = world.service()
    with pytest.raises(VaultLocked):
        await service.add("hubspot", secret=CANARY)
    assert all(info.id is None for info in await service.list())
    assert [row.action for row in await world.audit()] == ["integration.add", "integration.remove"]


async def test_a_locked_store_keeps_the_integration(world: World) -> None:
    added = await world.service().add("hubspot", secret=CANARY)
    world.secrets = LockedStore()
    with pytest.raises(VaultLocked):
        await world.service().remove(added.id or 0)
    assert (await world.service().get(added.id or 0)).name == "hubspot"


async def test_removing_takes_every_secret_along(world: World) -> None:
    service = world.service()
    added = await service.add("hubspot", company="acme", secret=CANARY)
    assert added.id is not None
    await service.set_secret(added.id, CANARY + "2", name="client_secret", actor="ann")
    assert await world.secrets.get(f"integration/{added.id}/client_secret") == CANARY + "2"
    await service.remove(added.id, actor="ann")
    assert repr(world.secrets) == "MemoryStore(0 secrets)"
    assert world.events == 3
    with pytest.raises(UsageError, match="no integration"):
        await service.remove(added.id)
    rows = await world.audit()
    assert [row.action for row in rows] == ["integration.add", "integration.rotate", "integration.remove"]
    assert all(CANARY not in repr(row.model_dump()) for row in rows)


async def test_a_company_that_goes_leaves_no_secret(world: World) -> None:
    service = world.service()
    await service.add("hubspot", company="acme", secret=CANARY)
    await service.add("hubspot", secret=CANARY)
    await service.forget("acme")
    assert repr(world.secrets) == "MemoryStore(1 secrets)"


async def test_another_secret_is_used_at_once(world: World) -> None:
    service = world.service()
    added = await service.add("hubspot", company="acme", secret="first-secret")
    assert added.id is not None
    await service.set_secret(added.id, " second-secret\n")
    assert (await service.resolve(Kind.CRM, 1)).secret.reveal() == "second-secret"
    for words, message in (({"name": "nothing"}, "no secret 'nothing'"), ({"secret": ""}, "is empty")):
        with pytest.raises(UsageError, match=message):
            await service.set_secret(added.id, **{"secret": "third-secret", **words})


async def test_one_that_is_off_is_as_if_it_were_not_there(world: World) -> None:
    service = world.service()
    added = await service.add("hubspot", company="acme", secret=CANARY)
    assert added.id is not None
    assert not (await service.enable(added.id, False, actor="ann")).enabled
    assert (await service.resolve(Kind.CRM, 1)).simulated
    listed = [info for info in await service.list() if info.kind is Kind.CRM]
    assert [(info.origin, info.enabled) for info in listed] == [
        (Origin.COMPANY, False),
        (Origin.SIMULATION, True),
    ]
    await service.enable(added.id, False)
    await service.enable(added.id, True)
    assert not (await service.resolve(Kind.CRM, 1)).simulated
    actions = [row.action for row in await world.audit()]
    assert actions == ["integration.add", "integration.disable", "integration.enable"]


async def test_a_missing_secret_is_told_with_what_to_do(world: World) -> None:
    service = world.service()
    added = await service.add("hubspot", company="acme", secret=CANARY)
    await world.secrets.delete(added.secret_name)
    with pytest.raises(ServiceError) as caught:
        await service.resolve(Kind.CRM, 1)
    assert caught.value.category is Category.AUTHENTICATION
    assert caught.value.advice == f"callboard integration rotate {added.id}"


async def test_the_test_says_what_it_found_and_how_it_failed(world: World) -> None:
    async def probe(resolved: Resolved) -> str:
        if resolved.secret.reveal() != CANARY:
            raise ServiceError("HubSpot refused the key", category=Category.AUTHENTICATION, code="wrong_key")
        return "Acme Ltd"

    service = world.service(probes={Kind.CRM: probe})
    added = await service.add("hubspot", company="acme", secret=CANARY)
    assert added.id is not None
    good = await service.test(added.id)
    assert (good.ok, good.detail, good.error) == (True, "Acme Ltd", None)
    await service.set_secret(added.id, "another-one")
    bad = await service.test(added.id)
    assert bad.error is not None
    assert (bad.ok, bad.code, bad.error.category) == (False, "wrong_key", "authentication")
    other = await service.add("toast", config={"restaurant": "r"})
    untestable = await service.test(other.id or 0)
    assert untestable.code == "untestable"
    simulated = [info for info in await service.list() if info.origin is Origin.SIMULATION]
    assert all([(await service.check(info)).ok for info in simulated])


async def test_the_demos_addresses_move(world: World) -> None:
    async def addresses() -> Mapping[str, str]:
        return {"ours": "http://127.0.0.1:4711/hubspot"}

    service = world.service(addresses=addresses)
    await service.add("hubspot", name="ours", company="acme", secret=CANARY)
    assert (await service.resolve(Kind.CRM, 1)).info.base_url == "http://127.0.0.1:4711/hubspot"


async def test_the_secret_is_nowhere_in_the_database(world: World, tmp_path: Path) -> None:
    await world.service().add("hubspot", company="acme", secret=CANARY)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes()


def test_the_program_brings_adapters_of_every_kind_under_names_of_their_own() -> None:
    found = adapters_of()()
    assert {"http-crm", "hubspot", "http-bookings", "opentable", "toast", "doctolib"} <= set(found)
    assert all(name == info.name and info.title for name, info in found.items())
