"""A company's Twilio account and its list, on a real database, against the simulated account."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.calls.telephony import TelephonyService
from services.container import Services
from services.errors import ServiceError, UsageError
from services.events import CompaniesChanged
from services.options import ServiceOptions
from services.security import MemoryStore
from services.simulator import ACCOUNT_SID
from services.storage import DatabaseLocation
from tests.support.simulator import RunningSimulator, running_simulator

CANARY = "token_canary_91c40b7e"


class FullStore(MemoryStore):
    """A store that keeps nothing."""

    async def set(self, name: str, value: str) -> None:
        raise ServiceError("the keyring is locked", advice="unlock it")


def make(folder: Path, store: MemoryStore | None = None) -> Services:
    options = ServiceOptions(
        database=DatabaseLocation(path=folder / "callboard.db"), secrets_file=folder / "secrets.json"
    )
    return Services(options, secrets=store or MemoryStore())


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    found = make(tmp_path)
    await found.companies.add("acme")
    yield found
    await found.aclose()


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2) as running:
        yield running


async def test_nothing_is_set_at_first(services: Services) -> None:
    info = await services.telephony.show("ACME")
    assert (info.company, info.has_account, info.allowed) == ("acme", False, ())
    assert await services.telephony.opener("acme") is None
    for ask in (services.telephony.test, services.telephony.numbers, services.telephony.remove):
        with pytest.raises(UsageError, match="no Twilio account"):
            await ask("acme")


async def test_an_account_is_stored_used_and_forgotten(
    services: Services, simulator: RunningSimulator
) -> None:
    seen: list[CompaniesChanged] = []
    services.bus.subscribe(CompaniesChanged, seen.append)
    telephony = services.telephony
    info = await telephony.set("acme", ACCOUNT_SID, simulator.key, base_url=simulator.twilio_url + "/")
    assert (info.account_sid, info.base_url) == (ACCOUNT_SID, simulator.twilio_url)
    assert (await telephony.test("acme")).status == "active"
    assert "+15005550006" in await telephony.numbers("acme")
    make_client = await telephony.opener("acme")
    assert make_client is not None
    client = make_client()
    assert (await client.check()).name == "Simulated account"
    await client.aclose()
    await telephony.allow("acme", ["+49 30*"])
    removed = await telephony.remove("acme")
    assert (removed.has_account, removed.allowed) == (False, ("+4930*",))
    assert await (await services.open_secrets()).get(info.secret_name) is None
    assert len(seen) == 3
    actions = [row.action for row in await services.agents.audit()]
    assert actions[:3] == ["telephony.remove", "telephony.allow", "telephony.set"]


async def test_the_token_is_in_the_store_only(
    services: Services, simulator: RunningSimulator, tmp_path: Path
) -> None:
    info = await services.telephony.set("acme", ACCOUNT_SID, CANARY, base_url=simulator.twilio_url)
    assert await (await services.open_secrets()).get(info.secret_name) == CANARY
    assert CANARY not in repr(info)
    with sqlite3.connect(tmp_path / "callboard.db") as database:
        assert CANARY not in "\n".join(database.iterdump())
    with pytest.raises(ServiceError) as caught:
        await services.telephony.test("acme")
    assert caught.value.code == "wrong_key"
    assert CANARY not in caught.value.message + caught.value.advice


async def test_a_store_that_refuses_leaves_no_account(tmp_path: Path) -> None:
    services = make(tmp_path, FullStore())
    await services.companies.add("acme")
    with pytest.raises(ServiceError, match="locked"):
        await services.telephony.set("acme", ACCOUNT_SID, CANARY)
    assert not (await services.telephony.show("acme")).has_account
    await services.aclose()


async def test_a_company_that_is_none_leaves_no_token(services: Services) -> None:
    with pytest.raises(UsageError) as caught:
        await services.telephony.set("acne", ACCOUNT_SID, CANARY)
    assert "acme" in caught.value.advice
    with pytest.raises(UsageError):
        await services.telephony.set("acme", "AC12", CANARY)
    with pytest.raises(UsageError, match="plain http"):
        await services.telephony.set("acme", ACCOUNT_SID, CANARY, base_url="http://example.com")
    assert not (await services.telephony.show("acme")).has_account


async def test_the_list(services: Services) -> None:
    telephony = services.telephony
    info = await telephony.allow("acme", ["+49 30 1234567", "+4940*", "+4940*"])
    assert info.allowed == ("+49301234567", "+4940*")
    assert not info.has_account, "a list needs no account"
    with pytest.raises(UsageError):
        await telephony.allow("acme", ["+4950*", "0800"])
    assert (await telephony.show("acme")).allowed == info.allowed, "all or nothing"
    with pytest.raises(UsageError, match="not on the list"):
        await telephony.disallow("acme", ["+44*"])
    assert (await telephony.disallow("acme", ["+49301234567"])).allowed == ("+4940*",)
    audit = (await services.agents.audit())[0]
    assert (audit.action, audit.subject) == ("telephony.disallow", "acme")


async def test_a_removed_company_takes_its_token_along(services: Services) -> None:
    info = await services.telephony.set("acme", ACCOUNT_SID, CANARY)
    await services.companies.remove("acme")
    assert await (await services.open_secrets()).get(info.secret_name) is None
    await services.companies.add("acme")
    assert not (await services.telephony.show("acme")).has_account


async def test_the_demo_has_an_account_for_every_company(
    services: Services, simulator: RunningSimulator
) -> None:
    async def standing() -> tuple[str, str, str]:
        return ACCOUNT_SID, simulator.key, simulator.twilio_url

    telephony = TelephonyService(
        services.open_database, services.open_secrets, services.bus, services.clock, standing
    )
    await telephony.allow("acme", ["+4930*"])
    info = await telephony.show("acme")
    assert (info.account_sid, info.base_url, info.allowed) == (ACCOUNT_SID, simulator.twilio_url, ("+4930*",))
    assert (await telephony.test("acme")).status == "active"
    assert not (await services.telephony.show("acme")).has_account, "it is nowhere stored"


async def test_a_token_that_is_gone_is_told(services: Services) -> None:
    info = await services.telephony.set("acme", ACCOUNT_SID, CANARY)
    await (await services.open_secrets()).delete(info.secret_name)
    with pytest.raises(ServiceError) as caught:
        await services.telephony.opener("acme")
    assert caught.value.code == "no_key"
    assert "phone set acme" in caught.value.advice
