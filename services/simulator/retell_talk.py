"""A spoken conversation of a Retell web call: the brain's steps are played, and what happens is written down.

The wire is a `Voice`; speech that comes in is told by `speech_started` and `speech_ended`. Whoever speaks
over the agent cuts it off: the transcript then says what was really heard of the sentence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Protocol

from services.simulator.conversation import (
    Brain,
    Hang,
    Say,
    Script,
    Send,
    Step,
    UseTool,
    interrupted,
)
from services.simulator.conversations import Conversation, Line
from services.simulator.retell_calls import RetellCall, RetellCalls, words_of
from services.simulator.wire import Json

ENDED = {
    "end": "agent_hangup", "close": "error_retell", "crash": "error_unknown",
}  # fmt: skip
"""Reasons of a call's end for the ways a script can hang."""

MOST_MS = 3_600_000
"""The vendor's own limit of a call's duration."""

HUGE = 16 * 1024 * 1024


class Voice(Protocol):
    """The agent's end of the line."""

    async def say(self, text: str, voice: str) -> float:
        """Begin to speak; returns how long it will take, in milliseconds."""

    async def said(self) -> None:
        """Returns when everything has been spoken."""

    def cut(self) -> float:
        """Fall silent at once; returns how many milliseconds were left unsaid."""

    def stall(self, ms: int) -> None:
        """Send nothing for a while."""

    def raw(self, text: str) -> None:
        """Send something on the control channel as it is."""


class RetellTalk:
    """One conversation. It is the call's `Conductor`."""

    def __init__(
        self,
        calls: RetellCalls,
        call: RetellCall,
        script: Script,
        voice: Voice,
        log: Conversation,
        seed: int = 0,
    ) -> None:
        self._calls, self._call, self._script, self._voice = calls, call, script, voice
        self._log = log
        self._brain = Brain(script, seed, call.variables)
        self._inbox: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._playing: asyncio.Task[None] | None = None
        self._speaking = False
        self._heard = 0
        self._tools = 0
        self._responses = 0
        self._interrupts = 0

    # What comes in; none of these waits.

    def speech_started(self) -> None:
        self._inbox.put_nowait(("started", None))

    def speech_ended(self, duration_ms: int) -> None:
        self._inbox.put_nowait(("spoke", duration_ms))

    def stop(self, reason: str) -> None:
        self._inbox.put_nowait(("stop", reason))

    def steer(self, context: str, respond: bool) -> None:
        self._inbox.put_nowait(("steer", (context, respond)))

    def take_over(self, participant_id: str) -> None:
        self._inbox.put_nowait(("stop", "call_take_over"))

    # The conversation

    async def run(self) -> str:
        """Hold the conversation; returns the reason of its end. Begins and ends the call in the store."""
        self._calls.begin(self._call)
        self._log.begin()
        reason = "error_retell"
        most = self._script.max_duration_ms or MOST_MS
        limit = asyncio.get_running_loop().call_later(most / 1000, self.stop, "max_duration_reached")
        try:
            self._play(self._brain.greeting(), 0)
            while True:
                what, value = await self._inbox.get()
                if what == "stop":
                    reason = str(value)
                    return reason
                await self._take_in(what, value)
        finally:
            limit.cancel()
            await self._hush()
            self._calls.end(self._call, reason)
            self._log.finish(1000, reason, failed=reason.startswith("error_"))

    async def _take_in(self, what: str, value: Any) -> None:
        if what == "started":
            if not self._speaking or self._script.interruptible:
                await self._hush()
        elif what == "spoke":
            text = self._brain.heard(self._heard, value)
            self._heard += 1
            self._log.add(Line("user", text, self._log.now_ms()))
            # It is known when the silence after it has been long enough, and began before.
            ago = (value + self._script.silence_ms) / 1000
            start = max(0.0, round(self._calls.time_sec(self._call) - ago, 3))
            words = words_of(text, start, value / 1000 / max(1, len(text.split())))
            self._add({"role": "user", "content": text, "time_sec": start, "words": words})
            self._play(self._brain.on_user(text), self._script.think_ms)
        else:
            context, respond = value
            if context:
                self._log.context.append(context)
                self._add({"role": "injected", "content": context})
            if respond:
                await self._hush()
                self._play(self._brain.on_user(context), self._script.think_ms)

    def _add(self, item: Json) -> Json:
        return self._calls.add(self._call, item)

    def _play(self, steps: Sequence[Step], think_ms: int) -> None:
        """Play `steps` after what is being played now."""
        self._playing = asyncio.create_task(self._play_after(self._playing, steps, think_ms))
        self._playing.add_done_callback(self._played)

    def _played(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.stop("error_retell")

    async def _play_after(
        self, before: asyncio.Task[None] | None, steps: Sequence[Step], think_ms: int
    ) -> None:
        if before is not None:
            await before  # cancelling this task cancels that one
        await asyncio.sleep(think_ms / 1000)
        await self._steps(steps, think_ms)

    async def _hush(self) -> None:
        """Whatever the agent says or is about to say, it stops."""
        task, self._playing = self._playing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _steps(self, steps: Sequence[Step], think_ms: int) -> None:
        result: object = None
        excuse = ""
        hang: Hang | None = None
        for step in steps:
            if isinstance(step, UseTool):
                await asyncio.sleep(step.pause_ms / 1000)
                failed = await self._tool(step)
                result, excuse = step.result, step.on_error if failed else ""
            elif isinstance(step, Say):
                words = self._brain.words(excuse) if excuse else step.with_result(result)
                await asyncio.sleep(step.pause_ms / 1000)
                await self._utter(words, think_ms, hang)
                excuse, hang = "", None
            elif isinstance(step, Send):
                self._voice.raw(json.dumps(step.frame))
            elif step.at_ms >= 0:
                hang = step
            else:
                await self._break(step)

    async def _tool(self, tool: UseTool) -> bool:
        """One call of a tool, as the vendor's server makes it; returns whether it failed."""
        self._tools += 1
        tool_id = f"tool_call_{self._tools:04d}"
        self._add({
            "role": "tool_call_invocation", "tool_call_id": tool_id, "name": tool.name,
            "arguments": json.dumps(tool.arguments, ensure_ascii=False),
        })  # fmt: skip
        called = {"id": tool_id, "name": tool.name, "type": "custom", "arguments": tool.arguments}
        line = self._log.add(Line("agent", None, self._log.now_ms(), tool_calls=[{**called, "called": True}]))
        await asyncio.sleep(tool.took_ms / 1000)
        content = tool.result if isinstance(tool.result, str) else json.dumps(tool.result, ensure_ascii=False)
        self._add({
            "role": "tool_call_result", "tool_call_id": tool_id, "content": content,
            "successful": not tool.is_error,
        })  # fmt: skip
        answer = {"id": tool_id, "name": tool.name, "type": "custom", "result": content}
        line.tool_results.append({**answer, "is_error": tool.is_error, "took_ms": tool.took_ms})
        return tool.is_error

    async def _utter(self, words: Say, think_ms: int, hang: Hang | None) -> None:
        """Speak; the transcript grows as the words are heard."""
        total = await self._voice.say(words.text, self._script.voice)
        self._responses += 1
        self._speaking = True
        metadata = {"response_id": self._responses, "is_backchannel": False}
        item_id = ""
        line = self._log.add(Line("agent", words.text, self._log.now_ms()))
        breaking = asyncio.create_task(self._break_later(hang)) if hang is not None else None
        try:
            said = ""
            for part in words.parts:
                said += part
                if item_id:
                    self._calls.change(self._call, item_id, {"content": said.strip()})
                else:
                    item = {"role": "agent", "content": said.strip(), "metadata": metadata}
                    item_id = str(self._add(item)["id"])
                    self._measure(think_ms)
                await asyncio.sleep(total * len(part) / max(1, len(words.text)) / 1000)
            await self._voice.said()
            if breaking is not None:
                await breaking
        except asyncio.CancelledError:
            left = self._voice.cut()
            self._interrupts += 1
            really = interrupted(words.text, 1 - left / total if total else 1.0).corrected
            line.original, line.text, line.interrupted = words.text, really, True
            patch = {"content": really, "metadata": {**metadata, "interrupt_id": self._interrupts}}
            self._calls.change(self._call, item_id, patch)
            raise
        finally:
            self._speaking = False
            if breaking is not None:
                breaking.cancel()
                await asyncio.gather(breaking, return_exceptions=True)

    def _measure(self, think_ms: int) -> None:
        """The figures of one answer; the greeting answers nobody."""
        if self._heard:
            silence = self._script.silence_ms
            llm, tts = think_ms * 0.7, think_ms * 0.3
            self._calls.measure(self._call, e2e=silence + think_ms, asr=silence, llm=llm, tts=tts)

    async def _break_later(self, hang: Hang) -> None:
        await asyncio.sleep(hang.at_ms / 1000)
        await self._break(hang)

    async def _break(self, hang: Hang) -> None:
        if hang.how in ENDED:
            known = hang.how == "close" and hang.reason
            self.stop(hang.reason if known else ENDED[hang.how])
        elif hang.how == "stall":
            self._voice.stall(hang.ms)
            await asyncio.sleep(hang.ms / 1000)
        elif hang.how == "garbage":
            self._voice.raw('{"type": "status", "sta')
        elif hang.how == "huge":
            # One message of the data channel carries 64 KiB; the monitor has no such bound.
            self._calls.tell(self._call, {"type": "unknown", "filler": "x" * HUGE})
