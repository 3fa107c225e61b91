"""What people and agents begin at vendors counts against the limits; what is read for the mirror does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.agents import SyncRequest
from services.calls.live import Who
from services.calls.model import Brief, TransportKind
from services.calls.request import CallRequest
from services.calls.session import CallSession
from services.companies.service import actor
from services.container import Services
from services.errors import Category, ServiceError
from services.model import AgentCard
from services.resilience import Level, Limits, Policies, Subject
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.world import FakeClock, services_on

NAMES = {"retell": "Retell (acme)", "elevenlabs": "ElevenLabs (acme)"}


def most(**limits: int) -> Limits:
    return Limits(**{"minute": 0, "hour": 0, "day": 0, "burst": 0, **limits})


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=8) as running:
        yield running


@asynccontextmanager
async def limited(
    simulator: RunningSimulator, folder: Path, limits: Limits, **more: Any
) -> AsyncIterator[Services]:
    async with services_on(simulator, folder, limits=limits, **more) as services:
        await services.sync.run(SyncRequest(cause="test"))
        yield services


async def agents(services: Services, provider: str) -> list[AgentCard]:
    return [card for card in await services.agents.cards() if card.provider == provider]


async def used(services: Services, provider: str) -> dict[Level, int]:
    """What the longest window of each level knows."""
    policy = services.policies.of(NAMES[provider])
    assert policy.limiter is not None
    card = (await agents(services, provider))[0]
    subject = Subject("acme", card.agent_id, actor())
    return {budget.level: budget.used for budget in await policy.limiter.budgets(subject)}


async def live(session: CallSession) -> None:
    news = asyncio.Event()
    unsubscribe = session.subscribe(lambda areas: news.set())
    async with asyncio.timeout(20):
        while session.live.live_at is None:
            assert session.live.ended is None, session.live.ended
            news.clear()
            await news.wait()
    unsubscribe()


@pytest.mark.parametrize("provider", ["retell", "elevenlabs"])
async def test_a_conversation_and_each_typed_turn_are_counted_for_all_three(
    simulator: RunningSimulator, tmp_path: Path, provider: str
) -> None:
    async with limited(simulator, tmp_path, most(day=3)) as services:
        # The sync has read every agent of both vendors.
        assert await used(services, provider) == dict.fromkeys(Level, 0)
        card = (await agents(services, provider))[0]
        session = await services.calls.start(CallRequest(card.id, TransportKind.TEXT))
        await live(session)
        assert await used(services, provider) == dict.fromkeys(Level, 1)
        await session.say("When are you open?")
        await session.say("Thank you")
        with pytest.raises(ServiceError) as caught:
            await session.say("One more thing")
        assert (caught.value.code, caught.value.category) == ("limited", Category.RATE_LIMIT)
        assert "has used up what it may ask within one day" in caught.value.message
        typed = [entry.text for entry in session.live.entries if entry.who is Who.USER]
        assert "One more thing" not in typed
        assert session.live.ended is None, "a turn that is refused ends nothing"
        await session.end()
        await session.settled()


async def test_a_call_that_has_no_room_is_refused_before_it_begins(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    clock = FakeClock()
    async with limited(simulator, tmp_path, most(minute=1), clock=clock) as services:
        one, other = (await agents(services, "retell"))[:2]
        request = CallRequest(one.id, TransportKind.TEXT)
        assert not (await services.calls.prepare(request)).warnings
        session = await services.calls.start(request)
        await session.end()
        before = (await simulator.stats())["retell"]["requests"]
        [warning] = (await services.calls.prepare(CallRequest(other.id, TransportKind.TEXT))).warnings
        assert warning.startswith("Retell (acme) was not asked: this account has used up what it may ask")
        assert "room again in" in warning
        with pytest.raises(ServiceError) as caught:
            await services.calls.start(CallRequest(other.id, TransportKind.TEXT))
        assert (caught.value.code, bool(caught.value.retry_after)) == ("limited", True)
        assert len(await services.calls.rows()) == 1
        assert (await simulator.stats())["retell"]["requests"] == before
        # All of it at once: what was refused took nothing from the agent, which would have had room.
        policy = services.policies.of(NAMES["retell"])
        assert policy.limiter is not None
        budgets = await policy.limiter.budgets(Subject("acme", other.agent_id))
        assert {budget.level: budget.used for budget in budgets} == {Level.ACCOUNT: 1, Level.AGENT: 0}
        # The vendors share the account's limit; a mock is nobody's.
        eleven = (await agents(services, "elevenlabs"))[0]
        with pytest.raises(ServiceError, match="ElevenLabs \\(acme\\) was not asked"):
            await services.calls.start(CallRequest(eleven.id, TransportKind.TEXT))
        assert not (await services.calls.prepare(CallRequest(None, TransportKind.MOCK))).warnings
        clock.advance(seconds=61)
        again = await services.calls.start(request)
        await again.end()


async def test_syncs_and_tests_of_a_key_are_not_held_back(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with limited(simulator, tmp_path, most(day=1)) as services:
        for _ in range(2):
            report = await services.sync.run(SyncRequest(cause="test", force=True))
            assert not report.errors
            assert (await services.companies.test("acme", "retell")).ok
        assert services.policies.of(NAMES["retell"]).stats.refused_by_limit == 0


async def test_a_phone_call_is_counted_once_and_not_again_where_a_message_was(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with limited(simulator, tmp_path, most(day=5)) as services:
        card = (await agents(services, "retell"))[0]
        request = CallRequest(card.id, TransportKind.PHONE, number="+4930123456", confirmed=True)
        session = await services.calls.start(request)
        await session.end()
        assert (await used(services, "retell"))[Level.ACCOUNT] == 1
        # A message by phone counts itself: the call that it is brings no second one.
        session = await services.calls.start(replace(request, counted=True))
        await session.end()
        assert (await used(services, "retell"))[Level.ACCOUNT] == 1


async def test_a_suite_takes_its_turns_beforehand_and_waits_for_room(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    clock = FakeClock()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds=seconds)

    told: list[ServiceError] = []
    async with services_on(simulator, tmp_path, clock=clock) as services:
        services.policies = Policies(clock, sleep=sleep, default_limits=most(minute=3))
        del services.__dict__["clients"], services.__dict__["companies"]
        await services.sync.run(SyncRequest(cause="test"))
        card = (await agents(services, "retell"))[0]
        for _ in range(2):
            transport = await services.calls.open_transport(
                card.id, TransportKind.TEXT, Brief(), turns=2, on_wait=told.append
            )
            await transport.open(Brief())
            await transport.send_text("When are you open?")
            await transport.close()
        assert (await used(services, "retell"))[Level.AGENT] == 3
        assert len(told) == len(slept) == 1
        assert slept[0] == pytest.approx(60, abs=5)
        assert "room again in" in told[0].message
        # Who does not wait is refused.
        with pytest.raises(ServiceError, match="this account has used up"):
            await services.calls.open_transport(card.id, TransportKind.TEXT, Brief())


async def test_the_panel_of_a_connection_shows_what_is_left(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with limited(simulator, tmp_path, Limits()) as services:
        card = (await agents(services, "retell"))[0]
        session = await services.calls.start(CallRequest(card.id, TransportKind.TEXT))
        await session.end()
        view = await services.health.check_now(["provider:acme/retell"])
        [check] = [one for one in view.checks if one.id == "provider:acme/retell"]
        minutes = {each.level: each for each in check.budgets if each.window == "minute"}
        assert (minutes[Level.ACCOUNT].used, minutes[Level.ACCOUNT].remaining) == (1, 59)
