"""The filter of the health screen: words looked for everywhere, `field:value`; `!` inverts a word."""

from __future__ import annotations

from dataclasses import dataclass

from screens.health_words import Standing, standing_of
from services.errors import UsageError
from services.health.model import CheckKind, CheckView

FIELDS = ("state", "kind", "company", "vendor")
STATES: dict[str, frozenset[Standing]] = {
    "down": frozenset({Standing.DOWN}),
    "degraded": frozenset({Standing.DEGRADED}),
    "failing": frozenset({Standing.FAILING}),
    "maintenance": frozenset({Standing.MAINTENANCE}),
    "held": frozenset({Standing.HELD}),
    "pending": frozenset({Standing.UNCHECKED, Standing.FAILING}),
    "fine": frozenset({Standing.FINE}),
    "up": frozenset({Standing.FINE}),
    "trouble": frozenset({Standing.DOWN, Standing.DEGRADED, Standing.FAILING}),
}
_VENDOR_FACTS = ("vendor", "provider")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a filter: a field (empty for everywhere), what it must hold, and whether it must not."""

    field: str
    value: str
    inverted: bool
    states: frozenset[Standing] = frozenset()

    def matches(self, check: CheckView) -> bool:
        match self.field:
            case "state":
                found = standing_of(check) in self.states
            case "kind":
                found = check.kind.value.startswith(self.value)
            case "company":
                found = self.value in check.company.lower()
            case "vendor":
                found = self.value in _vendor(check)
            case _:
                texts = (check.name, check.id, check.company, check.message, check.held_by, check.last_error)
                found = any(self.value in text.lower() for text in texts)
        return found is not self.inverted


@dataclass(frozen=True, slots=True)
class HealthFilter:
    """What is shown: what every word matches."""

    words: tuple[Word, ...] = ()
    typed: str = ""

    def __bool__(self) -> bool:
        return bool(self.words)

    def matches(self, check: CheckView) -> bool:
        return all(word.matches(check) for word in self.words)


def parse_health_filter(typed: str) -> HealthFilter:
    """Read a filter. Raises UsageError (code `bad_filter`) that names the word and what is allowed."""
    words: list[Word] = []
    for word in typed.lower().split():
        bare = word.removeprefix("!")
        inverted = bare != word
        field, colon, value = bare.partition(":")
        if not colon or field not in FIELDS:
            if bare:
                words.append(Word("", bare, inverted))
        elif value:
            if field == "kind":
                value = _kind(value)
            states = _states(value) if field == "state" else frozenset[Standing]()
            words.append(Word(field, value, inverted, states))
    return HealthFilter(tuple(words), typed.strip())


def _kind(value: str) -> str:
    """A kind by its first letters, in the singular or the plural."""
    wanted = value.removesuffix("s") if value != "s" else value
    if not any(kind.value.startswith(wanted) for kind in CheckKind):
        raise _wrong(f"kind: knows no {value!r}", ", ".join(kind.value for kind in CheckKind))
    return wanted


def _states(value: str) -> frozenset[Standing]:
    fits = [standings for name, standings in STATES.items() if name.startswith(value)]
    if not fits:
        raise _wrong(f"state: knows no {value!r}", ", ".join(STATES))
    return frozenset[Standing]().union(*fits)


def _vendor(check: CheckView) -> str:
    """The names under which the vendor of a check may be looked for."""
    facts = [value for label, value in check.facts if label.lower() in _VENDOR_FACTS]
    ids = [each for each in (check.id, *check.depends_on) if not each.startswith(CheckKind.AGENT.value)]
    names = [each.rpartition("/")[2] for each in ids]
    own = [check.name] if check.kind is not CheckKind.AGENT else []
    return " ".join((*facts, *names, *own)).lower()


def _wrong(message: str, allowed: str) -> UsageError:
    return UsageError(message, advice=f"Allowed are {allowed}", code="bad_filter")
