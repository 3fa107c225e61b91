"""Which agents a sync must read: a pure decision over the mirror and the vendor's list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.model import SyncStatus


class Verdict(StrEnum):
    """What a vendor's list says about an agent we have mirrored."""

    SAME = "same"
    CHANGED = "changed"
    SILENT = "silent"
    """The list carries no modification time (ElevenLabs)."""


class Action(StrEnum):
    """What is done about an agent."""

    READ = "read"
    VERIFIED = "verified"
    """The list proves the mirror right: only the time of the check is written."""
    FRESH = "fresh"
    """Read recently enough; the list says nothing, and nothing is written."""
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What the mirror knows of an agent before a sync."""

    id: int
    remote_id: str
    name: str
    status: SyncStatus
    marker: str
    """What the list said when the agent was last read; empty when it never was, or the read failed."""
    checked_at: int | None
    gone_at: int | None
    digest: str | None
    has_bundle: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """One agent as the vendor's list shows it."""

    remote_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """The decision about one agent and the reason in words."""

    remote_id: str
    name: str
    action: Action
    reason: str
    mirrored: Mirrored | None


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one run. Times are epoch milliseconds."""

    now: int
    stale_after_ms: int
    force: bool = False
    settled_since: int | None = None
    """A resumed run: agents checked at or after this time are done."""


def needs_sync(mirrored: Mirrored, rules: Rules) -> bool:
    """Whether the last check is older than the configured hour. A clock set back counts as stale."""
    if mirrored.checked_at is None:
        return True
    elapsed = rules.now - mirrored.checked_at
    return elapsed >= rules.stale_after_ms or elapsed < 0


def decide(listed: Listed, mirrored: Mirrored | None, verdict: Verdict, rules: Rules) -> Step:
    """What to do about one agent that the vendor lists."""

    def step(action: Action, reason: str) -> Step:
        return Step(listed.remote_id, listed.name, action, reason, mirrored)

    if mirrored is None:
        return step(Action.READ, "new at the vendor")
    if not mirrored.has_bundle or not mirrored.marker or mirrored.gone_at is not None:
        return step(Action.READ, "not read completely before")
    checked = mirrored.checked_at
    if (
        rules.settled_since is not None
        and checked is not None
        and rules.settled_since <= checked <= rules.now
    ):
        return step(Action.FRESH, "done before the run was stopped")
    if rules.force:
        return step(Action.READ, "forced")
    if verdict is Verdict.CHANGED:
        return step(Action.READ, "changed at the vendor")
    if verdict is Verdict.SAME:
        return step(Action.VERIFIED, "the vendor's list shows no change")
    if needs_sync(mirrored, rules):
        return step(Action.READ, "last check too long ago")
    return step(Action.FRESH, "checked recently")


def plan(
    listed: Mapping[str, Listed],
    mirrored: Mapping[str, Mirrored],
    verdicts: Mapping[str, Verdict],
    rules: Rules,
    only: frozenset[str] | None = None,
) -> list[Step]:
    """The steps of one connection, in the list's order, then the agents that are gone.

    `only` limits the run to these vendor ids. An agent already marked gone and still missing needs
    nothing and is left out.
    """
    steps = [
        decide(agent, mirrored.get(remote_id), verdicts.get(remote_id, Verdict.SILENT), rules)
        for remote_id, agent in listed.items()
        if only is None or remote_id in only
    ]
    for remote_id, agent in mirrored.items():
        if remote_id not in listed and agent.gone_at is None and (only is None or remote_id in only):
            steps.append(Step(remote_id, agent.name, Action.GONE, "no longer at the vendor", agent))
    return steps


def certain_reads(
    mirrored: Mapping[str, Mirrored], rules: Rules, only: frozenset[str] | None = None
) -> int | None:
    """How many agents will be read whatever the list says; None when nothing is mirrored yet."""
    if not mirrored:
        return None
    in_scope = [agent for agent in mirrored.values() if only is None or agent.remote_id in only]
    return sum(
        decide(Listed(agent.remote_id, agent.name), agent, Verdict.SILENT, rules).action is Action.READ
        for agent in in_scope
    )
