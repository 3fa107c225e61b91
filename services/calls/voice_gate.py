"""Where the agent speaks in an unbroken stream of audio.

A WebRTC track never pauses: between two sentences it carries silence, or the agent's background sound.
A session takes what it is given for speech, so only speech is handed on.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

_QUIET: Final = 10 ** (-55 / 20) * 32768
"""RMS below which nothing is speech (−55 dB below full scale)."""
_ABOVE_FLOOR: Final = 3.0
"""Times the background's level that speech must reach (10 dB)."""
_LOUD: Final = 10 ** (-35 / 20) * 32768
"""RMS above which it is speech in any case: a track may begin in the middle of a word."""
_FLOOR_FRAMES: Final = 150
"""Frames over which the background is looked for: no sentence is without a pause for 3 s."""
_HANGOVER_FRAMES: Final = 20
"""Frames of pause that still belong to an utterance (400 ms)."""
_TAIL_FRAMES: Final = 15
"""Frames for which an utterance that was cut off may still be on its way (300 ms)."""
_TAIL_PAUSE: Final = 5
"""Quiet frames that show that it is over before that: more than lie between two words (100 ms)."""


class VoiceGate:
    """Give it 20 ms at a time. Belongs to one stream."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque(maxlen=_FLOOR_FRAMES)
        self._before = b""
        self._left = 0
        self._tail = 0
        self._pause = 0

    @property
    def speaking(self) -> bool:
        return self._left > 0

    def cut(self) -> None:
        """The agent was interrupted: what is still on its way of its sentence is left out."""
        if self.speaking:
            self._tail, self._pause = _TAIL_FRAMES, 0
        self._left = 0

    def feed(self, pcm: bytes) -> bytes:
        """What is to be heard of it (mono s16le): nothing while the agent is silent.

        The frame before a beginning comes along with it, so that no consonant is cut off.
        """
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
        level = float(np.sqrt(np.mean(samples * samples))) if samples.size else 0.0
        self._levels.append(level)
        voiced = level > max(_QUIET, min(_LOUD, self._floor() * _ABOVE_FLOOR))
        if self._tail:
            self._tail -= 1
            self._pause = 0 if voiced else self._pause + 1
            if self._pause >= _TAIL_PAUSE:
                self._tail = 0
            heard = b""
        elif voiced:
            heard = pcm if self.speaking else self._before + pcm
            self._left = _HANGOVER_FRAMES
        elif self.speaking:
            self._left -= 1
            heard = pcm
        else:
            heard = b""
        self._before = pcm
        return heard

    def _floor(self) -> float:
        """The background's level; unknown before half a second was heard."""
        return min(self._levels) if len(self._levels) >= 25 else 0.0
