"""How an utterance of the mock comes: beat for beat, with or without a voice."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

CHUNK_MS = 100
LEAD_MS = 200
"""Audio is handed over this much before it is heard."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A moment of an utterance: what is told now, then a wait."""

    texts: tuple[str, ...]
    """What is newly shown, each with everything before it."""
    pcm: bytes
    wait_ms: float
    said: int
    """How many words will have been heard after the wait."""


def written(pieces: Sequence[tuple[str, int]], word_ms: float) -> list[Beat]:
    """Without a voice: a piece at once, then its words one after the other."""
    beats: list[Beat] = []
    so_far = ""
    for piece, count in pieces:
        so_far += piece
        for index in range(count):
            beats.append(Beat((so_far,) if index == 0 else (), b"", word_ms, len(beats) + 1))
    return beats


def aloud(pieces: Sequence[tuple[str, int]], pcm: bytes, rate: int) -> list[Beat]:
    """With a voice: chunks of 100 ms, 200 ms before they are heard, the text as it is heard."""
    size = rate * CHUNK_MS // 1000 * 2
    chunks = [pcm[start : start + size] for start in range(0, len(pcm), size)]
    lead = LEAD_MS // CHUNK_MS
    total = sum(count for _, count in pieces)
    waiting = deque(pieces)
    beats: list[Beat] = []
    shown, so_far = 0, ""
    for index in range(len(chunks) + lead):
        last = index == len(chunks) + lead - 1
        heard = min(total, total * max(0, index + 1 - lead) // max(1, len(chunks)))
        texts: list[str] = []
        while waiting and (last or shown <= heard):
            piece, count = waiting.popleft()
            shown, so_far = shown + count, so_far + piece
            texts.append(so_far)
        chunk = chunks[index] if index < len(chunks) else b""
        beats.append(Beat(tuple(texts), chunk, CHUNK_MS if index >= lead else 0, heard))
    return beats
