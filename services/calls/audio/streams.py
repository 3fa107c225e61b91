"""One open device and what its callback does.

The callbacks run in PortAudio's own threads. They copy, count and wake the event loop; they never raise and
never wait, but for the loop to read a flag: a resampled block costs them about 0.1 ms of its 20.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.calls.audio import devices
from services.calls.audio.devices import PORTAUDIO, WORDS, DeviceInfo, Kind
from services.calls.audio.formats import FRAME_MS, Fitter, Resampler
from services.calls.audio.playout import Block, Playout
from services.errors import ServiceError

log = logging.getLogger(__name__)

LATENCY = {"input": 0.08, "output": 0.06}
"""Seconds that the device is asked to buffer. On ALSA a quarter of it is a block. A microphone's blocks are
handed over when they are full, so its buffer costs no delay; the loudspeaker's does, and keeps a busy
program from starving it."""
INPUT_KEPT = 250
OUTPUT_KEPT = 500
"""Blocks that wait for the event loop at most (5 and 10 s)."""
SILENT_SECONDS = 0.8
"""A device whose callback did not come for this long is dead."""
FIRST_SECONDS = 4.0
"""The same before its first callback."""
FORMAT_REFUSED = (-9994, -9997, -9998)
"""PortAudio's codes for a sample format, a rate and a number of channels that a device does not take."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A block from the microphone: PCM as the device gave it, when the callback came, when it sounded."""

    pcm: bytes
    called: float
    began: float


@dataclass(frozen=True, slots=True)
class Played:
    """A block that was handed to the device, and when it will begin to sound (monotonic seconds)."""

    block: Block
    called: float
    sounds: float


class InputPort:
    """The microphone's callback; `blocks` is emptied on the loop."""

    kind: Kind = "input"

    def __init__(self, rate: int, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self.wanted_rate = rate
        self.blocks: deque[Captured] = deque(maxlen=INPUT_KEPT)
        self.enabled = False
        self.last: float | None = None
        self.lag = 0.0
        """Seconds from sound to callback, as the device tells."""
        self.trouble = 0
        """Blocks that were lost before they reached us."""
        self._now = now
        self._wake = wake
        self._rate, self._channels = rate, 1
        self._resampler = Resampler(rate, rate)

    def configure(self, rate: int, channels: int) -> None:
        """The stream's real rate and channels, before it starts."""
        self._rate, self._channels = rate, channels
        self._resampler = Resampler(rate, self.wanted_rate)

    def __call__(self, data: Any, frames: int, time: Any, status: Any) -> None:
        now = self._now()
        self.last = now
        with contextlib.suppress(Exception):
            lag = float(time.currentTime - time.inputBufferAdcTime)
            # Some hosts tell when the block was read instead of when it began.
            least = frames / self._rate
            self.lag = lag if least < lag < 1 else least
            if not self.enabled:
                return
            if status.input_overflow or len(self.blocks) == INPUT_KEPT:
                self.trouble += 1
            self.blocks.append(Captured(bytes(data), now, now - self.lag))
            self._wake()

    def disable(self) -> None:
        """Nothing more is taken from the device."""
        self.enabled = False

    def mono(self, block: Captured) -> bytes:
        """A block as mono PCM in the wanted rate. On the loop."""
        pcm = block.pcm
        if self._channels > 1:
            wide = np.frombuffer(pcm, "<i2").reshape(-1, self._channels)
            pcm = wide.mean(axis=1).astype("<i2").tobytes()
        return self._resampler.process(pcm)


class OutputPort:
    """The loudspeaker's callback: takes from the queue, in `log` it leaves what it took."""

    kind: Kind = "output"

    def __init__(self, playout: Playout, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self.wanted_rate = playout.rate
        self.log: deque[Played] = deque(maxlen=OUTPUT_KEPT)
        self.enabled = False
        self.last: float | None = None
        self.lag = 0.0
        """Seconds from callback to sound, as the device tells."""
        self.trouble = 0
        """How often the device ran out of audio while there was some."""
        self._playout = playout
        self._now = now
        self._wake = wake
        self._rate = playout.rate
        self._channels = 1
        self._fitter = Fitter(playout.rate, playout.rate)
        self._owed = 0.0
        self._forget = False
        self._least_lag = 0.0
        self._taking = threading.Lock()
        """Held from taking a block to its place in `log`, so that none is ever between the two."""

    def configure(self, rate: int, channels: int, latency: float = 0.0) -> None:
        """The stream's real rate, channels and latency, before it starts."""
        self._rate, self._channels = rate, channels
        self._fitter = Fitter(self.wanted_rate, rate)
        self._least_lag = latency

    def disable(self) -> None:
        """Nothing more is taken from the queue; what was taken is in `log`."""
        with self._taking:
            self.enabled = False

    @property
    def busy(self) -> bool:
        """Whether something waits in the queue, or was taken and not collected yet."""
        with self._taking:
            return self._playout.queued_ms > 0 or any(each.block.length for each in tuple(self.log))

    def forget(self) -> None:
        """Leave out what the resampler still holds back."""
        self._forget = True

    def __call__(self, data: Any, frames: int, time: Any, status: Any) -> None:
        now = self._now()
        self.last = now
        try:
            lag = float(time.outputBufferDacTime - time.currentTime)
            # A stream that has just started tells no lag, or none yet.
            self.lag = lag if 0 < lag < 2 else self._least_lag
            with self._taking:
                if not self.enabled:
                    data[:] = bytes(len(data))
                    return
                self._play(data, frames, now, status)
            self._wake()
        except Exception:
            with contextlib.suppress(Exception):
                data[:] = bytes(len(data))

    def _play(self, data: Any, frames: int, now: float, status: Any) -> None:
        if self._forget:
            self._forget = False
            self._fitter.reset()
        self._owed += frames * self.wanted_rate / self._rate
        samples = int(self._owed)
        self._owed -= samples
        block = self._playout.take(samples, now)
        if status.output_underflow and block.length:
            self.trouble += 1
        pcm = self._fitter.fit(block.pcm, frames)
        if self._channels > 1:
            pcm = np.repeat(np.frombuffer(pcm, "<i2"), self._channels).tobytes()
        data[:] = pcm
        self.log.append(Played(block, now, now + self.lag))


Port = InputPort | OutputPort


class DeviceStream:
    """An open device. Every method blocks: call it in a thread, with a limit."""

    def __init__(self, device: DeviceInfo, port: Port, now: Callable[[], float]) -> None:
        self.device = device
        self.port = port
        self.rate = 0
        self.channels = 0
        self._now = now
        self._stream: Any = None
        self._started = 0.0

    def open(self) -> None:
        """Open and start it: in the wanted rate, else in its own; mono, else with two channels.

        Raises ServiceError (`device_refused`).
        """
        sounddevice = devices.load()
        refusals: list[str] = []
        failures = 0
        most = self.device.inputs if self.port.kind == "input" else self.device.outputs
        for channels in (1, 2):
            for rate in dict.fromkeys((self.port.wanted_rate, self.device.rate, 48_000)):
                if channels > max(1, most) or rate * FRAME_MS % 1000:
                    continue
                try:
                    self._open(sounddevice, rate, channels)
                except Exception as error:  # PortAudioError, or ValueError for what it cannot take
                    refusals.append(_words(error))
                    failures += _code(error) not in FORMAT_REFUSED
                    if failures >= 2:  # it is not the format that is wrong
                        raise self._refusal(refusals) from error
                else:
                    return
        raise self._refusal(refusals)

    def _refusal(self, reasons: list[str]) -> ServiceError:
        return ServiceError(
            f"The {WORDS[self.port.kind]} {self.device.name!r} does not open: "
            f"{reasons[0] if reasons else 'no rate fits'}",
            advice="choose another device, or close the program that uses it",
            code="device_refused",
        )

    def _open(self, sounddevice: Any, rate: int, channels: int) -> None:
        kind = self.port.kind
        factory = sounddevice.RawInputStream if kind == "input" else sounddevice.RawOutputStream
        with PORTAUDIO:
            stream = factory(
                samplerate=rate,
                # The host's own block size: with one of ours, PortAudio's thread on ALSA can be left in an
                # endless loop when the device dies (its WaitForFrames, in releases up to 19.7.0).
                blocksize=0,
                device=self.device.index,
                channels=channels,
                dtype="int16",
                latency=LATENCY[kind],
                callback=self.port,
            )
            try:
                if isinstance(self.port, OutputPort):
                    self.port.configure(rate, channels, float(stream.latency))
                else:
                    self.port.configure(rate, channels)
                self._started = self._now()
                stream.start()
            except BaseException:
                stream.close(ignore_errors=True)
                raise
            self._stream, self.rate, self.channels = stream, rate, channels
            devices.opened()

    def restart(self) -> None:
        """Throw away what the device has buffered and go on. Raises ServiceError (`device_refused`)."""
        stream = self._stream
        if stream is None:
            return
        try:
            stream.abort()
            self.port.last = None
            self._started = self._now()
            with PORTAUDIO:
                stream.start()
        except Exception as error:
            raise ServiceError(
                f"The {WORDS[self.port.kind]} {self.device.name!r} does not go on: {_words(error)}",
                code="device_refused",
            ) from error

    def close(self) -> None:
        """Let go of the device; may be called again. Never raises."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            # Stopping a dead device can take for ever: others must not have to wait for it.
            stream.abort(ignore_errors=True)
            with PORTAUDIO:
                stream.close(ignore_errors=True)
                devices.closed()
        except Exception as error:
            log.info("closing %s failed: %s", self.device.name, type(error).__name__)

    def dead(self, now: float) -> bool:
        """Whether the device has stopped by itself. Does not block."""
        stream = self._stream
        if stream is None:
            return False
        try:
            if not stream.active and now - self._started > 0.5:
                return True
        except Exception:
            return True
        last = self.port.last
        return now - self._started > FIRST_SECONDS if last is None else now - last > SILENT_SECONDS


def _code(error: Exception) -> int:
    """PortAudio's number for a failure; 0 for another exception."""
    return error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0


def _words(error: Exception) -> str:
    """PortAudio's own words without its numbers."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.removeprefix("Error opening RawInputStream: ").removeprefix("Error opening RawOutputStream: ")
