"""The kinds of values a setting can have: how each is parsed and how it is named in a message."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

Parser = Callable[[object, bool], object]
"""`(value, from_text) -> value`: `from_text` is true for a variable. Raises ValueError when not allowed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed for one setting, in words and as a parser."""

    allowed: str
    parse: Parser


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def whole(minimum: int, maximum: int | None = None, unit: str = "") -> Rule:
    """A whole number; without a maximum there is no upper limit."""

    def parse(value: object, from_text: bool) -> int:
        number = int(str(value).strip()) if from_text else value
        _require(isinstance(number, int) and not isinstance(number, bool))
        number = cast(int, number)
        _require(minimum <= number and (maximum is None or number <= maximum))
        return number

    counted = f"a whole number of {unit}," if unit else "a whole number"
    return Rule(
        f"{counted} {minimum} or more" if maximum is None else f"{counted} from {minimum} to {maximum}", parse
    )


def seconds(minimum: float, maximum: float) -> Rule:
    """A duration in seconds, fractions allowed."""

    def parse(value: object, from_text: bool) -> float:
        number = float(str(value)) if from_text else value
        _require(isinstance(number, (int, float)) and not isinstance(number, bool))
        _require(minimum <= cast(float, number) <= maximum)
        return float(cast(float, number))

    return Rule(f"seconds, from {minimum:g} to {maximum:g}", parse)


_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


def flag() -> Rule:
    """Yes or no; a variable may also say 1, 0, yes, no, on or off."""

    def parse(value: object, from_text: bool) -> bool:
        if from_text:
            word = str(value).strip().lower()
            _require(word in _YES or word in _NO)
            return word in _YES
        _require(isinstance(value, bool))
        return bool(value)

    return Rule("true or false", parse)


def one_of(*words: str) -> Rule:
    """One of a few words, in any case."""

    def parse(value: object, from_text: bool) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        _require(word in words)
        return word

    return Rule(", ".join(words[:-1]) + f" or {words[-1]}", parse)


def text(allowed: str, check: Callable[[str], bool]) -> Rule:
    """Text that passes `check`, without the spaces around it."""

    def parse(value: object, from_text: bool) -> str:
        word = value.strip() if isinstance(value, str) else ""
        _require(bool(word) and check(word))
        return word

    return Rule(allowed, parse)


def time_of_day() -> Rule:
    """A time of the day as HH:MM, or `off`."""

    def parse(value: object, from_text: bool) -> str:
        if hasattr(value, "isoformat") and hasattr(value, "hour") and not hasattr(value, "year"):
            value = cast(Any, value).isoformat("minutes")  # TOML has a type for times of the day
        word = value.strip().lower() if isinstance(value, str) else ""
        _require(word == "off" or bool(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", word)))
        return word

    return Rule('a time of the day such as "02:00", or "off"', parse)


def is_zone(name: str) -> bool:
    """Whether the time zone database knows this name."""
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a relative name, or a folder such as "Europe"
        return False
    return True


def is_database(url: str) -> bool:
    """Whether this is the URL of a database that the program can use."""
    return bool(re.match(r"(sqlite|postgres|postgresql|postgresql\+psycopg)://", url))


def is_redis(url: str) -> bool:
    """Whether this is the address of a Redis server."""
    return bool(re.match(r"(redis|rediss|unix)://", url))
