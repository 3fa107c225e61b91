"""Health as bytes to send: made once for each view, however many ask. Belongs to one event loop.

Everything is made on the loop, what is long in slices: a thread that computes takes the interpreter from
the loop for 5 ms at a time, over and over.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final, Protocol

from app.check_json import check_document
from services.clock import Clock
from services.errors import ServiceError
from services.health.model import CheckView, HealthView, Overall

LEAST_AGE: Final = 0.2
"""Seconds for which a view is used again: making one looks at every check."""
_KEPT: Final = 64
_SLICE: Final = 20
"""Checks encoded before others have their turn on the loop."""

log = logging.getLogger(__name__)

Make = Callable[[HealthView], dict[str, Any]]


class HealthSource(Protocol):
    """What the API needs of the health service."""

    def view(self) -> HealthView: ...
    def ready(self) -> bool | Awaitable[bool]:
        """Whether the program can do its work."""


class Answers:
    """The latest view, and the documents made of it."""

    def __init__(self, health: HealthSource | None, clock: Clock) -> None:
        self._health = health
        self._clock = clock
        self._view = HealthView(
            Overall.DEGRADED, "Nothing is watched in this process", (), None, started=False
        )
        self._looked_at: float | None = None
        self._bodies: dict[Hashable, bytes] = {}
        self._encoded: dict[str, tuple[CheckView, str]] = {}

    def view(self) -> HealthView:
        """The view in force, at most `LEAST_AGE` old."""
        now = self._clock.monotonic()
        if self._health is not None and (self._looked_at is None or now - self._looked_at >= LEAST_AGE):
            found = self._health.view()
            self._looked_at = now
            if found is not self._view:
                self._view = found
                self._bodies.clear()
                if len(self._encoded) > 2 * len(found.checks) + _SLICE:
                    self._encoded.clear()  # most are of checks that are gone
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

    def body(self, key: Hashable, make: Make) -> tuple[bytes, HealthView]:
        """What `make` gives for the view in force, as JSON, and that view.

        `key` names the document and its parameters.
        """
        view = self.view()
        body = self._bodies.get(key)
        if body is None:
            body = json.dumps(make(view), separators=(",", ":")).encode()
            self._keep(key, body)
        return body, view

    async def page(
        self, key: Hashable, head: Make, member: str, select: Callable[[HealthView], Sequence[CheckView]]
    ) -> bytes:
        """The document that `head` gives, with the selected checks as its `member`."""
        view = self.view()
        body = self._bodies.get(key)
        if body is None:
            checks = await self._encode(select(view))
            text = json.dumps(head(view), separators=(",", ":"))
            body = f'{text[:-1]},"{member}":[{checks}]}}'.encode()
            if view is self._view:
                self._keep(key, body)
        return body

    async def _encode(self, checks: Sequence[CheckView]) -> str:
        """The checks as JSON; one that is the same object as before is not encoded again."""
        texts, made = [], 0
        for check in checks:
            kept = self._encoded.get(check.id)
            if kept is None or kept[0] is not check:
                kept = (check, json.dumps(check_document(check), separators=(",", ":")))
                self._encoded[check.id] = kept
                made += 1
                if made % _SLICE == 0:
                    await asyncio.sleep(0)
            texts.append(kept[1])
        return ",".join(texts)

    def _keep(self, key: Hashable, body: bytes) -> None:
        if len(self._bodies) >= _KEPT:
            del self._bodies[next(iter(self._bodies))]
        self._bodies[key] = body
