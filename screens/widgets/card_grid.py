"""All agents as cards in one widget: only what is on screen is drawn, and a change repaints one card."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar, Self

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.board import Board
from screens.glyphs import Glyphs, Tone
from screens.textfit import width_of, wrap
from screens.when import exact
from screens.widgets.card import BADGE_LINE, HEIGHT, MIN_WIDTH, Face, Look, age_text, draw_card, is_stale
from services.clock import Clock
from services.model import AgentCard

GAP = 1
MARGIN = 1
CACHED_CARDS = 600
"""Drawn cards kept; a large terminal shows about 100 at once."""
Note = tuple[str, Tone]


class CardGrid(ScrollView, can_focus=False):
    """Cards in columns, with a cursor. Reads the board; the screen decides what keys do."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "CardGrid { overflow-x: hidden; overflow-y: scroll; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"card--{tone.value}" for tone in Tone),
        "card--strong",
        "card--border",
        "card--chosen",
        "card--marked",
    }

    class Opened(Message):
        """A card was clicked twice."""

    class Moved(Message):
        """The cursor is on another card."""

    def __init__(
        self,
        board: Board,
        clock: Clock,
        glyphs: Glyphs,
        *,
        stale_after: int,
        zone: str,
        ident: str | None = None,
    ) -> None:
        super().__init__(id=ident)
        self.board = board
        self.cursor = 0
        self.note: list[Note] = []
        """What stands in the middle when there is no card to show."""
        self._clock = clock
        self._glyphs = glyphs
        self._stale_after = stale_after
        self._zone = zone
        self._now = clock.now()
        self._look: Look | None = None
        self._blank: Style | None = None
        self._drawn: OrderedDict[int, tuple[AgentCard, Face, list[Strip]]] = OrderedDict()
        self._row: tuple[int, list[Strip]] | None = None
        self._kept: tuple[object, list[Strip]] | None = None
        self._dirty: set[int] = set()
        self._inner = Region()
        self._columns, self._card_width = 1, MIN_WIDTH
        self._hovered: int | None = None

    # -- geometry ---------------------------------------------------------------------------------

    @property
    def columns(self) -> int:
        return self._columns

    @property
    def rows(self) -> int:
        return -(-len(self.board.shown) // self._columns)

    def _measure(self) -> None:
        self._row = None
        self._inner = self.scrollable_content_region.reset_offset
        inner = max(MIN_WIDTH // 2, self._inner.width - MARGIN)
        self._columns = max(1, (inner + GAP) // (MIN_WIDTH + GAP))
        self._card_width = (inner - GAP * (self._columns - 1)) // self._columns
        self.virtual_size = Size(self._inner.width, self.rows * HEIGHT)

    def _place_region(self, place: int) -> Region:
        """Where a card is, in the coordinates of the whole content."""
        row, column = divmod(place, self._columns)
        return Region(MARGIN + column * (self._card_width + GAP), row * HEIGHT, self._card_width, HEIGHT)

    def place_at(self, x: int, y: int) -> int | None:
        """The place of the card at a point of the widget, or None between cards."""
        column, inside = divmod(x - MARGIN, self._card_width + GAP)
        place = (y + self.scroll_offset.y) // HEIGHT * self._columns + column
        if x < MARGIN or inside >= self._card_width or not 0 <= column < self._columns:
            return None
        return place if place < len(self.board.shown) else None

    # -- told by the screen -----------------------------------------------------------------------

    def rearranged(self, keep: int | None = None) -> None:
        """Other cards are shown, or in another order; the cursor stays on the agent `keep` if it can."""
        place = self.board.index_of(keep) if keep is not None else None
        self.cursor = place if place is not None else max(0, min(self.cursor, len(self.board.shown) - 1))
        self._now = self._clock.now()
        self._measure()
        self._show_cursor()
        self.refresh()

    def grown(self) -> None:
        """Cards were added at the end."""
        self._measure()
        self.refresh()

    def repaint(self, place: int, line: int | None = None) -> None:
        """One card, or one line of it, changed: draw that again if it is on screen, and nothing else."""
        x, y, width, height = self._place_region(place)
        if line is not None:
            y, height = y + line, 1
        region = Region(x, y - self.scroll_offset.y, width, height)
        if -height < region.y < self._inner.height:
            self.refresh(region.intersection(self._inner))

    def tick(self) -> None:
        """Time went on: repaint the visible cards whose age reads differently now."""
        self._now = self._clock.now()
        for place in self._visible_places():
            card = self.board.shown[place]
            drawn = self._drawn.get(card.id)
            if drawn is not None and drawn[1] != self._face(place, card):
                self.repaint(place, BADGE_LINE)

    def move(self, columns: int = 0, rows: int = 0) -> None:
        """Move the cursor; a step beyond an edge stays, sideways steps go on in the next row."""
        if not self.board.shown:
            return
        last = len(self.board.shown) - 1
        place = self.cursor + columns
        if rows:
            place += rows * self._columns
            if place > last:
                # The last row may be shorter: going down from above its empty part ends on its last card.
                place = last if self.cursor // self._columns < last // self._columns else self.cursor
            if place < 0:
                place = self.cursor % self._columns
        self.move_to(max(0, min(last, place)))

    def move_to(self, place: int) -> None:
        """Put the cursor on a place and bring it into view."""
        if place == self.cursor or not 0 <= place < len(self.board.shown):
            return
        before, self.cursor = self.cursor, place
        self.repaint(before)
        self.repaint(place)
        self._show_cursor()
        self.post_message(self.Moved())

    @property
    def page_rows(self) -> int:
        return max(1, self.scrollable_content_region.height // HEIGHT)

    @property
    def current(self) -> AgentCard | None:
        return self.board.shown[self.cursor] if self.cursor < len(self.board.shown) else None

    def _show_cursor(self) -> None:
        if not self.board.shown:
            return
        top, height = self.cursor // self._columns * HEIGHT, self.scrollable_content_region.height
        if top < self.scroll_offset.y:
            self.scroll_to(y=top, animate=False)
        elif top + HEIGHT > self.scroll_offset.y + height:
            # Whole rows from the top, so that no card is cut at the upper edge.
            row = -(-(top + HEIGHT - height) // HEIGHT)
            self.scroll_to(y=row * HEIGHT, animate=False)

    def _visible_places(self) -> range:
        first = self.scroll_offset.y // HEIGHT
        last = -(-(self.scroll_offset.y + self.size.height) // HEIGHT)
        return range(first * self._columns, min(last * self._columns, len(self.board.shown)))

    # -- drawing ----------------------------------------------------------------------------------

    def refresh(self, *regions: Region, **options: Any) -> Self:
        self._row = None
        if regions:
            self._dirty.update(*(region.line_range for region in regions))
        else:
            self._kept = None
        return super().refresh(*regions, **options)

    def notify_style_update(self) -> None:
        self._look = self._blank = self._row = self._kept = None
        self._drawn.clear()
        super().notify_style_update()

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines on screen, of which only refreshed ones are drawn again.

        Textual asks for all of them whenever anything changes. Its own way to each line leads through
        borders, padding and tints, which this widget does not have, and costs more than the cards.
        """
        filters = self.app.get_line_filters()
        asked = (crop, filters)
        if self._kept is None or self._kept[0] != asked:
            self._kept = (asked, [Strip([])] * crop.height)
            self._dirty = set(crop.line_range)
        strips = self._kept[1]
        background = self.background_colors[1] if filters else Color(0, 0, 0)
        width = self.size.width
        for y in sorted(self._dirty.intersection(crop.line_range)):
            strip = self.render_line(y)
            for each in filters:
                strip = strip.apply_filter(each, background)
            # As wide as the widget: the column of the scrollbar belongs to its lines, too.
            strips[y - crop.y] = strip.adjust_cell_length(width, self._blank).crop(crop.x, crop.right)
        self._dirty.clear()
        return strips

    def on_resize(self, event: events.Resize) -> None:
        self._measure()
        self._show_cursor()

    @property
    def look(self) -> Look:
        if self._look is None:
            style = self.get_component_rich_style
            self._look = Look(
                self._glyphs,
                {tone: style(f"card--{tone.value}") for tone in Tone},
                style("card--strong"),
                style("card--border"),
                style("card--chosen"),
                style("card--marked"),
            )
        return self._look

    def _face(self, place: int, card: AgentCard) -> Face:
        return Face(
            self._card_width,
            self.board.state(card),
            age_text(card, self._now),
            is_stale(card, self._now, self._stale_after),
            place == self.cursor,
            card.id in self.board.marks,
            self.board.several_companies,
        )

    def _strips(self, place: int) -> list[Strip]:
        card = self.board.shown[place]
        face = self._face(place, card)
        drawn = self._drawn.get(card.id)
        if drawn is not None and drawn[0] is card and drawn[1] == face:
            return drawn[2]
        strips = [Strip(line, self._card_width) for line in draw_card(card, face, self.look)]
        self._drawn[card.id] = (card, face, strips)
        self._drawn.move_to_end(card.id)
        if len(self._drawn) > CACHED_CARDS:
            self._drawn.popitem(last=False)
        return strips

    def render_line(self, y: int) -> Strip:
        width = self._inner.width
        blank = self._blank
        if blank is None:
            blank = self._blank = self.rich_style
        if not self.board.shown:
            return self._note_line(y, width, blank)
        row, line = divmod(y + self.scroll_offset.y, HEIGHT)
        # Lines are asked for one by one from the top: a row of cards is put together once for its five.
        if self._row is None or self._row[0] != row:
            self._row = (row, self._row_strips(row, self.size.width, blank))
        return self._row[1][line]

    def _row_strips(self, row: int, width: int, blank: Style) -> list[Strip]:
        """The lines of a row of cards, as wide as the widget, so that nobody need measure them."""
        first = row * self._columns
        places = range(first, min(first + self._columns, len(self.board.shown)))
        lines = [[Segment(" " * MARGIN, blank)] for _ in range(HEIGHT)]
        gap = Segment(" " * GAP, blank)
        for place in places:
            for segments, strip in zip(lines, self._strips(place), strict=True):
                if place > first:
                    segments.append(gap)
                segments.extend(strip)
        taken = MARGIN + len(places) * (self._card_width + GAP) - GAP if places else MARGIN
        if taken > width:  # a widget narrower than a card
            return [Strip(segments, taken).adjust_cell_length(width, blank) for segments in lines]
        rest = Segment(" " * (width - taken), blank)
        return [Strip([*segments, rest], width) for segments in lines]

    def _note_line(self, y: int, width: int, blank: Style) -> Strip:
        lines: list[Note] = []
        for text, tone in self.note:
            lines += [(part, tone) for part in wrap(text, min(64, width - 4))] if text else [("", tone)]
        number = y - max(0, (self.size.height - len(lines)) // 2 - 1)
        if not 0 <= number < len(lines):
            return Strip.blank(width, blank)
        text, tone = lines[number]
        left = max(0, (width - width_of(text)) // 2)
        pad = Segment(" " * left, blank)
        return Strip([pad, Segment(text, self.look.tones[tone])]).adjust_cell_length(width, blank)

    # -- mouse ------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        place = self.place_at(event.x, event.y)
        if place is None:
            return
        self.move_to(place)
        if event.chain == 2:
            self.post_message(self.Opened())

    def on_mouse_move(self, event: events.MouseMove) -> None:
        place = self.place_at(event.x, event.y)
        if place != self._hovered:
            self._hovered = place
            self.tooltip = None if place is None else Content(self.tooltip_of(self.board.shown[place]))

    def on_leave(self, event: events.Leave) -> None:
        self._hovered = None
        self.tooltip = None

    def tooltip_of(self, card: AgentCard) -> str:
        """The exact times behind a card's age."""
        lines = [
            f"checked  {exact(card.checked_at, self._zone)}",
            f"changed  {exact(card.changed_at, self._zone)}",
        ]
        if card.gone_at is not None:
            lines.append(f"gone     {exact(card.gone_at, self._zone)}")
        return "\n".join(lines)
