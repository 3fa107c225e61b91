"""What the row under the cursor has no room for, in full below its table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from screens.glyphs import Glyphs, Tone
from screens.textfit import display, fit, wrap
from screens.widgets.line import Piece
from screens.widgets.lines import Lines, Row


class Below(Lines):
    """Paragraphs on a fixed number of lines, so that nothing jumps while the cursor moves."""

    def __init__(
        self, paragraphs: Callable[[], Sequence[Piece]], glyphs: Glyphs, *, height: int, ident: str
    ) -> None:
        super().__init__(ident=ident)
        self._paragraphs, self._ellipsis, self._height = paragraphs, glyphs.ellipsis, height

    def rows(self, width: int) -> list[Row]:
        room = width - 2
        lines = [(line, tone) for text, tone in self._paragraphs() for line in wrap(display(text), room)]
        if len(lines) > self._height:
            (last, tone), (more, _) = lines[self._height - 1], lines[self._height]
            lines[self._height - 1 :] = [(fit(f"{last} {more}", room, self._ellipsis), tone)]
        lines += [("", Tone.PLAIN)] * (self._height - len(lines))
        return [([(f" {text}", tone)], []) for text, tone in lines]
