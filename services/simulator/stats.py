"""Counting requests: how many, of which kind, and how many at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Counter:
    """Requests of one vendor, or of both together. Control requests are not counted."""

    requests: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    faults: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    by_route: dict[str, int] = field(default_factory=dict)
    by_status: dict[str, int] = field(default_factory=dict)

    def enter(self, kind: str, route: str) -> None:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self.by_route[route] = self.by_route.get(route, 0) + 1

    def leave(self, outcome: str, faulted: bool) -> None:
        self.in_flight -= 1
        self.faults += faulted
        self.by_status[outcome] = self.by_status.get(outcome, 0) + 1

    def reset(self) -> None:
        """Forget everything but the requests being answered at this moment."""
        self.requests = self.faults = 0
        self.max_in_flight = self.in_flight
        for table in (self.by_kind, self.by_route, self.by_status):
            table.clear()

    def as_dict(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "faults": self.faults,
            "by_kind": dict(self.by_kind),
            "by_route": dict(self.by_route),
            "by_status": dict(self.by_status),
        }
