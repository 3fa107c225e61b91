"""Titled panels of lines in one widget, with a cursor: any number of lines, only those on screen are drawn.

Panels lie under one another; where there is room, those of the left side stand beside those of the right.
Only what differs from what is drawn is painted again, to the cell.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import ClassVar, Protocol

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.glyphs import Glyphs, Tone
from screens.textfit import cut, width_of
from screens.widgets.line import Piece

FRAMED = 99
"""From this width on lines at the sides frame the panels; below, the columns are worth more."""
BESIDE = 117
"""From this width on there are two columns of panels."""
LEFT_SHARE = 0.56
LEAD = 2
"""Columns at the head of a line for the cursor."""
TOP_LEFT, TOP, TOP_RIGHT, SIDE, BOTTOM_LEFT, BOTTOM, BOTTOM_RIGHT = range(7)
FROM_LEFT, FROM_RIGHT, FROM_TOP, FROM_BOTTOM, CROSS = range(7, 12)


class Side(Enum):
    """Where a panel stands when there is room for two columns."""

    FULL = "full"
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Panel:
    """A title with what is to say of the whole, and what each line below stands for."""

    key: str
    title: str
    summary: tuple[Piece, ...]
    items: tuple[Hashable, ...]
    side: Side = Side.FULL


class Painter(Protocol):
    """Draws the lines. Widths are columns without the cursor's."""

    def titles(self, panel: Panel, width: int) -> Sequence[tuple[int, str]]:
        """Titles of columns and where they begin."""

    def line(self, panel: Panel, item: Hashable, width: int) -> Sequence[Piece]:
        """One line, at most `width` columns."""


Cell = tuple[int, int]
"""The number of a panel and which of its lines; the title is -1."""
TITLE = -1


class Panels(ScrollView, can_focus=False):
    """Shows panels. Keys are the owner's business."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Panels { overflow-x: hidden; overflow-y: scroll; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"panel--{tone.value}" for tone in Tone),
        "panel--strong",
        "panel--frame",
        "panel--cursor",
    }

    class Opened(Message):
        """A line was clicked twice."""

    class Moved(Message):
        """The cursor is on another line."""

    def __init__(self, painter: Painter, glyphs: Glyphs, *, ident: str | None = None) -> None:
        super().__init__(id=ident)
        self.current: Hashable | None = None
        """What the line under the cursor stands for."""
        self.note: Sequence[Piece] = ()
        """What stands in the middle while there is no panel."""
        self.panels: Sequence[Panel] = ()
        self._painter = painter
        self._glyphs = glyphs
        self._rows: list[tuple[Cell | None, ...]] = []
        """The cells of each line; an empty one is the last line of the frame."""
        self._places: dict[Hashable, tuple[int, int]] = {}
        """Line and column of each item, in reading order."""
        self._drawn: dict[int, Strip] = {}
        self._styles_made: dict[Tone | str, Style] = {}
        self._width = 0

    # -- what is shown ----------------------------------------------------------------------------

    def set_panels(self, panels: Sequence[Panel], near: Hashable | None = None) -> None:
        """Show these. The cursor stays on its line; if that is gone, on `near`, or at its height."""
        same = [panel.items for panel in panels] == [panel.items for panel in self.panels]
        place = self._places.get(self.current, (0, 0))
        self.panels = panels
        if same and self._width == self.scrollable_content_region.width:
            self.sync()
            return
        self._lay_out()
        if self.current not in self._places:
            self.current = near if near in self._places else self._nearest(*place)
            self.post_message(self.Moved())
        self._show_cursor()

    def sync(self) -> None:
        """Paint what differs from what is drawn."""
        if not self.is_attached or not self._width:
            return
        top = self.scroll_offset.y
        for number in range(top, top + self.size.height):
            old, new = self._drawn.get(number), self._strip(number)
            if old is None or old == new:
                continue
            self._drawn[number] = new
            start, end = _difference(list(old), list(new))
            self.refresh(Region(start, number - top, end - start, 1))

    def _lay_out(self) -> None:
        self._width = width = self.scrollable_content_region.width
        self._drawn.clear()
        full, left, right = (self._cells_of(side) for side in Side)
        self._rows = []
        if width >= BESIDE and left and right:
            self._rows += [(cell,) for cell in full]
            self._rows += list(zip_longest(left, right))
        else:
            self._rows += [(cell,) for cell in self._cells_of(*Side)]
        if self._rows and width >= FRAMED:
            self._rows.append(())
        found = [
            (cell, (number, column))
            for number, row in enumerate(self._rows)
            for column, cell in enumerate(row)
            if cell is not None and cell[1] != TITLE
        ]
        self._places = {self.panels[panel].items[line]: place for (panel, line), place in sorted(found)}
        self.virtual_size = Size(width, len(self._rows))
        self.refresh()

    def _cells_of(self, *sides: Side) -> list[Cell]:
        return [
            (number, line)
            for number, panel in enumerate(self.panels)
            if panel.side in sides
            for line in range(TITLE, len(panel.items))
        ]

    def _nearest(self, row: int, column: int) -> Hashable | None:
        """The item closest to a place, in its column if that has one."""

        def distance(place: tuple[int, int]) -> tuple[bool, int]:
            return place[1] != column, abs(place[0] - row)

        return min(self._places, key=lambda item: distance(self._places[item]), default=None)

    def on_resize(self, event: events.Resize) -> None:
        if self.scrollable_content_region.width != self._width:
            self._lay_out()
        self._show_cursor()

    # -- moving -----------------------------------------------------------------------------------

    @property
    def page(self) -> int:
        return max(1, self.size.height - 2)

    def move(self, by: int) -> None:
        """Up or down in the column; at its lower end on to the next column, in reading order."""
        items = list(self._places)
        if not items:
            return
        row, column = self._places.get(self.current, self._places[items[0]])
        wanted = row + by
        ahead = [
            (item, place)
            for item, place in self._places.items()
            if (place[0] > row if by > 0 else place[0] < row) and self._is_in_column(place, column)
        ]
        if ahead:
            beyond = [each for each in ahead if (each[1][0] - wanted) * by >= 0]
            pick = min if beyond else max
            among = beyond or ahead
            self.move_to(pick(among, key=lambda each: abs(each[1][0] - row))[0])
        elif abs(by) == 1 and self.current in self._places:
            following = items.index(self.current) + by
            if 0 <= following < len(items):
                self.move_to(items[following])

    def _is_in_column(self, place: tuple[int, int], column: int) -> bool:
        return place[1] == column or len(self._rows[place[0]]) == 1

    def aside(self, by: int) -> None:
        """To the closest line of the column at the left or right."""
        row, column = self._places.get(self.current, (0, 0))
        others = [item for item, place in self._places.items() if place[1] == column + by]
        if others and len(self._rows[row]) > 1:
            self.move_to(min(others, key=lambda item: abs(self._places[item][0] - row)))

    def first(self) -> None:
        self.move_to(next(iter(self._places), None))
        self.scroll_to(y=0, animate=False)

    def last(self) -> None:
        self.move_to(next(reversed(self._places), None))

    def move_to(self, item: Hashable | None) -> None:
        """Put the cursor on this line, if it is shown."""
        if item in self._places and item != self.current:
            self.current = item
            self._show_cursor()
            self.sync()
            self.post_message(self.Moved())

    def _show_cursor(self) -> None:
        height = self.size.height
        place = self._places.get(self.current)
        if place is None or not height:
            return
        row, top = place[0], self.scroll_offset.y
        before = self._rows[row - 1] if row else ()
        titled = any(cell is not None and cell[1] == TITLE for cell in before)
        if row - titled < top:
            self.scroll_to(y=row - titled, animate=False)
        elif row >= top + height:
            # The last line of the frame belongs to the last line of a panel.
            last = row == len(self._rows) - 2 and not self._rows[-1]
            self.scroll_to(y=row - height + 1 + last, animate=False)

    def on_click(self, event: events.Click) -> None:
        row = event.y + self.scroll_offset.y
        if not 0 <= row < len(self._rows):
            return
        cells = self._rows[row]
        column = 1 if len(cells) > 1 and event.x > self._split[0] + 1 else 0
        cell = cells[column] if column < len(cells) else None
        if cell is not None and cell[1] != TITLE:
            self.move_to(self.panels[cell[0]].items[cell[1]])
            if event.chain == 2:
                self.post_message(self.Opened())

    # -- drawing ----------------------------------------------------------------------------------

    def notify_style_update(self) -> None:
        self._drawn.clear()
        self._styles_made.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        number = y + self.scroll_offset.y
        strip = self._drawn.get(number)
        if strip is None or strip.cell_length != self.scrollable_content_region.width:
            if len(self._drawn) > 4 * max(1, self.size.height):
                self._drawn.clear()
            strip = self._drawn[number] = self._strip(number)
        return strip

    @property
    def _split(self) -> tuple[int, int]:
        """The widths of the left and the right column, without the lines around them."""
        inner = self._width - 3
        left = round(inner * LEFT_SHARE)
        return left, inner - left

    def _style(self, name: Tone | str) -> Style:
        """The style of a piece; `blank` is the widget's own."""
        style = self._styles_made.get(name)
        if style is None:
            made = self.rich_style if name == "blank" else self.get_component_rich_style(f"panel--{name}")
            style = self._styles_made[name] = made
        return style

    def _strip(self, number: int) -> Strip:
        width, blank = self.scrollable_content_region.width, self._style("blank")
        if not self._rows:
            return self._note_line(number, width, blank)
        if number >= len(self._rows):
            return Strip.blank(width, blank)
        row, frame = self._rows[number], self._glyphs.frame
        line = self._style("frame")
        if not row:
            return Strip([Segment(self._bottom(width), line)])
        widths = [*self._split] if len(row) == 2 else [width - 2 if width >= FRAMED else width]
        if width < FRAMED:
            return Strip(self._content(row[0], widths[0])).adjust_cell_length(width, blank)
        titled = [cell is not None and cell[1] == TITLE for cell in row]
        first = number == 0
        segments = [Segment(frame[TOP_LEFT if first else FROM_LEFT if titled[0] else SIDE], line)]
        for column, cell in enumerate(row):
            if column:
                segments.append(Segment(self._middle(number, titled), line))
            segments += self._content(cell, widths[column])
        right = TOP_RIGHT if first else FROM_RIGHT if titled[-1] else SIDE
        return Strip([*segments, Segment(frame[right], line)])

    def _middle(self, number: int, titled: list[bool]) -> str:
        """The letter between two columns."""
        frame = self._glyphs.frame
        if all(titled):
            above = self._rows[number - 1] if number else ()
            return frame[CROSS if len(above) == 2 else FROM_TOP]
        return frame[FROM_LEFT if titled[1] else FROM_RIGHT if titled[0] else SIDE]

    def _bottom(self, width: int) -> str:
        frame = self._glyphs.frame
        rule = frame[BOTTOM] * (width - 2)
        if len(self._rows) > 1 and len(self._rows[-2]) == 2:
            left = self._split[0]
            rule = frame[BOTTOM] * left + frame[FROM_BOTTOM] + frame[BOTTOM] * (width - 3 - left)
        return frame[BOTTOM_LEFT] + rule + frame[BOTTOM_RIGHT]

    def _content(self, cell: Cell | None, width: int) -> list[Segment]:
        blank = self._style("blank")
        if cell is None:
            return [Segment(" " * width, blank)]
        panel, line = self.panels[cell[0]], cell[1]
        if line == TITLE:
            return self._title(panel, width)
        item = panel.items[line]
        chosen = item == self.current
        segments = [Segment(f"{self._glyphs.cursor} " if chosen else "  ", self._style(Tone.ACCENT))]
        pieces = self._painter.line(panel, item, self._room(width))
        segments += [Segment(text, self._style(tone)) for text, tone in pieces if text]
        strip = Strip(segments).adjust_cell_length(width, blank)
        if chosen:
            # Over the styles of the pieces, which have a background of their own.
            cursor = self.get_component_rich_style("panel--cursor", partial=True)
            return list(Segment.apply_style(strip, post_style=cursor))
        return list(strip)

    def _room(self, width: int) -> int:
        """The columns of a line for what stands in it: a blank keeps it from the line at the right."""
        return width - LEAD - (self._width >= FRAMED)

    def _title(self, panel: Panel, width: int) -> list[Segment]:
        """A rule with the title, the summary and, where they do not stand in its way, titles of columns."""
        line, rule = self._style("frame"), self._glyphs.frame[TOP]
        pieces: list[Piece] = [(f"{rule} ", "frame"), (panel.title, "strong"), ("  ", "frame")]
        for number, (text, tone) in enumerate(panel.summary):
            pieces.append((f"{', ' if number else ''}{text}", tone))
        used, segments = 0, list[Segment]()
        for text, tone in pieces:
            shown = cut(text, width - used - 2, self._glyphs.ellipsis)
            segments.append(Segment(shown, self._style(tone)))
            used += width_of(shown)
            if shown != text:
                break
        segments.append(Segment(" ", line))
        used += 1
        muted = self._style(Tone.MUTED)
        for start, title in self._painter.titles(panel, self._room(width)):
            place = start + LEAD
            if place > used + 1 and place + len(title) < width:
                segments += [Segment(rule * (place - 1 - used), line), Segment(f" {title} ", muted)]
                used = place + len(title) + 1
        segments.append(Segment(rule * (width - used), line))
        return list(Strip(segments).adjust_cell_length(width, line))

    def _note_line(self, y: int, width: int, blank: Style) -> Strip:
        number = y - max(1, (self.size.height - len(self.note)) // 2 - 1)
        if not 0 <= number < len(self.note):
            return Strip.blank(width, blank)
        text, tone = self.note[number]
        pad = Segment(" " * max(0, (width - width_of(text)) // 2), blank)
        return Strip([pad, Segment(text, self._style(tone))]).adjust_cell_length(width, blank)


def _difference(old: list[Segment], new: list[Segment]) -> tuple[int, int]:
    """The columns from the first to the last segment that differs."""
    start = end = 0
    while old and new and old[0] == new[0]:
        start += new.pop(0).cell_length
        old.pop(0)
    while old and new and old[-1] == new[-1]:
        new.pop()
        old.pop()
    end = start + max(sum(each.cell_length for each in old), sum(each.cell_length for each in new))
    return start, end
