"""Asking providers what became of messages, in growing intervals, until they are at their end.

Of several processes one asks about a message at a time: whoever moves its `next_look_at` on. A process that
dies in between has only lost that one look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.integrations.messages import store
from services.integrations.messages.model import MessageRow, MessageState, next_look
from services.storage import Database

if TYPE_CHECKING:
    from services.integrations.messages.service import MessageService

log = logging.getLogger(__name__)

LEASE_MS: Final = 90_000
"""How long one look may take before another process may look, too."""
AT_ONCE: Final = 8
_BATCH: Final = 64
_SETTLE_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 15.0
"""The longest wait between two glances at what is due: other processes send messages, too."""
_GLANCE_SECONDS: Final = 0.25
NO_FINAL_REPORT: Final = "No final report came within three days; it is not followed any further"


class Follower:
    """The task that follows messages. Belongs to one event loop."""

    def __init__(
        self, service: MessageService, open_database: Callable[[], Awaitable[Database]], clock: Clock
    ) -> None:
        self._service = service
        self._open_database = open_database
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin; again is no error."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="messages")

    def wake(self) -> None:
        """A message was sent: see when it is due."""
        self._wake.set()

    async def aclose(self) -> None:
        """Stop; a look that is under way is given up."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def look_at_due(self) -> int:
        """Ask about everything that is due, some at once."""
        database = await self._open_database()
        places = asyncio.Semaphore(AT_ONCE)

        async def one(message: MessageRow) -> bool:
            async with places:
                return await self.look(message)

        now = self._clock.now()
        messages = await database.read(lambda session: store.due(session, now, _BATCH))
        return sum(await asyncio.gather(*(one(message) for message in messages)))

    async def look(self, message: MessageRow) -> bool:
        """Ask about one message, unless it is not followed or another process took this look."""
        if message.next_look_at is None or message.state.final:
            return False
        now = self._clock.now()
        database = await self._open_database()
        mine = await database.write(
            lambda session: store.claim(session, message.id, message.next_look_at, now + LEASE_MS)
        )
        if not mine:
            return False
        try:
            await self._ask(message)
        except UsageError as error:
            await self._service.stop_following(message, error.message)
        except ServiceError as error:
            log.info("message %s could not be asked for: %s", message.id, error.message)
            if error.code == "not_found":
                await self._service.stop_following(message, "The provider does not know it any more")
            else:
                await self._later(message)
        return True

    async def follow(self, message_id: str, seconds: float) -> AsyncIterator[MessageRow]:
        """The message now and after every change."""
        end = self._clock.monotonic() + seconds
        row = await self._service.get(message_id)
        yield row
        row = await self._service.look(row)
        shown = None
        while True:
            if (row.state, row.remark) != shown:
                shown = (row.state, row.remark)
                yield row
            settled = row.state.final or not (row.followed or row.state is MessageState.QUEUED)
            if settled or self._clock.monotonic() >= end:
                return
            await asyncio.sleep(_GLANCE_SECONDS)
            row = await self._service.get(row.id)
            if row.next_look_at is not None and row.next_look_at <= self._clock.now():
                row = await self._service.look(row)

    async def _ask(self, message: MessageRow) -> None:
        if message.state in (MessageState.UNKNOWN, MessageState.QUEUED):
            await self._service.ask_for_lost(message)
            return
        adapter = await self._service.adapter_of(message)
        report = await adapter.look(message)
        if report is None:
            await self._service.stop_following(message)
            return
        await self._service.report(message, report)
        if next_look(message.created_at, self._clock.now()) is None and not report.state.final:
            await self._service.stop_following(message, NO_FINAL_REPORT)

    async def _later(self, message: MessageRow) -> None:
        now = self._clock.now()
        at = next_look(message.created_at, now)
        if at is None:
            await self._service.stop_following(message, NO_FINAL_REPORT)
            return
        await (await self._open_database()).write(
            lambda session: store.wait_for_look(session, message.id, at)
        )

    async def _run(self) -> None:
        settled_at = float("-inf")
        while True:
            self._wake.clear()
            wait = _IDLE_SECONDS
            try:
                if self._clock.monotonic() - settled_at >= _SETTLE_SECONDS:
                    settled_at = self._clock.monotonic()
                    await self._service.settle()
                await self.look_at_due()
                wait = await self._until_due()
            except ServiceError as error:
                log.warning("messages could not be followed: %s", error.message)
            except Exception:  # one message that breaks something must not end the following of all others
                log.exception("messages could not be followed")
            # Not `wait_for`, which can lose a cancellation that comes at the moment of the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _until_due(self) -> float:
        at = await (await self._open_database()).read(store.next_due)
        if at is None:
            return _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(_GLANCE_SECONDS, (at - self._clock.now()) / 1000))
