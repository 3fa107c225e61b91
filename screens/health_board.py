"""Which lines the health screen shows, without a widget: panels by kind, trouble first, the many folded.

A line stands for a check (its id) or for a fold (`Fold`): checks of one standing that are many and need no
look one by one. What is in trouble is never folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from screens.glyphs import Tone
from screens.health_filter import HealthFilter
from screens.health_words import KIND_TITLES, STANDING_TONE, Standing, standing_of
from screens.textfit import display
from screens.widgets.panels import Panel, Side
from services.health.model import CheckKind, CheckView, HealthView

FOLDABLE = (Standing.MAINTENANCE, Standing.HELD, Standing.UNCHECKED, Standing.FINE)
FOLDED_FROM = {CheckKind.AGENT: 4}
USUALLY_FOLDED_FROM = 13
"""So many lines of one standing are folded; agents are many and look alike, the rest is looked at."""
SIDES = {
    CheckKind.PROVIDER: Side.FULL,
    CheckKind.AGENT: Side.LEFT,
    CheckKind.INTEGRATION: Side.RIGHT,
    CheckKind.ORCHESTRATOR: Side.RIGHT,
    CheckKind.SYSTEM: Side.RIGHT,
}


@dataclass(frozen=True, slots=True)
class Fold:
    """A line that stands for many checks. `held_by` is the check that all of them wait for."""

    kind: CheckKind
    standing: Standing
    held_by: str = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """What a fold says: its checks, and whether they are shown below it."""

    checks: tuple[CheckView, ...]
    open: bool


Key = str | Fold


class HealthBoard:
    """Reads a view; gives panels, and what each line stands for."""

    def __init__(self) -> None:
        self.filter = HealthFilter()
        self.checks: dict[str, CheckView] = {}
        self.folds: dict[Fold, Folded] = {}
        self.matching = 0
        """Checks that fit the filter."""
        self.several_companies = False
        self._opened: set[Fold] = set()

    def toggle(self, fold: Fold) -> None:
        """Show what is folded, or fold it."""
        self._opened.symmetric_difference_update({fold})

    def fold_of(self, check_id: str) -> Fold | None:
        """The fold a check is in now."""
        check = self.checks.get(check_id)
        if check is None:
            return None
        fold = _fold_of(check, standing_of(check))
        return fold if fold in self.folds else None

    def panels(self, view: HealthView) -> list[Panel]:
        """The panels in order, those without lines left out."""
        self.checks = {check.id: check for check in view.checks}
        self.folds = {}
        self.several_companies = len({check.company for check in view.checks if check.company}) > 1
        shown = [check for check in view.checks if self.filter.matches(check)] if self.filter else view.checks
        self.matching = len(shown)
        by_kind: dict[CheckKind, list[CheckView]] = {kind: [] for kind in CheckKind}
        for check in shown:
            by_kind[check.kind].append(check)
        return [self._panel(kind, checks) for kind, checks in by_kind.items() if checks]

    def _panel(self, kind: CheckKind, checks: Sequence[CheckView]) -> Panel:
        by_standing: dict[Standing, list[CheckView]] = {standing: [] for standing in Standing}
        for check in checks:
            by_standing[standing_of(check)].append(check)
        items: list[Key] = []
        for standing, members in by_standing.items():
            members.sort(key=_by_name)
            if standing is Standing.HELD:
                for cause in dict.fromkeys(check.held_by for check in members):
                    items += self._lines(kind, standing, [each for each in members if each.held_by == cause])
            else:
                items += self._lines(kind, standing, members)
        return Panel(kind.value, KIND_TITLES[kind], _summary(by_standing), tuple(items), SIDES[kind])

    def _lines(self, kind: CheckKind, standing: Standing, members: Sequence[CheckView]) -> Iterable[Key]:
        ids = [check.id for check in members]
        most = FOLDED_FROM.get(kind, USUALLY_FOLDED_FROM)
        if self.filter or standing not in FOLDABLE or len(ids) < most:
            return ids
        fold = _fold_of(members[0], standing)
        is_open = fold in self._opened
        self.folds[fold] = Folded(tuple(members), is_open)
        return [fold, *ids] if is_open else [fold]


def _fold_of(check: CheckView, standing: Standing) -> Fold:
    return Fold(check.kind, standing, check.held_by if standing is Standing.HELD else "")


def _by_name(check: CheckView) -> tuple[str, str]:
    return check.name.casefold(), check.id


def fold_words(fold: Fold, folded: Folded) -> tuple[str, Tone]:
    """`31 held back by Retell`, `11 fine`."""
    cause = f" by {display(fold.held_by)}" if fold.held_by else ""
    return f"{len(folded.checks):,} {fold.standing.value}{cause}", STANDING_TONE[fold.standing]


def _summary(by_standing: dict[Standing, list[CheckView]]) -> tuple[tuple[str, Tone], ...]:
    """How many stand how, for the title of a panel; `all fine` when there is nothing else to say."""
    pieces: list[tuple[str, Tone]] = []
    for standing, checks in by_standing.items():
        causes = {check.held_by for check in checks} if standing is Standing.HELD else set()
        cause = f" by {display(next(iter(causes)))}" if len(causes) == 1 else ""
        if checks:
            pieces.append((f"{len(checks):,} {standing.value}{cause}", STANDING_TONE[standing]))
    if len(pieces) == 1 and by_standing[Standing.FINE]:
        count = len(by_standing[Standing.FINE])
        return ((f"all {count:,} fine" if count > 1 else "fine", Tone.OK),)
    return tuple(pieces)


__all__ = ["Fold", "Folded", "HealthBoard", "Key", "fold_words"]
