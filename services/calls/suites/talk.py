"""One conversation of a test: what is said goes in, what happens comes out, turn by turn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import Any

from services.calls.live import LiveCall, Who
from services.calls.messages import (
    AgentCorrected,
    AgentSpeaking,
    AgentSpeech,
    ApprovalGiven,
    ApprovalWanted,
    Ended,
    Informed,
    Interrupted,
    Message,
    ToolEnded,
    ToolStarted,
    Typed,
    UserSpeech,
)
from services.calls.model import EndReason
from services.calls.suites.checks import ToolCall, TurnFacts
from services.calls.transport import AgentAudio, Transport
from services.clock import Clock
from services.errors import ServiceError
from services.text import clean_line

_ACTIVITY = (AgentSpeech, AgentCorrected, Interrupted, ToolStarted, ToolEnded, UserSpeech, AgentSpeaking)
_WHO = {Who.AGENT: "agent", Who.USER: "user", Who.TOOL: "tool", Who.CONTEXT: "told", Who.NOTICE: "note"}


class Talk:
    """Reads the transport's events until its end, answering client tools and approvals from the test."""

    def __init__(
        self, transport: Transport, clock: Clock, *, tools: Mapping[str, Any], approve: bool
    ) -> None:
        self.live = LiveCall(bounded=False)
        self.ended: Ended | None = None
        self._transport = transport
        self._clock = clock
        self._tools = tools
        self._approve = approve
        self._began = clock.monotonic()
        self._turn_at = 0
        self._said_at: float | None = None
        self._answered_at: float | None = None
        self._active_at = self._began
        self._turn: list[Message] = []
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    # -- doing ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen; the transport may still be opening."""
        self._reading = asyncio.create_task(self._read(), name="scenario test")

    async def say(self, text: str) -> None:
        """A turn of the user; what comes from now on is the answer. Raises ServiceError."""
        self.begin_turn()
        self._said_at = self._active_at = self._clock.monotonic()
        self._apply(Typed(text))
        await self._transport.send_text(text)

    async def inform(self, text: str) -> None:
        """Tell the agent in the background. Raises ServiceError where that is not offered."""
        await self._transport.send_context(text)
        self._apply(Informed(text))

    def begin_turn(self) -> None:
        self._turn = []
        self._said_at = self._answered_at = None

    async def close(self, reason: EndReason = EndReason.OPERATOR_ENDED, detail: str = "") -> None:
        """Hang up; returns when the end was read."""
        await self._transport.close(reason, detail)
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    # -- waiting ----------------------------------------------------------------------------------

    async def wait(self, seconds: float) -> None:
        """Until something happens, at most so long."""
        if self.ended is not None or seconds <= 0:
            return
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    @property
    def idle(self) -> float:
        """Seconds since the agent last said or did something."""
        return self._clock.monotonic() - self._active_at

    @property
    def begun(self) -> bool:
        """Whether the agent has said or done anything in this turn."""
        return any(isinstance(message, _ACTIVITY) for message in self._turn)

    @property
    def busy(self) -> bool:
        """Whether the agent is in the middle of something."""
        if self.live.agent_speaking:
            return True
        last = list(self.live.entries)[-8:]
        return any(not entry.final and entry.who in (Who.AGENT, Who.TOOL) for entry in last)

    # -- what happened ----------------------------------------------------------------------------

    def facts(self) -> TurnFacts:
        """The agent's final words, its tools and its delay since the turn began."""
        replies: dict[object, str] = {}
        tools: dict[str, ToolCall] = {}
        for index, message in enumerate(self._turn):
            if isinstance(message, AgentSpeech) and message.final:
                replies[index if message.event_id is None else message.event_id] = message.text
            elif isinstance(message, AgentCorrected):
                replies[index if message.event_id is None else message.event_id] = message.corrected
            elif isinstance(message, ToolStarted | ApprovalWanted):
                where = message.where if isinstance(message, ToolStarted) else "mcp"
                tools.setdefault(message.tool_id, ToolCall(message.name, message.arguments, where=where))
            elif isinstance(message, ToolEnded) and message.tool_id in tools:
                tools[message.tool_id].ok = message.ok
        latency = None
        if self._said_at is not None and self._answered_at is not None:
            latency = max(0, round((self._answered_at - self._said_at) * 1000))
        said = tuple(text for text in replies.values() if text.strip())
        return TurnFacts(said, tuple(tools.values()), latency)

    def transcript(self) -> list[str]:
        """What was said and done, one line each, with seconds since the beginning."""
        found = []
        for entry in self.live.entries:
            line = f"{entry.t / 1000:7.2f} s  {_WHO.get(entry.who, entry.who):<6} {clean_line(entry.text)}"
            if entry.who is Who.TOOL:
                line += " " + json.dumps(dict(entry.arguments), ensure_ascii=False, default=str)
                line += f" → {clean_line(entry.result)}" if entry.result is not None else " → …"
                line += " (failed)" if entry.ok is False else ""
            elif entry.spoken is not None:
                line += f" [cut off after: {clean_line(entry.spoken)}]"
            elif not entry.final:
                line += " …"
            if entry.latency_ms is not None:
                line += f" ({entry.latency_ms} ms)"
            found.append(line)
        if self.ended is not None:
            at = (self.live.ended_at or 0) / 1000
            detail = f": {clean_line(self.ended.detail)}" if self.ended.detail else ""
            found.append(f"{at:7.2f} s  end    {self.ended.reason.value}{detail}")
        return found

    # -- inside -----------------------------------------------------------------------------------

    async def _read(self) -> None:
        async for event in self._transport.events():
            if isinstance(event, AgentAudio):
                self._heard()
                continue
            self._take(event)
            if isinstance(event, ToolStarted) and event.where == "client":
                await self._safely(self._answer_tool(event))
            elif isinstance(event, ApprovalWanted):
                await self._safely(self._answer_approval(event))

    async def _answer_tool(self, call: ToolStarted) -> None:
        ok = call.name in self._tools
        value = self._tools.get(call.name, f"the test has no answer for the client tool {call.name}")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        self._take(ToolEnded(call.tool_id, text, ok))
        await self._transport.send_tool_result(call.tool_id, text, ok)

    async def _answer_approval(self, wanted: ApprovalWanted) -> None:
        self._take(ApprovalGiven(wanted.tool_id, self._approve))
        await self._transport.approve(wanted.tool_id, self._approve)

    async def _safely(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except (ServiceError, OSError):
            return  # the line ended meanwhile: its Ended tells

    def _take(self, message: Message) -> None:
        self._apply(message)
        self._turn.append(message)
        if isinstance(message, _ACTIVITY):
            self._active_at = self._clock.monotonic()
        if isinstance(message, AgentSpeech) or (isinstance(message, AgentSpeaking) and message.on):
            self._heard()
        if isinstance(message, Ended):
            self.ended = message
        self._news.set()

    def _heard(self) -> None:
        """The agent's first word or sound of this turn."""
        if self._said_at is not None and self._answered_at is None:
            self._answered_at = self._clock.monotonic()
        self._active_at = self._clock.monotonic()
        self._news.set()

    def _apply(self, message: Message) -> None:
        self.live.apply(round((self._clock.monotonic() - self._began) * 1000), message)
