"""Whether what agents refer to exists at the vendor: voices and knowledge bases.

The mirror holds neither, so the vendor is asked, seldom and for all agents of a connection together. What
the vendor does not say (no permission, no such list, an outage) is not known, and nobody's fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
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
"""The same for a document that was not there."""
MOST: Final = 20
"""Documents that are asked for in one round at ElevenLabs, which lists them only with their folders."""
AT_ONCE: Final = 4


@dataclass(slots=True)
class _Known:
    """What is known of one connection; times are monotonic seconds."""

    voices: frozenset[str] | None = None
    bases: frozenset[str] | None = None
    listed_at: float | None = None
    documents: dict[str, tuple[bool | None, float]] = field(default_factory=dict)


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
        for one in sorted(needs.documents):
            if known.documents.get(one, (None, 0.0))[0] is False:
                found.append(("document", one))
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
            wanted = frozenset[str]().union(*(each.documents for each in needs))
            await self._documents(client, known, wanted)  # type: ignore[arg-type]

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
        now = self._clock.monotonic()
        known.documents = {one: found for one, found in known.documents.items() if one in wanted}
        due = [one for one in sorted(wanted) if _is_due(known.documents.get(one), now)]
        places = asyncio.Semaphore(AT_ONCE)

        async def one(document_id: str) -> None:
            there: bool | None = True
            async with places:
                try:
                    await client.knowledge_document(document_id)
                except ServiceError as error:
                    there = False if error.code == "not_found" else None
            known.documents[document_id] = (there, now)

        await asyncio.gather(*(one(document_id) for document_id in due[:MOST]))


def _is_due(found: tuple[bool | None, float] | None, now: float) -> bool:
    return found is None or now - found[1] >= (FRESH if found[0] else DOUBTED)


def _or_unknown(answer: frozenset[str] | BaseException) -> frozenset[str] | None:
    if isinstance(answer, BaseException):
        if not isinstance(answer, ServiceError):
            raise answer
        return None
    return answer
