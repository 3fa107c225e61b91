"""What waits to be played: filled on the event loop, emptied in the device's callback."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from services.calls.audio.formats import FRAME_MS, SAMPLE_BYTES, whole_samples

HOLD_MS = 10.0
"""How long the first piece of an utterance waits at least, so that the second may be late by as much."""
MOST_HOLD_MS = 120.0
HOLD_STEP_MS = 10.0
HOLD_EASES_AFTER = 10.0
"""Seconds without a gap after which the wait is shortened by a step."""
GAP_SECONDS = 0.25
"""More audio of the same event within this time after the queue ran dry should have been there: a gap."""
SHORT_QUEUE_MS = 60.0
"""Pieces behind more than this wait because the sender is ahead, not because of us."""


@dataclass(slots=True)
class Piece:
    """Audio of one event that waits. `offset` bytes of it are played."""

    event_id: int
    pcm: bytes
    added: float
    timed: bool
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """What one callback takes: always as long as asked for, of which `length` bytes are audio."""

    pcm: bytes
    length: int
    events: tuple[tuple[int, int], ...] = ()
    """Event ids and how many bytes of each, in order."""
    waited: tuple[float, ...] = ()
    """For pieces that begin here: seconds since `add`."""


class Playout:
    """A queue of audio. Each utterance waits a little before it starts; longer once that was too little."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.gaps = 0
        """How often an utterance was interrupted because its next piece came late."""
        self.hold_ms = HOLD_MS
        self._lock = threading.Lock()
        self._pieces: deque[Piece] = deque()
        self._waiting = 0
        self._running = False
        self._dry_at: float | None = None
        self._last_event: int | None = None
        self._last_gap = float("-inf")
        self._dropped: int | None = None

    @property
    def queued_ms(self) -> float:
        return 1000 * self._waiting / (self.rate * SAMPLE_BYTES)

    def add(self, pcm: bytes, event_id: int, now: float) -> bool:
        """Queue audio of any length. False: the event was dropped before, nothing is queued."""
        pcm = whole_samples(pcm)
        if self._dropped is not None and event_id <= self._dropped:
            return False
        if not pcm:
            return True
        with self._lock:
            if not self._pieces and self._dry_at is not None:
                if event_id == self._last_event and now - self._dry_at < GAP_SECONDS:
                    self.gaps += 1
                    self.hold_ms = min(MOST_HOLD_MS, self.hold_ms + HOLD_STEP_MS)
                    self._last_gap = now
                elif now - self._last_gap > HOLD_EASES_AFTER:
                    self.hold_ms = max(HOLD_MS, self.hold_ms - HOLD_STEP_MS)
                    self._last_gap = now
                self._dry_at = None
            self._last_event = event_id
            self._pieces.append(Piece(event_id, pcm, now, self.queued_ms <= SHORT_QUEUE_MS))
            self._waiting += len(pcm)
        return True

    def take(self, samples: int, now: float) -> Block:
        """The next block for the device. Called in its callback: short, and never waits long."""
        size = samples * SAMPLE_BYTES
        with self._lock:
            if not self._running:
                if not self._pieces or not self._ripe(now):
                    return Block(bytes(size), 0)
                self._running = True
            parts, events, waited, missing = [], [], [], size
            while missing and self._pieces:
                piece = self._pieces[0]
                if piece.offset == 0 and piece.timed:
                    waited.append(now - piece.added)
                part = piece.pcm[piece.offset : piece.offset + missing]
                piece.offset += len(part)
                missing -= len(part)
                parts.append(part)
                events.append((piece.event_id, len(part)))
                if piece.offset == len(piece.pcm):
                    self._pieces.popleft()
            self._waiting -= size - missing
            if missing:
                self._running = False
                self._dry_at = now + (samples - missing // SAMPLE_BYTES) / self.rate
                parts.append(bytes(missing))
        return Block(b"".join(parts), size - missing, tuple(events), tuple(waited))

    def _ripe(self, now: float) -> bool:
        held_ms = 1000 * (now - self._pieces[0].added)
        return held_ms >= self.hold_ms or self.queued_ms >= self.hold_ms + FRAME_MS

    def drop(self, up_to_event_id: int | None) -> None:
        """Forget what waits: of this event and all before it, which stay forgotten; None: all that waits."""
        with self._lock:
            if up_to_event_id is None:
                self._pieces.clear()
            else:
                self._dropped = (
                    up_to_event_id if self._dropped is None else max(self._dropped, up_to_event_id)
                )
                self._pieces = deque(each for each in self._pieces if each.event_id > up_to_event_id)
            self._waiting = sum(len(each.pcm) - each.offset for each in self._pieces)
            if not self._pieces:
                self._running = False
                self._dry_at = None
