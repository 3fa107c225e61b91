"""A stand-in for the LiveKit server of ElevenLabs' WebRTC conversations: one room, one agent, one client.

    GET /rtc     WebSocket, token as `Authorization: Bearer` or `access_token`; protobuf signalling
    GET /rtc/validate                                                 what a refused client asks next

The client's own connection ("publisher") brings its microphone and its data packets; a second one, offered by
the server ("subscriber"), carries the agent's track and the agent's packets. The frames in them are those of
the conversation socket, without audio. `/rtc/v1` is not served, so that clients use `/rtc`. Proven with
`livekit` 1.2.0. Resuming a lost signal connection is not supported: the conversation ends with it.

aiortc is an optional package. Without it `/rtc` answers 501.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from services.simulator import livekit_wire as protocol
from services.simulator.conversations import Conversations, Transport
from services.simulator.elevenlabs_conversation import ElevenLabsConversation, Wire
from services.simulator.elevenlabs_replies import failure
from services.simulator.sockets import Closed, Socket, SocketRoutes
from services.simulator.webrtc import MISSING, available
from services.simulator.wire import Json, Reply, Request, Router

if TYPE_CHECKING:
    from services.simulator.webrtc_audio import MixTrack

AGENT = "agent-1"
_AGENT_SID, _TRACK_SID, _CLIENT_SID, _MICROPHONE_SID = "PA_agent", "TR_agent", "PA_client", "TR_microphone"
_MOST_PACKET = 64_000
_OPENS_SECONDS = 5.0
_STAYS_SECONDS = 1.0


class Doorman(Protocol):
    """Knows the tokens and opens their conversations: the account's `CallRoutes`."""

    def admitted(self, token: str) -> Json | None: ...

    def open(
        self, agent_id: str, wire: Wire, transport: Transport, conversation_id: str = "", method: str = ""
    ) -> ElevenLabsConversation: ...


class LiveKitServer:
    """Serves the rooms of one account.

    A token opens one conversation (assumed); it may be tried again until that has begun.
    """

    def __init__(self, doorman: Doorman, conversations: Conversations) -> None:
        self._doorman = doorman
        self._conversations = conversations

    def add_routes(self, router: Router, sockets: SocketRoutes) -> None:
        sockets.add("/rtc", self._serve)
        router.add("GET", "/rtc/validate", "call", self._validate, public=True)

    def _claims(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> Json | None:
        given = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        claims = self._doorman.admitted(given or query.get("access_token", ""))
        used = None if claims is None else self._conversations.get(claims["conversation_id"])
        return None if used is not None and used.started_ms is not None else claims

    def _validate(self, request: Request) -> Reply:
        if self._claims(request.headers, request.query) is None:
            return Reply(401, b"invalid token", b"text/plain")
        return Reply(200, b"success", b"text/plain")

    async def _serve(
        self, socket: Socket, ids: list[str], query: dict[str, str], headers: Mapping[bytes, bytes], /
    ) -> None:
        claims = self._claims(headers, query)
        if not await available():
            await socket.refuse(failure(501, "webrtc_missing", MISSING))
        elif claims is None:
            await socket.refuse(Reply(401, b"invalid token", b"text/plain"))
        else:
            room = LiveKitRoom(socket, claims["room"], claims["identity"])
            agent_id, conversation_id = claims["agent_id"], claims["conversation_id"]
            talk = self._doorman.open(agent_id, room, "livekit", conversation_id, "livekit_token")
            await socket.accept()
            await room.hold(talk)


class LiveKitRoom:
    """One room, from the client's joining to its leaving. It is the conversation's `Wire`."""

    carries_audio = False

    def __init__(self, socket: Socket, name: str, identity: str) -> None:
        from services.simulator import webrtc_audio

        self._audio = webrtc_audio
        self._socket, self._name, self._identity = socket, name, identity
        self._publisher = webrtc_audio.connection()
        self._subscriber = webrtc_audio.connection()
        self.track: MixTrack = webrtc_audio.MixTrack()
        self._channel = self._subscriber.createDataChannel("_reliable")
        self._subscriber.createDataChannel("_lossy", ordered=False, maxRetransmits=0)
        self._opened = asyncio.Event()
        self._packets: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._talk: ElevenLabsConversation | None = None
        self._offered = False
        self._leaving = asyncio.Event()
        self._code = 1006

    # The conversation's wire

    async def send(self, text: str) -> None:
        """A frame as a data packet. One that no packet can hold is not sent."""
        async with asyncio.timeout(_OPENS_SECONDS):
            await self._opened.wait()
        data = text.encode()
        if self._channel.readyState != "open":
            raise Closed(1006)
        if len(data) > _MOST_PACKET:
            return
        user = {"participant_sid": _AGENT_SID, "participant_identity": AGENT, "payload": data}
        packet = {"user": user, "participant_identity": AGENT, "participant_sid": _AGENT_SID}
        self._channel.send(protocol.encode("DataPacket", packet))

    async def play(self, pcm: bytes, rate: int) -> None:
        from services.simulator import speech

        self.track.put("agent", speech.resample(pcm, rate, self._audio.RATE))

    async def hush(self) -> None:
        self.track.drop("agent")

    async def close(self, code: int, reason: str) -> None:
        """The agent leaves the room; who stays is sent out after a while."""
        await self._sent()
        gone = {**self._agent(), "state": protocol.DISCONNECTED, "tracks": []}
        with contextlib.suppress(Closed):
            await self._signal(update={"participants": [gone]})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STAYS_SECONDS):
                    await self._leaving.wait()
            if not self._leaving.is_set():
                await self._signal(leave={"reason": protocol.ROOM_CLOSED, "action": 0})
        await self._socket.close(1000)

    def abort(self) -> None:
        self._socket.abort()

    # The room

    async def hold(self, talk: ElevenLabsConversation) -> None:
        """Until the client has left or the agent has ended the conversation."""
        self._talk = talk
        self._wire_connections()
        try:
            await self._join()
            talk.start()
            self._tasks += [
                asyncio.create_task(self._feed(talk)),
                asyncio.create_task(self._show_speaking()),
                asyncio.create_task(self._end_with(talk)),
            ]
            while not self._leaving.is_set():
                await self._signalled(protocol.decode("SignalRequest", await self._socket.receive_bytes()))
        except ValueError:
            await self._socket.close(1003, "malformed signalling")
        finally:
            self._leaving.set()
            await talk.aclose(self._code)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.track.stop()
            await asyncio.gather(
                self._audio.hang_up(self._publisher),
                self._audio.hang_up(self._subscriber),
                return_exceptions=True,
            )

    async def _join(self) -> None:
        granted = {"can_subscribe": True, "can_publish": True, "can_publish_data": True}
        client = {
            "sid": _CLIENT_SID, "identity": self._identity, "state": protocol.JOINED, "permission": granted,
        }  # fmt: skip
        await self._signal(
            join={
                "room": {"sid": "RM_simulated", "name": self._name, "num_participants": 2},
                "participant": client,
                "other_participants": [self._agent()],
                "server_version": "1.9.0",
                "server_info": {"version": "1.9.0", "protocol": 15},
                "subscriber_primary": False,
                "ping_interval": 10,
                "ping_timeout": 20,
            }
        )

    def _agent(self) -> Json:
        track = {
            "sid": _TRACK_SID, "type": protocol.AUDIO, "name": "agent_audio", "source": protocol.MICROPHONE,
            "mime_type": "audio/opus",
        }  # fmt: skip
        return {
            "sid": _AGENT_SID, "identity": AGENT, "name": "agent", "state": protocol.ACTIVE,
            "kind": protocol.AGENT_KIND, "is_publisher": True, "tracks": [track],
        }  # fmt: skip

    def _wire_connections(self) -> None:
        self._channel.on("open", self._opened.set)

        @self._publisher.on("datachannel")
        def _(channel: Any) -> None:
            if channel.label == "_reliable":
                channel.on("message", self._packet)

        @self._publisher.on("track")
        def _(track: Any) -> None:
            self._tasks.append(asyncio.create_task(self._hear(track)))

    async def _signal(self, **message: Any) -> None:
        await self._socket.send_bytes(protocol.encode("SignalResponse", message))

    async def _signalled(self, request: Json) -> None:
        """One message of the client. Raises ValueError when its contents are none."""
        if "offer" in request:
            sdp = await self._audio.answer(self._publisher, str(request["offer"].get("sdp")))
            await self._signal(answer={"type": "answer", "sdp": sdp, "id": request["offer"].get("id", 0)})
            await self._offer()
        elif "answer" in request:
            await self._audio.take_answer(self._subscriber, str(request["answer"].get("sdp")))
        elif "trickle" in request:
            await self._candidate(request["trickle"])
        elif "add_track" in request:
            asked = request["add_track"]
            track = {
                "sid": _MICROPHONE_SID, "type": asked.get("type", 0), "name": asked.get("name", ""),
                "source": asked.get("source", 0),
            }  # fmt: skip
            await self._signal(track_published={"cid": asked.get("cid", ""), "track": track})
        elif "ping" in request:
            await self._signal(pong=_now())
        elif "ping_req" in request:
            sent = request["ping_req"].get("timestamp", 0)
            await self._signal(pong_resp={"last_ping_timestamp": sent, "timestamp": _now()})
        elif "leave" in request:
            self._code = 1000
            self._leaving.set()

    async def _offer(self) -> None:
        """The agent's track and channels; once."""
        if self._offered:
            return
        self._offered = True
        sender = self._subscriber.addTrack(self.track)
        # Clients find the announced track by these two; aiortc has no public way to choose them.
        sender._stream_id = f"{_AGENT_SID}|agent"
        sender._track_id = _TRACK_SID
        await self._subscriber.setLocalDescription(await self._subscriber.createOffer())
        await self._signal(offer={"type": "offer", "sdp": self._subscriber.localDescription.sdp})

    async def _candidate(self, trickle: Json) -> None:
        candidate = json.loads(trickle.get("candidateInit") or "{}")
        to_subscriber = trickle.get("target") == protocol.SUBSCRIBER
        peer = self._subscriber if to_subscriber else self._publisher
        if isinstance(candidate, dict):
            await self._audio.add_candidate(peer, candidate)

    # What comes in

    def _packet(self, message: bytes | str) -> None:
        data = message.encode() if isinstance(message, str) else message
        with contextlib.suppress(ValueError):
            user = protocol.decode("DataPacket", data).get("user") or {}
            if not user.get("topic"):
                self._packets.put_nowait(user.get("payload", b"").decode("utf-8", "replace"))

    async def _feed(self, talk: ElevenLabsConversation) -> None:
        while True:
            await talk.feed_text(await self._packets.get())

    async def _hear(self, track: Any) -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        ear = asyncio.create_task(self._audio.listen(track, heard.put_nowait))
        try:
            while self._talk is not None:
                await self._talk.feed_audio(await heard.get())
        finally:
            ear.cancel()
            await asyncio.gather(ear, return_exceptions=True)

    async def _show_speaking(self) -> None:
        """Tell who speaks, as the vendor's server does when it changes."""
        speaking = False
        with contextlib.suppress(Closed):
            while True:
                await asyncio.sleep(0.1)
                if (self.track.waiting_ms("agent") > 0) != speaking:
                    speaking = not speaking
                    await self._signal(
                        speakers_changed={"speakers": [{"sid": _AGENT_SID, "active": speaking}]}
                    )

    async def _end_with(self, talk: ElevenLabsConversation) -> None:
        """The conversation is over: its wire was closed or aborted."""
        await talk.wait()
        self._leaving.set()
        await self._socket.close(1000)

    async def _sent(self) -> None:
        """aiortc's close drops what was not sent: give the last packet a moment."""
        for _ in range(50):
            if not self._channel.bufferedAmount:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


def _now() -> int:
    return time.time_ns() // 1_000_000
