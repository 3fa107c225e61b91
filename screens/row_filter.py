"""A filter over the rows of any table: words looked for everywhere, `column:value` for one column."""

from __future__ import annotations

from collections.abc import Sequence

from screens.widgets.table import Column, Row
from services.errors import UsageError

Wanted = tuple[int | None, str]
"""Where it is looked for, a column's place or everywhere, and what."""


def parse_row_filter(typed: str, columns: Sequence[Column]) -> list[Wanted]:
    """Read a filter. Raises UsageError (code `bad_filter`) for a column that is not there."""
    titles = [column.title for column in columns]
    wanted: list[Wanted] = []
    for word in typed.casefold().split():
        name, colon, value = word.partition(":")
        if not colon or not name.isalpha():
            wanted.append((None, word))
        elif name in titles:
            wanted.append((titles.index(name), value))
        else:
            allowed = ", ".join(f"{title}:" for title in titles)
            raise UsageError(f"There is no column {name}", advice=f"Allowed are {allowed}", code="bad_filter")
    return wanted


def fits(row: Row, wanted: Sequence[Wanted]) -> bool:
    """Whether the row has all that is wanted, in columns that have no room, too."""
    texts = [text.casefold() for text, _ in row.cells]
    return all(
        word in texts[place] if place is not None else any(word in text for text in texts)
        for place, word in wanted
    )
