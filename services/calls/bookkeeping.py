"""The books of the calls that run: their rows follow what happens, and say in the end how it went."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from services.calls import store
from services.calls.archive import folded, read_messages, write_derived
from services.calls.history import has_audio_in
from services.calls.live import LiveCall
from services.calls.messages import Connected, Ended, Message, StateChanged
from services.calls.model import CallState, EndReason
from services.calls.session import CallSession
from services.clock import Clock
from services.errors import ServiceError
from services.events import CallsChanged, EventBus
from services.storage import Database

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0


class CallBook:
    """Keeps rows and folders of running calls; `sessions` are those that are not closed yet."""

    def __init__(self, open_database: Callable[[], Awaitable[Database]], bus: EventBus, clock: Clock) -> None:
        self.sessions: dict[str, CallSession] = {}
        self._open_database = open_database
        self._bus = bus
        self._clock = clock
        self._keeper: asyncio.Task[None] | None = None
        self._writes: set[asyncio.Task[None]] = set()

    def add(self, session: CallSession) -> None:
        """Begin to keep a call's book; its row is there already."""
        self.sessions[session.id] = session
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._beat(), name="calls heartbeat")

    async def close(self, session: CallSession, meta: dict[str, Any], transcript: bool) -> None:
        """Write everything that is known about a call that is over."""
        ended = session.live.ended
        final = {
            **meta,
            "ended_at": self._clock.now(),
            "reason": ended.reason.value if ended else None,
            "detail": ended.detail if ended else "",
            "by": ended.by if ended else "",
            "conversation_id": session.live.conversation_id,
        }
        await session.recorder.close(final)
        try:
            live = await asyncio.to_thread(_derive, session.recorder.folder, transcript)
            if not live.entries and not live.ended:
                live = session.live
            has_audio = await asyncio.to_thread(has_audio_in, session.recorder.folder)
            await self._finish(session.id, live, session.live, transcript, has_audio)
        except (ServiceError, OSError):
            log.exception("the end of call %s could not be stored", session.id)
        self.sessions.pop(session.id, None)
        session.mark_settled()
        self._bus.publish(CallsChanged((session.id,)))

    async def _finish(
        self, call_id: str, live: LiveCall, seen: LiveCall, transcript: bool, has_audio: bool
    ) -> None:
        ended = seen.ended or Ended(EndReason.INTERRUPTED, by="us")
        database = await self._open_database()
        await database.write(
            lambda session: store.finish(
                session,
                call_id,
                live,
                transcript=transcript,
                reason=ended.reason.value,
                detail=ended.detail[:2000],
                has_audio=has_audio,
            )
        )

    async def mark_ended(self, session: CallSession, ended: Ended) -> None:
        now = self._clock.now()
        database = await self._open_database()
        await database.write(
            lambda db: store.change(
                db,
                session.id,
                state=CallState.ENDED.value,
                ended_at=now,
                reason=ended.reason.value,
                detail=ended.detail[:2000],
            )
        )
        self._bus.publish(CallsChanged((session.id,)))

    def follower(self, session: CallSession) -> Callable[[int, Message], None]:
        """Keeps the row in step with what matters to a list: the state and the conversation's id."""

        def follow(t: int, message: Message) -> None:
            if isinstance(message, Connected):
                self._later(session.id, conversation_id=message.conversation_id)
            elif isinstance(message, StateChanged):
                fields: dict[str, Any] = {"state": message.state.value}
                if message.state is CallState.LIVE and session.live.live_at == t:
                    fields["live_at"] = session.started_at + t
                self._later(session.id, **fields)

        return follow

    def _later(self, call_id: str, **fields: Any) -> None:
        async def write() -> None:
            try:
                database = await self._open_database()
                await database.write(lambda session: store.change(session, call_id, **fields))
                self._bus.publish(CallsChanged((call_id,)))
            except ServiceError as error:
                log.warning("the state of call %s could not be stored: %s", call_id, error.message)

        task = asyncio.create_task(write(), name="call row")
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _beat(self) -> None:
        while self.sessions:
            await asyncio.sleep(BEAT_SECONDS)
            ids, now = list(self.sessions), self._clock.now()
            try:
                database = await self._open_database()
                await database.write(partial(store.beat, call_ids=ids, now=now))
            except ServiceError as error:
                log.warning("the heartbeat of calls could not be stored: %s", error.message)

    async def aclose(self) -> None:
        """Stop the heartbeat and wait for what is being written."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await asyncio.gather(*self._writes, return_exceptions=True)


def _derive(folder: Path, transcript: bool) -> LiveCall:
    live = folded(read_messages(folder))
    if folder.is_dir():
        write_derived(folder, live, transcript=transcript)
    return live
