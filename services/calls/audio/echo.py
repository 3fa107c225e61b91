"""Keeping the agent's voice out of the microphone: cancelled, gated, or neither.

Cancelling is WebRTC's audio processing module from the `livekit` package (the extra `webrtc`). It is given
everything that goes to the loudspeaker and finds the delay by itself; 20 ms cost about 0.2 ms.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from services.calls.audio.formats import FRAME_MS, SAMPLE_BYTES, Resampler, duration_ms
from services.calls.audio.meter import level_of

log = logging.getLogger(__name__)

MODULE_MS = 10
"""The module takes frames of exactly this length."""
FAR_DB = -50.0
"""The loudspeaker counts as playing above this level."""
FAR_HOLD_MS = 400
QUIET_DB = -65.0
"""Below this there is nothing in the microphone to measure."""
ABOVE_ROOM_DB = 8.0
ROOM_RISE_DB = 0.03
"""A frame, for a room that becomes louder."""
SMOOTHING = 0.97
CANCELLED_DB = 3.0
MEASURED_FRAMES = 20


class EchoState(StrEnum):
    """What is done about the echo now, in words for the screen."""

    OFF = "off"
    READY = "ready"
    """Cancelling is on, and there was no echo so far: a headset, or nothing was played."""
    CANCELLING = "echo cancelled"
    HALF_DUPLEX = "half duplex"
    """The microphone is closed while the agent speaks: no interrupting by voice."""
    UNAVAILABLE = "unavailable"
    """Wanted, but the module is absent and half duplex was not wanted."""


class EchoCanceller(Protocol):
    """Both are called on one thread, `playback` before the `capture` that may hold its echo."""

    @property
    def state(self) -> EchoState: ...

    @property
    def reduction_db(self) -> float | None:
        """By how much the echo is reduced now; None where that is not measured."""
        ...

    def capture(self, pcm: bytes) -> bytes:
        """20 ms of the microphone in; the same without the echo out."""
        ...

    def playback(self, pcm: bytes, rate: int) -> None:
        """What goes to the loudspeaker next, silence included, in its own rate (Hz)."""
        ...

    def set_delay(self, ms: int) -> None:
        """From `playback` until the echo is handed to `capture`, as far as the devices tell."""
        ...


class NoEcho:
    """Leaves the microphone alone."""

    reduction_db: float | None = None

    def __init__(self, state: EchoState = EchoState.OFF) -> None:
        self.state = state

    def capture(self, pcm: bytes) -> bytes:
        return pcm

    def playback(self, pcm: bytes, rate: int) -> None:
        """Nothing to do."""

    def set_delay(self, ms: int) -> None:
        """Nothing to do."""


class HalfDuplex:
    """Silences the microphone while the loudspeaker plays, and `hangover_ms` longer."""

    reduction_db: float | None = None
    state = EchoState.HALF_DUPLEX

    def __init__(self, *, hangover_ms: int = 250) -> None:
        self._hangover_ms = hangover_ms
        self._delay_ms = 60
        self._closed_ms = 0.0

    @property
    def closed(self) -> bool:
        """Whether the microphone is silenced now."""
        return self._closed_ms > 0

    def capture(self, pcm: bytes) -> bytes:
        if self._closed_ms <= 0:
            return pcm
        self._closed_ms -= FRAME_MS
        return bytes(len(pcm))

    def playback(self, pcm: bytes, rate: int) -> None:
        if _level(pcm) > FAR_DB:
            self._closed_ms = self._delay_ms + self._hangover_ms + duration_ms(pcm, rate)

    def set_delay(self, ms: int) -> None:
        self._delay_ms = ms


class LivekitEcho:
    """Acoustic echo cancellation, with noise suppression and a high-pass filter.

    Making one loads 30 MB of native code (0.3 s): not on the event loop. Raises ImportError without the
    package, and whatever its library raises.
    """

    def __init__(self, rate: int) -> None:
        from livekit.rtc import AudioFrame, AudioProcessingModule

        # The module takes only rates of which 10 ms are whole samples.
        self._rate = rate if rate * MODULE_MS % 1000 == 0 else 24_000
        self._into = Resampler(rate, self._rate)
        self._back = Resampler(self._rate, rate)
        self._frame: Any = AudioFrame
        self._module: Any = AudioProcessingModule(
            echo_cancellation=True, noise_suppression=True, high_pass_filter=True, auto_gain_control=False
        )
        self._samples = self._rate * MODULE_MS // 1000
        self._far = Resampler(rate, self._rate)
        self._far_waiting = bytearray()
        self._near_waiting = bytearray()
        self._clean = bytearray()
        self._gain = _Reduction()
        self.set_delay(60)

    @property
    def state(self) -> EchoState:
        reduced = self._gain.db
        return EchoState.READY if reduced is None or reduced < CANCELLED_DB else EchoState.CANCELLING

    @property
    def reduction_db(self) -> float | None:
        return self._gain.db

    def set_delay(self, ms: int) -> None:
        self._module.set_stream_delay_ms(max(0, min(500, ms)))

    def playback(self, pcm: bytes, rate: int) -> None:
        if rate != self._far.source:
            self._far = Resampler(rate, self._rate)
        self._far_waiting += self._far.process(pcm)
        for piece in self._pieces(self._far_waiting):
            self._gain.far(piece)
            self._module.process_reverse_stream(self._frame(piece, self._rate, 1, self._samples))

    def capture(self, pcm: bytes) -> bytes:
        self._near_waiting += self._into.process(pcm)
        for piece in self._pieces(self._near_waiting):
            frame = self._frame(piece, self._rate, 1, self._samples)
            self._module.process_stream(frame)
            cleaned = bytes(frame.data)
            self._gain.near(piece, cleaned)
            self._clean += self._back.process(cleaned)
        missing = len(pcm) - len(self._clean)
        if missing > 0:  # what the resamplers hold back at the start
            self._clean[:0] = bytes(missing)
        taken = bytes(self._clean[: len(pcm)])
        del self._clean[: len(pcm)]
        return taken

    def _pieces(self, waiting: bytearray) -> list[bytes]:
        """The whole frames that have come together, taken out of what waits."""
        size = self._samples * SAMPLE_BYTES
        whole = len(waiting) // size * size
        pieces = [bytes(waiting[start : start + size]) for start in range(0, whole, size)]
        del waiting[:whole]
        return pieces


class _Reduction:
    """How much quieter the microphone becomes while the loudspeaker plays.

    Only what is louder than the room counts: that noise suppression makes the room quieter is no echo
    cancelled, and with a headset there is nothing else.
    """

    def __init__(self) -> None:
        self._far_ms = 0
        self._before = self._after = 0.0
        self._frames = 0
        self._room_db = 0.0

    def far(self, pcm: bytes) -> None:
        if _level(pcm) > FAR_DB:
            self._far_ms = FAR_HOLD_MS

    def near(self, before: bytes, after: bytes) -> None:
        playing = self._far_ms > 0
        self._far_ms = max(0, self._far_ms - MODULE_MS)
        power = _power(before)
        level = level_of(power)
        self._room_db = min(level, self._room_db + ROOM_RISE_DB)
        if playing and level > max(QUIET_DB, self._room_db + ABOVE_ROOM_DB):
            self._before = SMOOTHING * self._before + power
            self._after = SMOOTHING * self._after + _power(after)
            self._frames += 1

    @property
    def db(self) -> float | None:
        """None until there was an echo to measure."""
        if self._frames < MEASURED_FRAMES:
            return None
        return 10 * float(np.log10(self._before / max(self._after, 1e-3)))


def open_echo(wanted: bool, rate: int, *, half_duplex: bool = True) -> EchoCanceller:
    """The best there is for a microphone of this rate. Blocking (0.3 s); never raises.

    `half_duplex` is what to do where nothing can cancel: silence the microphone while the agent speaks,
    or (False, for headsets) leave it open.
    """
    if not wanted:
        return NoEcho()
    try:
        return LivekitEcho(rate)
    except Exception as error:  # absent, or its native code does not load here
        log.info("echo cancellation is not available: %s", type(error).__name__)
    return HalfDuplex() if half_duplex else NoEcho(EchoState.UNAVAILABLE)


def _power(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    return float(np.dot(samples, samples)) / max(1, len(samples))


def _level(pcm: bytes) -> float:
    return level_of(_power(pcm))
