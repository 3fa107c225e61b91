"""Companies and connections on a real database, against the simulator's keys."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.agents import SyncRequest
from services.container import Services
from services.errors import ServiceError, UsageError
from services.events import CompaniesChanged
from services.model import Provider
from services.options import ServiceOptions
from services.security import MemoryStore
from services.storage import DatabaseLocation
from tests.support.simulator import RunningSimulator, running_simulator

CANARY = "key_canary_5f1d2c7e9b"


class BrokenStore(MemoryStore):
    """A store that refuses to keep anything."""

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
    yield found
    await found.aclose()


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=4) as running:
        yield running


async def test_add_list_remove(services: Services) -> None:
    seen: list[CompaniesChanged] = []
    services.bus.subscribe(CompaniesChanged, seen.append)
    await services.companies.add("  acme \u202e GmbH\x07 ")
    await services.companies.add("Beta")
    assert [company.name for company in await services.companies.list()] == ["Beta", "acme GmbH"]
    await services.companies.remove("ACME gmbh")
    assert [company.name for company in await services.companies.list()] == ["Beta"]
    assert len(seen) == 3
    actions = [row.action for row in await services.agents.audit()]
    assert actions == ["company.remove", "company.add", "company.add"]


@pytest.mark.parametrize("name", ["", "   ", "\x07\u202e", "x" * 61])
async def test_an_unusable_name_is_refused(services: Services, name: str) -> None:
    with pytest.raises(UsageError, match="1 to 60"):
        await services.companies.add(name)


async def test_a_taken_name_and_an_unknown_one(services: Services) -> None:
    await services.companies.add("acme")
    with pytest.raises(UsageError, match="exists already"):
        await services.companies.add("Acme")
    with pytest.raises(UsageError) as caught:
        await services.companies.remove("acne")
    assert "acme" in caught.value.advice


async def test_a_connection_keeps_its_key_out_of_the_database(
    services: Services, simulator: RunningSimulator, tmp_path: Path
) -> None:
    await services.companies.add("acme")
    added = await services.companies.add_connection(
        "acme", "retell", key=CANARY, base_url=simulator.retell_url + "/"
    )
    assert added.base_url == simulator.retell_url
    assert await (await services.open_secrets()).get(added.secret_name) == CANARY
    with pytest.raises(UsageError, match="already"):
        await services.companies.add_connection("acme", "retell", key="other")
    await services.companies.rotate("acme", "retell", key=CANARY + "2")
    assert await (await services.open_secrets()).get(added.secret_name) == CANARY + "2"
    for path in [path for path in tmp_path.iterdir() if path.is_file()]:
        assert CANARY.encode() not in path.read_bytes()


async def test_a_residency_picks_the_host(services: Services) -> None:
    await services.companies.add("acme")
    added = await services.companies.add_connection("acme", "elevenlabs", key="k", residency="eu")
    assert added.base_url == "https://api.eu.residency.elevenlabs.io"
    with pytest.raises(UsageError, match="no data region"):
        await services.companies.add_connection("acme", "retell", key="k", residency="mars")
    with pytest.raises(UsageError, match="not a vendor"):
        await services.companies.add_connection("acme", "vapi", key="k")


async def test_a_key_that_cannot_be_stored_leaves_no_connection(tmp_path: Path) -> None:
    services = make(tmp_path, BrokenStore())
    await services.companies.add("acme")
    with pytest.raises(ServiceError, match="locked"):
        await services.companies.add_connection("acme", "retell", key="k")
    assert await services.companies.connections() == []
    await services.aclose()


async def test_a_test_tells_a_wrong_key_from_a_missing_permission(
    services: Services, simulator: RunningSimulator
) -> None:
    for provider, address in (("retell", simulator.retell_url), ("elevenlabs", simulator.elevenlabs_url)):
        check = await services.companies.test_key(provider, key=simulator.key, base_url=address)
        assert (check.ok, check.code) == (True, "ok")
        check = await services.companies.test_key(provider, key="wrong", base_url=address)
        assert (check.ok, check.code) == (False, "wrong_key")
        check = await services.companies.test_key(provider, key=simulator.limited_key, base_url=address)
        assert (check.ok, check.code) == (False, "missing_permission")
        assert check.error is not None
        assert check.error.advice


async def test_rotating_takes_effect_without_a_restart(
    services: Services, simulator: RunningSimulator
) -> None:
    await services.companies.add("acme")
    await services.companies.add_connection("acme", "retell", key="old", base_url=simulator.retell_url)
    assert (await services.companies.test("acme", "retell")).code == "wrong_key"
    await services.companies.rotate("acme", "retell", key=simulator.key)
    assert (await services.companies.test("acme", "retell")).ok


async def test_removing_takes_agents_and_keys_along(
    services: Services, simulator: RunningSimulator, tmp_path: Path
) -> None:
    await services.companies.add("acme")
    for vendor, address in (("retell", simulator.retell_url), ("elevenlabs", simulator.elevenlabs_url)):
        await services.companies.add_connection("acme", vendor, key=simulator.key, base_url=address)
    await services.sync.run(SyncRequest())
    connections = await services.companies.connections("acme")
    assert [connection.agents for connection in connections] == [2, 2]
    await services.companies.remove_connection("acme", "retell")
    assert {card.provider for card in await services.agents.cards()} == {Provider.ELEVENLABS}
    await services.companies.remove("acme")
    assert await services.agents.cards() == []
    secrets = await services.open_secrets()
    assert [await secrets.get(connection.secret_name) for connection in connections] == [None, None]
    with sqlite3.connect(tmp_path / "callboard.db") as database:
        for table in ("agent", "bundle", "snapshot", "connection"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    again = await services.companies.add("acme")
    added = await services.companies.add_connection(again.name, "retell", key="k")
    assert added.id not in {connection.id for connection in connections}
