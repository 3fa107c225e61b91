"""Health as bytes to send: made once for each view, however many ask."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Protocol

from services.clock import Clock
from services.errors import ServiceError
from services.health.model import HealthView, Overall

LEAST_AGE: Final = 0.2
"""Seconds for which a view is used again: making one looks at every check."""
_KEPT: Final = 32

log = logging.getLogger(__name__)

Make = Callable[[HealthView], dict[str, Any]]


class HealthSource(Protocol):
    """What the API needs of the health service."""

    def view(self) -> HealthView: ...
    def ready(self) -> bool | Awaitable[bool]:
        """Whether the program can do its work."""


class Answers:
    """The latest view, and the documents made of it. Belongs to one event loop."""

    def __init__(self, health: HealthSource | None, clock: Clock) -> None:
        self._health = health
        self._clock = clock
        self._view = HealthView(
            Overall.DEGRADED, "Nothing is watched in this process", (), None, started=False
        )
        self._looked_at: float | None = None
        self._bodies: dict[Hashable, bytes] = {}
        self._making = asyncio.Lock()

    def view(self) -> HealthView:
        """The view in force, at most `LEAST_AGE` old."""
        now = self._clock.monotonic()
        if self._health is not None and (self._looked_at is None or now - self._looked_at >= LEAST_AGE):
            found = self._health.view()
            self._looked_at = now
            if found is not self._view:
                self._view = found
                self._bodies.clear()
        return self._view

    async def ready(self) -> bool:
        """Whether the program can do its work."""
        if self._health is None:
            return True
        try:
            found = self._health.ready()
            return await found if inspect.isawaitable(found) else found
        except ServiceError as error:
            log.warning("not ready: %s", error.message)
            return False

    async def body(self, key: Hashable, make: Make) -> tuple[bytes, HealthView]:
        """What `make` gives for the view in force, as JSON, and that view.

        `key` names the document and its parameters.
        """
        view = self.view()
        body = self._bodies.get(key)
        if body is not None:
            return body, view
        async with self._making:  # one at a time: what others asked for meanwhile is there afterwards
            view = self._view
            body = self._bodies.get(key)
            if body is not None:
                return body, view
            # In a thread: a page of hundreds of checks would hold the loop for longer than a frame.
            body = await asyncio.to_thread(_encoded, make, view)
            if view is self._view:
                if len(self._bodies) >= _KEPT:
                    del self._bodies[next(iter(self._bodies))]
                self._bodies[key] = body
        return body, view


def _encoded(make: Make, view: HealthView) -> bytes:
    return json.dumps(make(view), ensure_ascii=True, separators=(",", ":")).encode()
