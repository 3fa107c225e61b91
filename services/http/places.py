"""How many requests one connection may have in flight, learnt from the vendor's 429 answers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from services.http.cache import closed

_URGENT: Final = 1 << 62


@dataclass(slots=True)
class ClientStats:
    """What one client has done so far. `requests` counts every attempt that was sent."""

    requests: int = 0
    retries: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    queued: int = 0
    """Requests that wait for a place now."""
    limit: int = 0
    held_until: float = 0.0
    """Until when (seconds of the clock) the vendor's 429 keeps everything back."""


class Slot:
    """One place in flight, and which generation of the limit it was handed out in."""

    __slots__ = ("generation",)

    def __init__(self, generation: int) -> None:
        self.generation = generation


class Limiter:
    """Hands out places in the order the requests were first asked for.

    Starts at `maximum`. A 429 halves the limit, once for all requests that were in flight together;
    every `limit` successes add one again. A request that is tried again keeps its ticket and so goes
    ahead of younger ones. Belongs to one event loop.
    """

    def __init__(
        self, maximum: int, stats: ClientStats, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._maximum = max(1, maximum)
        self._stats = stats
        self._sleep = sleep
        self._waiting: list[tuple[int, int, asyncio.Future[Slot]]] = []
        self._tickets = itertools.count()
        self._order = itertools.count()
        self._generation = 0
        self._successes = 0
        self._holds: set[asyncio.Task[None]] = set()
        stats.limit = self._maximum

    def ticket(self, *, urgent: bool = False) -> int:
        """A place in the queue, kept over all attempts of one request.

        An urgent one goes ahead of all others and may be one more than the limit: it waits for nothing but
        the end of a time that the vendor named.
        """
        return next(self._tickets) - (_URGENT if urgent else 0)

    @asynccontextmanager
    async def slot(self, ticket: int) -> AsyncIterator[Slot]:
        """A place in flight for the time of the block. Waiting for it can be cancelled."""
        slot = await self._acquire(ticket)
        try:
            yield slot
        finally:
            self._stats.in_flight -= 1
            self._wake()

    def succeeded(self) -> None:
        """One request was answered: after `limit` of them the limit grows by one."""
        self._successes += 1
        if self._successes >= self._stats.limit:
            self._successes = 0
            self._stats.limit = min(self._maximum, self._stats.limit + 1)

    def throttled(self, slot: Slot, hold: float = 0.0) -> None:
        """The vendor answered 429: fewer at once, and nothing new for `hold` seconds if it named a time."""
        if slot.generation == self._generation:
            self._generation += 1
            self._successes = 0
            self._stats.limit = max(1, self._stats.limit // 2)
        if hold > 0:
            task = asyncio.create_task(self._hold(hold))
            self._holds.add(task)

    async def aclose(self) -> None:
        """Ends the holds; whoever still waits gets a `ServiceError`."""
        holds, self._holds = tuple(self._holds), set()
        for task in holds:
            task.cancel()
        await asyncio.gather(*holds, return_exceptions=True)
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(closed())
        self._waiting.clear()

    async def _acquire(self, ticket: int) -> Slot:
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (ticket, next(self._order), future))
        self._stats.queued += 1
        self._wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # The place was handed over in the same moment: pass it on.
                self._stats.in_flight -= 1
                self._wake()
            raise
        finally:
            self._stats.queued -= 1
            self._forget_given_up()

    def _forget_given_up(self) -> None:
        """Cancelled waiters leave the queue at the latest when they are most of it.

        Nobody takes them out otherwise while all places are held, as by a vendor that does not answer.
        """
        if len(self._waiting) > 2 * self._stats.queued + 16:
            self._waiting = [entry for entry in self._waiting if not entry[2].done()]
            heapq.heapify(self._waiting)

    def _wake(self) -> None:
        stats = self._stats
        while self._waiting and not self._holds:
            if stats.in_flight >= stats.limit and self._waiting[0][0] >= 0:
                break
            _, _, future = heapq.heappop(self._waiting)
            if future.done():
                continue
            stats.in_flight += 1
            stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
            future.set_result(Slot(self._generation))

    async def _hold(self, seconds: float) -> None:
        try:
            await self._sleep(seconds)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._holds.discard(task)
            self._wake()
