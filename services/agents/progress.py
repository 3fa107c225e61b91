"""The live state of a sync run: a pure reducer over its events.

The console and the command line show the same numbers because both ask this and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.events import AgentReading, AgentSettled, Event, SyncFinished, SyncPlanned, SyncStarted
from services.model import Outcome, RunStatus

DEAD_AFTER_MS = 30_000
"""A stored run without a heartbeat for this long belongs to a process that is gone."""


@dataclass(slots=True)
class LiveSync:
    """One run as it stands. `total` grows as connections are listed; `settled` never exceeds it."""

    run_id: str
    scope: str = ""
    cause: str = ""
    forced: bool = False
    total: int = 0
    to_read: int = 0
    settled: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {outcome.value: 0 for outcome in Outcome})
    reading: set[int] = field(default_factory=set)
    """Mirror ids of the agents whose detail is being read at this moment."""
    status: RunStatus = RunStatus.RUNNING
    message: str = ""
    """After the end: why a connection could not be listed or the whole run failed, or empty."""

    @property
    def finished(self) -> bool:
        return self.status is not RunStatus.RUNNING

    def apply(self, event: Event) -> bool:
        """Take one event in; says whether anything shown may have changed."""
        if getattr(event, "run_id", None) != self.run_id:
            return False
        match event:
            case SyncStarted():
                self.scope, self.cause, self.forced = event.scope, event.cause, event.forced
            case SyncPlanned():
                self.total += event.total
                self.to_read += event.to_read
            case AgentReading():
                self.reading.add(event.id)
            case AgentSettled(row=row):
                self.settled += 1
                self.total = max(self.total, self.settled)
                self.counts[row.outcome.value] += 1
                if row.agent_row is not None:
                    self.reading.discard(row.agent_row)
            case SyncFinished(report=report):
                self.status = report.status
                self.counts = report.counts()
                self.settled = len(report.outcomes)
                self.total = max(self.total, self.settled)
                self.reading.clear()
                refused = [
                    f"{row.company}, {row.provider}: {row.error.message}"
                    for row in report.errors
                    if row.error
                ]
                # A failure of the whole run has set its own message already.
                self.message = "; ".join(refused) or self.message
            case _:
                return False
        return True
