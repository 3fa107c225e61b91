"""The rows of a transcript: entries broken to a width, and only the changed ones broken again. No widget."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from screens.call_lines import Face, face_of, rows_of
from screens.glyphs import Glyphs
from services.calls.live import Entry, LiveCall

HOUR_MS = 3_600_000
LABEL = 7
RIGHT = 9
MAY_CHANGE = 96
"""Entries before the newest that a message can still change; `LiveCall` looks back no further."""


@dataclass(slots=True)
class Laid:
    """An entry broken into rows; `start` counts rows since the first entry there ever was."""

    entry: Entry
    rev: int
    face: Face
    rows: tuple[tuple[int, int], ...]
    start: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.rows)


class Layout:
    """Holds every entry of a call, laid out. Rows are counted from the oldest entry that is held."""

    def __init__(self, glyphs: Glyphs) -> None:
        self.lines: list[Laid] = []
        self.time_width = 5
        self.width = 0
        self._glyphs = glyphs
        self._live: LiveCall | None = None

    @property
    def text_width(self) -> int:
        """Columns for the words, between the label and what stands at the end."""
        return max(10, self.width - self.time_width - LABEL - RIGHT - 2)

    @property
    def top(self) -> int:
        return self.lines[0].start if self.lines else 0

    @property
    def height(self) -> int:
        return self.lines[-1].end - self.lines[0].start if self.lines else 0

    @property
    def newest(self) -> int:
        """The number of the newest entry; -1 without one."""
        return self.lines[-1].entry.n if self.lines else -1

    def place_of(self, number: int | None) -> int | None:
        """Where an entry is in `lines`, by its number."""
        if number is None or not self.lines:
            return None
        place = number - self.lines[0].entry.n
        return place if 0 <= place < len(self.lines) else None

    def row_of(self, place: int) -> int:
        return self.lines[place].start - self.top

    def at(self, row: int) -> int | None:
        """The place of the entry that has this row."""
        if not 0 <= row < self.height:
            return None
        return bisect_right(self.lines, row + self.top, key=lambda laid: laid.start) - 1

    # -- following the call -----------------------------------------------------------------------

    def set_width(self, width: int) -> None:
        """Break everything anew at the next `update`."""
        self.width, self._live = width, None

    def update(self, live: LiveCall | None) -> tuple[int, int] | None:
        """Take over what changed; returns the rows to paint again (from, to), None when none is."""
        return self._all(live) if live is None or self.is_another(live) else self._changed(live)

    def is_another(self, live: LiveCall | None) -> bool:
        """Whether `update` lays out everything anew: another call, or a replay that jumped back."""
        if live is None or live is not self._live or not self.lines or not live.entries:
            return True
        first, last = live.entries[0], live.entries[-1]
        if last.n < self.newest or first.n > self.newest:
            return True
        return self.time_width == 5 and last.t >= HOUR_MS

    def _all(self, live: LiveCall | None) -> tuple[int, int] | None:
        entries = live.entries if live is not None else ()
        self._live = live
        if not entries and not self.lines:
            return None
        before = self.height
        self.time_width = 7 if live is not None and entries and live.entries[-1].t >= HOUR_MS else 5
        self.lines = []
        row = 0
        for entry in entries:
            laid = self._lay(entry, row)
            self.lines.append(laid)
            row = laid.end
        return 0, max(before, self.height)

    def _changed(self, live: LiveCall) -> tuple[int, int] | None:
        entries, lines = live.entries, self.lines
        gone = entries[0].n - lines[0].entry.n
        before = self.height
        if gone > 0:
            del lines[:gone]
        first: int | None = None
        last = row = 0
        moved = False
        for place in range(max(0, len(lines) - MAY_CHANGE), len(lines)):
            each = lines[place]
            if moved:
                each.start = row
            if each.rev != each.entry.rev:
                count = len(each.rows)
                lines[place] = each = self._lay(each.entry, each.start)
                moved = moved or len(each.rows) != count
                first = each.start if first is None else first
                last = each.end
            row = each.end
        row = lines[-1].end
        new = entries[-1].n - lines[-1].entry.n
        if new and first is None:
            first = row
        for place in range(len(entries) - new, len(entries)):
            lines.append(self._lay(entries[place], row))
            row = lines[-1].end
        if gone > 0:
            return 0, max(before, self.height)
        if first is None:
            return None
        return first - self.top, (max(before, self.height) if moved or new else last - self.top)

    def _lay(self, entry: Entry, start: int) -> Laid:
        face = face_of(entry, self._glyphs)
        return Laid(entry, entry.rev, face, rows_of(face.text, self.text_width), start)
