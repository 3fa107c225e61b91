"""The lines around the panels: how everything stands and why; what is wrong with the current line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from screens.glyphs import OVERALL, Glyphs, State, Tone
from screens.health_words import (
    Part,
    Standing,
    age_words,
    breaker_words,
    budget_words,
    check_sign,
    figure,
    fit_parts,
    maintenance_words,
    prober_words,
    standing_of,
    whole_words,
)
from screens.textfit import cut, display, width_of
from screens.when import clock_time
from screens.widgets.line import Line, Piece
from screens.widgets.lines import Lines, Row
from services.health.model import CheckView, HealthState, HealthView

if TYPE_CHECKING:
    from screens.health import HealthScreen


LEAST_ADVICE = 16
"""Columns below which the beginning of an advice helps nobody; the detail has it all."""


class HeadLine(Lines):
    """How everything stands and why, on one line or two; at the right when it was checked, or the filter."""

    def __init__(self, screen: HealthScreen) -> None:
        super().__init__(ident="health-head")
        self._host = screen
        self.problem = ""
        """What is wrong with the filter being typed."""

    def rows(self, width: int) -> list[Row]:
        host = self._host
        view, glyphs = host.live.health, host.glyphs
        if view is None or not view.checks:
            return [([(" health", "strong")], [])]
        right = self._right(view, width)
        state, colour = OVERALL[view.overall.value]
        word: Piece = (f" {glyphs.states[state]} {view.overall.value}", colour)
        room = width - width_of(word[0]) - sum(width_of(text) for text, _ in right) - 3
        text, tone = (self.problem, Tone.LOOK) if self.problem else (display(view.reason), Tone.PLAIN)
        if width_of(text) <= room and not self.problem:
            return [([word, (f"  {text}" if text else "", tone)], right)]
        second = whole_words(text, width - 4, glyphs.ellipsis)
        counts: Piece = (f"  {self._counts(room - 2)}", Tone.MUTED)
        return [([word, counts], right), ([(f"   {second}", tone)], [])]

    def _counts(self, room: int) -> str:
        counts: dict[Standing, int] = dict.fromkeys(Standing, 0)
        for check in self._host.board.checks.values():
            counts[standing_of(check)] += 1
        words = ""
        for standing, count in counts.items():
            more = f"{', ' if words else ''}{count:,} {standing.value}" if count else ""
            if width_of(words + more) <= room:
                words += more
        return words

    def _right(self, view: HealthView, width: int) -> list[Piece]:
        host, glyphs = self._host, self._host.glyphs
        pieces: list[Piece] = []
        if host.board.filter:
            typed = cut(display(host.board.filter.typed), max(12, width // 3), glyphs.ellipsis)
            pieces.append((f"/ {typed}  {host.board.matching:,} of {len(view.checks):,}  ", Tone.ACCENT))
        if host.asking:
            done = sum(not host.painter.is_asked(view_of) for view_of in host.asked_checks())
            count = len(host.painter.asked)
            words = f"{done:,} of {count:,} checked" if count > 1 else "checking"
            return [*pieces, (f"{glyphs.states[State.SYNCING]} {words} ", Tone.MOVING)]
        by, tone = prober_words(view, host.services.clock.now())
        words = age_words(view.checked_at, host.services.clock.now())
        if by and width >= 100:
            words = f"{words} {by}" if tone is Tone.MUTED else f"{words}, {by}"
        elif by and tone is Tone.LOOK:
            words = by
        return [*pieces, (f"{words} ", tone)]


class WhyLine(Line):
    """The line under the cursor in full: what is wrong and what to do, or the figures that found no room."""

    def __init__(self, screen: HealthScreen) -> None:
        super().__init__(ident="health-why")
        self._host = screen

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        host = self._host
        check = host.current
        if host.live.failure and (check is None or check.state is HealthState.UP):
            return [(f" {host.glyphs.failed} {display(host.live.failure)}", Tone.ACT)], []
        if check is None:
            return [], []
        now, elapsed = host.services.clock.now(), host.elapsed
        whose = host.painter.name(check) if host.board.several_companies else ""
        return why_pieces(check, now, host.zone, elapsed, host.glyphs, width, whose=whose), []


def why_pieces(
    check: CheckView, now: int, zone: str, elapsed: float, glyphs: Glyphs, width: int, *, whose: str = ""
) -> list[Piece]:
    """What is wrong with a check and what to do; of one that is well, what its line has no room for.

    `whose` is its name with that of its company, where several companies have one of this name.
    """
    standing, (sign, tone) = standing_of(check), check_sign(check, glyphs)
    head: list[Piece] = [(f" {sign} ", tone)]
    if standing is Standing.HELD:
        name, cause = whose or display(check.name), display(check.held_by)
        text = f"{name} waits for {cause}: it raises no alert of its own meanwhile"
        return [*head, (whole_words(text, width - 4, glyphs.ellipsis), Tone.PLAIN)]
    if standing in (Standing.DOWN, Standing.DEGRADED, Standing.FAILING) and check.message:
        advice = display(check.advice)
        message = f"{whose}: {display(check.message)}" if whose else display(check.message)
        cause = (
            f"{message} since {clock_time(check.since, now, zone)}" if check.since is not None else message
        )
        # The advice is what helps: a long cause leaves it some room, the detail has both in full.
        most = max(width * 6 // 10, width - 8 - width_of(advice)) if advice else width - 4
        pieces = [*head, (whole_words(cause, min(most, width - 4), glyphs.ellipsis), tone)]
        room = width - sum(width_of(text) for text, _ in pieces) - 4 - width_of(glyphs.arrow)
        if advice and room >= LEAST_ADVICE:
            pieces.append((f"  {glyphs.arrow} {whole_words(advice, room, glyphs.ellipsis)}", Tone.PLAIN))
        return pieces
    parts = [Part(whose or display(check.name), Tone.PLAIN, flows=True)]
    if standing is Standing.MAINTENANCE:
        # What it is like meanwhile is what one wants to know before its end.
        parts.append(Part(maintenance_words(check, now, zone), Tone.PLAIN, rank=1))
        if check.message:
            parts.append(Part(display(check.message), Tone.PLAIN, rank=1, flows=True))
    if check.simulated:
        parts.append(Part("simulated", Tone.LOOK))
    if check.p95_ms is not None:
        half = f"p50 {figure(check.p50_ms, glyphs)}  " if check.p50_ms is not None else ""
        parts.append(Part(f"{half}p95 {figure(check.p95_ms, glyphs)}", Tone.MUTED, rank=1))
    if check.breaker is not None:
        words, tone = breaker_words(check.breaker, elapsed)
        parts.append(Part(f"breaker {words}", tone, rank=2))
    for number, budget in enumerate(budget for budget in check.budgets if budget.limit):
        words, tone = budget_words(budget)
        parts.append(Part(words, tone, rank=3 + number))
    if check.dependents:
        many = "s hang" if check.dependents > 1 else " hangs"
        parts.append(Part(f"{check.dependents:,} check{many} on it", Tone.MUTED, rank=20))
    if check.message and standing is not Standing.MAINTENANCE:
        parts.append(Part(display(check.message), Tone.MUTED, rank=30, flows=True))
    return [*head, *fit_parts(parts, width - 4, glyphs)]
