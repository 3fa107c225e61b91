"""A line of a transcript as it is drawn: who, which words in which look, what stands at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from screens.glyphs import Glyphs, Tone
from screens.textfit import cut, display
from services.calls.live import Entry, Who

Span = tuple[str, Tone | str]
MOST = 4_000
"""Characters of one line that are drawn; copying takes all of them."""
MOST_VALUE = 160
MOST_RESULT = 600
LOOK_MS = 1_000
"""From this latency on (milliseconds) people notice the wait."""


@dataclass(frozen=True, slots=True)
class Face:
    """What is drawn of an entry. `spans` follow each other without a gap."""

    label: str
    label_tone: Tone | str
    spans: tuple[Span, ...]
    right: str = ""
    right_tone: Tone = Tone.MUTED

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.spans)


def face_of(entry: Entry, glyphs: Glyphs) -> Face:
    """How an entry looks now."""
    match entry.who:
        case Who.AGENT:
            return _spoken(entry, "agent", Tone.ACCENT, glyphs)
        case Who.USER:
            return _spoken(entry, "you", "strong", glyphs)
        case Who.TOOL:
            return _tool(entry, glyphs)
        case Who.CONTEXT:
            phase = f"{display(entry.where)}: " if entry.where else ""
            return Face("told", Tone.MUTED, ((f"{phase}{_short(entry.text, MOST)}", Tone.MUTED),))
        case Who.MARK:
            return Face("mark", Tone.LOOK, ((_short(entry.text, MOST) or "marked", Tone.LOOK),))
        case Who.NOTICE:
            return _notice(entry, glyphs)


def _spoken(entry: Entry, label: str, tone: Tone | str, glyphs: Glyphs) -> Face:
    right = f"{entry.latency_ms:,} ms" if entry.latency_ms is not None else ""
    slow = entry.latency_ms is not None and entry.latency_ms >= LOOK_MS
    return Face(label, tone, _words(entry, glyphs), right, Tone.LOOK if slow else Tone.MUTED)


def _words(entry: Entry, glyphs: Glyphs) -> tuple[Span, ...]:
    text = _short(entry.text, MOST)
    if not entry.final:
        # The sign says "not final" where there are no colours.
        return ((text.rstrip(".… ") + glyphs.ellipsis, Tone.MUTED),)
    if not entry.cut:
        return ((text, Tone.PLAIN), *((("  typed", Tone.MUTED),) if entry.typed else ()))
    known = entry.words_spoken
    if known is None:
        return ((text, Tone.PLAIN), ("  cut off", Tone.LOOK))
    said, lost = _parted(text, known[0])
    spans: list[Span] = [(said, Tone.PLAIN)] if said else []
    if said and lost:
        spans.append((" ", Tone.PLAIN))
    if lost:
        spans.append((lost, "cut"))
    return (*spans, (f"  cut off, {min(known)} of {known[1]}", Tone.LOOK))


def _parted(text: str, words: int) -> tuple[str, str]:
    """The first so many words, and the rest."""
    pieces = text.split(" ")
    return " ".join(pieces[:words]), " ".join(pieces[words:])


def _tool(entry: Entry, glyphs: Glyphs) -> Face:
    spans: list[Span] = [
        (display(entry.text), Tone.PLAIN),
        (f"({arguments_text(entry.arguments)})", Tone.MUTED),
    ]
    right = f"{entry.took_ms:,} ms" if entry.took_ms is not None and entry.final else ""
    if entry.approval == "wanted" and not entry.final:
        spans.append(("  waits for your yes", Tone.LOOK))
    elif entry.approval == "refused":
        spans.append(("  you denied it", Tone.LOOK))
    elif not entry.final:
        right = "runs"
    elif entry.ok is None:
        spans.append((f" {glyphs.arrow} no answer", Tone.LOOK))
    else:
        result = _short(entry.result or "", MOST_RESULT) or ("done" if entry.ok else "failed")
        spans += [(f" {glyphs.arrow} ", Tone.MUTED), (result, Tone.PLAIN if entry.ok else Tone.ACT)]
    running = not entry.final and not entry.approval
    return Face(glyphs.function, Tone.MOVING, tuple(spans), right, Tone.MOVING if running else Tone.MUTED)


def _notice(entry: Entry, glyphs: Glyphs) -> Face:
    tone = {"act": Tone.ACT, "look": Tone.LOOK}.get(entry.level, Tone.MUTED)
    spans: list[Span] = [(_short(entry.text, MOST), tone)]
    if entry.advice:
        spans.append((f"  {glyphs.arrow} {_short(entry.advice, MOST)}", Tone.PLAIN))
    return Face("note", tone, tuple(spans))


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """A tool's arguments on one line: `day=thu, people=2`."""
    parts = (f"{display(str(key))}={_value(value)}" for key, value in arguments.items())
    return _short(", ".join(parts), MOST_RESULT)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return _short(text, MOST_VALUE)


def _short(text: str, most: int) -> str:
    shown = display(text[: most + 1])
    return cut(shown, most) if len(text) > most else shown


def rows_of(text: str, width: int) -> tuple[tuple[int, int], ...]:
    """Break a line at blanks into rows of at most `width` columns: from, to. A blank at a break is left
    out."""
    end = len(text)
    # Below U+0300 every printable letter is one column wide.
    narrow = text.isascii() or max(text) < "\u0300"
    if narrow and end <= width:
        return ((0, end),)
    rows: list[tuple[int, int]] = []
    at = 0
    while at < end:
        stop = min(end, at + width)
        if not narrow:
            while stop > at + 1 and (over := cell_len(text[at:stop]) - width) > 0:
                stop -= max(1, over // 2)
        blank = text.rfind(" ", at + width // 3, stop + 1) if stop < end else -1
        if blank > at:
            rows.append((at, blank))
            at = blank + 1
        else:
            rows.append((at, stop))
            at = stop
    return tuple(rows) or ((0, 0),)


def clock_text(ms: int) -> str:
    """A moment in a call: `02:14`, `1:02:14`."""
    seconds = max(0, ms) // 1000
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}"
