"""Whether what agents refer to exists at the vendor: voices and knowledge bases.

The mirror holds neither, so the vendor is asked, seldom and for all agents of a connection together: Retell
for its two lists, ElevenLabs for its list of just these voices, and one by one for documents (it lists them
only with their folders) and for voices that are not in the list: an agent may speak with one of the public
library. What the vendor does not say (no permission, no such list, an outage) is not known, and nobody's
fault.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.clock import Clock
from services.companies import ConnectionClients
from services.errors import ServiceError
from services.health.checks.needs import Needs
from services.model import ConnectionInfo, Provider
from services.providers import ElevenLabsClient, RetellClient

FRESH: Final = 1800.0
"""Seconds for which an answer holds."""
DOUBTED: Final = 300.0
"""The same for something that was not there."""
MOST: Final = 20
"""Documents, and voices outside of the list, that are asked for in one round."""
AT_ONCE: Final = 4


Asked = dict[str, tuple[bool | None, float]]
"""By id: whether it is there (None: not known), and when that was asked."""


@dataclass(slots=True)
class _Known:
    """What is known of one connection; times are monotonic seconds."""

    voices: frozenset[str] | None = None
    bases: frozenset[str] | None = None
    listed_at: float | None = None
    documents: Asked = field(default_factory=dict)
    own_voices: Asked = field(default_factory=dict)


class References:
    """Remembers what exists at the vendors. Belongs to one event loop."""

    def __init__(self, clients: ConnectionClients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._known: dict[int, _Known] = {}

    def gone(self, connection_id: int, needs: Needs) -> list[tuple[str, str]]:
        """What it refers to and does not exist, as a word for it and the vendor's id; asks nobody."""
        known = self._known.get(connection_id)
        if known is None:
            return []
        found = []
        if known.voices is not None:
            found += [("voice", one) for one in sorted(needs.voices - known.voices)]
        if known.bases is not None:
            found += [("knowledge base", one) for one in sorted(needs.documents - known.bases)]
        for word, wanted, asked in (
            ("voice", needs.voices, known.own_voices),
            ("document", needs.documents, known.documents),
        ):
            found += [(word, one) for one in sorted(wanted) if asked.get(one, (None, 0.0))[0] is False]
        return found

    async def look(self, connections: Mapping[int, ConnectionInfo], needs: Mapping[int, list[Needs]]) -> None:
        """Ask where nothing recent is known. Never raises a ServiceError."""
        self._known = {key: known for key, known in self._known.items() if key in connections}
        await asyncio.gather(
            *(self._look(connection, needs.get(key, ())) for key, connection in connections.items())
        )

    async def _look(self, connection: ConnectionInfo, needs: Iterable[Needs]) -> None:
        known = self._known.setdefault(connection.id, _Known())
        try:
            client = await self._clients.client(connection)
        except ServiceError:
            return  # the connection's own check says so
        if client.provider is Provider.RETELL:
            await self._list(client, known)  # type: ignore[arg-type]  # the provider tells which
        else:
            each = list(needs)
            await self._voices(client, known, _all(one.voices for one in each))  # type: ignore[arg-type]
            await self._documents(client, known, _all(one.documents for one in each))  # type: ignore[arg-type]

    async def _list(self, client: RetellClient, known: _Known) -> None:
        now = self._clock.monotonic()
        if known.listed_at is not None and now - known.listed_at < FRESH:
            return
        known.listed_at = now
        voices, bases = await asyncio.gather(
            client.voice_ids(), client.knowledge_base_ids(), return_exceptions=True
        )
        known.voices, known.bases = _or_unknown(voices), _or_unknown(bases)

    async def _documents(self, client: ElevenLabsClient, known: _Known, wanted: frozenset[str]) -> None:
        known.documents = {one: found for one, found in known.documents.items() if one in wanted}
        due = self._due(known.documents, wanted)
        await self._each(due, client.knowledge_document, known.documents)

    async def _voices(self, client: ElevenLabsClient, known: _Known, wanted: frozenset[str]) -> None:
        known.own_voices = {one: found for one, found in known.own_voices.items() if one in wanted}
        due, now = self._due(known.own_voices, wanted), self._clock.monotonic()
        if not due:
            return
        try:
            listed = await client.known_voices(due)
        except ServiceError:
            known.own_voices.update(dict.fromkeys(due, (None, now)))
            return
        known.own_voices.update(dict.fromkeys(listed, (True, now)))
        await self._each([one for one in due if one not in listed], client.voice, known.own_voices)

    def _due(self, asked: Asked, wanted: frozenset[str]) -> list[str]:
        """What is to be asked for again; what was asked for longest ago, or never, first."""
        now = self._clock.monotonic()
        due = [one for one in wanted if _is_due(asked.get(one), now)]
        return sorted(due, key=lambda one: (asked[one][1] if one in asked else -math.inf, one))

    async def _each(self, ids: Sequence[str], ask: Callable[[str], Awaitable[object]], asked: Asked) -> None:
        """Ask for one after the other, a few at a time and not more than `MOST`; keep what was found."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            there: bool | None = True
            async with places:
                try:
                    await ask(name)
                except ServiceError as error:
                    there = False if error.code == "not_found" else None
            asked[name] = (there, self._clock.monotonic())

        await asyncio.gather(*(one(name) for name in ids[:MOST]))


def _all(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)


def _is_due(found: tuple[bool | None, float] | None, now: float) -> bool:
    return found is None or now - found[1] >= (FRESH if found[0] else DOUBTED)


def _or_unknown(answer: frozenset[str] | BaseException) -> frozenset[str] | None:
    if isinstance(answer, BaseException):
        if not isinstance(answer, ServiceError):
            raise answer
        return None
    return answer
