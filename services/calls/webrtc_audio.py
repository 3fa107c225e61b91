"""Audio for a peer connection: a microphone track fed by the session, and frames as mono PCM.

Loads aiortc and PyAV; import it through `webrtc.load`. PCM is mono s16le at 48 kHz.
"""

from __future__ import annotations

import asyncio
import fractions
from typing import Final

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

from services.calls.webrtc import FRAME_BYTES, RATE

_FRAME: Final = 0.02
_PATIENCE: Final = 0.04
"""Seconds a frame of the microphone may be late before silence goes out in its place."""
_MOST_WAITING: Final = 5
"""Frames waiting to be sent; with more of them the oldest go, or the delay would never shrink again."""
_KEPT: Final = 2
_TIME_BASE: Final = fractions.Fraction(1, RATE)
_SILENCE: Final = bytes(FRAME_BYTES)


class MicrophoneTrack(MediaStreamTrack):
    """Sends what is pushed, at the pace of the microphone's own clock, and silence while nothing comes."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._queued = bytearray()
        self._news = asyncio.Event()
        self._due: float | None = None
        self._sent = 0
        self.dropped = 0
        """Frames that waited too long and were left out."""

    def push(self, pcm: bytes) -> None:
        """Hand over audio of any length; never waits."""
        self._queued += pcm
        if len(self._queued) > _MOST_WAITING * FRAME_BYTES:
            surplus = len(self._queued) // FRAME_BYTES - _KEPT
            del self._queued[: surplus * FRAME_BYTES]
            self.dropped += surplus
        if len(self._queued) >= FRAME_BYTES:
            self._news.set()

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        pcm = await self._next()
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME_BYTES // 2)
        frame.planes[0].update(pcm)
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, _TIME_BASE
        self._sent += FRAME_BYTES // 2
        return frame

    async def _next(self) -> bytes:
        loop = asyncio.get_running_loop()
        if self._due is None:
            self._due = loop.time()
        if len(self._queued) < FRAME_BYTES:
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._due):
                    await self._news.wait()
            except TimeoutError:
                # After a standstill (the machine slept) the silence of that time is not sent afterwards.
                self._due = max(self._due, loop.time() - _FRAME) + _FRAME
                return _SILENCE
        pcm = bytes(self._queued[:FRAME_BYTES])
        del self._queued[:FRAME_BYTES]
        self._due = loop.time() + _PATIENCE
        return pcm


def mono(frame: AudioFrame) -> bytes:
    """A decoded frame, its channels mixed down. Opus decodes to packed stereo."""
    samples = frame.to_ndarray()
    channels = len(frame.layout.channels)
    if channels == 1:
        return bytes(samples.tobytes())
    pairs = samples.reshape(-1, channels) if samples.shape[0] == 1 else samples.T
    mixed = pairs.astype(np.int32).sum(axis=1) // channels
    return bytes(mixed.astype("<i2").tobytes())
