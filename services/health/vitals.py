"""What a process knows of the policy around a check, in a form that others can read: breaker, limits, rates.

A policy belongs to its process. The one that probes stores this with each standing, so that all of them show
the breaker that decides; figures that count down are kept with the moment at which they were so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.resilience import BreakerState, BreakerView, Budget, Level


@dataclass(frozen=True, slots=True)
class Vitals:
    """A policy as it was at the time `at` (epoch milliseconds)."""

    at: int
    breaker: BreakerView
    budgets: tuple[Budget, ...] = ()
    rates: tuple[tuple[str, str], ...] = ()
    """What the other side said of its own limits."""

    def breaker_at(self, now: int) -> BreakerView:
        """The breaker with its countdown as it is at a later moment."""
        if self.breaker.state is not BreakerState.OPEN:
            return self.breaker
        return replace(self.breaker, reopens_in=_left(self.breaker.reopens_in, self.at, now))

    def budgets_at(self, now: int) -> tuple[Budget, ...]:
        """The budgets with the time until more is free as it is at a later moment."""
        return tuple(
            replace(budget, frees_in=_left(budget.frees_in, self.at, now)) if budget.frees_in else budget
            for budget in self.budgets
        )

    def stored(self) -> dict[str, Any]:
        """As JSON can hold it; `restored` gives back the same."""
        breaker = self.breaker
        return {
            "at": self.at,
            "breaker": [
                breaker.state.value,
                breaker.failures,
                breaker.successes,
                breaker.reopens_in,
                breaker.shared,
                breaker.degraded,
            ],
            "budgets": [
                [each.level.value, each.window, each.limit, each.used, each.frees_in, each.degraded]
                for each in self.budgets
            ],
            "rates": self.rates,
        }


def restored(data: Mapping[str, Any]) -> Vitals:
    """Raises KeyError, TypeError or ValueError for what another version wrote."""
    state, failures, successes, reopens_in, shared, degraded = data["breaker"]
    return Vitals(
        at=int(data["at"]),
        breaker=BreakerView(
            BreakerState(state),
            int(failures),
            int(successes),
            reopens_in=float(reopens_in),
            shared=bool(shared),
            degraded=bool(degraded),
        ),
        budgets=tuple(
            Budget(Level(level), str(window), int(limit), int(used), float(frees_in), bool(alone))
            for level, window, limit, used, frees_in, alone in data["budgets"]
        ),
        rates=tuple((str(label), str(figure)) for label, figure in data["rates"]),
    )


def _left(seconds: float, at: int, now: int) -> float:
    return max(0.0, seconds - (now - at) / 1000)
