"""The REST parts of an ElevenLabs conversation, through the vendor's own SDK, and the hosts it runs on.

Every request goes through the connection's policy, and runs in a thread with a loop of its own: importing the
SDK takes a second, building a long conversation's objects a tenth of one. Each closes its connection. Hosts:
the vendor's SDKs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

from services.calls.access import VendorAccess
from services.clock import SystemClock
from services.errors import Category, ServiceError
from services.http.addresses import is_loopback, normalize_base_url
from services.model import Provider
from services.providers.hosts import VENDOR_NAMES, residency_hosts
from services.resilience import Attempt, Policy

T = TypeVar("T")

SECONDS: Final = 20.0
"""One request may take so long, from import to last byte."""
AUDIO_SECONDS: Final = 120.0
ATTEMPTS: Final = 2
"""Nothing here changes anything: it is asked once more where the vendor is busy."""
MOST_AUDIO: Final = 512 * 1024 * 1024

_LIVEKIT: Final = "wss://livekit.rtc.elevenlabs.io"
_LIVEKIT_BY_RESIDENCY: Final = {
    "eu": "wss://livekit.rtc.eu.residency.elevenlabs.io",
    "in": "wss://livekit.rtc.in.residency.elevenlabs.io",
    # By the pattern of the others; no source names it.
    "sg": "wss://livekit.rtc.sg.residency.elevenlabs.io",
}


def websocket_base(access: VendorAccess) -> str:
    """Where sockets are opened: the base URL with ws for http, a path prefix kept, no slash at the end."""
    scheme, _, rest = normalize_base_url(access.base_url).partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}"


def livekit_url(access: VendorAccess) -> str:
    """The LiveKit server of the account's residency; for a server on this machine that server itself."""
    parts = urlsplit(normalize_base_url(access.base_url))
    if is_loopback(parts.hostname or ""):
        return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
    region = access.residency
    for name, url in residency_hosts(Provider.ELEVENLABS).items():
        if urlsplit(url).hostname == parts.hostname:
            region = name  # the host decides, whatever the connection says
    return _LIVEKIT_BY_RESIDENCY.get(region, _LIVEKIT)


class ElevenLabsRest:
    """Requests with one connection's key. Every method raises `ServiceError` only, never with the key."""

    def __init__(self, access: VendorAccess, *, seconds: float = SECONDS) -> None:
        self._access = access
        self._seconds = seconds
        self._policy = access.policy or Policy(VENDOR_NAMES[Provider.ELEVENLABS], SystemClock())

    async def signed_url(self, agent_id: str, *, branch: str = "", environment: str = "") -> str:
        """A WebSocket URL that opens one conversation within about 15 minutes. It is a secret."""

        async def ask(sdk: Any) -> str:
            answer = await sdk.conversational_ai.conversations.get_signed_url(
                agent_id=agent_id,
                branch_id=branch or None,
                environment=environment or None,
                request_options=_reading(),
            )
            return _text(answer, "signed_url")

        url = await self._apart(ask, self._seconds)
        parts = urlsplit(url)
        secure = self._access.base_url.lower().startswith("https")
        if parts.scheme != "wss" and (secure or not is_loopback(parts.hostname or "")):
            raise _unusable("an address that is not a secure WebSocket")
        return url

    async def token(self, agent_id: str, *, branch: str = "", environment: str = "") -> tuple[str, str]:
        """A LiveKit token (a secret) and the conversation's id."""

        async def ask(sdk: Any) -> tuple[str, str]:
            answer = await sdk.conversational_ai.conversations.get_webrtc_token(
                agent_id=agent_id,
                branch_id=branch or None,
                environment=environment or None,
                request_options=_reading(),
            )
            found = getattr(answer, "conversation_id", None)
            return _text(answer, "token"), found if isinstance(found, str) else ""

        return await self._apart(ask, self._seconds)

    async def conversation(self, conversation_id: str) -> dict[str, Any]:
        """The vendor's object of a conversation, unknown members kept. Times in seconds."""

        async def ask(sdk: Any) -> dict[str, Any]:
            answer = await sdk.conversational_ai.conversations.get(
                conversation_id, request_options=_reading()
            )
            found = answer.dict() if hasattr(answer, "dict") else None
            if not isinstance(found, dict):
                raise _unusable("no conversation")
            return found

        return await self._apart(ask, self._seconds)

    async def conversation_audio(self, conversation_id: str, target: Path) -> int:
        """Write the vendor's recording (MP3) to a file; returns its bytes. Nothing is left of a failure."""

        async def ask(sdk: Any) -> int:
            size = 0
            part = target.with_name(target.name + ".part")
            try:
                with part.open("wb") as file:  # this loop has nothing else to do
                    pieces = sdk.conversational_ai.conversations.audio.get(
                        conversation_id, request_options=_reading(AUDIO_SECONDS)
                    )
                    async for piece in pieces:
                        size += len(piece)
                        if size > MOST_AUDIO:
                            raise _unusable(f"a recording of more than {MOST_AUDIO // 1048576} MB")
                        file.write(piece)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
            return size

        return await self._apart(ask, AUDIO_SECONDS)

    async def _apart(self, ask: Callable[[Any], Awaitable[T]], seconds: float) -> T:
        async def work(attempt: Attempt) -> T:
            return await self._in_thread(ask, seconds)

        return await self._policy.run(work, attempts=ATTEMPTS)

    async def _in_thread(self, ask: Callable[[Any], Awaitable[T]], seconds: float) -> T:
        """Run a request in a thread. Cancelled, it stops there too, and is waited for."""
        running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
        stopped = False

        async def work() -> T:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101
            running.append((asyncio.get_running_loop(), task))
            if stopped:
                raise asyncio.CancelledError
            async with asyncio.timeout(seconds):
                return await self._ask(ask)

        thread = asyncio.ensure_future(asyncio.to_thread(_run, lambda: asyncio.run(work())))
        try:
            failure, found = await asyncio.shield(thread)
        except asyncio.CancelledError:
            stopped = True
            for loop, task in running:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)
            await asyncio.wait({thread})
            raise
        if failure is not None:
            self._explain(failure, seconds)
        return found

    async def _ask(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        import httpx
        from elevenlabs.client import AsyncElevenLabs

        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they would log every address
        base = normalize_base_url(self._access.base_url)
        local = base.startswith("http://")
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(self._seconds, connect=min(10.0, self._seconds)),
            follow_redirects=False,
            # Proxies of the environment count, except towards this machine.
            trust_env=not local,
        ) as client:
            return await ask(AsyncElevenLabs(base_url=base, api_key=self._access.key, httpx_client=client))

    def _explain(self, failure: Exception, seconds: float) -> NoReturn:
        """Raise what happened in our own words. Raised outside any handler: no request hangs on it."""
        if isinstance(failure, ServiceError):
            raise failure
        import httpx
        from elevenlabs.core.api_error import ApiError

        from services.http import failures

        parts = urlsplit(normalize_base_url(self._access.base_url))
        peer = failures.Peer(VENDOR_NAMES[Provider.ELEVENLABS], parts.netloc, parts.scheme)
        if isinstance(failure, ApiError):
            status, headers = failure.status_code or 0, failure.headers or {}
            if 200 <= status < 300:
                raise _unusable("something that is not JSON")
            text = failure.body if isinstance(failure.body, str) else ""
            if text.lstrip()[:5].lower() in ("<!doc", "<html") and status not in (408, 429) and status < 500:
                raise failures.web_page(peer, status)
            raise failures.from_status(
                peer, status, headers, self._masked(failure.body), time.time_ns() // 1_000_000
            )
        if isinstance(
            failure, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError | OSError | TimeoutError
        ):
            raise failures.from_transport(peer, failure, seconds)
        logging.getLogger(__name__).error("a request to ElevenLabs failed: %s", type(failure).__name__)
        raise _unusable("something the vendor's own library cannot read")

    def _masked(self, body: Any) -> Any:
        """An error body in which the key, should the vendor repeat it, is not to be seen."""
        key = self._access.key
        try:
            text = json.dumps(body, default=str)
            return json.loads(text.replace(json.dumps(key)[1:-1], "…")) if key else body
        except ValueError:
            return None


def _run(work: Callable[[], T]) -> tuple[Exception | None, T]:
    """Call it; its failure as a value, so that no traceback of the thread's holds the key."""
    nothing: Any = None
    try:
        return None, work()
    except asyncio.CancelledError:
        return ServiceError("The request was given up", category=Category.TRANSIENT, code="closed"), nothing
    except Exception as error:
        return error.with_traceback(None), nothing


def _reading(seconds: float = SECONDS) -> dict[str, Any]:
    """Options of a request: the policy retries, not the SDK."""
    return {"max_retries": 0, "timeout_in_seconds": seconds}


def _text(answer: object, name: str) -> str:
    found = getattr(answer, name, None)
    if not isinstance(found, str) or not found:
        raise _unusable(f"an answer without a {name}")
    return found


def _unusable(what: str) -> ServiceError:
    return ServiceError(
        f"ElevenLabs sent {what}",
        category=Category.TRANSIENT,
        advice="Try again; check that the base URL is this vendor's API",
        code="wrong_shape",
    )
