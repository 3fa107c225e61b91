"""One LiveKit room with one agent in it: our microphone out, its voice in, JSON packets both ways.

Loads livekit and starts its native runtime; import it through `webrtc.load`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient

from services.calls.messages import Quality
from services.calls.webrtc import FRAME_BYTES, RATE, within
from services.errors import Category, ServiceError

log = logging.getLogger(__name__)

FfiClient.instance  # noqa: B018  # loads the native library now: this import runs in a thread


def _quieten(record: logging.LogRecord) -> bool:
    """livekit logs as errors what a call tells in its own words (a lost line, an address not served)."""
    if record.levelno < logging.CRITICAL:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger().isEnabledFor(logging.DEBUG)


logging.getLogger("livekit").addFilter(_quieten)

_SOURCE_MS: Final = 100
"""What the native side may hold of the microphone."""
_MOST_WAITING: Final = 5
_KEPT: Final = 2
_CLOSE_SECONDS: Final = 3.0
_SIGNAL_SECONDS: Final = 5.0
"""For one attempt to reach the signalling server; livekit makes a few."""


class RoomEvents(Protocol):
    """Who is told. All are plain functions, called on the event loop."""

    def on_packet(self, data: bytes) -> None:
        """A data packet of the agent."""

    def on_agent_left(self) -> None: ...

    def on_reconnecting(self) -> None: ...

    def on_reconnected(self) -> None: ...

    def on_disconnected(self, reason: str) -> None:
        """The room is gone; LiveKit's word for why (`ROOM_CLOSED`, `SIGNAL_CLOSE`, …)."""


class LiveKitRoom:
    """Make it, `connect`, `publish`; then `send`, `push` and `frames`. Close it always."""

    def __init__(self, events: RoomEvents) -> None:
        self._events = events
        self._room = rtc.Room()
        self._connecting: asyncio.Task[None] | None = None
        self._source: rtc.AudioSource | None = None
        self._streams: list[rtc.AudioStream] = []
        self._track: asyncio.Future[rtc.Track] = asyncio.get_running_loop().create_future()
        self._waiting = bytearray()
        self._news = asyncio.Event()
        self._closing = False
        self._before = (0, 0)
        self._room.on("track_subscribed", self._subscribed)
        self._room.on("data_received", self._received)
        self._room.on("participant_disconnected", self._left)
        self._room.on("reconnecting", lambda: None if self._closing else events.on_reconnecting())
        self._room.on("reconnected", lambda: None if self._closing else events.on_reconnected())
        self._room.on("disconnected", self._disconnected)

    async def connect(self, url: str, token: str, seconds: float) -> None:
        """Join. Raises ServiceError (`unreachable`, `refused`)."""
        options = rtc.RoomOptions(connect_timeout=_SIGNAL_SECONDS)
        # In a task of its own: a cancelled connect would leave a room behind that nobody can leave.
        self._connecting = asyncio.create_task(
            self._room.connect(url, token, options), name="livekit connecting"
        )
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._connecting)
        except TimeoutError:
            failure = _unreachable("it does not answer")
        except rtc.ConnectError as error:
            failure = _explained(error)
        else:
            return
        raise failure

    async def publish(self) -> None:
        """Our microphone, as a track. At once after connecting: the server may wait for it."""
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=_SOURCE_MS)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions()
        options.source = rtc.TrackSource.SOURCE_MICROPHONE
        try:
            await self._room.local_participant.publish_track(track, options)
        except Exception as error:  # livekit raises its own, and bare ones
            raise _unreachable("it did not take our microphone's track") from error

    async def send(self, text: str) -> None:
        """A data packet, reliable and without a topic. Raises ServiceError (`connection_lost`)."""
        try:
            await self._room.local_participant.publish_data(text, reliable=True)
        except Exception as error:
            raise ServiceError(
                "A message could not be sent to the agent",
                category=Category.TRANSIENT,
                advice="The connection to the media server is broken",
                code="connection_lost",
            ) from error

    def push(self, pcm: bytes) -> None:
        """Hand over audio of the microphone, of any length; never waits. `speak` sends it."""
        self._waiting += pcm
        if len(self._waiting) > _MOST_WAITING * FRAME_BYTES:
            surplus = len(self._waiting) // FRAME_BYTES - _KEPT
            del self._waiting[: surplus * FRAME_BYTES]
        if len(self._waiting) >= FRAME_BYTES:
            self._news.set()

    async def speak(self) -> None:
        """Send what is pushed, for as long as the room lasts."""
        assert self._source is not None  # noqa: S101  # set by `publish`
        while not self._closing:
            await self._news.wait()
            self._news.clear()
            while len(self._waiting) >= FRAME_BYTES:
                pcm = bytes(self._waiting[:FRAME_BYTES])
                del self._waiting[:FRAME_BYTES]
                try:
                    await self._source.capture_frame(rtc.AudioFrame(pcm, RATE, 1, FRAME_BYTES // 2))
                except Exception as error:  # livekit raises bare ones
                    log.debug("a frame of the microphone was not taken: %s", type(error).__name__)

    async def frames(self) -> AsyncIterator[bytes]:
        """The agent's track: mono s16le at 48 kHz, 20 ms each; ends with the track."""
        while not self._closing:
            track = await self._track
            self._track = asyncio.get_running_loop().create_future()
            stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20, capacity=100)
            self._streams.append(stream)
            async for event in stream:
                yield bytes(event.frame.data)

    async def figures(self) -> Quality:
        """The line's quality since the last call of this."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                stats = await self._room.get_rtc_stats()
        except Exception as error:  # figures are no reason to end a call
            log.debug("the line's figures could not be read: %s", type(error).__name__)
            return Quality()
        round_trip = jitter = loss = None
        for each in (*stats.publisher_stats, *stats.subscriber_stats):
            kind = each.WhichOneof("stats")
            if kind == "inbound_rtp" and each.inbound_rtp.stream.kind == "audio":
                received = each.inbound_rtp.received
                jitter = received.jitter * 1000
                lost, arrived = received.packets_lost, received.packets_received
                expected = lost + arrived - sum(self._before)
                if expected > 0:
                    loss = max(0.0, 100 * (lost - self._before[0]) / expected)
                self._before = (lost, arrived)
            elif kind == "candidate_pair":
                measured = each.candidate_pair.candidate_pair.current_round_trip_time
                if measured > 0 and round_trip is None:
                    round_trip = measured * 1000
        return Quality(_rounded(round_trip), _rounded(jitter), _rounded(loss))

    async def aclose(self) -> None:
        """Leave the room. May be called twice; never raises."""
        self._closing = True
        self._news.set()
        if not self._track.done():
            self._track.cancel()
        connecting = self._connecting
        if connecting is not None and not connecting.done():
            await asyncio.wait({connecting}, timeout=_CLOSE_SECONDS)
            if not connecting.done():
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
                # livekit leaves it subscribed, and it would collect the events of every later call.
                queue = getattr(self._room, "_ffi_queue", None)
                if queue is not None:
                    FfiClient.instance.queue.unsubscribe(queue)
        for stream in self._streams:
            await within(_CLOSE_SECONDS, stream.aclose(), "closing the agent's audio")
        self._streams.clear()
        left = await within(_CLOSE_SECONDS, self._room.disconnect(), "leaving the room")
        listener: asyncio.Task[None] | None = getattr(self._room, "_task", None)
        if listener is not None and not listener.done() and not left:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        source, self._source = self._source, None
        if source is not None:
            await within(_CLOSE_SECONDS, source.aclose(), "closing the microphone's track")

    # What the room tells

    def _subscribed(self, track: rtc.Track, publication: Any, participant: Any) -> None:
        if track.kind != rtc.TrackKind.KIND_AUDIO or not is_agent(participant):
            return
        if self._track.done():  # published anew, as after a reconnection
            self._track = asyncio.get_running_loop().create_future()
        self._track.set_result(track)

    def _received(self, packet: rtc.DataPacket) -> None:
        if packet.participant is None or is_agent(packet.participant):
            self._events.on_packet(packet.data)

    def _left(self, participant: rtc.RemoteParticipant) -> None:
        if is_agent(participant) and not self._closing:
            self._events.on_agent_left()

    def _disconnected(self, reason: Any = 0) -> None:
        if not self._closing:
            self._events.on_disconnected(_word(reason))


def is_agent(participant: Any) -> bool:
    """The agent's identity contains `agent` (JS SDK 1.25)."""
    return "agent" in str(participant.identity)


def _word(reason: Any) -> str:
    try:
        return str(rtc.DisconnectReason.Name(reason))
    except (ValueError, TypeError):
        return "UNKNOWN_REASON"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _explained(error: rtc.ConnectError) -> ServiceError:
    # Its text may hold the address with the token in it, so it is looked at and not shown.
    text = str(error.message).lower()
    if any(sign in text for sign in ("401", "403", "unauthorized", "invalid token", "permission")):
        return ServiceError(
            "ElevenLabs' media server refused the conversation's token",
            category=Category.AUTHENTICATION,
            advice="Call again; if it stays, check the data region of this connection",
            code="refused",
        )
    return _unreachable("no connection came about")


def _unreachable(why: str) -> ServiceError:
    return ServiceError(
        f"ElevenLabs' media server (LiveKit) cannot be reached: {why}",
        category=Category.TRANSIENT,
        advice="Check that the network lets WebRTC out, or choose the microphone transport",
        code="unreachable",
    )
