"""The latency of every turn as a small plot, with its percentiles and the vendor's own figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from screens.call_lines import LOOK_MS
from screens.glyphs import Glyphs, Tone
from screens.textfit import display, width_of
from screens.widgets.line import Piece
from screens.widgets.lines import Lines, Row
from services.calls.live import LiveCall

HEIGHT = 3
UNKNOWN = "—"


def milliseconds(value: int | None) -> str:
    """A figure with its unit, or the sign for one that is not known."""
    return UNKNOWN if value is None else f"{value:,} ms"


def columns(values: Sequence[int], height: int, levels: str) -> list[str]:
    """Each value as a column of `height` letters, the top one first, scaled to the largest."""
    top = max(values, default=0) or 1
    steps = len(levels)
    drawn: list[str] = []
    for value in values:
        filled = max(1, round(value / top * height * steps))
        full, rest = divmod(filled, steps)
        cells = [levels[-1]] * full + ([levels[rest - 1]] if rest else [])
        drawn.append("".join((cells + [" "] * height)[:height][::-1]))
    return drawn


class LatencyPlot(Lines):
    """Columns for the newest turns, slow ones in amber; percentiles; stages."""

    def __init__(self, live: Callable[[], LiveCall], glyphs: Glyphs) -> None:
        super().__init__(ident="plot")
        self._live, self._glyphs = live, glyphs

    def rows(self, width: int) -> list[Row]:
        live = self._live()
        room = max(4, width - 11)
        turns = [turn.ms for turn in live.latencies][-room:]
        rows = self._columns(turns) if turns else self._none()
        p50, p95 = live.latency_percentile(0.5), live.latency_percentile(0.95)
        figures: list[Piece] = [
            (" p50 ", Tone.MUTED),
            (milliseconds(p50), Tone.PLAIN),
            ("   p95 ", Tone.MUTED),
            (milliseconds(p95), Tone.LOOK if p95 is not None and p95 >= LOOK_MS else Tone.PLAIN),
        ]
        return [*rows, (figures, []), *self._stages(live, width)]

    def _columns(self, turns: Sequence[int]) -> list[Row]:
        drawn = columns(turns, HEIGHT, self._glyphs.levels)
        rows: list[Row] = []
        for y in range(HEIGHT):
            pieces: list[Piece] = [(" ", Tone.PLAIN)]
            for ms, column in zip(turns, drawn, strict=True):
                tone = Tone.LOOK if ms >= LOOK_MS else Tone.MOVING
                if pieces[-1][1] is tone:
                    pieces[-1] = (pieces[-1][0] + column[y], tone)
                else:
                    pieces.append((column[y], tone))
            scale = f"{max(turns):,} ms" if y == 0 else ("0" if y == HEIGHT - 1 else "")
            rows.append((pieces, [(f"{scale} ", Tone.MUTED)]))
        return rows

    def _none(self) -> list[Row]:
        return [([(" no turn yet", Tone.MUTED)], []), *[([], []) for _ in range(HEIGHT - 1)]]

    def _stages(self, live: LiveCall, width: int) -> list[Row]:
        """The vendor's stages of the newest turn, two lines at most, so that nothing below moves."""
        if not live.vendor:
            return [([(" the vendor gives no stages", Tone.MUTED)], []), ([], [])]
        lines: list[list[Piece]] = [[]]
        used = 0
        for name, value in live.vendor.items():
            label, figure = f" {display(name)} ", f"{round(value):,}"
            needed = width_of(label) + width_of(figure) + 1
            if used + needed > width:
                if len(lines) == 2:
                    break
                lines.append([])
                used = 0
            lines[-1] += [(label, Tone.MUTED), (figure, Tone.PLAIN), (" ", Tone.MUTED)]
            used += needed
        second = lines[1] if len(lines) > 1 else []
        return [(lines[0], []), (second, [])]
