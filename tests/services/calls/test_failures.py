"""Calls that break, through the orchestrator: whichever transport, they end or recover, recorded whole."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.agents import SyncRequest
from services.calls.live import Who
from services.calls.model import CallState, EndReason, TransportKind
from services.calls.service import CallRequest
from services.calls.session import CallSession
from services.container import Services
from services.model import AgentCard
from tests.support.headless import complete
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.world import services_on

PATIENCE = 30.0
QUICK = {"think_ms": 0, "silence_ms": 200}
GREETING = "Good morning to you all."
LATER = {"hear": "open", "say": "We open at eight."}
LIBRARY_THREADS = ("asyncio_", "Dummy-")
"""The loop's own pool, and LiveKit's native threads: both are used again by the next call."""


@dataclass(frozen=True)
class Line:
    """A way to call an agent of a vendor."""

    vendor: str
    kind: TransportKind

    def __str__(self) -> str:
        return f"{self.vendor}-{self.kind}"


SOCKET = Line("elevenlabs", TransportKind.MICROPHONE)
TYPED = Line("elevenlabs", TransportKind.TEXT)
CHAT = Line("retell", TransportKind.TEXT)
LIVEKIT = Line("elevenlabs", TransportKind.WEBRTC)
GATEWAY = Line("retell", TransportKind.WEBRTC)
LINES = (SOCKET, TYPED, CHAT, LIVEKIT, GATEWAY)


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=8) as running:
        yield running


@pytest.fixture
async def services(simulator, tmp_path) -> AsyncIterator[Services]:
    async with services_on(simulator, tmp_path) as made:
        await made.sync.run(SyncRequest(cause="test"))
        yield made


async def agent_of(services: Services, vendor: str) -> AgentCard:
    return next(card for card in await services.agents.cards() if card.provider == vendor)


async def until(session: CallSession, found: Callable[[Any], object]) -> None:
    """Wait until the picture of the call satisfies, or it is over."""
    news = asyncio.Event()
    unsubscribe = session.subscribe_messages(lambda _t, _message: news.set())
    try:
        async with asyncio.timeout(PATIENCE):
            while not found(session.live) and session.live.ended is None:
                news.clear()
                await news.wait()
    finally:
        unsubscribe()


def greeted(live: Any) -> bool:
    return any(entry.who is Who.AGENT and entry.text for entry in live.entries)


@contextlib.asynccontextmanager
async def calling(services: Services, line: Line) -> AsyncIterator[CallSession]:
    """A call without devices; over when the block is left, with nothing of it left in the program."""
    card = await agent_of(services, line.vendor)
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks()
    threads = {thread.name for thread in threading.enumerate()}
    session = await services.calls.start(CallRequest(card.id, line.kind, devices=False, anyway=True))
    try:
        yield session
    finally:
        async with asyncio.timeout(PATIENCE):
            await session.end()
            await session.settled()
    await nothing_left(tasks, threads)


async def nothing_left(tasks: set[asyncio.Task[Any]], threads: set[str]) -> None:
    def left() -> list[str]:
        begun = [task for task in asyncio.all_tasks() - tasks if task.get_name() != "calls heartbeat"]
        names = {thread.name for thread in threading.enumerate()} - threads
        mine = asyncio.current_task()
        return [task.get_name() for task in begun if task is not mine] + [
            name for name in names if not name.startswith(LIBRARY_THREADS)
        ]

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE / 3):
            while left():  # noqa: ASYNC110  # threads tell nobody
                await asyncio.sleep(0.02)
    assert left() == []


async def broken(
    simulator: RunningSimulator, services: Services, line: Line, hang: dict[str, Any]
) -> CallSession:
    """A call in whose middle the other side does this. Where it recovers, it is asked once more and ended."""
    spoken = {} if line in (TYPED, CHAT) else {"at_ms": 300}  # inside of the words, where there is audio
    if line is GATEWAY:  # takes no text: it breaks in the greeting
        await simulator.script({**QUICK, "greeting": GREETING, "hang": {**hang, **spoken}})
    else:
        turns = [LATER, {"hear": "break", "say": "Well then, let us see.", "hang": {**hang, **spoken}}]
        await simulator.script({**QUICK, "greeting": GREETING, "turns": turns})
    async with calling(services, line) as session:
        await until(session, greeted)
        if session.capabilities.text:
            await session.say("please break")
            await until(session, lambda live: live.agent_turns >= 2 or troubled(live))
            if spoken:
                await until(session, lambda live: live.agent_speaking)
                await until(session, lambda live: not live.agent_speaking)
            await session.say("are you open?")
            await until(session, lambda live: any("eight" in entry.text for entry in live.entries))
        else:
            await until(session, lambda live: any(GREETING in entry.text for entry in live.entries))
        await until(session, lambda live: not live.agent_speaking)
    return session


def troubled(live: Any) -> bool:
    return any(entry.who is Who.NOTICE for entry in live.entries)


async def recorded_whole(services: Services, session: CallSession, *said: str) -> None:
    """The folder, the row and the session tell the same end; what was said until then is there."""
    row = await services.calls.row(session.id)
    ended = session.live.ended
    assert ended is not None
    assert (row.state, row.reason, row.detail) == (CallState.ENDED, ended.reason, ended.detail)
    assert row.turns == session.live.agent_turns
    for text in said:
        assert [found.id for found in await services.calls.rows(text=text)] == [session.id]
    events = complete(Path(row.folder))
    assert next(each for each in events if each["kind"] == "ended")["reason"] == ended.reason
    spoken = (Path(row.folder) / "transcript.txt").read_text("utf-8")
    for text in said:
        assert text in spoken
    assert services.calls.active == []


CRASH: dict[str, Any] = {"how": "crash"}
CLOSE = {"how": "close", "code": 1011, "reason": "boom"}
GARBAGE, HUGE, WRONG = {"how": "garbage"}, {"how": "huge"}, {"how": "wrong_format"}
STALL = {"how": "stall", "ms": 2000}
LOST, GARBLED, VENDOR = EndReason.CONNECTION_LOST, EndReason.PROTOCOL_ERROR, EndReason.VENDOR_ERROR
RECOVERS = EndReason.OPERATOR_ENDED
BREAKS: list[tuple[Line, dict[str, Any], EndReason, str]] = [
    (SOCKET, CRASH, LOST, "broke off"),
    (TYPED, CRASH, LOST, "broke off"),
    (LIVEKIT, CRASH, LOST, ""),
    (GATEWAY, CRASH, VENDOR, ""),
    (CHAT, CRASH, RECOVERS, "No answer"),  # a request of its own for each answer
    (SOCKET, CLOSE, VENDOR, "boom"),
    (TYPED, CLOSE, VENDOR, "boom"),
    (GATEWAY, CLOSE, VENDOR, ""),
    (CHAT, CLOSE, RECOVERS, "boom"),
    (SOCKET, GARBAGE, RECOVERS, "is not JSON"),
    (TYPED, GARBAGE, RECOVERS, "is not JSON"),
    (LIVEKIT, GARBAGE, RECOVERS, "is not JSON"),
    (GATEWAY, GARBAGE, RECOVERS, ""),
    (CHAT, GARBAGE, RECOVERS, "No answer"),
    (SOCKET, HUGE, GARBLED, "16 MiB"),
    (TYPED, HUGE, GARBLED, "16 MiB"),
    (LIVEKIT, HUGE, RECOVERS, ""),  # no data packet of LiveKit can be so large
    (GATEWAY, HUGE, RECOVERS, ""),
    (SOCKET, WRONG, RECOVERS, "does not look like"),
    *((line, STALL, RECOVERS, "") for line in LINES),
]


@pytest.mark.parametrize(
    ("line", "hang", "reason", "told"),
    BREAKS,
    ids=lambda value: value["how"] if isinstance(value, dict) else str(value).replace(" ", "-"),
)
async def test_the_other_side_breaks(line, hang, reason, told, simulator, services):
    session = await broken(simulator, services, line, hang)
    assert session.live.ended is not None
    assert session.live.ended.reason is reason
    said = ["Good morning"] if line is GATEWAY and reason is VENDOR else [GREETING]
    if reason is RECOVERS and line is not GATEWAY:
        said.append("We open at eight.")
    await recorded_whole(services, session, *said, told)
    talks = await simulator.conversations()
    assert len(talks) == (line is not CHAT)  # the playground keeps none
    assert not [talk for talk in talks if talk["state"] in ("initiated", "in-progress")]


@pytest.mark.parametrize("line", LINES, ids=str)
async def test_a_vendor_that_refuses_to_begin(line, simulator, services):
    """Whatever the transport: an end with a reason and a whole recording, and no exception."""
    await simulator.fault(f"503:{line.vendor}:call")
    async with calling(services, line) as session:
        await until(session, lambda live: False)
    assert session.live.ended is not None
    assert not session.live.ended.reason.well
    await recorded_whole(services, session)


@pytest.mark.parametrize("line", LINES, ids=str)
async def test_hung_up_at_once(line, simulator, services):
    await simulator.fault(f"latency:{line.vendor}:call:ms=3000")
    async with calling(services, line) as session:
        await asyncio.sleep(0)
    assert session.live.ended is not None
    assert session.live.ended.reason is EndReason.OPERATOR_ENDED
    await recorded_whole(services, session)
