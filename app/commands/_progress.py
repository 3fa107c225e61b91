"""A sync as it happens: one line redrawn on a terminal, one line an agent in a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from app.output import is_terminal, paint, print_table, shorten, terminal_width, write_line
from services.agents.progress import LiveSync
from services.events import AgentSettled, Event, EventBus, SyncStarted
from services.model import Outcome, OutcomeRow
from services.text import clean_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REDRAW_EVERY = 0.1
BAR_CELLS = 16
OUTCOME_STYLES: dict[str, str] = {
    Outcome.CREATED: "green",
    Outcome.UPDATED: "green",
    Outcome.GONE: "yellow",
    Outcome.CANCELLED: "yellow",
    Outcome.FAILED: "red",
}


class SyncView:
    """Listens to a run and shows it; `progress` on standard error, `lines` on standard output.

    A reader of the lines that goes away does not stop the sync: the lines end, and `reader_gone` says so.
    """

    def __init__(self, bus: EventBus, *, progress: bool, lines: bool, verbose: bool) -> None:
        self._progress, self._lines, self._verbose = progress, lines, verbose
        self._live: LiveSync | None = None
        self._dirty = False
        self._turn = 0
        self.note = ""
        self.reader_gone = False
        self._unsubscribe = bus.subscribe(Event, self._on_event)

    def _on_event(self, event: Event) -> None:
        if self._live is None and isinstance(event, SyncStarted):
            self._live = LiveSync(event.run_id)
        if self._live is not None and self._live.apply(event):
            self._dirty = True
            if isinstance(event, AgentSettled) and self._lines and not self.reader_gone:
                self._line(event.row)

    def _line(self, row: OutcomeRow) -> None:
        if not self._verbose and row.outcome is Outcome.UNCHANGED:
            return
        try:
            write_line(outcome_line(row))
            sys.stdout.flush()
        except BrokenPipeError:
            self.reader_gone = True

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the run while the body runs; leaves no progress line behind."""
        drawing = asyncio.create_task(self._draw()) if self._progress else None
        try:
            yield
        finally:
            self._unsubscribe()
            if drawing is not None:
                drawing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await drawing
                self._write("\r\x1b[K")

    async def _draw(self) -> None:
        while True:
            text = progress_text(self._live, self._turn, unicode=_speaks_unicode())
            note = f"  {self.note}" if self.note else ""
            self._write("\r" + shorten(text + note, terminal_width(sys.stderr) - 1) + "\x1b[K")
            self._turn += 1
            await asyncio.sleep(REDRAW_EVERY)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def progress_text(live: LiveSync | None, turn: int, *, unicode: bool = True) -> str:
    """`◐ syncing 17/42 ▋▋▋▋▋▋······ 12 unchanged 4 updated 1 failed`."""
    wheel = "◐◓◑◒" if unicode else "|/-\\"
    sign = wheel[turn % len(wheel)]
    if live is None or not live.total:
        return f"{sign} listing"
    filled = BAR_CELLS * live.settled // live.total
    full, empty = ("▋", "·") if unicode else ("#", ".")
    bar = full * filled + empty * (BAR_CELLS - filled)
    return f"{sign} syncing {live.settled}/{live.total} {bar} {counts_text(live.counts, ' ')}".rstrip()


def counts_text(counts: Mapping[str, int], separator: str = ", ") -> str:
    """The outcomes that happened, the ordinary one first: `12 unchanged, 4 updated`."""
    order = ("unchanged", "created", "updated", "gone", "cancelled", "failed")
    return separator.join(f"{counts[name]} {name}" for name in order if counts.get(name))


def outcome_line(row: OutcomeRow) -> str:
    """One agent's outcome as one line: outcome, company, vendor, id, name, remark."""
    remark = row.error.message if row.error else row.detail
    parts = [f"{row.outcome:<9}", row.company, row.provider, row.agent_id, row.name, remark]
    text = "  ".join(clean_line(part) if index else part for index, part in enumerate(parts) if part)
    return paint(text, "red" if row.outcome is Outcome.FAILED else "")


def may_redraw(environ: Mapping[str, str]) -> bool:
    """Whether standard error is a terminal that can redraw a line."""
    return is_terminal(sys.stderr) and environ.get("TERM", "") not in ("", "dumb")


def _speaks_unicode() -> bool:
    return (sys.stderr.encoding or "").lower().replace("-", "") == "utf8"


def print_outcomes(rows: Sequence[OutcomeRow]) -> None:
    """The table of what a run did, agent by agent, in the order given."""
    print_table(
        ("OUTCOME", "COMPANY", "VENDOR", "AGENT", "NAME", "REMARK"),
        [
            (
                row.outcome,
                row.company,
                row.provider,
                row.agent_id,
                row.name,
                row.error.message if row.error else row.detail,
            )
            for row in rows
        ],
        styles=OUTCOME_STYLES,
    )
