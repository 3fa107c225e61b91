"""Speech without a voice: words as tones, audio formats, and when somebody speaks.

Everything is mono 16-bit little-endian PCM in `bytes`; formats have the vendor's names (`pcm_16000`,
`ulaw_8000`). Loads numpy, so import it when a conversation begins, in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import math
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WORD_MS = 180
GAP_MS = 60
_LOUDNESS = 0.3
_FADE_MS = 12
_FRAME_MS = 10
_VOICED_DB = -42.0
_STARTS_AFTER_MS = 60

Samples = npt.NDArray[np.int16]


def duration_ms(text: str) -> int:
    """How long `tones` take for `text`."""
    return len(text.split()) * (WORD_MS + GAP_MS)


def pitch(word: str, seed: int = 0) -> int:
    """Frequency of a word's tone in Hz: 300 to 900, the same for the same word and seed."""
    return 300 + 20 * (zlib.crc32(f"{seed}/{word.casefold()}".encode()) % 31)


def tones(text: str, rate: int, *, seed: int = 0) -> bytes:
    """One tone of 180 ms for each word, each followed by 60 ms of silence. Amplitude 0.3."""
    length, gap, fade = (rate * ms // 1000 for ms in (WORD_MS, GAP_MS, _FADE_MS))
    ramp = 0.5 - 0.5 * np.cos(np.linspace(0.0, math.pi, fade, dtype=np.float32))
    shape = np.ones(length, dtype=np.float32)
    shape[:fade] = ramp
    shape[length - fade :] = ramp[::-1]
    time = np.arange(length, dtype=np.float32) * np.float32(2 * math.pi / rate)
    silence = np.zeros(gap, dtype=np.int16)
    pieces: list[Samples] = []
    for word in text.split():
        wave = np.sin(time * pitch(word, seed)) * shape * (_LOUDNESS * 32767)
        pieces += [wave.astype(np.int16), silence]
    return b"".join(piece.tobytes() for piece in pieces)


def silence(ms: float, rate: int) -> bytes:
    """Nothing, for `ms` milliseconds."""
    return bytes(2 * int(rate * ms / 1000))


async def speak(text: str, rate: int, *, voice: str = "tones", seed: int = 0, language: str = "en") -> bytes:
    """`text` as audio: tones, or espeak-ng's voice where it is installed and knows the language."""
    if voice == "espeak" and text.strip():
        spoken = await _espeak(text, language)
        if spoken is not None:
            pcm, spoken_rate = spoken
            return await asyncio.to_thread(resample, pcm, spoken_rate, rate)
    return await asyncio.to_thread(functools.partial(tones, text, rate, seed=seed))


async def _espeak(text: str, language: str) -> tuple[bytes, int] | None:
    program = shutil.which("espeak-ng")
    if program is None:
        return None
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program,
        "--stdout",
        "--stdin",
        "-v",
        language.lower(),
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        wave, _ = await process.communicate(text.encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    # espeak-ng writes a stream: its WAV header has no true lengths, so `wave` would refuse it.
    data = wave.find(b"data")
    if process.returncode or data < 0:
        return None
    return wave[data + 8 :], int.from_bytes(wave[24:28], "little")


def alignment(text: str, total_ms: float) -> list[tuple[str, int, int]]:
    """Every character, its start and length in milliseconds: words of equal length, as `tones` has them."""
    words = text.split()
    if not words:
        return []
    slot = total_ms / len(words)
    found: list[tuple[str, int, int]] = []
    for index, word in enumerate(words):
        chars = word if index == len(words) - 1 else word + " "
        each = slot / len(chars)
        for place, char in enumerate(chars):
            start = round(index * slot + place * each)
            found.append((char, start, round(index * slot + (place + 1) * each) - start))
    return found


# Formats.


def rate_of(fmt: str) -> int:
    """Samples a second of `pcm_16000`, `ulaw_8000`, …. Raises ValueError for another name."""
    encoding, _, rate = fmt.partition("_")
    if encoding not in ("pcm", "ulaw") or not rate.isdecimal():
        raise ValueError(f"there is no audio format {fmt!r}")
    return int(rate)


def encode(pcm: bytes, rate: int, fmt: str) -> bytes:
    """PCM of `rate` in the format `fmt`."""
    data = resample(pcm, rate, rate_of(fmt))
    return ulaw_encode(data) if fmt.startswith("ulaw") else data


def decode(data: bytes, fmt: str) -> bytes:
    """Data in the format `fmt` as PCM of that format's rate; half a sample at the end is dropped."""
    rate_of(fmt)
    return ulaw_decode(data) if fmt.startswith("ulaw") else data[: len(data) // 2 * 2]


def resample(pcm: bytes, source: int, target: int) -> bytes:
    """PCM in another rate; a whole piece, not a stream."""
    if source == target or not pcm:
        return pcm
    import soxr

    made = soxr.resample(np.frombuffer(pcm, dtype="<i2"), source, target)
    return bytes(np.asarray(made, dtype="<i2").tobytes())


def ulaw_decode(data: bytes) -> bytes:
    """G.711 µ-law as PCM."""
    return bytes(_decoding()[np.frombuffer(data, dtype=np.uint8)].tobytes())


def ulaw_encode(pcm: bytes) -> bytes:
    """PCM as G.711 µ-law."""
    return bytes(_encoding()[np.frombuffer(pcm, dtype="<u2")].tobytes())


@functools.cache
def _decoding() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    value = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return np.where(code & 0x80, -value, value).astype("<i2")


@functools.cache
def _encoding() -> npt.NDArray[np.uint8]:
    """The code of every 16-bit sample, by its unsigned value."""
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    sign = np.where(sample < 0, 0x80, 0)
    size = np.minimum(np.abs(sample >> 2), 8158) + 0x21  # G.711 knows 14 bits
    exponent = np.floor(np.log2(size)).astype(np.int32) - 5
    mantissa = (size >> (exponent + 1)) & 15
    code: npt.NDArray[np.uint8] = (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8)
    return code


# Hearing.


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak."""


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Somebody was silent long enough; `duration_ms` is what was spoken before."""

    duration_ms: int


class TurnDetector:
    """Tells speech from silence by energy, in steps of 10 ms.

    A turn starts after 60 ms of sound louder than −42 dBFS and ends after `silence_ms` without. Its clock is
    the audio itself: how fast it arrives does not matter.
    """

    def __init__(self, rate: int, silence_ms: int = 500) -> None:
        self._frame = rate * _FRAME_MS // 1000 * 2
        self._silence_ms = silence_ms
        self._rest = b""
        self._voiced_ms = 0
        self._silent_ms = 0
        self._spoken_ms = 0
        self.speaking = False
        self.score = 0.0
        """How sure it is that somebody speaks at this moment, 0 to 1."""

    def feed(self, pcm: bytes) -> list[SpeechStarted | SpeechEnded]:
        """Listen on; any length."""
        data = self._rest + pcm
        whole = len(data) // self._frame * self._frame
        self._rest = data[whole:]
        if not whole:
            return []
        frames = np.frombuffer(data[:whole], dtype="<i2").reshape(-1, self._frame // 2).astype(np.float32)
        power = np.maximum((frames * frames).mean(axis=1) / (32768.0 * 32768.0), 1e-12)
        return list(self._events((10.0 * np.log10(power)).tolist()))

    def _events(self, levels: list[float]) -> Iterator[SpeechStarted | SpeechEnded]:
        for level in levels:
            voiced = level > _VOICED_DB
            target = min(1.0, max(0.0, (level + 60.0) / 36.0)) if voiced else 0.0
            self.score = round(0.7 * self.score + 0.3 * target, 4)
            if voiced:
                self._voiced_ms += _FRAME_MS
                self._silent_ms = 0
            else:
                self._silent_ms += _FRAME_MS
                if not self.speaking:
                    self._voiced_ms = 0
            if self.speaking:
                self._spoken_ms += _FRAME_MS
                if self._silent_ms >= self._silence_ms:
                    self.speaking = False
                    self._voiced_ms = 0
                    yield SpeechEnded(self._spoken_ms - self._silent_ms)
            elif self._voiced_ms >= _STARTS_AFTER_MS:
                self.speaking = True
                self._spoken_ms = self._voiced_ms
                yield SpeechStarted()
