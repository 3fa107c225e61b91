"""The ports: an ASGI application for each vendor and Twilio, faults on the way out, control requests."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.clock import Clock, SystemClock
from services.errors import ServiceError
from services.model import Provider
from services.simulator import (
    partner_bookings,
    partner_crm,
    partner_gateway_messages,
    partner_hubspot,
    partner_knowledge,
    partner_llm,
    partner_whatsapp,
)
from services.simulator.control import Control
from services.simulator.conversations import Conversations
from services.simulator.elevenlabs import ElevenLabsVendor
from services.simulator.elevenlabs_phone import ElevenLabsPhone
from services.simulator.faults import Fault, FaultBoard
from services.simulator.memory import Memory
from services.simulator.options import LIMITED_SUFFIX, SimulatorOptions
from services.simulator.partners import PARTNERS, Partners
from services.simulator.retell import RetellVendor, failure
from services.simulator.retell_phone import RetellPhone
from services.simulator.sockets import MOST_BYTES, Closed, Socket, SocketHandler
from services.simulator.stats import Counter
from services.simulator.telephone import Telephone
from services.simulator.twilio import TWILIO, TwilioAccount
from services.simulator.wire import Reply, Request, Route, encode

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Vendor = RetellVendor | ElevenLabsVendor | TwilioAccount | Partners

_HTML = b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Wi-Fi portal</h1></body></html>"
_PIECES = 8
_RESTARTS = 1012

logger = logging.getLogger(__name__)


class _Protocol(H11Protocol):
    """Hands the application its connection, so that it can break it off as a failing network does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = functools.partial(self.app, transport=transport)


class _SocketProtocol(WebSocketsSansIOProtocol):
    """The same for WebSockets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app = functools.partial(self.app, transport=transport)


class Simulator:
    """Both vendors and the Twilio account they dial through. Started and stopped in one event loop."""

    def __init__(self, options: SimulatorOptions, clock: Clock | None = None) -> None:
        """Builds all objects and switches the faults on. Raises `UsageError` for a wrong fault."""
        self.options = options
        clock = clock or SystemClock()
        key, limited = options.key, options.key + LIMITED_SUFFIX
        elevenlabs = options.agents // 2
        self.conversations = talks = Conversations(clock)
        self.telephone = line = Telephone(options.seed, clock)
        seed = options.seed
        retell = RetellVendor(options.agents - elevenlabs, seed, key, limited, clock, talks)
        retell.live.gateway.join_ms = options.join_ms
        eleven = ElevenLabsVendor(elevenlabs, seed, key, limited, clock, talks)
        RetellPhone(retell.store, retell.router, retell.calls, line, talks, retell.live.script_of, failure)
        ElevenLabsPhone(eleven.store, eleven.router, talks, line, seed)
        twilio = TwilioAccount(key, limited, line)
        self._vendors: dict[str, Vendor] = {
            Provider.RETELL: retell,
            Provider.ELEVENLABS: eleven,
            TWILIO: twilio,
            PARTNERS: self._partners(key, limited, twilio),
        }
        self._counters = {vendor: Counter() for vendor in self._vendors}
        self._total = Counter()
        self._faults = FaultBoard(options.seed, self._resolve, self._names)
        for spec in options.faults:
            self._faults.add(spec)
        self._control = Control(
            list(self._vendors.values()),
            self._faults,
            self._total,
            self._counters,
            self._resolve,
            talks,
            line,
        )
        self._calls: set[asyncio.Task[None]] = set()
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []
        self._ports: dict[str, int] = {}
        self._stopping = asyncio.Event()

    @property
    def retell_url(self) -> str:
        return self._url(Provider.RETELL)

    @property
    def elevenlabs_url(self) -> str:
        return self._url(Provider.ELEVENLABS)

    @property
    def twilio_url(self) -> str:
        return self._url(TWILIO)

    @property
    def partners_url(self) -> str:
        """Where the partner services are, each below its own path (`…/hubspot`)."""
        return self._url(PARTNERS)

    async def start(self) -> None:
        """Listen on every port. Raises `ServiceError` with code `port_busy`."""
        wanted = {
            Provider.RETELL: self.options.retell_port,
            Provider.ELEVENLABS: self.options.elevenlabs_port,
            TWILIO: self.options.twilio_port,
            PARTNERS: self.options.partners_port,
        }
        try:
            self._memory.recall()
            await self.telephone.start()
            for provider, port in wanted.items():
                listener = _listen(self.options.host, port)
                self._ports[provider] = listener.getsockname()[1]
                await self._serve(provider, listener)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening, end every conversation and what is still being answered.

        Never raises; may be called twice.
        """
        if not self._stopping.is_set():
            self._memory.remember()
        self._stopping.set()
        await self.telephone.stop()
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*(vendor.aclose() for vendor in self._vendors.values()))
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.shutdown([listener]) for server, listener in servers))

    def _partners(self, key: str, limited: str, twilio: TwilioAccount) -> Partners:
        """Every partner service; a new one is added here."""
        partners = Partners(key, limited)
        whatsapp = partner_whatsapp.mount(partners, self.telephone)
        partner_gateway_messages.mount(partners, self.telephone, key)
        partner_llm.mount(partners)
        partner_knowledge.mount(partners)
        partner_bookings.mount(partners, key)
        hubspot = partner_hubspot.mount(partners)
        self._memory = Memory(self.options.memory, hubspot, twilio.messages, whatsapp)
        partner_crm.mount(partners)
        return partners

    async def _serve(self, provider: str, listener: socket.socket) -> None:
        config = uvicorn.Config(
            functools.partial(self._handle, provider),
            http=_Protocol,
            ws=_SocketProtocol,
            ws_max_size=MOST_BYTES,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        self._servers.append((server, listener))

    def _url(self, provider: str) -> str:
        return f"http://{self.options.host}:{self._ports[provider]}"

    def _names(self) -> list[str]:
        return [text for vendor in self._vendors.values() for pair in vendor.names() for text in pair]

    def _resolve(self, target: str) -> list[str]:
        """Ids an id or an agent's name stands for."""
        if any(vendor.has_object(target) for vendor in self._vendors.values()):
            return [target]
        wanted = target.casefold()
        pairs = [pair for vendor in self._vendors.values() for pair in vendor.names()]
        return [agent_id for agent_id, name in pairs if name.casefold() == wanted]

    async def _handle(
        self,
        provider: str,
        scope: Message,
        receive: Receive,
        send: Send,
        *,
        transport: asyncio.Transport,
    ) -> None:
        if scope["type"] == "websocket":
            await self._handle_socket(provider, scope, receive, send, transport)
            return
        request = Request(
            scope["method"],
            scope["path"],
            scope["query_string"],
            dict(scope["headers"]),
            await _body(scope, receive),
        )
        if request.path.startswith("/__"):
            await _send(send, self._control.answer(request))
            return
        vendor = self._vendors[provider]
        named = [request.query.get("agent_id", "")]
        if isinstance(vendor, Partners):
            vendor = vendor.facing(request.path)
            named += vendor.names_at(request.path)
        route, ids = vendor.router.find(request.method, request.path)
        kind, template = (route.kind, f"{request.method} {route.template}") if route else ("other", "other")
        counters = (self._total, self._counters[provider])
        for counter in counters:
            counter.enter(kind, template)
        faults = self._faults.strike(provider, kind, [*ids, *named])
        outcome = "cancelled"
        try:
            outcome = await self._exchange(vendor, request, route, ids, faults, send, transport)
        finally:
            for counter in counters:
                counter.leave(outcome, bool(faults))

    async def _exchange(
        self,
        vendor: Vendor,
        request: Request,
        route: Route | None,
        ids: list[str],
        faults: list[Fault],
        send: Send,
        transport: asyncio.Transport,
    ) -> str:
        """Answer one request; returns its status, or `dropped`, for the statistics."""
        delay = self.options.latency_ms / 1000
        main: Fault | None = None
        for fault in faults:
            if fault.kind == "latency":
                delay += fault.seconds(1000)
            else:
                main = fault
        if delay:
            await self._pause(delay)
        if main is not None and main.kind == "hang":
            await self._stopping.wait()
        if main is not None and (
            main.kind == "hang" or (main.kind == "drop" and main.options.get("at") != "body")
        ):
            transport.abort()
            return "dropped"
        reply = _forced(vendor, main)
        if reply is None and not (route and route.public):
            reply = vendor.refuse(request)
        if reply is None:
            reply = await _called(route, request, ids) if route else vendor.not_found()
            if main is not None and reply.status == 200:
                reply = _bent(main, reply)
        if main is not None and main.kind == "drop":
            await _start(send, reply, len(reply.body) + 64)
            await send(
                {"type": "http.response.body", "body": reply.body[: len(reply.body) // 2], "more_body": True}
            )
            transport.close()
            return "dropped"
        if main is not None and main.kind == "slow":
            await self._trickle(send, reply, main.seconds(3000))
        else:
            await _send(send, reply)
        return str(reply.status)

    async def _handle_socket(
        self, provider: str, scope: Message, receive: Receive, send: Send, transport: asyncio.Transport
    ) -> None:
        """Serve one WebSocket. Faults strike at its opening; only that is counted."""
        vendor = self._vendors[provider]
        connection = Socket(receive, send, transport, scope["subprotocols"])
        found = vendor.sockets.find(scope["path"])
        if found is None:
            with contextlib.suppress(Closed):
                await connection.refuse(vendor.not_found())
            return
        handler, kind, template, ids = found
        request = Request("SOCKET", scope["path"], scope["query_string"], dict(scope["headers"]))
        counters = (self._total, self._counters[provider])
        for counter in counters:
            counter.enter(kind, f"SOCKET {template}")
        faults = self._faults.strike(provider, kind, [*ids, *request.query.values()])
        outcome = "cancelled"
        try:
            outcome = await self._open(vendor, connection, faults)
        finally:
            for counter in counters:
                counter.leave(outcome, bool(faults))
        if outcome != "open":
            return
        call = asyncio.create_task(self._converse(handler, connection, ids, request))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            await call
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        with contextlib.suppress(Closed):
            await connection.close(_RESTARTS if self._stopping.is_set() else 1000)

    async def _open(self, vendor: Vendor, connection: Socket, faults: list[Fault]) -> str:
        """Let the faults strike: `open`, or what became of the connection."""
        delay = self.options.latency_ms / 1000
        delay += sum(fault.seconds(1000) for fault in faults if fault.kind == "latency")
        main = next((fault for fault in faults if fault.kind != "latency"), None)
        if delay:
            await self._pause(delay)
        if main is None:
            return "open"
        if main.kind == "hang":
            await self._stopping.wait()
        reply = _forced(vendor, main)
        if reply is None:
            connection.abort()
            return "dropped"
        with contextlib.suppress(Closed):
            await connection.refuse(reply)
        return str(reply.status)

    async def _converse(
        self, handler: SocketHandler, connection: Socket, ids: list[str], request: Request
    ) -> None:
        try:
            await handler(connection, ids, request.query, request.headers)
        except Closed:
            pass
        except Exception:
            logger.exception("a simulated conversation broke")
            with contextlib.suppress(Closed):
                await connection.close(1011, "internal error of the simulator")

    async def _trickle(self, send: Send, reply: Reply, seconds: float) -> None:
        """The body in pieces, spread over `seconds`."""
        await _start(send, reply, len(reply.body))
        step = -(-len(reply.body) // _PIECES) or 1
        for offset in range(0, len(reply.body), step):
            await self._pause(seconds / _PIECES)
            piece = reply.body[offset : offset + step]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _pause(self, seconds: float) -> None:
        if self._stopping.is_set():
            return
        await asyncio.sleep(seconds)


async def _called(route: Route, request: Request, ids: list[str]) -> Reply:
    """What a handler answers, plain or async."""
    reply = route.handler(request, *ids)
    if inspect.isawaitable(reply):
        reply = await reply
    return cast(Reply, reply)


def _forced(vendor: Vendor, fault: Fault | None) -> Reply | None:
    """The answer of faults that come before the vendor looks at the request."""
    if fault is None:
        return None
    if fault.kind == "revoke":
        return vendor.revoked()
    if fault.kind == "permission":
        return vendor.lacks_permission()
    if fault.kind == "html":
        return Reply(200, _HTML, b"text/html; charset=utf-8")
    if not fault.status:
        return None
    reply = vendor.failure(fault.status)
    if wait := fault.options.get("retry-after"):
        reply.headers = ((b"retry-after", wait.encode()),)
    return reply


def _bent(fault: Fault, reply: Reply) -> Reply:
    """A good answer, made wrong."""
    if fault.kind == "truncate":
        reply.body = reply.body[: max(1, len(reply.body) * 2 // 3)]
    elif fault.kind == "shape":
        reply.body = b'["unexpected"]' if reply.body.startswith(b"{") else b'{"unexpected":true}'
    elif fault.kind == "reorder":
        reply.body = encode(_reordered(json.loads(reply.body)))
    return reply


def _reordered(value: Any) -> Any:
    """The same JSON value in another spelling: keys reversed, whole floats without their fraction."""
    if isinstance(value, dict):
        return {key: _reordered(item) for key, item in reversed(value.items())}
    if isinstance(value, list):
        return [_reordered(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def _body(scope: Message, receive: Receive) -> bytes:
    if scope["method"] == "GET":
        return b""
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _start(send: Send, reply: Reply, length: int) -> None:
    headers = [*reply.headers]
    if reply.status != 204:
        headers += [(b"content-type", reply.content_type), (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})


async def _send(send: Send, reply: Reply) -> None:
    await _start(send, reply, len(reply.body))
    await send({"type": "http.response.body", "body": reply.body})


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `ServiceError` when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it on, answers that go out
    # in two writes (head, body) wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        busy = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = "is in use by another program" if busy else f"cannot be opened on {host}"
        raise ServiceError(
            f"port {port} {reason}",
            advice="choose another port, or 0 to let the system choose one",
            code="port_busy",
        ) from error
    return listener
