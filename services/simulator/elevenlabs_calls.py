"""Joining a simulated ElevenLabs agent, and what is left of a conversation afterwards.

    SOCKET /v1/convai/conversation                    ?agent_id=… for public agents, or a signed URL
    GET    /v1/convai/conversation/get-signed-url     also as get_signed_url
    GET    /v1/convai/conversation/token              for LiveKit; public agents need no key
    GET    /v1/convai/conversations[/{id}[/audio]]    DELETE …/{id}

A signed URL opens conversations with its one agent for 15 minutes. Assumed: whoever may not talk is let in
and closed at once with 3000 and a sentence, and an unknown agent as well.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from services.clock import Clock
from services.model import Provider
from services.simulator import elevenlabs_history as history
from services.simulator import words
from services.simulator.conversations import Conversation, Conversations, Transport
from services.simulator.elevenlabs_conversation import ElevenLabsConversation, Wire
from services.simulator.elevenlabs_replies import failure, invalid, missing, page
from services.simulator.elevenlabs_store import ElevenLabsStore, StoredAgent
from services.simulator.elevenlabs_terms import client_tools, language, requires_auth
from services.simulator.sockets import Closed, Socket, SocketRoutes
from services.simulator.wire import Document, Json, Reply, Request, Router, answer, encode

SIGNED_FOR_MS: Final = 15 * 60_000
_JOIN: Final = "/v1/convai/conversation"
_LIST: Final = "/v1/convai/conversations"
_NO_ACCESS: Final = 3000


class SocketWire:
    """A WebSocket as the wire of a conversation."""

    carries_audio = True

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        await self._socket.send_text(text)

    async def play(self, pcm: bytes, rate: int) -> None:
        """Nothing: the frames carry it."""

    async def hush(self) -> None:
        """Nothing: the client drops what it has not played."""

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code, reason)

    def abort(self) -> None:
        self._socket.abort()


class CallRoutes:
    """Adds its routes; `open` begins a conversation on any wire."""

    def __init__(
        self,
        store: ElevenLabsStore,
        router: Router,
        sockets: SocketRoutes,
        conversations: Conversations,
        key: bytes,
        seed: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._conversations = conversations
        self._key = key
        self._clock = clock
        self._seed = seed
        self._rng = random.Random(f"{seed}/elevenlabs/conversations")
        self._secret = hashlib.sha256(f"{seed}/elevenlabs/signature".encode()).digest()
        sockets.add(_JOIN, self._socket)
        router.add("GET", f"{_JOIN}/get-signed-url", "call", self._signed_url)
        router.add("GET", f"{_JOIN}/get_signed_url", "call", self._signed_url)
        router.add("GET", f"{_JOIN}/token", "call", self._token, public=True)
        router.add("GET", _LIST, "list", self._list)
        router.add("GET", f"{_LIST}/*", "detail", self._get)
        router.add("DELETE", f"{_LIST}/*", "write", self._delete)
        router.add("GET", f"{_LIST}/*/audio", "detail", self._audio)

    # For every wire.

    def new_id(self) -> str:
        return words.base32_id(self._rng, "conv_")

    def open(
        self,
        agent_id: str,
        wire: Wire,
        transport: Transport,
        conversation_id: str = "",
        method: str = "public",
    ) -> ElevenLabsConversation:
        """A conversation with an existing agent; start it, feed it, and `aclose` it.

        `method` is the specification's `AuthorizationMethod`, e.g. `livekit_token`. Raises KeyError for an
        agent that does not exist.
        """
        agent = self._store.agents[agent_id]
        shown = self._store.render(agent).data
        name = str(agent.content.get("name") or "")
        tools = client_tools(shown)
        script, chosen = self._conversations.take_script(agent_id, name, language(shown), tools)
        if not chosen:  # the agent's own first message, or none
            script = replace(script, greeting=None)
        record = self._conversations.create(
            conversation_id or self.new_id(), Provider.ELEVENLABS, agent_id, name, transport
        )
        record.details |= {
            "authorization": method,
            "language": language(shown),
            "branch_id": shown["branch_id"],
            "version_id": shown["version_id"],
        }
        agent.last_call = self._store.now()
        return ElevenLabsConversation(shown, record, script, wire, seed=self._seed)

    def admitted(self, token: str) -> Json | None:
        """What a LiveKit token was given for: conversation_id, agent_id, room, identity. None: invalid."""
        head, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature, _base64(self._sign(head))):
            return None
        claims = json.loads(_unbase64(head.partition(".")[2]))
        if claims.get("exp", 0) * 1000 <= self._clock.now():
            return None
        return {name: claims[name] for name in ("conversation_id", "agent_id", "room", "identity")}

    # Joining

    async def _socket(
        self, socket: Socket, ids: list[str], query: dict[str, str], headers: Mapping[bytes, bytes]
    ) -> None:
        await socket.accept("convai" if "convai" in socket.subprotocols else "")
        agent_id = query.get("agent_id", "")
        agent = self._store.agents.get(agent_id)
        if agent is None:
            await socket.close(_NO_ACCESS, "The AI agent you are trying to reach does not exist.")
            return
        conversation_id, method = "", "public"
        if "conversation_signature" in query:
            found = self._verified(agent_id, query["conversation_signature"])
            if found is None:
                await socket.close(_NO_ACCESS, "The signed URL is invalid or has expired.")
                return
            conversation_id, method = found, "signed_url"
        elif headers.get(b"xi-api-key") == self._key:
            method = "authorization_header"
        elif requires_auth(self._store.render(agent).data):
            await socket.close(_NO_ACCESS, "This agent requires authorization: use a signed URL.")
            return
        talk = self.open(agent_id, SocketWire(socket), "socket", conversation_id, method)
        talk.start()
        try:
            while True:
                await talk.feed_text(await socket.receive_text())
        except Closed as closed:
            await talk.aclose(closed.code, closed.reason)
        finally:
            await talk.aclose(1012, "the simulator stops")

    def _signed_url(self, request: Request) -> Reply:
        agent = self._named(request)
        if isinstance(agent, Reply):
            return agent
        conversation_id = self.new_id() if request.query.get("include_conversation_id") == "true" else ""
        until = self._clock.now() + SIGNED_FOR_MS
        signature = f"cvtkn_{until}.{conversation_id}.{self._signature(agent.id, until, conversation_id)}"
        query = {"agent_id": agent.id, "conversation_signature": signature}
        if conversation_id:
            query["conversation_id"] = conversation_id
        host = request.headers.get(b"host", b"127.0.0.1").decode("latin-1")
        return answer({"signed_url": f"ws://{host}{_JOIN}?{urlencode(query)}"})

    def _token(self, request: Request) -> Reply:
        agent = self._named(request)
        if isinstance(agent, Reply):
            return agent
        if request.headers.get(b"xi-api-key") != self._key and requires_auth(self._store.render(agent).data):
            message = "This agent requires authorization: an API key is needed."
            return failure(401, "needs_authorization", message)
        conversation_id = self.new_id()
        room = f"room_{agent.id}_{conversation_id}"
        identity = request.query.get("participant_name") or f"user_{conversation_id.removeprefix('conv_')}"
        claims = {
            "iss": "simulator",
            "sub": identity,
            "exp": (self._clock.now() + SIGNED_FOR_MS) // 1000,
            "video": {"room": room, "roomJoin": True, "canPublish": True, "canSubscribe": True},
            "conversation_id": conversation_id,
            "agent_id": agent.id,
            "room": room,
            "identity": identity,
        }
        head = f"{_base64(encode({'alg': 'HS256', 'typ': 'JWT'}))}.{_base64(encode(claims))}"
        token = f"{head}.{_base64(self._sign(head))}"
        return answer({"token": token, "conversation_id": conversation_id})

    def _named(self, request: Request) -> StoredAgent | Reply:
        agent_id = request.query.get("agent_id")
        if not agent_id:
            return invalid("missing", "Field required", "query", "agent_id")
        return self._store.agents.get(agent_id) or missing("Agent", agent_id)

    def _verified(self, agent_id: str, given: str) -> str | None:
        """The conversation id a signature was made with (may be empty); None when it does not do."""
        until, _, rest = given.removeprefix("cvtkn_").partition(".")
        conversation_id, _, signature = rest.partition(".")
        if not until.isdecimal() or int(until) <= self._clock.now():
            return None
        right = self._signature(agent_id, int(until), conversation_id)
        return conversation_id if hmac.compare_digest(signature, right) else None

    def _signature(self, agent_id: str, until: int, conversation_id: str) -> str:
        return self._sign(f"{agent_id}/{until}/{conversation_id}").hex()

    def _sign(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode(), "sha256")

    # Afterwards

    def _list(self, request: Request) -> Reply:
        query = request.query
        after, before = (query.get(f"call_start_{side}_unix", "") for side in ("after", "before"))
        rows = []
        for seq, talk in enumerate(self._conversations.of(Provider.ELEVENLABS)):
            item = history.summary(talk)
            started = item["start_time_unix_secs"]
            if query.get("agent_id") not in (None, talk.agent_id):
                continue
            if (after.isdecimal() and started < int(after)) or (before.isdecimal() and started > int(before)):
                continue
            if item["status"] in request.query_all("exclude_statuses"):
                continue
            if query.get("summary_mode") != "include":
                item["transcript_summary"] = None
            rows.append(([started, seq], Document(item)))
        return page(request, b"conversations", rows)

    def _get(self, _: Request, conversation_id: str) -> Reply:
        talk = self._talk(conversation_id)
        return answer(history.detail(talk)) if talk else missing("Conversation", conversation_id)

    def _delete(self, _: Request, conversation_id: str) -> Reply:
        if self._talk(conversation_id) is None:
            return missing("Conversation", conversation_id)
        self._conversations.remove(conversation_id)
        return answer({})

    async def _audio(self, _: Request, conversation_id: str) -> Reply:
        talk = self._talk(conversation_id)
        if talk is None:
            return missing("Conversation", conversation_id)
        if talk.ended_ms is None or not (talk.heard_audio or talk.spoken_audio):
            return failure(404, "missing_conversation_audio", "The conversation has no audio (yet).")
        body, content_type = await asyncio.to_thread(history.recording, talk)
        return Reply(200, body, content_type)

    def _talk(self, conversation_id: str) -> Conversation | None:
        talk = self._conversations.get(conversation_id)
        return talk if talk is not None and talk.provider is Provider.ELEVENLABS else None


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
