"""Answers kept for a short time, and one request for everybody who asks at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from services.clock import Clock
from services.errors import Category, ServiceError

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Flight:
    task: asyncio.Task[Any]
    key: Hashable
    number: int
    waiters: int = 0
    storable: bool = True


@dataclass(slots=True)
class _Entry:
    value: Any
    at: float
    number: int


def closed() -> ServiceError:
    """The error of a call on a client that was closed."""
    return ServiceError(
        "The connection was closed while a request was under way",
        category=Category.TRANSIENT,
        advice="Try again",
        code="closed",
    )


@dataclass(eq=False)
class SharedCache:
    """Values by key with an age, each fetched by one task however many wait for it.

    A waiter that is cancelled leaves the others alone; when the last one goes, the fetch is cancelled.
    Belongs to one event loop.
    """

    clock: Clock
    _entries: dict[Hashable, _Entry] = field(default_factory=dict)
    _shared: dict[Hashable, _Flight] = field(default_factory=dict)
    _running: set[_Flight] = field(default_factory=set)
    _count: int = 0

    async def get(
        self, key: Hashable, fetch: Callable[[], Awaitable[T]], *, ttl: float, fresh: bool = False
    ) -> T:
        """The value for a key: stored if younger than `ttl` seconds, else fetched.

        `fresh` never takes a stored value, nor one whose fetch began before this call.
        """
        if not fresh:
            entry = self._entries.get(key)
            if entry is not None and self.clock.monotonic() - entry.at < ttl:
                return cast(T, entry.value)
        flight = None if fresh else self._shared.get(key)
        if flight is None or flight.task.done():
            flight = self._start(key, fetch)
        return cast(T, await self._join(flight))

    def drop(self) -> None:
        """Forgets every value, also those still on their way (who waits for them still gets them)."""
        self._entries.clear()
        self._shared.clear()
        for flight in self._running:
            flight.storable = False

    async def aclose(self) -> None:
        """Cancels every fetch and waits for its end."""
        tasks = [flight.task for flight in self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: Hashable, fetch: Callable[[], Awaitable[Any]]) -> _Flight:
        async def run() -> Any:
            at = self.clock.monotonic()
            value = await fetch()
            old = self._entries.get(key)
            if flight.storable and (old is None or old.number < flight.number):
                self._entries[key] = _Entry(value, at, flight.number)
            return value

        self._count += 1
        flight = _Flight(asyncio.create_task(run()), key, self._count)
        self._running.add(flight)
        self._shared[key] = flight
        flight.task.add_done_callback(lambda _: self._ended(flight))
        return flight

    def _ended(self, flight: _Flight) -> None:
        self._running.discard(flight)
        self._unshare(flight)

    def _unshare(self, flight: _Flight) -> None:
        if self._shared.get(flight.key) is flight:
            del self._shared[flight.key]

    async def _join(self, flight: _Flight) -> Any:
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if flight.task.cancelled() and me is not None and not me.cancelling():
                # Not this caller was cancelled but the client was closed under it.
                raise closed() from None
            if flight.waiters == 1 and not flight.task.done():
                # Nobody may join it any more, and nothing of it may outlive the caller.
                self._unshare(flight)
                flight.task.cancel()
                await asyncio.gather(flight.task, return_exceptions=True)
            raise
        finally:
            flight.waiters -= 1
