"""Times and figures of a call's audio."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from services.calls.audio.formats import duration_ms

DELAYS_KEPT = 1_500
"""30 s of 20 ms frames."""
JUMP_SECONDS = 0.03
ARRIVALS_NEEDED = 10


@dataclass(frozen=True, slots=True)
class AudioStats:
    """Milliseconds unless the name says otherwise; None where nothing was measured."""

    capture_delay_p50_ms: float | None
    capture_delay_p95_ms: float | None
    """From the microphone's callback until the frame was read."""
    play_delay_p50_ms: float | None
    play_delay_p95_ms: float | None
    """From `play` until it was in the device's buffer, for audio that had no more than 60 ms before it."""
    arrival_jitter_ms: float | None
    hold_ms: float
    """What an utterance waits at its start against jitter."""
    buffered_ms: float
    input_latency_ms: float | None
    output_latency_ms: float | None
    """What the devices themselves add, as they tell."""
    gaps: int
    underruns: int
    """Gaps, and the device running dry."""
    overruns: int
    dropped_frames: int
    echo_reduction_db: float | None


class Delays:
    """The newest measurements of one way."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=DELAYS_KEPT)

    def add(self, seconds: float) -> None:
        self._values.append(1000 * seconds)

    def percentile(self, percent: float) -> float | None:
        """In milliseconds; None without measurements."""
        if not self._values:
            return None
        ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class SteadyTime:
    """Makes the times of pieces that follow each other follow each other: devices tell them with jitter."""

    def __init__(self) -> None:
        self._next = float("-inf")

    def of(self, told: float, seconds: float) -> float:
        """When this piece began: where the last one ended, unless that is 30 ms or more off."""
        began = self._next if abs(told - self._next) < JUMP_SECONDS else told
        self._next = began + seconds
        return began


class Arrivals:
    """How late the pieces of an utterance come, compared with their length (as in RFC 3550, 6.4.1)."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._seen = 0
        self._late = 0.0
        self._event: int | None = None
        self._at = 0.0
        self._length = 0.0

    def add(self, pcm: bytes, event_id: int, now: float) -> None:
        if event_id == self._event:
            late = max(0.0, 1000 * (now - self._at) - self._length)
            self._late += (min(late, 1000.0) - self._late) / 16
            self._seen += 1
        self._event, self._at, self._length = event_id, now, duration_ms(pcm, self._rate)

    @property
    def jitter_ms(self) -> float | None:
        return self._late if self._seen >= ARRIVALS_NEEDED else None
