"""kill -9 between intent and answer: the message is settled by asking, or unknown; never sent twice."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from services.integrations.messages import Channel, MessageState
from tests.services.integrations.messages.conftest import TO, World
from tests.support.simulator import RunningSimulator
from tests.support.world import FakeClock, services_on

ROOT = Path(__file__).resolve().parents[4]
BODY = "See you at nine"
ROUTES = {
    "twilio": "POST /2010-04-01/Accounts/*/Messages.json",
    "whatsapp": "POST /whatsapp/*/*/messages",
    "gateway": "POST /messages-gateway/messages",
}


@pytest.fixture
async def world(simulator, tmp_path):
    """With the machine's time: the process that is killed has no other."""
    clock = FakeClock(time.time_ns() // 1_000_000)
    async with services_on(simulator, tmp_path, clock=clock, vendors=()) as services:
        yield World(services, simulator, clock)


async def start(world: World, tmp_path: Path, channel: str = "sms") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.services.integrations.messages.sender",
        str(tmp_path / "callboard.db"),
        channel,
        TO,
        world.simulator.key,
        BODY,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )


async def killed_in_flight(world: World, tmp_path: Path, kind: str, channel: str = "sms") -> None:
    """Kill it once its order has reached the simulator."""
    process = await start(world, tmp_path, channel)
    async with asyncio.timeout(40):
        while not await orders(world.simulator, kind):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def orders(simulator: RunningSimulator, kind: str) -> int:
    return (await simulator.stats())["by_route"].get(ROUTES[kind], 0)


async def again(world: World, channel: Channel = Channel.SMS):
    """The same order in another process, as a careful caller repeats it."""
    return await world.messages.send_message("acme", channel, TO, body=BODY, idempotency_key="order-1")


@pytest.mark.parametrize(
    ("kind", "channel", "fault", "state"),
    [
        # Taken over, its answer never arrives: found by asking.
        ("twilio", "sms", "slow:twilio:write:ms=600000", MessageState.SENDING),
        ("gateway", "sms", "slow:messages-gateway:write:ms=600000", MessageState.SENDING),
        # Never taken over, and Twilio cannot say so for certain; a gateway can.
        ("twilio", "sms", "hang:twilio:write", MessageState.UNKNOWN),
        ("gateway", "sms", "hang:messages-gateway:write", MessageState.FAILED),
        # Nobody can be asked.
        ("whatsapp", "whatsapp", "slow:whatsapp:write:ms=600000", MessageState.UNKNOWN),
    ],
)
async def test_what_became_of_it_is_asked_for_and_nothing_is_repeated(
    world, tmp_path, kind, channel, fault, state
):
    await {"twilio": world.add_twilio, "gateway": world.add_gateway, "whatsapp": world.add_whatsapp}[kind]()
    await world.simulator.phone(speed=0)
    await world.simulator.fault(fault)
    await killed_in_flight(world, tmp_path, kind, channel)
    await world.simulator.clear_faults()
    before = await orders(world.simulator, kind)
    assert (await again(world, Channel(channel))).state is MessageState.QUEUED  # its process may be alive
    assert await world.messages.settle() == ()
    world.clock.advance(minutes=4)
    (row,) = await world.messages.settle()
    assert row.state is state
    assert (await again(world, Channel(channel))).id == row.id
    assert await world.messages.settle() == ()
    assert await orders(world.simulator, kind) == before == 1
    if state is MessageState.SENDING:
        await world.simulator.phone(speed=1)
        assert (await world.until(row.id, MessageState.DELIVERED)).id == row.id
        assert await orders(world.simulator, kind) == 1


async def test_killed_at_random_moments_it_is_sent_once_at_most(world, tmp_path):
    await world.add_twilio()
    await world.simulator.fault("latency:twilio:ms=150")
    chance = random.Random(20261129)
    for _ in range(6):
        process = await start(world, tmp_path)
        # Not a wait for anything: it spreads the kill over the whole life of the process.
        await asyncio.sleep(0.4 + chance.random())
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    row = await again(world)
    world.clock.advance(minutes=4)
    await world.messages.settle()
    row = await world.until(row.id, MessageState.DELIVERED, MessageState.UNKNOWN)
    assert await orders(world.simulator, "twilio") <= 1
    assert len(await world.messages.list()) == 1
