"""One alarm at a wall-clock time. The library does the waiting and nothing else: it stores no job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

ALARM = "next"


class Timer(Protocol):
    """An alarm clock with one alarm."""

    def start(self) -> None:
        """Begin; to be called on the event loop."""
        ...

    def set(self, at: int | None) -> None:
        """Ring once at this time (epoch ms), in place of what was set before; None: do not ring."""
        ...

    def close(self) -> None:
        """Never ring again."""
        ...


class WallTimer:
    """Rings by the machine's clock; late (after a standstill) rather than never."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._scheduler = AsyncIOScheduler(
            jobstores={"default": MemoryJobStore()}, executors={"default": AsyncIOExecutor()}, timezone=UTC
        )

    def start(self) -> None:
        self._scheduler.start()

    def set(self, at: int | None) -> None:
        if at is None:
            if self._scheduler.get_job(ALARM) is not None:
                self._scheduler.remove_job(ALARM)
            return
        self._scheduler.add_job(
            self._sound,
            DateTrigger(run_date=datetime.fromtimestamp(at / 1000, tz=UTC)),
            id=ALARM,
            replace_existing=True,
            misfire_grace_time=None,
        )

    def close(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def _sound(self) -> None:
        # A coroutine, so that it runs on the loop and not in a thread.
        self._ring()
