"""A conversation with a simulated ElevenLabs agent, whichever wire carries it.

    talk = ElevenLabsConversation(agent, record, script, wire)
    talk.start()                          # waits for conversation_initiation_client_data first
    await talk.feed_text(message)         # or feed(frame): every frame of the client
    await talk.feed_audio(pcm)            # where audio is not in frames (LiveKit): PCM of `talk.input_rate`
    await talk.wait()                     # until the agent has ended it
    await talk.aclose(1005)               # the client has; always call it, it may come twice

The agent listens, thinks, speaks at the pace of speech, uses tools, is interrupted and corrects itself as its
script (`services.simulator.conversation`) and its configuration say. Frames are those of
`services.simulator.elevenlabs_frames`; only the agent's `client_events` are sent.

Assumed, since no source says: close codes 1008 for a refusal, 1000 for the agent's good-bye and for the
maximum duration; a frame that is not JSON ends the conversation with 1008, an unknown type is ignored.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import importlib
import json
import logging
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from services.simulator import elevenlabs_frames as frames
from services.simulator.conversation import Brain, Hang, Say, Script, Send, Step, UseTool, fill, interrupted
from services.simulator.conversations import Conversation, Line
from services.simulator.elevenlabs_terms import Refusal, Terms, admit
from services.simulator.elevenlabs_tools import Tools
from services.simulator.elevenlabs_voice import Ears, Voice
from services.simulator.sockets import Closed
from services.simulator.wire import Json

logger = logging.getLogger(__name__)

_INITIATION_SECONDS = 30.0
_HUGE = 16 * 1024 * 1024 + 1024
_CONTEXT_LIMIT = 128_000


class Wire(Protocol):
    """What carries a conversation. Everything that waits may raise `Closed`."""

    carries_audio: bool
    """Audio goes in frames; else frames carry its alignment only and `play` gets the sound."""

    async def send(self, text: str) -> None:
        """One frame, encoded."""

    async def play(self, pcm: bytes, rate: int) -> None:
        """The agent's voice, in pieces and on time."""

    async def hush(self) -> None:
        """The agent was interrupted: drop what is not heard yet."""

    async def close(self, code: int, reason: str) -> None:
        """The agent has ended the conversation."""

    def abort(self) -> None:
        """The server crashes."""


class Over(Exception):
    """The agent's side ends the conversation, with an error frame where there is one."""

    def __init__(self, code: int, reason: str = "", error: Json | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.error = error


class ElevenLabsConversation:
    """One conversation. All its tasks end with `aclose`."""

    def __init__(
        self, agent: Json, record: Conversation, script: Script, wire: Wire, *, seed: int = 0
    ) -> None:
        self._agent = agent
        self.record = record
        self._script = script
        self._wire = wire
        self._seed = seed
        self._initiation: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._inputs: asyncio.Queue[str] = asyncio.Queue()
        self._flows = asyncio.Event()
        self._flows.set()
        self._last_event = 0
        self._pings: dict[int, float] = {}
        self._round_trip: int | None = None
        self._performing: asyncio.Task[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._side: list[asyncio.Task[None]] = []
        self._words_used = 0
        self.terms: Terms | None = None
        self.voice: Voice | None = None
        self._ears: Ears | None = None
        self._tools = Tools(self)

    # What the wire calls.

    def start(self) -> None:
        self._main = asyncio.create_task(self._run(), name=f"conversation {self.record.id}")

    @property
    def input_rate(self) -> int:
        """Samples a second of `feed_audio`; 48,000 before the conversation has begun."""
        return 48_000 if self._ears is None else self._ears.rate

    async def feed_text(self, text: str) -> None:
        """A frame of the client as it came."""
        try:
            frame = json.loads(text)
        except ValueError:
            frame = None
        if isinstance(frame, dict):
            await self.feed(frame)
        else:
            self.record.received("malformed")
            self._end(Over(1008, "Invalid message received.", _invalid("The message is not a JSON object.")))

    async def feed(self, frame: Json) -> None:
        """A frame of the client."""
        audio = frame.get("user_audio_chunk")
        kind = str(frame.get("type") or ("user_audio_chunk" if audio is not None else "unknown"))
        self.record.received(kind)
        if kind == "conversation_initiation_client_data":
            if not self._initiation.done():
                self._initiation.set_result(frame)
        elif kind == "user_audio_chunk":
            await self._audio_frame(str(audio))
        elif kind in ("user_message", "multimodal_message"):
            inner = frame if kind == "user_message" else frame.get("text") or {}
            await self._typed(str(inner.get("text") or ""))
        elif kind == "pong":
            sent = self._pings.pop(int(frame.get("event_id") or 0), None)
            if sent is not None:
                self._round_trip = max(1, round((time.monotonic() - sent) * 1000))
        elif kind in ("client_tool_result", "mcp_tool_approval_result"):
            self._tools.resolve(str(frame.get("tool_call_id")), frame)
        elif kind == "contextual_update":
            self.record.context.append(str(frame.get("text") or ""))
        elif kind == "feedback":
            self.record.feedback.append({"event_id": frame.get("event_id"), "score": frame.get("score")})

    async def feed_audio(self, pcm: bytes) -> None:
        """Sound of the client, of any length."""
        if self._ears is not None:
            self._ears.hear(pcm)

    async def wait(self) -> None:
        """Until the agent's side is over."""
        if self._main is not None:
            await asyncio.wait({self._main})

    async def aclose(self, code: int = 1005, reason: str = "") -> None:
        """The client has gone, or the simulator stops. The agent's own end, if it came first, stays."""
        if self.record.ended_ms is None:
            self.record.details["termination"] = f"Client disconnected: {code}"
        self.record.finish(code, reason, failed=self.record.started_ms is None)
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait({self._main})

    # What its parts call.

    @property
    def script(self) -> Script:
        return self._script

    def next_event(self) -> int:
        self._last_event += 1
        return self._last_event

    async def emit(self, frame: Json) -> None:
        """Send a frame, unless the agent does not have it in its `client_events`."""
        if self.terms is None or self.terms.sends(str(frame["type"])):
            await self.emit_text(json.dumps(frame, ensure_ascii=False))

    async def emit_text(self, text: str) -> None:
        """Send anything; waits while the line is stalled."""
        await self._flows.wait()
        await self._wire.send(text)

    async def spoken(self, text: str) -> None:
        """The user has finished a spoken turn."""
        self.record.add(Line("user", text, self.record.now_ms()))
        self._inputs.put_nowait(text)

    async def interrupt(self) -> None:
        """The user speaks or types over the agent: stop it, say so, and say what was really heard."""
        voice = self.voice
        if voice is None or not voice.audible or not voice.interruptible or self._performing is None:
            return
        self._performing.cancel()
        await asyncio.wait({self._performing})
        cut = voice.cut()
        if cut is None:  # its last word was heard meanwhile
            return
        await self._wire.hush()
        await self.emit(frames.interruption(voice.last_audio_event))
        line, event_id, share = cut
        correct = interrupted(line.text or "", share)
        line.interrupted, line.original, line.text = True, correct.original, correct.corrected
        if self._script.correction:
            await self.emit(frames.correction(event_id, correct.original, correct.corrected))

    # Its course.

    async def _run(self) -> None:
        try:
            await self._conduct()
        except Over as over:
            await self._say_over(over)
        except Closed:
            pass  # whoever reads from the wire knows the code, and calls `aclose` with it
        except Exception:
            logger.exception("a simulated conversation broke")
            await self._say_over(Over(1011, "internal error of the simulator"))
        finally:
            tasks = [task for task in (self._performing, *self._side) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.voice is not None:
                self.voice.keep()

    async def _say_over(self, over: Over) -> None:
        self._flows.set()
        if self.record.ended_ms is None:
            self.record.details["termination"] = over.reason or "end_call tool was called."
        self.record.finish(over.code, over.reason, failed=over.code != 1000)
        if self._performing is not None:
            self._performing.cancel()
            await asyncio.wait({self._performing})
        with contextlib.suppress(Closed):
            if over.error is not None:
                await self.emit(over.error)
            await self._wire.close(over.code, over.reason)

    async def _conduct(self) -> None:
        try:
            # Not `wait_for`: before Python 3.12 it loses a cancellation that comes with the result.
            async with asyncio.timeout(_INITIATION_SECONDS):
                initiation = await self._initiation
        except TimeoutError:
            message = "The conversation was not initiated in time."
            raise Over(1008, message, frames.error(1008, "transport_receive_timeout", message)) from None
        self.record.initiation = initiation
        try:
            terms = admit(self._agent, initiation)
        except Refusal as refusal:
            error = frames.error(refusal.code, refusal.error_type, refusal.message)
            raise Over(refusal.code, refusal.message, error) from None
        if not self._wire.carries_audio:
            terms = replace(terms, input_format="pcm_48000", output_format="pcm_48000")
        if not terms.text_only:
            # numpy takes too long to import on the loop.
            await asyncio.to_thread(importlib.import_module, "services.simulator.speech")
        self.terms = terms
        self.record.text_only = terms.text_only
        self.record.begin()
        brain = self._brain(terms)
        await self.emit(frames.metadata(self.record.id, terms.output_format, terms.input_format))
        if not terms.text_only:
            self.voice = Voice(self, self._wire, terms, self._seed)
            self._ears = Ears(self, brain, terms)
            self._spawn(self._ears.listen())
            await self.emit(frames.asr_metadata())
        self._spawn(self._ping())
        if self._script.mcp:
            await self.emit(frames.mcp_status(self._script.mcp))
        most = self._script.max_duration_ms / 1000 or terms.most_seconds
        try:
            async with asyncio.timeout(most):
                await self._talk(brain, terms)
        except TimeoutError:
            message = f"Conversation exceeded the maximum duration of {most:g} seconds."
            raise Over(1000, message, frames.error(1000, "max_duration_exceeded", message)) from None

    def _brain(self, terms: Terms) -> Brain:
        own = self._script.greeting is None or "agent.first_message" in terms.overridden
        greeting = terms.first_message if own else self._script.greeting
        return Brain(replace(self._script, greeting=greeting), self._seed, terms.variables)

    async def _talk(self, brain: Brain, terms: Terms) -> None:
        await self._perform(brain.greeting(), terms.greeting_interruptible)
        while True:
            text = await self._inputs.get()
            await asyncio.sleep(self._script.think_ms / 1000)
            await self._perform(brain.on_user(text), True)

    async def _perform(self, steps: list[Step], interruptible: bool) -> None:
        """Do all the steps; an interruption ends them early."""
        task = asyncio.create_task(self._steps(steps, interruptible and self._script.interruptible))
        self._performing = task
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _steps(self, steps: list[Step], interruptible: bool) -> None:
        result, failed_words = "", ""
        inside: Hang | None = None
        for step in steps:
            if isinstance(step, Say):
                words = fill(failed_words, self.terms.variables if self.terms else {})
                say = Say(words, (words,)) if words else step.with_result(result)
                failed_words = ""
                await self._say(say, inside, interruptible)
                inside = None
            elif isinstance(step, UseTool):
                await asyncio.sleep(step.pause_ms / 1000)
                result, failed = await self._tools.use(step)
                failed_words = step.on_error if failed else ""
            elif isinstance(step, Send):
                await self.emit_text(json.dumps(step.frame, ensure_ascii=False))
            elif step.at_ms >= 0 and self.voice is not None:
                inside = step
            else:
                await self.hang(step)

    async def _say(self, say: Say, inside: Hang | None, interruptible: bool) -> None:
        await asyncio.sleep(say.pause_ms / 1000)
        event_id = self.next_event()
        line = Line("agent", say.text, self.record.now_ms(), medium="text" if self.voice is None else "audio")
        if self.voice is not None:
            await self.emit(frames.tentative_agent_response(say.text))
            await self.voice.prepare(say.text)
        else:
            await self.emit(frames.chat_part(event_id, "start"))
            for part in say.parts:
                await self.emit(frames.chat_part(event_id, "delta", part))
            await self.emit(frames.chat_part(event_id, "stop"))
        self.record.add(line)
        await self.emit(frames.agent_response(event_id, say.text))
        await self._context_usage(event_id, say.text)
        if self.voice is not None:
            await self.voice.speak(line, event_id, inside, interruptible)

    async def _context_usage(self, event_id: int, text: str) -> None:
        self._words_used += len(text.split()) + 40
        llm = self.terms.llm if self.terms else ""
        await self.emit(frames.context_usage(event_id, llm, 900 + self._words_used, _CONTEXT_LIMIT))

    async def hang(self, hang: Hang) -> None:
        """Break or end as a script says."""
        if hang.how == "end":
            await self._tools.end_call()
            raise Over(hang.code, hang.reason)
        if hang.how == "close":
            raise Over(hang.code, hang.reason)
        if hang.how == "crash":
            self.record.finish(1006, hang.reason, failed=True)
            self._wire.abort()
            raise Closed(1006)
        if hang.how == "stall":
            self._flows.clear()
            try:
                await asyncio.sleep(hang.ms / 1000)
            finally:
                self._flows.set()
        elif hang.how == "garbage":
            await self.emit_text('{"type":"audio","audio_event":{"audio_base_64":"AAA')
        elif hang.how == "huge":
            empty = json.dumps(frames.agent_response(self.next_event(), ""))
            await self.emit_text(empty.replace('""', '"' + "x" * _HUGE + '"', 1))
        elif self.voice is not None:
            self.voice.use_wrong_format()

    # Beside it.

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._side.append(asyncio.create_task(self._guarded(work)))

    async def _guarded(self, work: Awaitable[None]) -> None:
        """A mistake beside the conversation ends it."""
        try:
            await work
        except Closed:
            pass
        except Exception:
            logger.exception("a simulated conversation broke")
            self._end(Over(1011, "internal error of the simulator"))

    def _end(self, why: Over) -> None:
        """End from outside of the main task."""
        if self._main is not None and not self._main.done():
            self._side.append(asyncio.create_task(self._end_now(why)))

    async def _end_now(self, over: Over) -> None:
        await self._say_over(over)
        if self._main is not None:
            self._main.cancel()

    async def _ping(self) -> None:
        while True:
            event_id = self.next_event()
            self._pings[event_id] = time.monotonic()
            await self.emit(frames.ping(event_id, self._round_trip))
            if not self._script.ping_every_ms:
                return
            await asyncio.sleep(self._script.ping_every_ms / 1000)

    async def _typed(self, text: str) -> None:
        self.record.add(Line("user", text, self.record.now_ms(), medium="text"))
        await self.interrupt()
        self._inputs.put_nowait(text)

    async def _audio_frame(self, encoded: str) -> None:
        ears = self._ears
        if ears is None or self.terms is None:
            return
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            self._end(Over(1008, "Invalid message received.", _invalid("user_audio_chunk is not base64.")))
            return
        ears.hear_encoded(data)


def _invalid(message: str) -> Json:
    return frames.error(1008, "invalid_message", message)
