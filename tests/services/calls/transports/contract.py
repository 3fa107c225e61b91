"""The contract of a transport as tests: `services.calls.transport` says it in words.

A transport's test module supplies its counterpart and gets every test here:

    class TestSocket(TransportContract):
        @pytest.fixture
        async def line(self, simulator):
            line = SocketLine(simulator)          # a `Line`
            yield line
            await line.aclose()

A test of something the line cannot do (`Line.can`) is skipped and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import pytest

from services.calls.messages import AgentSpeech, Connected, Ended, StateChanged, UserSpeech
from services.calls.model import Brief, CallState, EndReason
from services.calls.transport import AgentAudio, Transport, TransportEvent
from services.errors import ServiceError

PATIENCE = 20.0
"""Seconds after which a test gives up; no test measures with it."""

BEFORE_LIVE = (CallState.CONNECTING, CallState.QUEUED, CallState.RINGING)
BROKEN = frozenset(EndReason) - {reason for reason in EndReason if reason.well}


class Line(ABC):
    """A counterpart that accepts, and the means to make it do something."""

    can: ClassVar[frozenset[str]] = frozenset({"agent_speaks", "agent_ends", "drop", "refuse", "stall"})
    """The methods of these names that are implemented."""
    brief: Brief = Brief()
    """What the transport is opened with."""
    agent_end_reasons: frozenset[EndReason] = frozenset({EndReason.AGENT_ENDED})
    """How it reads when the other side ends the conversation as it should."""
    drop_reasons: frozenset[EndReason] = BROKEN
    refuse_reasons: frozenset[EndReason] = BROKEN

    @abstractmethod
    def transport(self) -> Transport:
        """A new one, not opened yet; the counterpart would accept it."""

    async def agent_speaks(self, heard: Heard) -> str:
        """Bring the agent to say something (a greeting, or an answer to a turn made here); returns the text
        it says, or "" where only its sound is known."""
        raise NotImplementedError

    async def user_turn(self, transport: Transport) -> None:
        """The user says something the agent answers. Without typing: send audio."""
        await transport.send_text("When are you open?")

    async def agent_ends(self, heard: Heard) -> None:
        """Bring the agent (or the callee) to end the conversation in order."""
        raise NotImplementedError

    async def drop(self) -> None:
        """Cut the line without a good-bye."""
        raise NotImplementedError

    async def refuse(self) -> None:
        """From now on the counterpart refuses conversations."""
        raise NotImplementedError

    async def stall(self) -> None:
        """From now on the counterpart does not answer the next opening."""
        raise NotImplementedError


class Heard:
    """What a transport told so far."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.events: list[TransportEvent] = []
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._listen(), name="contract listener")

    async def _listen(self) -> None:
        async for event in self.transport.events():
            async with self._news:
                self.events.append(event)
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    async def until(self, wanted: Callable[[TransportEvent], bool]) -> TransportEvent:
        """The first event that is wanted, of those that were and those to come."""

        def found() -> TransportEvent | None:
            return next((event for event in self.events if wanted(event)), None)

        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: found() is not None or self.task.done() or self._over())
        event = found()
        assert event is not None, f"it never came; there were {self.shown()}"
        return event

    async def live(self) -> None:
        await self.until(lambda event: isinstance(event, StateChanged) and event.state is CallState.LIVE)

    async def end(self) -> Ended:
        """The end, after checking that there is one only and nothing behind it."""
        async with asyncio.timeout(PATIENCE):
            await self.task
        ends = [event for event in self.events if isinstance(event, Ended)]
        assert len(ends) == 1, self.shown()
        assert self.events[-1] is ends[0], self.shown()
        assert self.transport.over
        return ends[0]

    def _over(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Ended)

    def of(self, *kinds: type) -> list[TransportEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    def shown(self) -> list[str]:
        return [
            f"audio[{len(event.pcm)}]" if isinstance(event, AgentAudio) else repr(event)
            for event in self.events
        ]


@contextlib.asynccontextmanager
async def opened(line: Line) -> AsyncIterator[Heard]:
    """A conversation that is live; hung up and checked for tasks left behind when the block is done."""
    before = asyncio.all_tasks()
    transport = line.transport()
    heard = Heard(transport)
    try:
        async with asyncio.timeout(PATIENCE):
            await transport.open(line.brief)
        await heard.live()
        yield heard
    finally:
        await transport.close()
        heard.task.cancel()
        await asyncio.gather(heard.task, return_exceptions=True)
    await nothing_left(before)


async def nothing_left(before: set[asyncio.Task[Any]]) -> None:
    """Every task begun since is over, or ends by itself now."""
    mine = asyncio.current_task()
    left = {task for task in asyncio.all_tasks() - before if task is not mine}
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE / 4)
    assert not left, [task.get_name() + " " + repr(task.get_coro()) for task in left]


class TransportContract:
    """Every transport does this. Subclass it with a fixture `line`."""

    @pytest.fixture
    def line(self) -> Line:
        raise NotImplementedError("the transport's own test supplies its line")

    @staticmethod
    def needs(line: Line, what: str) -> None:
        if what not in line.can:
            pytest.skip(f"{type(line).__name__} has no {what}")

    # -- beginning --------------------------------------------------------------------------------

    async def test_it_begins_in_order(self, line: Line) -> None:
        async with opened(line) as heard:
            kinds = [event for event in heard.events if isinstance(event, StateChanged | Connected)]
            assert kinds[0] == StateChanged(CallState.CONNECTING, kinds[0].detail)  # type: ignore[union-attr]
            connected = next(event for event in kinds if isinstance(event, Connected))
            where = kinds.index(connected)
            assert all(isinstance(e, StateChanged) and e.state in BEFORE_LIVE for e in kinds[:where])
            assert isinstance(kinds[where + 1], StateChanged)
            assert kinds[where + 1].state is CallState.LIVE  # type: ignore[union-attr]
            assert heard.events.index(connected) < min(
                (heard.events.index(e) for e in heard.of(AgentSpeech, UserSpeech, AgentAudio)), default=10**9
            )
            if heard.transport.capabilities.audio:
                assert connected.input_rate >= 8000
                assert connected.output_rate >= 8000
            else:
                assert (connected.input_rate, connected.output_rate) == (0, 0)
            await heard.transport.close()
            await heard.end()

    async def test_a_second_conversation_is_refused(self, line: Line) -> None:
        async with opened(line) as heard:
            with pytest.raises(RuntimeError):
                await heard.transport.open(line.brief)
            assert not heard.transport.over

    async def test_a_refusal_raises_and_closes(self, line: Line) -> None:
        self.needs(line, "refuse")
        before = asyncio.all_tasks()
        await line.refuse()
        transport = line.transport()
        heard = Heard(transport)
        try:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(ServiceError) as caught:
                    await transport.open(line.brief)
            assert caught.value.message
            ended = await heard.end()
        finally:
            await transport.close()
            await heard.task
        assert ended.reason in line.refuse_reasons
        await nothing_left(before)

    # -- talking ----------------------------------------------------------------------------------

    async def test_the_agent_is_heard(self, line: Line) -> None:
        self.needs(line, "agent_speaks")
        async with opened(line) as heard:
            text = await line.agent_speaks(heard)
            if heard.transport.capabilities.live_transcript and text:
                await heard.until(
                    lambda event: isinstance(event, AgentSpeech) and event.final and text in event.text
                )
            if heard.transport.capabilities.audio:
                await heard.until(lambda event: isinstance(event, AgentAudio) and bool(event.pcm))
                pieces = [event for event in heard.events if isinstance(event, AgentAudio)]
                assert all(len(piece.pcm) % 2 == 0 for piece in pieces)
                ids = [piece.event_id for piece in pieces]
                assert ids == sorted(ids)

    async def test_the_user_is_heard(self, line: Line) -> None:
        """A turn of the user is answered: something new comes from the agent."""
        self.needs(line, "agent_speaks")
        async with opened(line) as heard:
            if not (heard.transport.capabilities.text or heard.transport.capabilities.audio):
                pytest.skip("the user is heard elsewhere")
            await line.agent_speaks(heard)
            seen = len(heard.of(AgentSpeech, AgentAudio))
            await line.user_turn(heard.transport)

            def answered(event: TransportEvent) -> bool:
                return event in heard.of(AgentSpeech, AgentAudio)[seen:]

            await heard.until(answered)

    async def test_what_is_not_offered_is_refused(self, line: Line) -> None:
        async with opened(line) as heard:
            transport, can = heard.transport, heard.transport.capabilities
            sends = {
                "audio": (can.audio, lambda: transport.send_audio(bytes(640))),
                "text": (can.text, lambda: transport.send_text("hello")),
                "context": (can.context, lambda: transport.send_context("it rains")),
                "approvals": (can.approvals, lambda: transport.approve("none", True)),
            }
            for name, (offered, send) in sends.items():
                if not offered:
                    with pytest.raises(ServiceError) as caught:
                        await send()
                    assert caught.value.code == "not_offered", name
            await transport.send_activity()  # never refused
            assert not transport.over

    # -- ending -----------------------------------------------------------------------------------

    async def test_the_operator_ends(self, line: Line) -> None:
        async with opened(line) as heard:
            await heard.transport.close()
            ended = await heard.end()
            assert (ended.reason, ended.by) == (EndReason.OPERATOR_ENDED, "operator")

    async def test_another_reason_of_ours_is_kept(self, line: Line) -> None:
        async with opened(line) as heard:
            await heard.transport.close(EndReason.DEVICE_LOST, "the headset is gone")
            ended = await heard.end()
            assert (ended.reason, ended.detail) == (EndReason.DEVICE_LOST, "the headset is gone")
            assert ended.by == "us"

    async def test_the_agent_ends(self, line: Line) -> None:
        self.needs(line, "agent_ends")
        async with opened(line) as heard:
            await line.agent_ends(heard)
            ended = await heard.end()
            assert ended.reason in line.agent_end_reasons, ended
            assert ended.by in ("agent", "callee", "vendor")
            await heard.transport.close()

    async def test_the_line_drops(self, line: Line) -> None:
        self.needs(line, "drop")
        async with opened(line) as heard:
            await line.drop()
            ended = await heard.end()
            assert ended.reason in line.drop_reasons, ended
            assert ended.by != "operator"

    async def test_the_first_reason_counts(self, line: Line) -> None:
        async with opened(line) as heard:
            await heard.transport.close(EndReason.MAX_DURATION)
            await heard.transport.close(EndReason.OPERATOR_ENDED)
            assert (await heard.end()).reason is EndReason.MAX_DURATION

    async def test_closing_many_times_from_many_tasks(self, line: Line) -> None:
        async with opened(line) as heard:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(heard.transport.close() for _ in range(5)))
                await heard.transport.close()
            await heard.end()

    async def test_sending_after_the_end_does_nothing(self, line: Line) -> None:
        async with opened(line) as heard:
            transport, can = heard.transport, heard.transport.capabilities
            await transport.close()
            await heard.end()
            if can.audio:
                await transport.send_audio(bytes(640))
            if can.text:
                await transport.send_text("is anybody there?")
            if can.context:
                await transport.send_context("it rains")
            if can.approvals:
                await transport.approve("none", False)
            await transport.send_activity()
            assert transport.over

    async def test_closed_before_it_was_opened(self, line: Line) -> None:
        if "stall" in line.can:
            await line.stall()  # who asked the counterpart would wait for ever
        before = asyncio.all_tasks()
        transport = line.transport()
        await transport.close()
        async with asyncio.timeout(PATIENCE):
            await transport.open(line.brief)
            seen = [event async for event in transport.events()]
        assert [type(event) for event in seen] == [Ended]
        await nothing_left(before)

    async def test_closed_while_it_opens(self, line: Line) -> None:
        """The `open` in the other task comes back, the end is the operator's, and nothing is left."""
        self.needs(line, "stall")
        before = asyncio.all_tasks()
        await line.stall()
        transport = line.transport()
        heard = Heard(transport)
        opening = asyncio.create_task(transport.open(line.brief))
        await heard.until(lambda event: isinstance(event, StateChanged))
        async with asyncio.timeout(PATIENCE):
            await transport.close()
            await opening
        ended = await heard.end()
        assert ended.reason is EndReason.OPERATOR_ENDED
        assert not [e for e in heard.of(StateChanged) if e.state is CallState.LIVE]  # type: ignore[union-attr]
        await nothing_left(before)

    async def test_cancelled_while_it_opens(self, line: Line) -> None:
        self.needs(line, "stall")
        before = asyncio.all_tasks()
        await line.stall()
        transport = line.transport()
        heard = Heard(transport)
        opening = asyncio.create_task(transport.open(line.brief))
        await heard.until(lambda event: isinstance(event, StateChanged))
        opening.cancel()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(asyncio.CancelledError):
                await opening
        await heard.end()
        await nothing_left(before)

    async def test_closed_while_the_agent_speaks(self, line: Line) -> None:
        self.needs(line, "agent_speaks")
        async with opened(line) as heard:
            speaking = asyncio.create_task(line.agent_speaks(heard))
            await heard.until(lambda event: isinstance(event, AgentSpeech | AgentAudio))
            await heard.transport.close()
            ended = await heard.end()
            assert ended.reason is EndReason.OPERATOR_ENDED
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def test_closed_while_nobody_listens(self, line: Line) -> None:
        """Nobody reads the events: closing is not held up, and the end is still there to be read."""
        before = asyncio.all_tasks()
        transport = line.transport()
        async with asyncio.timeout(PATIENCE):
            await transport.open(line.brief)
            await transport.close()
            seen = [event async for event in transport.events()]
        assert isinstance(seen[-1], Ended)
        assert sum(isinstance(event, Ended) for event in seen) == 1
        await nothing_left(before)
