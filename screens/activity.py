"""What happened: the sync runs with their outcomes, the messages that went out and came in, the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.widget import Widget

from screens import messages
from screens.actions import ACTIVITY, bindings_of
from screens.filtered import FilteredFrame
from screens.frame import Console
from screens.glyphs import STATE_TONE, State, Tone
from screens.live import Changes
from screens.row_filter import Wanted, fits, parse_row_filter
from screens.table_keys import TableKeys
from screens.textfit import cut, display, sentence
from screens.when import moment, took
from screens.widgets.bars import Hints
from screens.widgets.below import Below
from screens.widgets.line import Line, Piece
from screens.widgets.table import Column, LineTable, Row
from services.model import Outcome, OutcomeRow, RunStatus, SyncRunInfo

if TYPE_CHECKING:
    from services.integrations.messages import InboundRow, MessageRow

RUNS, OUTCOMES, MESSAGES, AUDIT = "runs", "outcomes", "messages", "audit"
TITLES = {RUNS: "sync runs", MESSAGES: "messages", AUDIT: "audit log"}
"""The lists that tab goes through, in this order."""
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
    MESSAGES: messages.COLUMNS,
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
    """Which list this is; at the right whose, or the filter, or what is wrong with it."""

    def __init__(self) -> None:
        super().__init__(ident="heading")
        self.list = RUNS
        self.subject = ""
        self.filter = ""
        self.problem = ""

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        left: list[Piece] = [(" ", Tone.PLAIN)]
        for name, title in TITLES.items():
            here = name == self.list or (name == RUNS and self.list == OUTCOMES)
            left += [(title, "tab" if here else Tone.MUTED), ("  ", Tone.MUTED)]
        if self.problem:
            return left, [(f"{cut(self.problem, width - 36)} ", Tone.LOOK)]
        if self.filter:
            return left, [(f"/ {cut(display(self.filter), width // 3)} ", Tone.ACCENT)]
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


class ActivityScreen(TableKeys, FilteredFrame):
    """Runs, messages, audit rows; enter goes from a run to its outcomes, from any other row to all of it."""

    place = ACTIVITY
    BINDINGS = bindings_of(ACTIVITY)
    ENTRY = "rows"
    TYPING_HINTS: ClassVar[Hints] = [
        ("enter", "keep", ""),
        ("esc", "drop", ""),
        ("words, or column:word", "", ""),
    ]

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.heading = Heading()
        self.table = LineTable(COLUMNS[RUNS], self.glyphs, ident="activity")
        self.below = Below(self._below, self.glyphs, height=BELOW_LINES, ident="below")
        self.list = RUNS
        self.run_shown: SyncRunInfo | None = None
        self.wanted: list[Wanted] = []
        self._runs: dict[str, SyncRunInfo] = {}
        self._messages: dict[tuple[bool, str], MessageRow | InboundRow] = {}
        self._rows: list[Row] = []
        self._nothing = ""

    def work(self) -> Iterable[Widget]:
        yield self.heading
        yield self.table
        yield self.below

    def on_mount(self) -> None:
        self._switch(RUNS)

    def show(self, changes: Changes) -> None:
        others = changes.finished or changes.companies or changes.everything
        if changes.messages if self.list == MESSAGES else others:
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
        if self.entry is not None:
            return super().hints()
        names = list(TITLES)
        following = names[(names.index(self._tab) + 1) % len(names)]
        words = {
            "open_row": {RUNS: "outcomes", MESSAGES: "all of it"}.get(self.list, "whole line"),
            "switch_list": TITLES[following],
        }
        return [(key, words.get(method, word), method) for key, word, method in super().hints()]

    # -- filter -----------------------------------------------------------------------------------

    @property
    def filter_text(self) -> str:
        return self.heading.filter

    def set_filter(self, typed: str) -> None:
        self.wanted = parse_row_filter(typed, COLUMNS[self.list])
        self.heading.filter = typed.strip()
        self.heading.problem = ""
        self._fill()

    def show_problem(self, problem: str) -> None:
        self.heading.problem = problem
        self.heading.redraw()

    # -- lists ------------------------------------------------------------------------------------

    @property
    def _tab(self) -> str:
        return RUNS if self.list == OUTCOMES else self.list

    def _switch(self, name: str, run: SyncRunInfo | None = None) -> None:
        self.list, self.run_shown = name, run
        self.heading.list = name
        self.wanted, self.heading.filter, self.heading.problem = [], "", ""
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
        elif wanted == MESSAGES:
            rows, nothing = await self._message_rows(), messages.NOTHING
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
            self._rows, self._nothing = rows, nothing
            self._fill()

    def _fill(self) -> None:
        """What was read, as far as the filter lets it through."""
        shown = [row for row in self._rows if fits(row, self.wanted)]
        nothing = self._nothing
        if self.wanted and self._rows:
            nothing = f"Nothing here matches  {display(self.heading.filter)}   esc drops the filter"
        self.table.empty = [(nothing, Tone.MUTED)]
        self.table.set_rows(shown, columns=COLUMNS[self.list])
        self.redraw_bars()

    async def _message_rows(self) -> list[Row]:
        """What went out and what came in, the newest first."""
        await self.console_app.ready()
        service = self.services.messages
        found: list[MessageRow | InboundRow] = [
            *await service.list(limit=LIMIT),
            *await service.received(limit=LIMIT),
        ]
        newest = sorted(found, key=messages.at_of, reverse=True)[:LIMIT]
        now = self.services.clock.now()
        rows = [messages.row_of(each, self.glyphs, now, self.zone) for each in newest]
        self._messages = {row.key: each for row, each in zip(rows, newest, strict=True)}
        return rows

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
        if self.list == MESSAGES:
            self.console_app.perform(lambda: self._open_message(row.key), group="message")
            return
        from screens.dialogs import TextDialog

        titles = [column.title for column in self.table.columns]
        fields = [(title, display(text)) for title, (text, _) in zip(titles, row.cells, strict=True) if text]
        label = max(len(title) for title in titles) + 2
        text = "\n".join(f"{title.ljust(label)}{text}" for title, text in fields)
        self.app.push_screen(TextDialog("One line of the " + WHAT[self.list], text))

    async def _open_message(self, key: tuple[bool, str]) -> None:
        from screens.dialogs import TextDialog

        message = self._messages.get(key)
        if message is None:
            return
        came_in, number = key
        steps = [] if came_in else await self.services.messages.events(number)
        title = "A message that came in" if came_in else "A message that was sent"
        self.app.push_screen(TextDialog(title, messages.whole(message, steps, self.zone)))

    @on(LineTable.Opened)
    def _opened(self) -> None:
        self.action_open_row()

    @on(LineTable.Moved)
    def _moved(self) -> None:
        self.below.redraw()

    def action_switch_list(self) -> None:
        names = list(TITLES)
        self._switch(names[(names.index(self._tab) + 1) % len(names)])

    def action_copy_row(self) -> None:
        if self.table.current is not None:
            self.console_app.copy(whole_text(self.table, "  "), "this line")

    def action_leave(self) -> None:
        if self.filter_text:
            self.set_filter("")
        elif self.list == OUTCOMES:
            self._switch(RUNS)
        else:
            self.app.pop_screen()
