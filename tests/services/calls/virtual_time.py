"""A clock and a sleep that pass in no time: the earliest sleeper wakes when everything else waits."""

from __future__ import annotations

import asyncio
import heapq
import itertools

SETTLE = 60
"""Turns of the loop after which what can run has run (threads are waited for by `busy`)."""


class VirtualTime:
    """Implements `services.clock.Clock`; `sleep` is given to what is tested."""

    def __init__(self) -> None:
        self.ms = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def now(self) -> int:
        return 1_760_000_000_000 + round(self.ms)

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.ms + seconds * 1000, next(self._count), wake))
        await wake

    async def settle(self) -> None:
        for _ in range(SETTLE):
            await asyncio.sleep(0)

    async def run(self, task: asyncio.Task[object], *, most_ms: float = 3_600_000) -> None:
        """Let time pass until the task is done."""
        while not task.done():
            await self.settle()
            if task.done():
                break
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if not self._sleepers:
                await asyncio.sleep(0.001)  # a thread works
                continue
            at, _, wake = heapq.heappop(self._sleepers)
            assert at <= most_ms, "it goes on for ever"
            self.ms = max(self.ms, at)
            wake.set_result(None)
