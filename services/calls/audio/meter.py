"""How loud one direction of a call is, and whether somebody speaks in it."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from services.calls.audio.formats import SAMPLE_BYTES, whole_samples

FLOOR_DB = -90.0
BARS_FROM_DB = -60.0
"""A bar is empty at this level and full at 0 dBFS."""
BAR_MS = 50
BARS_KEPT = 600
STEP_MS = 10
PEAK_MS = 1_000
SPEECH_DB = -45.0
"""Never taken for speech below this, however quiet the room."""
ABOVE_NOISE_DB = 10.0
HYSTERESIS_DB = 6.0
ATTACK_MS = 40
HANGOVER_MS = 300
NOISE_RISE_DB = 0.03
"""A step, so that the noise floor follows a rise of 10 dB within three seconds or so."""


def level_of(power: float) -> float:
    """A mean square of samples in dBFS."""
    return max(FLOOR_DB, 10 * math.log10(power / 32768.0**2)) if power > 0 else FLOOR_DB


class Meter:
    """Fed with everything that passes, in pieces of any length. Time is counted in audio, not by a clock."""

    def __init__(self, rate: int) -> None:
        self._step = rate * STEP_MS // 1000
        self._rest = b""
        self._bars: deque[float] = deque(maxlen=BARS_KEPT)
        self._bar: list[float] = []
        self._peaks: deque[int] = deque(maxlen=PEAK_MS // STEP_MS)
        self._noise_db = -60.0
        self._loud_ms = 0
        self._quiet_ms = 0
        self.level_db = FLOOR_DB
        """RMS of the last 20 ms in dBFS, at least -90."""
        self._power = 0.0
        self.speaking = False
        """Whether somebody speaks: turns on after 40 ms of voice, off 300 ms after the last of it."""

    def feed(self, pcm: bytes) -> None:
        """The next piece: mono s16le."""
        if self._rest:
            pcm = self._rest + pcm
        pcm = whole_samples(pcm)
        size = self._step * SAMPLE_BYTES
        whole = len(pcm) // size * size
        self._rest = pcm[whole:]
        if not whole:
            return
        steps = np.frombuffer(pcm[:whole], "<i2").reshape(-1, self._step).astype(np.float32)
        powers = np.mean(steps * steps, axis=1).tolist()
        peaks = np.abs(steps).max(axis=1).tolist()
        for power, peak in zip(powers, peaks, strict=True):
            self._take(power, int(peak))

    def _take(self, power: float, peak: int) -> None:
        self.level_db = level_of((power + self._power) / 2)
        self._power = power
        self._peaks.append(peak)
        self._bar.append(power)
        if len(self._bar) * STEP_MS >= BAR_MS:
            self._bars.append(_bar_of(level_of(sum(self._bar) / len(self._bar))))
            self._bar.clear()
        self._listen(level_of(power))

    def _listen(self, level: float) -> None:
        on = max(SPEECH_DB, self._noise_db + ABOVE_NOISE_DB)
        if level > (on - HYSTERESIS_DB if self.speaking else on):
            self._loud_ms += STEP_MS
            self._quiet_ms = 0
        else:
            self._loud_ms = 0
            self._quiet_ms += STEP_MS
        if not self.speaking and self._loud_ms >= ATTACK_MS:
            self.speaking = True
        elif self.speaking and self._quiet_ms >= HANGOVER_MS:
            self.speaking = False
        if level < self._noise_db:
            self._noise_db += (level - self._noise_db) * 0.1
        else:
            self._noise_db = min(level, self._noise_db + NOISE_RISE_DB)

    @property
    def peak_db(self) -> float:
        """The loudest sample of the last second in dBFS, at least -90."""
        return level_of(float(max(self._peaks, default=0)) ** 2)

    def bars(self, count: int) -> tuple[float, ...]:
        """The newest `count` levels from 0 to 1, one for each 50 ms, the newest last; 0 before the start."""
        newest = list(self._bars)[-count:] if count > 0 else []
        return (0.0,) * (count - len(newest)) + tuple(newest)


def _bar_of(level_db: float) -> float:
    return min(1.0, max(0.0, 1 - level_db / BARS_FROM_DB))
