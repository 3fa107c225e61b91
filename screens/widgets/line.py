"""One line of text drawn straight into strips: much cheaper than a container of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from screens.glyphs import UNICODE, Tone
from screens.textfit import cut, width_of

Piece = tuple[str, Tone | str]
"""A text and the tone it is drawn in; a `str` other than a tone is the name of a component class."""


class Keeping(Widget):
    """Gives the same strips until it is refreshed: whenever any widget changes, Textual asks all of them."""

    _kept: tuple[object, list[Strip]] | None = None

    def refresh(self, *regions: Region, **options: Any) -> Self:
        self._kept = None
        return super().refresh(*regions, **options)

    def notify_style_update(self) -> None:
        self._kept = None
        super().notify_style_update()

    def render_lines(self, crop: Region) -> list[Strip]:
        asked = (crop, self.app.get_line_filters())
        if self._kept is None or self._kept[0] != asked:
            self._kept = (asked, super().render_lines(crop))
        return self._kept[1]


class Line(Keeping, can_focus=False):
    """A widget one line high: pieces from the left, pieces from the right, blanks in between."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"
    COMPONENT_CLASSES = {f"line--{tone.value}" for tone in Tone} | {
        "line--strong",
        "line--key",
        "line--badge",
        "line--tab",
    }

    def __init__(self, *, ident: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=ident, classes=classes)
        self._drawn: object = None

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        """What stands left and what stands right, in `width` columns."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Repaint if, and only if, what would be drawn differs from what is drawn."""
        if self.is_attached and self.pieces(self.size.width) != self._drawn:
            self.refresh()

    def style_of(self, name: Tone | str) -> Style:
        return self.get_component_rich_style(f"line--{name}")

    def segment(self, text: str, name: Tone | str) -> Segment:
        """Draw one piece; bars with clickable pieces add to it."""
        return Segment(text, self.style_of(name))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y > 0:
            return Strip.blank(width, self.rich_style)
        drawn = self._drawn = self.pieces(width)
        return self.strip(*drawn)

    def strip(self, left: Sequence[Piece], right: Sequence[Piece]) -> Strip:
        """The pieces on one line; what is left is cut where both have no room, one blank before the right."""
        width, glyphs = self.size.width, getattr(self.app, "glyphs", UNICODE)
        taken = sum(width_of(text) for text, _ in right)
        room = width - taken
        if taken and sum(width_of(text) for text, _ in left) > room:
            right = [(" ", right[0][1]), *right]
            room -= 1
        segments: list[Segment] = []
        for text, name in left:
            shown = cut(text, room, glyphs.ellipsis)
            if shown:
                segments.append(self.segment(shown, name))
                room -= width_of(shown)
            if shown != text:
                break
        segments.append(Segment(" " * max(0, room), self.rich_style))
        segments.extend(self.segment(text, name) for text, name in right)
        return Strip(segments).adjust_cell_length(width, self.rich_style)
