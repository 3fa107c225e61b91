"""One conversation from opening to end, over any transport: the same code whichever carries it.

The session stamps what happens, folds it into `live`, records it, moves audio between the line and the
transport, runs client tools and hands the operator's wishes on. It ends exactly once, with a reason.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from services.calls.audio_line import AudioLine
from services.calls.live import Area, LiveCall
from services.calls.messages import (
    AgentSpeaking,
    AgentSpeech,
    ApprovalGiven,
    Connected,
    DevicesChanged,
    EchoChanged,
    Ended,
    Informed,
    Interrupted,
    Marked,
    Message,
    Muted,
    Notice,
    PushToTalk,
    Quality,
    ToolEnded,
    ToolStarted,
    Typed,
    UserSpeaking,
    UserSpeech,
)
from services.calls.model import Brief, CallTarget, Capabilities, EndReason, Phase, TransportKind
from services.calls.recording import Recorder
from services.calls.tools import ToolBox
from services.calls.transport import AgentAudio, Transport, reason_of
from services.clock import Clock
from services.errors import ServiceError
from services.events import Unsubscribe

log = logging.getLogger(__name__)

OpenAudio: TypeAlias = Callable[[int, int, Callable[[ServiceError], None]], Awaitable[AudioLine]]
"""Opens the line for an input and an output rate (Hz); the callback is for a device that is lost later."""
AreasListener: TypeAlias = Callable[[frozenset[Area]], None]
MessageListener: TypeAlias = Callable[[int, Message], None]

TICK = 0.1
QUALITY_EVERY = 20
"""Ticks between two looks at the line's jitter."""
AFTERMATH_SECONDS = 8.0
OPENING_SECONDS = 5.0
"""What an opening that was called off may take to let go."""


BAR_RANGE_DB = 60.0
HELD_BARS = 10
"""The number beside the bars is the loudest of these (0.5 s): speech has gaps."""
SILENT_DB = -90.0


@dataclass(frozen=True, slots=True)
class Meters:
    """Levels of both directions: bars from 0 (-60 dB) to 1 (full scale), the newest last, and the loudest
    of the last half second in decibels below full scale."""

    input_bars: tuple[float, ...]
    output_bars: tuple[float, ...]
    input_db: float
    output_db: float


class CallSession:
    """A call that is being made. `run` carries it; the rest may be called from anywhere on the loop."""

    def __init__(
        self,
        call_id: str,
        target: CallTarget,
        transport: Transport,
        brief: Brief,
        *,
        clock: Clock,
        tools: ToolBox,
        recorder: Recorder,
        open_audio: OpenAudio | None = None,
        push_to_talk: bool = False,
    ) -> None:
        self.id = call_id
        self.target = target
        self.brief = brief
        self.live = LiveCall()
        self.started_at = clock.now()
        self._transport = transport
        self._clock = clock
        self._tools = tools
        self.recorder = recorder
        self._open_audio = open_audio
        self._push_to_talk = push_to_talk
        self._began = clock.monotonic()
        self._audio: AudioLine | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._areas: list[AreasListener] = []
        self._messages: list[MessageListener] = []
        self._over = asyncio.Event()
        self._settled = asyncio.Event()
        self._heard_event: int | None = None
        self._phases = [phase for phase in brief.phases if not phase.at_start]

    # -- looking ----------------------------------------------------------------------------------

    @property
    def kind(self) -> TransportKind:
        return self._transport.kind

    @property
    def capabilities(self) -> Capabilities:
        return self._transport.capabilities

    @property
    def folder(self) -> Path:
        """Where the recording is."""
        return self.recorder.folder

    @property
    def has_audio(self) -> bool:
        """Whether a line is open: microphone and loudspeaker, or their stand-in."""
        return self._audio is not None

    def now_ms(self) -> int:
        """Milliseconds since the call was begun."""
        return round((self._clock.monotonic() - self._began) * 1000)

    def meters(self, bars: int = 16) -> Meters | None:
        """The levels now; None while no audio passes through."""
        line = self._audio
        if line is None:
            return None
        given, heard = line.input_meter.bars(bars), line.output_meter.bars(bars)
        return Meters(given, heard, _held_db(given), _held_db(heard))

    def subscribe(self, listener: AreasListener) -> Unsubscribe:
        """Be told which areas of `live` changed."""
        self._areas.append(listener)
        return lambda: self._areas.remove(listener) if listener in self._areas else None

    def subscribe_messages(self, listener: MessageListener) -> Unsubscribe:
        """Be given every message with its time, after it was folded in."""
        self._messages.append(listener)
        return lambda: self._messages.remove(listener) if listener in self._messages else None

    async def wait(self) -> Ended:
        """Until the call is over; its recording may still be finished behind (see `settled`)."""
        await self._over.wait()
        assert self.live.ended is not None  # noqa: S101  # set before the event
        return self.live.ended

    async def settled(self) -> None:
        """Until everything about the call is written."""
        await self._settled.wait()

    # -- the operator -----------------------------------------------------------------------------

    async def say(self, text: str) -> None:
        """What the user says, typed.

        Raises ServiceError where the transport takes no text; `limited`, and nothing was said, where limits
        have no room for a turn.
        """
        if text.strip() and not self._over.is_set():
            await self._transport.take_turn()
            if self._audio is not None:
                self._audio.drop(None)
            self._publish(Typed(text.strip()))
            await self._guarded(self._transport.send_text(text.strip()))
            await self._next_phases(text)

    async def inform(self, text: str) -> None:
        """Tell the agent something the user did not say. Raises ServiceError where that is not offered."""
        if text.strip() and not self._over.is_set():
            await self._guarded(self._transport.send_context(text.strip()))
            self._publish(Informed(text.strip()))

    async def activity(self) -> None:
        """The operator is typing."""
        if not self._over.is_set():
            await self._transport.send_activity()

    async def mark(self, note: str = "") -> None:
        """Mark this moment in the recording."""
        self._publish(Marked(note.strip()))

    async def mute(self, on: bool) -> None:
        """Send silence instead of the microphone."""
        if self._audio is not None:
            self._audio.mute(on)
        self._publish(Muted(on))

    async def push_to_talk(self, on: bool) -> None:
        """The microphone is open only while `talk` says so."""
        self._push(on, False)

    async def talk(self, held: bool) -> None:
        """Open or close the microphone in push-to-talk."""
        self._push(True, held)

    def _push(self, on: bool, held: bool) -> None:
        if self._audio is not None:
            self._audio.push_to_talk(on, held)
        self._publish(PushToTalk(on, held))

    async def approve(self, tool_id: str, approved: bool) -> None:
        """Yes or no to a tool that waits for it."""
        if not self._over.is_set():
            await self._guarded(self._transport.approve(tool_id, approved))
            self._publish(ApprovalGiven(tool_id, approved))

    async def switch(self, input: str | None = None, output: str | None = None) -> None:  # noqa: A002
        """Use other devices from now on. Raises ServiceError, after which the old ones are still in use."""
        if self._audio is None:
            raise ServiceError("No audio passes through this call", code="not_offered")
        await self._audio.switch(input=input, output=output)
        self._tell_devices()

    async def end(self, reason: EndReason = EndReason.OPERATOR_ENDED, detail: str = "") -> None:
        """Hang up; returns when the call is over."""
        await self._transport.close(reason, detail)
        await self._over.wait()

    async def _guarded(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send; a line that broke meanwhile tells its end by itself."""
        try:
            await sending
        except ServiceError:
            raise
        except OSError as error:
            log.info("sending on the %s transport failed: %s", self.kind, type(error).__name__)

    # -- carrying it ------------------------------------------------------------------------------

    async def run(self) -> Ended:
        """Carry the call to its end. Never raises for anything the call does; cancelling it hangs up."""
        ended: Ended | None = None
        try:
            ended = await self._carry()
        except asyncio.CancelledError:
            await self._transport.close(EndReason.OPERATOR_ENDED)
            raise
        except Exception as error:
            log.exception("a call failed in our own code")
            ended = Ended(EndReason.PROTOCOL_ERROR, f"{type(error).__name__} in our own code", by="us")
        finally:
            await self._stop()
            self._finish(ended or Ended(EndReason.OPERATOR_ENDED, by="operator"))
        return ended

    async def _carry(self) -> Ended:
        self._own(self._tick())
        # Events are read from the beginning: dialling may take a minute, and the operator watches.
        opening = asyncio.create_task(self._transport.open(self.brief), name=f"call {self.id} opening")
        try:
            async for event in self._transport.events():
                if isinstance(event, AgentAudio):
                    self._hear(event)
                elif isinstance(event, Ended):
                    return await self._why(event, opening)
                else:
                    await self._take(event)
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        return Ended(EndReason.PROTOCOL_ERROR, "the transport stopped without a reason", by="us")

    async def _why(self, ended: Ended, opening: asyncio.Task[None]) -> Ended:
        """The end with what an opening that failed has to say; raises what is wrong in our own code."""
        done, _ = await asyncio.wait({opening}, timeout=OPENING_SECONDS)
        failure = opening.exception() if done and not opening.cancelled() else None
        if isinstance(failure, ServiceError):
            if ended.by == "operator":
                return ended
            self._publish(Notice(failure.message, "act", failure.advice))
            return Ended(reason_of(failure), failure.message, ended.by or "us", ended.code)
        if failure is not None:
            raise failure
        return ended

    async def _take(self, message: Message) -> None:
        if isinstance(message, AgentSpeaking | UserSpeaking) and self._audio is not None:
            return  # we hear it ourselves
        self._publish(message)
        if isinstance(message, Connected) and message.input_rate and message.output_rate:
            await self._start_audio(message)
        elif isinstance(message, Interrupted) and self._audio is not None:
            self._audio.drop(message.event_id)
            self._silent()
        elif isinstance(message, ToolStarted) and message.where == "client":
            self._own(self._run_tool(message))
        elif isinstance(message, UserSpeech | AgentSpeech) and message.final and self._phases:
            await self._next_phases(message.text)

    async def _run_tool(self, call: ToolStarted) -> None:
        answer = await self._tools.run(call.name, call.arguments)
        self._publish(ToolEnded(call.tool_id, answer.text, answer.ok, answer.took_ms))
        await self._guarded(self._transport.send_tool_result(call.tool_id, answer.text, answer.ok))

    async def _next_phases(self, text: str) -> None:
        """Tell the agent the parts of the brief whose moment has come."""
        if not self._phases or not self.capabilities.context:
            return
        due = [phase for phase in self._phases if self._is_due(phase, text)]
        for phase in due:
            self._phases.remove(phase)
            await self._guarded(self._transport.send_context(phase.text))
            self._publish(Informed(phase.text, phase.name))

    def _is_due(self, phase: Phase, text: str) -> bool:
        by_count = phase.after_turns > 0 and self.live.user_turns >= phase.after_turns
        return by_count or bool(phase.when and re.search(phase.when, text, re.IGNORECASE))

    # -- audio ------------------------------------------------------------------------------------

    async def _start_audio(self, connected: Connected) -> None:
        if self._open_audio is None or not self.capabilities.audio:
            return
        self.recorder.start_audio(connected.input_rate, connected.output_rate)
        try:
            self._audio = await self._open_audio(
                connected.input_rate, connected.output_rate, self._device_trouble
            )
        except ServiceError as error:
            self._device_trouble(error)
            return
        if self._push_to_talk:
            self._push(True, False)
        self._tell_devices()
        self._own(self._pump(self._audio))

    async def _pump(self, line: AudioLine) -> None:
        """The microphone's frames to the transport, and the user's turns from their voice."""
        speaking = False
        async for frame in line.frames():
            if self._transport.over:
                return
            await self._guarded(self._transport.send_audio(frame.pcm))
            if frame.speaking is not speaking:
                speaking = frame.speaking
                ago = 0.0 if speaking else line.end_of_speech_ms
                self._publish(UserSpeaking(speaking), max(0, self.now_ms() - round(ago)))

    def _hear(self, audio: AgentAudio) -> None:
        if self._audio is None:
            return
        self._audio.play(audio.pcm, audio.event_id)
        if audio.event_id != self._heard_event or not self.live.agent_speaking:
            if self.live.agent_speaking:
                self._publish(AgentSpeaking(False, self._heard_event))
            self._heard_event = audio.event_id
            self._publish(AgentSpeaking(True, audio.event_id))

    def _silent(self) -> None:
        if self.live.agent_speaking and self._audio is not None:
            self._publish(AgentSpeaking(False, self._heard_event))

    def record_input(self, pcm: bytes, at: float) -> None:
        """What the microphone gave, from the monotonic second `at` on. A tap of the line."""
        self.recorder.audio("you", (at - self._began) * 1000, pcm)

    def record_output(self, pcm: bytes, at: float) -> None:
        """What was played, from the monotonic second `at` on. A tap of the line."""
        self.recorder.audio("agent", (at - self._began) * 1000, pcm)

    def recording_stopped(self, reason: str) -> None:
        """The disk takes no more; the call goes on."""
        self._publish(
            Notice(
                f"The recording stopped: {reason}", "act", "The call goes on; free some space for the next"
            )
        )

    def _tell_devices(self) -> None:
        if self._audio is not None:
            self._publish(DevicesChanged(self._audio.input_name, self._audio.output_name))
            self._publish(EchoChanged(str(self._audio.echo_state)))

    def _device_trouble(self, error: ServiceError) -> None:
        """A device is gone, or was replaced by the default one (code `device_replaced`)."""
        if self._over.is_set():
            return
        if error.code == "device_replaced":
            self._publish(Notice(error.message, "look", error.advice))
            self._tell_devices()
        elif self.capabilities.text:
            self._publish(Notice(error.message, "act", "The call goes on: you can type, or choose a device"))
        else:
            self._publish(Notice(error.message, "act", error.advice))
            self._own(self._transport.close(EndReason.DEVICE_LOST, error.message))

    # -- time -------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            ticks += 1
            line = self._audio
            if line is None:
                continue
            if self.live.agent_speaking and not line.playing:
                self._silent()
            if ticks % QUALITY_EVERY == 0 and line.jitter_ms is not None:
                self._publish(Quality(jitter_ms=round(line.jitter_ms, 1)))

    # -- inside -----------------------------------------------------------------------------------

    def _publish(self, message: Message, t: int | None = None) -> None:
        t = self.now_ms() if t is None else t
        areas = self.live.apply(t, message)
        self.recorder.message(t, message)
        for told in tuple(self._messages):
            self._tell(told, t, message)
        if areas:
            for listener in tuple(self._areas):
                self._tell(listener, areas)

    def _tell(self, listener: Callable[..., None], *arguments: object) -> None:
        try:
            listener(*arguments)
        except Exception:
            log.exception("a listener of a call failed")

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except ServiceError as error:
                self._publish(Notice(error.message, "look", error.advice))
            except Exception:
                log.exception("part of a call failed")

        task = asyncio.create_task(run(), name=f"call {self.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop(self) -> None:
        """Hang up if that was not done, stop our tasks, close the devices."""
        await self._transport.close()
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        line, self._audio = self._audio, None
        if line is not None:
            try:
                await line.aclose()
            except Exception:
                log.exception("closing the devices failed")

    def _finish(self, ended: Ended) -> None:
        if not self._over.is_set():
            self._publish(ended)
            self._over.set()

    async def settle(self) -> None:
        """After the end: what the vendor tells late (cost, figures). For the service, once."""
        try:
            async with asyncio.timeout(AFTERMATH_SECONDS):
                for message in await self._transport.aftermath():
                    self._publish(message)
        except (TimeoutError, ServiceError) as error:
            log.info("what the vendor tells after a call could not be read: %s", type(error).__name__)
        except Exception:
            log.exception("what the vendor tells after a call could not be read")

    def mark_settled(self) -> None:
        """The service wrote everything."""
        self._settled.set()


def _held_db(bars: tuple[float, ...]) -> float:
    loudest = max(bars[-HELD_BARS:], default=0.0)
    return BAR_RANGE_DB * (loudest - 1) if loudest > 0 else SILENT_DB
