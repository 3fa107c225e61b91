"""Audio over WebRTC: an outgoing track that mixes and paces, an ear for an incoming one.

Loads aiortc and PyAV (0.4 s): import it in a thread, when a session begins. PCM here is mono s16le at 48 kHz.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
from collections.abc import Callable
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

RATE = 48_000
FRAME = RATE // 50
_BYTES = FRAME * 2
_TIME_BASE = fractions.Fraction(1, RATE)
_SILENCE = bytes(_BYTES)
_GAP_MS = 200


async def hang_up(peer: RTCPeerConnection) -> None:
    """Close a connection, and let it finish that even when we are cancelled.

    aiortc closes by itself when the other side leaves; the second to close waits on a future of the first,
    and cancelling that wait would break the first.
    """
    await asyncio.shield(peer.close())


class MixTrack(MediaStreamTrack):
    """The sum of named sources, a frame of 20 ms every 20 ms; silence where nothing is queued.

    `tap` gets the frame of one source (`tapped`) at the moment it is sent, so that others can hear it too.
    """

    kind = "audio"

    def __init__(self, tapped: str = "", tap: Callable[[bytes], None] | None = None) -> None:
        super().__init__()
        self._tapped, self._tap = tapped, tap
        self._sources: dict[str, bytearray] = {}
        self._empty: dict[str, asyncio.Event] = {}
        self._begun: float | None = None
        self._sent = 0
        self._stall_ms = 0.0

    def put(self, source: str, pcm: bytes, *, keep_ms: int = 0) -> None:
        """Queue `pcm`. With `keep_ms` the oldest audio goes when more than that waits: for live sources."""
        queue = self._sources.setdefault(source, bytearray())
        queue += pcm
        if keep_ms and len(queue) > keep_ms * RATE // 500:
            del queue[: len(queue) - keep_ms * RATE // 500]
        if queue:
            self._event(source).clear()

    def waiting_ms(self, source: str) -> float:
        """How much of a source was not sent yet."""
        return len(self._sources.get(source, b"")) * 500 / RATE

    def drop(self, source: str) -> float:
        """Forget what a source has queued; returns how many milliseconds that were."""
        waiting = self.waiting_ms(source)
        self._sources.pop(source, None)
        self._event(source).set()
        return waiting

    async def emptied(self, source: str) -> None:
        """Returns when everything of a source has been sent."""
        if self._sources.get(source):
            await self._event(source).wait()

    def stall(self, ms: float) -> None:
        """Send nothing at all for `ms`."""
        self._stall_ms += ms

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._begun is None:
            self._begun = loop.time()
        if self._stall_ms:
            frames = int(self._stall_ms // 20)
            self._sent += frames * FRAME
            self._stall_ms = 0.0
        wait = self._begun + self._sent / RATE - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        elif wait < -0.5:  # the machine was asleep or busy: do not send everything at once
            self._begun -= wait
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(self._next())
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, _TIME_BASE
        self._sent += FRAME
        return frame

    def stop(self) -> None:
        super().stop()
        for event in self._empty.values():
            event.set()

    def _event(self, source: str) -> asyncio.Event:
        return self._empty.setdefault(source, asyncio.Event())

    def _next(self) -> bytes:
        pieces: list[bytes] = []
        for name, queue in self._sources.items():
            if not queue:
                continue
            piece = bytes(queue[:_BYTES])
            del queue[:_BYTES]
            if not queue:
                self._event(name).set()
            pieces.append(piece.ljust(_BYTES, b"\0"))
            if name == self._tapped and self._tap is not None:
                self._tap(pieces[-1])
        if not pieces:
            return _SILENCE
        if len(pieces) == 1:
            return pieces[0]
        total = np.sum([np.frombuffer(piece, dtype="<i2").astype(np.int32) for piece in pieces], axis=0)
        return bytes(np.clip(total, -32768, 32767).astype("<i2").tobytes())


async def listen(track: Any, heard: Callable[[bytes], None]) -> None:
    """Hand every frame of an incoming track to `heard`, mixed down to mono 48 kHz, until the track ends.

    A muted or silent sender may send nothing at all: that is handed on as silence.
    """
    begun = False
    with contextlib.suppress(MediaStreamError):
        while True:
            try:
                async with asyncio.timeout(_GAP_MS / 1000 if begun else None):
                    frame = await track.recv()
            except TimeoutError:
                heard(bytes(_GAP_MS * RATE // 500))
                continue
            begun = True
            samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).astype(np.int32)
            heard(samples.mean(axis=1).astype("<i2").tobytes())


def connection() -> RTCPeerConnection:
    """A peer connection for loopback: no STUN or TURN server is asked."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def answer(peer: RTCPeerConnection, offer: str) -> str:
    """The SDP answer to an SDP offer. Raises ValueError when the offer is no SDP."""
    try:
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        local = await peer.createAnswer()
        await peer.setLocalDescription(local)
    except Exception as error:  # aiortc's parser lets through whatever its pieces raise
        raise ValueError(f"the offer is no session description: {error}") from error
    return str(peer.localDescription.sdp)


async def take_answer(peer: RTCPeerConnection, sdp: str) -> None:
    """Take in the answer to an offer that `peer` made. Raises ValueError when it is no SDP."""
    try:
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
    except Exception as error:
        raise ValueError(f"the answer is no session description: {error}") from error


async def add_candidate(peer: RTCPeerConnection, candidate: dict[str, Any]) -> None:
    """Take in one trickled candidate, as browsers spell them. Raises ValueError when it is none."""
    from aiortc.sdp import candidate_from_sdp

    text = str(candidate.get("candidate") or "")
    if not text:  # the browser's way to say that there are no more
        return
    try:
        found = candidate_from_sdp(text.removeprefix("candidate:"))
    except (ValueError, IndexError, AssertionError) as error:
        raise ValueError(f"the candidate is none: {error}") from error
    found.sdpMid = candidate.get("sdpMid")
    found.sdpMLineIndex = candidate.get("sdpMLineIndex")
    if found.sdpMid is None and found.sdpMLineIndex is None:
        raise ValueError("the candidate names no media section")
    if found.protocol.lower() == "udp" and ":" not in found.ip and not found.ip.endswith(".local"):
        await peer.addIceCandidate(found)
