"""Health as JSON documents: plain dictionaries made from a view. Times are ISO 8601 in UTC.

Every document names its contract first (`"schema": "callboard.api.health/1"`): adding a member keeps the
number, taking one away or changing its meaning raises it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app import __version__
from app.check_json import Document, check_document, facts, masked
from app.output import iso
from services.health.model import Beat, CheckKind, CheckView, HealthState, HealthView, Overall

MOST_PROBLEMS: Final = 100
"""How many checks that are not well the overall document lists; it counts all."""
PAGE: Final = 100
MOST_PAGE: Final = 500
DEPENDENCIES: Final = (CheckKind.PROVIDER, CheckKind.INTEGRATION, CheckKind.SYSTEM)
_ILL: Final = {HealthState.DOWN: 0, HealthState.DEGRADED: 1, HealthState.WAITS: 2}


def up_or_down(view: HealthView) -> str:
    """All that is told without a token: `down` is unhealthy, everything else `up`."""
    return "down" if view.overall is Overall.UNHEALTHY else "up"


def health(view: HealthView) -> Document:
    """The whole in one look: the verdict, its reason, counts, and what is not well (the worst first)."""
    ill: list[CheckView] = []
    numbers = {kind: counts(()) for kind in CheckKind}
    for check in view.checks:
        numbers[check.kind][check.state.value] += 1
        if check.state in _ILL:
            ill.append(check)
    ill.sort(key=_gravity)
    return {
        "schema": "callboard.api.health/1",
        "status": up_or_down(view),
        "overall": view.overall.value,
        "reason": masked(view.reason),
        "version": __version__,
        "watching": view.started,
        "watched_by": view.prober,
        "checked_at": iso(view.checked_at),
        "counts": {
            state.value: sum(of_kind[state.value] for of_kind in numbers.values()) for state in HealthState
        },
        "kinds": {kind.value: of_kind for kind, of_kind in numbers.items()},
        "problems": [_problem(check) for check in ill[:MOST_PROBLEMS]],
        "problems_total": len(ill),
    }


def _gravity(check: CheckView) -> tuple[bool, int, bool, int, str]:
    """Causes before what they hold, the worst first, then what most hangs on."""
    return bool(check.held_by), _ILL[check.state], not check.critical, -check.dependents, check.id


def agents_head(view: HealthView, found: Sequence[CheckView], offset: int) -> Document:
    """What stands before a page of agents; `found` are all that were asked for."""
    return {
        "schema": "callboard.api.agents/1",
        "checked_at": iso(view.checked_at),
        "counts": counts(check for check in view.checks if check.kind is CheckKind.AGENT),
        "total": len(found),
        "offset": offset,
    }


def select_agents(view: HealthView, *, company: str, state: HealthState | None) -> list[CheckView]:
    """The agents' checks that were asked for, in the order of the view."""
    company = company.casefold()
    return [
        check
        for check in view.checks
        if check.kind is CheckKind.AGENT
        and company in ("", check.company.casefold())
        and (state is None or check.state is state)
    ]


def agent(view: HealthView, found: Sequence[CheckView]) -> Document:
    """Every agent of that name, or the one with that id, with facts and the latest probes."""
    return {
        "schema": "callboard.api.agent/1",
        "checked_at": iso(view.checked_at),
        "agents": [detail_document(check) for check in found],
    }


def orchestrator(view: HealthView) -> Document:
    """What routes requests to agents. `configured` is false where nothing is watched for it."""
    checks = [check for check in view.checks if check.kind is CheckKind.ORCHESTRATOR]
    return {
        "schema": "callboard.api.orchestrator/1",
        "checked_at": iso(view.checked_at),
        "configured": bool(checks),
        "counts": counts(checks),
        "checks": [detail_document(check) for check in checks],
    }


def select_dependencies(view: HealthView) -> list[CheckView]:
    """What the agents and this program hang on: providers, integrations, the system."""
    return [check for kind in DEPENDENCIES for check in view.checks if check.kind is kind]


def dependencies_head(view: HealthView, found: Sequence[CheckView], offset: int) -> Document:
    """What stands before a page of dependencies."""
    return {
        "schema": "callboard.api.dependencies/1",
        "checked_at": iso(view.checked_at),
        "counts": {
            kind.value: counts(check for check in found if check.kind is kind) for kind in DEPENDENCIES
        },
        "total": len(found),
        "offset": offset,
    }


def counts(checks: Iterable[CheckView]) -> dict[str, int]:
    """How many checks are in each state."""
    found = dict.fromkeys((state.value for state in HealthState), 0)
    for check in checks:
        found[check.state.value] += 1
    return found


def detail_document(check: CheckView) -> Document:
    """One check with its facts and its latest probes, oldest first."""
    return {
        **check_document(check),
        "facts": facts(check),
        "beats": [_beat(beat) for beat in check.beats],
    }


def _beat(beat: Beat) -> Document:
    return {"at": iso(beat.at), "state": beat.state.value, "took_ms": beat.took_ms}


def _problem(check: CheckView) -> Document:
    return {
        "id": check.id,
        "kind": check.kind.value,
        "name": check.name,
        "company": check.company,
        "state": check.state.value,
        "since": iso(check.since),
        "message": masked(check.message),
        "advice": masked(check.advice),
        "held_by": check.held_by,
    }
