"""Which version of a Retell agent is met by those who call, and whether it should be.

A version is a draft until it is published; from then on it never changes. A number, or another agent that
hands over, names a version, or none, which is the newest one: the draft, if there is one. A draft ahead of
what is published is somebody's work and nothing is wrong with it. What is wrong: something is used that was
never published, a version is named that does not exist, a number goes on with an older version than the one
that is published. An agent that neither a number nor another agent leads to may be unpublished as long as it
likes; that a program of somebody's calls it cannot be seen.

What an agent's list of versions says is asked for only where it decides something, seldom. What the vendor
does not say (no permission, an outage) is not known, and nobody's fault. ElevenLabs has no numbers: its
branches publish with every change.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.clock import Clock
from services.companies import ConnectionClients
from services.errors import ServiceError
from services.health.checks.needs import Needs, Target, Version, version_of
from services.model import ConnectionInfo, Provider
from services.providers import RetellClient

FRESH: Final = 900.0
"""Seconds for which the list of numbers, and of an agent's versions, holds."""
DOUBTED: Final = 45.0
"""The same for versions among which one is missing that is used: it may be younger than the list."""
MOST: Final = 20
"""Agents whose versions are asked for in one round."""
AT_ONCE: Final = 4

_USES: Final = (
    ("inbound_agents", "is answered by"),
    ("outbound_agents", "calls with"),
    ("inbound_sms_agents", "answers messages with"),
    ("outbound_sms_agents", "writes with"),
)
"""Members of a number in the vendor's schema, and what the number does then."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One number that leads to an agent."""

    number: str
    does: str
    version: Version = None


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of one agent, and those of them that are published."""

    there: frozenset[int]
    published: frozenset[int]


@dataclass(frozen=True, slots=True)
class Use:
    """Everything known of how one agent is used. `versions` is None where it was not asked or not said."""

    bindings: tuple[Binding, ...] = ()
    handed: tuple[Version, ...] = ()
    """The versions that other agents hand over to."""
    tags: Mapping[str, int] = field(default_factory=dict)
    versions: Versions | None = None


UNUSED: Final = Use()

Problem = tuple[str, str]
"""What is wrong, and what to do about it."""


@dataclass(slots=True)
class _Known:
    """What is known of one connection; times are monotonic seconds."""

    numbers: Mapping[str, tuple[Binding, ...]] | None = None
    tags: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    listed_at: float | None = None
    versions: dict[str, tuple[Versions | None, float]] = field(default_factory=dict)
    handed: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)


class Releases:
    """Remembers how agents are used. Belongs to one event loop."""

    def __init__(self, clients: ConnectionClients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._known: dict[int, _Known] = {}

    def use(self, connection_id: int, remote_id: str) -> Use:
        """How this agent is used, as far as it is known; asks nobody."""
        known = self._known.get(connection_id)
        if known is None:
            return UNUSED
        return Use(
            (known.numbers or {}).get(remote_id, ()),
            known.handed.get(remote_id, ()),
            known.tags.get(remote_id, {}),
            known.versions.get(remote_id, (None, 0.0))[0],
        )

    async def look(
        self, connections: Mapping[int, ConnectionInfo], agents: Mapping[int, Mapping[str, Needs]]
    ) -> None:
        """Ask where nothing recent is known; `agents`: by connection and the vendor's id. May be cancelled.

        Never raises a ServiceError.
        """
        wanted = {key: each for key, each in connections.items() if each.provider is Provider.RETELL}
        self._known = {key: known for key, known in self._known.items() if key in wanted}
        await asyncio.gather(*(self._look(each, agents.get(key, {})) for key, each in wanted.items()))

    async def _look(self, connection: ConnectionInfo, agents: Mapping[str, Needs]) -> None:
        known = self._known.setdefault(connection.id, _Known())
        known.handed = handed_over(agents.values())
        try:
            client = await self._clients.client(connection)
        except ServiceError:
            return  # the connection's own check says so
        assert isinstance(client, RetellClient)  # noqa: S101  # the provider tells which
        now = self._clock.monotonic()
        if known.listed_at is None or now - known.listed_at >= FRESH:
            known.listed_at = now
            await self._list(client, known)
        uses = {one: self.use(connection.id, one) for one in agents}
        known.versions = {one: found for one, found in known.versions.items() if one in agents}
        due = [
            one
            for one, needs in agents.items()
            if must_ask(needs, uses[one]) and _is_due(known.versions.get(one), uses[one], now)
        ]
        due.sort(key=lambda one: (known.versions[one][1] if one in known.versions else -math.inf, one))
        places = asyncio.Semaphore(AT_ONCE)

        async def ask(remote_id: str) -> None:
            async with places:
                found = await _versions(client, remote_id)
            known.versions[remote_id] = (found, self._clock.monotonic())

        await asyncio.gather(*(ask(one) for one in due[:MOST]))

    async def _list(self, client: RetellClient, known: _Known) -> None:
        try:
            numbers = await client.phone_numbers()
            known.numbers = bindings_of([wire.data for wire in numbers])
        except ServiceError:
            known.numbers = None
        named = (known.numbers or {}).values()
        versions = [each.version for found in named for each in found]
        versions += [version for found in known.handed.values() for version in found]
        if any(isinstance(version, str) for version in versions):
            try:
                known.tags = tags_of([wire.data for wire in await client.list_agents()])
            except ServiceError:
                known.tags = {}


def _is_due(found: tuple[Versions | None, float] | None, use: Use, now: float) -> bool:
    if found is None:
        return True
    versions, asked_at = found
    used = {_resolved(version, use) for version in (*(each.version for each in use.bindings), *use.handed)}
    missing = versions is not None and any(isinstance(one, int) and one not in versions.there for one in used)
    return now - asked_at >= (DOUBTED if missing else FRESH)


async def _versions(client: RetellClient, remote_id: str) -> Versions | None:
    try:
        found = [wire.data for wire in await client.list_agent_versions(remote_id)]
    except ServiceError:
        return None
    numbered = {each["version"]: each for each in found if isinstance(each.get("version"), int)}
    published = (number for number, each in numbered.items() if each.get("is_published") is True)
    return Versions(frozenset(numbered), frozenset(published)) if numbered else None


# -- what the vendor's documents say ----------------------------------------------------------------


def bindings_of(numbers: Iterable[Any]) -> dict[str, tuple[Binding, ...]]:
    """By agent, the numbers that lead to it. What has an unexpected shape reads as absent."""
    found: dict[str, list[Binding]] = {}
    for data in numbers:
        number = data.get("phone_number") if isinstance(data, dict) else None
        if not isinstance(number, str):
            continue
        for member, does in _USES:
            agents = data.get(member)
            for each in agents if isinstance(agents, list) else ():
                name = each.get("agent_id") if isinstance(each, dict) else None
                if isinstance(name, str) and name and each.get("weight") != 0:
                    found.setdefault(name, []).append(Binding(number, does, version_of(each)))
    return {name: tuple(each) for name, each in found.items()}


def tags_of(summaries: Iterable[Any]) -> dict[str, dict[str, int]]:
    """By agent, the version of each of its tags."""
    found: dict[str, dict[str, int]] = {}
    for data in summaries:
        tags = data.get("tags")
        for tag, value in tags.items() if isinstance(tags, dict) else ():
            version = value.get("version") if isinstance(value, dict) else None
            if isinstance(version, int):
                found.setdefault(data["agent_id"], {})[tag] = version
    return found


def handed_over(agents: Iterable[Needs]) -> dict[str, tuple[Version, ...]]:
    """By agent, the versions of it that others hand over to."""
    found: dict[str, dict[Version, None]] = {}
    for needs in agents:
        for target in needs.targets:
            found.setdefault(target.agent_id, {})[target.version] = None
    return {name: tuple(versions) for name, versions in found.items()}


# -- what follows from it ---------------------------------------------------------------------------


def must_ask(needs: Needs, use: Use) -> bool:
    """Whether only the list of its versions tells what its users meet."""
    versions = [*(each.version for each in use.bindings), *use.handed]
    named = any(version is not None for version in versions)
    # Version 0 as a draft has none before it; a published newest version is all there is to know.
    return named or (bool(versions) and needs.published is False and needs.version != 0)


def problems(needs: Needs, use: Use) -> Iterator[Problem]:
    """What is wrong with the versions of it that are met."""
    versions = known_versions(needs, use)
    if versions is None:
        return
    newest = max(versions.published, default=None)
    if newest is None and (use.bindings or use.handed):
        who = _numbers(use.bindings) or "Another agent"
        verb = "lead" if len({each.number for each in use.bindings}) > 1 else "leads"
        yield (
            f"{who} {verb} to it, and no version of it was ever published",
            "Publish it at Retell; until then every edit is heard at once",
        )
        return
    for each in use.bindings:
        number = _resolved(each.version, use)
        if not isinstance(number, int):
            continue
        where = f"{each.number} {each.does} its version {number}"
        if number not in versions.there:
            yield f"{where}, which Retell does not have", "Choose another version for the number at Retell"
        elif number not in versions.published:
            yield (
                f"{where}, which was never published",
                "Publish that version at Retell, or choose a published one for the number",
            )
        elif newest is not None and number < newest and not _newer(each, newest, use):
            yield (
                f"{where}, and version {newest} is published",
                f"Choose version {newest} for the number at Retell, if {number} is not meant to stay",
            )


def target_problem(target: Target, use: Use) -> Problem | None:
    """What is wrong with the version of another agent that is handed over to; `use`: of that other one."""
    number = _resolved(target.version, use)
    if use.versions is None or not isinstance(number, int) or number in use.versions.there:
        return None
    return (
        f"It hands over to version {number} of {target.agent_id}, which Retell does not have",
        "Choose another version of that agent in the agent's settings at Retell",
    )


def release_words(needs: Needs, use: Use, release: str) -> str:
    """The mirrored release, with what is published when that is another one."""
    versions = known_versions(needs, use)
    if versions is None or needs.published is not False:
        return release
    if not versions.published:
        return f"{release}, never published"
    return f"{release}; version {max(versions.published)} is published"


def number_words(needs: Needs, use: Use) -> list[str]:
    """Each number that leads to it, and to which version."""
    newest = "the newest version" + (", a draft" if needs.published is False else "")
    return [
        f"{each.number} {each.does} "
        + (newest if each.version is None else f"version {_resolved(each.version, use)}")
        for each in use.bindings
    ]


def known_versions(needs: Needs, use: Use) -> Versions | None:
    """Its versions, asked for or read in the mirror: a draft that is number 0 has none before it."""
    if use.versions is not None:
        return use.versions
    if needs.published is False and needs.version == 0:
        return Versions(frozenset({0}), frozenset())
    return None


def _newer(one: Binding, newest: int, use: Use) -> bool:
    """Whether the same number leads to the newest published version, too: then somebody tries it out."""
    same = (each for each in use.bindings if (each.number, each.does) == (one.number, one.does))
    versions = (_resolved(each.version, use) for each in same)
    return any(version is None or (isinstance(version, int) and version >= newest) for version in versions)


def _resolved(version: Version, use: Use) -> Version:
    """The number behind a tag; a tag that nobody knows stays one, and nothing follows from it."""
    return use.tags.get(version, version) if isinstance(version, str) else version


def _numbers(bindings: Sequence[Binding]) -> str:
    numbers = list(dict.fromkeys(each.number for each in bindings))
    more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return f"{numbers[0]}{more}" if numbers else ""
