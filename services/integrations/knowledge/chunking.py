"""Documents cut into pieces an answer can be made of: by heading, then paragraph, sentence, word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

LEAST: Final = 800
"""Characters from which on a piece may end where a paragraph does."""
MOST: Final = 1_200
"""Characters of a piece at most."""
OVERLAP: Final = 120
"""Characters of the end of a piece that the next one repeats, at most; less where no word begins there."""

_ENDS: Final = (
    re.compile(r"\n[^\S\n]*\n"),
    re.compile(r"[.!?…。！？]['\")\]”»]*(?=\s)|[。！？]"),
    re.compile(r"\n"),
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document below one heading. `heading`: all headings above it, `Prices > Rooms`."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece; `ordinal` counts from 0 over the whole document.

    `start` and `end` are its place in its section's text, so that pieces can be put together again: they
    cover all of it but white space, and overlap by at most `OVERLAP`.
    """

    ordinal: int
    heading: str
    text: str
    section: int
    start: int
    end: int


def chunks_of(sections: Iterable[Section], *, least: int = LEAST, most: int = MOST) -> list[Chunk]:
    """The pieces of a document, in its order. No word is cut unless it alone is longer than a piece."""
    found: list[Chunk] = []
    for number, section in enumerate(sections):
        for start, end in _spans(section.text, least, most):
            text = section.text[start:end]
            found.append(Chunk(len(found), section.heading, text, number, start, end))
    return found


def _spans(text: str, least: int, most: int) -> Iterator[tuple[int, int]]:
    fresh = at = _skip(text, 0)
    # From `fresh` on nothing is in a piece yet; from `at` to there is what the piece repeats.
    while fresh < len(text):
        end = _end(text, at, fresh, least, most)
        if end is None:
            at = fresh
            end = _end(text, at, fresh, least, most) or _cut(text, at + most)
        stop = end
        while text[stop - 1].isspace():
            stop -= 1
        yield at, stop
        fresh = _skip(text, end)
        at = _overlap(text, at, end, fresh, most)


def _end(text: str, at: int, fresh: int, least: int, most: int) -> int | None:
    """Where the piece that begins at `at` ends: the last good place; None where a word would be cut."""
    if len(text) - at <= most:
        return len(text)
    first, last = max(fresh + 1, at + least), at + most
    for pattern in _ENDS:
        places = [found.end() for found in pattern.finditer(text, first - 1, last)]
        if places and places[-1] >= first:
            return places[-1]
    if text[last].isspace() or text[last - 1].isspace():
        return last
    before, *cut = text[fresh:last].rsplit(None, 1)
    return last - len(cut[0]) if before and cut else None


def _cut(text: str, place: int) -> int:
    """A place inside a word that is longer than a piece, not between a letter and its accents."""
    for nearer in range(place, place - 8, -1):
        if not unicodedata.combining(text[nearer]):
            return nearer
    return place


def _overlap(text: str, start: int, end: int, fresh: int, most: int) -> int:
    """Where the next piece begins: a little before `fresh`, where a word begins."""
    room = min(OVERLAP, most // 8)
    for place in range(max(start + 1, end - room), end):
        if text[place - 1].isspace() and not text[place].isspace():
            return place
    return fresh


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
