"""Messages by phone: a call of an agent, under the rules of calls, followed to its end."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from services.agents import SyncRequest
from services.calls.model import CallTarget, TransportKind
from services.calls.store import insert, new_record
from services.errors import ServiceError, UsageError
from services.events import CallsChanged
from services.integrations.effects import Effects, EffectState
from services.integrations.messages import Channel, MessageState
from tests.services.integrations.messages.conftest import World
from tests.support.simulator import running_simulator
from tests.support.world import FakeClock, services_on

ANSWERS, BUSY = "+4930123456", "+15005550007"
DELIVERED, FAILED, SENT, SENDING = (
    MessageState.DELIVERED,
    MessageState.FAILED,
    MessageState.SENT,
    MessageState.SENDING,
)


@pytest.fixture
async def world(tmp_path):
    async with running_simulator(agents=4) as simulator:
        await simulator.phone(speed=20)
        clock = FakeClock()
        for known in await simulator.agents("retell"):
            with contextlib.suppress(ValueError):  # an engine without a prompt
                await simulator.edit(known["agent_id"], general_prompt="Tell the caller: {{message}}")
        async with services_on(simulator, tmp_path, clock=clock) as services:
            await services.sync.run(SyncRequest(cause="test"))
            yield World(services, simulator, clock)


async def agent(world: World, provider: str = "retell") -> int:
    return next(card.id for card in await world.services.agents.cards() if card.provider == provider)


async def ring(world: World, to: str = ANSWERS, **more):
    return await world.messages.send_message(
        "acme",
        Channel.PHONE,
        to,
        **{"body": "The car is ready", "agent_id": await agent(world), "actor": "me", **more},
    )


async def over(world: World, message_id: str):
    """The message once its call is over."""
    changed = asyncio.Event()
    stop = world.services.bus.subscribe(CallsChanged, lambda event: changed.set())
    async with asyncio.timeout(60):
        while not (row := await world.messages.get(message_id)).state.final and row.followed:
            changed.clear()
            world.clock.advance(seconds=5)
            await world.messages.look_at_due()
            if not (await world.messages.get(message_id)).state.final:
                await changed.wait()
    stop()
    return row


async def what_the_agent_got(world: World, call_id: str) -> dict[str, str]:
    headers = {"authorization": f"Bearer {world.simulator.key}"}
    async with httpx.AsyncClient(
        base_url=world.simulator.retell_url, headers=headers, trust_env=False
    ) as client:
        answer = await client.get(f"/v2/get-call/{call_id}")
    found: dict[str, str] = answer.json()["retell_llm_dynamic_variables"]
    return found


async def test_a_number_on_the_list_is_called_and_the_text_goes_along(world):
    await world.services.telephony.allow("acme", [ANSWERS])
    row = await ring(world)
    assert row.state in (SENDING, SENT)
    assert (row.adapter, row.integration, row.simulated) == ("phone", "phone calls", True)
    call = await world.services.calls.row(row.provider_id)
    assert (call.number, call.transport) == (ANSWERS, TransportKind.PHONE)
    row = await over(world, row.id)
    assert row.state is DELIVERED
    assert row.remark.startswith("The call: ")
    assert await what_the_agent_got(world, call.conversation_id) == {"message": "The car is ready"}
    events = [event.state for event in await world.messages.events(row.id)]
    assert events[0] is MessageState.QUEUED
    assert events[-1] is DELIVERED


async def test_nobody_is_called_who_was_not_confirmed(world):
    with pytest.raises(ServiceError) as caught:
        await ring(world)
    assert caught.value.code == "not_confirmed"
    assert await world.messages.list() == []
    assert await world.services.calls.rows() == []
    row = await ring(world, confirmed=True)
    assert (await over(world, row.id)).state is DELIVERED


async def test_a_list_forbids_everybody_else(world):
    await world.services.telephony.allow("acme", ["+49301*"])
    with pytest.raises(ServiceError) as caught:
        await ring(world, "+4940123456", confirmed=True)
    assert caught.value.code == "not_allowed"
    assert await world.services.calls.rows() == []


async def test_a_busy_number_is_a_failure_with_advice(world):
    row = await ring(world, BUSY, confirmed=True)
    row = await over(world, row.id)
    assert row.state is FAILED
    assert row.error is not None
    assert "later" in row.error.advice


async def test_the_same_key_rings_once(world):
    rows = [await ring(world, confirmed=True, idempotency_key="k") for _ in range(3)]
    assert len({row.id for row in rows}) == 1
    assert len(await world.services.calls.rows()) == 1
    await over(world, rows[0].id)


async def test_an_agent_that_would_not_say_it_is_not_called(world):
    with pytest.raises(UsageError) as caught:
        await ring(world, confirmed=True, agent_id=await agent(world, "elevenlabs"))
    assert caught.value.code == "brief_refused"
    assert "{{message}}" in caught.value.advice
    with pytest.raises(UsageError) as caught:
        await ring(world, confirmed=True, agent_id=None)
    assert caught.value.code == "no_agent"
    assert await world.messages.list() == []


async def test_a_process_that_died_is_looked_up_in_the_list_of_calls(world):
    """The call's row is written before it is dialled: without one nobody rang."""
    effects = Effects(world.services.open_database, world.clock)
    called, never = [await _left_behind(world, effects, to) for to in (ANSWERS, "+4930999999")]
    row = new_record(
        "c0ffee",
        CallTarget(await agent(world), "a", "Desk", "acme", "retell"),
        TransportKind.PHONE,
        company_id=1,
        now=world.clock.now(),
        actor="me",
        number=ANSWERS,
        intent="callboard-c0ffee",
    )
    database = await world.services.open_database()
    await database.write(lambda session: insert(session, row))
    world.clock.advance(minutes=10)
    settled = {each.id: each for each in await world.messages.settle()}
    assert settled[never].state is FAILED
    effect = await world.services.effects.get(never)
    assert effect is not None
    assert effect.state is EffectState.FAILED
    assert settled[called].state is MessageState.UNKNOWN
    assert settled[called].provider_id == "c0ffee"


async def _left_behind(world: World, effects: Effects, to: str) -> str:
    """A message whose process was killed before its answer."""
    from services.integrations.effects import Intent
    from services.integrations.messages import store
    from services.integrations.messages.model import Order
    from services.integrations.messages.service import _BUILT_IN_PHONE
    from services.integrations.model import Resolved
    from services.security import Secret

    order = Order(
        "", "acme", Channel.PHONE, to, body="x", agent_row=await agent(world), created_at=world.clock.now()
    )
    made: list[str] = []

    def also(session, effect):
        from dataclasses import replace

        made.append(effect.id)
        store.insert(session, replace(order, id=effect.id), Resolved(_BUILT_IN_PHONE, Secret("")), 1, "")

    await effects._begin(Intent("message", f"key {to}", to, 1), also)
    return made[0]
