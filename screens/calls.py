"""The calls: those that go on, then the history with filter, replay, export and delete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.widget import Widget

from screens.actions import CALLS, bindings_of
from screens.call_filter import CallFilter, parse_call_filter
from screens.call_lines import clock_text
from screens.call_ports import Session
from screens.call_words import UNKNOWN, money, state_piece, transport_words
from screens.filtered import FilteredFrame
from screens.frame import Console
from screens.glyphs import Tone
from screens.live import Changes
from screens.table_keys import TableKeys
from screens.textfit import cut, display, sentence
from screens.when import moment
from screens.widgets.bars import Hints
from screens.widgets.line import Line, Piece
from screens.widgets.table import Column, LineTable, Row
from services.calls.model import END_WORDS, CallRow
from services.errors import ServiceError

if TYPE_CHECKING:
    from textual.timer import Timer

LIMIT = 500
WIDE = 110
COLUMNS = (
    Column("started", 12),
    Column("agent"),
    Column("company", 14, rank=4),
    Column("over", 10, rank=2),
    Column("duration", 8, right=True),
    Column("turns", 5, right=True, rank=5),
    Column("p50 / p95", 13, right=True, rank=3),
    Column("cost", 9, right=True, rank=1),
    Column("end"),
)
NARROW = (0, 1, 4, 8)
NARROW_COLUMNS = (COLUMNS[0], Column("agent", 22), COLUMNS[4], COLUMNS[8])
"""At 80 columns the whole reason of the end is worth more than anything else."""


class CallsLine(Line):
    """How many calls, how many of them live; at the right the filter, or what is wrong with it."""

    def __init__(self) -> None:
        super().__init__(ident="calls-line")
        self.left: list[Piece] = []
        self.filter = ""
        self.problem = ""

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        if self.problem:
            return self.left, [(f"{cut(self.problem, width - 24)} ", Tone.LOOK)]
        if self.filter:
            return self.left, [(f"/ {cut(display(self.filter), width // 2)} ", Tone.ACCENT)]
        return self.left, []


class CallsScreen(TableKeys, FilteredFrame):
    """Live calls on top; enter goes there, or replays a past one."""

    place = CALLS
    BINDINGS = bindings_of(CALLS)
    TYPING_HINTS: ClassVar[Hints] = [
        ("enter", "keep", ""),
        ("esc", "drop", ""),
        ("transport:", "", ""),
        ("end:well", "", ""),
        ("end:badly", "", ""),
        ("agent:", "", ""),
        ("company:", "", ""),
    ]

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.top.tells_call = False
        self.line = CallsLine()
        self.table = LineTable(COLUMNS, self.glyphs, ident="calls")
        self.table.empty = [("reading", Tone.MUTED)]
        self.filter = CallFilter()
        self.rows: dict[str, CallRow] = {}
        self._turn = 0
        self._timer: Timer | None = None

    def work(self) -> Iterable[Widget]:
        yield self.line
        yield self.table

    def on_mount(self) -> None:
        self._timer = self.set_interval(1.0, self._tick, name="live calls")
        self._reload()

    def on_resize(self, event: events.Resize) -> None:
        if self.rows or self.live.calls:
            self.call_after_refresh(self._fill)

    def show(self, changes: Changes) -> None:
        if changes.calls or changes.everything:
            self._reload()
        self.redraw_bars()

    def redraw_bars(self) -> None:
        super().redraw_bars()
        self.line.redraw()

    def _tick(self) -> None:
        """The durations of live calls."""
        if self.live.calls and self.is_current:
            self._fill()

    # -- reading ----------------------------------------------------------------------------------

    def _reload(self) -> None:
        self.console_app.perform(self._read, group="calls")

    async def _read(self) -> None:
        self._turn += 1
        turn, wanted = self._turn, self.filter
        await self.console_app.ready()
        try:
            rows = await self.services.calls.rows(
                LIMIT,
                text=wanted.text,
                transport=wanted.transport,
                reason=wanted.reasons[0] if len(wanted.reasons) == 1 else None,
            )
        except ServiceError as error:
            self.table.empty = [
                ("The calls could not be read", Tone.ACT),
                (sentence(error.message, error.advice), Tone.PLAIN),
            ]
            self.table.set_rows([])
            return
        if self.is_mounted and turn == self._turn:
            self.rows = {row.id: row for row in rows if wanted.matches(row)}
            self._fill()

    def _fill(self) -> None:
        live = [session for session in self.live.calls if not self.filter]
        running = {session.id for session in live}
        now = self.services.clock.now()
        narrow = self.size.width < WIDE
        columns = NARROW_COLUMNS if narrow else COLUMNS
        keep = NARROW if narrow else range(len(COLUMNS))
        rows = [self._live_row(session) for session in reversed(live)]
        rows += [self._row(row, now) for row in self.rows.values() if row.id not in running]
        rows = [Row(row.key, tuple(row.cells[n] for n in keep)) for row in rows]
        past = len(rows) - len(live)
        count = f"{past:,}{'+' if len(self.rows) >= LIMIT else ''} call{'' if past == 1 else 's'}"
        self.line.left = [(f" {count}  ", "strong")]
        if live:
            self.line.left.append((f" {self.glyphs.ok} {len(live)} live ", Tone.OK))
        self.table.empty = self._nothing()
        self.table.set_rows(rows, columns=columns)
        self.redraw_bars()

    def _nothing(self) -> list[tuple[str, Tone]]:
        if self.filter:
            return [
                (f"No call matches  {display(self.filter.typed)}", Tone.PLAIN),
                ("", Tone.PLAIN),
                ("esc drops the filter, / changes it", Tone.MUTED),
            ]
        return [
            ("No call yet", Tone.PLAIN),
            ("", Tone.PLAIN),
            ("1, then c on an agent calls it", Tone.ACCENT),
            ("every call is recorded here, to be replayed", Tone.MUTED),
        ]

    def _live_row(self, session: Session) -> Row:
        live, target = session.live, session.target
        state, tone = state_piece(live, session.now_ms(), self.glyphs)
        return Row(
            ("live", session.id),
            (
                ("now", tone),
                (target.name, Tone.PLAIN),
                (target.company, Tone.MUTED),
                (transport_words(session.kind), Tone.MUTED),
                (clock_text(live.duration(session.now_ms())), Tone.PLAIN),
                (f"{live.user_turns + live.agent_turns:,}", Tone.MUTED),
                (_pair(live.latency_percentile(0.5), live.latency_percentile(0.95)), Tone.MUTED),
                (UNKNOWN if live.cost is None else money(live.cost.amount, live.cost.currency), Tone.MUTED),
                (state.rpartition(" ")[0] if live.live_at is not None else state, tone),
            ),
        )

    def _row(self, row: CallRow, now: int) -> Row:
        length = row.duration_ms
        ended = row.reason is not None
        words = END_WORDS[row.reason] if row.reason is not None else row.state.value
        sign = self.glyphs.failed if ended and row.reason and not row.reason.well else self.glyphs.dot
        tone = Tone.MUTED if row.reason is not None and row.reason.well else Tone.ACT if ended else Tone.LOOK
        return Row(
            ("past", row.id),
            (
                (moment(row.started_at, now, self.zone), Tone.PLAIN),
                (f"{row.agent_name}  {row.number}" if row.number else row.agent_name, Tone.PLAIN),
                (row.company, Tone.MUTED),
                (transport_words(row.transport), Tone.MUTED),
                (clock_text(length) if length is not None else UNKNOWN, Tone.PLAIN),
                (f"{row.turns:,}", Tone.MUTED),
                (_pair(row.p50_ms, row.p95_ms), Tone.MUTED),
                (money(row.cost, row.currency), Tone.MUTED),
                (f"{sign} {words}", tone),
            ),
        )

    # -- what the cursor is on --------------------------------------------------------------------

    @property
    def current(self) -> CallRow | None:
        """The past call under the cursor."""
        row = self.table.current
        return self.rows.get(row.key[1]) if row is not None and row.key[0] == "past" else None

    def is_available(self, method: str) -> bool:
        if method == "open_call" or method == "copy_id":
            return self.table.current is not None
        if method in ("export", "delete"):
            return self.current is not None
        return True

    def hints(self) -> Hints:
        words = {"leave": "drop filter"} if self.filter else {}
        return [(key, words.get(method, word), method) for key, word, method in super().hints()]

    # -- finding ----------------------------------------------------------------------------------

    @property
    def filter_text(self) -> str:
        return self.filter.typed

    def set_filter(self, typed: str) -> None:
        self.filter = parse_call_filter(typed)
        self.line.filter, self.line.problem = self.filter.typed, ""
        self._reload()
        self.redraw_bars()

    def show_problem(self, problem: str) -> None:
        self.line.problem = problem
        self.line.redraw()

    async def action_leave(self) -> None:
        if self.entry is not None or self.filter:
            await self.drop_filter()
        else:
            self.app.pop_screen()

    # -- actions ----------------------------------------------------------------------------------

    def action_open_call(self) -> None:
        from screens.calling import begin_replay, open_call

        row = self.table.current
        if row is None:
            return
        kind, call_id = row.key
        if kind == "past":
            begin_replay(self, call_id)
            return
        for session in self.live.calls:
            if session.id == call_id:
                open_call(self, session)

    @on(LineTable.Opened)
    def _opened(self) -> None:
        self.action_open_call()

    @on(LineTable.Moved)
    def _moved(self) -> None:
        self.redraw_bars()

    def action_copy_id(self) -> None:
        row = self.table.current
        if row is not None:
            self.console_app.copy(row.key[1], "the id of the call")

    def action_export(self) -> None:
        from screens.call_dialogs import ask_export

        row = self.current
        if row is not None:
            ask_export(self, row)

    def action_delete(self) -> None:
        from screens.dialogs import ConfirmDialog

        row = self.current
        if row is None:
            return
        when = moment(row.started_at, self.services.clock.now(), self.zone)

        async def delete() -> None:
            await self.services.calls.delete([row.id])
            await self._read()

        def answered(agreed: bool | None) -> None:
            if agreed:
                self.console_app.perform(delete, group="calls")

        held = "Its transcript, audio and figures leave this machine. Nothing changes at the vendor."
        dialog = ConfirmDialog(f"Delete the call with {display(row.agent_name)}, {when}?", held)
        self.app.push_screen(dialog, answered)


def _pair(p50: int | None, p95: int | None) -> str:
    return UNKNOWN if p50 is None or p95 is None else f"{p50:,} / {p95:,}"
