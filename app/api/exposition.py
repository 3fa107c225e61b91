"""The figures of checks and policies in Prometheus' text format.

Written here, since there are thousands of them and most are the same as a moment ago: the lines of a check
are kept for as long as its view is the same object. Every label has a bounded number of values.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from services.health.model import CheckKind, CheckView, HealthState, HealthView, Overall
from services.resilience import BreakerState, PolicyView
from services.text import clean_line

MOST_CHECKS: Final = 2_000
MOST_POLICIES: Final = 200
LONGEST_LABEL: Final = 100
_SLICE: Final = 100
"""Checks written before others have their turn on the loop."""
_STATES: Final = (
    HealthState.UP, HealthState.PENDING, HealthState.DEGRADED, HealthState.DOWN, HealthState.MAINTENANCE,
    HealthState.WAITS,
)  # fmt: skip
_WORST_FIRST: Final = {HealthState.DOWN: 0, HealthState.DEGRADED: 1, HealthState.PENDING: 2}
_BREAKERS: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_OVERALL: Final = {Overall.HEALTHY: 0, Overall.DEGRADED: 1, Overall.UNHEALTHY: 2}
_OF_CHECKS: Final = (
    ("callboard_check_state", "0 up, 1 pending, 2 degraded, 3 down, 4 maintenance, 5 waits for another one."),
    ("callboard_check_failures", "Failed probes in a row."),
    ("callboard_check_seconds", "How long the latest probe took."),
    ("callboard_check_uptime_ratio", "Share of the time it was up."),
    ("callboard_rate_limit_remaining", "What is left of a rate limit."),
)
_OF_POLICIES: Final = (
    ("calls", "Calls of a dependency."),
    ("attempts", "Attempts of those calls."),
    ("failures", "Calls that failed."),
    ("retries", "Attempts after a failed one."),
    ("degraded", "Calls answered with something instead."),
)
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Lines = tuple[str, ...]
"""The samples of one check, one text for each family of `_OF_CHECKS`."""


class CheckLines:
    """The samples of every check; those of an unchanged one are written once."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[CheckView, Lines]] = {}

    async def text(self, view: HealthView) -> str:
        """All families of checks, and how the whole is."""
        shown = _shown(view.checks)
        kept, written = {}, 0
        for check in shown:
            before = self._kept.get(check.id)
            if before is not None and before[0] is check:
                kept[check.id] = before
                continue
            kept[check.id] = (check, _lines(check))
            written += 1
            if written % _SLICE == 0:
                await asyncio.sleep(0)
        self._kept = kept
        every = [lines for _, lines in kept.values()]
        families = [_whole(view)]
        for number, (name, text) in enumerate(_OF_CHECKS):
            families.append(_family(name, "gauge", text, (lines[number] for lines in every)))
            await asyncio.sleep(0)
        return "".join(families)


def policies_text(views: Sequence[PolicyView]) -> str:
    """The families of policies: breakers and what was called, failed, tried again, refused."""
    named = [(_id_label(view.name), view) for view in views[:MOST_POLICIES]]
    families = [
        _family(
            "callboard_breaker_state",
            "gauge",
            "0 closed, 1 half open, 2 open.",
            (
                _sample("callboard_breaker_state", {"policy": name}, _BREAKERS[view.breaker.state])
                for name, view in named
            ),
        )
    ]
    for counter, text in _OF_POLICIES:
        full = f"callboard_policy_{counter}_total"
        samples = (_sample(full, {"policy": name}, getattr(view.stats, counter)) for name, view in named)
        families.append(_family(full, "counter", text, samples))
    full = "callboard_policy_refused_total"
    refused = (
        _sample(full, {"policy": name, "by": by}, count)
        for name, view in named
        for by, count in (("limit", view.stats.refused_by_limit), ("breaker", view.stats.refused_by_breaker))
    )
    families.append(_family(full, "counter", "Calls that were not made, by what refused them.", refused))
    return "".join(families)


def _shown(checks: Sequence[CheckView]) -> Sequence[CheckView]:
    """All of them, or the unwell first as far as the limit goes."""
    if len(checks) <= MOST_CHECKS:
        return checks
    return sorted(checks, key=lambda check: _WORST_FIRST.get(check.state, 3))[:MOST_CHECKS]


def _whole(view: HealthView) -> str:
    numbers = {(kind, state): 0 for kind in CheckKind for state in HealthState}
    for check in view.checks:
        numbers[check.kind, check.state] += 1
    counted = (
        _sample("callboard_checks", {"kind": kind.value, "state": state.value}, number)
        for (kind, state), number in numbers.items()
    )
    left_out = _sample("callboard_checks_left_out", {}, max(0, len(view.checks) - MOST_CHECKS))
    return (
        _family("callboard_health", "gauge", "0 healthy, 1 degraded, 2 unhealthy.",
                [_sample("callboard_health", {}, _OVERALL[view.overall])])
        + _family("callboard_checks", "gauge", "Checks by kind and state.", counted)
        + _family("callboard_checks_left_out", "gauge", "Checks without series of their own.", [left_out])
    )  # fmt: skip


def _lines(check: CheckView) -> Lines:
    name = _id_label(check.id)
    described = {
        "check": name,
        "kind": check.kind.value,
        "company": _label(check.company),
        "name": _label(check.name),
    }
    named = {"check": name}
    uptimes = (("24h", check.uptime_24h), ("30d", check.uptime_30d))
    state, failures, seconds, uptime, left = (family for family, _ in _OF_CHECKS)
    return (
        _sample(state, described, _STATES.index(check.state)),
        _sample(failures, named, check.failures),
        "" if check.took_ms is None else _sample(seconds, named, check.took_ms / 1000),
        "".join(
            _sample(uptime, {**named, "window": window}, share)
            for window, share in uptimes
            if share is not None
        ),
        "".join(
            _sample(
                left,
                {**named, "level": budget.level.value, "window": _label(budget.window)},
                budget.remaining,
            )
            for budget in check.budgets
            if budget.limit
        ),
    )


def _family(name: str, kind: str, text: str, samples: Iterable[str]) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{''.join(samples)}"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{given.translate(_ESCAPES)}"' for key, given in labels.items())
    return f"{name}{{{inside}}} {value}\n" if inside else f"{name} {value}\n"


def _label(text: str) -> str:
    """A label's value: one line, of bounded length."""
    line = clean_line(text)
    return line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "…"


def _id_label(name: str) -> str:
    """The label of an id: two different ones never become one series."""
    label = _label(name)
    if label == name:
        return label
    return f"{label} {hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
