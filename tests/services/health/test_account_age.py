"""What an account had left a while ago stands in while the vendor does not say it, and tells its age."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.container import Services
from services.health.checks.connections import REMEMBERED, Accounts
from services.model import Provider
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.world import services_on


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2) as running:
        yield running


@pytest.fixture
async def services(simulator: RunningSimulator, tmp_path: Path) -> AsyncIterator[Services]:
    async with services_on(simulator, tmp_path) as services:
        yield services


@pytest.mark.parametrize(
    ("provider", "label", "live"),
    [
        (Provider.RETELL, "lines", "3 of 20 calls at once"),
        (Provider.ELEVENLABS, "quota", "95 of 100 credits in this period"),
    ],
)
async def test_it_is_as_it_was_with_its_age(
    services: Services, simulator: RunningSimulator, provider: Provider, label: str, live: str
) -> None:
    await simulator.usage("retell", current_concurrency=3)
    await simulator.usage("elevenlabs", character_limit=100, character_count=95)
    accounts = Accounts(services.clock)
    connection = await services.companies.connection("acme", provider.value)
    client = await services.clients.client(connection)

    async def found() -> dict[str, tuple[str, str]]:
        return {
            each.label: (each.text(), each.remark) for each in await accounts.usages(connection.id, client)
        }

    text, remark = (await found())[label]
    assert text == live
    assert "as of" not in remark
    await simulator.fault("500:usage")
    services.clock.advance(minutes=4)  # type: ignore[attr-defined]
    text, remark = (await found())[label]
    assert text == live
    assert remark.endswith(("as of 4 min ago", "as of 5 min ago"))  # real time runs on in between
    assert client.policy.stats.degraded >= 1
    services.clock.advance(seconds=REMEMBERED)  # type: ignore[attr-defined]
    assert label not in await found()
    await simulator.clear_faults()
    assert "as of" not in (await found())[label][1]
