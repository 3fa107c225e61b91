"""The filter language of the agents screen and of `callboard agents list --filter`.

A filter is a line of words, all of which must hold. A bare word is looked for in the name, the vendor's
id, the voice, the language, the model and the company. `field:value` looks in one field, `field:a,b`
takes either, a leading `!` turns a word round, and "double quotes" keep blanks together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from services.errors import UsageError
from services.model import AgentCard, Drift, Provider, SyncStatus

GONE = "gone"
"""Accepted as a status although it is none: agents the vendor no longer has."""

CLOSED: dict[str, tuple[str, ...]] = {
    "vendor": tuple(provider.value for provider in Provider),
    "status": (*(status.value for status in SyncStatus), GONE),
    "drift": tuple(drift.value for drift in Drift),
}
"""Fields with a fixed set of values; a value may be shortened as long as it stays unique."""

_OPEN: dict[str, Callable[[AgentCard], str]] = {
    "company": lambda card: card.company,
    "voice": lambda card: card.voice,
    "model": lambda card: card.model,
    "language": lambda card: card.language,
    "release": lambda card: card.release,
}
FIELDS = (*CLOSED, *_OPEN)
_ALIASES = {"provider": "vendor", "lang": "language"}


@dataclass(frozen=True, slots=True)
class Term:
    """One word of a filter. `field` is empty for a bare word; `values` are alternatives, in lower case."""

    field: str
    values: tuple[str, ...]
    inverted: bool = False

    def matches(self, card: AgentCard) -> bool:
        return self._found(card) is not self.inverted

    def _found(self, card: AgentCard) -> bool:
        if self.field == "vendor":
            return card.provider.value in self.values
        if self.field == "drift":
            return card.drift.value in self.values
        if self.field == "status":
            return (GONE if card.gone_at is not None else card.status.value) in self.values
        if self.field:
            text = _OPEN[self.field](card).lower()
            return any(value in text for value in self.values)
        needle = self.values[0]
        return (
            needle in card.name.lower()
            or needle in card.agent_id.lower()
            or needle in card.company.lower()
            or needle in card.voice.lower()
            or needle in card.model.lower()
            or needle in card.language.lower()
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """What is shown: every term must hold. An empty filter shows everything."""

    terms: tuple[Term, ...] = ()
    text: str = ""

    def __bool__(self) -> bool:
        return bool(self.terms)

    def matches(self, card: AgentCard) -> bool:
        return all(term.matches(card) for term in self.terms)


def parse_filter(text: str) -> Filter:
    """Read a filter. Raises UsageError (code `bad_filter`) naming the word and what is allowed."""
    return Filter(tuple(_term(word) for word in _words(text)), text.strip())


def _words(text: str) -> list[str]:
    """Split at blanks outside of double quotes; the quotes stay away, an open one reaches to the end."""
    words: list[str] = []
    current, quoted, begun = "", False, False
    for char in text:
        if char == '"':
            quoted, begun = not quoted, True
        elif char.isspace() and not quoted:
            if current or begun:
                words.append(current)
            current, begun = "", False
        else:
            current += char
    if current or begun:
        words.append(current)
    return [word for word in words if word]


def _term(word: str) -> Term:
    inverted = word.startswith("!")
    body = word[1:] if inverted else word
    name, colon, rest = body.partition(":")
    if not body:
        raise _wrong(
            "! stands before a word to turn it round, and no word follows", "Write for example !retell"
        )
    if not colon:
        return Term("", (body.lower(),), inverted)
    field = _ALIASES.get(name.lower(), name.lower())
    if field not in FIELDS:
        near = get_close_matches(field, FIELDS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}:? " if near else ""
        raise _wrong(f"There is no field {name!r} to filter by", f"{hint}Fields are {', '.join(FIELDS)}")
    values = tuple(value.strip().lower() for value in rest.split(",") if value.strip())
    if not values:
        allowed = f": {', '.join(CLOSED[field])}" if field in CLOSED else ""
        raise _wrong(f"{field}: needs a value", f"Write one after the colon{allowed}")
    if field in CLOSED:
        values = tuple(_closed(field, value) for value in values)
    return Term(field, values, inverted)


def _closed(field: str, value: str) -> str:
    value = value.replace("-", "_")
    allowed = CLOSED[field]
    if value in allowed:
        return value
    longer = [candidate for candidate in allowed if candidate.startswith(value)]
    if len(longer) == 1:
        return longer[0]
    near = get_close_matches(value, allowed, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near and not longer else ""
    raise _wrong(
        f"{field}:{value} could mean {' or '.join(longer)}" if longer else f"{field}: knows no {value!r}",
        f"{hint}Allowed are {', '.join(allowed)}",
    )


def _wrong(message: str, advice: str) -> UsageError:
    return UsageError(message, advice=advice, code="bad_filter")
