"""The one interface of every transport, and the part they share.

A transport is opened once, yields what happens until exactly one `Ended`, and takes what the operator
does in between. It knows nothing of devices, recordings or screens: audio is handed over as PCM in the
rates it announced with `Connected`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.calls.messages import Ended, Message
from services.calls.model import Brief, Capabilities, EndReason, TransportKind
from services.errors import Category, ServiceError

log = logging.getLogger(__name__)

MOST_WAITING = 512
"""Events a transport may be ahead of the session before it stops reading from its line."""


@dataclass(frozen=True, slots=True)
class AgentAudio:
    """A piece of the agent's voice: mono s16le in the announced output rate, any length.

    Pieces of one utterance share an `event_id`, which grows from utterance to utterance.
    """

    pcm: bytes
    event_id: int = 0


TransportEvent: TypeAlias = Message | AgentAudio


class Transport(ABC):
    """A conversation with one agent. Subclasses set `kind` and `capabilities` and implement `_open`.

    The contract, tested for every subclass: `open` returns once the other side has accepted (or the
    dialling began) and raises `ServiceError` where it did not; `events` ends after exactly one `Ended`,
    which says why; `close` may be called at any time, any number of times, never raises, and leaves no
    task behind. Closed before or while it opens, `open` returns and `events` holds nothing more than the
    `Ended`. Sending what the capabilities exclude raises `ServiceError` with code `not_offered`; sending
    after the end does nothing.
    """

    kind: TransportKind
    capabilities: Capabilities = Capabilities()

    def __init__(self) -> None:
        self._waiting: deque[TransportEvent] = deque()
        self._news = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Ended | None = None
        self._opened = False
        self._opening: asyncio.Task[None] | None = None
        self._abandoned = False

    # -- the session's side -----------------------------------------------------------------------

    async def open(self, brief: Brief) -> None:
        """Begin the conversation. Raises ServiceError, after which the transport is closed."""
        if self._opened:
            raise RuntimeError("a transport carries one conversation only")
        self._opened = True
        if self._ended is not None:
            return
        # A task of its own, so that `close` can stop it from elsewhere.
        self._opening = asyncio.create_task(self._open(brief), name=f"{self.kind} opening")
        try:
            await self._opening
        except ServiceError as error:
            await self.close(reason_of(error), error.message)
            if not self._abandoned:
                raise
        except asyncio.CancelledError:
            await self.close()
            current = asyncio.current_task()
            if not self._abandoned or (current is not None and current.cancelling()):
                raise
        except BaseException:
            await self.close()
            raise

    async def events(self) -> AsyncIterator[TransportEvent]:
        """Everything that happens, in order, the `Ended` last. For one reader."""
        while True:
            while self._waiting:
                event = self._waiting.popleft()
                if len(self._waiting) < MOST_WAITING:
                    self._space.set()
                yield event
                if isinstance(event, Ended):
                    return
            self._news.clear()
            await self._news.wait()

    async def close(self, reason: EndReason = EndReason.OPERATOR_ENDED, detail: str = "") -> None:
        """Hang up. The `Ended` says `reason`, unless the call was over already. Never raises."""
        first = self._ended is None
        self._end(reason, detail, by="operator" if reason is EndReason.OPERATOR_ENDED else "us")
        opening = self._opening
        if opening is not None and not opening.done() and opening is not asyncio.current_task():
            self._abandoned = True
            opening.cancel()
            await asyncio.wait({opening})
        try:
            await self._close(first)
        except Exception:
            log.exception("closing the %s transport failed", self.kind)
        await self._stop_tasks()

    async def send_audio(self, pcm: bytes) -> None:
        """20 ms of the microphone in the announced input rate."""
        raise self._not_offered("audio")

    async def take_turn(self) -> None:  # noqa: B027  # most lines are not charged for by the turn
        """Somebody is about to type: count it where it is charged for. Raises ServiceError (`limited`)."""

    async def send_text(self, text: str) -> None:
        """What the user says, typed."""
        raise self._not_offered("typing")

    async def send_context(self, text: str) -> None:
        """What the agent should know although the user did not say it."""
        raise self._not_offered("a contextual update")

    async def send_activity(self) -> None:  # noqa: B027  # most lines have no such thing
        """The user is busy typing: an agent that can wait, waits."""

    async def send_tool_result(self, tool_id: str, result: str, ok: bool) -> None:
        """The answer of a client tool, as text."""
        raise self._not_offered("client tools")

    async def approve(self, tool_id: str, approved: bool) -> None:
        """Yes or no to a tool that waits for it."""
        raise self._not_offered("approvals")

    async def aftermath(self) -> list[Message]:
        """What the vendor tells when the call is over: cost, latency figures, remarks. Bounded in time;
        never raises."""
        return []

    @property
    def over(self) -> bool:
        return self._ended is not None

    # -- the subclass's side ----------------------------------------------------------------------

    @abstractmethod
    async def _open(self, brief: Brief) -> None:
        """Connect and start the tasks that emit. Raises ServiceError."""

    async def _close(self, first: bool) -> None:  # noqa: B027  # some have nothing to let go of
        """Let go of the line; `first` when nothing had ended the call before. Tasks are stopped after it."""

    def _emit(self, event: TransportEvent) -> None:
        """Hand an event over. Nothing comes after the end."""
        if self._ended is not None:
            return
        if isinstance(event, Ended):
            self._ended = event
        self._waiting.append(event)
        if len(self._waiting) >= MOST_WAITING:
            self._space.clear()
        self._news.set()

    async def _room(self) -> None:
        """Wait until the session has caught up: a line is not read faster than it is heard."""
        await self._space.wait()

    def _end(self, reason: EndReason, detail: str = "", *, by: str = "", code: int | None = None) -> None:
        """The call is over; the first reason counts. May be called from any of the transport's tasks."""
        self._emit(Ended(reason, detail, by, code))

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task that lives as long as the transport; its failure ends the call with a reason."""

        async def run() -> None:
            try:
                await work
            except ServiceError as error:
                self._end(reason_of(error), error.message, by="us")
            except Exception as error:
                log.exception("the %s transport failed", self.kind)
                self._end(EndReason.PROTOCOL_ERROR, f"{type(error).__name__} in our own code", by="us")

        task = asyncio.create_task(run(), name=f"{self.kind} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(
            lambda _: work.close()
        )  # cancelled before its first step, it was never awaited
        return task

    async def _stop_tasks(self) -> None:
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _not_offered(self, what: str) -> ServiceError:
        return ServiceError(
            f"A {self.kind} call does not take {what}",
            advice="Choose another transport for it",
            code="not_offered",
        )


def reason_of(error: ServiceError) -> EndReason:
    """The end reason of a failure to open or to carry a conversation."""
    named = _BY_CODE.get(error.code)
    return named if named is not None else _BY_CATEGORY[error.category]


_BY_CODE = {
    "wrong_key": EndReason.AUTHENTICATION,
    "no_key": EndReason.AUTHENTICATION,
    "missing_permission": EndReason.AUTHENTICATION,
    "unreachable": EndReason.UNREACHABLE,
    "certificate": EndReason.UNREACHABLE,
    "tls": EndReason.UNREACHABLE,
    "redirect": EndReason.UNREACHABLE,
    "html": EndReason.UNREACHABLE,
    "limit": EndReason.LIMIT,
    "payment_required": EndReason.LIMIT,
    "quota_exceeded": EndReason.LIMIT,
    "protocol_error": EndReason.PROTOCOL_ERROR,
    "wrong_shape": EndReason.PROTOCOL_ERROR,
    "not_json": EndReason.PROTOCOL_ERROR,
    "truncated": EndReason.PROTOCOL_ERROR,
    "too_large": EndReason.PROTOCOL_ERROR,
    "unknown_format": EndReason.PROTOCOL_ERROR,
    "override_refused": EndReason.OVERRIDE_REFUSED,
    "missing_variable": EndReason.MISSING_VARIABLE,
    "not_allowed": EndReason.NOT_ALLOWED,
    "not_confirmed": EndReason.NOT_ALLOWED,
    "invalid_number": EndReason.INVALID_NUMBER,
    "maybe_placed": EndReason.MAYBE_PLACED,
    "device_lost": EndReason.DEVICE_LOST,
    "connection_lost": EndReason.CONNECTION_LOST,
}
_BY_CATEGORY = {
    Category.TRANSIENT: EndReason.VENDOR_ERROR,
    Category.PERMANENT: EndReason.VENDOR_ERROR,
    Category.RATE_LIMIT: EndReason.LIMIT,
    Category.TIMEOUT: EndReason.TIMEOUT,
    Category.AUTHENTICATION: EndReason.AUTHENTICATION,
}
