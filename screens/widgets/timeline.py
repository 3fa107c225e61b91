"""A past call from left to right: both voices, what happened when, and where the replay stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message

from screens.call_lines import clock_text
from screens.glyphs import Glyphs, State, Tone
from screens.widgets.line import Piece
from screens.widgets.lines import Lines, Row
from services.calls.replay import MarkKind, TimelineMark

LABEL = 8
MARGIN = 2
RANK = {
    MarkKind.ERROR: 0,
    MarkKind.MARK: 1,
    MarkKind.INTERRUPTION: 2,
    MarkKind.TOOL: 3,
    MarkKind.USER: 4,
    MarkKind.AGENT: 5,
}
TONES: dict[MarkKind, Tone] = {
    MarkKind.ERROR: Tone.ACT,
    MarkKind.MARK: Tone.LOOK,
    MarkKind.INTERRUPTION: Tone.LOOK,
    MarkKind.TOOL: Tone.MOVING,
    MarkKind.USER: Tone.MUTED,
    MarkKind.AGENT: Tone.MUTED,
}


@dataclass(slots=True)
class Moment:
    """Where a replay stands, in milliseconds."""

    at: int
    length: int


class Timeline(Lines):
    """A row of marks, a row for each voice that was recorded, a row of times. A click jumps."""

    class Jumped(Message):
        """A moment was clicked, in milliseconds."""

        def __init__(self, ms: int) -> None:
            super().__init__()
            self.ms = ms

    def __init__(
        self,
        moment: Callable[[], Moment],
        marks: Sequence[TimelineMark],
        glyphs: Glyphs,
        *,
        voices: bool = True,
    ) -> None:
        """`voices`: whether there is audio; without any, no flat line pretends that somebody was silent."""
        super().__init__(ident="timeline")
        self._moment, self._marks, self._glyphs = moment, marks, glyphs
        self.waves: dict[str, Sequence[float]] = {}
        """Levels from 0 to 1 by track, as many as there are columns."""
        self._voices = voices

    @property
    def room(self) -> int:
        """Columns between the labels and the margin."""
        return max(4, self.size.width - LABEL - MARGIN)

    def signs(self) -> dict[MarkKind, str]:
        glyphs = self._glyphs
        return {
            MarkKind.ERROR: glyphs.failed,
            MarkKind.MARK: glyphs.states[State.REMOTE_AHEAD],
            MarkKind.INTERRUPTION: glyphs.states[State.CONFLICT],
            MarkKind.TOOL: glyphs.function,
            MarkKind.USER: glyphs.dot,
            MarkKind.AGENT: glyphs.dot,
        }

    def column_of(self, ms: int) -> int:
        length = max(1, self._moment().length)
        return min(self.room - 1, max(0, ms) * self.room // length)

    def rows(self, width: int) -> list[Row]:
        now = self._moment()
        room = max(4, width - LABEL - MARGIN)
        here = min(room - 1, now.at * room // max(1, now.length))
        heard = ("you", "agent") if self._voices or any(self.waves.values()) else ()
        return [
            self._row("", self._mark_cells(room, now.length), here),
            *(self._row(track, self._wave_cells(track, room, here), here) for track in heard),
            self._ruler(room, now, here),
        ]

    def _mark_cells(self, room: int, length: int) -> list[Piece]:
        cells: list[Piece] = [(" ", Tone.PLAIN)] * room
        signs = self.signs()
        for mark in sorted(self._marks, key=lambda each: -RANK[each.kind]):
            column = min(room - 1, max(0, mark.t) * room // max(1, length))
            cells[column] = (signs[mark.kind], TONES[mark.kind])
        return cells

    def _wave_cells(self, track: str, room: int, here: int) -> list[Piece]:
        """The voice: what was played in colour, what is to come in grey."""
        levels, values = self._glyphs.levels, self.waves.get(track, ())
        if len(values) != room:
            return [(levels[0], Tone.MUTED)] * room
        top = len(levels) - 1
        tone = Tone.ACCENT if track == "agent" else Tone.PLAIN
        return [
            (levels[max(0, min(top, round(value * top)))], tone if column <= here else Tone.MUTED)
            for column, value in enumerate(values)
        ]

    def _row(self, label: str, cells: Sequence[Piece], here: int) -> Row:
        pieces: list[Piece] = [(f" {label.ljust(LABEL - 1)}", Tone.MUTED)]
        for column, (text, tone) in enumerate(cells):
            name = "key" if column == here and text == " " else tone
            if len(pieces) > 1 and pieces[-1][1] == name:
                pieces[-1] = (pieces[-1][0] + text, name)
            else:
                pieces.append((text, name))
        return pieces, []

    def _ruler(self, room: int, now: Moment, here: int) -> Row:
        """A thin line up to the end, the time at the place where the replay stands."""
        glyphs, stamp = self._glyphs, clock_text(now.at)
        start = max(0, min(room - len(stamp) - 2, here - len(stamp) // 2 - 1))
        return (
            [
                (" " * LABEL, Tone.MUTED),
                (glyphs.rule * start, Tone.ACCENT),
                (f" {stamp} ", "key"),
                (glyphs.rule * (room - start - len(stamp) - 2), Tone.MUTED),
            ],
            [],
        )

    def on_click(self, event: events.Click) -> None:
        column = event.x - LABEL
        if 0 <= column < self.room:
            self.post_message(self.Jumped(column * self._moment().length // self.room))
