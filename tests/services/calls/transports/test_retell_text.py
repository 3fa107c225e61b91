"""Typing with Retell agents: playground and chat, against the simulator and servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from services.calls.access import VendorAccess
from services.calls.messages import (
    AgentSpeech,
    Connected,
    Cost,
    Ended,
    Notice,
    StateChanged,
    ToolEnded,
    ToolStarted,
)
from services.calls.model import Brief, CallState, EndReason, TransportKind
from services.calls.transports import retell_text
from services.calls.transports.retell_text import RetellText
from services.errors import ServiceError
from services.model import Provider
from tests.services.calls.transports.contract import Heard, Line, TransportContract, nothing_left, opened
from tests.services.providers.test_contract import check_query, find, load_spec
from tests.support.rawserver import RawServer, Reply, Seen, raw_server, reply
from tests.support.simulator import RunningSimulator, running_simulator

GREETING = "Hello, this is the clinic."
MODES = ("playground", "chat")


async def no_wait(_: float) -> None:
    """Waits between attempts are over at once."""


class TextLine(Line):
    """A simulated Retell that answers, and ends the conversation when it is told good-bye."""

    can: ClassVar[frozenset[str]] = frozenset({"agent_speaks", "agent_ends", "refuse", "stall"})
    refuse_reasons = frozenset({EndReason.AUTHENTICATION})

    def __init__(self, simulator: RunningSimulator, agent_id: str, mode: Any) -> None:
        self.simulator, self.agent_id, self.mode = simulator, agent_id, mode
        self.key = simulator.key

    async def plays(self, **script: Any) -> None:
        await self.simulator.script({"think_ms": 5, **script})

    def transport(self) -> RetellText:
        access = VendorAccess(Provider.RETELL, self.simulator.retell_url, self.key)
        return RetellText(access, self.agent_id, mode=self.mode, sleep=no_wait)

    async def agent_speaks(self, heard: Heard) -> str:
        await heard.until(lambda event: isinstance(event, AgentSpeech))
        return GREETING

    async def agent_ends(self, heard: Heard) -> None:
        await heard.transport.send_text("bye")

    async def refuse(self) -> None:
        self.key = "not-the-key-0000"

    async def stall(self) -> None:
        await self.simulator.fault("hang:retell")


@pytest.fixture(params=MODES)
async def line(request: pytest.FixtureRequest) -> AsyncIterator[TextLine]:
    async with running_simulator(agents=6, seed=7) as simulator:
        agents = await simulator.agents("retell")
        found = TextLine(simulator, agents[1]["agent_id"], request.param)
        bye = {"hear": "bye", "say": "Good bye.", "end": True}
        await found.plays(greeting=GREETING, turns=[bye, {"hear": "open", "say": "At eight."}])
        yield found


class TestRetellText(TransportContract):
    """The contract of all transports, in both modes."""

    @pytest.fixture
    async def line(self, line: TextLine) -> TextLine:
        return line


def is_said(text: str) -> Any:
    return lambda event: isinstance(event, AgentSpeech) and event.text == text


# -- talking ------------------------------------------------------------------------------------------


async def test_a_whole_conversation(line: TextLine) -> None:
    async with opened(line) as heard:
        assert heard.transport.kind is TransportKind.TEXT
        assert heard.transport.capabilities.context is (line.mode == "playground")
        await heard.until(is_said(GREETING))
        await heard.transport.send_text("When are you open?")
        await heard.transport.send_text("bye")
        ended = await heard.end()
    assert (ended.reason, ended.by) == (EndReason.AGENT_ENDED, "agent")
    said = [event.text for event in heard.of(AgentSpeech)]  # type: ignore[union-attr]
    assert said == [GREETING, "At eight.", "Good bye."]
    numbers = [event.event_id for event in heard.of(AgentSpeech)]  # type: ignore[union-attr]
    assert numbers == [1, 2, 3]
    assert bool(heard.of(Connected)[0].conversation_id) is (line.mode == "chat")  # type: ignore[union-attr]


async def test_tools_are_shown(line: TextLine) -> None:
    tool = {"name": "look_up", "arguments": {"day": 3}, "result": {"free": ["10:15"]}}
    bad = {"name": "pay", "arguments": {}, "result": "no money", "error": True, "on_error": "Sorry."}
    await line.plays(greeting="", turns=[{"tool": tool, "say": "At ten."}, {"tool": bad, "say": "Paid."}])
    async with opened(line) as heard:
        await heard.transport.send_text("What is free?")
        await heard.transport.send_text("Pay.")
        await heard.until(is_said("Sorry."))
    begun = [event for event in heard.events if isinstance(event, ToolStarted)]
    ends = [event for event in heard.events if isinstance(event, ToolEnded)]
    assert [(event.name, event.arguments, event.where) for event in begun] == [
        ("look_up", {"day": 3}, "server"),
        ("pay", {}, "server"),
    ]
    assert [(json.loads(ends[0].result), ends[0].ok), (ends[1].result, ends[1].ok)] == [
        ({"free": ["10:15"]}, True),
        ("no money", False),
    ]
    assert [event.tool_id for event in begun] == [event.tool_id for event in ends]


async def test_dynamic_variables_arrive_as_text(line: TextLine) -> None:
    await line.plays(greeting="Hello {{name}}, visit {{visits}}.")
    line.brief = Brief(variables={"name": "Ada", "visits": 3})
    async with opened(line) as heard:
        await heard.until(is_said("Hello Ada, visit 3."))


@pytest.mark.parametrize("line", ["chat"], indirect=True)
async def test_a_chat_is_ended_once_and_tells_its_cost(line: TextLine) -> None:
    async with opened(line) as heard:
        await heard.until(is_said(GREETING))
        await heard.transport.close()
        await heard.end()
        await heard.transport.close()
    talk = (await line.simulator.conversations())[-1]
    assert (talk["state"] in ("processing", "done"), talk["end_reason"]) == (True, "ended by the client")
    (cost,) = await heard.transport.aftermath()
    assert cost == Cost(0.002, "USD", True)


@pytest.mark.parametrize("mode", MODES)
async def test_requests_are_in_the_vendors_spec(mode: str) -> None:
    import jsonschema

    spec = load_spec(Provider.RETELL)
    chat = {"chat_id": "chat_1", "chat_status": "ongoing", "messages": []}

    def handler(seen: Seen) -> Reply:
        tool = {"role": "tool_call_invocation", "tool_call_id": "t", "name": "n", "arguments": "{}"}
        return reply({**chat, "messages": [tool, agent(f"Answer {len(server.seen)}.")]})

    async with raw_server(handler) as server:
        async with playing(server, mode, version="production") as (transport, heard):
            if mode == "playground":
                await transport.send_context("The user is a member.")
            await transport.send_text("hello")
            await heard.until(is_said("Answer 2."))
        await transport.aftermath()
    assert len(server.seen) >= 2
    for seen in server.seen:
        operation, shared = find(spec, seen)
        check_query(spec, seen, [*operation.get("parameters", []), *shared])
        if seen.body:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            whole = {"components": spec["components"], **schema}
            jsonschema.Draft202012Validator(whole).validate(json.loads(seen.body))
            assert set(json.loads(seen.body)) <= set(schema["properties"])


# -- the playground's requests ------------------------------------------------------------------------


def answer(*messages: dict[str, Any], **more: Any) -> Reply:
    return reply({"messages": list(messages), **more})


def agent(text: str) -> dict[str, Any]:
    return {"role": "agent", "content": text, "message_id": "m"}


Playing = tuple[RetellText, Heard]


@contextlib.asynccontextmanager
async def playing(server: RawServer, mode: Any = "playground", **options: Any) -> AsyncIterator[Playing]:
    before = asyncio.all_tasks()
    access = VendorAccess(Provider.RETELL, server.url, "key_0123456789")
    transport = RetellText(access, "agent_1", mode=mode, sleep=no_wait, rng=random.Random(1), **options)
    heard = Heard(transport)
    await transport.open(Brief(variables={"plan": "gold"}))
    yield transport, heard
    await transport.close()
    await heard.end()
    await asyncio.sleep(0)
    mine = {task for task in asyncio.all_tasks() if "_converse" in repr(task.get_coro())}  # of the server
    await nothing_left(before | mine)


def bodies(server: RawServer) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in server.seen]


async def test_the_whole_conversation_and_its_place_are_sent_every_time() -> None:
    answers = [
        answer(agent("Hello."), current_state="greeting", dynamic_variables={"plan": "gold", "step": "1"}),
        answer(
            {"role": "state_transition", "new_state_name": "booking"},
            agent("Which day?"),
            current_state="booking",
        ),
        answer(agent("Booked."), call_ended=False),
    ]
    async with raw_server(lambda _: answers.pop(0)) as server:
        async with playing(server, version=3) as (transport, heard):
            await transport.send_text("Book me in.")
            await heard.until(is_said("Which day?"))
            await transport.send_context("The user is a member.")
            await transport.send_text("Monday")
            await heard.until(is_said("Booked."))
        assert any(isinstance(e, Notice) and "booking" in e.text for e in heard.events)
    first, second, third = bodies(server)
    assert server.seen[0].target == "/agent-playground-completion/agent_1?version=3"
    assert first == {"messages": [], "dynamic_variables": {"plan": "gold"}}
    assert second["current_state"] == "greeting"
    assert second["dynamic_variables"] == {"plan": "gold", "step": "1"}
    assert third["current_state"] == "booking"
    assert [item["role"] for item in third["messages"]] == [
        "agent",
        "user",
        "state_transition",
        "agent",
        "injected",
        "user",
    ]


async def test_an_agent_that_waits_for_the_user() -> None:
    answers = [reply({"message": "messages must not be empty"}, status=400), answer(agent("Hi."))]
    async with raw_server(lambda _: answers.pop(0)) as server, playing(server) as (transport, heard):
        await transport.send_text("hello")
        await heard.until(is_said("Hi."))


async def test_a_turn_that_was_not_taken_is_sent_again() -> None:
    answers = [answer(agent("Hello.")), reply({}, status=429), reply({}, status=429), answer(agent("Yes."))]
    async with raw_server(lambda _: answers.pop(0)) as server:
        async with playing(server) as (transport, heard):
            await transport.send_text("Are you there?")
            await heard.until(is_said("Yes."))
            states = [event.state for event in heard.of(StateChanged)]  # type: ignore[union-attr]
        assert states[-3:] == [CallState.RECONNECTING, CallState.RECONNECTING, CallState.LIVE]
    sent = bodies(server)
    assert sent[1] == sent[2] == sent[3]


async def test_a_turn_whose_answer_was_lost_is_not_asked_twice() -> None:
    """It may have run a tool."""
    broken = Reply(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{", then="close")
    answers = [answer(agent("Hello.")), broken, answer(agent("Yes."))]
    async with raw_server(lambda _: answers.pop(0)) as server, playing(server) as (transport, heard):
        await transport.send_text("Book it")
        await heard.until(lambda event: isinstance(event, Notice) and "No answer" in event.text)
        await transport.send_text("two")
        await heard.until(is_said("Yes."))
    asked = [body["messages"][-1].get("content") for body in bodies(server) if body["messages"]]
    assert asked.count("Book it") == 1


async def test_an_unanswered_turn_is_taken_back_and_said() -> None:
    busy = reply({}, status=503)
    answers = [answer(agent("Hello.")), busy, answer(agent("Yes."))]
    async with raw_server(lambda _: answers.pop(0)) as server, playing(server) as (transport, heard):
        await transport.send_text("one")
        await heard.until(lambda event: isinstance(event, Notice) and "No answer" in event.text)
        await transport.send_text("two")
        await heard.until(is_said("Yes."))
    assert [item.get("content") for item in bodies(server)[-1]["messages"]] == ["Hello.", "two"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("broken", "turns", "reason"),
    [
        (reply({}, status=401), 1, EndReason.AUTHENTICATION),
        (reply({}, status=402), 1, EndReason.LIMIT),
        (reply({}, status=500), 3, EndReason.VENDOR_ERROR),
        (reply(body='{"messages": [1, '), 3, EndReason.PROTOCOL_ERROR),
        (reply({"other": 1}), 1, EndReason.PROTOCOL_ERROR),
        (reply({"messages": 7}), 1, EndReason.PROTOCOL_ERROR),
    ],
)
async def test_what_cannot_go_on_ends(mode: str, broken: Reply, turns: int, reason: EndReason) -> None:
    def handler(seen: Seen) -> Reply:
        first = not server.seen[1:]
        if seen.path == "/end-chat/chat_1":
            return Reply(b"HTTP/1.1 204 X\r\ncontent-length: 0\r\n\r\n")
        return reply({"chat_id": "chat_1", "messages": []}) if first else broken

    async with raw_server(handler) as server, playing(server, mode) as (transport, heard):
        for _ in range(turns):
            await transport.send_text("hello")
        ended = await heard.end()
        assert ended.reason is reason
        assert ended.detail


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "odd",
    [
        [None, 3, {"role": 7}, {"role": "agent"}, {"role": "agent", "content": " "}],
        [{"role": "tool_call_invocation", "arguments": "{]", "name": None}],
        [{"role": "tool_call_invocation", "arguments": "[1]", "name": "x\x1b[2J"}],
        [{"role": "tool_call_result", "content": None}],
        [{"role": "brand_new"}, {"role": "sms", "content": "hi"}, {"role": "node_transition"}],
    ],
)
async def test_odd_messages_break_nothing(mode: str, odd: list[Any]) -> None:
    def handler(seen: Seen) -> Reply:
        if seen.path.startswith("/create-chat-completion") or len(server.seen) > 1:
            return answer(*odd, agent("Still here."))
        return reply({"chat_id": "chat_1", "messages": []})

    async with raw_server(handler) as server, playing(server, mode) as (transport, heard):
        await transport.send_text("hello")
        await heard.until(is_said("Still here."))
        for event in heard.of(ToolStarted):
            assert "\x1b" not in event.name  # type: ignore[union-attr]


async def test_a_chats_requests_are_sent_once() -> None:
    """A lost answer may have been given: what is said is not said twice."""

    def handler(seen: Seen) -> Reply:
        if seen.path == "/create-chat":
            return reply({"chat_id": "chat_1"}, status=201)
        if seen.path == "/create-chat-completion":
            return Reply(b"", then="close")
        return reply({"chat_id": "chat_1", "chat_status": "ongoing"})

    async with raw_server(handler) as server, playing(server, "chat") as (transport, heard):
        await transport.send_text("Book me in.")
        await heard.until(lambda event: isinstance(event, Notice) and "No answer" in event.text)
    assert server.paths().count("/create-chat-completion") == 1


async def test_a_chat_that_had_ended_already() -> None:
    def handler(seen: Seen) -> Reply:
        if seen.path == "/create-chat":
            return reply({"chat_id": "chat_1"}, status=201)
        return reply({"status": "error", "message": "Chat is already ended."}, status=400)

    async with raw_server(handler) as server, playing(server, "chat") as (transport, heard):
        await transport.send_text("hello")
        assert (await heard.end()).reason is EndReason.AGENT_ENDED
    assert "/end-chat/chat_1" not in server.paths()


async def test_hanging_up_is_not_held_up_by_the_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retell_text, "HANG_UP_SECONDS", 0.2)

    def handler(seen: Seen) -> Reply:
        if seen.path == "/create-chat":
            return reply({"chat_id": "chat_1"}, status=201)
        return Reply(b"", then="hang")

    async with raw_server(handler) as server, playing(server, "chat") as (transport, heard):
        await transport.send_text("hello")
        async with asyncio.timeout(10):
            await transport.close()
        assert (await heard.end()).reason is EndReason.OPERATOR_ENDED


async def test_an_unknown_agent(line: TextLine) -> None:
    line.agent_id = "agent_nobody"
    transport = line.transport()
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief())
    assert caught.value.code == "not_found"
    seen = [event async for event in transport.events()]
    assert isinstance(seen[-1], Ended)
