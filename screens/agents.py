"""The agents: every agent as a card, live while a sync runs; the detail of one beside the list or over it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual import events, on
from textual.containers import Horizontal
from textual.css.query import NoMatches
from textual.widget import Widget

from screens.actions import AGENTS, DETAIL, Action, actions_of, bindings_of
from screens.card_keys import DemoKeys, MovingKeys
from screens.frame import Console, Frame
from screens.glyphs import State, Tone
from screens.live import Changes
from screens.widgets.bars import CountsBar, Hints, SyncBar
from screens.widgets.card_grid import CardGrid, Note
from services.agents.filtering import Filter, parse_filter
from services.errors import UsageError
from services.model import AgentCard

if TYPE_CHECKING:
    from screens.detail import DetailPane

AGE_TICK = 10.0
"""Seconds between looks at whether an age reads differently; nothing is written when none does."""
FILTER_HINTS: Hints = [
    ("enter", "keep", ""),
    ("esc", "drop", ""),
    ("vendor:", "", ""),
    ("status:", "", ""),
    ("drift:", "", ""),
    ("company:", "", ""),
    ("!", "inverts", ""),
]


class Work(Horizontal):
    """The cards, and the detail beside them: together they cover it, so it has nothing of its own to draw."""

    BLANK = True


class AgentsScreen(DemoKeys, MovingKeys, Frame):
    """The home of the console."""

    place = AGENTS
    BLANK = True  # covered by its lines and `Work`
    BINDINGS = bindings_of(AGENTS)
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [  # noqa: RUF012 - declared so by Textual
        (0, "-narrow"),
        (120, "-wide"),
    ]

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.board = self.live.board
        settings = self.services.settings
        self.counts = CountsBar(self.live, self.glyphs)
        self.grid = CardGrid(
            self.board,
            self.services.clock,
            self.glyphs,
            stale_after=settings.stale_after,
            zone=self.zone,
            ident="cards",
        )
        self.sync_bar = SyncBar(self.live, self.glyphs, self.services.clock, lambda: self.grid.current)
        self.pane: DetailPane | None = None
        self.filtering = False

    def work(self) -> Iterable[Widget]:
        yield self.counts
        with Work(id="work"):
            yield self.grid
        yield self.sync_bar

    def on_mount(self) -> None:
        self.grid.note = self._note()
        self.set_interval(AGE_TICK, self._tick, name="ages")

    # -- live -------------------------------------------------------------------------------------

    def show(self, changes: Changes) -> None:
        if changes.everything:
            current = self.grid.current
            self.grid.note = self._note()
            self.grid.rearranged(keep=current.id if current is not None else None)
        else:
            if changes.grown:
                self.grid.grown()
            for place in changes.places:
                self.grid.repaint(place)
        if self.pane is not None and (changes.everything or changes.places):
            self._show_in_pane(reread=True)
        if changes.beyond_cards or self.pane is not None:
            self.redraw_bars()
            return
        if changes.counts:
            self.counts.redraw()
        if self.grid.cursor in changes.places:
            self.sync_bar.redraw()  # tells what is wrong with this card

    def redraw_bars(self) -> None:
        super().redraw_bars()
        self.counts.redraw()
        self.sync_bar.redraw()

    def _tick(self) -> None:
        if self.app.screen is self:
            self.grid.tick()
            self.redraw_bars()

    def _note(self) -> list[Note]:
        """What stands where the cards would be."""
        if self.live.failure:
            return [
                (self.live.failure, Tone.ACT),
                ("", Tone.PLAIN),
                ("`callboard doctor` looks closer", Tone.MUTED),
            ]
        if not self.board.loaded:
            return [("reading the mirror", Tone.MUTED)]
        if self.board.cards:
            return [
                (f"No agent matches  {self.board.filter.text}", Tone.PLAIN),
                ("", Tone.PLAIN),
                ("esc drops the filter, / changes it", Tone.MUTED),
            ]
        if self.services.demo is not None:
            return [("Preparing the demo company on this machine", Tone.PLAIN)]
        if self.live.has_connections:
            return [
                ("No agents yet", Tone.PLAIN),
                ("", Tone.PLAIN),
                ("S asks the vendors for them", Tone.ACCENT),
                ("3 shows the companies and their connections", Tone.MUTED),
            ]
        return [
            ("Welcome to Callboard", Tone.ACCENT),
            ("", Tone.PLAIN),
            ("Enter sets up a company: its name, then a vendor's key.", Tone.PLAIN),
            ("", Tone.PLAIN),
            ("Keys of Retell and ElevenLabs work, and are tested first.", Tone.MUTED),
        ]

    # -- what is available ------------------------------------------------------------------------

    def is_available(self, method: str) -> bool:
        if method in ("break_agent", "edit_agent"):
            return self.services.demo is not None and self.grid.current is not None
        if method == "resume":
            return self.live.resumable is not None
        if method in ("sync_all", "force_all"):
            return not self.live.syncing and self.live.has_connections
        if method in ("sync", "force"):
            return not self.live.syncing and bool(self.board.shown)
        if method == "back":
            return bool(self.filtering or self.live.syncing or self.board.filter or self.board.marks)
        if method == "open":
            return bool(self.board.shown) or self._unset
        if method in ("mark", "mark_all", "copy", "order", "call"):
            return bool(self.board.shown)
        if method == "filter":
            return bool(self.board.cards)
        return True

    @property
    def _unset(self) -> bool:
        """Nothing is set up yet: the first start without the demo."""
        empty = self.board.loaded and not self.board.cards and not self.live.has_connections
        return empty and self.services.demo is None

    def valid_actions(self) -> list[tuple[Action, Any]]:
        if self.pane is None:
            return super().valid_actions()
        pane = self.pane
        inside = [(action, pane) for action in actions_of(DETAIL) if pane.is_available(action.id)]
        hidden = {"back", "open", "sync", "force", "copy", "filter", "mark", "mark_all"}
        return [*inside, *(each for each in super().valid_actions() if each[0].id not in hidden)]

    def hints(self) -> Hints:
        if self.filtering:
            return FILTER_HINTS
        words = {"back": self._back_label()} | ({"open": "set up"} if self._unset else {})
        return [(key, words.get(method, word), method) for key, word, method in super().hints()]

    def _back_label(self) -> str:
        if self.live.syncing:
            return "cancel"
        return "drop filter" if self.board.filter else "unmark"

    # -- syncing ----------------------------------------------------------------------------------

    def action_sync(self) -> None:
        self._start(force=False, agents=self._chosen())

    def action_force(self) -> None:
        self._start(force=True, agents=self._chosen())

    def action_sync_all(self) -> None:
        self._start(force=False, agents=None)

    def action_force_all(self) -> None:
        self._start(force=True, agents=None)

    def action_resume(self) -> None:
        run = self.live.resumable

        def begin() -> None:
            self.console_app.perform(lambda: self._begin(resume=run), group="sync")

        if run is not None:
            self.console_app.after_unlock(begin)

    def _chosen(self) -> list[AgentCard]:
        return self.board.chosen(self.grid.cursor)

    def _start(self, *, force: bool, agents: list[AgentCard] | None) -> None:
        """Begin a run over these agents, or over all of them for None."""
        if agents is not None and not agents:
            return
        ids = tuple(card.id for card in agents) if agents is not None else ()

        def begin() -> None:
            self.console_app.perform(lambda: self._begin(agent_ids=ids, force=force), group="sync")

        self.console_app.after_unlock(begin)

    async def _begin(self, **wishes: Any) -> None:
        from services.agents import SyncRequest

        await self.console_app.ready()
        self.services.sync.start(SyncRequest(cause="operator", **wishes))

    # -- finding ----------------------------------------------------------------------------------

    async def action_filter(self) -> None:
        from screens.widgets.filter_line import FilterLine

        if not self.filtering:
            self.filtering = True
            await self.mount(FilterLine(self.board.filter.text), before=self.keys)
            self.redraw_bars()

    @on(events.DescendantBlur, "#filter")
    def _filter_left(self) -> None:
        self._close_filter()

    def filter_typed(self, text: str) -> None:
        """The filter line changed: apply it at once, or say what is wrong and keep the last good one."""
        try:
            chosen = parse_filter(text)
        except UsageError as error:
            self.counts.problem = f"{error.message}. {error.advice}"
            self.redraw_bars()
            return
        self.counts.problem = ""
        self._apply(chosen)

    def filter_kept(self) -> None:
        self._close_filter()

    def _apply(self, chosen: Filter) -> None:
        current = self.grid.current
        self.board.set_filter(chosen)
        self.grid.note = self._note()
        self.grid.rearranged(keep=current.id if current is not None else None)
        self.redraw_bars()

    def _close_filter(self) -> None:
        from screens.widgets.filter_line import FilterLine

        if self.filtering:
            self.filtering = False
            self.counts.problem = ""
            with suppress(NoMatches):
                self.query_one(FilterLine).remove()
            self.redraw_bars()

    def action_order(self) -> None:
        current = self.grid.current
        self.board.next_sort()
        self.grid.rearranged(keep=current.id if current is not None else None)
        self.redraw_bars()

    # -- choosing ---------------------------------------------------------------------------------

    def action_mark(self) -> None:
        card = self.grid.current
        if card is not None:
            self.board.toggle_mark(card.id)
            self.grid.repaint(self.grid.cursor)
            self.grid.move(columns=1)
            self.redraw_bars()

    def action_mark_all(self) -> None:
        self.board.toggle_all()
        self.grid.refresh()
        self.redraw_bars()

    def action_back(self) -> None:
        if self.filtering:
            self._apply(Filter())
            self._close_filter()
        elif self.live.syncing:
            self.services.sync.cancel()
        elif self.board.filter:
            self._apply(Filter())
        elif self.board.marks:
            self.board.marks.clear()
            self.grid.refresh()
        self.redraw_bars()

    def action_copy(self) -> None:
        card = self.grid.current
        if card is None:
            return
        if self.board.state(card) is State.ERROR and card.error is not None:
            self.console_app.copy(f"{card.name}: {card.error.message}. {card.error.advice}", "the error")
        else:
            self.console_app.copy(card.agent_id, f"the id of {card.name}")

    def action_call(self) -> None:
        from screens.calling import begin_call

        card = self.grid.current
        if card is not None:
            begin_call(self, card.id, card.name)

    async def action_open(self) -> None:
        from screens.detail import DetailPane

        if self._unset:
            self.console_app.set_up()
            return
        if self.pane is None and self.grid.current is not None:
            self.pane = DetailPane(self.console_app, self.sync_from_pane, self.close_pane)
            self.add_class("-detail")
            await self.query_one("#work").mount(self.pane)
            self.set_focus(self.pane)  # not `focus()`, which waits its turn: the next key may be here
            self._show_in_pane()
            self.redraw_bars()

    def reveal(self, agent: int) -> None:
        """Put the cursor on this agent, dropping a filter that hides it."""
        if self.board.index_of(agent) is None and agent in self.board.cards:
            self._apply(Filter())
        place = self.board.index_of(agent)
        if place is not None:
            self.grid.move_to(place)
            self.redraw_bars()

    @on(CardGrid.Opened)
    async def _opened(self) -> None:
        await self.action_open()

    @on(CardGrid.Moved)
    def _moved(self) -> None:
        if self.pane is not None:
            self._show_in_pane()
        sync = self.live.sync
        if sync is not None and sync.finished and self.live.resumable is None:
            self.sync_bar.dismissed = sync.run_id
        self.redraw_bars()

    def _show_in_pane(self, *, reread: bool = False) -> None:
        card = self.grid.current
        if self.pane is not None and card is not None:
            self.pane.show_agent(card, self.board.state(card), reread=reread)

    def sync_from_pane(self, card: AgentCard, force: bool) -> None:
        self._start(force=force, agents=[card])

    def close_pane(self) -> None:
        if self.pane is not None:
            self.pane.remove()
            self.pane = None
            self.remove_class("-detail")
            self.set_focus(None)
            self.redraw_bars()
