"""The whole in one word and one sentence."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence

from services.health.board import Board
from services.health.model import CheckKind, CheckView, HealthState, HealthView, Overall

_NOUNS = {
    CheckKind.PROVIDER: ("connection", "connections"),
    CheckKind.AGENT: ("agent", "agents"),
    CheckKind.INTEGRATION: ("integration", "integrations"),
    CheckKind.ORCHESTRATOR: ("orchestrator", "orchestrators"),
    CheckKind.SYSTEM: ("system check", "system checks"),
}

_ORDER = (CheckKind.AGENT, *(kind for kind in CheckKind if kind is not CheckKind.AGENT))
"""In which dependents are told: agents are what it is all about."""


def judge(board: Board, checks: Sequence[CheckView]) -> tuple[Overall, str]:
    """How everything is, and why in one sentence (empty when healthy).

    Unhealthy while something critical is down, degraded while anything else is in trouble. What is held by
    something else, in maintenance or not yet known does not count: its cause does.
    """
    roots = [check for check in checks if not check.held_by]
    down = [check for check in roots if check.state is HealthState.DOWN]
    critical = [check for check in down if check.critical]
    if critical:
        return Overall.UNHEALTHY, _down(board, _heaviest(critical))
    if down:
        return Overall.DEGRADED, _down(board, _heaviest(down))
    degraded = [check for check in roots if check.state is HealthState.DEGRADED]
    if degraded:
        return Overall.DEGRADED, _named(board, _heaviest(degraded), "degraded")
    return Overall.HEALTHY, ""


def judge_part(board: Board, view: HealthView, check_ids: Iterable[str]) -> tuple[Overall, str]:
    """How these are by the same rule, together with what any of them waits for."""
    wanted = {check_id for check_id in check_ids if check_id in board}
    wanted |= {board.cause(check_id) for check_id in wanted}
    return judge(board, [check for check in view.checks if check.id in wanted])


def _heaviest(checks: Sequence[CheckView]) -> list[CheckView]:
    """The two on which most hangs first; the others, perhaps thousands, as they come: nobody names them."""
    first = heapq.nsmallest(2, checks, key=lambda check: (not check.critical, -check.dependents))
    named = {check.id for check in first}
    return [*first, *(check for check in checks if check.id not in named)]


def _down(board: Board, checks: Sequence[CheckView]) -> str:
    what = _named(board, checks, "down", message=False)
    hanging = dependents(board, [check.id for check in checks])
    if hanging:
        return f"{what}; {hanging} on {'it' if len(checks) == 1 else 'them'}"
    return _named(board, checks, "down")


def dependents(board: Board, check_ids: Sequence[str]) -> str:
    """`31 agents and 2 integrations hang`, or nothing where nothing does."""
    causes = set(check_ids)
    held = {each for check_id in check_ids for each in board.descendants(check_id)} - causes
    kinds = Counter(board.standing(check_id).spec.kind for check_id in held)
    parts = [f"{count} {_NOUNS[kind][count != 1]}" for kind in _ORDER if (count := kinds[kind])]
    return f"{_joined(parts)} {'hangs' if len(held) == 1 else 'hang'}" if parts else ""


def _named(board: Board, checks: Sequence[CheckView], word: str, *, message: bool = True) -> str:
    first = board.title(checks[0].id)
    if len(checks) == 1:
        reason = f": {checks[0].message}" if message and checks[0].message else ""
        return f"{first} is {word}{reason}"
    if len(checks) == 2:
        return f"{first} and {board.title(checks[1].id)} are {word}"
    return f"{first} and {len(checks) - 1} others are {word}"


def _joined(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
