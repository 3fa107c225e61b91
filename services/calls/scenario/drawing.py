"""What a scenario leaves open, drawn from its seed; and the places in its texts, filled."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}")
_RESULT = re.compile(r"\{result(?:\.([A-Za-z_]\w*))?\}")
_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)")


class Draws:
    """One stream of chance: the same seed gives the same draws, whatever else draws elsewhere."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random("/".join(map(str, seed)))

    def ms(self, span: tuple[float, float]) -> float:
        """Milliseconds between least and most."""
        least, most = span
        return least if least == most else float(round(self._random.uniform(least, most)))

    def choice(self, items: Sequence[T]) -> T:
        return items[0] if len(items) == 1 else self._random.choice(items)

    def figures(self, spans: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return {name: self.ms(span) for name, span in spans.items()}

    def pieces(self, text: str) -> list[tuple[str, int]]:
        """The text in pieces of one to four words, with their numbers of words; joined they are the text."""
        waiting = words(text)
        found: list[tuple[str, int]] = []
        while waiting:
            count = min(self._random.randint(1, 4), len(waiting))
            found.append(("".join(waiting[:count]), count))
            del waiting[:count]
        return found

    def id(self, prefix: str) -> str:
        return f"{prefix}_{self._random.getrandbits(48):012x}"


def words(text: str) -> list[str]:
    """The words with the space before them; joined they are the text, without space at its end."""
    return _WORD.findall(text.rstrip())


def spoken(text: str, count: int) -> str:
    """The first `count` words, as a correction after an interruption has them."""
    return "".join(words(text)[:count]).strip()


def fill(value: Any, variables: Mapping[str, object], result: object) -> Any:
    """`{{name}}`, `{result}` and `{result.member}` in every text of a value; unknown names stay."""
    if isinstance(value, str):
        named = _VARIABLE.sub(lambda m: str(variables[m[1]]) if m[1] in variables else m[0], value)
        return _RESULT.sub(lambda m: _result(m, result), named)
    if isinstance(value, Mapping):
        return {key: fill(item, variables, result) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, variables, result) for item in value]
    return value


def _result(found: re.Match[str], result: object) -> str:
    member = found[1]
    if member is None:
        return result_text(result)
    if isinstance(result, str):
        try:
            result = json.loads(result)
        except ValueError:
            return found[0]
    if isinstance(result, Mapping) and member in result:
        return result_text(result[member])
    return found[0]


def result_text(result: object) -> str:
    """A tool's result as the text a vendor hands on: a text as it is, anything else as JSON."""
    if isinstance(result, str):
        return result
    return json.dumps(result, ensure_ascii=False, default=str)
