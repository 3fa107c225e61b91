"""Retell's requests around live calls. Paths and shapes: SDK 6.2.13; the gateway: browser SDK 3.

Times in these documents are epoch milliseconds. Whatever acts on a call is sent once, never repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from services import __product__
from services.calls.access import VendorAccess
from services.calls.messages import Cost, Message, VendorLatency
from services.clock import Clock, SystemClock
from services.errors import Category, ServiceError
from services.http import failures
from services.http.client import Call, Http, HttpOptions, segment
from services.http.failures import CONNECT_TIMEOUT, Peer
from services.http.wire import parse
from services.providers.hosts import VENDOR_NAMES
from services.security import Secret

T = TypeVar("T")

TIMEOUT: Final = 15.0
CLIENT: Final = "client"
"""The identity of who makes a web call; listeners get theirs from `listen`."""
_STAGES: Final = ("e2e", "asr", "llm", "tts", "s2s", "knowledge_base", "llm_websocket_network_rtt")
_FIGURES_AFTER: Final = (0.3, 0.7, 1.0, 1.5, 2.0)
"""Seconds between the looks for a call's figures: the vendor fills them in after the end."""


@dataclass(frozen=True, slots=True)
class WebCall:
    """A web call that waits for its caller: to be joined before `expires_at`, at most 30 s from now."""

    call_id: str
    access_token: str = field(repr=False)
    ice_servers: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class Listening:
    """A seat in a running call. `url` and `room_name` matter for `livekit`, `ice_servers` for `gateway`."""

    participant_id: str
    access_token: str = field(repr=False)
    transport: str = "livekit"
    room_name: str = ""
    url: str = ""
    ice_servers: tuple[dict[str, Any], ...] = field(default=(), repr=False)


class RetellLive:
    """Requests with the account's key. Every method raises `ServiceError` only; `aclose` ends them."""

    def __init__(
        self,
        access: VendorAccess,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._http = Http(
            HttpOptions(
                vendor=VENDOR_NAMES[access.provider],
                base_url=access.base_url,
                key=Secret(access.key.strip()),
                clock=clock or SystemClock(),
                timeout=TIMEOUT,
                user_agent=__product__,
                sleep=sleep,
                policy=access.policy,
            )
        )

    async def create_web_call(
        self,
        agent_id: str,
        *,
        override: Mapping[str, object] | None = None,
        variables: Mapping[str, str] | None = None,
        version: int | str | None = None,
    ) -> WebCall:
        """`POST /v3/create-web-call`. `override` is `{agent?, retell_llm? | conversation_flow?}`."""
        body: dict[str, object] = {"agent_id": agent_id}
        if version is not None:
            body["agent_version"] = version
        if override:
            body["agent_override"] = dict(override)
        if variables:
            body["retell_llm_dynamic_variables"] = dict(variables)
        data = await self._once("POST", "/v3/create-web-call", body, "call_id", "access_token")
        if data.get("transport", "gateway") != "gateway":
            raise ServiceError(
                "Retell wants this call over another transport than its gateway",
                advice="Update the program, or choose the phone or text transport",
                code="wrong_shape",
            )
        return WebCall(data["call_id"], data["access_token"], _servers(data), _number(data, "expires_at"))

    async def listen(self, call_id: str) -> Listening:
        """`POST /v2/listen-live-call/…`: a silent seat in a running call."""
        path = f"/v2/listen-live-call/{segment(call_id, 'a call')}"
        data = await self._once("POST", path, {}, "participant_id", "access_token")
        return Listening(
            data["participant_id"],
            data["access_token"],
            str(data.get("transport") or "livekit"),
            str(data.get("room_name") or ""),
            str(data.get("url") or ""),
            _servers(data),
        )

    async def take_over(self, call_id: str, participant_id: str) -> None:
        """`POST /v2/take-over-live-call/…`: the agent leaves, for good, and the listener speaks."""
        path = f"/v2/take-over-live-call/{segment(call_id, 'a call')}"
        await self._once("POST", path, {"participant_id": participant_id})

    async def steer(self, call_id: str, context: str = "", *, respond: bool = False) -> None:
        """`PATCH /v2/update-live-call/…`: tell the agent something; `respond` makes it speak at once."""
        control: dict[str, object] = {}
        if context:
            control["additional_context"] = context
        if respond:
            control["trigger_response"] = True
        path = f"/v2/update-live-call/{segment(call_id, 'a call')}"
        await self._once("PATCH", path, {"call_control": control})

    async def stop(self, call_id: str) -> None:
        """`POST /v2/stop-call/…`: hang up a running call."""
        await self._once("POST", f"/v2/stop-call/{segment(call_id, 'a call')}", None, insist=True)

    async def call(self, call_id: str) -> dict[str, Any]:
        """`GET /v2/get-call/…`: the call's whole object (`call_status`, `disconnection_reason?`, …)."""
        path = f"/v2/get-call/{segment(call_id, 'a call')}"
        return await self._http.read(Call("GET", path), _object("call_id"), attempts=2)

    async def figures(self, call_id: str) -> list[Message]:
        """Cost and latencies once the vendor has them; looks a few times, for at most about 6 s."""
        found: list[Message] = []
        for wait in _FIGURES_AFTER:
            data = await self.call(call_id)
            found = figures_of(data)
            if any(isinstance(each, Cost) for each in found):
                break
            if data.get("call_status") in ("not_connected", "error"):
                break
            await self._sleep(wait)
        return found

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _once(
        self, method: str, path: str, body: object, *members: str, insist: bool = False
    ) -> dict[str, Any]:
        call = Call(method, path, body=body)
        return await self._http.read(call, _object(*members), write=True, insist=insist)


class Gateway:
    """The signalling of one participant of a web call: `{base}/webrtc-proxy/{call}/v1/webrtc/sessions`.

    Every method raises `ServiceError` only.
    """

    def __init__(self, access: VendorAccess, call_id: str, token: str, identity: str = CLIENT) -> None:
        parts = urlsplit(access.base_url)
        self._peer = Peer(VENDOR_NAMES[access.provider], parts.netloc, parts.scheme)
        self._local = parts.scheme == "http"  # which is for this machine only: no proxy, no certificates
        self._url = f"{access.base_url}/webrtc-proxy/{segment(call_id, 'a call')}/v1/webrtc/sessions"
        self._token = Secret(token)
        self._identity = identity
        self._client: httpx.AsyncClient | None = None
        self._clock = SystemClock()

    async def join(self, offer: str) -> tuple[str, str]:
        """A new session: its id, and the SDP answer. One of the same identity replaces the earlier."""
        text = await self._send("POST", self._url, json={"identity": self._identity, "sdp": offer})
        data = _object("session_id", "sdp")(text)
        return data["session_id"], data["sdp"]

    async def renegotiate(self, session_id: str, offer: str) -> str:
        """A new offer for a session, as when a listener begins to speak: its answer."""
        url = f"{self._url}/{segment(session_id, 'a session')}"
        return await self._send(
            "PATCH", url, content=offer.encode(), headers={"content-type": "application/sdp"}
        )

    async def leave(self, session_id: str) -> None:
        """Hang up."""
        await self._send("DELETE", f"{self._url}/{segment(session_id, 'a session')}")

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _send(self, method: str, url: str, **content: Any) -> str:
        if self._client is None:
            if self._local:
                verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            else:
                verify = await asyncio.to_thread(httpx.create_ssl_context)
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT),
                follow_redirects=False,
                verify=verify,
                trust_env=not self._local,
            )
        headers = {
            "user-agent": __product__,
            **content.pop("headers", {}),
            "authorization": f"Bearer {self._token.reveal()}",
        }
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await self._client.request(method, url, headers=headers, **content)
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, OSError, TimeoutError) as error:
            failure = failures.from_transport(self._peer, error, TIMEOUT)
        else:
            if 200 <= answer.status_code < 300:
                return answer.text
            failure = self._refused(answer)
        raise failure

    def _refused(self, answer: httpx.Response) -> ServiceError:
        data: object = answer.text[:2000].replace(self._token.reveal(), "…")
        with contextlib.suppress(ValueError):
            data = json.loads(str(data))
        if answer.status_code == 401:
            # The token, not the account's key: the usual advice would lead astray.
            said = failures.explain_body(data).text
            return ServiceError(
                "Retell's gateway refused the call's access token" + (f": {said}" if said else ""),
                category=Category.AUTHENTICATION,
                advice="Call again: a token is good for one call and for 30 seconds",
                code="refused",
            )
        return failures.from_status(self._peer, answer.status_code, answer.headers, data, self._clock.now())


def figures_of(call: Mapping[str, Any]) -> list[Message]:
    """The cost (Retell counts in US cents) and the median latencies of a call's object, as far as known."""
    found: list[Message] = []
    cost = call.get("call_cost")
    amount = cost.get("combined_cost") if isinstance(cost, dict) else None
    if isinstance(amount, int | float) and not isinstance(amount, bool):
        found.append(Cost(round(amount / 100, 6), "USD", final=True))
    latency = call.get("latency")
    if isinstance(latency, dict):
        medians = {
            stage: float(latency[stage]["p50"])
            for stage in _STAGES
            if isinstance(latency.get(stage), dict) and isinstance(latency[stage].get("p50"), int | float)
        }
        if medians:
            found.append(VendorLatency(medians))
    return found


def _object(*members: str) -> Callable[[str], dict[str, Any]]:
    """A parser of an object that has texts under `members`. Without any an empty body is fine too."""

    def read(text: str) -> dict[str, Any]:
        if not members and not text.strip():
            return {}
        data = parse(text).data
        if isinstance(data, dict) and all(isinstance(data.get(name), str) for name in members):
            return data
        if not members:
            return {}
        raise ServiceError(
            f"Retell's answer has no {' and '.join(members)}",
            advice="Check that the base URL is this vendor's API",
            code="wrong_shape",
        )

    return read


def _servers(data: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    given = data.get("ice_servers")
    return tuple(each for each in given if isinstance(each, dict)) if isinstance(given, list) else ()


def _number(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    return value if isinstance(value, int) else 0
