"""Placeholders in mapping files: values are put in, nothing is ever run.

`{name}` stands for a value, `{settings.rid}` for a member of one, `{at|iso}` for one in another form; `{{`
and `}}` are braces. A text that is nothing but one placeholder becomes the value itself, a number stays a
number. Parsing finds every mistake; rendering fails only for values that are missing or of the wrong kind.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import quote

from services.errors import UsageError
from services.integrations.bookings.times import is_twice

FILTER_HELP: Final[Mapping[str, str]] = {
    "iso": "a time with its offset: 2027-03-01T19:30:00+01:00",
    "utc": "a time in UTC: 2027-03-01T18:30:00Z",
    "local": "a time in the partner's zone, without offset: 2027-03-01T19:30",
    "stamp": "a time in UTC with milliseconds: 2027-03-01T18:30:00.000+0000",
    "date": "the day in the partner's zone: 2027-03-01",
    "clock": "the time of day in the partner's zone: 19:30",
    "epoch": "a time as seconds since 1970",
    "int": "a whole number",
    "str": "a text",
    "upper": "a text in capitals",
    "first": "the first name of a full name: all but the last word",
    "last": "the last name of a full name: its last word",
    "or": "or:NAME takes another value when there is none: {practitioner|or:settings.agenda}",
    "default": "default:VALUE stands in when there is no value",
    "optional": "without a value the whole member is left out",
}
"""Every filter with its sentence, for `callboard integration partners --explain`."""

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)*")
_WITH_VALUE: Final = ("default", "or")
_ABSENT: Final = object()


class BadTemplate(ValueError):
    """What is wrong with a text, in words."""


class Missing(Exception):
    """A value that a placeholder needs and nobody gave."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `{name|filter|filter:argument}`."""

    name: str
    filters: tuple[tuple[str, str], ...] = ()

    @property
    def optional(self) -> bool:
        return any(word == "optional" for word, _ in self.filters)

    @property
    def needed(self) -> bool:
        """Whether there is no way without a value."""
        return not any(word in ("optional", *_WITH_VALUE) for word, _ in self.filters)

    @property
    def names(self) -> list[str]:
        """Every value it may take."""
        return [self.name, *(argument for word, argument in self.filters if word == "or")]

    def value(self, values: Mapping[str, Any]) -> Any:
        """The value in its form; `_ABSENT` for one that may be left out. Raises Missing."""
        found = _member(values, self.name)
        for word, argument in self.filters:
            if found is None and word in _WITH_VALUE:
                found = argument if word == "default" else _member(values, argument)
        if found is None:
            if self.optional:
                return _ABSENT
            raise Missing(self.name)
        for word, _ in self.filters:
            if word in _FORMS:
                found = _FORMS[word](found, self.name)
        if isinstance(found, dt.datetime):
            raise UsageError(f"{{{self.name}}} is a time and needs a form, such as |iso", code="bad_mapping")
        return found


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed text: literal pieces and placeholders in turn."""

    parts: tuple[str | Placeholder, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises BadTemplate naming what is wrong."""
        parts: list[str | Placeholder] = []
        end = 0
        literal = ""
        for token in _TOKEN.finditer(text):
            literal += text[end : token.start()]
            end = token.end()
            if token[0] in ("{{", "}}"):
                literal += token[0][0]
            elif token[1] is None:
                raise BadTemplate(f"a single {token[0]} stands here; write {token[0] * 2} for a brace")
            else:
                if literal:
                    parts.append(literal)
                parts.append(_placeholder(token[1]))
                literal = ""
        literal += text[end:]
        if literal or not parts:
            parts.append(literal)
        if len(parts) > 1 and any(isinstance(part, Placeholder) and part.optional for part in parts):
            raise BadTemplate("optional is for a text that is nothing but its placeholder")
        return cls(tuple(parts))

    @property
    def placeholders(self) -> list[Placeholder]:
        return [part for part in self.parts if isinstance(part, Placeholder)]

    def render(self, values: Mapping[str, Any]) -> Any:
        """The text with its values, or the one value itself. Raises Missing, UsageError."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder):
            return self.parts[0].value(values)
        return "".join(part if isinstance(part, str) else _text(part.value(values)) for part in self.parts)

    def render_path(self, values: Mapping[str, Any]) -> str:
        """As a path: every value is one segment or a part of one, and cannot leave it."""
        pieces = []
        for part in self.parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            text = _text(part.value(values))
            if text in (".", ".."):
                raise UsageError(f"{text!r} cannot stand in an address", code="bad_value")
            pieces.append(quote(text, safe=""))
        return "".join(pieces)


def templates_in(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text of a tree of objects and lists, with its path."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from templates_in(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from templates_in(value, (*path, index))


def rendered(tree: Any, values: Mapping[str, Any]) -> Any:
    """The tree with every text rendered; members and items without a value are left out if they may be."""
    if isinstance(tree, str):
        return Template.parse(tree).render(values)
    if isinstance(tree, Mapping):
        made = {key: rendered(value, values) for key, value in tree.items()}
        return {key: value for key, value in made.items() if value is not _ABSENT}
    if isinstance(tree, list):
        return [value for value in (rendered(item, values) for item in tree) if value is not _ABSENT]
    return tree


def dig(data: Any, path: str) -> Any:
    """The value at a dotted path of an answer (`errors.0.message`, `.` for all of it); None if not there."""
    found = data
    for step in [] if path == "." else path.split("."):
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def dig_all(data: Any, path: str) -> list[Any]:
    """Every value at a path in which `*` stands for each item of a list: `availabilities.*.slots.*`."""
    head, star, rest = path.partition("*")
    found = dig(data, head.rstrip(".") or ".")
    if not star:
        return [] if found is None else [found]
    items = found if isinstance(found, list) else []
    tail = rest.removeprefix(".")
    return [value for item in items for value in (dig_all(item, tail) if tail else [item])]


def _placeholder(text: str) -> Placeholder:
    name, *filters = (part.strip() for part in text.split("|"))
    if not _NAME.fullmatch(name):
        raise BadTemplate(
            f"{{{text}}} is no placeholder; write {{name}}, {{settings.name}} or {{name|filter}}"
        )
    found = []
    for part in filters:
        word, colon, argument = part.partition(":")
        word = word.strip()
        if word not in FILTER_HELP:
            near = get_close_matches(word, list(FILTER_HELP), n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FILTER_HELP)}"
            raise BadTemplate(f"there is no filter {word!r}; {hint}")
        if (word in _WITH_VALUE) != bool(colon):
            wrong = f"{word} takes no value" if colon else f"{word} needs its value: {word}:VALUE"
            raise BadTemplate(wrong)
        if word == "or" and not _NAME.fullmatch(argument):
            raise BadTemplate(f"{argument!r} is no name of a value")
        found.append((word, argument))
    return Placeholder(name, tuple(found))


def _member(values: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted name; None for none, and for an empty text."""
    found: Any = values
    for step in name.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return None if found == "" else found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError("Only a text or a number can stand inside a text", code="bad_value")


def _time(form: Callable[[dt.datetime], Any]) -> Callable[[Any, str], Any]:
    def formed(value: Any, name: str) -> Any:
        if not isinstance(value, dt.datetime):
            raise UsageError(f"{name} is not a time", code="bad_value")
        return form(value)

    return formed


def _local(at: dt.datetime) -> dt.datetime:
    if is_twice(at):
        raise UsageError(
            f"{at:%Y-%m-%d %H:%M} occurs twice there, and this partner takes no offset to tell them apart",
            advice="Choose a time before or after the clocks go back",
            code="bad_time",
        )
    return at


def _whole(value: Any, name: str) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is not a whole number: {str(value)[:40]!r}", code="bad_value") from None


def _names(value: Any, name: str) -> list[str]:
    words = _text(value).split()
    if not words:
        raise Missing(name)
    return words


_FORMS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "iso": _time(lambda at: at.isoformat(timespec="seconds")),
    "utc": _time(lambda at: at.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")),
    "local": _time(lambda at: f"{_local(at):%Y-%m-%dT%H:%M}"),
    "stamp": _time(lambda at: f"{at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S}.000+0000"),
    "date": _time(lambda at: f"{at:%Y-%m-%d}"),
    "clock": _time(lambda at: f"{_local(at):%H:%M}"),
    "epoch": _time(lambda at: int(at.timestamp())),
    "int": _whole,
    "str": lambda value, name: _text(value),
    "upper": lambda value, name: _text(value).upper(),
    # A name of one word is both, so that a partner that wants two gets two.
    "first": lambda value, name: " ".join(_names(value, name)[:-1]) or _names(value, name)[0],
    "last": lambda value, name: _names(value, name)[-1],
}
