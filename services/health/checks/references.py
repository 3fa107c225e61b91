"""Whether what agents refer to exists at the vendor: voices, documents, tools, secrets, other agents.

The mirror holds none of these but the agents, so the vendor is asked, seldom and for all agents of a
connection together: for those of its lists that any agent refers to; ElevenLabs for its list of just these
voices; and one by one for documents (it lists them only with their folders), for voices that are not in the
list (an agent may speak with one of the public library) and for agents that the mirror does not have. What
the vendor does not say (no permission, no such list, an outage) is not known, and nobody's fault.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from services.clock import Clock
from services.companies import ConnectionClients
from services.errors import ServiceError
from services.health.checks.needs import Needs
from services.model import ConnectionInfo, Provider
from services.providers import ElevenLabsClient

FRESH: Final = 1800.0
"""Seconds for which an answer holds."""
DOUBTED: Final = 300.0
"""The same for something that was not there, or was not said."""
MOST: Final = 20
"""Documents, voices outside of the list, agents outside of the mirror that are asked for in one round."""
AT_ONCE: Final = 4


Asked = dict[str, tuple[bool | None, float]]
"""By id: whether it is there (None: not known), and when that was asked."""

Ids = Callable[[], Awaitable[frozenset[str]]]


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a vendor lists with one short question: the word for it, those a bundle names, the question."""

    word: str
    of: Callable[[Needs], frozenset[str]]
    ids: Callable[[Any], Ids]


_LISTED: Final[Mapping[Provider, Sequence[_Listed]]] = {
    Provider.RETELL: (
        _Listed("voice", attrgetter("voices"), attrgetter("voice_ids")),
        _Listed("knowledge base", attrgetter("documents"), attrgetter("knowledge_base_ids")),
        _Listed("component", attrgetter("components"), attrgetter("component_ids")),
    ),
    Provider.ELEVENLABS: (
        _Listed("tool", attrgetter("tool_ids"), attrgetter("tool_ids")),
        _Listed("MCP server", attrgetter("mcp_servers"), attrgetter("mcp_server_ids")),
        _Listed("secret", attrgetter("secrets"), attrgetter("secret_ids")),
        _Listed("connection to another service", attrgetter("logins"), attrgetter("login_ids")),
        _Listed("webhook", attrgetter("hooks"), attrgetter("webhook_ids")),
    ),
}


@dataclass(frozen=True, slots=True)
class _Answer:
    """A list as the vendor told it. `ids` is None where it does not; `missing`: what was wanted then."""

    ids: frozenset[str] | None
    missing: frozenset[str]
    at: float

    def is_due(self, wanted: frozenset[str], now: float) -> bool:
        """Whether to ask for it again."""
        if self.ids is not None and not wanted - self.ids <= self.missing:
            return True
        return now - self.at >= (DOUBTED if self.ids is None or self.missing else FRESH)


@dataclass(slots=True)
class _Known:
    """What is known of one connection; times are monotonic seconds."""

    provider: Provider
    lists: dict[str, _Answer] = field(default_factory=dict)
    """By the word for what is listed."""
    documents: Asked = field(default_factory=dict)
    own_voices: Asked = field(default_factory=dict)
    agents: Asked = field(default_factory=dict)
    """Those that others hand over to and the mirror does not have."""


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
        for listed in _LISTED[known.provider]:
            answer = known.lists.get(listed.word)
            if answer is not None and answer.ids is not None:
                found += [(listed.word, one) for one in sorted(listed.of(needs) - answer.ids)]
        for word, wanted, asked in (
            ("voice", needs.voices, known.own_voices),
            ("document", needs.documents, known.documents),
            ("agent", {target.agent_id for target in needs.targets}, known.agents),
        ):
            found += [(word, one) for one in sorted(wanted) if asked.get(one, (None, 0.0))[0] is False]
        return found

    async def look(
        self,
        connections: Mapping[int, ConnectionInfo],
        agents: Mapping[int, Mapping[str, Needs]],
        here: Mapping[int, Collection[str]],
    ) -> None:
        """Ask where nothing recent is known; may be cancelled. Never raises a ServiceError.

        `agents`: by connection, what each agent refers to; `here`: the agents that the mirror has.
        """
        self._known = {key: known for key, known in self._known.items() if key in connections}
        await asyncio.gather(
            *(
                self._look(connection, list(agents.get(key, {}).values()), here.get(key, ()))
                for key, connection in connections.items()
            )
        )

    async def _look(self, connection: ConnectionInfo, needs: Sequence[Needs], here: Collection[str]) -> None:
        known = self._known.setdefault(connection.id, _Known(connection.provider))
        try:
            client = await self._clients.client(connection)
        except ServiceError:
            return  # the connection's own check says so
        await self._lists(client, known, needs)
        targets = frozenset(target.agent_id for each in needs for target in each.targets)
        elsewhere = targets.difference(here)
        known.agents = {one: found for one, found in known.agents.items() if one in elsewhere}
        await self._each(self._due(known.agents, elsewhere), client.agent, known.agents)
        if isinstance(client, ElevenLabsClient):
            await self._voices(client, known, _all(one.voices for one in needs))
            await self._documents(client, known, _all(one.documents for one in needs))

    async def _lists(self, client: Any, known: _Known, needs: Sequence[Needs]) -> None:
        """Ask for the lists that anybody refers to.

        Something that a list does not have, and nobody missed before, may be younger than the list.
        """
        now = self._clock.monotonic()
        due, missed = [], {}
        for listed in _LISTED[known.provider]:
            wanted = _all(listed.of(each) for each in needs)
            before = known.lists.get(listed.word)
            if wanted and (before is None or before.is_due(wanted, now)):
                due.append(listed)
                missed[listed.word] = wanted
        answers = await asyncio.gather(*(listed.ids(client)() for listed in due), return_exceptions=True)
        for listed, answer in zip(due, answers, strict=True):
            ids = _or_unknown(answer)
            missing = missed[listed.word] - ids if ids is not None else frozenset[str]()
            known.lists[listed.word] = _Answer(ids, missing, now)

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
