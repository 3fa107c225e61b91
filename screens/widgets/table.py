"""A table drawn line by line, with a cursor. For lists of runs, outcomes, connections: any number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.glyphs import Glyphs, Tone
from screens.textfit import display, fit, width_of

Cell = tuple[str, Tone]
SHARE = 26
"""Columns a flexible column should have before others are left out for it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `width` 0 takes a share of what is left; a column with a `rank` goes when it gets narrow,
    the highest rank first."""

    title: str
    width: int = 0
    right: bool = False
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it stands for, and a cell per column. A heading has no key and cannot be chosen."""

    key: Any
    cells: tuple[Cell, ...]
    heading: bool = False


class LineTable(ScrollView, can_focus=False):
    """Rows under a line of titles."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "LineTable { overflow-x: hidden; overflow-y: auto; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"table--{tone.value}" for tone in Tone),
        "table--title",
        "table--cursor",
        "table--strong",
    }

    class Opened(Message):
        """A row was clicked twice."""

    class Moved(Message):
        """The cursor is on another row."""

    def __init__(self, columns: Sequence[Column], glyphs: Glyphs, *, ident: str | None = None) -> None:
        super().__init__(id=ident)
        self.columns = tuple(columns)
        self.lines: list[Row] = []
        self.cursor = 0
        self.empty: Sequence[Cell] = ()
        self._glyphs = glyphs

    @property
    def current(self) -> Row | None:
        return self.lines[self.cursor] if 0 <= self.cursor < len(self.lines) else None

    def set_rows(self, rows: Sequence[Row], *, columns: Sequence[Column] | None = None) -> None:
        """Show other rows; the cursor stays on the same key if that is still there."""
        current = self.current
        if columns is not None:
            self.columns = tuple(columns)
        self.lines = list(rows)
        keys = [row.key for row in rows]
        if current is not None and current.key is not None and current.key in keys:
            self.cursor = keys.index(current.key)
        else:
            self.cursor = next((n for n, row in enumerate(rows) if not row.heading), 0)
        self._measure()
        self.refresh()

    def _measure(self) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self.lines) + 1)

    def on_resize(self, event: events.Resize) -> None:
        self._measure()

    def move(self, by: int) -> None:
        """Move the cursor over headings to the next row that can be chosen."""
        step = 1 if by > 0 else -1
        place = max(0, min(len(self.lines) - 1, self.cursor + by))
        while 0 <= place < len(self.lines) and self.lines[place].heading:
            place += step
        if 0 <= place < len(self.lines) and place != self.cursor:
            self.cursor = place
            self._show_cursor()
            self.refresh()
            self.post_message(self.Moved())

    @property
    def page(self) -> int:
        return max(1, self.scrollable_content_region.height - 2)

    def _show_cursor(self) -> None:
        line, top = self.cursor + 1, self.scroll_offset.y
        height = self.scrollable_content_region.height
        if line <= top:
            self.scroll_to(y=max(0, line - 1), animate=False)
        elif line >= top + height:
            self.scroll_to(y=line - height + 1, animate=False)

    def on_click(self, event: events.Click) -> None:
        place = event.y + self.scroll_offset.y - 1
        if event.y > 0 and 0 <= place < len(self.lines) and not self.lines[place].heading:
            self.move(place - self.cursor)
            if event.chain == 2:
                self.post_message(self.Opened())

    def _widths(self, width: int) -> list[int]:
        """Columns' widths for a total; 0 for one that is left out."""
        columns = list(enumerate(self.columns))
        room = width - 3
        kept = {number for number, _ in columns}
        for number, column in sorted(columns, key=lambda each: -each[1].rank):
            flexible = sum(1 for each in kept if not self.columns[each].width)
            needed = sum(self.columns[each].width or SHARE for each in kept) + 2 * len(kept)
            if needed <= room or not column.rank or not flexible:
                break
            kept.discard(number)
        fixed = sum(self.columns[number].width for number in kept) + 2 * len(kept)
        flexible = sum(1 for number in kept if not self.columns[number].width)
        share = max(4, (room - fixed) // flexible) if flexible else 0
        return [(column.width or share) if number in kept else 0 for number, column in columns]

    def render_line(self, y: int) -> Strip:
        width, blank = self.scrollable_content_region.width, self.rich_style
        if not self.lines:
            return self._empty_line(y, width, blank)
        # The titles stay on top while the rows scroll below them.
        place = y + self.scroll_offset.y - 1
        if y == 0:
            title = self.get_component_rich_style("table--title")
            cells: list[tuple[str, Style]] = [(column.title, title) for column in self.columns]
            return self._strip("  ", cells, width, blank)
        if place >= len(self.lines):
            return Strip.blank(width, blank)
        row = self.lines[place]
        chosen = place == self.cursor and not row.heading
        styled = [
            (text, self.get_component_rich_style("table--strong" if row.heading else f"table--{tone.value}"))
            for text, tone in row.cells
        ]
        strip = self._strip(f"{self._glyphs.cursor} " if chosen else "  ", styled, width, blank)
        return (
            strip.apply_style(self.get_component_rich_style("table--cursor", partial=True))
            if chosen
            else strip
        )

    def _strip(self, lead: str, cells: list[tuple[str, Style]], width: int, blank: Style) -> Strip:
        segments = [Segment(lead, self.get_component_rich_style("table--accent"))]
        if len(cells) == 1:
            segments.append(Segment(fit(display(cells[0][0]), width - 3, self._glyphs.ellipsis), cells[0][1]))
            return Strip(segments).adjust_cell_length(width, blank)
        for (text, style), column, room in zip(cells, self.columns, self._widths(width), strict=True):
            if not room:
                continue
            shown = fit(display(text), room, self._glyphs.ellipsis)
            if column.right:
                shown = shown.rstrip()
                shown = " " * (room - width_of(shown)) + shown
            segments.append(Segment(f"{shown}  ", style))
        return Strip(segments).adjust_cell_length(width, blank)

    def _empty_line(self, y: int, width: int, blank: Style) -> Strip:
        number = y - max(1, (self.size.height - len(self.empty)) // 2 - 1)
        if not 0 <= number < len(self.empty):
            return Strip.blank(width, blank)
        text, tone = self.empty[number]
        pad = Segment(" " * max(0, (width - width_of(text)) // 2), blank)
        return Strip(
            [pad, Segment(text, self.get_component_rich_style(f"table--{tone.value}"))]
        ).adjust_cell_length(width, blank)
