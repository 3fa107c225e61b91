"""The audio of one call: microphone to frames, agent's voice to loudspeaker, both ways at once.

    device callback → echo cancellation → mute → frames()
    play() → queue → device callback → loudspeaker, echo reference, meter, tap

The devices' threads only hand blocks over; everything else happens on the event loop, about 0.5 ms for the
20 ms of both directions. Times given to others are monotonic seconds of the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.calls.audio.devices import DeviceInfo, Kind
from services.calls.audio.echo import EchoCanceller, HalfDuplex, NoEcho, open_echo
from services.calls.audio.figures import Arrivals, AudioStats, Delays, SteadyTime
from services.calls.audio.formats import FRAME_MS, SAMPLE_BYTES, duration_ms
from services.calls.audio.meter import HANGOVER_MS, Meter
from services.calls.audio.pair import DevicePair
from services.calls.audio.playout import Playout
from services.calls.audio.streams import Captured, InputPort, OutputPort, Played
from services.clock import Clock, SystemClock
from services.errors import ServiceError

log = logging.getLogger(__name__)

Tap: TypeAlias = Callable[[bytes, float], None]
"""PCM and the monotonic second at which it began to sound."""

FRAMES_KEPT = 50
"""Frames that wait for their reader at most (1 s); the oldest are dropped."""
BLOCKS_A_TURN = 10
"""Microphone blocks handled before others on the loop have their turn (about 4 ms)."""
EVENTS_KEPT = 256
CUT_MARGIN = 0.005
"""Seconds that stopping the loudspeaker takes."""
DELAY_STEP_MS = 10


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """20 ms of the microphone in the input rate, after echo cancellation and mute."""

    pcm: bytes
    captured_at: float
    """When its first sample sounded, in monotonic seconds."""
    level: float
    """RMS in dBFS."""
    speaking: bool


@dataclass(slots=True)
class Heard:
    """Audio on its way through the device."""

    pcm: bytes
    sounds: float
    ends: float
    events: list[tuple[int, int]]


class AudioEngine:
    """Both directions of one call, in the rates of the agent (Hz). Used on one event loop, once."""

    end_of_speech_ms = float(HANGOVER_MS)

    def __init__(
        self,
        input_rate: int,
        output_rate: int,
        *,
        input_device: str | int | None = None,
        output_device: str | int | None = None,
        echo: bool = True,
        half_duplex: bool = True,
        clock: Clock | None = None,
        on_input: Tap | None = None,
        on_output: Tap | None = None,
        on_problem: Callable[[ServiceError], None] | None = None,
    ) -> None:
        """Devices as `find_device` takes them; None is the machine's default.

        `half_duplex`: silence the microphone while the agent speaks where echo cannot be cancelled.
        The taps are called on the loop: `on_input` with every frame (as it is sent), `on_output` with what
        was really heard, once it was. `on_problem`, on the loop too, is told of a lost device: code
        `device_replaced` when the default device took over, `device_lost` when none could (the other
        direction goes on, and `switch` can still bring a device back).
        """
        self.input_meter = Meter(input_rate)
        self.output_meter = Meter(output_rate)
        self.dropped_frames = 0
        """Frames nobody read in time."""
        self._wanted: dict[Kind, str | int | None] = {"input": input_device, "output": output_device}
        self._rates: dict[Kind, int] = {"input": input_rate, "output": output_rate}
        self._echo_wanted = echo
        self._half_duplex = half_duplex
        self._clock = clock or SystemClock()
        self._on_input, self._on_output, self._on_problem = on_input, on_output, on_problem
        self._playout = Playout(output_rate)
        self._echo: EchoCanceller = NoEcho()
        self._echo_delay_ms = 0
        self._pair = DevicePair(self._port, self._clock, self._drain, self._tell_problem)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._frames: deque[tuple[CapturedFrame, float]] = deque()
        self._news = asyncio.Event()
        self._rest = bytearray()
        self._muted = self._pushing = self._held = False
        self._heard: deque[Heard] = deque()
        self._cut_at = float("-inf")
        self._played: OrderedDict[int, int] = OrderedDict()
        self._input_time, self._output_time = SteadyTime(), SteadyTime()
        self._capture_delays, self._play_delays = Delays(), Delays()
        self._arrivals = Arrivals(output_rate)

    # -- opening and closing ----------------------------------------------------------------------

    async def start(self) -> None:
        """Open both devices. Raises ServiceError: `no_audio_library`, `no_device`, `unknown_device`,
        `ambiguous_device`, `device_refused`, `device_stuck`; nothing is left open then."""
        self._loop = asyncio.get_running_loop()
        try:
            self._echo = await asyncio.to_thread(
                open_echo, self._echo_wanted, self._rates["input"], half_duplex=self._half_duplex
            )
            await self._pair.open(self._wanted)
        except BaseException:
            await self.aclose()
            raise
        self._own(self._pair.watch, "watch")

    async def aclose(self) -> None:
        """Close the devices; `frames` ends. May be called again. What was not heard yet stays unheard."""
        if self._closed:
            return
        self._collect_output()
        self._tell_heard(cut=True)
        self._closed = True
        self._news.set()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pair.aclose()

    def _port(self, kind: Kind) -> InputPort | OutputPort:
        now = self._clock.monotonic
        if kind == "input":
            return InputPort(self._rates[kind], now, self._wake)
        return OutputPort(self._playout, now, self._wake)

    # -- what others see --------------------------------------------------------------------------

    @property
    def input_device(self) -> DeviceInfo | None:
        """The microphone in use; None while there is none."""
        return self._pair.device("input")

    @property
    def output_device(self) -> DeviceInfo | None:
        """The loudspeaker in use; None while there is none."""
        return self._pair.device("output")

    @property
    def input_name(self) -> str:
        return self.input_device.name if self.input_device is not None else ""

    @property
    def output_name(self) -> str:
        return self.output_device.name if self.output_device is not None else ""

    @property
    def echo_state(self) -> str:
        """A word of `EchoState`."""
        return str(self._echo.state)

    @property
    def playing(self) -> bool:
        """Whether something is queued, still sounds, or was not told yet."""
        port = self._output_port()
        if self._playout.queued_ms > 0 if port is None else port.busy:
            return True
        # By the clock without devices: nothing comes any more that would take these away.
        return bool(self._heard) and (
            bool(self._pair.ports) or self._heard[-1].ends > self._clock.monotonic()
        )

    @property
    def buffered_ms(self) -> float:
        """How much waits to be played, without what the device has buffered."""
        return self._playout.queued_ms

    @property
    def jitter_ms(self) -> float | None:
        """How late the pieces of an utterance come on average; None before enough came."""
        return self._arrivals.jitter_ms

    @property
    def underruns(self) -> int:
        """Audible holes: the device ran dry, or an utterance's next piece came late."""
        return self._playout.gaps + self._pair.trouble("output")

    @property
    def overruns(self) -> int:
        """Microphone blocks that were lost before they reached us."""
        return self._pair.trouble("input")

    def played_ms(self, event_id: int) -> int:
        """How much of this event was heard so far; the last 256 events are known."""
        return round(1000 * self._played.get(event_id, 0) / (self._rates["output"] * SAMPLE_BYTES))

    def stats(self) -> AudioStats:
        """The figures now; the delays are those of the last 30 s."""
        ports = self._pair.ports
        return AudioStats(
            capture_delay_p50_ms=self._capture_delays.percentile(50),
            capture_delay_p95_ms=self._capture_delays.percentile(95),
            play_delay_p50_ms=self._play_delays.percentile(50),
            play_delay_p95_ms=self._play_delays.percentile(95),
            arrival_jitter_ms=self.jitter_ms,
            hold_ms=self._playout.hold_ms,
            buffered_ms=self.buffered_ms,
            input_latency_ms=1000 * ports["input"].lag if "input" in ports else None,
            output_latency_ms=1000 * ports["output"].lag if "output" in ports else None,
            gaps=self._playout.gaps,
            underruns=self.underruns,
            overruns=self.overruns,
            dropped_frames=self.dropped_frames,
            echo_reduction_db=self._echo.reduction_db,
        )

    # -- the call's side --------------------------------------------------------------------------

    async def frames(self) -> AsyncIterator[CapturedFrame]:
        """A frame every 20 ms until closed, none while there is no microphone. For one reader."""
        while True:
            while self._frames:
                frame, called = self._frames.popleft()
                self._capture_delays.add(self._clock.monotonic() - called)
                yield frame
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    def play(self, pcm: bytes, event_id: int = 0) -> None:
        """Queue audio of any length in the output rate. Events that were dropped stay silent.

        While there is no loudspeaker nothing is queued; while one is being replaced, it is.
        """
        now = self._clock.monotonic()
        self._arrivals.add(pcm, event_id, now)
        if not self._closed and ("output" in self._pair.ports or self._pair.changing):
            self._playout.add(pcm, event_id, now)

    def drop(self, up_to_event_id: int | None = None) -> None:
        """Be silent at once: what is queued and what the device has buffered is thrown away.

        With an id: of this event and all before it, and later audio of theirs is ignored. None: all that
        was given so far.
        """
        self._playout.drop(up_to_event_id)
        self._collect_output()
        if not self._closed:
            self._tell_heard()
        now = self._clock.monotonic()
        unheard = [each for each in self._heard if each.ends > now]
        if not unheard or self._closed:
            return
        if up_to_event_id is not None and any(
            event > up_to_event_id for each in unheard for event, _ in each.events
        ):
            return  # a newer event is sounding already: it may
        self._tell_heard(cut=True)
        self._cut_at = now
        port = self._output_port()
        if port is not None:
            port.forget()
            self._own(self._pair.silence, "silence")

    def mute(self, on: bool) -> None:
        """Send silence: frames keep coming, so that the far side's turn detection goes on."""
        self._muted = on

    def push_to_talk(self, on: bool, held: bool = False) -> None:
        """In this mode frames are silence unless `held`."""
        self._pushing, self._held = on, held

    async def switch(
        self,
        *,
        input: str | int | None = None,  # noqa: A002
        output: str | int | None = None,
    ) -> None:
        """Use other devices from now on; None leaves a direction as it is, "" is the default device.

        Raises ServiceError as `start` does, after which the device before is still in use. What is queued
        goes on over the new loudspeaker; what the one before has buffered (some 70 ms) is cut.
        """
        await self._pair.switch({"input": input, "output": output})

    async def rescan(self) -> list[DeviceInfo]:
        """Look for devices anew during the call; both directions pause for it (some 50 ms)."""
        return await self._pair.rescan()

    def _tell_problem(self, error: ServiceError) -> None:
        log.warning("%s", error.message)
        if self._pair.device("output") is None:
            self._playout.drop(None)
        if self._on_problem is not None and not self._closed:
            self._guard(self._on_problem, error)

    # -- blocks of the devices --------------------------------------------------------------------

    def _wake(self) -> None:
        """Have the loop look at the blocks. Called in the devices' threads."""
        loop = self._loop
        if not self._woken and loop is not None:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False
        if self._closed:
            return
        self._collect_output()
        self._tell_heard()
        port = self._pair.ports.get("input")
        if isinstance(port, InputPort):
            for _ in range(BLOCKS_A_TURN):
                if not port.blocks:
                    return
                self._capture(port, port.blocks.popleft())
            self._wake()

    def _output_port(self) -> OutputPort | None:
        port = self._pair.ports.get("output")
        return port if isinstance(port, OutputPort) else None

    def _collect_output(self) -> None:
        """What the loudspeaker took: to the echo reference and the meter, then to what is being heard."""
        port = self._output_port()
        while port is not None and port.log:
            played = port.log.popleft()
            self.output_meter.feed(played.block.pcm)
            self._cancel(self._echo.playback, played.block.pcm, self._rates["output"])
            if played.block.length:
                for seconds in played.block.waited:
                    self._play_delays.add(seconds)
                if played.called > self._cut_at:
                    self._sound(played)

    def _sound(self, played: Played) -> None:
        pcm = played.block.pcm[: played.block.length]
        seconds = duration_ms(pcm, self._rates["output"]) / 1000
        sounds = self._output_time.of(played.sounds, seconds)
        self._heard.append(Heard(pcm, sounds, sounds + seconds, list(played.block.events)))

    def _tell_heard(self, *, cut: bool = False) -> None:
        """Hand on what was heard by now. With `cut` the rest is thrown away, from this moment on."""
        now = self._clock.monotonic() + (CUT_MARGIN if cut else 0)
        while self._heard and (cut or self._heard[0].ends <= now):
            heard = self._heard.popleft()
            pcm = heard.pcm
            if heard.ends > now:
                samples = max(0, int((now - heard.sounds) * self._rates["output"]))
                pcm = pcm[: samples * SAMPLE_BYTES]
            left = len(pcm)
            for event, size in heard.events:
                self._played[event] = self._played.get(event, 0) + min(size, left)
                left -= min(size, left)
            if pcm and self._on_output is not None:
                self._guard(self._on_output, pcm, heard.sounds)
        while len(self._played) > EVENTS_KEPT:
            self._played.popitem(last=False)

    def _capture(self, port: InputPort, block: Captured) -> None:
        """One block of the microphone: it completes no frame, one, or several."""
        rate = self._rates["input"]
        size = rate * FRAME_MS // 1000 * SAMPLE_BYTES
        began = block.began - duration_ms(self._rest, rate) / 1000
        self._rest += port.mono(block)
        self._follow_delay(port)
        while len(self._rest) >= size:
            pcm = bytes(self._rest[:size])
            del self._rest[:size]
            self._frame(pcm, self._input_time.of(began, FRAME_MS / 1000), block.called)
            began += FRAME_MS / 1000

    def _frame(self, pcm: bytes, at: float, called: float) -> None:
        pcm = self._cancel(self._echo.capture, pcm) or pcm
        if self._muted or (self._pushing and not self._held):
            pcm = bytes(len(pcm))
        self.input_meter.feed(pcm)
        if self._on_input is not None:
            self._guard(self._on_input, pcm, at)
        if len(self._frames) >= FRAMES_KEPT:
            self._frames.popleft()
            self.dropped_frames += 1
        frame = CapturedFrame(pcm, at, self.input_meter.level_db, self.input_meter.speaking)
        self._frames.append((frame, called))
        self._news.set()

    def _cancel(self, work: Callable[..., Any], *arguments: object) -> Any:
        """Echo cancellation that fails is replaced, and the call goes on."""
        try:
            return work(*arguments)
        except Exception as error:
            log.warning("echo cancellation failed: %s", type(error).__name__)
            self._echo = HalfDuplex() if self._half_duplex else NoEcho()
            return None

    def _follow_delay(self, port: InputPort) -> None:
        output = self._output_port()
        if output is not None:
            delay = round(1000 * (output.lag + port.lag))
            if abs(delay - self._echo_delay_ms) >= DELAY_STEP_MS:
                self._echo_delay_ms = delay
                self._cancel(self._echo.set_delay, delay)

    def _guard(self, told: Callable[..., None], *arguments: object) -> None:
        try:
            told(*arguments)
        except Exception:
            log.exception("a listener of the audio failed")

    def _own(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        async def run() -> None:
            try:
                await work()
            except Exception:
                log.exception("part of the audio failed")

        task = asyncio.create_task(run(), name=f"audio {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
