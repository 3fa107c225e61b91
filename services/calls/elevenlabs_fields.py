"""Checked access to the members of ElevenLabs' conversation frames, which may hold anything."""

from __future__ import annotations

import json
import math
from typing import Any, Final, TypeAlias, TypeGuard

from services.calls.audio.formats import AudioFormat
from services.text import clean

Frame: TypeAlias = dict[str, Any]

MOST_TEXT: Final = 100_000
"""Characters of one text that are kept."""
REMEMBERED: Final = 256
"""Events or tools of one conversation that are remembered."""


class Broken(Exception):
    """A known frame without what it must have."""


def object_of(frame: Frame, name: str) -> Frame:
    found = frame.get(name)
    if not isinstance(found, dict):
        raise Broken(f"has no {name}")
    return found


def given(event: Frame, name: str) -> str:
    """A text that is used as it is: an id, a format."""
    found = event.get(name)
    if not isinstance(found, str) or not found:
        raise Broken(f"has no {name}")
    return found


def words(event: Frame, name: str) -> str:
    """A text that is shown."""
    found = event.get(name)
    if not isinstance(found, str):
        raise Broken(f"has no {name}")
    return cleaned(found)


def cleaned(text: str) -> str:
    return clean(text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…")


_UNSET: Final = object()


def event_id_of(event: Frame, default: Any = _UNSET) -> Any:
    """The event's number; the schema says “number”, so 7.0 is 7."""
    found = event.get("event_id")
    if is_number(found):
        return int(found)
    if default is _UNSET:
        raise Broken("has no event_id")
    return default


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_words(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def remember(book: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep it among the newest few."""
    book.pop(key, None)
    book[key] = value
    while len(book) > REMEMBERED:
        del book[next(iter(book))]


def alignment_ms(alignment: object) -> float | None:
    """How long the aligned characters last; None where that is not told."""
    if not isinstance(alignment, dict):
        return None
    starts, lasts = alignment.get("char_start_times_ms"), alignment.get("char_durations_ms")
    if not (isinstance(starts, list) and isinstance(lasts, list) and starts and lasts):
        return None
    values = (starts[0], starts[-1], lasts[-1])
    if not all(is_number(value) for value in values):
        return None
    return float(values[1] + values[2] - values[0])


class Utterances:
    """Gives all of an utterance one number: the vendor numbers its text and each chunk of its audio apart.

    An utterance is begun by its text or by its first sound, whichever comes first, and has that number; an
    interruption drops everything up to the number it names, a turn of the user ends the current utterance.
    """

    def __init__(self) -> None:
        self.current: int | None = None
        self._last: int | None = None
        self._wordless = False
        self._cut = -1
        self._numbers: dict[int, int] = {}

    def text(self, event_id: int) -> int:
        """The number of a text's utterance."""
        known = self._numbers.get(event_id)
        if known is not None or event_id <= self._cut:
            return event_id if known is None else known
        if self.current is None or not self._wordless:
            self.current = event_id
        self._wordless = False
        self._last = self.current
        remember(self._numbers, event_id, self.current)
        return self.current

    def sound(self, event_id: int) -> int | None:
        """The number of a sound's utterance; None for one that is to be dropped."""
        if event_id <= self._cut:
            return None
        known = self._numbers.get(event_id)
        if known is not None:
            self.current = known
        elif self.current is None:
            self.current, self._wordless = event_id, True
        self._last = self.current
        return self.current

    def known(self, event_id: int | None) -> int | None:
        """The number under which a text was told."""
        return None if event_id is None else self._numbers.get(event_id, event_id)

    def interrupted(self, event_id: int) -> int:
        """Drop everything up to here; returns the number of the utterance that is cut."""
        self._cut = max(self._cut, event_id)
        self.turn()
        return event_id if self._last is None else self._last

    def turn(self) -> None:
        """The user had a turn: what comes next is another utterance."""
        self.current, self._wordless = None, False


class FormatDoubt:
    """Notices audio that is not in the announced format: half samples, or a length unlike its letters'."""

    _ENOUGH: Final = 3

    def __init__(self) -> None:
        self._misfits = 0

    def grows(self, announced: AudioFormat, data: bytes, alignment: object) -> bool:
        """Whether this piece is the one too many; pieces without an alignment tell little."""
        if self._misfits >= self._ENOUGH:
            return False
        wrong = announced.encoding == "pcm" and len(data) % 2 == 1
        lasts = alignment_ms(alignment)
        if lasts is not None and lasts >= 60:
            heard = len(data) / announced.frame_bytes(1000) * 1000
            wrong = wrong or not 0.6 <= heard / lasts <= 3
        elif not wrong:
            return False
        self._misfits = self._misfits + 1 if wrong else 0
        return self._misfits == self._ENOUGH


def mcp_result(items: object) -> str:
    """The texts of an MCP tool's answer; anything else in it as JSON."""
    if not isinstance(items, list):
        return ""
    texts = [
        item["text"]
        if isinstance(item, dict) and isinstance(item.get("text"), str)
        else json.dumps(item, ensure_ascii=False, default=str)
        for item in items
    ]
    return cleaned("\n".join(texts))
