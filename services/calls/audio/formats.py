"""Wire formats of call audio, and changing the rate of a stream.

Inside the program audio is always mono, signed 16-bit little-endian PCM in `bytes`. numpy and soxr are
loaded with the first conversion, so that a format can be named without them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from services.errors import ServiceError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SAMPLE_BYTES = 2
FRAME_MS = 20
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
ULAW_BIAS = 132
ULAW_CLIP = 32_635
_NAME = re.compile(r"(pcm|ulaw)_(\d{4,6})")


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What travels: linear PCM (s16le) or µ-law (G.711), mono, at `rate` samples a second."""

    encoding: Literal["pcm", "ulaw"]
    rate: int

    @property
    def name(self) -> str:
        """The vendors' word for it, as `pcm_16000`."""
        return f"{self.encoding}_{self.rate}"

    @property
    def sample_bytes(self) -> int:
        return SAMPLE_BYTES if self.encoding == "pcm" else 1

    def frame_bytes(self, ms: int = FRAME_MS) -> int:
        """Bytes that so many milliseconds take on the wire."""
        return self.rate * ms // 1000 * self.sample_bytes

    def encode(self, pcm: bytes) -> bytes:
        """PCM of the same rate into wire bytes."""
        return whole_samples(pcm) if self.encoding == "pcm" else ulaw_encode(pcm)

    def decode(self, data: bytes) -> bytes:
        """Wire bytes into PCM of the same rate. Half a sample at the end is left out."""
        return whole_samples(data) if self.encoding == "pcm" else ulaw_decode(data)


def parse_format(name: str) -> AudioFormat:
    """The format a vendor announced: `pcm_8000` to `pcm_48000`, `ulaw_8000`.

    Raises `ServiceError` (`unknown_format`) for any other word, and for a rate of which 20 ms are no
    whole number of samples.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    rate = int(match[2]) if match else 0
    if match is None or not LOWEST_RATE <= rate <= HIGHEST_RATE or rate * FRAME_MS % 1000:
        raise ServiceError(
            f"The audio format {str(name)[:40]!r} is not one that can be spoken here",
            advice="choose pcm_16000, another pcm rate from 8000 to 48000, or ulaw_8000 for the agent",
            code="unknown_format",
        )
    return AudioFormat("pcm" if match[1] == "pcm" else "ulaw", rate)


def whole_samples(pcm: bytes) -> bytes:
    """The same bytes without half a sample at the end."""
    return pcm if len(pcm) % SAMPLE_BYTES == 0 else pcm[: len(pcm) - 1]


def duration_ms(pcm: bytes | bytearray, rate: int) -> float:
    """How long this PCM sounds."""
    return 1000 * (len(pcm) // SAMPLE_BYTES) / rate


def silence(rate: int, ms: int = FRAME_MS) -> bytes:
    """So many milliseconds of nothing."""
    return bytes(rate * ms // 1000 * SAMPLE_BYTES)


def ulaw_encode(pcm: bytes) -> bytes:
    """PCM into G.711 µ-law, a byte a sample."""
    import numpy as np

    encoded: bytes = _ulaw_codes()[np.frombuffer(whole_samples(pcm), "<u2")].tobytes()
    return encoded


def ulaw_decode(data: bytes) -> bytes:
    """G.711 µ-law into PCM, two bytes a sample."""
    import numpy as np

    decoded: bytes = _ulaw_samples()[np.frombuffer(data, np.uint8)].tobytes()
    return decoded


@functools.cache
def _ulaw_codes() -> npt.NDArray[np.uint8]:
    """The code of each of the 65,536 samples, by the sample's bits read as unsigned."""
    import numpy as np

    samples = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    size = np.minimum(np.abs(samples), ULAW_CLIP) + ULAW_BIAS
    segment = np.searchsorted(1 << np.arange(8, 16), size, side="right")
    step = (size >> (segment + 3)) & 0x0F
    sign = np.where(samples < 0, 0x80, 0)
    codes: npt.NDArray[np.uint8] = (~(sign | (segment << 4) | step) & 0xFF).astype(np.uint8)
    return codes


@functools.cache
def _ulaw_samples() -> npt.NDArray[np.int16]:
    """The sample of each of the 256 codes."""
    import numpy as np

    codes = ~np.arange(256, dtype=np.int32) & 0xFF
    size = ((((codes & 0x0F) << 3) + ULAW_BIAS) << ((codes & 0x70) >> 4)) - ULAW_BIAS
    return np.where(codes & 0x80, -size, size).astype(np.int16)


class Resampler:
    """Changes the rate of a stream, piece by piece; equal rates pass through untouched.

    soxr's variable-rate mode: it gives even pieces out for even pieces in and holds back 240 samples
    (15 ms at 16 kHz), where the plain mode collects up to 140 ms. 20 ms take about 50 µs.
    """

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self._stream: Any = None
        if source != target:
            self.reset()

    def reset(self) -> None:
        """Forget what is held back: the next piece begins a new stream."""
        if self.source != self.target:
            import soxr

            self._stream = soxr.ResampleStream(
                self.source, self.target, 1, dtype="int16", quality="HQ", vr=True
            )

    def process(self, pcm: bytes) -> bytes:
        """The next piece at the target rate; shorter than its share at the start of a stream."""
        return pcm if self._stream is None else self._run(pcm, last=False)

    def flush(self) -> bytes:
        """What was held back, and the end of the stream; the next piece begins a new one."""
        if self._stream is None:
            return b""
        rest = self._run(b"", last=True)
        self.reset()
        return rest

    def _run(self, pcm: bytes, *, last: bool) -> bytes:
        import numpy as np

        changed: bytes = self._stream.resample_chunk(np.frombuffer(pcm, "<i2"), last=last).tobytes()
        return changed


class Fitter:
    """A resampler whose pieces always have the length asked for: what it holds back at first is silence.

    What goes in over time has to be what is asked for, at the other rate.
    """

    def __init__(self, source: int, target: int) -> None:
        self._resampler = Resampler(source, target)
        self._waiting = bytearray()

    def fit(self, pcm: bytes, samples: int) -> bytes:
        """The next piece, which is to fill so many samples at the target rate."""
        size = samples * SAMPLE_BYTES
        if not self._waiting and self._resampler.source == self._resampler.target and len(pcm) == size:
            return pcm
        self._waiting += self._resampler.process(pcm)
        missing = size - len(self._waiting)
        if missing > 0:  # with some more, so that a sample too few does not become a click later
            self._waiting[:0] = bytes(missing + samples // 8 * SAMPLE_BYTES)
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken

    def reset(self) -> None:
        """Forget what is held back."""
        self._resampler.reset()
        self._waiting.clear()
