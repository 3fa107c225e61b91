"""Retell's WebRTC gateway: how a web call is joined, listened to, taken over and left.

    POST   /webrtc-proxy/{call}/v1/webrtc/sessions          {"identity", "sdp"} → {"session_id", "sdp"}
    PATCH  /webrtc-proxy/{call}/v1/webrtc/sessions/{id}     {"candidate": {…}} or application/sdp, a new offer
    DELETE /webrtc-proxy/{call}/v1/webrtc/sessions/{id}     hang up

Every request carries the access token of its participant. `client` is the caller; other identities are those
that `listen-live-call` gave out, and hear the mix of the line. Shapes: the vendor's browser SDK 3. Assumed:
201 for a new session, 401 for a wrong token, 403 for another identity, 409 for a call that is over; a second
session of the caller replaces the first.

aiortc is an optional package. Without it the routes answer 501.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.simulator.conversation import Script
from services.simulator.conversations import Conversation
from services.simulator.retell_calls import RetellCall, RetellCalls
from services.simulator.retell_talk import ENDED, RetellTalk
from services.simulator.webrtc import MISSING, available
from services.simulator.wire import Json, Reply, Request, Router, answer

if TYPE_CHECKING:
    from services.simulator.webrtc_audio import MixTrack

CLIENT = "client"
JOIN_MS = 30_000
NOT_JOINED = "error_user_not_joined"
_SESSIONS = "/webrtc-proxy/*/v1/webrtc/sessions"
_LIVE_KEEP_MS = 400
_GONE = ("closed", "failed")

Failure = Callable[..., Reply]


@dataclass(eq=False, slots=True)
class Session:
    """One participant's connection."""

    id: str
    identity: str
    peer: Any
    track: MixTrack
    control: Any = None
    ears: list[asyncio.Task[None]] = field(default_factory=list)

    def status(self, state: str) -> None:
        self.raw(json.dumps({"type": "status", "state": state}))

    def raw(self, text: str) -> None:
        """A message on the control channel, when it is open."""
        if self.control is not None and self.control.readyState == "open":
            self.control.send(text)

    async def close(self, state: str = "") -> None:
        """Tell the participant, and hang up."""
        from services.simulator import webrtc_audio

        if state:
            self.status(state)
            await self._flush()
        for ear in self.ears:
            ear.cancel()
        await asyncio.gather(*self.ears, return_exceptions=True)
        await webrtc_audio.hang_up(self.peer)
        self.track.stop()

    async def _flush(self) -> None:
        """aiortc's close drops what was not sent: give the last message a moment."""
        for _ in range(20):
            await asyncio.sleep(0.01)
            if self.control is None or not self.control.bufferedAmount:
                break
        await asyncio.sleep(0.05)


class WebCall:
    """The line of one call: its participants, who hears whom, and the agent as one of them (its `Voice`)."""

    def __init__(self, call: RetellCall, script: Script, log: Conversation) -> None:
        self.call, self.script, self.log = call, script, log
        self.sessions: dict[str, Session] = {}
        self.talk: RetellTalk | None = None
        self.operator = ""
        """Who took the call over."""

    @property
    def client(self) -> Session | None:
        return next((found for found in self.sessions.values() if found.identity == CLIENT), None)

    def to_listeners(self, source: str, pcm: bytes) -> None:
        for session in self.sessions.values():
            if session.identity not in (CLIENT, source):
                session.track.put(source, pcm, keep_ms=_LIVE_KEEP_MS)

    def from_listener(self, identity: str, pcm: bytes) -> None:
        """Only who took the call over is heard by the caller."""
        client = self.client
        if identity == self.operator and client is not None:
            client.track.put(identity, pcm, keep_ms=_LIVE_KEEP_MS)

    # The agent's voice

    async def say(self, text: str, voice: str) -> float:
        from services.simulator import speech
        from services.simulator.webrtc_audio import RATE

        pcm = await speech.speak(text, RATE, voice=voice)
        if self.client is not None:
            self.client.track.put("agent", pcm)
            self.log.agent_audio_ms += len(pcm) * 500 / RATE
        return len(pcm) * 500 / RATE

    async def said(self) -> None:
        if self.client is not None:
            await self.client.track.emptied("agent")

    def cut(self) -> float:
        return self.client.track.drop("agent") if self.client is not None else 0.0

    def stall(self, ms: int) -> None:
        if self.client is not None:
            self.client.track.stall(ms)

    def raw(self, text: str) -> None:
        if self.client is not None:
            self.client.raw(text)


class RetellGateway:
    """All web calls that are registered or live. `close` ends them."""

    def __init__(
        self,
        calls: RetellCalls,
        fail: Failure,
        seed: int = 0,
        join_ms: int = JOIN_MS,
    ) -> None:
        self.join_ms = join_ms
        """How long a registered call waits for its user."""
        self._calls = calls
        self._fail = fail
        self._rng = random.Random(f"{seed}/retell/gateway")
        self._lines: dict[str, WebCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, asyncio.TimerHandle] = {}

    def add_routes(self, router: Router) -> None:
        router.add("POST", _SESSIONS, "call", self.create, public=True)
        router.add("PATCH", f"{_SESSIONS}/*", "call", self.change, public=True)
        router.add("DELETE", f"{_SESSIONS}/*", "call", self.delete, public=True)

    def expect(self, call: RetellCall, script: Script, log: Conversation) -> None:
        """The call was created: it plays `script`, or ends by itself when nobody joins it."""
        self._lines[call.id] = WebCall(call, script, log)
        loop = asyncio.get_running_loop()
        self._waiting[call.id] = loop.call_later(self.join_ms / 1000, self.cancel, call, NOT_JOINED)

    def line(self, call_id: str) -> WebCall | None:
        return self._lines.get(call_id)

    async def close(self) -> None:
        """The simulator stops: every session is closed, every task awaited."""
        for timer in self._waiting.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        lines, self._lines = list(self._lines.values()), {}
        sessions = [session for line in lines for session in line.sessions.values()]
        await asyncio.gather(*(session.close() for session in sessions), return_exceptions=True)

    # Requests

    async def create(self, request: Request, call_id: str) -> Reply:
        body = request.json_object()
        line = self._lines.get(call_id)
        refusal = self._refusal(request, call_id, body)
        if refusal is not None or line is None or body is None:
            return refusal or self._fail(404)
        if not await available():
            return self._fail(501, MISSING)
        if line.call.over and line.operator != body["identity"]:
            return self._fail(409, "The call is over.")
        return await self._join(line, str(body["identity"]), str(body["sdp"]))

    async def change(self, request: Request, call_id: str, session_id: str) -> Reply:
        line = self._lines.get(call_id)
        session = line.sessions.get(session_id) if line is not None else None
        refusal = self._refusal(request, call_id, None, session)
        if refusal is not None or session is None or line is None:
            return refusal or self._fail(404)
        from services.simulator import webrtc_audio

        try:
            if request.headers.get(b"content-type", b"").startswith(b"application/sdp"):
                sdp = await webrtc_audio.answer(session.peer, request.body.decode("utf-8", "replace"))
                return Reply(200, sdp.encode(), b"application/sdp")
            body = request.json_object()
            candidate = body.get("candidate") if body is not None else None
            if not isinstance(candidate, dict):
                return self._fail(400)
            await webrtc_audio.add_candidate(session.peer, candidate)
        except ValueError as error:
            return self._fail(400, str(error))
        return Reply(204)

    async def delete(self, request: Request, call_id: str, session_id: str) -> Reply:
        line = self._lines.get(call_id)
        session = line.sessions.get(session_id) if line is not None else None
        refusal = self._refusal(request, call_id, None, session)
        if refusal is not None or session is None or line is None:
            return refusal or self._fail(404)
        self._own(self._left(line, session))
        return Reply(204)

    def _refusal(
        self, request: Request, call_id: str, body: Json | None, session: Session | None = None
    ) -> Reply | None:
        """The token decides which identity the request may speak for."""
        line = self._lines.get(call_id)
        if line is None:
            known = self._calls.get(call_id) is not None
            return self._fail(409, "The call is over.") if known else self._fail(404)
        call = line.call
        given = request.headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        owners = {call.access_token: CLIENT, **{token: who for who, token in call.listeners.items()}}
        identity = owners.get(given) if given else None
        if identity is None:
            return self._fail(401, "The access token is missing or does not belong to this call.")
        if session is not None:
            return None if session.identity == identity else self._fail(403)
        if request.method != "POST":
            return self._fail(404, "There is no such session.")
        if body is None or not isinstance(body.get("sdp"), str):
            return self._fail(400)
        if body.get("identity") != identity:
            return self._fail(403, "The identity does not belong to the access token.")
        return None

    # Sessions

    async def _join(self, line: WebCall, identity: str, offer: str) -> Reply:
        from services.simulator import webrtc_audio

        tap = (lambda pcm: line.to_listeners("agent", pcm)) if identity == CLIENT else None
        track = webrtc_audio.MixTrack("agent", tap)
        peer = webrtc_audio.connection()
        session = Session(f"sess_{self._rng.getrandbits(96):024x}", identity, peer, track)
        self._wire(line, session)
        peer.addTrack(track)
        try:
            sdp = await webrtc_audio.answer(peer, offer)
        except ValueError as error:
            await session.close()
            return self._fail(400, str(error))
        before = line.client if identity == CLIENT else None
        if before is not None:
            del line.sessions[before.id]
            self._own(before.close("replaced"))
        line.sessions[session.id] = session
        return answer({"session_id": session.id, "sdp": sdp}, 201)

    def _wire(self, line: WebCall, session: Session) -> None:
        """Connect a participant's events. The caller's connection begins the conversation."""
        peer = session.peer
        hears = self._ear(line) if session.identity == CLIENT else None

        def pass_on(pcm: bytes) -> None:
            line.from_listener(session.identity, pcm)

        @peer.on("track")  # type: ignore[untyped-decorator]
        def _(track: Any) -> None:
            from services.simulator import webrtc_audio

            session.ears.append(asyncio.create_task(webrtc_audio.listen(track, hears or pass_on)))

        @peer.on("datachannel")  # type: ignore[untyped-decorator]
        def _(channel: Any) -> None:
            if channel.label == "control":
                session.control = channel
                session.status("open")

        @peer.on("connectionstatechange")  # type: ignore[untyped-decorator]
        def _() -> None:
            if session.id not in line.sessions:
                return
            if peer.connectionState in _GONE:
                self._own(self._left(line, session))
            elif peer.connectionState == "connected" and session.identity == CLIENT and line.talk is None:
                self._begin(line)

    def _ear(self, line: WebCall) -> Callable[[bytes], None]:
        """What is done with the caller's audio: listeners hear it, the agent hears turns in it."""
        from services.simulator.speech import SpeechStarted, TurnDetector
        from services.simulator.webrtc_audio import RATE

        detector = TurnDetector(RATE, line.script.silence_ms)

        def hears(pcm: bytes) -> None:
            line.to_listeners("user", pcm)
            line.log.audio_ms += len(pcm) * 500 / RATE
            if line.talk is None:
                return
            for event in detector.feed(pcm):
                if isinstance(event, SpeechStarted):
                    line.talk.speech_started()
                else:
                    line.talk.speech_ended(event.duration_ms)

        return hears

    def _begin(self, line: WebCall) -> None:
        timer = self._waiting.pop(line.call.id, None)
        if timer is None:
            return  # too late: the call has ended
        timer.cancel()
        line.talk = line.call.conductor = RetellTalk(
            self._calls, line.call, line.script, line, line.log, self._rng.getrandbits(32)
        )
        self._own(self._converse(line, line.talk))

    async def _converse(self, line: WebCall, talk: RetellTalk) -> None:
        reason = await talk.run()
        if reason != "call_take_over":
            await self._hang_up(line, "" if reason == ENDED["crash"] else "ended")

    async def _hang_up(self, line: WebCall, state: str = "ended") -> None:
        self._lines.pop(line.call.id, None)
        sessions = list(line.sessions.values())
        line.sessions.clear()
        await asyncio.gather(*(session.close(state) for session in sessions))

    async def _left(self, line: WebCall, session: Session) -> None:
        """A participant hung up, or the connection broke."""
        if line.sessions.pop(session.id, None) is None:
            return
        await session.close()
        if session.identity == CLIENT and line.call.live and line.call.conductor is not None:
            line.call.conductor.stop("user_hangup")
        elif line.operator and session.identity in (CLIENT, line.operator):
            await self._hang_up(line)

    def cancel(self, call: RetellCall, reason: str) -> None:
        """End a call that has not begun."""
        timer = self._waiting.pop(call.id, None)
        if timer is not None:
            timer.cancel()
        self._calls.end(call, reason)
        line = self._lines.pop(call.id, None)
        if line is not None:
            line.log.finish(1000, reason, failed=reason == NOT_JOINED)
            self._own(self._hang_up(line))

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
