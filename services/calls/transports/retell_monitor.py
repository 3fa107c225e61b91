"""Retell's live monitor: what is said in a running call, read along over a WebSocket.

`wss://<host>/v2/monitor-call/{call_id}`, read-only, at most five watchers. Close codes: 4004 the call is not
live yet (asked again quietly), other 4000–4999 refused, 1000 over; anything else is the network. After a
break the whole transcript comes again; what was told before is not repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final

from services.calls.access import VendorAccess
from services.calls.messages import Ended, Message, Notice
from services.calls.retell_transcript import Transcript, ending
from services.errors import Category, ServiceError
from services.http.client import segment

log = logging.getLogger(__name__)
_wire = logging.getLogger(f"{__name__}.wire")
_wire.setLevel(logging.WARNING)  # below that, websockets logs the headers and with them the key

_NOT_LIVE: Final = 4004
_TOO_BIG: Final = 1009
MOST_BYTES: Final = 16 * 1024 * 1024 + 65_536
"""The largest frame that is read."""
SETTLE_SECONDS: Final = 2.0
"""An utterance that did not change for so long is complete."""
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 15.0
_NOT_LIVE_WAIT: Final = 2.0
_OPEN_SECONDS: Final = 10.0
_INLINE: Final = 256 * 1024
"""Characters up to which a frame is parsed on the loop."""


class RetellMonitor:
    """Iterate over it, once, for the messages; the last is an `Ended`.

    Raises `ServiceError` from the iteration: `monitor_refused` or `wrong_key` when the vendor does not let
    us watch, `connection_lost` after `attempts` broken connections in a row. `speaking` asks for
    `UserSpeaking` and `AgentSpeaking` (see `Transcript`).
    """

    def __init__(
        self,
        access: VendorAccess,
        call_id: str,
        *,
        speaking: bool = False,
        attempts: int = 8,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        host = "ws" + access.base_url.removeprefix("http")
        self._url = f"{host}/v2/monitor-call/{segment(call_id, 'a call')}"
        self._key = access.key.strip()
        self._local = access.base_url.startswith("http://")
        self._attempts = attempts
        self._rng = rng or random.Random()
        self._sleep = sleep
        self._settle_seconds = settle_seconds
        self._socket: Any = None
        self._closed = asyncio.Event()
        self._unreadable = False
        self.transcript = Transcript(speaking=speaking)

    async def __aiter__(self) -> AsyncIterator[Message]:
        failures = early = 0
        while not self._closed.is_set():
            code, reason = 0, ""
            try:
                async with contextlib.aclosing(self._watch()) as messages:
                    async for message in messages:
                        failures = 0
                        yield message
                        if isinstance(message, Ended):
                            return
                code, reason = self._socket.close_code or 0, self._socket.close_reason or ""
            except OSError as error:
                log.info("the monitor of a call broke off: %s", type(error).__name__)
            if self._closed.is_set():
                return
            if code == 1000:
                for message in (*self.transcript.settle(), ending("")):
                    yield message
                return
            if code == _NOT_LIVE:
                early += 1
                await self._sleep(min(_NOT_LIVE_WAIT, _FIRST_WAIT * early))
                continue
            self._refuse(code, reason)
            failures += 1
            if failures >= self._attempts:
                raise _lost(failures)
            await self._sleep(self._wait(failures))

    async def aclose(self) -> None:
        """Stop watching: a running iteration ends. May be called twice."""
        self._closed.set()
        socket = self._socket
        if socket is not None:
            await socket.close()

    async def _watch(self) -> AsyncGenerator[Message, None]:
        """One connection. Ends with its close; OSError when none came about."""
        from websockets.exceptions import ConnectionClosed

        self._socket = await self._connect()
        try:
            while not self._closed.is_set():
                try:
                    async with asyncio.timeout(self._settle_seconds if self.transcript.unsettled else None):
                        text = await self._socket.recv()
                except TimeoutError:
                    for message in self.transcript.settle():
                        yield message
                    continue
                except ConnectionClosed as closed:
                    if closed.sent is not None and closed.sent.code == _TOO_BIG:
                        raise _refused("Retell's live transcript sent more than 16 MB at once") from None
                    return
                for message in await self._read(text):
                    yield message
        finally:
            await self._socket.close()

    async def _connect(self) -> Any:
        """Open the socket. OSError for the network's failures, ServiceError for a refusal."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        try:
            return await connect(
                self._url,
                additional_headers={"authorization": f"Bearer {self._key}"},
                user_agent_header=None,
                compression=None,
                max_size=MOST_BYTES,
                open_timeout=_OPEN_SECONDS,
                close_timeout=1,
                proxy=None if self._local else True,
                logger=_wire,
            )
        except InvalidStatus as error:
            status = error.response.status_code
        except (InvalidHandshake, TimeoutError) as error:
            raise OSError(type(error).__name__) from None
        if status in (401, 403):
            raise _refused(
                "Retell refused the key for the live transcript", "wrong_key", Category.AUTHENTICATION
            )
        if status in (429, 408) or status >= 500:
            raise OSError(f"status {status}")
        raise _refused(f"Retell does not show this call's live transcript (status {status})")

    async def _read(self, text: str | bytes) -> list[Message]:
        try:
            frame = await asyncio.to_thread(json.loads, text) if len(text) > _INLINE else json.loads(text)
        except (ValueError, RecursionError):
            frame = None
        if isinstance(frame, dict):
            return self.transcript.read(frame)
        if self._unreadable:
            return []
        self._unreadable = True
        return [Notice("A part of Retell's live transcript could not be read", "look")]

    def _refuse(self, code: int, reason: str) -> None:
        if 4000 <= code < 5000:
            said = f": {reason[:200]}" if reason else f" (close code {code})"
            raise _refused(f"Retell does not show this call's live transcript{said}")

    def _wait(self, failures: int) -> float:
        top = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (failures - 1))
        return top / 2 + self._rng.uniform(0, top / 2)


def _refused(
    message: str, code: str = "monitor_refused", category: Category = Category.PERMANENT
) -> ServiceError:
    return ServiceError(
        message,
        category=category,
        advice="The call goes on; its transcript can be read at Retell afterwards",
        code=code,
    )


def _lost(failures: int) -> ServiceError:
    return ServiceError(
        f"The connection to Retell's live transcript was lost, and {failures} attempts did not bring it back",
        category=Category.TRANSIENT,
        advice="Check the network; the transcript can be read at Retell afterwards",
        code="connection_lost",
    )
