"""A Retell agent over WebRTC: the vendor's gateway for the audio, its monitor socket for the transcript.

`POST /v3/create-web-call`, then an SDP offer and answer over HTTP; Opus both ways at 48 kHz; the data channel
`control` tells the end (browser SDK 3). The transcript comes over the monitor socket, and where that is
refused the call goes on without one.

aiortc cannot restart ICE on a connection. A line that broke is joined anew instead: a second session of the
caller replaces the first, and the conversation goes on at the vendor.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from services.calls.access import VendorAccess
from services.calls.brief_payload import retell_override
from services.calls.messages import Connected, Ended, Interrupted, Message, Notice, StateChanged
from services.calls.model import Brief, CallState, Capabilities, EndReason, TransportKind
from services.calls.retell_live import Gateway, RetellLive, WebCall
from services.calls.retell_transcript import ending
from services.calls.transport import AgentAudio, Transport
from services.calls.transports.retell_monitor import SETTLE_SECONDS, RetellMonitor
from services.calls.voice_gate import VoiceGate
from services.calls.webrtc import RATE, load, within
from services.errors import Category, ServiceError
from services.http.addresses import is_loopback

if TYPE_CHECKING:
    from services.calls.webrtc_peer import Peer

log = logging.getLogger(__name__)

_FORMAT: Final = "opus"
_GONE: Final = ("not_found", "refused", "invalid_request", "wrong_key", "missing_permission")
"""Refusals of a new session that no later attempt will change."""


@dataclass(frozen=True, slots=True)
class GatewayTimes:
    """Seconds. A line on which no packet at all arrives for `silent_after` is taken for broken."""

    connect: float = 15.0
    look_every: float = 2.0
    silent_after: float = 8.0
    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 15.0
    hang_up: float = 3.0
    settle: float = SETTLE_SECONDS
    """An utterance that did not change for so long is complete."""
    reason_within: float = 1.5
    """How long the monitor may take to say why the gateway has ended the call."""


class RetellGateway(Transport):
    """One web call. `version` is an agent version or tag; None the one the vendor takes by itself."""

    kind = TransportKind.WEBRTC
    capabilities = Capabilities(audio=True, context=True)

    def __init__(
        self,
        access: VendorAccess,
        agent_id: str,
        *,
        version: int | str | None = None,
        times: GatewayTimes = GatewayTimes(),
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__()
        self._access = access
        self._agent_id = agent_id
        self._version = version
        self._times = times
        self._rng = rng or random.Random()
        self._sleep = sleep
        self._live = RetellLive(access)
        self._call: WebCall | None = None
        self._gateway: Gateway | None = None
        self._session_id = ""
        self._peer: Peer | None = None
        self._monitor: RetellMonitor | None = None
        self._gate = VoiceGate()
        self._recovering = False
        self._watched = asyncio.Event()
        """Set once the monitor has nothing more to tell."""

    # -- opening ----------------------------------------------------------------------------------

    async def _open(self, brief: Brief) -> None:
        self._emit(StateChanged(CallState.CONNECTING))
        await load("services.calls.webrtc_peer")
        override, variables = retell_override(brief)
        self._call = await self._live.create_web_call(
            self._agent_id, override=override, variables=variables, version=self._version
        )
        self._gateway = Gateway(self._access, self._call.call_id, self._call.access_token)
        self._peer = await self._join()
        self._emit(Connected(self._call.call_id, RATE, RATE, _FORMAT, _FORMAT))
        self._emit(StateChanged(CallState.LIVE))
        self._monitor = RetellMonitor(self._access, self._call.call_id, rng=self._rng, sleep=self._sleep)
        self._own(self._read_along(self._monitor), "monitor")
        self._own(self._listen(self._peer), "audio")
        self._own(self._watch(), "line")

    async def _join(self) -> Peer:
        """A connected peer. Its session at the gateway replaces an earlier one of ours."""
        from services.calls.webrtc_peer import Peer

        assert self._call is not None  # noqa: S101  # both set by `_open`
        assert self._gateway is not None  # noqa: S101
        # Without servers of the vendor its browser client asks a public STUN server; loopback needs none.
        local = is_loopback(urlsplit(self._access.base_url).hostname or "")
        servers = self._call.ice_servers or (() if local else None)
        peer = Peer(servers, lambda text: self._on_control(peer, text))
        try:
            session_id, answer = await self._gateway.join(await peer.offer())
            self._session_id = session_id
            await peer.accept(answer)
            await peer.connected(self._times.connect)
        except BaseException:
            await peer.aclose()
            raise
        return peer

    # -- what comes in ----------------------------------------------------------------------------

    async def _listen(self, peer: Peer) -> None:
        async for pcm in peer.frames():
            heard = self._gate.feed(pcm)
            # Live audio does not wait for a session that is behind: what is late is left out.
            if heard and self._space.is_set():
                self._emit(AgentAudio(heard, self._turn))

    @property
    def _turn(self) -> int:
        return self._monitor.transcript.turn if self._monitor is not None else 1

    async def _read_along(self, monitor: RetellMonitor) -> None:
        try:
            async for message in monitor:
                if isinstance(message, Ended):
                    self._watched.set()
                    message = _for_us(message)
                elif isinstance(message, Interrupted):
                    self._gate.cut()
                self._emit(message)
        except ServiceError as error:
            self._emit(Notice(error.message, "look", error.advice))
        finally:
            self._watched.set()

    def _on_control(self, peer: Peer, text: str) -> None:
        """A message of the gateway: `{"type": "status", "state": "open" | "ended" | "replaced" | …}`."""
        try:
            message = json.loads(text)
        except ValueError:
            log.info("the gateway sent a control message that is not JSON")
            return
        state = message.get("state") if isinstance(message, dict) else None
        if state == "ended" and not self.over:
            self._own(self._ended_there(), "end")
        elif state == "replaced" and peer is self._peer and not self._recovering:
            # Not joined again, or two programs would push each other out for ever.
            self._end(EndReason.CONNECTION_LOST, "somebody else joined the call in our place", by="vendor")

    async def _ended_there(self) -> None:
        """The gateway says that the call is over; the monitor, or else the call's object, says why."""
        try:
            async with asyncio.timeout(self._times.reason_within):
                await self._watched.wait()
        except TimeoutError:
            pass
        if not self.over:
            self._emit(await self._told_ending() or ending(""))

    async def _told_ending(self) -> Ended | None:
        """How the vendor says the call ended; None while it goes on or when it does not say."""
        if self._call is None:
            return None
        try:
            data = await self._live.call(self._call.call_id)
        except ServiceError as error:
            log.info("why a call ended could not be read: %s", error.message)
            return None
        reason = data.get("disconnection_reason")
        return _for_us(ending(reason)) if reason else None

    # -- the line ---------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Figures of the line; when it breaks, join again."""
        seen, silent = -1, 0.0
        while not self.over:
            peer = self._peer
            if peer is None:
                return
            try:
                async with asyncio.timeout(self._times.look_every):
                    await peer.lost.wait()
            except TimeoutError:
                quality, packets = await peer.figures()
                silent = silent + self._times.look_every if packets == seen else 0.0
                seen = packets
                if silent < self._times.silent_after:
                    if not silent:
                        self._emit(quality)
                    continue
            self._recovering = True
            await self._recover(peer)
            self._recovering = False
            seen, silent = -1, 0.0

    async def _recover(self, broken: Peer) -> None:
        """Join the same call again, or end with the reason."""
        told: Ended | None = None
        for attempt in range(1, self._times.attempts + 1):
            wait = min(self._times.longest_wait, self._times.first_wait * 2 ** (attempt - 1))
            wait = wait / 2 + self._rng.uniform(0, wait / 2)
            self._emit(
                StateChanged(
                    CallState.RECONNECTING, f"attempt {attempt} of {self._times.attempts} in {wait:.1f} s"
                )
            )
            await self._sleep(wait)
            if self.over or (told := await self._told_ending()) is not None:
                break
            try:
                peer = await self._join()
            except ServiceError as error:
                log.info("joining a call again failed: %s", error.message)
                if error.code in _GONE and error.category is not Category.TRANSIENT:
                    break
                continue
            await broken.aclose()
            self._peer = peer
            self._emit(StateChanged(CallState.LIVE, "connected again"))
            self._own(self._listen(peer), "audio")
            return
        self._emit(told or Ended(EndReason.CONNECTION_LOST, "and could not be brought back", "vendor"))

    # -- what goes out ----------------------------------------------------------------------------

    async def send_audio(self, pcm: bytes) -> None:
        if self._peer is not None and not self.over:
            self._peer.microphone.push(pcm)

    async def send_context(self, text: str) -> None:
        """Told with `update-live-call`; the agent takes it into its next answer."""
        if self._call is not None and not self.over:
            await self._live.steer(self._call.call_id, text)

    async def aftermath(self) -> list[Message]:
        """Cost and latencies of the call's object, which the vendor fills in after the end."""
        if self._call is None or not self._session_id:
            return []
        live = RetellLive(self._access)
        try:
            return await live.figures(self._call.call_id)
        except ServiceError as error:
            log.info("the figures of a call could not be read: %s", error.message)
            return []
        finally:
            await live.aclose()

    async def _close(self, first: bool) -> None:
        gateway, self._gateway = self._gateway, None
        peer, self._peer = self._peer, None
        session_id = self._session_id
        if gateway is not None and session_id and self._we_end(first):
            await within(self._times.hang_up, gateway.leave(session_id), "hanging up")
        await self._stop_tasks()
        if self._monitor is not None:
            await within(self._times.hang_up, self._monitor.aclose(), "closing the monitor")
        if peer is not None:
            await peer.aclose()
        if gateway is not None:
            await gateway.aclose()
        await self._live.aclose()

    def _we_end(self, first: bool) -> bool:
        """Whether the vendor still thinks that the call goes on."""
        if first or self._ended is None:
            return True
        return self._ended.by == "us" or self._ended.reason is EndReason.CONNECTION_LOST


def _for_us(end: Ended) -> Ended:
    """The user of this call is this program: if the vendor says that it hung up, it did not do so itself."""
    if end.reason is EndReason.CALLEE_ENDED:
        return Ended(EndReason.CONNECTION_LOST, "Retell lost the connection to us", "vendor")
    return end
