"""A long text to read and search: drawn line by line, wrapped by numbers, never held as widgets.

Laying out and searching run in a thread: an agent may carry 10 MB of prompt.
"""

from __future__ import annotations

import asyncio
import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.glyphs import Glyphs, Tone
from services.text import clean

INDENT = "  "
_SECRET = re.compile(
    r"authorization|api[-_]?key|token|secret|passw|passphrase|private[-_]?key|credential|cookie|bearer"
    r"|signature|(^|[-_])(auth|pin|key)$",
    re.I,
)
_ESCAPE = re.compile(r"\\(.)")
CHUNK = 65_536
_KEY = re.compile(r'\s*("(?:[^"\\]|\\.)*")(: )')


def is_secret_name(name: str) -> bool:
    """Whether text under a key of this name is hidden."""
    return bool(_SECRET.search(name))


def masked(value: Any, sign: str = "•", secret: bool = False) -> Any:
    """The parsed JSON, all text under secret-looking keys hidden at any depth; numbers (`max_tokens`) stay.

    Headers as lists of pairs are known too: there the secret stands under `value`, its name under `name`
    or `key`.
    """
    if isinstance(value, str):
        return sign * 8 if secret and value else value
    if isinstance(value, list):
        return [masked(each, sign, secret) for each in value]
    if isinstance(value, dict):
        named = value.get("name") or value.get("key")
        pair = "value" in value and isinstance(named, str) and is_secret_name(named)
        return {
            key: masked(each, sign, secret or (key == "value" if pair else is_secret_name(str(key))))
            for key, each in value.items()
        }
    return value


def pretty(text: str, sign: str = "•") -> list[str]:
    """Wire JSON as lines to read, secrets hidden; a text that is not JSON as it stands.

    Strings of several lines are broken where they break, each piece indented below its key.
    """
    try:
        data = json.loads(text)
    except ValueError:
        return [clean(line) for line in text.splitlines()]
    lines: list[str] = []
    for line in json.dumps(masked(data, sign), indent=2, ensure_ascii=False).split("\n"):
        if "\\n" not in line:
            lines.append(_clean(line))
            continue
        first, *rest = _at_breaks(line)
        margin = " " * (len(line) - len(line.lstrip())) + INDENT
        lines.append(first)
        lines.extend(margin + piece for piece in rest)
    return lines


def _at_breaks(line: str) -> list[str]:
    r"""Split a line of JSON behind every \n escape, leaving alone an escaped backslash before an n."""
    pieces: list[str] = []
    start = 0
    for escape in _ESCAPE.finditer(line):
        if escape.group(1) == "n":
            pieces.append(_clean(line[start : escape.end()]))
            start = escape.end()
    pieces.append(_clean(line[start:]))
    return [piece for piece in pieces if piece]


def _clean(text: str) -> str:
    """`clean` by chunks: one call on 10 MB would hold every other thread up."""
    if len(text) <= CHUNK:
        return clean(text)
    return "".join(clean(text[at : at + CHUNK]) for at in range(0, len(text), CHUNK))


@dataclass(frozen=True, slots=True)
class Laid:
    """Lines broken into rows of a width. `starts[n]` is the first row of line n."""

    lines: list[str]
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    """line, from, to"""
    starts: list[int] = field(default_factory=list)


def lay_out(lines: list[str], width: int) -> Laid:
    """Break every line into rows of at most `width` columns, at blanks where there are some."""
    laid = Laid(lines)
    for number, line in enumerate(lines):
        laid.starts.append(len(laid.rows))
        if len(line) <= width and line.isascii():
            laid.rows.append((number, 0, len(line)))
            continue
        _break(laid, number, line, width)
    return laid


def _break(laid: Laid, number: int, line: str, width: int) -> None:
    ascii_only, at, end = line.isascii(), 0, len(line)
    while at < end:
        stop = min(end, at + width)
        if not ascii_only:
            while stop > at + 1 and cell_len(line[at:stop]) > width:
                stop -= max(1, (cell_len(line[at:stop]) - width) // 2)
        if stop < end:
            blank = line.rfind(" ", at + width // 2, stop)
            stop = blank + 1 if blank > 0 else stop
        laid.rows.append((number, at, stop))
        at = stop
    if not end:
        laid.rows.append((number, 0, 0))


def find(lines: list[str], needle: str) -> list[tuple[int, int]]:
    """Every place of the text, regardless of case: line and column."""
    wanted = needle.lower()
    if not wanted:
        return []
    found: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        lowered = line.lower()
        if len(lowered) != len(line):  # a letter that grows would shift the columns
            lowered = line
        at = lowered.find(wanted)
        while at >= 0:
            found.append((number, at))
            at = lowered.find(wanted, at + len(wanted))
    return found


class Document(ScrollView, can_focus=False):
    """Shows lines, searches them, scrolls. Keys are the owner's business."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Document { overflow-x: hidden; overflow-y: scroll; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"doc--{tone.value}" for tone in Tone),
        "doc--key",
        "doc--found",
        "doc--here",
    }

    def __init__(self, glyphs: Glyphs, *, ident: str | None = None) -> None:
        super().__init__(id=ident)
        self._glyphs = glyphs
        self._laid = Laid([])
        self._width = 0
        self._turn = 0
        self._found: list[tuple[int, int]] = []
        self._needle = ""
        self._here = -1
        self.note = ""
        self.label_width = 0
        """Columns at the left that are labels, drawn in grey."""

    @property
    def found(self) -> int:
        """How many places the last search found."""
        return len(self._found)

    @property
    def here(self) -> int:
        """Which of them is shown, counted from 1; 0 for none."""
        return self._here + 1

    async def set_lines(self, lines: list[str], note: str = "") -> None:
        """Show other lines, from their top. `note` stands there when there are none."""
        self.note = note
        self._found, self._needle, self._here = [], "", -1
        await self._lay_out(lines)
        self.scroll_to(y=0, animate=False)

    async def _lay_out(self, lines: list[str]) -> None:
        self._turn += 1
        turn, width = self._turn, max(10, self.scrollable_content_region.width - 2)
        large = len(lines) > 200 or any(len(line) > 4000 for line in lines)
        laid = await asyncio.to_thread(lay_out, lines, width) if large else lay_out(lines, width)
        if turn == self._turn:  # else a later layout is under way
            self._laid, self._width = laid, width
            self.virtual_size = Size(self.scrollable_content_region.width, len(laid.rows))
            self.refresh()

    async def on_resize(self, event: events.Resize) -> None:
        if max(10, self.scrollable_content_region.width - 2) != self._width and self._laid.lines:
            await self._lay_out(self._laid.lines)

    async def search(self, needle: str) -> int:
        """Find a text and go to its first place from what is shown on; returns how many places there are."""
        self._needle = needle
        lines = self._laid.lines
        self._found = await asyncio.to_thread(find, lines, needle)
        top = self._laid.rows[self.scroll_offset.y][0] if self._laid.rows else 0
        self._here = (
            next((n for n, (line, _) in enumerate(self._found) if line >= top), 0) if self._found else -1
        )
        self._show_found()
        return len(self._found)

    def step(self, by: int) -> None:
        """To the next place found, or the one before; round at the ends."""
        if self._found:
            self._here = (self._here + by) % len(self._found)
            self._show_found()

    def _show_found(self) -> None:
        if 0 <= self._here < len(self._found):
            row = self._row_of(*self._found[self._here])
            height = self.scrollable_content_region.height
            if not self.scroll_offset.y <= row < self.scroll_offset.y + height:
                self.scroll_to(y=max(0, row - height // 3), animate=False)
        self.refresh()

    def _row_of(self, line: int, column: int) -> int:
        row = self._laid.starts[line]
        while (
            row + 1 < len(self._laid.rows)
            and self._laid.rows[row + 1][0] == line
            and self._laid.rows[row + 1][1] <= column
        ):
            row += 1
        return row

    def render_line(self, y: int) -> Strip:
        width, blank = self.scrollable_content_region.width, self.rich_style
        number = y + self.scroll_offset.y
        rows = self._laid.rows
        if not rows and y == 1 and self.note:
            note = Segment(f" {self.note}", self.get_component_rich_style("doc--muted"))
            return Strip([note]).adjust_cell_length(width, blank)
        if number >= len(rows):
            return Strip.blank(width, blank)
        line, start, stop = rows[number]
        text = self._laid.lines[line][start:stop].replace("\t", " ")
        segments = [Segment(" ", blank), *self._coloured(text, start)]
        strip = Strip(segments)
        for column, end, here in self._marks(line, start, stop):
            style = self.get_component_rich_style("doc--here" if here else "doc--found")
            left = 1 + cell_len(text[: column - start])
            right = left + cell_len(text[column - start : end - start])
            before, middle, after = strip.crop(0, left), strip.crop(left, right), strip.crop(right)
            strip = Strip.join([before, middle.apply_style(style), after])
        return strip.adjust_cell_length(width, blank)

    def _coloured(self, text: str, start: int) -> list[Segment]:
        plain = self.get_component_rich_style("doc--plain")
        key = _KEY.match(text) if start == 0 else None
        if self.label_width and start == 0:
            label = Segment(text[: self.label_width], self.get_component_rich_style("doc--muted"))
            return [label, Segment(text[self.label_width :], plain)]
        if key is None:
            title = start == 0 and text.startswith("# ")
            return [Segment(text, self.get_component_rich_style("doc--accent") if title else plain)]
        return [
            Segment(text[: key.end(1)], self.get_component_rich_style("doc--key")),
            Segment(text[key.end(1) :], plain),
        ]

    def _marks(self, line: int, start: int, stop: int) -> list[tuple[int, int, bool]]:
        """What a search found within one row: from, to, and whether it is the current one."""
        if not self._found:
            return []
        first = bisect_right(self._found, (line, -1))
        marks: list[tuple[int, int, bool]] = []
        for number in range(first, len(self._found)):
            found, column = self._found[number]
            if found != line or column >= stop:
                break
            end = column + len(self._needle)
            if end > start:
                marks.append((max(start, column), min(stop, end), number == self._here))
        return marks
