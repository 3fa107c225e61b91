"""ElevenLabs' conversation socket: by microphone, or by typing with no audio anywhere.

The protocol has no way to take a conversation up again: a lost connection ends it, and says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from services.calls import elevenlabs_sending as sending
from services.calls.access import VendorAccess
from services.calls.brief_payload import conversation_config
from services.calls.elevenlabs_aftermath import read_aftermath
from services.calls.elevenlabs_failures import TOO_BIG, Failure, from_close, too_big
from services.calls.elevenlabs_fields import Frame
from services.calls.elevenlabs_frames import FrameReader, Reading, Reply
from services.calls.elevenlabs_rest import ElevenLabsRest, websocket_base
from services.calls.messages import Message, Notice, Quality, StateChanged
from services.calls.model import Brief, CallState, Capabilities, EndReason, TransportKind
from services.calls.transport import Transport
from services.clock import Clock, SystemClock
from services.errors import Category, ServiceError
from services.http import failures
from services.http.addresses import is_loopback
from services.model import Provider
from services.providers.hosts import VENDOR_NAMES

log = logging.getLogger(__name__)
# At its lowest level the library would log every frame and the signed address.
logging.getLogger("websockets").setLevel(logging.WARNING)

OPEN_SECONDS: Final = 15.0
"""For the connection, and again for the vendor's first frame."""
CLOSE_SECONDS: Final = 1.5
MOST_FRAME: Final = 16 * 1024 * 1024
"""Bytes of one frame, as in the vendor's own clients; a larger one ends the call unread."""
QUIET_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 30.0
_KEEPALIVE_SECONDS: Final = 20.0
_GRACE_SECONDS: Final = 3.0
"""An error frame is followed by the close; when it is not, we end the call after this."""
_THREAD_BYTES: Final = 128 * 1024
"""A larger frame is parsed in a thread."""
_BEHIND_MS: Final = 1_000
"""Audio that may wait to be sent; beyond it the microphone's frames are dropped."""
_WRITE_LIMIT: Final = 1024 * 1024


class ElevenLabsSocket(Transport):
    """One conversation with an ElevenLabs agent over its WebSocket."""

    def __init__(
        self,
        access: VendorAccess,
        agent_id: str,
        *,
        tools: Sequence[str] = (),
        text_only: bool = False,
        public: bool = False,
        branch: str = "",
        environment: str = "",
        ask_text_only: bool = True,
        quiet_after: float = QUIET_SECONDS,
        give_up_after: float = SILENT_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        """`public` agents are called by their id, others with a signed address.

        `tools`: names of the client tools there are. `ask_text_only=False` for an agent that is text only
        by itself. `quiet_after`, `give_up_after`: seconds without a frame, from a vendor that pings, until
        a notice and until the end.
        """
        super().__init__()
        self.kind = TransportKind.TEXT if text_only else TransportKind.MICROPHONE
        self.capabilities = Capabilities(audio=not text_only, text=True, context=True, approvals=True)
        self._access = access
        self._agent_id = agent_id
        self._text_only = text_only
        self._ask_text_only = text_only and ask_text_only
        self._public = public
        self._branch = branch
        self._environment = environment
        self._quiet_after = quiet_after
        self._give_up_after = give_up_after
        self._clock = clock or SystemClock()
        self._rest = ElevenLabsRest(access)
        self._tools = tuple(tools)
        self._reader = self._new_reader()
        self._ws: ClientConnection | None = None
        self._heard_at = 0.0
        self._listening = False
        self._longest_gap = 0.0
        self._asked = False
        """Something was typed that nothing has answered yet."""
        self._most_behind = 0
        self._dropped = 0

    def _new_reader(self) -> FrameReader:
        return FrameReader(audio=not self._text_only, tools=self._tools)

    # -- opening ----------------------------------------------------------------------------------

    async def _open(self, brief: Brief) -> None:
        self._emit(StateChanged(CallState.CONNECTING))
        first = sending.initiation(conversation_config(brief, text_only=self._ask_text_only))
        if not self._public:
            await self._begin(await self._signed(), first)
            return
        query = {"agent_id": self._agent_id, "branch_id": self._branch, "environment": self._environment}
        given = urlencode({name: value for name, value in query.items() if value})
        try:
            await self._begin(f"{websocket_base(self._access)}/v1/convai/conversation?{given}", first)
        except ServiceError as error:
            if error.category is not Category.AUTHENTICATION:
                raise
            # It was public when its configuration was read, and is not any more.
            await self._hang_up()
            self._reader = self._new_reader()
            await self._begin(await self._signed(), first)

    async def _signed(self) -> str:
        return await self._rest.signed_url(self._agent_id, branch=self._branch, environment=self._environment)

    async def _begin(self, url: str, first: Frame) -> None:
        """Connect, introduce ourselves, and wait until the vendor has named the conversation."""
        self._ws = ws = await self._connect(url)
        waiting: list[Reading] = []
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await ws.send(json.dumps(first, ensure_ascii=False))
                while self._reader.connected is None:
                    waiting += await self._answered(await self._understood(await ws.recv()))
        except ConnectionClosed as closed:
            raise self._why(closed).as_error() from None
        except TimeoutError:
            raise ServiceError(
                f"ElevenLabs accepted the connection but began no conversation within {OPEN_SECONDS:g} s",
                category=Category.TIMEOUT,
                advice="Try again; if it stays, look at the status page of ElevenLabs",
                code="timeout",
            ) from None
        await self._prepare_audio()
        connected = self._reader.connected
        self._emit(connected)
        self._emit(StateChanged(CallState.LIVE))
        for item in waiting:
            if item is not connected and not isinstance(item, Reply):
                self._emit(item)
        self._heard_at = self._clock.monotonic()
        self._own(self._listen(), "reader")
        self._own(self._watch(), "watch")

    async def _connect(self, url: str) -> ClientConnection:
        parts = urlsplit(url)
        peer = failures.Peer(
            VENDOR_NAMES[Provider.ELEVENLABS],
            parts.netloc.rpartition("@")[2],
            "https" if parts.scheme == "wss" else "http",
        )
        context = await asyncio.to_thread(_trusted) if parts.scheme == "wss" else None
        problem: ServiceError
        try:
            return await connect(
                url,
                ssl=context,
                # Proxies of the environment count, except towards this machine.
                proxy=None if is_loopback(parts.hostname or "") else True,
                # Base64 of speech does not shrink, and every frame would wait for the attempt.
                compression=None,
                max_size=MOST_FRAME,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                ping_interval=_KEEPALIVE_SECONDS,
                ping_timeout=_KEEPALIVE_SECONDS,
                write_limit=_WRITE_LIMIT,
                user_agent_header="callboard",
            )
        except InvalidStatus as error:
            answer = error.response
            problem = failures.from_status(
                peer,
                answer.status_code,
                dict(answer.headers.raw_items()),
                _json(bytes(answer.body or b"")),
                self._clock.now(),
            )
        except (WebSocketException, ImportError):
            # ImportError: a SOCKS proxy in the environment, for which nothing is installed.
            problem = ServiceError(
                f"{peer} did not answer as a conversation socket does",
                category=Category.TRANSIENT,
                advice="Check the base URL and the proxy settings: a proxy may not let WebSockets through",
                code="unreachable",
            )
        except (OSError, TimeoutError) as error:
            problem = failures.from_transport(peer, error, OPEN_SECONDS)
        # Raised here: the library's exception holds the signed address.
        raise problem

    async def _prepare_audio(self) -> None:
        heard, spoken = self._reader.output_format, self._reader.input_format
        if heard is None or spoken is None:
            return
        self._most_behind = spoken.frame_bytes(_BEHIND_MS) * 4 // 3
        if "ulaw" in (heard.encoding, spoken.encoding):
            # numpy and its tables, before the first frame waits for them.
            await asyncio.to_thread(lambda: (heard.decode(b"\0"), spoken.encode(b"\0\0")))

    # -- listening --------------------------------------------------------------------------------

    async def _listen(self) -> None:
        ws = self._ws
        assert ws is not None  # noqa: S101  # it was opened before
        try:
            while True:
                self._listening = True
                message = await ws.recv()
                self._listening = False
                self._note_sound()
                for item in await self._answered(await self._understood(message)):
                    if not isinstance(item, Reply):
                        self._asked = self._asked and isinstance(item, Quality)
                        self._emit(item)
                await self._room()
                self._heard_at = self._clock.monotonic()
        except ConnectionClosed as closed:
            self._end_by(self._why(closed))
        finally:
            self._listening = False
            await self._hang_up()

    async def _understood(self, message: str | bytes) -> list[Reading]:
        if len(message) <= _THREAD_BYTES:
            return self._reader.read_text(message)
        return await asyncio.to_thread(self._reader.read_text, message)

    async def _answered(self, found: list[Reading]) -> list[Reading]:
        """Send the replies among what a frame meant."""
        for item in found:
            if isinstance(item, Reply):
                await self._send(item.frame)
        return found

    def _why(self, closed: ConnectionClosed) -> Failure:
        """Why the connection ended: what the vendor announced before, its close frame, or our own doing."""
        sent, got = closed.sent, closed.rcvd
        ours = sent is not None and not closed.rcvd_then_sent
        began = self._reader.connected is not None
        if ours and sent is not None and sent.code == TOO_BIG:
            return too_big()
        if ours and sent is not None and sent.code in (1002, 1007):
            return Failure(
                EndReason.PROTOCOL_ERROR,
                "ElevenLabs sent something that is not the WebSocket protocol",
                "Try again; a proxy in between can do this",
                sent.code,
            )
        if got is None and sent is not None and sent.code == 1011:
            return Failure(
                EndReason.CONNECTION_LOST,
                f"ElevenLabs did not answer for {_KEEPALIVE_SECONDS:g} s; the conversation cannot be resumed",
                "Check the network and begin a new conversation",
            )
        if self._reader.failure is not None:
            return self._reader.failure
        return from_close(got.code if got else None, got.reason if got else "", began=began)

    def _end_by(self, failure: Failure) -> None:
        by = {EndReason.AGENT_ENDED: "agent", EndReason.CONNECTION_LOST: "us"}.get(failure.reason, "vendor")
        if failure.reason is not EndReason.AGENT_ENDED and failure is not self._reader.failure:
            self._emit(Notice(failure.message, "act", failure.advice))
        self._end(failure.reason, failure.message, by=by, code=failure.code)

    # -- watching ---------------------------------------------------------------------------------

    def _note_sound(self) -> None:
        now = self._clock.monotonic()
        if self._reader.pings > 1:
            self._longest_gap = max(self._longest_gap, now - self._heard_at)
        self._heard_at = now

    async def _watch(self) -> None:
        """A vendor that pings and then falls silent: first a notice, then the end.

        One that does not ping may have nothing to say; there the library's own pings find a dead line.
        """
        told = False
        failed_at: float | None = None
        pause = min(1.0, self._quiet_after / 4)
        while True:
            await asyncio.sleep(pause)
            now = self._clock.monotonic()
            failed_at = (failed_at or now) if self._reader.failure is not None else None
            if failed_at is not None and self._reader.failure and now - failed_at > _GRACE_SECONDS:
                self._end_by(self._reader.failure)
                await self._hang_up()
                return
            pings = self._reader.pings > 1
            silent = now - self._heard_at if self._listening and (pings or self._asked) else 0.0
            if pings and silent >= max(self._give_up_after, 3 * self._longest_gap):
                self._end(EndReason.TIMEOUT, f"nothing was heard from ElevenLabs for {silent:.0f} s", by="us")
                await self._hang_up()
                return
            if silent >= max(self._quiet_after, 1.5 * self._longest_gap) and not told:
                told = True
                self._emit(
                    Notice(
                        f"Nothing has been heard from ElevenLabs for {silent:.0f} s",
                        "look",
                        f"The call ends by itself after {self._give_up_after:.0f} s" if pings else "",
                    )
                )
            elif told and silent < self._quiet_after:
                told = False
                self._emit(Notice("ElevenLabs is heard again"))

    # -- sending ----------------------------------------------------------------------------------

    async def send_audio(self, pcm: bytes) -> None:
        """20 ms of the microphone in the announced input rate, encoded as announced."""
        if self._text_only:
            raise self._not_offered("audio")
        spoken = self._reader.input_format
        ws = self._ws
        if ws is None or spoken is None or self.over:
            return
        if ws.transport.get_write_buffer_size() > self._most_behind:
            self._drop()
            return
        await self._send_raw(sending.user_audio(spoken.encode(pcm)))

    def _drop(self) -> None:
        """The line takes less than the microphone gives: old speech is worth less than a prompt answer."""
        self._dropped += 1
        if self._dropped == 1:
            self._emit(
                Notice(
                    "The line is too slow for the microphone: some of what you say is left out",
                    "look",
                    "Check the network",
                )
            )

    async def take_turn(self) -> None:
        if self._text_only:
            await self._access.take()

    async def send_text(self, text: str) -> None:
        self._asked = True
        await self._send(sending.user_message(text))

    async def send_context(self, text: str) -> None:
        await self._send(sending.contextual_update(text))

    async def send_activity(self) -> None:
        await self._send(sending.user_activity())

    async def send_tool_result(self, tool_id: str, result: str, ok: bool) -> None:
        await self._send(sending.client_tool_result(tool_id, result, ok=ok))

    async def approve(self, tool_id: str, approved: bool) -> None:
        await self._send(sending.mcp_approval(tool_id, approved))

    async def send_feedback(self, event_id: int, liked: bool | None) -> None:
        """A judgement of an answer; None takes it back."""
        await self._send(sending.feedback(event_id, liked))

    async def _send(self, frame: Frame) -> None:
        await self._send_raw(json.dumps(frame, ensure_ascii=False))

    async def _send_raw(self, text: str) -> None:
        """Send; on a line that has ended nothing happens, its end is told by the reader."""
        ws = self._ws
        if ws is None or self.over:
            return
        try:
            await ws.send(text)
        except (ConnectionClosed, OSError) as error:
            log.debug("sending to ElevenLabs failed: %s", type(error).__name__)

    # -- ending -----------------------------------------------------------------------------------

    async def _close(self, first: bool) -> None:
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Close the line as the user does; one that does not answer is cut."""
        ws = self._ws
        if ws is None:
            return
        try:
            async with asyncio.timeout(2 * CLOSE_SECONDS):
                await ws.close(1000)
        except TimeoutError:
            ws.transport.abort()

    async def aftermath(self) -> list[Message]:
        """Cost, latency by turn and the vendor's own word for the end; within seven seconds."""
        connected = self._reader.connected
        if connected is None or not connected.conversation_id:
            return []
        return await read_aftermath(self._rest, connected.conversation_id)


def _trusted() -> ssl.SSLContext:
    """The certificates every other request trusts. Takes tens of milliseconds."""
    import httpx

    return httpx.create_ssl_context(trust_env=True)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body[:65536])
    except ValueError:
        return None
