"""Several lines of pieces in one widget, and only those that differ are painted again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from textual.geometry import Region
from textual.strip import Strip

from screens.widgets.line import Line, Piece

Row = tuple[Sequence[Piece], Sequence[Piece]]
"""What stands left and what stands right."""


class Lines(Line):
    """As many lines as `rows` gives; the height is that of the stylesheet."""

    DEFAULT_CSS = "Lines { height: auto; width: 1fr; }"

    def __init__(self, *, ident: str | None = None, classes: str | None = None) -> None:
        super().__init__(ident=ident, classes=classes)
        self._shown: list[Row] = []
        self._stale = True
        """Whether all lines are made anew at the next picture."""

    def rows(self, width: int) -> list[Row]:
        """What stands in each line, in `width` columns."""
        raise NotImplementedError

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return len(self.rows(width))

    def redraw(self) -> None:
        """Repaint the lines that differ from what is drawn."""
        if not self.is_attached or not self.size.width:
            return
        rows, shown = self.rows(self.size.width), self._shown
        if len(rows) != len(shown):
            self.refresh(layout=True)
            return
        # What is painted are these rows, whatever changes until then: Textual paints the marked lines only.
        self._shown = rows
        for y, (new, old) in enumerate(zip(rows, shown, strict=True)):
            if new != old:
                self.refresh(Region(0, y, self.size.width, 1))

    def refresh(self, *regions: Region, **options: Any) -> Self:
        self._stale = getattr(self, "_stale", True) or not regions
        return super().refresh(*regions, **options)

    def render_lines(self, crop: Region) -> list[Strip]:
        if self._stale:
            self._stale = False
            self._shown = self.rows(self.size.width)
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y >= len(self._shown):
            return Strip.blank(width, self.rich_style)
        return self.strip(*self._shown[y])
