"""One peer connection with aiortc: our microphone out, the agent's voice in, a data channel for signals.

Loads aiortc; import it through `webrtc.load`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamError

from services.calls.messages import Quality
from services.calls.webrtc import RATE, within
from services.calls.webrtc_audio import MicrophoneTrack, mono
from services.errors import Category, ServiceError

log = logging.getLogger(__name__)

for _name in ("aioice", "aiortc"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # below that, every address and packet

_CLOSE_SECONDS = 3.0
_GONE = ("failed", "closed")


class Peer:
    """Make it, `offer`, `accept` the answer, `connected`; then `frames` and `microphone`. Close it always.

    `ice_servers` as the vendor gives them (`urls`, `username?`, `credential?`); None asks a public STUN
    server, () asks none. `on_control` gets the text messages of the data channel `control`. Without a
    microphone it only listens.
    """

    def __init__(
        self,
        ice_servers: Sequence[dict[str, Any]] | None,
        on_control: Callable[[str], None],
        *,
        microphone: bool = True,
    ) -> None:
        servers = None if ice_servers is None else [_server(each) for each in ice_servers if _known(each)]
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._track: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._settled = asyncio.Event()
        self._closing = False
        self.lost = asyncio.Event()
        """Set when the connection failed or the other side closed it."""
        self.microphone = MicrophoneTrack()
        self._before = (0, 0)
        if microphone:
            self._pc.addTrack(self.microphone)
        else:
            self._pc.addTransceiver("audio", direction="recvonly")
        self._control: RTCDataChannel = self._pc.createDataChannel("control")
        self._control.on("message", lambda data: on_control(data) if isinstance(data, str) else None)
        self._pc.on("track", self._got_track)
        self._pc.on("connectionstatechange", self._changed)

    async def offer(self) -> str:
        """Our SDP, with all candidates in it: aiortc gathers them first, so nothing has to trickle.

        Raises ServiceError (`unreachable`) where this machine has no network for it.
        """
        try:
            await self._pc.setLocalDescription(await self._pc.createOffer())
        except (ValueError, OSError, InvalidStateError) as error:
            raise _not_connected() from error
        return str(self._pc.localDescription.sdp)

    async def accept(self, sdp: str) -> None:
        """Take the other side's answer. Raises ServiceError (`protocol_error`) for one that is none."""
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        except (ValueError, KeyError, IndexError, AttributeError, AssertionError, TypeError) as error:
            raise ServiceError(
                "Retell's answer to our offer is no session description",
                advice="Try again; if it stays, choose another transport",
                code="protocol_error",
            ) from error
        except InvalidStateError as error:
            raise _not_connected() from error

    async def connected(self, seconds: float) -> None:
        """Until media flows. Raises ServiceError (`unreachable`) when it does not within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            raise _not_connected() from None
        if self.lost.is_set():
            raise _not_connected()

    async def frames(self) -> AsyncIterator[bytes]:
        """The agent's side as it arrives: mono s16le at 48 kHz, mostly 20 ms; ends with the connection."""
        track = await self._track
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            yield mono(frame)

    async def figures(self) -> tuple[Quality, int]:
        """The line's quality since the last call of this, and how many packets ever came in."""
        packets = 0
        round_trip = jitter = loss = None
        try:
            stats = list((await self._pc.getStats()).values())
        except Exception as error:  # figures are no reason to end a call
            log.debug("the line's figures could not be read: %s", type(error).__name__)
            stats = []
        for each in stats:
            if each.type == "inbound-rtp":
                jitter = each.jitter * 1000 / RATE
                lost, received = each.packetsLost, each.packetsReceived
                before_lost, before_received = self._before
                self._before = (lost, received)
                expected = lost - before_lost + received - before_received
                if expected > 0:
                    loss = max(0.0, 100 * (lost - before_lost) / expected)
            elif each.type == "remote-inbound-rtp" and each.roundTripTime:
                round_trip = each.roundTripTime * 1000
            elif each.type == "transport":
                packets += each.packetsReceived
        return Quality(_rounded(round_trip), _rounded(jitter), _rounded(loss)), packets

    async def aclose(self) -> None:
        """Let go of everything: sockets, tasks, the decoder's thread. May be called twice; never raises."""
        self._closing = True
        self._settled.set()
        if not self._track.done():
            self._track.cancel()
        self.microphone.stop()
        if not await within(_CLOSE_SECONDS, closed(self._pc), "closing the peer connection"):
            log.warning("a peer connection did not close in time")

    def _got_track(self, track: Any) -> None:
        if track.kind == "audio" and not self._track.done():
            self._track.set_result(track)

    def _changed(self) -> None:
        state = self._pc.connectionState
        if state in _GONE and not self._closing:
            self.lost.set()
        if state in (*_GONE, "connected"):
            self._settled.set()


def _server(given: dict[str, Any]) -> RTCIceServer:
    return RTCIceServer(
        urls=given.get("urls") or [],
        username=given.get("username"),
        credential=given.get("credential"),
    )


def _known(given: dict[str, Any]) -> bool:
    """Whether aiortc can use a server; it refuses what it does not know."""
    urls = given.get("urls") or []
    names = [urls] if isinstance(urls, str) else urls
    return bool(names) and all(str(name).startswith(("stun:", "stuns:", "turn:", "turns:")) for name in names)


async def closed(pc: RTCPeerConnection) -> None:
    """Close, whatever becomes of us: aiortc closes by itself too when the other side leaves, and whoever
    comes second waits on a future of the first. To cancel that wait cancels the future, and the first
    ends in an error that nobody hears.
    """
    await asyncio.shield(pc.close())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _not_connected() -> ServiceError:
    return ServiceError(
        "Retell answered, but no audio connection came about (UDP)",
        category=Category.TRANSIENT,
        advice="Check that the network and its firewall let UDP out, or choose the phone or text transport",
        code="unreachable",
    )
