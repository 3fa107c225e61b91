"""The transcript of a call, drawn line by line: only what changed is wrapped and painted again.

It stays at its end while the operator is there; elsewhere nothing moves, and it counts what is new below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.call_layout import LABEL, RIGHT, Laid, Layout
from screens.call_lines import Face, clock_text
from screens.glyphs import Glyphs, Tone
from screens.textfit import fit, width_of
from screens.widgets.document import find
from services.calls.live import Entry, LiveCall

CACHED = 400
"""Drawn rows kept; a large terminal shows about 100."""
Note = tuple[str, Tone]


class Transcript(ScrollView, can_focus=False):
    """Shows `source()`; `sync` after it changed. Keys are the owner's business."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Transcript { overflow-x: hidden; overflow-y: scroll; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"talk--{tone.value}" for tone in Tone),
        "talk--strong",
        "talk--cut",
        "talk--found",
        "talk--here",
        "talk--cursor",
    }

    class Moved(Message):
        """The cursor, the search or what counts as new below is another."""

    def __init__(
        self, source: Callable[[], LiveCall | None], glyphs: Glyphs, *, ident: str | None = None
    ) -> None:
        super().__init__(id=ident)
        self.note: list[Note] = []
        """What stands in the middle while there is no line."""
        self.cursor: int | None = None
        """The number of the chosen entry; None while it follows its end."""
        self.following = True
        self.talk = Layout(glyphs)
        self._source = source
        self._glyphs = glyphs
        self._seen = -1
        """The newest entry when the operator left the end."""
        self._placing = False
        self._needle = ""
        self._found: list[int] = []
        self._here: int | None = None
        self._strips: dict[tuple[int, int, int, bool], Strip] = {}

    # -- what is shown ----------------------------------------------------------------------------

    @property
    def new_below(self) -> int:
        """Entries that came since the operator left the end."""
        return 0 if self.following else max(0, self.talk.newest - self._seen)

    @property
    def current(self) -> Entry | None:
        """The chosen entry, or the newest."""
        if not self.talk.lines:
            return None
        place = self.talk.place_of(self.cursor)
        return self.talk.lines[place if place is not None else -1].entry

    @property
    def search_state(self) -> tuple[int, int] | None:
        """Which of how many places found is shown; None without a search."""
        if not self._needle:
            return None
        here = self._found.index(self._here) + 1 if self._here in self._found else 0
        return here, len(self._found)

    # -- following the call -----------------------------------------------------------------------

    def sync(self) -> None:
        """Take over what changed: new entries, and the newest ones that became others."""
        layout, live = self.talk, self._source()
        if not layout.width and not self._measure():
            return
        anchor = None if self.following else self._anchor()
        if layout.is_another(live):
            self._strips.clear()
            self.refresh()
        changed = layout.update(live)
        if changed is not None:
            if layout.place_of(self.cursor) is None:
                self.cursor = None
            if self._needle:
                self._look()
            self._fit(anchor, changed)

    def _anchor(self) -> tuple[int, int] | None:
        """The entry at the top of the view, and which of its rows."""
        place = self.talk.at(self.scroll_offset.y)
        if place is None:
            return None
        return self.talk.lines[place].entry.n, self.scroll_offset.y - self.talk.row_of(place)

    def _fit(self, anchor: tuple[int, int] | None, changed: tuple[int, int]) -> None:
        """Set the height, keep the view at the end or where it was, and paint what differs."""
        layout, top = self.talk, self.scroll_offset.y
        # As high as the view at least: no new layout of the screen until it is full.
        size = Size(layout.width, max(layout.height, self.scrollable_content_region.height))
        if size != self.virtual_size:
            self.virtual_size = size
        if self.following:
            self._place(self.max_scroll_y)
            self._seen = layout.newest
        elif anchor is not None:
            place = layout.place_of(anchor[0])
            self._place(layout.row_of(place) + anchor[1] if place is not None else 0)
        if self.scroll_offset.y != top:
            self.refresh()
        else:
            self.refresh_lines(changed[0], changed[1] - changed[0])
        self.post_message(self.Moved())

    def _place(self, y: int) -> None:
        self._placing = True
        self.scroll_to(y=y, animate=False)
        self._placing = False

    def _measure(self) -> bool:
        width = self.scrollable_content_region.width
        if width > 0:
            self.talk.set_width(width)
        return width > 0

    def on_resize(self, event: events.Resize) -> None:
        layout = self.talk
        if self.scrollable_content_region.width != layout.width:
            anchor = None if self.following else self._anchor()
            if self._measure():
                self._strips.clear()
                layout.update(self._source())
                self._fit(anchor, (0, layout.height))
        else:
            self._fit(self._anchor(), (0, layout.height))

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if not self._placing and round(old) != round(new):
            self._set_following(self.scroll_offset.y >= self.max_scroll_y)

    def _set_following(self, on: bool) -> None:
        if on:
            self.cursor = None
        if on or self.following:
            self._seen = self.talk.newest
        if on is not self.following:
            self.following = on
            self.refresh()
        self.post_message(self.Moved())

    # -- moving -----------------------------------------------------------------------------------

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._set_following(True)
        self._place(self.max_scroll_y)
        self.refresh()

    def first(self) -> None:
        if self.talk.lines:
            self._choose(0)

    def move(self, by: int) -> None:
        """Choose the entry so many further down; below the last it follows again."""
        layout = self.talk
        if not layout.lines or (self.following and by > 0):
            return
        place = layout.place_of(self.cursor)
        if place is not None:
            place += by
        elif self.following:
            place = len(layout.lines) - 1
        else:  # it was scrolled, and nothing is chosen
            place = layout.at(self.scroll_offset.y) or 0
        if place >= len(layout.lines):
            self.follow()
        else:
            self._choose(max(0, place))

    def page(self, by: int) -> None:
        """Scroll whole screens, one line kept."""
        height = max(1, self.scrollable_content_region.height - 1)
        wanted = max(0, self.scroll_offset.y + by * height)
        if by > 0 and wanted >= self.max_scroll_y:
            self.follow()
            return
        self._place(wanted)
        place = self.talk.at(wanted)
        if place is not None:
            self._choose(place)

    def _choose(self, place: int) -> None:
        layout = self.talk
        laid = layout.lines[place]
        self._set_following(False)
        self.cursor = laid.entry.n
        start = layout.row_of(place)
        end = start + len(laid.rows)
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if start < top:
            self._place(start)
        elif end > top + height:
            self._place(min(start, end - height))
        self.refresh()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        place = self.talk.at(event.y + self.scroll_offset.y)
        if place is not None:
            self._choose(place)

    # -- searching --------------------------------------------------------------------------------

    def search(self, needle: str) -> None:
        """Find a text; the newest place down to the end of the view is shown. Empty ends the search."""
        self._needle, self._here = needle.strip(), None
        self._look()
        self._strips.clear()
        if self._found:
            layout = self.talk
            end = layout.at(min(layout.height, self.scroll_offset.y + self.size.height) - 1)
            limit = layout.lines[end].entry.n if end is not None else layout.newest
            self._go_found(max((n for n in self._found if n <= limit), default=self._found[-1]))
        self.refresh()
        self.post_message(self.Moved())

    def step(self, by: int) -> None:
        """To the next place found, or the one before; round at the ends."""
        if self._found:
            place = self._found.index(self._here) + by if self._here in self._found else -1
            self._go_found(self._found[place % len(self._found)])

    def _look(self) -> None:
        wanted = self._needle.lower()
        lines = self.talk.lines
        self._found = [each.entry.n for each in lines if wanted and wanted in each.face.text.lower()]

    def _go_found(self, number: int) -> None:
        self._here = number
        self._strips.clear()
        place = self.talk.place_of(number)
        if place is not None:
            self._choose(place)

    # -- drawing ----------------------------------------------------------------------------------

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        width, blank = self.scrollable_content_region.width, self.rich_style
        layout, row = self.talk, y + self.scroll_offset.y
        place = layout.at(row)
        if place is None:
            return self._note_line(y, width, blank) if not layout.lines else Strip.blank(width, blank)
        laid = layout.lines[place]
        inside = row - layout.row_of(place)
        key = (laid.entry.n, laid.rev, inside, laid.entry.n == self.cursor)
        strip = self._strips.get(key)
        if strip is None or strip.cell_length != width:
            if len(self._strips) > CACHED:
                self._strips.clear()
            strip = self._strips[key] = self._draw(laid, inside, width, blank)
        return strip

    def _note_line(self, y: int, width: int, blank: Style) -> Strip:
        number = y - max(1, (self.size.height - len(self.note)) // 2 - 1)
        if not 0 <= number < len(self.note):
            return Strip.blank(width, blank)
        text, tone = self.note[number]
        pad = Segment(" " * max(0, (width - width_of(text)) // 2), blank)
        return Strip([pad, Segment(text, self._style(tone))]).adjust_cell_length(width, blank)

    def _style(self, name: Tone | str) -> Style:
        return self.get_component_rich_style(f"talk--{name}")

    def _draw(self, laid: Laid, row: int, width: int, blank: Style) -> Strip:
        chosen, face = laid.entry.n == self.cursor, laid.face
        lead, stamp, label, right = " ", "", "", ""
        if row == 0:
            lead = self._glyphs.cursor if chosen else " "
            stamp, label, right = clock_text(laid.entry.t), face.label, face.right
        start, stop = laid.rows[row]
        body = Strip(self._slices(face, start, stop)).adjust_cell_length(self.talk.text_width, blank)
        if self._needle:
            body = self._marked(body, face.text[start:stop], laid.entry.n == self._here)
        segments = [
            Segment(lead, self._style(Tone.ACCENT)),
            Segment(f"{stamp.rjust(self.talk.time_width)} ", self._style(Tone.MUTED)),
            Segment(fit(label, LABEL), self._style(face.label_tone)),
            *body,
            Segment(right.rjust(RIGHT), self._style(face.right_tone)),
        ]
        strip = Strip(segments).adjust_cell_length(width, blank)
        if chosen:
            strip = strip.apply_style(self.get_component_rich_style("talk--cursor", partial=True))
        return strip

    def _slices(self, face: Face, start: int, stop: int) -> list[Segment]:
        """The part of a face between two letters, each piece in its look."""
        segments: list[Segment] = []
        at = 0
        for text, name in face.spans:
            part = text[max(0, start - at) : max(0, stop - at)]
            if part:
                segments.append(Segment(part, self._style(name)))
            at += len(text)
            if at >= stop:
                break
        return segments

    def _marked(self, strip: Strip, text: str, here: bool) -> Strip:
        style = self._style("here" if here else "found")
        for _, column in find([text], self._needle):
            left = width_of(text[:column])
            right = left + width_of(text[column : column + len(self._needle)])
            before, middle, after = strip.crop(0, left), strip.crop(left, right), strip.crop(right)
            strip = Strip.join([before, middle.apply_style(style), after])
        return strip
