"""Every connection has a policy of its own: what an outage, one broken agent and a new key do to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.agents import SyncRequest
from services.container import Services
from services.model import Outcome
from services.resilience import BreakerState, RetryOptions
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.world import FakeClock, outcomes, services_on

NAME = "Retell (acme)"
QUICK = RetryOptions(first_wait=0.002, longest_wait=0.004)


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=80, seed=5) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def services(simulator: RunningSimulator, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Services]:
    async with services_on(simulator, tmp_path, vendors=("retell",), clock=clock) as found:
        found.policies.of(NAME, retry_options=QUICK)
        yield found


def state(services: Services) -> BreakerState:
    return services.policies.of(NAME).breaker.view().state


async def test_an_outage_fails_the_rest_of_a_sync_at_once_and_heals_by_itself(
    services: Services, simulator: RunningSimulator, clock: FakeClock
) -> None:
    await simulator.fault("500:retell:detail")
    report = await services.sync.run(SyncRequest(actor="test"))
    assert set(outcomes(report).values()) == {Outcome.FAILED}
    told = [row.error.message for row in report.outcomes if row.error]
    refused = [message for message in told if message.startswith(f"{NAME} is not asked for now")]
    assert 5 <= len(told) - len(refused) < len(told)
    assert state(services) is BreakerState.OPEN

    await simulator.clear_faults()
    clock.advance(hours=1)
    report = await services.sync.run(SyncRequest(actor="test"))
    assert not report.errors
    assert Outcome.FAILED not in outcomes(report).values()
    assert state(services) is BreakerState.CLOSED


async def test_a_vendor_that_is_down_but_calls_itself_busy_opens_its_breaker(
    simulator: RunningSimulator, tmp_path: Path, clock: FakeClock
) -> None:
    async with services_on(simulator, tmp_path, vendors=("elevenlabs",), clock=clock) as services:
        services.policies.of("ElevenLabs (acme)", retry_options=QUICK)
        await simulator.fault("503:elevenlabs")  # whose body says system_busy
        report = await services.sync.run(SyncRequest(actor="test"))
        assert set(outcomes(report).values()) <= {Outcome.FAILED}
        for _ in range(5):
            await services.companies.test("acme", "elevenlabs")
        view = services.policies.of("ElevenLabs (acme)").view()
        assert view.breaker.state is BreakerState.OPEN
        assert view.last_error_category == "transient"
        assert "503 service unavailable: The system is busy" in view.last_error


async def test_one_broken_agent_does_not_stop_its_vendor(
    services: Services, simulator: RunningSimulator
) -> None:
    broken = (await simulator.agents("retell"))[0]["agent_id"]
    await simulator.fault(f"500:{broken}")
    for _ in range(6):
        report = await services.sync.run(SyncRequest(actor="test", force=True))
        assert [row.agent_id for row in report.outcomes if row.outcome is Outcome.FAILED] == [broken]
        assert state(services) is BreakerState.CLOSED


async def test_the_test_of_a_key_is_asked_though_the_breaker_is_open(services: Services) -> None:
    await services.clients.client(await services.companies.connection("acme", "retell"))
    await services.policies.of(NAME).breaker.trip()
    assert (await services.companies.test("acme", "retell")).ok
    assert state(services) is BreakerState.HALF_OPEN
    assert (await services.companies.test("acme", "retell")).ok
    assert state(services) is BreakerState.CLOSED


async def test_a_key_that_is_not_stored_yet_is_tested_apart(
    services: Services, simulator: RunningSimulator
) -> None:
    await services.policies.of(NAME).breaker.trip()
    check = await services.companies.test_key("retell", key=simulator.key, base_url=simulator.retell_url)
    assert check.ok
    assert state(services) is BreakerState.OPEN


async def test_a_new_key_begins_anew_and_a_removed_connection_leaves_nothing(
    services: Services, simulator: RunningSimulator
) -> None:
    connection = await services.companies.connection("acme", "retell")
    await services.clients.client(connection)
    await services.policies.of(NAME).breaker.trip()
    await services.companies.rotate("acme", "retell", key=simulator.key)
    assert services.policies.find(NAME) is None
    await services.clients.client(connection)
    assert state(services) is BreakerState.CLOSED
    await services.companies.remove_connection("acme", "retell")
    assert services.policies.find(NAME) is None
    assert all(view.name != NAME for view in services.policies.views())


async def test_calls_share_the_policy_of_their_connection(services: Services) -> None:
    connection = await services.companies.connection("acme", "retell")
    client = await services.clients.client(connection)
    assert services.clients.policy(connection) is client.policy is services.policies.of(NAME)
