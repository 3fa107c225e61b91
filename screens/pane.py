"""The detail of what the cursor is on: beside the list where there is room, else over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.containers import Vertical

from screens.frame import Console
from screens.glyphs import Tone
from screens.widgets.document import Document
from screens.widgets.line import Line, Piece
from screens.widgets.table import LineTable

FAR = 10_000_000
"""More lines than anything has."""


class TabLine(Line):
    """The titles of the tabs; at the right a remark on the open one."""

    def __init__(self, titles: Sequence[str]) -> None:
        super().__init__(ident="tabs")
        self.titles = tuple(titles)
        self.tab = 0
        self.remark: Piece = ("", Tone.MUTED)

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        left: list[Piece] = [(" ", Tone.PLAIN)]
        for number, title in enumerate(self.titles):
            left += [(title, "tab" if number == self.tab else Tone.MUTED), ("  ", Tone.MUTED)]
        text, tone = self.remark
        return left, [(f"{text} ", tone)] if text else []

    def step(self, by: int) -> None:
        """To a tab further on, and from the last one to the first."""
        self.tab = (self.tab + by) % len(self.titles)

    def say(self, text: str, tone: Tone = Tone.MUTED) -> None:
        self.remark = (text, tone)
        self.redraw()


class Pane(Vertical, can_focus=True):
    """Tabs with one thing to scroll in each. Holds the focus, so that its keys come before the list's."""

    def __init__(
        self, console: Console, titles: Sequence[str], close: Callable[[], None], *, ident: str
    ) -> None:
        super().__init__(id=ident)
        self._host, self._close_pane = console, close
        self._services = console.services
        self._zone = console.services.settings.timezone
        self.tabs = TabLine(titles)

    def on_mount(self) -> None:
        self.show_tab()

    @property
    def scrolled(self) -> Document | LineTable:
        """What the open tab scrolls."""
        raise NotImplementedError

    def show_tab(self) -> None:
        """Another tab is open: show what is in it."""
        raise NotImplementedError

    def action_close(self) -> None:
        self._close_pane()

    def action_next_tab(self) -> None:
        self.tabs.step(1)
        self.show_tab()

    def action_previous_tab(self) -> None:
        self.tabs.step(-1)
        self.show_tab()

    # -- scrolling --------------------------------------------------------------------------------

    def _scroll(self, by: int) -> None:
        part = self.scrolled
        if isinstance(part, LineTable):
            part.move(by)
        else:
            part.scroll_to(y=part.scroll_offset.y + by, animate=False)

    @property
    def _page(self) -> int:
        part = self.scrolled
        return part.page if isinstance(part, LineTable) else max(1, part.size.height - 1)

    def action_scroll_up(self) -> None:
        self._scroll(-1)

    def action_scroll_down(self) -> None:
        self._scroll(1)

    def action_scroll_page_up(self) -> None:
        self._scroll(-self._page)

    def action_scroll_page_down(self) -> None:
        self._scroll(self._page)

    def action_scroll_first(self) -> None:
        self._scroll(-FAR)

    def action_scroll_last(self) -> None:
        self._scroll(FAR)
