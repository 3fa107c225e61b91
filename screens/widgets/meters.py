"""How loud both directions are, as bars that move and a figure that stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from screens.call_ports import Levels
from screens.glyphs import Glyphs, Tone
from screens.textfit import width_of
from screens.widgets.line import Line, Piece
from screens.widgets.lines import Lines, Row
from services.calls.live import LiveCall

LABEL = 8
FIGURE = 9
SILENT_DB = -80.0


def bars_text(values: Sequence[float], width: int, levels: str) -> str:
    """The newest `width` values from 0 to 1 as one bar each, the newest at the right."""
    top = len(levels) - 1
    text = "".join(levels[max(0, min(top, round(value * top)))] for value in values[-width:])
    return text.rjust(width, levels[0])


def decibels(db: float) -> str:
    """A level in words."""
    return "silent" if db <= SILENT_DB else f"{round(db)} dB"


class Source:
    """What both meters read: the levels and the picture of the call."""

    def __init__(self, levels: Callable[[], Levels | None], live: Callable[[], LiveCall]) -> None:
        self.levels, self.live = levels, live

    def voice(self) -> tuple[str, Tone]:
        """The state of the microphone: what the figure gives way to."""
        live = self.live()
        if live.muted:
            return "muted", Tone.LOOK
        if live.push_to_talk and not live.held:
            return "closed", Tone.LOOK
        return "", Tone.MUTED


class Meters(Lines):
    """A line for each direction: who, bars, decibels."""

    def __init__(self, source: Source, glyphs: Glyphs) -> None:
        super().__init__(ident="meters")
        self._source, self._glyphs = source, glyphs

    def rows(self, width: int) -> list[Row]:
        levels, live = self._source.levels(), self._source.live()
        if levels is None:
            why = "the call is over" if live.ended else "no audio passes through here"
            return [([(f" {why}", Tone.MUTED)], []), ([], [])]
        room = max(4, width - LABEL - FIGURE - 2)
        word, tone = self._source.voice()
        you = (word, tone) if word else (decibels(levels.input_db), Tone.MUTED)
        agent = (decibels(levels.output_db), Tone.MUTED)
        return [
            self._row("you", levels.input_bars, room, you, live.user_speaking and not word),
            self._row("agent", levels.output_bars, room, agent, live.agent_speaking),
        ]

    def _row(
        self, label: str, values: Sequence[float], room: int, figure: tuple[str, Tone], speaks: bool
    ) -> Row:
        bars = bars_text(values, room, self._glyphs.levels)
        return (
            [
                (f" {label.ljust(LABEL - 1)}", Tone.ACCENT if speaks else Tone.MUTED),
                (bars, Tone.OK if speaks else Tone.MUTED),
            ],
            [(figure[0].rjust(FIGURE), figure[1]), (" ", Tone.PLAIN)],
        )


class MeterStrip(Line):
    """Both meters and the latencies on one line, where there is no room for the panel."""

    def __init__(self, source: Source, glyphs: Glyphs) -> None:
        super().__init__(ident="strip")
        self._source, self._glyphs = source, glyphs

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        levels, live = self._source.levels(), self._source.live()
        left: list[Piece] = []
        if levels is not None:
            word, tone = self._source.voice()
            for label, values, db, speaks in (
                ("you", levels.input_bars, levels.input_db, live.user_speaking),
                ("agent", levels.output_bars, levels.output_db, live.agent_speaking),
            ):
                shown, look = (word, tone) if word and label == "you" else (decibels(db), Tone.MUTED)
                left += [
                    (f" {label} ", Tone.ACCENT if speaks else Tone.MUTED),
                    (bars_text(values, 10, self._glyphs.levels), Tone.OK if speaks else Tone.MUTED),
                    (f" {shown:<8}", look),
                ]
        elif live.ended is None:
            left.append((" no audio passes through here", Tone.MUTED))
        right: list[Piece] = []
        room = width - sum(width_of(text) for text, _ in left) - 4
        turns = [turn.ms for turn in live.latencies][-max(0, min(16, room)) :]
        if turns and room > 4:
            top = max(turns)
            bars = bars_text([ms / top for ms in turns], len(turns), self._glyphs.levels)
            right = [(bars, Tone.MOVING), (" ", Tone.PLAIN)]
        return left, right
