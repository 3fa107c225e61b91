"""An ElevenLabs agent over WebRTC: a LiveKit room with the agent in it.

A token from `/v1/convai/conversation/token`, then the room of the account's data region. The frames are those
of the conversation socket, as data packets; the audio is a track each way (JS SDK 1.25). The conversation
begins when `conversation_initiation_client_data` has been sent, and ends when the agent leaves.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.calls.access import VendorAccess
from services.calls.brief_payload import conversation_config
from services.calls.elevenlabs_aftermath import read_aftermath
from services.calls.elevenlabs_frames import FrameReader, Reply
from services.calls.elevenlabs_rest import ElevenLabsRest, livekit_url
from services.calls.elevenlabs_sending import (
    client_tool_result,
    contextual_update,
    initiation,
    mcp_approval,
    user_activity,
    user_message,
)
from services.calls.messages import (
    AgentSpeech,
    Connected,
    Ended,
    Interrupted,
    Message,
    Quality,
    StateChanged,
)
from services.calls.model import Brief, CallState, Capabilities, EndReason, TransportKind
from services.calls.transport import AgentAudio, Transport
from services.calls.voice_gate import VoiceGate
from services.calls.webrtc import RATE, load
from services.errors import Category, ServiceError

if TYPE_CHECKING:
    from services.calls.livekit_room import LiveKitRoom

log = logging.getLogger(__name__)

_FORMAT: Final = "opus"
_MOST_PACKET: Final = 60_000
"""Bytes one data packet may have; the vendor's server drops larger ones."""
_ENDINGS: Final = {
    "ROOM_CLOSED": (EndReason.AGENT_ENDED, "agent", ""),
    "ROOM_DELETED": (EndReason.AGENT_ENDED, "agent", ""),
    "PARTICIPANT_REMOVED": (EndReason.AGENT_ENDED, "agent", ""),
    "DUPLICATE_IDENTITY": (EndReason.VENDOR_ERROR, "vendor", "somebody else took our place in the room"),
    "SERVER_SHUTDOWN": (EndReason.VENDOR_ERROR, "vendor", "the media server shut down"),
    "JOIN_FAILURE": (EndReason.UNREACHABLE, "vendor", "the room could not be joined completely"),
    "AGENT_ERROR": (EndReason.VENDOR_ERROR, "vendor", "the agent failed"),
}


@dataclass(frozen=True, slots=True)
class LivekitTimes:
    """Seconds."""

    connect: float = 15.0
    begin: float = 15.0
    """From our first frame to the vendor's."""
    look_every: float = 2.0
    reconnect: float = 30.0
    """How long livekit may try to bring the line back."""
    late_frames: float = 0.25
    """Frames may arrive behind the news that the agent has left: an error says why it did."""


class ElevenLabsLivekit(Transport):
    """One conversation. `livekit_url` is for another server than the region's own."""

    kind = TransportKind.WEBRTC
    capabilities = Capabilities(audio=True, text=True, context=True, approvals=True)

    def __init__(
        self,
        access: VendorAccess,
        agent_id: str,
        *,
        tools: Sequence[str] = (),
        livekit_url: str | None = None,
        times: LivekitTimes = LivekitTimes(),
    ) -> None:
        super().__init__()
        self._access = access
        self._agent_id = agent_id
        self._rest = ElevenLabsRest(access)
        self._url = livekit_url
        self._times = times
        # Audio comes on the track, in Opus, whatever formats the frames announce.
        self._reader = FrameReader(audio=False, tools=tools)
        self._joined: LiveKitRoom | None = None
        self._conversation_id = ""
        self._packets: asyncio.Queue[bytes] = asyncio.Queue()
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._begun: asyncio.Future[None] | None = None
        self._gate = VoiceGate()
        self._event = 0
        self._leaving = False
        self._broken: asyncio.Task[None] | None = None

    # -- opening ----------------------------------------------------------------------------------

    async def _open(self, brief: Brief) -> None:
        self._emit(StateChanged(CallState.CONNECTING))
        first = json.dumps(initiation(conversation_config(brief)), ensure_ascii=False)
        if len(first.encode()) > _MOST_PACKET:
            raise ServiceError(
                f"The brief has {len(first.encode()) // 1000} kB, and over WebRTC there is room for "
                f"{_MOST_PACKET // 1000} kB",
                advice="Shorten its prompt, or choose the microphone transport",
                code="not_allowed",
            )
        url = self._url or livekit_url(self._access)
        library = await load("services.calls.livekit_room")
        token, self._conversation_id = await self._rest.token(self._agent_id)
        self._begun = asyncio.get_running_loop().create_future()
        room: LiveKitRoom = library.LiveKitRoom(self)
        self._joined = room
        await room.connect(url, token, self._times.connect)
        await room.publish()
        self._own(self._read(), "frames")
        self._own(self._send(room), "sending")
        self._own(room.speak(), "microphone")
        self._outgoing.put_nowait(first)
        try:
            async with asyncio.timeout(self._times.begin):
                await self._begun
        except TimeoutError:
            raise ServiceError(
                "The agent did not begin the conversation",
                category=Category.TIMEOUT,
                advice="Try again; if it stays, choose the microphone transport",
                code="timeout",
            ) from None
        self._own(self._listen(room), "audio")
        self._own(self._look(room), "line")

    # -- what the room tells ----------------------------------------------------------------------

    def on_packet(self, data: bytes) -> None:
        self._packets.put_nowait(data)

    def on_agent_left(self) -> None:
        # While the line is broken livekit empties the room by itself.
        if self._broken is None:
            self._finish_soon(Ended(EndReason.AGENT_ENDED, by="agent"))

    def on_reconnecting(self) -> None:
        self._emit(StateChanged(CallState.RECONNECTING, "the media server is looked for again"))
        if self._broken is None:
            self._broken = self._own(self._give_up(), "reconnecting")

    def on_reconnected(self) -> None:
        broken, self._broken = self._broken, None
        if broken is not None:
            broken.cancel()
        self._emit(StateChanged(CallState.LIVE, "connected again"))

    def on_disconnected(self, reason: str) -> None:
        word = reason.lower().replace("_", " ")
        known, by, detail = _ENDINGS.get(
            reason, (EndReason.CONNECTION_LOST, "vendor", f"the media server is gone ({word})")
        )
        if known is EndReason.UNREACHABLE and self._live:
            known, detail = EndReason.CONNECTION_LOST, "the room could not be joined again"
        self._finish_soon(Ended(known, detail, by))

    @property
    def _live(self) -> bool:
        """Whether the conversation began."""
        begun = self._begun
        return begun is not None and begun.done() and not begun.cancelled() and begun.exception() is None

    async def _give_up(self) -> None:
        await asyncio.sleep(self._times.reconnect)
        self._finish(Ended(EndReason.CONNECTION_LOST, "and could not be brought back", "vendor"))

    def _finish_soon(self, end: Ended) -> None:
        if not self._leaving and not self.over:
            self._leaving = True
            self._own(self._finish_later(end), "end")

    async def _finish_later(self, end: Ended) -> None:
        await asyncio.sleep(self._times.late_frames)
        self._finish(end)

    def _finish(self, end: Ended) -> None:
        failure = self._reader.failure
        if failure is not None:
            end = Ended(failure.reason, failure.message, "vendor", failure.code)
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(failure.as_error() if failure is not None else _never_began(end))
            return
        self._emit(end)

    # -- what comes in ----------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            await self._room()
            for item in self._reader.read_text(await self._packets.get()):
                self._take(item)

    def _take(self, item: Message | AgentAudio | Reply) -> None:
        if isinstance(item, Reply):
            self._say(item.frame)
        elif isinstance(item, Connected):
            named = item.conversation_id or self._conversation_id
            self._conversation_id = named
            self._emit(Connected(named, RATE, RATE, _FORMAT, _FORMAT))
            self._emit(StateChanged(CallState.LIVE))
            if self._begun is not None and not self._begun.done():
                self._begun.set_result(None)
        else:
            # The track has no numbers: what is heard belongs to the answer that was told last.
            if isinstance(item, Interrupted):
                self._gate.cut()
                self._event = max(self._event, (item.event_id or 0) + 1)
            elif isinstance(item, AgentSpeech) and item.event_id is not None:
                self._event = max(self._event, item.event_id)
            self._emit(item)

    async def _listen(self, room: LiveKitRoom) -> None:
        async for pcm in room.frames():
            heard = self._gate.feed(pcm)
            # Live audio does not wait for a session that is behind: what is late is left out.
            if heard and self._space.is_set():
                self._emit(AgentAudio(heard, self._event))

    async def _look(self, room: LiveKitRoom) -> None:
        while True:
            await asyncio.sleep(self._times.look_every)
            quality = await room.figures()
            if quality != Quality():
                self._emit(quality)

    # -- what goes out ----------------------------------------------------------------------------

    def _say(self, frame: dict[str, Any]) -> None:
        if not self.over:
            self._outgoing.put_nowait(json.dumps(frame, ensure_ascii=False))

    async def _send(self, room: LiveKitRoom) -> None:
        """One after the other: the order of what the client says matters."""
        while True:
            text = await self._outgoing.get()
            try:
                await room.send(text)
            except ServiceError as error:
                log.info("a packet was not sent: %s", error.message)

    async def send_audio(self, pcm: bytes) -> None:
        if self._joined is not None and not self.over:
            self._joined.push(pcm)

    async def send_text(self, text: str) -> None:
        self._say(user_message(text))

    async def send_context(self, text: str) -> None:
        self._say(contextual_update(text))

    async def send_activity(self) -> None:
        self._say(user_activity())

    async def send_tool_result(self, tool_id: str, result: str, ok: bool) -> None:
        self._say(client_tool_result(tool_id, result, ok=ok))

    async def approve(self, tool_id: str, approved: bool) -> None:
        self._say(mcp_approval(tool_id, approved))

    async def aftermath(self) -> list[Message]:
        """Cost, latency by turn and the vendor's own word for the end; within seven seconds."""
        return await read_aftermath(self._rest, self._conversation_id) if self._live else []

    async def _close(self, first: bool) -> None:
        room, self._joined = self._joined, None
        await self._stop_tasks()
        if self._begun is not None and not self._begun.done():
            self._begun.cancel()
        if room is not None:
            await room.aclose()


def _never_began(end: Ended) -> ServiceError:
    why = f": {end.detail}" if end.detail else ""
    return ServiceError(
        f"The agent left before the conversation began{why}",
        category=Category.TRANSIENT,
        advice="Try again; if it stays, choose the microphone transport",
        code="vendor_error",
    )
