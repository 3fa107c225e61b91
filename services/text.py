"""Text that came from elsewhere, made safe for a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls (tab and newline apart), line and paragraph separators, bidirectional
# overrides and isolates, zero-width characters, and U+FE0F, which terminals and Rich measure
# differently. Written as escapes so that the file itself stays readable.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufe0f\ufeff]"
)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """The text without characters that could move the cursor, reorder a line or break its width.

    Newlines and tabs stay. The stored wire JSON is never cleaned, only what is drawn or printed.
    """
    return _LONE_SURROGATE.sub("\ufffd", _UNSAFE.sub("", text))


def clean_line(text: str) -> str:
    """`clean`, on one line: every run of white space becomes one space."""
    return _SPACE.sub(" ", clean(text)).strip()


def age(then: int | None, now: int) -> str:
    """How long ago `then` was (both epoch milliseconds), in one short unit: `now`, `4 min`, `2 h`, `3 d`."""
    if then is None:
        return "never"
    seconds = max(0, now - then) // 1000
    if seconds < 60:
        return "now"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} d"
