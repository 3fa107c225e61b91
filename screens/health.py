"""Is everything well, and if not, why: checks in panels by kind, the detail of one beside or over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget

from screens.actions import CHECK, HEALTH, Action, actions_of, bindings_of
from screens.filtered import FilteredFrame
from screens.frame import Console
from screens.glyphs import Tone
from screens.health_board import Fold, HealthBoard
from screens.health_demo import DemoKeys
from screens.health_filter import parse_health_filter
from screens.health_keys import PanelKeys
from screens.health_lines import HeadLine, WhyLine
from screens.health_rows import HealthPainter
from screens.health_words import Standing, copy_text, is_counting, legend, standing_of
from screens.live import Changes
from screens.textfit import display, sentence
from screens.widgets.bars import Hints
from screens.widgets.line import Piece
from screens.widgets.panels import Panels
from screens.widgets.table import Cell
from services.errors import ServiceError
from services.health.model import CheckView, HealthView

if TYPE_CHECKING:
    from textual.worker import Worker

    from screens.health_detail import CheckPane


class HealthScreen(PanelKeys, DemoKeys, FilteredFrame):
    """Panels with a cursor; keys act on the line under it."""

    place = HEALTH
    BINDINGS = bindings_of(HEALTH)
    ENTRY = "health"
    TYPING_HINTS: ClassVar[Hints] = [
        ("enter", "keep", ""),
        ("esc", "drop", ""),
        ("state:down", "", ""),
        ("kind:agent", "", ""),
        ("company:", "", ""),
        ("vendor:", "", ""),
        ("!", "inverts", ""),
    ]
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.board = HealthBoard()
        self.painter = HealthPainter(self.board, self.glyphs, self.zone)
        self.panels = Panels(self.painter, self.glyphs, ident="panels")
        self.head = HeadLine(self)
        self.why = WhyLine(self)
        self.pane: CheckPane | None = None
        self.failure: tuple[str, str] | None = None
        """Why nothing can be said, and what to do."""
        self._asking: Worker[None] | None = None

    def work(self) -> Iterable[Widget]:
        yield self.head
        with Horizontal(id="healthwork"):
            yield self.panels
        yield self.why

    def on_mount(self) -> None:
        self.set_interval(1.0, self._tick, name="health")
        self._fill()
        self.console_app.perform(self._look, group="health")

    # -- live -------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Take over what the service knows: it may have been started before this screen was opened."""
        try:
            await self.console_app.ready()
            self.live.look_at_health()
            self.failure = None
        except ServiceError as error:
            self.failure = (error.message, error.advice)
        if self.is_mounted:
            self._fill()

    def show(self, changes: Changes) -> None:
        if changes.health or changes.everything:
            self._fill()
        else:
            self.redraw_bars()

    def redraw_bars(self) -> None:
        super().redraw_bars()
        self.head.redraw()
        self.why.redraw()

    def _fill(self) -> None:
        """Show the newest view; only what reads differently is painted."""
        view = self.live.health
        near = self.board.fold_of(self.panels.current) if isinstance(self.panels.current, str) else None
        self._set_time()
        panels = self.board.panels(view) if view is not None else []
        self.painter.rearranged()
        if isinstance(self.panels.current, str) and near is None:
            near = self.board.fold_of(self.panels.current)
        self.panels.note = self._note(view)
        self.panels.set_panels(panels, near)
        if self.pane is not None and self.current is not None:
            self.pane.show_check(self.current)
        self.redraw_bars()

    def _set_time(self) -> None:
        self.painter.now = self.services.clock.now()
        self.painter.elapsed = self.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since the view was taken."""
        return max(0.0, self.services.clock.monotonic() - self.live.health_at)

    def _tick(self) -> None:
        """Countdowns and ages; nothing is written while they read the same."""
        if not self.is_current:
            return
        self.head.redraw()
        if any(is_counting(check) for check in self.board.checks.values()):
            self._set_time()
            self.panels.sync()
            self.why.redraw()
            if self.pane is not None:
                self.pane.tick()

    def _note(self, view: HealthView | None) -> list[Piece]:
        """What stands where the panels would be."""
        if self.failure is not None:
            return [
                ("The checks could not be read", Tone.ACT),
                (sentence(*self.failure), Tone.PLAIN),
                ("", Tone.PLAIN),
                ("`callboard doctor` looks closer", Tone.MUTED),
            ]
        if view is None:
            return [("reading the checks", Tone.MUTED)]
        if view.checks:
            return [
                (f"No check matches  {display(self.board.filter.typed)}", Tone.PLAIN),
                ("", Tone.PLAIN),
                ("esc drops the filter, / changes it", Tone.MUTED),
            ]
        if not self.live.has_connections:
            return [
                ("Nothing to watch yet", Tone.PLAIN),
                ("", Tone.PLAIN),
                ("3 connects a company to a vendor; its checks begin by themselves", Tone.ACCENT),
                ("agents, integrations and this machine are watched as well", Tone.MUTED),
            ]
        return [("the first checks are on their way", Tone.MUTED)]

    # -- what the cursor is on --------------------------------------------------------------------

    @property
    def current(self) -> CheckView | None:
        """The check under the cursor; None on a fold."""
        return self.board.checks.get(self.panels.current) if isinstance(self.panels.current, str) else None

    @property
    def _fold(self) -> Fold | None:
        """The fold under the cursor, or that of the line under it."""
        current = self.panels.current
        return current if isinstance(current, Fold) else self.board.fold_of(str(current))

    @property
    def asking(self) -> bool:
        return self._asking is not None

    def asked_checks(self) -> list[CheckView]:
        return [check for ident in self.painter.asked if (check := self.board.checks.get(ident)) is not None]

    def is_available(self, method: str) -> bool:
        check = self.current
        match method:
            case "open":
                return self.panels.current is not None
            case "check":
                return not self.asking and self.panels.current is not None
            case "check_all" | "filter":
                return bool(self.board.checks) and not (method == "check_all" and self.asking)
            case "breaker":
                return check is not None and check.breaker is not None
            case "maintain" | "copy":
                return check is not None
            case "break_vendor":
                return check is not None and self.broken_by(check) is not None
            case "fold":
                return self._fold is not None
        return True

    def valid_actions(self) -> list[tuple[Action, Any]]:
        if self.pane is None:
            return super().valid_actions()
        inside = [(action, self.pane) for action in actions_of(CHECK)]
        hidden = {"open", "fold", "filter", "leave", "check_all"}
        return [*inside, *(each for each in super().valid_actions() if each[0].id not in hidden)]

    def hints(self) -> Hints:
        words = {"leave": self._leave_label()}
        fold, check = self._fold, self.current
        if isinstance(self.panels.current, Fold):
            words["open"] = "fold" if self.board.folds[self.panels.current].open else "unfold"
            words["check"] = "check these"
        if fold is not None:
            words["fold"] = "fold" if self.board.folds[fold].open else "unfold"
        if check is not None and standing_of(check) is Standing.MAINTENANCE:
            words["maintain"] = "end maintenance"
        return [
            (key, words.get(method, word), method)
            for key, word, method in super().hints()
            if not (method == "fold" and isinstance(self.panels.current, Fold))
        ]

    def legend(self) -> Sequence[tuple[Cell, str]]:
        return legend(self.glyphs)

    def _leave_label(self) -> str:
        if self.asking:
            return "stop waiting"
        return "drop filter" if self.board.filter else "back"

    @on(Panels.Moved)
    def _moved(self) -> None:
        if self.pane is not None:
            if self.current is not None:
                self.pane.show_check(self.current)
            else:
                self.close_pane()
        self.redraw_bars()

    # -- checking now -----------------------------------------------------------------------------

    def action_check(self) -> None:
        current = self.panels.current
        if isinstance(current, Fold):
            self._ask([check.id for check in self.board.folds[current].checks])
        elif current is not None:
            self._ask([str(current)])

    def action_check_all(self) -> None:
        self._ask(None)

    def check_again(self, ident: str) -> None:
        """Check one line unless something is being checked already: what changes it is known."""
        if not self.asking:
            self._ask([ident])

    def _ask(self, ids: Sequence[str] | None) -> None:
        checks = self.board.checks
        wanted = checks if ids is None else ids
        self.painter.asked = {ident: checks[ident].checked_at for ident in wanted if ident in checks}
        self._asking = self.run_worker(self._probe(ids), group="probe", exit_on_error=False)
        self._fill()

    async def _probe(self, ids: Sequence[str] | None) -> None:
        try:
            await self.console_app.ready()
            await self.services.health.check_now(ids)
        except ServiceError as error:
            self.console_app.tell_error(error)
        finally:
            self.painter.asked, self._asking = {}, None
        self.live.look_at_health()
        self._fill()

    # -- finding ----------------------------------------------------------------------------------

    @property
    def filter_text(self) -> str:
        return self.board.filter.typed

    def set_filter(self, typed: str) -> None:
        self.board.filter, self.head.problem = parse_health_filter(typed), ""
        self._fill()

    def show_problem(self, problem: str) -> None:
        self.head.problem = problem
        self.head.redraw()

    async def action_leave(self) -> None:
        if self.entry is not None:
            await self.drop_filter()
        elif self._asking is not None:
            self._asking.cancel()
            self.painter.asked, self._asking = {}, None
            self._fill()
        elif self.board.filter:
            await self.drop_filter()
        else:
            self.app.pop_screen()

    # -- one line ---------------------------------------------------------------------------------

    async def action_open(self) -> None:
        from screens.health_detail import CheckPane

        if isinstance(self.panels.current, Fold):
            self.action_fold()
        elif self.pane is None and self.current is not None:
            self.pane = CheckPane(self.console_app, self.panels, self.close_pane)
            self.add_class("-detail")
            await self.query_one("#healthwork").mount(self.pane)
            self.set_focus(self.pane)  # not `focus()`, which waits its turn: the next key may be here
            self.pane.show_check(self.current)
            self.redraw_bars()

    @on(Panels.Opened)
    async def _opened(self) -> None:
        await self.action_open()

    def close_pane(self) -> None:
        if self.pane is not None:
            self.pane.remove()
            self.pane = None
            self.remove_class("-detail")
            self.set_focus(None)
            self.redraw_bars()

    def action_fold(self) -> None:
        fold = self._fold
        if fold is not None:
            self.board.toggle(fold)
            if not isinstance(self.panels.current, Fold):
                self.panels.move_to(fold)
            self._fill()

    def action_breaker(self) -> None:
        from screens.health_dialogs import ask_breaker

        if self.current is not None:
            ask_breaker(self, self.current)

    def action_maintain(self) -> None:
        from screens.health_dialogs import ask_maintenance

        if self.current is not None:
            ask_maintenance(self, self.current)

    def action_copy(self) -> None:
        check = self.current
        if check is not None:
            text = copy_text(check, self.services.clock.now(), self.zone)
            self.console_app.copy(text, f"the line of {display(check.name)}")
