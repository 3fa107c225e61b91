"""The past of a check as pictures of letters: a strip of how it was, a plot of how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from screens.glyphs import Glyphs, Tone
from screens.health_words import figure, percent
from screens.when import clock_time
from screens.widgets.line import Piece
from screens.widgets.lines import Lines, Row
from screens.widgets.plot import columns
from services.health.model import HistoryPoint

PLOT_HEIGHT = 4
SCALE = 10
"""Columns at the right of the plot for its scale."""


@dataclass(slots=True)
class Bin:
    """One column: the probes of one part of the time, counted."""

    up: int = 0
    degraded: int = 0
    down: int = 0
    maintenance: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None

    @property
    def probes(self) -> int:
        return self.up + self.degraded + self.down + self.maintenance

    @property
    def share(self) -> float | None:
        """How much of it was up or degraded; None without probes outside of maintenance."""
        counted = self.up + self.degraded + self.down
        return (self.up + self.degraded) / counted if counted else None

    @property
    def height(self) -> float | None:
        """The share, where what was degraded counts half: it has to be seen without colours."""
        share, counted = self.share, self.up + self.degraded + self.down
        return None if share is None else share - self.degraded / counted / 2

    @property
    def tone(self) -> Tone:
        if self.down:
            return Tone.ACT
        if self.degraded:
            return Tone.LOOK
        return Tone.OK if self.up else Tone.MUTED

    def add(self, point: HistoryPoint) -> None:
        self.up += point.up
        self.degraded += point.degraded
        self.down += point.down
        self.maintenance += point.maintenance
        # The slowest of several periods: an average would hide what an operator looks for.
        self.p50_ms = _larger(self.p50_ms, point.p50_ms)
        self.p95_ms = _larger(self.p95_ms, point.p95_ms)


def _larger(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)


def bins(points: Sequence[HistoryPoint], first: int, last: int, count: int) -> list[Bin]:
    """The time from `first` to `last` in `count` columns; a period is in every column that it touches.

    A period that is longer than a column is repeated: figures must not be summed over columns.
    """
    made = [Bin() for _ in range(count)]
    length = (last - first) / count if count else 0
    for point in points:
        end = min(last, point.start + point.length_ms)
        if end <= first or point.start >= last or length <= 0:
            continue
        left = max(0, int((point.start - first) / length))
        right = left if point.length_ms <= length else min(count - 1, int((end - 1 - first) / length))
        for number in range(min(left, count - 1), max(left, right) + 1):
            made[number].add(point)
    return made


class HistoryLines(Lines):
    """The strip, when it was, the figures, and the plot of response times."""

    def __init__(self, glyphs: Glyphs, zone: str) -> None:
        super().__init__(ident="check-history")
        self._glyphs, self._zone = glyphs, zone
        self._points: Sequence[HistoryPoint] = ()
        self._now, self._hours = 0, 24

    def set_points(self, points: Sequence[HistoryPoint], now: int, hours: int) -> None:
        """Show these periods of the last hours."""
        self._points, self._now, self._hours = points, now, hours
        self.redraw()

    def rows(self, width: int) -> list[Row]:
        room = max(10, width - SCALE - 2)
        first = self._now - self._hours * 3_600_000
        drawn = bins(self._points, first, self._now, room)
        if not any(each.probes for each in drawn):
            return [([], []), ([(" nothing was measured in this time", Tone.MUTED)], []), ([], [])]
        begin, end = clock_time(first, self._now, self._zone), "now"
        axis = f" {begin}{' ' * max(1, room - len(begin) - len(end))}{end}"
        return [
            ([], []),
            (self._strip(drawn), [("uptime ", Tone.MUTED)]),
            ([(axis, Tone.MUTED)], []),
            (self._figures(), []),
            ([], []),
            *self._plot(drawn),
            ([], []),
        ]

    def _strip(self, drawn: Sequence[Bin]) -> list[Piece]:
        """A column for each part of the time: its height is how much was up, so it reads without colours."""
        glyphs = self._glyphs
        pieces: list[Piece] = [(" ", Tone.PLAIN)]
        for each in drawn:
            height = each.height
            if height is None:
                sign = glyphs.pause if each.maintenance else glyphs.dot
            else:
                sign = glyphs.levels[int(height * (len(glyphs.levels) - 1) + 1e-9)]
            if pieces[-1][1] is each.tone:
                pieces[-1] = (pieces[-1][0] + sign, each.tone)
            else:
                pieces.append((sign, each.tone))
        return pieces

    @property
    def whole(self) -> Bin:
        """All of the time in one, from the periods themselves: columns may repeat them."""
        first = self._now - self._hours * 3_600_000
        whole = Bin()
        for point in self._points:
            if point.start + point.length_ms > first:
                whole.add(point)
        return whole

    def _figures(self) -> list[Piece]:
        whole = self.whole
        bad = [(f"  {whole.down:,} failed", Tone.ACT)] if whole.down else []
        slow = [(f"  {whole.degraded:,} degraded", Tone.LOOK)] if whole.degraded else []
        share = percent(whole.share, self._glyphs)
        return [
            (f" {share}", "strong"),
            (f"  of {whole.probes:,} check{'' if whole.probes == 1 else 's'}", Tone.MUTED),
            *bad,
            *slow,
        ]

    def _plot(self, drawn: Sequence[Bin]) -> list[Row]:
        """The p95 of each column as a height; columns that were degraded or down are amber."""
        values = [round(each.p95_ms or 0) for each in drawn]
        top = max(values, default=0)
        if not top:
            return [([(" no response times", Tone.MUTED)], [])]
        heights = columns(values, PLOT_HEIGHT, self._glyphs.levels)
        rows: list[Row] = []
        for y in range(PLOT_HEIGHT):
            pieces: list[Piece] = [(" ", Tone.PLAIN)]
            for each, column in zip(drawn, heights, strict=True):
                letter = column[y] if each.p95_ms is not None else " "
                tone = Tone.LOOK if each.degraded or each.down else Tone.MOVING
                if pieces[-1][1] is tone:
                    pieces[-1] = (pieces[-1][0] + letter, tone)
                else:
                    pieces.append((letter, tone))
            scale = figure(top, self._glyphs) if y == 0 else "p95" if y == 1 else "0" if y == 3 else ""
            rows.append((pieces, [(f"{scale} ", Tone.MUTED)]))
        return rows
