"""Reading along in a running Retell call: refusals, breaks and nonsense, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from services.calls.access import VendorAccess
from services.calls.messages import AgentSpeech, Ended, Message, Notice, UserSpeech
from services.calls.model import EndReason
from services.calls.transports.retell_monitor import RetellMonitor
from services.errors import Category, ServiceError
from services.model import Provider
from tests.services.calls.transports.contract import nothing_left

Behaviour = Callable[[ServerConnection], Awaitable[None]]


class Vendor:
    """A monitor socket that behaves, connection by connection, as a list says; the last goes on."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.waits: list[float] = []
        self.url = ""

    async def handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.headers.append({name.lower(): value for name, value in socket.request.headers.raw_items()})
        self.paths.append(socket.request.path)
        behave = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
        await behave(socket)

    async def sleep(self, seconds: float) -> None:
        """In place of waiting."""
        self.waits.append(seconds)
        await asyncio.sleep(0)

    def monitor(self, **options: Any) -> RetellMonitor:
        access = VendorAccess(Provider.RETELL, self.url, "key_0123456789abcdef")
        return RetellMonitor(access, "call_1", sleep=self.sleep, rng=random.Random(1), **options)


@contextlib.asynccontextmanager
async def vendor(*behaviours: Behaviour) -> AsyncIterator[Vendor]:
    found = Vendor(*behaviours)
    server: Server
    async with serve(found.handle, "127.0.0.1", 0) as server:
        found.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield found


def sends(*frames: object, close: tuple[int, str] | None = None, cut: bool = False) -> Behaviour:
    """Send these, then close, cut the line, or wait for the client to go."""

    async def behave(socket: ServerConnection) -> None:
        for frame in frames:
            await socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        if cut:
            socket.transport.abort()
        elif close is not None:
            await socket.close(*close)
        await socket.wait_closed()

    return behave


def item(name: str, role: str, content: str, seconds: float) -> dict[str, Any]:
    return {"id": name, "role": role, "content": content, "time_sec": seconds}


HELLO = item("1", "agent", "Hello", 0.1)
HI = item("2", "user", "Hi", 1.0)
EMPTY: dict[str, Any] = {"type": "transcript_snapshot", "transcripts": []}
END = {"type": "call_ended", "disconnection_reason": "agent_hangup"}


def updated(*items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "transcript_updated", "transcripts": list(items)}


async def everything(monitor: RetellMonitor) -> list[Message]:
    async with asyncio.timeout(10):
        return [message async for message in monitor]


async def test_a_call_from_snapshot_to_end():
    before = asyncio.all_tasks()
    async with vendor(sends({**EMPTY, "transcripts": [HELLO]}, updated(HI), END)) as retell:
        found = await everything(retell.monitor())
    await nothing_left(before)
    assert found == [
        AgentSpeech("Hello", False, 1),
        AgentSpeech("Hello", True, 1),
        UserSpeech("Hi", False),
        UserSpeech("Hi", True),
        Ended(EndReason.AGENT_ENDED, "", "agent"),
    ]
    assert retell.paths == ["/v2/monitor-call/call_1"]
    assert retell.headers[0]["authorization"] == "Bearer key_0123456789abcdef"
    assert retell.waits == []


async def test_a_call_that_is_not_live_yet_is_asked_for_again_in_silence():
    early = sends(close=(4004, "call is not live"))
    async with vendor(early, early, early, early, early, sends(EMPTY, END)) as retell:
        found = await everything(retell.monitor(attempts=2))
    assert found == [Ended(EndReason.AGENT_ENDED, "", "agent")]
    assert retell.waits == [0.5, 1.0, 1.5, 2.0, 2.0]


@pytest.mark.parametrize("code", [4000, 4001, 4003, 4029, 4999])
async def test_a_refusal_is_final(code: int):
    async with vendor(sends(close=(code, "too many watchers"))) as retell:
        with pytest.raises(ServiceError) as caught:
            await everything(retell.monitor())
    assert caught.value.code == "monitor_refused"
    assert "too many watchers" in caught.value.message
    assert len(retell.paths) == 1


async def test_a_close_in_order_is_the_end():
    async with vendor(sends(EMPTY, updated(HELLO), close=(1000, "call_ended"))) as retell:
        found = await everything(retell.monitor())
    assert found[-2:] == [AgentSpeech("Hello", True, 1), Ended(EndReason.AGENT_ENDED, "", "vendor")]


@pytest.mark.parametrize(
    "breaks", [sends(EMPTY, updated(HELLO), cut=True), sends(EMPTY, updated(HELLO), close=(1011, ""))]
)
async def test_a_break_is_mended_and_repeats_nothing(breaks: Behaviour):
    whole = {**EMPTY, "transcripts": [HELLO, HI]}
    async with vendor(breaks, sends(whole, END)) as retell:
        found = await everything(retell.monitor())
    assert [message for message in found if isinstance(message, AgentSpeech)] == [
        AgentSpeech("Hello", False, 1),
        AgentSpeech("Hello", True, 1),
    ]
    assert isinstance(found[-1], Ended)
    assert len(retell.waits) == 1
    assert 0.25 <= retell.waits[0] <= 0.5


async def test_waits_grow_with_jitter_until_it_is_given_up():
    async with vendor(sends(cut=True)) as retell:
        with pytest.raises(ServiceError) as caught:
            await everything(retell.monitor(attempts=9))
    assert (caught.value.code, caught.value.category) == ("connection_lost", Category.TRANSIENT)
    tops = [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert len(retell.waits) == len(tops)
    assert all(top / 2 <= wait <= top for wait, top in zip(retell.waits, tops, strict=True))
    assert len({round(wait / top, 4) for wait, top in zip(retell.waits, tops, strict=True)}) > 3


async def test_nothing_listens_there():
    retell = Vendor(sends(EMPTY))
    retell.url = "http://127.0.0.1:9"
    with pytest.raises(ServiceError) as caught:
        await everything(retell.monitor(attempts=3))
    assert caught.value.code == "connection_lost"
    assert len(retell.waits) == 2


async def test_nonsense_is_told_once_and_passed_over():
    frames = ("{broken", "[1]", b"\xff\xfe", {"type": "of tomorrow"}, updated(HELLO), END)
    async with vendor(sends(*frames)) as retell:
        found = await everything(retell.monitor())
    notices = [message for message in found if isinstance(message, Notice)]
    assert [notice.level for notice in notices] == ["look"]
    assert AgentSpeech("Hello", True, 1) in found
    assert isinstance(found[-1], Ended)


async def test_a_large_frame_is_read_and_a_larger_one_is_not():
    big = {"type": "of tomorrow", "filler": "x" * 16_000_000}
    huge = {"type": "of tomorrow", "filler": "x" * 17_000_000}
    async with vendor(sends(big, updated(HELLO), huge)) as retell:
        monitor = retell.monitor()
        messages = aiter(monitor)
        found = [await anext(messages)]
        with pytest.raises(ServiceError) as caught:
            await anext(messages)
    assert found[0] == AgentSpeech("Hello", False, 1)
    assert "16 MB" in caught.value.message


async def test_silence_completes_what_was_said():
    async with vendor(sends(updated(HELLO))) as retell:
        monitor = retell.monitor(settle_seconds=0.05)
        found: list[Message] = []
        async with asyncio.timeout(10):
            async for message in monitor:
                found.append(message)
                if message == AgentSpeech("Hello", True, 1):
                    await monitor.aclose()
    assert found == [AgentSpeech("Hello", False, 1), AgentSpeech("Hello", True, 1)]


async def test_closing_ends_the_iteration_elsewhere():
    before = asyncio.all_tasks()
    async with vendor(sends(updated(HELLO))) as retell:
        monitor = retell.monitor()
        first = asyncio.Event()

        async def read() -> list[Message]:
            found = []
            async for message in monitor:
                found.append(message)
                first.set()
            return found

        reading = asyncio.create_task(read())
        async with asyncio.timeout(10):
            await first.wait()
            await monitor.aclose()
            await monitor.aclose()
            assert await reading == [AgentSpeech("Hello", False, 1)]
    await nothing_left(before)


async def test_cancelling_leaves_nothing_behind():
    before = asyncio.all_tasks()
    async with vendor(sends(updated(HELLO))) as retell:
        reading = asyncio.create_task(everything(retell.monitor()))
        async with asyncio.timeout(10):
            while not retell.paths:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await nothing_left(before)


async def test_the_key_is_in_no_log(caplog: pytest.LogCaptureFixture):
    caplog.set_level(0)
    async with vendor(sends(EMPTY, cut=True), sends(EMPTY, END)) as retell:
        await everything(retell.monitor())
    client = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets.server")]
    assert not [line for line in client if "key_0123456789abcdef" in line]
