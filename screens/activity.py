"""What happened: the sync runs with their outcomes, and the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual import on
from textual.widget import Widget

from screens.actions import ACTIVITY, bindings_of
from screens.frame import Console, Frame
from screens.glyphs import STATE_TONE, State, Tone
from screens.live import Changes
from screens.table_keys import TableKeys
from screens.textfit import display, sentence
from screens.when import moment, took
from screens.widgets.bars import Hints
from screens.widgets.below import Below
from screens.widgets.line import Line, Piece
from screens.widgets.table import Column, LineTable, Row
from services.model import Outcome, OutcomeRow, RunStatus, SyncRunInfo

RUNS, OUTCOMES, AUDIT = "runs", "outcomes", "audit"
WHAT = {OUTCOMES: "sync run", AUDIT: "audit log"}
LIMIT = 200
BELOW_LINES = 3
COLUMNS = {
    RUNS: (
        Column("started", 12),
        Column("status", 13),
        Column("scope", 16),
        Column("cause", 15, rank=3),
        Column("outcome"),
        Column("took", 9, right=True, rank=1),
        Column("requests", 8, right=True, rank=2),
    ),
    OUTCOMES: (
        Column("agent", 26),
        Column("company", 12, rank=3),
        Column("vendor", 10, rank=2),
        Column("outcome", 9),
        Column("detail"),
    ),
    AUDIT: (
        Column("when", 12),
        Column("who", 10, rank=1),
        Column("what", 18),
        Column("subject"),
        Column("detail", rank=2),
    ),
}
STATUS: dict[RunStatus, tuple[State, Tone]] = {
    RunStatus.RUNNING: (State.SYNCING, Tone.MOVING),
    RunStatus.DONE: (State.IN_SYNC, Tone.OK),
    RunStatus.PARTIAL: (State.CONFLICT, Tone.LOOK),
    RunStatus.FAILED: (State.ERROR, Tone.ACT),
    RunStatus.CANCELLED: (State.PENDING, Tone.LOOK),
    RunStatus.INTERRUPTED: (State.PENDING, Tone.LOOK),
}
OUTCOME_STATE = {
    Outcome.CREATED: State.IN_SYNC,
    Outcome.UPDATED: State.IN_SYNC,
    Outcome.UNCHANGED: State.UNKNOWN,
    Outcome.GONE: State.GONE,
    Outcome.FAILED: State.ERROR,
    Outcome.CANCELLED: State.PENDING,
}


class Heading(Line):
    """Which list this is."""

    def __init__(self) -> None:
        super().__init__(ident="heading")
        self.list = RUNS
        self.subject = ""

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        left: list[Piece] = [(" ", Tone.PLAIN)]
        for name, title in ((RUNS, "sync runs"), (AUDIT, "audit log")):
            here = name == self.list or (name == RUNS and self.list == OUTCOMES)
            left += [(title, "tab" if here else Tone.MUTED), ("  ", Tone.MUTED)]
        return left, [(f"{display(self.subject)} ", Tone.PLAIN)] if self.subject else []


def whole_text(table: LineTable, between: str) -> str:
    """Every cell of the row under the cursor, figures with the title of their column."""
    row = table.current
    if row is None:
        return ""
    cells = zip(table.columns, row.cells, strict=True)
    return between.join(
        f"{column.title} {display(text)}" if column.right else display(text)
        for column, (text, _) in cells
        if text
    )


class ActivityScreen(TableKeys, Frame):
    """Runs and audit rows; enter goes from a run to its outcomes, from any other row to all of it."""

    place = ACTIVITY
    BINDINGS = bindings_of(ACTIVITY)

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.heading = Heading()
        self.table = LineTable(COLUMNS[RUNS], self.glyphs, ident="activity")
        self.below = Below(self._below, self.glyphs, height=BELOW_LINES, ident="below")
        self.list = RUNS
        self.run_shown: SyncRunInfo | None = None
        self._runs: dict[str, SyncRunInfo] = {}

    def work(self) -> Iterable[Widget]:
        yield self.heading
        yield self.table
        yield self.below

    def on_mount(self) -> None:
        self._switch(RUNS)

    def show(self, changes: Changes) -> None:
        if changes.finished or changes.companies or changes.everything:
            self._reload()
        self.redraw_bars()

    def redraw_bars(self) -> None:
        super().redraw_bars()
        self.heading.redraw()
        self.below.redraw()

    def _below(self) -> list[Piece]:
        return [(whole_text(self.table, f" {self.glyphs.dot} "), Tone.MUTED)]

    def is_available(self, method: str) -> bool:
        return self.table.current is not None if method in ("open_row", "copy_row") else True

    def hints(self) -> Hints:
        words = {"open_row": "outcomes" if self.list == RUNS else "whole line"}
        return [(key, words.get(method, word), method) for key, word, method in super().hints()]

    # -- lists ------------------------------------------------------------------------------------

    def _switch(self, name: str, run: SyncRunInfo | None = None) -> None:
        self.list, self.run_shown = name, run
        self.heading.list = name
        now = self.services.clock.now()
        self.heading.subject = (
            f"{run.scope}, {moment(run.started_at, now, self.zone)}" if run is not None else ""
        )
        self.table.empty = [("reading", Tone.MUTED)]
        self.table.cursor = 0
        self.table.set_rows([], columns=COLUMNS[name])
        self._reload()
        self.redraw_bars()

    def _reload(self) -> None:
        self.console_app.perform(self._read, group="activity")

    async def _read(self) -> None:
        wanted, run = self.list, self.run_shown
        agents = self.services.agents
        if wanted == RUNS:
            runs = await agents.runs(LIMIT)
            self._runs = {each.id: each for each in runs}
            rows, nothing = [self._run_row(each) for each in runs], "No sync has run yet: 1, then S"
        elif wanted == OUTCOMES and run is not None:
            rows = [
                self._outcome_row(number, each)
                for number, each in enumerate(await agents.run_outcomes(run.id))
            ]
            unchanged = run.counts.get("unchanged", 0)
            nothing = sentence(run.message) or (
                f"{unchanged} agents were checked and none had changed"
                if unchanged
                else "No agent was settled"
            )
        else:
            now = self.services.clock.now()
            rows = [
                Row(
                    (number, row.at),
                    (
                        (moment(row.at, now, self.zone), Tone.PLAIN),
                        (row.actor, Tone.MUTED),
                        (row.action, Tone.PLAIN),
                        (row.subject, Tone.PLAIN),
                        (row.detail, Tone.MUTED),
                    ),
                )
                for number, row in enumerate(await agents.audit(LIMIT))
            ]
            nothing = "Nothing has been changed yet"
        if self.is_mounted and (wanted, run) == (self.list, self.run_shown):
            self.table.empty = [(nothing, Tone.MUTED)]
            self.table.set_rows(rows, columns=COLUMNS[wanted])
            self.redraw_bars()

    def _run_row(self, run: SyncRunInfo) -> Row:
        state, tone = STATUS[run.status]
        order = ("failed", "updated", "created", "gone", "cancelled", "unchanged")
        counts = ", ".join(f"{run.counts[name]:,} {name}" for name in order if run.counts.get(name))
        outcome = (
            display(run.message)
            if run.message and run.status is RunStatus.FAILED
            else counts or "nothing to do"
        )
        return Row(
            run.id,
            (
                (moment(run.started_at, self.services.clock.now(), self.zone), Tone.PLAIN),
                (f"{self.glyphs.states[state]} {run.status.value}", tone),
                (f"{run.scope}, forced" if run.forced else run.scope, Tone.PLAIN),
                (run.cause, Tone.MUTED),
                (outcome, tone if run.status is RunStatus.FAILED else Tone.PLAIN),
                (took(run.ended_at - run.started_at) if run.ended_at is not None else "", Tone.MUTED),
                (f"{run.requests:,}", Tone.MUTED),
            ),
        )

    def _outcome_row(self, number: int, row: OutcomeRow) -> Row:
        state = OUTCOME_STATE[row.outcome]
        failed = row.error is not None
        detail = sentence(row.error.message, row.error.advice) if row.error is not None else row.detail
        return Row(
            number,
            (
                (row.name or row.agent_id or "(the whole connection)", Tone.PLAIN),
                (row.company, Tone.MUTED),
                (row.provider.value, Tone.MUTED),
                (row.outcome.value, STATE_TONE[state]),
                (detail, Tone.ACT if failed else Tone.MUTED),
            ),
        )

    # -- actions ----------------------------------------------------------------------------------

    def action_open_row(self) -> None:
        row = self.table.current
        if row is None:
            return
        if self.list == RUNS:
            self._switch(OUTCOMES, self._runs.get(row.key))
            return
        from screens.dialogs import TextDialog

        titles = [column.title for column in self.table.columns]
        fields = [(title, display(text)) for title, (text, _) in zip(titles, row.cells, strict=True) if text]
        label = max(len(title) for title in titles) + 2
        text = "\n".join(f"{title.ljust(label)}{text}" for title, text in fields)
        self.app.push_screen(TextDialog("One line of the " + WHAT[self.list], text))

    @on(LineTable.Opened)
    def _opened(self) -> None:
        self.action_open_row()

    @on(LineTable.Moved)
    def _moved(self) -> None:
        self.below.redraw()

    def action_switch_list(self) -> None:
        self._switch(RUNS if self.list == AUDIT else AUDIT)

    def action_copy_row(self) -> None:
        if self.table.current is not None:
            self.console_app.copy(whole_text(self.table, "  "), "this line")

    def action_leave(self) -> None:
        if self.list == OUTCOMES:
            self._switch(RUNS)
        else:
            self.app.pop_screen()
