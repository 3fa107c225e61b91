"""Text from elsewhere, fitted into columns so that nothing can break the alignment of a screen."""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

from services.text import clean_line

# Joiners, skin tones, variation selectors, flags' letters, keycaps: no two terminals agree on their width.
_JOINING = re.compile(
    "[\u200c\u200d\u20e3\ufe00-\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0000-\U000e0fff]"
)
# Spaces and hyphens end a word; a cut there reads better than one inside of it.
_WORD_END = re.compile(r"[\s·,;:/\-]+(?=[^\s·,;:/\-]*$)")


def display(text: str) -> str:
    """One safe line: no controls, no bidirectional overrides, no sequence of doubtful width."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    text = clean_line(_JOINING.sub("", text))
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else "\ufffd" for char in text
    )  # unassigned, private: any width


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """The text in at most `width` columns, an ellipsis for what had to go, at a word's end if one is near."""
    if width <= 0:
        return ""
    if len(text) <= width and text.isascii():
        return text
    if cell_len(text) <= width:
        return text
    room = width - cell_len(ellipsis)
    if room <= 0:
        return set_cell_size(ellipsis, width)
    short = set_cell_size(text, room)
    following = text[len(short.rstrip()) : len(short.rstrip()) + 1]
    if following and not following.isspace():
        end = _WORD_END.search(short)
        if end is not None and end.start() >= len(short) * 0.55:
            short = short[: end.start()]
    return short.rstrip(" ·,;:") + ellipsis


def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """`cut`, padded with blanks to exactly `width` columns."""
    if width <= 0:
        return ""
    text = cut(text, width, ellipsis)
    missing = width - (len(text) if text.isascii() else cell_len(text))
    return text + " " * missing if missing > 0 else text


def width_of(text: str) -> int:
    """Columns the text takes."""
    return len(text) if text.isascii() else cell_len(text)


def wrap(text: str, width: int) -> list[str]:
    """Break one line at blanks into lines of at most `width` columns; longer words are broken."""
    from rich.cells import chop_cells

    lines: list[str] = []
    current = ""
    for word in text.split():
        for piece in chop_cells(word, max(1, width)) or [word]:
            joined = f"{current} {piece}" if current else piece
            if current and cell_len(joined) > width:
                lines.append(current)
                current = piece
            else:
                current = joined
    if current:
        lines.append(current)
    return lines


def sentence(message: str, advice: str = "") -> str:
    """A cause and an advice as sentences: first letters large, full stops between."""
    parts = [_capital(part).rstrip(".") for part in (message.strip(), advice.strip()) if part]
    return ". ".join(parts)


def _capital(text: str) -> str:
    """With a large first letter, unless it begins with a name: of a file, a field, a setting."""
    first = text.split()[0].rstrip(".,:;")
    return text[0].upper() + text[1:] if re.fullmatch(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", first) else text
