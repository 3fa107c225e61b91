"""A past call played again: the same messages into the same picture, on a clock that can jump.

With a loudspeaker both tracks are heard, mixed; without one the replay is silent and says so.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeAlias

from services.calls.archive import Recording, clock_text, folded
from services.calls.live import Area, LiveCall, Who
from services.calls.wave_file import read_track
from services.clock import Clock
from services.errors import ServiceError
from services.events import Unsubscribe

log = logging.getLogger(__name__)

STEP = 0.05
CHUNK_MS = 200
AHEAD_MS = 400
MARGIN_MS = 20
SPEEDS = (0.5, 1.0, 1.5, 2.0, 4.0)
EVERYTHING = frozenset(Area)


class MarkKind(StrEnum):
    """What stands on the timeline."""

    USER = "user"
    AGENT = "agent"
    INTERRUPTION = "interruption"
    TOOL = "tool"
    MARK = "mark"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TimelineMark:
    """One moment worth a jump."""

    t: int
    kind: MarkKind
    label: str


class Loudspeaker(Protocol):
    """Where a replay is heard: mono PCM in the rate it was opened with."""

    def play(self, pcm: bytes, event_id: int = 0) -> None: ...
    def drop(self, up_to_event_id: int | None = None) -> None: ...
    async def aclose(self) -> None: ...


OpenSpeaker: TypeAlias = Callable[[int], Awaitable[Loudspeaker]]


class Replay:
    """A recording with a position. Everything but `aclose` returns at once."""

    def __init__(
        self,
        recording: Recording,
        clock: Clock,
        *,
        length_ms: int,
        open_speaker: OpenSpeaker | None = None,
    ) -> None:
        """`length_ms` is the recording's (`Recording.length_ms` reads the files: ask in a thread)."""
        self.recording = recording
        self.live = LiveCall(bounded=False)
        self.duration_ms = length_ms
        self.events = timeline(recording)
        self.problem = ""
        """Why nothing is heard, in words."""
        self._clock = clock
        self._open_speaker = open_speaker
        self._speaker: Loudspeaker | None = None
        self._position = 0.0
        self._next = 0
        self._playing = False
        self._speed = 1.0
        self._last = 0.0
        self._sent_until = 0
        self._listeners: list[Callable[[frozenset[Area]], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._jumped = True

    # -- looking ----------------------------------------------------------------------------------

    @property
    def position_ms(self) -> int:
        return round(self._position)

    @property
    def playing(self) -> bool:
        return self._playing

    @property
    def speed(self) -> float:
        return self._speed

    @property
    def has_audio(self) -> bool:
        """Whether a track was kept."""
        return self.recording.you is not None or self.recording.agent is not None

    def subscribe(self, listener: Callable[[frozenset[Area]], None]) -> Unsubscribe:
        """Be told what changed, the position with `STATUS`."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def waveform(self, track: str, count: int) -> list[float]:
        """`count` levels from 0 to 1 over the whole call; empty without that track."""
        path = self.recording.you if track == "you" else self.recording.agent
        if path is None or count <= 0:
            return []
        return await asyncio.to_thread(_levels, path, count, self.duration_ms)

    # -- moving -----------------------------------------------------------------------------------

    def play(self) -> None:
        """Go on; from the start again when it stands at the end."""
        if self._playing:
            return
        if self._position >= self.duration_ms:
            self.seek(0)
        self._playing = True
        self._jumped = True
        self._last = self._clock.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="replay")
        self._tell(frozenset({Area.STATUS}))

    def pause(self) -> None:
        self._playing = False
        if self._speaker is not None:
            self._speaker.drop(None)
        self._tell(frozenset({Area.STATUS}))

    def seek(self, ms: int) -> None:
        """Jump to a moment; beyond either end it stands there."""
        self._position = float(min(max(0, ms), self.duration_ms))
        self._last = self._clock.monotonic()
        self._jumped = True
        self.live = folded(self.recording.messages, self.position_ms)
        self._next = sum(1 for t, _ in self.recording.messages if t <= self.position_ms)
        if self._speaker is not None:
            self._speaker.drop(None)
        self._tell(EVERYTHING)

    def set_speed(self, speed: float) -> None:
        """How fast, from 0.5 to 4; audio is heard at 1 only."""
        self._speed = min(max(speed, SPEEDS[0]), SPEEDS[-1])
        self._jumped = True
        self._tell(frozenset({Area.STATUS}))

    async def aclose(self) -> None:
        """Stop and let go of the loudspeaker."""
        self._playing = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            await speaker.aclose()

    # -- inside -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._open()
        self._last = self._clock.monotonic()
        while self._playing:
            self._advance()
            if self._speaker is not None and self._speed == 1.0:
                await self._feed(self._speaker)
            await asyncio.sleep(STEP)

    async def _open(self) -> None:
        if not self.has_audio or self._speaker is not None or self._open_speaker is None:
            return
        try:
            self._speaker = await self._open_speaker(self._rate)
        except ServiceError as error:
            self.problem = error.message
            self._open_speaker = None

    @property
    def _rate(self) -> int:
        from services.calls.wave_file import mend

        rates = [
            info.rate for path in (self.recording.you, self.recording.agent) if path and (info := mend(path))
        ]
        return max(rates, default=16_000)

    def _advance(self) -> None:
        now = self._clock.monotonic()
        self._position += (now - self._last) * 1000 * self._speed
        self._last = now
        changed: set[Area] = {Area.STATUS}
        messages = self.recording.messages
        while self._next < len(messages) and messages[self._next][0] <= self._position:
            t, message = messages[self._next]
            changed |= self.live.apply(t, message)
            self._next += 1
        if self._position >= self.duration_ms:
            self._position = float(self.duration_ms)
            self._playing = False
        self._tell(frozenset(changed))

    async def _feed(self, speaker: Loudspeaker) -> None:
        """Keep the loudspeaker a little ahead of the position."""
        if self._jumped:
            self._jumped = False
            speaker.drop(None)
            self._sent_until = self.position_ms
        while self._playing and self._sent_until < min(self._position + AHEAD_MS, self.duration_ms):
            start = self._sent_until
            self._sent_until += CHUNK_MS
            pcm = await asyncio.to_thread(_mixed, self.recording, start, self._rate)
            if self._jumped:
                return
            speaker.play(pcm, 0)

    def _tell(self, areas: frozenset[Area]) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(areas)
            except Exception:
                log.exception("a listener of a replay failed")


def timeline(recording: Recording) -> tuple[TimelineMark, ...]:
    """The moments of a call worth a jump, in order."""
    kinds = {
        Who.USER: MarkKind.USER,
        Who.AGENT: MarkKind.AGENT,
        Who.TOOL: MarkKind.TOOL,
        Who.MARK: MarkKind.MARK,
    }
    marks: list[TimelineMark] = []
    for entry in recording.fold().entries:
        label = f"{clock_text(entry.t)} {entry.text}"
        if entry.who is Who.NOTICE:
            if entry.level == "act":
                marks.append(TimelineMark(entry.t, MarkKind.ERROR, label))
        elif entry.who in kinds:
            kind = MarkKind.INTERRUPTION if entry.cut else kinds[entry.who]
            marks.append(TimelineMark(entry.t, kind, label))
    return tuple(sorted(marks, key=lambda mark: mark.t))


def _levels(path: Path, count: int, length_ms: int) -> list[float]:
    import numpy

    pcm, rate = read_track(path)
    if not pcm:
        return []
    samples = numpy.abs(numpy.frombuffer(pcm[: len(pcm) // 2 * 2], numpy.int16).astype(numpy.float32))
    whole = max(len(samples), length_ms * rate // 1000)
    edges = numpy.linspace(0, whole, count + 1).astype(int)
    peaks = [
        float(samples[a:b].max()) if a < min(b, len(samples)) else 0.0 for a, b in itertools.pairwise(edges)
    ]
    top = max(max(peaks), 1.0)
    return [peak / top for peak in peaks]


def _mixed(recording: Recording, start_ms: int, rate: int) -> bytes:
    """A chunk of both tracks added, in `rate`; silence where neither has anything."""
    import numpy
    import soxr

    total = numpy.zeros(rate * CHUNK_MS // 1000, numpy.float32)
    for path in (recording.you, recording.agent):
        if path is None:
            continue
        # A little more on both sides, so that resampled chunks join without a click.
        before = min(MARGIN_MS, start_ms)
        pcm, own = read_track(path, start_ms - before, before + CHUNK_MS + MARGIN_MS)
        if not pcm or not own:
            continue
        samples = numpy.frombuffer(pcm, numpy.int16).astype(numpy.float32)
        if own != rate:
            samples = soxr.resample(samples, own, rate)
        samples = samples[before * rate // 1000 :]
        length = min(len(samples), len(total))
        total[:length] += samples[:length]
    return bytes(numpy.clip(total, -32768, 32767).astype(numpy.int16).tobytes())
