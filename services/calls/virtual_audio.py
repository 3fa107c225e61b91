"""A line without devices: silence (or a WAV file) as the microphone, a loudspeaker nobody hears.

For dry runs, headless calls and machines without audio; everything is paced as devices would pace it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from services.calls.audio_line import Tap
from services.calls.model import FRAME_MS
from services.clock import Clock

BETWEEN_PIECES = 0.15


@dataclass(frozen=True, slots=True)
class VirtualFrame:
    """20 ms of the stand-in's microphone."""

    pcm: bytes
    speaking: bool


class VirtualLine:
    """An `AudioLine` in the rates given (Hz). `source` is PCM in the input rate, played from the start."""

    input_name = "no microphone"
    output_name = "no loudspeaker"
    echo_state = "off"
    jitter_ms: float | None = None
    end_of_speech_ms = 300.0

    def __init__(
        self,
        input_rate: int,
        output_rate: int,
        clock: Clock,
        *,
        source: bytes = b"",
        on_input: Tap | None = None,
        on_output: Tap | None = None,
    ) -> None:
        from services.calls.audio.meter import Meter

        self.input_meter = Meter(input_rate)
        self.output_meter = Meter(output_rate)
        self._input_rate = input_rate
        self._output_rate = output_rate
        self._clock = clock
        self._source = source
        self._on_input = on_input
        self._on_output = on_output
        self._queued: deque[tuple[int, bytearray]] = deque()
        self._dropped = -1
        self._muted = False
        self._pushing = False
        self._held = False
        self._heard_at = float("-inf")
        self._closed = asyncio.Event()

    @property
    def playing(self) -> bool:
        # Pieces of one utterance may come a little apart.
        return bool(self._queued) or self._clock.monotonic() - self._heard_at < BETWEEN_PIECES

    async def frames(self) -> AsyncIterator[VirtualFrame]:
        """A frame every 20 ms until closed; what is queued for the loudspeaker is played in the same step."""
        size = self._input_rate * FRAME_MS // 1000 * 2
        offset = 0
        due = self._clock.monotonic()
        while not self._closed.is_set():
            due += FRAME_MS / 1000
            delay = due - self._clock.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            else:
                await asyncio.sleep(0)
                due = max(due, self._clock.monotonic() - 1.0)
            at = self._clock.monotonic() - FRAME_MS / 1000
            self._play_frame(at)
            piece = self._source[offset : offset + size]
            offset += len(piece)
            pcm = piece + bytes(size - len(piece))
            if self._muted or (self._pushing and not self._held):
                pcm = bytes(size)
            self.input_meter.feed(pcm)
            if self._on_input is not None:
                self._on_input(pcm, at)
            yield VirtualFrame(pcm, self.input_meter.speaking)

    def _play_frame(self, at: float) -> None:
        wanted = self._output_rate * FRAME_MS // 1000 * 2
        piece = bytearray()
        while self._queued and len(piece) < wanted:
            _, waiting = self._queued[0]
            taken = min(wanted - len(piece), len(waiting))
            piece += waiting[:taken]
            del waiting[:taken]
            if not waiting:
                self._queued.popleft()
        self.output_meter.feed(bytes(piece) + bytes(wanted - len(piece)))
        if piece:
            self._heard_at = self._clock.monotonic()
            if self._on_output is not None:
                self._on_output(bytes(piece), at)

    def play(self, pcm: bytes, event_id: int = 0) -> None:
        if event_id > self._dropped:
            self._queued.append((event_id, bytearray(pcm)))

    def drop(self, up_to_event_id: int | None = None) -> None:
        self._heard_at = float("-inf")
        if up_to_event_id is None:
            self._queued.clear()
            return
        self._dropped = max(self._dropped, up_to_event_id)
        self._queued = deque(each for each in self._queued if each[0] > up_to_event_id)

    def mute(self, on: bool) -> None:
        self._muted = on

    def push_to_talk(self, on: bool, held: bool = False) -> None:
        self._pushing, self._held = on, held

    async def switch(self, *, input: str | None = None, output: str | None = None) -> None:  # noqa: A002
        from services.errors import ServiceError

        raise ServiceError("This call runs without audio devices", code="no_device")

    async def aclose(self) -> None:
        self._closed.set()


def pcm_of(path: Path, rate: int) -> bytes:
    """A WAV file as mono PCM in `rate` (Hz). Blocking. Raises ServiceError for anything else."""
    import wave

    import numpy
    import soxr

    from services.errors import UsageError

    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise wave.Error("not 16 bit")
            data = numpy.frombuffer(file.readframes(file.getnframes()), numpy.int16)
            channels, own = file.getnchannels(), file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{path.name} could not be read as a WAV file: {reason}",
            advice="Give a WAV file with 16-bit samples",
            code="bad_wav",
        ) from None
    mono = data.reshape(-1, channels).mean(axis=1).astype(numpy.int16)
    return bytes(soxr.resample(mono, own, rate).tobytes()) if own != rate else bytes(mono.tobytes())
