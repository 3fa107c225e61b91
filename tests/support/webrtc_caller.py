"""A caller on a WebRTC line: an own aiortc client that speaks queued PCM and keeps what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

RATE = 48_000
FRAME = 960


class Microphone(MediaStreamTrack):
    """20 ms frames in real time; silence when nothing is queued."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.queue = bytearray()
        self._start: float | None = None
        self._sent = 0

    async def recv(self) -> AudioFrame:
        now = time.monotonic()
        self._start = self._start or now
        await asyncio.sleep(max(0.0, self._start + self._sent / RATE - now))
        piece = bytes(self.queue[: FRAME * 2]).ljust(FRAME * 2, b"\0")
        del self.queue[: FRAME * 2]
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(piece)
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, fractions.Fraction(1, RATE)
        self._sent += FRAME
        return frame


class Caller:
    """One participant. `heard` is mono s16le at 48 kHz, `messages` what the control channel said."""

    def __init__(self, *, speaks: bool = True) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = Microphone()
        self.heard = bytearray()
        self.messages: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        if speaks:
            self.peer.addTrack(self.microphone)
        else:
            self.peer.addTransceiver("audio", direction="recvonly")
        self.control = self.peer.createDataChannel("control")
        self.control.on("message", self.messages.append)
        self.peer.on("track", self._listen)

    async def offer(self) -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def take(self, answer: str) -> None:
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def say(self, pcm: bytes) -> None:
        self.microphone.queue += pcm

    def loud(self, last_ms: int = 0) -> bool:
        """Whether the last `last_ms` of what was heard (0: all of it) are no silence."""
        return level(bytes(self.heard[-last_ms * RATE // 500 :])) > 500

    async def close(self) -> None:
        await self.peer.close()
        self.microphone.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _listen(self, track: Any) -> None:
        self.tasks.append(asyncio.create_task(self._keep(track)))

    async def _keep(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                self.heard += samples.astype(np.int32).mean(axis=1).astype("<i2").tobytes()


async def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Returns once `condition` holds; AssertionError naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds:g} s"
        await asyncio.sleep(0.01)


def level(pcm: bytes) -> float:
    """Root mean square of s16le samples."""
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64)
    return float(np.sqrt((samples * samples).mean())) if len(samples) else 0.0


def pitches(pcm: bytes, rate: int = RATE) -> list[int]:
    """The strongest frequency of every tone in `pcm`, in Hz: bursts between silences of 30 ms and more."""
    step = rate // 100
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64)
    samples = samples[: len(samples) // step * step]
    loud = np.sqrt((samples.reshape(-1, step) ** 2).mean(axis=1)) > 800
    found: list[int] = []
    start: int | None = None
    quiet = 0
    for index, on in enumerate([*loud.tolist(), False, False, False]):
        if on:
            start = index if start is None else start
            quiet = 0
        elif start is not None:
            quiet += 1
            if quiet == 3:
                burst = samples[start * step : (index - 2) * step]
                if len(burst) >= 8 * step:
                    spectrum = np.abs(np.fft.rfft(burst * np.hanning(len(burst)), n=rate))
                    found.append(int(spectrum.argmax()))
                start = None
    return found
