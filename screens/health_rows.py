"""How a line of the health screen is drawn: which columns there is room for, and what stands in them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from screens.glyphs import Glyphs, State, Tone
from screens.health_board import SIDES, Fold, HealthBoard, fold_words
from screens.health_words import (
    SIMULATED,
    Standing,
    breaker_words,
    check_sign,
    figure,
    fit_parts,
    name_of,
    parts_of,
    percent,
    spark_text,
    standing_of,
    standing_sign,
    strip_pieces,
)
from screens.textfit import cut, display, fit, width_of
from screens.widgets.line import Piece
from screens.widgets.panels import BESIDE, Panel, Side
from services.health.model import CheckKind, CheckView

GAP = 2
SIGN = 2
STRIP, SPARK, P95, UPTIME, BREAKER = "strip", "spark", "p95", "24 h", "breaker"
WIDTHS = {STRIP: 10, SPARK: 8, P95: 8, UPTIME: 6, BREAKER: 10}
TITLES = {SPARK: "latency", P95: "p95", UPTIME: "24 h", BREAKER: "breaker"}
MOST = {STRIP: 30, SPARK: 16}
LEAST_SAYS = {CheckKind.AGENT.value: 40}
USUAL_SAYS = 27
"""Columns that what a line says should have before figures stand beside it; agents have more to say."""
COMFORTABLE_SAYS = 40
SMALL = 60
"""Below this width a line has either its figures or what is to say of it."""
LEAST_COMPANY = 6
FOLDED, UNFOLDED = "+ ", "- "


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one panel. `says` is 0 where lines say something only in place of their figures."""

    name: int
    figures: tuple[tuple[str, int], ...]
    says: int

    @property
    def figures_width(self) -> int:
        return sum(width + GAP for _, width in self.figures)


class HealthPainter:
    """Paints the lines of a board. Set `now` and `elapsed` before each round of painting."""

    def __init__(self, board: HealthBoard, glyphs: Glyphs, zone: str) -> None:
        self.now = 0
        self.elapsed = 0.0
        """Seconds since the view was taken."""
        self.asked: Mapping[str, int | None] = {}
        """Checks that are probed because the operator wants it, with the time of the probe before."""
        self._board, self._glyphs, self._zone = board, glyphs, zone
        self._columns: dict[tuple[str, int], Columns] = {}
        self._names: dict[Side | None, int] = {}
        self._ids: tuple[str, ...] = ()

    def rearranged(self) -> None:
        """Other checks are shown: their columns are measured again."""
        self._columns.clear()
        ids = tuple(self._board.checks)
        if ids != self._ids:
            self._ids = ids
            self._names.clear()

    # -- screens.widgets.panels.Painter -----------------------------------------------------------

    def titles(self, panel: Panel, width: int) -> list[tuple[int, str]]:
        columns = self._columns_of(panel, width)
        start, titles = SIGN + columns.name, list[tuple[int, str]]()
        for name, room in columns.figures:
            start += GAP
            title = TITLES.get(name, "")
            if title:
                ragged = name in (SPARK, BREAKER)
                titles.append((start if ragged else start + room - len(title), title))
            start += room
        return titles

    def line(self, panel: Panel, item: Hashable, width: int) -> list[Piece]:
        if isinstance(item, Fold):
            return self._fold(item, width)
        check = self._board.checks.get(str(item))
        return [] if check is None else self._check(check, self._columns_of(panel, width), width)

    # -- columns ----------------------------------------------------------------------------------

    def _columns_of(self, panel: Panel, width: int) -> Columns:
        columns = self._columns.get((panel.key, width))
        if columns is None:
            columns = self._columns[panel.key, width] = self._measure(panel, width)
        return columns

    def _measure(self, panel: Panel, width: int) -> Columns:
        # Where panels lie under one another their columns stand in line, where there are two, those of each.
        small, stacked = width < SMALL, SMALL <= width < BESIDE - 5
        known = self._board.checks
        checks = [check for item in panel.items if (check := known.get(str(item))) is not None]
        if stacked and panel.key != CheckKind.AGENT:
            checks = [check for check in known.values() if check.kind is not CheckKind.AGENT]
        instead = small and panel.key in (CheckKind.PROVIDER, CheckKind.INTEGRATION)
        most = 14 if small else 16 if width < 90 else 24
        if panel.key == CheckKind.AGENT and width < 70:
            most = 22  # nothing but what is to say stands beside it
        name = max(8, min(self._longest_name(None if stacked else panel.side), most))
        says = 0 if instead else LEAST_SAYS.get(panel.key, USUAL_SAYS)
        room = width - SIGN - name - (says + GAP if says else 0)
        chosen: dict[str, int] = {}
        for figure_name in self._wanted(panel, checks, instead):
            if WIDTHS[figure_name] + GAP <= room:
                chosen[figure_name] = WIDTHS[figure_name]
                room -= WIDTHS[figure_name] + GAP
        for figure_name, most in MOST.items():
            if figure_name in chosen and not instead:
                more = min(most - chosen[figure_name], max(0, room - (COMFORTABLE_SAYS - USUAL_SAYS)) // 2)
                chosen[figure_name] += more
                room -= more
        order = (STRIP, SPARK, BREAKER, P95, UPTIME)
        figures = tuple((each, chosen[each]) for each in order if each in chosen)
        return Columns(name, figures, says + room if says else 0)

    def _longest_name(self, side: Side | None) -> int:
        """The width of the longest name at this side, or of all; folded ones too, so that nothing moves."""
        longest = self._names.get(side)
        if longest is None:
            checks = self._board.checks.values()
            names = (self.name(check) for check in checks if side is None or SIDES[check.kind] is side)
            longest = self._names[side] = max(map(width_of, names), default=0)
        return longest

    def _wanted(self, panel: Panel, checks: Sequence[CheckView], instead: bool) -> list[str]:
        """The figures that any of these has, the more important ones first."""
        has = {
            STRIP: any(check.beats for check in checks) and not instead,
            UPTIME: any(check.uptime_24h is not None for check in checks),
            P95: any(check.p95_ms is not None for check in checks),
            BREAKER: any(check.breaker is not None for check in checks) and not instead,
            SPARK: any(beat.took_ms is not None for check in checks for beat in check.beats),
        }
        order = (P95, SPARK, UPTIME) if instead else tuple(has)
        if panel.key == CheckKind.AGENT:
            order = (STRIP, UPTIME)
        return [name for name in order if has[name]]

    # -- lines ------------------------------------------------------------------------------------

    def name(self, check: CheckView) -> str:
        """Its name, with its company where there are several."""
        name, company = self._names_of(check)
        return f"{name} {self._glyphs.dot} {company}" if company else name

    def _names_of(self, check: CheckView) -> tuple[str, str]:
        name = name_of(check)
        company = display(check.company) if self._board.several_companies else ""
        return name, "" if company in name else company

    def _name_in(self, check: CheckView, width: int) -> str:
        """Its name in so many columns; vendors' names are the same in each company, so both are cut."""
        (name, company), ellipsis = self._names_of(check), self._glyphs.ellipsis
        whole = self.name(check)
        if not company or width_of(whole) <= width or check.kind is CheckKind.AGENT:
            return fit(whole, width, ellipsis)
        company = cut(company, max(LEAST_COMPANY, width - width_of(name) - 3), ellipsis)
        name = cut(name, width - width_of(company) - 3, ellipsis)
        return fit(f"{name} {self._glyphs.dot} {company}", width, ellipsis)

    def _check(self, check: CheckView, columns: Columns, width: int) -> list[Piece]:
        glyphs = self._glyphs
        sign, tone = check_sign(check, glyphs)
        if self.is_asked(check):
            sign, tone = glyphs.states[State.SYNCING], Tone.MOVING
        standing = standing_of(check)
        named = Tone.MUTED if standing in (Standing.HELD, Standing.UNCHECKED) else Tone.PLAIN
        pieces: list[Piece] = [(f"{sign} ", tone)]
        pieces.append((self._name_in(check, columns.name), named))
        instead = not columns.says and self._is_measured(check, columns, width)
        if columns.says or instead:
            for name, room in columns.figures:
                pieces.append((" " * GAP, Tone.MUTED))
                pieces += self._figure(name, check, room)
        pieces.append((" " * GAP, Tone.MUTED))
        if instead:
            pieces.append((SIMULATED if check.simulated else "", Tone.LOOK))
            return pieces
        breaker_shown = any(name == BREAKER for name, _ in columns.figures)
        parts = parts_of(check, self.now, self._zone, self.elapsed, breaker_shown=breaker_shown)
        used = sum(width_of(text) for text, _ in pieces)
        return [*pieces, *fit_parts(parts, width - used, glyphs)]

    def _is_measured(self, check: CheckView, columns: Columns, width: int) -> bool:
        """Whether its figures say all that is to be said, and there is room for what must not be left out."""
        if standing_of(check) is not Standing.FINE or check.p95_ms is None or not columns.figures:
            return False
        left = width - SIGN - columns.name - columns.figures_width - GAP
        return not check.simulated or left >= len(SIMULATED)

    def is_asked(self, check: CheckView) -> bool:
        """Whether it is being probed because the operator asked for it."""
        return check.id in self.asked and self.asked[check.id] == check.checked_at

    def _figure(self, name: str, check: CheckView, room: int) -> list[Piece]:
        glyphs = self._glyphs
        match name:
            case "strip":
                return strip_pieces(check.beats, room, glyphs)
            case "spark":
                return [(spark_text(check.beats, room, glyphs), Tone.MOVING)]
            case "breaker":
                words, tone = ("", Tone.MUTED)
                if check.breaker is not None:
                    words, tone = breaker_words(check.breaker, self.elapsed)
                return [(fit(words, room, glyphs.ellipsis), tone)]
            case "p95":
                unknown = check.p95_ms is None and check.breaker is None
                return [(("" if unknown else figure(check.p95_ms, glyphs)).rjust(room), Tone.PLAIN)]
        share = check.uptime_24h
        tone = Tone.MUTED if share is None or share >= 0.99 else Tone.LOOK if share >= 0.95 else Tone.ACT
        return [((percent(share, glyphs) if check.beats else "").rjust(room), tone)]

    def _fold(self, fold: Fold, width: int) -> list[Piece]:
        """How many, and the names of as many as there is room for."""
        folded = self._board.folds.get(fold)
        if folded is None:
            return []
        words, tone = fold_words(fold, folded)
        pieces: list[Piece] = [(UNFOLDED if folded.open else FOLDED, Tone.ACCENT)]
        pieces.append((f"{standing_sign(fold.standing, self._glyphs)} {words}", tone))
        used = sum(width_of(text) for text, _ in pieces)
        if folded.open:
            return pieces
        names: list[str] = []
        room = width - used - 4 - width_of(self._glyphs.ellipsis)
        between = f" {self._glyphs.dot} "
        for check in folded.checks:
            name = cut(display(check.name), 24, self._glyphs.ellipsis)
            needed = width_of(name) + (len(between) if names else 0)
            if needed > room:
                break
            names.append(name)
            room -= needed
        more = f" {self._glyphs.ellipsis}" if len(names) < len(folded.checks) else ""
        if names:
            pieces.append((f"   {between.join(names)}{more}", Tone.MUTED))
        return pieces
