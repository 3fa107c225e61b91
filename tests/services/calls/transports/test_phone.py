"""Phone calls of both vendors over the simulated telephone network, in a hurry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from services.calls.access import VendorAccess
from services.calls.live import LiveCall
from services.calls.messages import (
    AgentSpeech,
    Connected,
    Cost,
    Ended,
    Message,
    Notice,
    StateChanged,
    ToolEnded,
    UserSpeech,
)
from services.calls.model import Brief, CallState, EndReason
from services.calls.telephony import Placed, TwilioClient, open_phone
from services.calls.telephony.vendors import Order
from services.calls.transport import Transport, TransportEvent
from services.calls.transports.phone import PhoneTransport
from services.clock import SystemClock
from services.errors import ServiceError
from services.model import Provider
from services.security import Secret
from services.simulator import ACCOUNT_SID
from tests.services.calls.transports.contract import PATIENCE, Heard, Line, TransportContract, nothing_left
from tests.support.simulator import RunningSimulator, running_simulator

TO = "+4930901820"
BUSY, NO_ANSWER, FAILED, INVALID, FORBIDDEN = (f"+1500555000{digit}" for digit in (7, 8, 9, 1, 3))
BOUND = {Provider.RETELL: "+15005550100", Provider.ELEVENLABS: "+15005550102"}
ORDERS = {
    Provider.RETELL: "POST /v2/create-phone-call",
    Provider.ELEVENLABS: "POST /v1/convai/twilio/outbound-call",
}
SHORT = {"greeting": "Good morning to you.", "turns": [{"hear": ".", "say": "Goodbye.", "end": True}]}
LONG = {"greeting": "Good morning to you.", "turns": [{"hear": ".", "say": "Well.", "delay_ms": 10**8}]}
"""After the greeting and the callee's first sentence nothing more happens for a day."""


@dataclass
class Intents:
    """An intent log that remembers what it was told."""

    told: list[Any] = field(default_factory=list)
    broken: bool = False

    async def begin(self, number: str) -> str:
        self.told.append(("begin", number))
        return f"intent-{len(self.told)}"

    async def placed(self, ids: Placed) -> None:
        self.told.append(ids)
        if self.broken:
            raise ServiceError("the disk is full")

    async def failed(self, error: ServiceError, certain: bool) -> None:
        self.told.append(("failed", certain))


class World:
    """One vendor's agent, with or without access to the Twilio account it dials through."""

    def __init__(self, simulator: RunningSimulator, provider: Provider, agent_id: str, twilio: bool) -> None:
        self.simulator = simulator
        self.provider = provider
        self.agent_id = agent_id
        self.with_twilio = twilio
        self.token = simulator.key
        self.intents = Intents()
        self.transports: list[Transport] = []

    def transport(self, to: str = TO, **options: Any) -> PhoneTransport:
        simulator, clock = self.simulator, SystemClock()
        url = simulator.retell_url if self.provider is Provider.RETELL else simulator.elevenlabs_url
        access = VendorAccess(self.provider, url, simulator.key)

        async def soon(seconds: float) -> None:
            await asyncio.sleep(min(seconds, 0.02))

        def twilio() -> TwilioClient:
            address = simulator.twilio_url
            return TwilioClient(ACCOUNT_SID, Secret(self.token), clock=clock, base_url=address, sleep=soon)

        settings: dict[str, Any] = {
            "confirmed": True,
            "poll_seconds": 0.02,
            "abandon_seconds": 0.5,
            "patience_seconds": 0.5,
            "sleep": soon,
            **options,
        }
        made = PhoneTransport(
            lambda: open_phone(access, clock, sleep=soon, poll_seconds=0.02),
            self.agent_id,
            to,
            self.intents,
            clock=clock,
            open_twilio=twilio if self.with_twilio else None,
            **settings,
        )
        self.transports.append(made)
        return made

    async def calls(self) -> list[dict[str, Any]]:
        """The calls of the network."""
        found: list[dict[str, Any]] = (await self.simulator.phone())["calls"]
        return found

    async def orders(self) -> int:
        """How many requests to dial the vendor got."""
        routes = (await self.simulator.stats())[self.provider]["by_route"]
        return int(routes.get(ORDERS[self.provider], 0))

    async def hang_up_there(self) -> None:
        """The callee puts the receiver down."""
        for call in await self.calls():
            url = f"{self.simulator.twilio_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{call['sid']}.json"
            async with httpx.AsyncClient(auth=(ACCOUNT_SID, self.simulator.key), trust_env=False) as client:
                await client.post(url, data={"Status": "completed"})


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=4) as running:
        await running.phone(speed=30)
        yield running


async def world_of(simulator: RunningSimulator, provider: Provider, twilio: bool) -> World:
    agents = await simulator.agents(provider)
    return World(simulator, provider, agents[0]["agent_id"], twilio)


@pytest.fixture(params=[Provider.RETELL, Provider.ELEVENLABS])
async def world(simulator: RunningSimulator, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = await world_of(simulator, request.param, True)
    yield made
    for transport in made.transports:
        await transport.close()


@pytest.fixture(params=[Provider.RETELL, Provider.ELEVENLABS])
async def bare(simulator: RunningSimulator, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Without access to Twilio."""
    made = await world_of(simulator, request.param, False)
    yield made
    for transport in made.transports:
        await transport.close()


async def whole(transport: Transport, brief: Brief | None = None) -> list[TransportEvent]:
    """Open, and everything that happens until the end."""
    async with asyncio.timeout(PATIENCE):
        await transport.open(brief or Brief())
        return [event async for event in transport.events()]


def states(events: list[TransportEvent]) -> list[CallState]:
    return [event.state for event in events if isinstance(event, StateChanged)]


def end(events: list[TransportEvent]) -> Ended:
    assert isinstance(events[-1], Ended)
    return events[-1]


def notices(events: list[TransportEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


def spoken(events: Sequence[object]) -> list[str]:
    return [event.text for event in events if isinstance(event, AgentSpeech) and event.final]


async def becomes(wanted: Callable[[], Awaitable[object]]) -> None:
    """Wait until what is asked of the simulator is so."""
    async with asyncio.timeout(PATIENCE):
        while not await wanted():  # noqa: ASYNC110  # the simulator has no other way to tell
            await asyncio.sleep(0.01)


async def until(transport: Transport, wanted: Callable[[TransportEvent], bool]) -> list[TransportEvent]:
    """The events up to the first that is wanted."""
    seen: list[TransportEvent] = []
    async with asyncio.timeout(PATIENCE):
        async for event in transport.events():
            seen.append(event)
            if wanted(event):
                return seen
    raise AssertionError(seen)


def live(event: TransportEvent) -> bool:
    return isinstance(event, StateChanged) and event.state is CallState.LIVE


# The contract


class PhoneLine(Line):
    can = frozenset({"agent_speaks", "agent_ends", "drop", "refuse", "stall"})
    agent_end_reasons = frozenset({EndReason.CALLEE_ENDED})
    drop_reasons = frozenset({EndReason.CONNECTION_LOST})
    refuse_reasons = frozenset({EndReason.LIMIT})

    def __init__(self, world: World) -> None:
        self.world = world

    def transport(self) -> Transport:
        return self.world.transport()

    async def agent_speaks(self, heard: Heard) -> str:
        return str(LONG["greeting"])

    async def agent_ends(self, heard: Heard) -> None:
        await self.world.hang_up_there()

    async def drop(self) -> None:
        await self.world.simulator.fault("drop")

    async def refuse(self) -> None:
        await self.world.simulator.fault("402:call")

    async def stall(self) -> None:
        await self.world.simulator.fault("hang:call")


class TestRetell(TransportContract):
    @pytest.fixture
    async def line(self, simulator: RunningSimulator) -> PhoneLine:
        await simulator.script(LONG)
        return PhoneLine(await world_of(simulator, Provider.RETELL, True))


class TestElevenLabs(TransportContract):
    @pytest.fixture
    async def line(self, simulator: RunningSimulator) -> PhoneLine:
        await simulator.script(LONG)
        return PhoneLine(await world_of(simulator, Provider.ELEVENLABS, True))


# Whole calls


async def test_a_whole_call(world: World) -> None:
    before = asyncio.all_tasks()
    transport = world.transport()
    events = await whole(transport)
    assert states(events) == [CallState.CONNECTING, CallState.QUEUED, CallState.RINGING, CallState.LIVE]
    connected = next(event for event in events if isinstance(event, Connected))
    placed = world.intents.told[1]
    assert connected.conversation_id == placed.conversation_id
    assert (placed.call_sid, placed.from_number) == ((await world.calls())[0]["sid"], BOUND[world.provider])
    said = [event.text for event in events if isinstance(event, UserSpeech) and event.final]
    assert [text.split()[-1] for text in said] == ["open?", "appointment.", "goodbye."]
    assert spoken(events)[-1] == "Thank you for calling. Goodbye!"
    assert len([event for event in events if isinstance(event, ToolEnded) and event.ok]) == 2
    assert (end(events).reason, end(events).by) == (EndReason.AGENT_ENDED, "agent")
    await transport.close()
    after = await transport.aftermath()
    picture = LiveCall()
    for event in events:
        if isinstance(event, Message):
            picture.apply(0, event)
    heard = world.provider is Provider.RETELL
    assert bool(picture.latencies) == heard, "a transcript that is polled tells nothing of latencies"
    costs = [message for message in after if isinstance(message, Cost)]
    assert len(costs) == 1
    assert costs[0].amount > 0
    assert any("Twilio charged 0.014 USD" in message.text for message in after if isinstance(message, Notice))
    await nothing_left(before)


async def test_without_access_to_twilio_the_vendor_tells_how_it_stands(bare: World) -> None:
    await bare.simulator.script(SHORT)
    events = await whole(bare.transport())
    assert states(events) == [CallState.CONNECTING, CallState.QUEUED, CallState.LIVE]
    assert [e.text for e in events if isinstance(e, AgentSpeech) and e.final] == [
        SHORT["greeting"],
        "Goodbye.",
    ]
    assert end(events).reason is EndReason.AGENT_ENDED
    warned = any("cannot be hung up" in text for text in notices(events))
    assert warned == (bare.provider is Provider.ELEVENLABS)


@pytest.mark.parametrize("kind", ["world", "bare"])
@pytest.mark.parametrize(
    ("to", "reasons"),
    [
        (BUSY, {EndReason.BUSY}),
        (NO_ANSWER, {EndReason.NO_ANSWER}),
        (FAILED, {EndReason.UNREACHABLE, EndReason.VENDOR_ERROR}),
    ],
)
async def test_calls_nobody_answers(
    kind: str, to: str, reasons: set[EndReason], request: pytest.FixtureRequest, simulator: RunningSimulator
) -> None:
    await simulator.phone(speed=1000)
    for provider in Provider:
        world = await world_of(simulator, provider, kind == "world")
        transport = world.transport(to)
        events = await whole(transport)
        assert end(events).reason in reasons, provider
        assert not [event for event in events if isinstance(event, Connected)]
        assert isinstance(world.intents.told[-1], Placed)
        await transport.close()
        assert await transport.aftermath() == []


async def test_the_callee_hangs_up(world: World) -> None:
    await world.simulator.script(LONG)
    transport = world.transport()
    await transport.open(Brief())
    await until(transport, live)
    await world.hang_up_there()
    rest = await until(transport, lambda event: isinstance(event, Ended))
    assert (end(rest).reason, end(rest).by) == (EndReason.CALLEE_ENDED, "callee")


async def test_a_call_that_is_over_between_two_looks_keeps_its_transcript(world: World) -> None:
    await world.simulator.script(SHORT)
    await world.simulator.phone(speed=0)
    transport = world.transport(poll_seconds=0.2)
    await transport.open(Brief())
    await world.simulator.phone(advance_ms=60_000)
    await world.simulator.phone(speed=1)
    events = await until(transport, lambda event: isinstance(event, Ended))
    assert states(events)[-1] is CallState.LIVE
    assert end(events).reason is EndReason.AGENT_ENDED
    await transport.close()
    told = [*events, *await transport.aftermath()]
    assert "Goodbye." in spoken(told)


# What is not dialled


@pytest.mark.parametrize(
    ("to", "options", "reason"),
    [
        ("030 901820", {}, EndReason.INVALID_NUMBER),
        (TO, {"confirmed": False}, EndReason.NOT_ALLOWED),
        (TO, {"allowed": ["+4940*"]}, EndReason.NOT_ALLOWED),
        (TO, {"source": "+15005559999"}, EndReason.VENDOR_ERROR),
    ],
)
async def test_nothing_is_ordered(world: World, to: str, options: Any, reason: EndReason) -> None:
    transport = world.transport(to, **options)
    with pytest.raises(ServiceError):
        await transport.open(Brief())
    events = [event async for event in transport.events()]
    assert end(events).reason is reason
    assert world.intents.told == []
    assert await world.orders() == 0


async def test_a_number_on_the_list_needs_no_confirmation(world: World) -> None:
    await world.simulator.script(SHORT)
    events = await whole(world.transport(confirmed=False, allowed=["+4930*"]))
    assert end(events).reason.well


@pytest.mark.parametrize("fault", ["402:call", "401:call", "422:call", "429:call"])
async def test_an_order_that_was_refused_is_certain(world: World, fault: str) -> None:
    await world.simulator.fault(fault)
    transport = world.transport()
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief())
    assert caught.value.code != "maybe_placed"
    assert world.intents.told == [("begin", TO), ("failed", True)]
    assert await world.orders() == 1, "not even a 429 is tried again"
    assert await world.calls() == []


async def test_twilios_refusal_has_its_reason(world: World) -> None:
    for to, reason in ((INVALID, EndReason.INVALID_NUMBER), (FORBIDDEN, EndReason.NOT_ALLOWED)):
        transport = world.transport(to)
        try:
            await transport.open(Brief())
        except ServiceError:
            assert world.provider is Provider.ELEVENLABS
        events = await until(transport, lambda event: isinstance(event, Ended))
        assert end(events).reason is reason
        await transport.close()


# At most once


async def test_a_lost_answer_to_an_order_that_was_placed(world: World) -> None:
    await world.simulator.script(SHORT)
    await world.simulator.fault("drop:call:at=body:x1")
    events = await whole(world.transport())
    assert end(events).reason is EndReason.AGENT_ENDED
    assert any("the call is there" in text for text in notices(events))
    assert (await world.orders(), len(await world.calls())) == (1, 1)
    placed = world.intents.told[1]
    assert placed.call_sid == (await world.calls())[0]["sid"]
    assert next(event for event in events if isinstance(event, Connected)).conversation_id


@pytest.mark.parametrize("fault", ["500:call", "504:call", "drop:call", "html:call"])
async def test_an_order_is_never_sent_twice(world: World, fault: str) -> None:
    await world.simulator.fault(fault)
    transport = world.transport()
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief())
    events = [event async for event in transport.events()]
    assert caught.value.code == "maybe_placed"
    assert "Twilio" in caught.value.advice
    assert end(events).reason is EndReason.MAYBE_PLACED
    assert world.intents.told == [("begin", TO), ("failed", False)]
    assert await world.orders() == 1


async def test_an_answer_that_cannot_be_read(simulator: RunningSimulator) -> None:
    world = await world_of(simulator, Provider.ELEVENLABS, True)
    await simulator.script(SHORT)
    await simulator.fault("truncate:call:x1")
    events = await whole(world.transport())
    assert any("the call is there" in text for text in notices(events))
    assert (await world.orders(), len(await world.calls())) == (1, 1)


async def test_a_lost_call_is_found_at_twilio_alone(world: World) -> None:
    """The vendor cannot be asked any more: the call is followed and hung up at Twilio."""
    await world.simulator.script(LONG)
    await world.simulator.fault("drop:call:at=body:x1")
    transport = world.transport()
    transport._vendor.find = _broken  # type: ignore[method-assign]
    await transport.open(Brief())
    seen = await until(transport, lambda event: isinstance(event, Notice) and "not shown" in event.text)
    assert states(seen)[-1] is CallState.LIVE
    assert world.intents.told[1].conversation_id == ""
    await transport.close()
    assert [call["status"] for call in await world.calls()] == ["completed"]
    assert await world.orders() == 1


async def _broken(order: Order) -> Placed | None:
    raise ServiceError("the list of calls does not answer")


async def test_given_up_while_the_order_is_under_way(world: World) -> None:
    """The vendor's answer comes late: the call it tells of is hung up."""
    await world.simulator.script(LONG)
    await world.simulator.fault("latency:call:ms=200:x1")
    transport = world.transport(abandon_seconds=10)
    opening = asyncio.create_task(transport.open(Brief()))
    await becomes(world.orders)
    opening.cancel()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert [call["ended_by"] for call in await world.calls()] == ["api"]
    assert isinstance(world.intents.told[-1], Placed)


async def test_ids_that_cannot_be_stored_do_not_lose_the_call(world: World) -> None:
    await world.simulator.script(SHORT)
    world.intents.broken = True
    events = await whole(world.transport())
    assert end(events).reason is EndReason.AGENT_ENDED
    assert any("could not be stored" in text for text in notices(events))


# Hanging up


async def test_hanging_up_while_it_rings(world: World) -> None:
    await world.simulator.phone(number=TO, ring_ms=10**6)
    transport = world.transport()
    await transport.open(Brief())
    await until(transport, lambda e: isinstance(e, StateChanged) and e.state is CallState.RINGING)
    await transport.close()
    rest = [event async for event in transport.events()]
    assert end(rest).reason is EndReason.OPERATOR_ENDED
    assert [call["status"] for call in await world.calls()] == ["canceled"]


async def test_hanging_up_takes_the_last_words_along(world: World) -> None:
    await world.simulator.script(LONG)
    transport = world.transport()
    await transport.open(Brief())
    seen = await until(transport, live)

    async def user_has_spoken() -> bool:
        return len((await world.simulator.conversations())[0]["transcript"]) > 1

    await becomes(user_has_spoken)
    await transport.close()
    seen += [event async for event in transport.events()]
    assert (end(seen).reason, end(seen).by) == (EndReason.OPERATOR_ENDED, "operator")
    assert "Hello, when are you open?" in [e.text for e in seen if isinstance(e, UserSpeech) and e.final]
    assert [call["status"] for call in await world.calls()] == ["completed"]


async def test_hanging_up_without_twilio(bare: World) -> None:
    await bare.simulator.script(LONG)
    transport = bare.transport()
    await transport.open(Brief())
    await until(transport, live)
    await transport.close()
    rest = [event async for event in transport.events()]
    assert end(rest).reason is EndReason.OPERATOR_ENDED
    status = [call["status"] for call in await bare.calls()]
    if bare.provider is Provider.RETELL:
        assert (status, end(rest).detail) == (["completed"], "")
    else:
        assert status == ["in-progress"]
        assert "may go on" in end(rest).detail


# What is told, and what goes wrong on the way


async def test_the_agent_is_told_at_once_or_when_it_answers(simulator: RunningSimulator) -> None:
    world = await world_of(simulator, Provider.RETELL, True)
    await simulator.script(LONG)
    await simulator.phone(number=TO, ring_ms=6000)
    transport = world.transport()
    await transport.open(Brief())
    await transport.send_context("The caller is called Ada.")
    await until(transport, live)
    await transport.send_context("It rains.")
    placed = world.intents.told[1]
    async with httpx.AsyncClient(
        headers={"authorization": f"Bearer {simulator.key}"}, trust_env=False
    ) as client:
        call = (await client.get(f"{simulator.retell_url}/v2/get-call/{placed.conversation_id}")).json()
    told = [item["content"] for item in call["transcript_with_tool_calls"] if item["role"] == "injected"]
    assert told == ["The caller is called Ada.", "It rains."]
    await transport.close()
    await transport.send_context("too late")


async def test_the_brief_reaches_the_agent(world: World) -> None:
    await world.simulator.script({"turns": [{"hear": ".", "end": True}]})
    brief = Brief(first_message="Good day, {{name}}.", variables={"name": "Ada", "visits": 3})
    events = await whole(world.transport(), brief)
    assert spoken(events)[0] == "Good day, Ada."
    given = (await world.simulator.conversations())[0]["initiation"]
    variables = given["dynamic_variables"]
    assert str(variables["visits"]) == "3"


async def test_another_twilio_account_leaves_the_vendor_to_ask(world: World) -> None:
    await world.simulator.script(SHORT)
    world.token = "wrong"
    events = await whole(world.transport())
    assert end(events).reason is EndReason.AGENT_ENDED
    assert any("Twilio cannot tell" in text for text in notices(events))


async def test_looks_that_fail_are_repeated(world: World) -> None:
    await world.simulator.script(SHORT)
    await world.simulator.fault("503:twilio:x4")
    events = await whole(world.transport(patience_seconds=60))
    assert end(events).reason is EndReason.AGENT_ENDED
    assert sum("How the call stands is not known" in text for text in notices(events)) == 1


async def test_without_the_monitor_the_transcript_comes_afterwards(simulator: RunningSimulator) -> None:
    world = await world_of(simulator, Provider.RETELL, True)
    await simulator.script(SHORT)
    transport = world.transport()
    transport._vendor.follow = _refused  # type: ignore[method-assign]
    events = await whole(transport)
    assert any("The transcript stops" in text for text in notices(events))
    assert not [event for event in events if isinstance(event, AgentSpeech)]
    assert end(events).reason is EndReason.AGENT_ENDED
    await transport.close()
    assert spoken(await transport.aftermath()) == [SHORT["greeting"], "Goodbye."]


async def _refused(conversation_id: str) -> AsyncIterator[Any]:
    raise ServiceError("no seat at the monitor")
    yield


async def test_numbers_of_the_agent_come_first(world: World) -> None:
    vendor = world.transport()._vendor
    found = await vendor.numbers(world.agent_id)
    assert [number.bound for number in found] == [True, False]
    assert found[0].number == BOUND[world.provider]
    other = await vendor.numbers("agent_other")
    assert not any(number.bound for number in other)
