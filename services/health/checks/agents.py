"""Checks of the agents: all of them in one round over the mirror, not one probe each.

A round reads every agent in one query and every bundle that is new to it; then it tries the hosts that
agents point at (see `endpoints`), asks after what they refer to (see `references`) and which of their
versions are used (see `releases`), all of it seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from services.agents.bundles import decode_parts
from services.clock import Clock
from services.errors import ServiceError
from services.health.checks.connections import DATABASE
from services.health.checks.endpoints import Endpoints, Host, host_of
from services.health.checks.needs import Needs, read_needs
from services.health.checks.references import References
from services.health.checks.releases import (
    Problem,
    Releases,
    number_words,
    problems,
    release_words,
    target_problem,
)
from services.health.model import CheckKind, CheckSpec, HealthState, Reading
from services.health.plan import Group
from services.model import ConnectionInfo, Drift, Provider, SyncStatus
from services.providers import VENDOR_NAMES
from services.resilience import time_left
from services.storage import Reader
from services.text import clean_line

GROUP: Final = "agents"
PART: Final = 400
"""Bundles read in one query."""
MISSED: Final = 2
"""Times the age at which a mirror is stale after which it counts: a whole sync was missed by then."""
LEFT_MS: Final = 24 * 3_600_000
"""After which work on one side alone counts as left lying; until then somebody is just at it."""
OF_ENGINES: Final = ("node", "state", "function", "local component", "local MCP server")
"""What a Retell engine holds itself and refers to."""

_AGENTS: Final = """
SELECT a.id, a.name, c.name, a.connection_id, n.provider, a.status, a.drift, a.release, a.checked_at,
       a.error_category, a.error_message, a.error_advice, a.remote_bundle_id, a.remote_id
FROM agent a JOIN connection n ON n.id = a.connection_id JOIN company c ON c.id = n.company_id
WHERE a.gone_at IS NULL
"""

# Apart from the others: the time stands behind the content, which only few of them need be read for.
_DRIFTED: Final = """
SELECT a.id, b.created_at
FROM agent a JOIN bundle b
  ON b.id = CASE a.drift WHEN 'local_ahead' THEN a.local_bundle_id ELSE a.remote_bundle_id END
WHERE a.gone_at IS NULL AND a.drift IN ('local_ahead', 'remote_ahead')
"""


@dataclass(frozen=True, slots=True)
class AgentRow:
    """One agent of the mirror, as far as its health goes."""

    id: int
    name: str
    company: str
    connection_id: int
    provider: Provider
    status: SyncStatus
    drift: Drift
    release: str
    checked_at: int | None
    error_category: str | None
    error_message: str | None
    error_advice: str | None
    bundle_id: int | None
    remote_id: str = ""
    drifted_at: int | None = None
    """When the side that is ahead came to be as it is; None where neither is."""

    @property
    def check_id(self) -> str:
        return f"agent:{self.id}"

    @property
    def connection_check(self) -> str:
        return f"provider:{self.company}/{self.provider}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with an agent."""

    message: str
    advice: str
    category: str = "permanent"


@dataclass(frozen=True, slots=True)
class Release:
    """Which version of an agent there is, what is wrong with those that are used, and by which numbers."""

    words: str = ""
    problems: tuple[Problem, ...] = ()
    numbers: tuple[str, ...] = ()


class AgentRounds:
    """Reads the mirror, round by round. Belongs to one event loop."""

    def __init__(
        self,
        reader: Reader,
        connections: Callable[[], Awaitable[Sequence[ConnectionInfo]]],
        endpoints: Endpoints,
        references: References | None,
        releases: Releases | None,
        clock: Clock,
        *,
        interval: float,
        failures: int,
        stale_after_ms: int,
        simulated: Callable[[ConnectionInfo], bool],
    ) -> None:
        self._reader = reader
        self._connections = connections
        self._endpoints = endpoints
        self._references = references
        self._releases = releases
        self._clock = clock
        self._interval = interval
        self._failures = failures
        self._stale_after_ms = stale_after_ms
        self._simulated = simulated
        self._needs: dict[int, Needs] = {}

    def group(self) -> Group:
        return Group(GROUP, self._interval, self.run)

    async def specs(self) -> list[CheckSpec]:
        """A check for every agent that its vendor has."""
        return await asyncio.to_thread(self._specs)

    def _specs(self) -> list[CheckSpec]:
        return [
            CheckSpec(
                id=row.check_id,
                kind=CheckKind.AGENT,
                name=clean_line(row.name),
                probe=partial(self._one, row.check_id),
                company=row.company,
                interval=self._interval,
                failure_threshold=self._failures,
                depends_on=(row.connection_check, DATABASE),
                critical=False,
                group=GROUP,
            )
            for row in self._rows()
        ]

    def _rows(self) -> list[AgentRow]:
        try:
            rows = self._reader.rows(_AGENTS)
            drifted = dict(self._reader.rows(_DRIFTED))
        except ServiceError as error:
            if error.code == "missing_table":
                return []
            raise
        return [_row(row, drifted.get(row[0])) for row in rows]

    async def _one(self, check_id: str) -> Reading:
        return dict(await self.run())[check_id]

    async def run(self) -> list[tuple[str, Reading]]:
        """A reading of every agent. Raises ServiceError when the mirror cannot be read."""
        connections = {each.id: each for each in await self._connections()}

        def read() -> tuple[list[AgentRow], set[Host], dict[int, dict[str, Needs]], dict[int, set[str]]]:
            rows = self._read()
            hosts = {host for needs in self._needs.values() for host in _hosts(needs)}
            return rows, hosts, *self._by_connection(rows)

        rows, hosts, agents, here = await asyncio.to_thread(read)
        await for_a_while(self._endpoints.look(hosts))
        looks: list[Awaitable[None]] = []
        if self._references is not None:
            looks.append(self._references.look(connections, agents, here))
        if self._releases is not None:
            looks.append(self._releases.look(connections, agents))
        await for_a_while(_all(looks))
        simulated = {key for key, each in connections.items() if self._simulated(each)}
        return await asyncio.to_thread(self._judge, rows, simulated)

    def _read(self) -> list[AgentRow]:
        rows = self._rows()
        providers = {row.bundle_id: row.provider for row in rows if row.bundle_id is not None}
        self._needs = {key: needs for key, needs in self._needs.items() if key in providers}
        new = [key for key in providers if key not in self._needs]
        for start in range(0, len(new), PART):
            part = new[start : start + PART]
            marks = ", ".join("?" for _ in part)
            for key, content in self._reader.rows(
                f"SELECT id, content FROM bundle WHERE id IN ({marks})",  # noqa: S608  # only marks
                part,
            ):
                self._needs[key] = read_needs(providers[key], decode_parts(content))
        return rows

    def _by_connection(
        self, rows: Sequence[AgentRow]
    ) -> tuple[dict[int, dict[str, Needs]], dict[int, set[str]]]:
        """By connection and the vendor's id what each agent refers to, and which agents there are."""
        agents: dict[int, dict[str, Needs]] = {}
        here: dict[int, set[str]] = {}
        for row in rows:
            here.setdefault(row.connection_id, set()).add(row.remote_id)
            needs = self._needs.get(row.bundle_id) if row.bundle_id is not None else None
            if needs is not None:
                agents.setdefault(row.connection_id, {})[row.remote_id] = needs
        return agents, here

    def _judge(self, rows: Sequence[AgentRow], simulated: set[int]) -> list[tuple[str, Reading]]:
        now = self._clock.now()
        found = []
        for row in rows:
            needs = self._needs.get(row.bundle_id or 0, Needs())
            gone = self._references.gone(row.connection_id, needs) if self._references else []
            release = self._release(row, needs)
            reading = judge(row, needs, gone, self._endpoints, now, self._stale_after_ms, release)
            if row.connection_id in simulated:
                reading = _simulated(reading)
            found.append((row.check_id, reading))
        return found

    def _release(self, row: AgentRow, needs: Needs) -> Release:
        releases = self._releases
        if releases is None or row.provider is not Provider.RETELL:
            return Release(row.release)
        use = releases.use(row.connection_id, row.remote_id)
        found = list(problems(needs, use))
        for target in sorted(needs.targets, key=lambda target: target.agent_id):
            problem = target_problem(target, releases.use(row.connection_id, target.agent_id))
            if problem is not None:
                found.append(problem)
        return Release(release_words(needs, use, row.release), tuple(found), tuple(number_words(needs, use)))


async def _all(looks: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*looks)


async def for_a_while(look: Awaitable[None]) -> None:
    """Look outside for half of the time that the round has left: what was not reached is for the next one.

    A round that waited for hosts that never answer would say nothing about any agent.
    """
    left = time_left()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(left / 2 if left < math.inf else None):
            await look


def _row(row: Sequence[Any], drifted_at: int | None) -> AgentRow:
    return AgentRow(
        row[0],
        row[1],
        row[2],
        row[3],
        Provider(row[4]),
        SyncStatus(row[5]),
        Drift(row[6]),
        *(*row[7:14], drifted_at),
    )


def judge(
    row: AgentRow,
    needs: Needs,
    gone: Sequence[tuple[str, str]],
    endpoints: Endpoints,
    now: int,
    stale_after_ms: int,
    release: Release | None = None,
) -> Reading:
    """How an agent is: degraded by whatever is wrong with it, the gravest told first.

    Nothing here finds an agent down: whether it answers is for its vendor to say. What was never synced is
    not known.
    """
    webhooks, tools = _reach(needs.webhooks, endpoints), _reach(needs.tool_urls, endpoints)
    release = release or Release(row.release)
    findings = [*_of_sync(row), *_of_references(row, needs, gone)]
    findings += [Finding(message, advice) for message, advice in release.problems]
    findings += [*_of_hosts(webhooks, tools), *_of_mirror(row, now, stale_after_ms)]
    facts = _facts(row, needs, webhooks, tools, release)
    if row.checked_at is None and not findings:
        return Reading(HealthState.PENDING, "not synced yet", "Press s on the agents screen", facts=facts)
    if findings:
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        facts += tuple(("also", each.message) for each in findings[1:])
        message = first.message + more
        return Reading(HealthState.DEGRADED, message, first.advice, first.category, facts=facts)
    words = [f"mirror {_coarse(now - (row.checked_at or now))}"]
    if any(ok for ok, _ in webhooks.values()):
        words.append("webhook reachable")
    if needs.tools:
        words.append(f"{needs.tools} {'tool' if needs.tools == 1 else 'tools'}")
    return Reading(HealthState.UP, " · ".join(words), facts=facts)


def _of_sync(row: AgentRow) -> list[Finding]:
    if row.status is not SyncStatus.ERROR:
        return []
    message = row.error_message or "The last sync of it failed"
    return [Finding(message, row.error_advice or "Sync it again", row.error_category or "permanent")]


def _of_references(row: AgentRow, needs: Needs, gone: Sequence[tuple[str, str]]) -> list[Finding]:
    vendor = VENDOR_NAMES[row.provider]
    advice = f"Choose another one in the agent's settings at {vendor}, or remove the reference"
    found = []
    for word, one in (*needs.missing, *gone):
        does = "hands over to" if word == "agent" else "uses"
        whose = "its own engine" if word in OF_ENGINES else vendor
        found.append(Finding(f"It {does} the {word} {clean_line(one)}, which {whose} does not have", advice))
    return found


Reach = Mapping[Host, tuple[bool | None, str]]


def _reach(urls: frozenset[str], endpoints: Endpoints) -> Reach:
    found: dict[Host, tuple[bool | None, str]] = {}
    for url in sorted(urls):
        host = host_of(url)
        if host is not None:
            known = endpoints.known(host)
            found[host] = (known.ok, known.remark)
    return found


def _of_hosts(webhooks: Reach, tools: Reach) -> list[Finding]:
    found = []
    for what, hosts in (("webhook", webhooks), ("tool", tools)):
        for host, (ok, remark) in hosts.items():
            if ok is False:
                message = f"Its {what} host {host} cannot be used: {remark}"
                advice = "Check that the service runs, or correct the address in the agent's settings"
                found.append(Finding(message, advice, "transient"))
    return found


def _of_mirror(row: AgentRow, now: int, stale_after_ms: int) -> list[Finding]:
    found = []
    if row.drift is Drift.CONFLICT:
        advice = "Open the agent and decide which of the two counts"
        found.append(Finding("It was changed here and at the vendor", advice))
    elif row.drifted_at is not None and now - row.drifted_at >= LEFT_MS:
        age, vendor = _coarse(now - row.drifted_at), VENDOR_NAMES[row.provider]
        if row.drift is Drift.LOCAL_AHEAD:
            message = f"Its edits made here are {age} and not at {vendor}"
            found.append(Finding(message, "Push them, or drop them"))
        elif row.drift is Drift.REMOTE_AHEAD:
            message = f"What was changed at {vendor} is {age} and not taken over here"
            found.append(Finding(message, "Open the agent and take it over, or push what is here"))
    if row.checked_at is not None and now - row.checked_at > MISSED * stale_after_ms:
        old = _coarse(now - row.checked_at)
        found.append(Finding(f"Its mirror is {old}", "Sync it; look why no sync did (callboard runs)"))
    return found


def _facts(
    row: AgentRow, needs: Needs, webhooks: Reach, tools: Reach, release: Release
) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = [("mirror", _moment(row.checked_at))]
    if row.drift not in (Drift.IN_SYNC, Drift.UNKNOWN):
        facts.append(("drift", row.drift.value.replace("_", " ")))
    if release.words:
        facts.append(("release", release.words))
    facts += [("number", words) for words in release.numbers]
    for label, hosts in (("webhook", webhooks), ("tool host", tools)):
        for host, (ok, remark) in hosts.items():
            facts.append((label, f"{host}: {'reachable' if ok else remark}"))
    if needs.tools:
        facts.append(("tools", str(needs.tools)))
    if needs.documents:
        facts.append(("knowledge", f"{len(needs.documents)} referred to"))
    return tuple(facts)


def _hosts(needs: Needs) -> set[Host]:
    found = (host_of(url) for url in (*needs.webhooks, *needs.tool_urls))
    return {host for host in found if host is not None}


def _moment(at: int | None) -> str:
    if at is None:
        return "never read"
    return f"as of {datetime.fromtimestamp(at / 1000, tz=UTC):%Y-%m-%d %H:%M} UTC"


def _coarse(age_ms: int) -> str:
    """An age that does not change by the minute, since a changed text is stored again."""
    hours = age_ms // 3_600_000
    if hours < 1:
        return "fresh"
    return f"{hours} h old" if hours < 48 else f"{hours // 24} days old"


def _simulated(reading: Reading) -> Reading:
    return replace(reading, simulated=True)
