"""One agent: overview, configuration, history. Beside the cards where there is room, else over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from textual import on
from textual.app import ComposeResult
from textual.widgets import Input

from screens.actions import DETAIL, bindings_of
from screens.frame import Console
from screens.glyphs import STATE_TONE, State, Tone
from screens.pane import Pane
from screens.ports import AgentEvent, BundleView
from screens.textfit import display, fit
from screens.when import exact, moment
from screens.widgets.document import Document, pretty
from screens.widgets.line import Line, Piece
from screens.widgets.table import Column, LineTable, Row
from services.model import AgentCard, Outcome

TABS = ("overview", "configuration", "history")
OUTCOME_TONE = {
    Outcome.CREATED: Tone.OK,
    Outcome.UPDATED: Tone.OK,
    Outcome.UNCHANGED: Tone.PLAIN,
    Outcome.GONE: Tone.MUTED,
    Outcome.FAILED: Tone.ACT,
    Outcome.CANCELLED: Tone.LOOK,
}
HISTORY_COLUMNS = (
    Column("when", 12),
    Column("outcome", 9),
    Column("cause", 9, rank=2),
    Column("detail"),
)


class NameLine(Line):
    """The agent's name with its badge."""

    def __init__(self, glyphs: dict[State, str]) -> None:
        super().__init__(ident="name")
        self._glyphs = glyphs
        self.card: AgentCard | None = None
        self.state = State.UNKNOWN

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        if self.card is None:
            return [], []
        badge = f"{self._glyphs[self.state]} {self.state.value} "
        return [(f" {display(self.card.name)}", "strong")], [(badge, STATE_TONE[self.state])]


class DetailPane(Pane):
    """Everything of the agent under the cursor."""

    BINDINGS = bindings_of(DETAIL)

    def __init__(
        self, console: Console, sync: Callable[[AgentCard, bool], None], close: Callable[[], None]
    ) -> None:
        super().__init__(console, TABS, close, ident="detail")
        self._sync_agent = sync
        self.card: AgentCard | None = None
        self._bundle: BundleView | None = None
        self._read: set[str] = set()
        """What has been read for the agent shown: `bundle`, `configuration`, `history`."""
        self._events: Sequence[AgentEvent] = ()
        self.name_line = NameLine(console.glyphs.states)
        self.overview = Document(console.glyphs, ident="overview")
        self.configuration = Document(console.glyphs, ident="configuration")
        self.history = LineTable(HISTORY_COLUMNS, console.glyphs, ident="history")
        self.search_line: Input | None = None

    def compose(self) -> ComposeResult:
        yield self.name_line
        yield self.tabs
        yield self.overview
        yield self.configuration
        yield self.history

    # -- what is shown ----------------------------------------------------------------------------

    @property
    def tab(self) -> str:
        return TABS[self.tabs.tab]

    def show_agent(self, card: AgentCard, state: State, *, reread: bool = False) -> None:
        """Show this agent; `reread` says that what is stored of it may be new."""
        another = self.card is None or self.card.id != card.id
        changed = self.card is not card
        self.card = card
        self.name_line.card, self.name_line.state = card, state
        self.name_line.redraw()
        if another or (reread and changed):
            self._read.clear()
            if another:
                self._bundle, self._events = None, ()
            self._fill()

    def _fill(self) -> None:
        self._host.perform(self._fill_now, group="detail")

    async def _fill_now(self) -> None:
        """Read what the open tab needs, once, and show it if it is still wanted."""
        card, tab = self.card, self.tab
        if card is None or tab in self._read:
            return
        self._read.add(tab)
        if tab == "history":
            self._events = await self._services.agents.history(card.id)
            if self.card is card:
                self._show_history()
            return
        if tab == "overview":
            await self.overview.set_lines(self._overview(card))
        bundle = await self._services.agents.bundle(card.id)
        if self.card is not card:
            return
        self._bundle = bundle
        if tab == "overview":
            await self.overview.set_lines(self._overview(card))
        elif bundle is None:
            await self.configuration.set_lines([], "Nothing has been read of this agent yet: s syncs it")
        else:
            sign = self._host.glyphs.hidden
            lines = await asyncio.to_thread(_documents, bundle, sign)
            if self.card is card:
                await self.configuration.set_lines(lines)

    def _overview(self, card: AgentCard) -> list[str]:
        zone = self._zone
        pairs: list[tuple[str, str]] = []
        if card.error is not None:
            pairs += [("what happened", card.error.message), ("what to do", card.error.advice), ("", "")]
        functions = "" if card.function_count is None else str(card.function_count)
        pairs += [
            ("vendor", card.provider.value),
            ("company", card.company),
            ("agent id", card.agent_id),
            ("release", card.release),
            ("drift", card.drift.value.replace("_", " ")),
            ("", ""),
            ("voice", card.voice),
            ("language", card.language),
            ("model", card.model),
            ("functions" if card.provider.value == "retell" else "tools", functions),
            ("", ""),
            ("checked", exact(card.checked_at, zone)),
            ("changed", exact(card.changed_at, zone)),
        ]
        if card.gone_at is not None:
            pairs.append(("gone since", exact(card.gone_at, zone)))
        if self._bundle is not None:
            pairs += [
                ("stored", exact(self._bundle.stored_at, zone)),
                ("digest", self._bundle.digest[:16]),
                ("", ""),
            ]
            known = {name for name, _ in pairs}
            pairs += [(name, value) for name, value in self._bundle.facts if name not in known]
        width = self.overview.label_width = max(16, *(len(name) for name, _ in pairs)) + 2
        return [f"{fit(name, width)}{display(value) or '-'}" if name else "" for name, value in pairs]

    def _show_history(self) -> None:
        now = self._services.clock.now()
        rows = []
        for event in self._events:
            detail = (
                f"{event.error.message}. {event.error.advice}" if event.error is not None else event.detail
            )
            tone = OUTCOME_TONE[event.outcome]
            rows.append(
                Row(
                    (event.run_id, event.at),
                    (
                        (moment(event.at, now, self._zone), Tone.PLAIN),
                        (event.outcome.value, tone),
                        (event.cause, Tone.MUTED),
                        (detail, tone if event.error is not None else Tone.PLAIN),
                    ),
                )
            )
        self.history.empty = [("No sync has touched this agent yet", Tone.MUTED)]
        self.history.set_rows(rows)

    @property
    def scrolled(self) -> Document | LineTable:
        return (self.overview, self.configuration, self.history)[self.tabs.tab]

    def show_tab(self) -> None:
        for part in (self.overview, self.configuration, self.history):
            part.display = part is self.scrolled
        self.tabs.say("")
        self._fill()

    # -- keys -------------------------------------------------------------------------------------

    def is_available(self, method: str) -> bool:
        if method in ("next_match", "previous_match"):
            return self.tab == "configuration" and self.configuration.found > 0
        if method in ("sync_one", "force_one"):
            return not self._host.live.syncing
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.is_available(action)

    async def action_search(self) -> None:
        if self.tab != "configuration":
            self.tabs.tab = TABS.index("configuration")
            self.show_tab()
        if self.search_line is None:
            self.search_line = Input(placeholder="search the configuration", compact=True, id="search")
            await self.mount(self.search_line)
            self.screen.set_focus(self.search_line)

    @on(Input.Submitted, "#search")
    async def _search(self, event: Input.Submitted) -> None:
        event.stop()
        needle = event.value
        await self._end_search()
        if needle:
            await self.configuration.search(needle)
            self._remark(needle)

    async def _end_search(self) -> None:
        if self.search_line is not None:
            line, self.search_line = self.search_line, None
            self.focus()
            await line.remove()

    def _remark(self, needle: str = "") -> None:
        document = self.configuration
        found = f"{document.here} of {document.found}" if document.found else f"no {needle!r} in here"
        self.tabs.say(found, Tone.LOOK)

    def action_next_match(self) -> None:
        self.configuration.step(1)
        self._remark()

    def action_previous_match(self) -> None:
        self.configuration.step(-1)
        self._remark()

    def action_copy_detail(self) -> None:
        card = self.card
        if card is None:
            return
        if self.tab == "configuration" and self._bundle is not None:
            bundle, sign = self._bundle, self._host.glyphs.hidden

            async def copy() -> None:
                text = "\n".join(await asyncio.to_thread(_documents, bundle, sign))
                self._host.copy(text, "the configuration, secrets hidden")

            self._host.perform(copy, group="copy")
        elif self.tab == "history" and self.history.current is not None:
            self._host.copy("  ".join(text for text, _ in self.history.current.cells), "this line")
        elif card.error is not None:
            self._host.copy(f"{card.name}: {card.error.message}. {card.error.advice}", "the error")
        else:
            self._host.copy(card.agent_id, f"the id of {card.name}")

    def action_sync_one(self) -> None:
        if self.card is not None:
            self._sync_agent(self.card, False)

    def action_force_one(self) -> None:
        if self.card is not None:
            self._sync_agent(self.card, True)


def _documents(bundle: BundleView, sign: str) -> list[str]:
    """Every part of the bundle as lines, each under a heading; secrets hidden."""
    lines: list[str] = []
    for part in bundle.parts:
        if lines:
            lines.append("")
        lines += [f"# {display(part.kind)} {display(part.id)}", *pretty(part.text, sign)]
    return lines


__all__ = ["DetailPane"]
