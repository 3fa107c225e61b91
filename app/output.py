"""What commands write: data on standard output, narration on standard error, exit codes.

Light on purpose: only small parts of the standard library. Text that came from a vendor or a file
goes through `services.text` before it reaches a terminal; JSON output keeps every character, with
the ones that could disturb a terminal written as `\\uXXXX`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, TextIO

from services.errors import Category, ServiceError, UsageError, VaultLocked
from services.text import age, clean_line


class ExitCode(IntEnum):
    """What the program's exit code says; the same for every command."""

    DONE = 0
    """Everything that was asked for was done."""
    FAILED = 1
    """Nothing, or nothing useful, could be done; also a cancelled sync."""
    USAGE = 2
    """The command line or a name in it is wrong; nothing was tried."""
    PARTIAL = 3
    """Some of it failed; the rest was done."""
    BLOCKED = 4
    """A conflict, or the vendor's copy differs from what was agreed."""
    DENIED = 5
    """Not allowed or not authenticated: wrong key, missing permission, locked secret store."""


BLOCKED_CODES = frozenset({"conflict", "drift", "blocked_by_drift", "brief_refused", "not_allowed"})

# Everything `services.text.clean` removes, and lone surrogates. A carriage return is white space
# between JSON tokens and is left to the caller.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069"
    "\ufe0f\ufeff\ud800-\udfff]"
)
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def exit_code_for(error: ServiceError) -> ExitCode:
    """The exit code a service's error stands for."""
    if isinstance(error, UsageError) or error.code == "invalid_number":
        return ExitCode.USAGE
    if isinstance(error, VaultLocked) or error.category is Category.AUTHENTICATION:
        return ExitCode.DENIED
    if error.code in BLOCKED_CODES:
        return ExitCode.BLOCKED
    return ExitCode.FAILED


def exit_code_of_failures(categories: Sequence[str], succeeded: int) -> ExitCode:
    """The exit code of a command that did several things.

    `categories` are those of the failures, `succeeded` counts the rest. Nothing but authentication
    failures is 5 even where something succeeded: the operator has one thing to put right.
    """
    if not categories:
        return ExitCode.DONE
    if all(category == Category.AUTHENTICATION for category in categories):
        return ExitCode.DENIED
    return ExitCode.PARTIAL if succeeded else ExitCode.FAILED


def emit_json(kind: str, payload: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """One JSON object on standard output, its contract named first: `"schema": "callboard.<kind>/1"`.

    The shapes are in `app.schemas`, for people and programs with `callboard schema KIND`. Without an
    `indent` it is one line.
    """
    document = {"schema": f"callboard.{kind}/1", **payload}
    write_line(safe_json(json.dumps(document, ensure_ascii=not _is_utf8(sys.stdout), indent=indent)))


def emit_error_json(error: ServiceError, code: int, *, one_line: bool = False) -> None:
    """The object `--json` prints when there is no result to print; on one line among events of one each."""
    payload = {"error": {**error.as_dict(), "code": error.code}, "exit_code": int(code)}
    emit_json("error", payload, indent=None if one_line else 2)


def safe_json(text: str) -> str:
    """JSON with the same meaning and no character that could disturb a terminal."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def say(text: str) -> None:
    """A line of narration, on standard error. A closed standard error is no reason to fail."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def say_error(error: ServiceError) -> None:
    """What happened and what to do, on standard error."""
    stream = sys.stderr
    say(f"{paint('error:', 'red', stream)} {clean_line(error.message)}")
    if error.advice:
        say(f"{paint('  try:', 'cyan', stream)} {clean_line(error.advice)}")


def say_degraded(why: str, advice: str = "") -> None:
    """That a result is less than it could be, and why; nothing when all is well. On standard error."""
    if not why:
        return
    stream = sys.stderr
    say(f"{paint('degraded:', 'yellow', stream)} {clean_line(why)}")
    if advice:
        say(f"{paint('  try:', 'cyan', stream)} {clean_line(advice)}")


def write_line(text: str = "") -> None:
    """A line of data, on standard output."""
    print(text, file=sys.stdout)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at this stream; a closed one counts as nobody."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def uses_color(stream: TextIO | None, environ: Mapping[str, str] | None = None) -> bool:
    """Colours only on a terminal, never with `NO_COLOR` or a terminal that knows none."""
    environ = os.environ if environ is None else environ
    return is_terminal(stream) and not environ.get("NO_COLOR") and environ.get("TERM", "") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """The text in one of the few styles, where the stream shows colours."""
    if not style or not uses_color(sys.stdout if stream is None else stream):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def terminal_width(stream: TextIO, fallback: int = 80) -> int:
    """Columns of the terminal behind the stream."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or fallback
    except (OSError, ValueError):
        return fallback


def cell_width(text: str) -> int:
    """How many terminal cells the text takes: East Asian wide and emoji two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def shorten(text: str, width: int) -> str:
    """The text in at most `width` cells, with `…` where something was cut."""
    if cell_width(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += _cells(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[int] = (),
    styles: Mapping[str, str] | None = None,
) -> None:
    """Aligned columns on standard output; `right` are the columns aligned to the right.

    On a terminal the widest columns give way until a row fits; in a pipe nothing is cut. A cell that
    is a key of `styles` is painted so. Two spaces stand between columns and none in an empty cell's
    place: an empty cell is `-`, so that `awk` sees every column.
    """
    table = [[clean_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(cell_width(cell) for cell in column) for column in zip(headers, *table, strict=True)]
    if is_terminal(sys.stdout):
        _fit(widths, terminal_width(sys.stdout))
    write_line(paint(_row(headers, widths, right, {}), "bold"))
    for row in table:
        write_line(_row(row, widths, right, styles or {}))


def _fit(widths: list[int], total: int, least: int = 8) -> None:
    spare = total - 2 * (len(widths) - 1)
    while sum(widths) > spare:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= least:
            return
        widths[widest] -= 1


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int], styles: Mapping[str, str]) -> str:
    parts = []
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        shown = shorten(cell, width)
        padding = " " * (width - cell_width(shown))
        painted = paint(shown, styles.get(cell, ""))
        parts.append(padding + painted if index in right else painted + padding)
    return "  ".join(parts).rstrip()


def iso(at: int | None) -> str | None:
    """Epoch milliseconds as ISO 8601 in UTC with milliseconds (`2026-11-20T12:00:00.000Z`)."""
    if at is None:
        return None
    moment = datetime.fromtimestamp(at / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(at: int | None, zone: str) -> str:
    """Epoch milliseconds for people, in a zone: `2026-11-20 13:00:00 CET`; empty without a time."""
    if at is None:
        return ""
    return f"{_moment(at, zone):%Y-%m-%d %H:%M:%S %Z}"


def span(start: int, end: int, zone: str) -> str:
    """From when to when in a zone, no finer than needed: `2026-12-01 10:00 to 11:30 EST`."""
    first, last = _moment(start, zone), _moment(end, zone)
    clock = "%H:%M" if first.second == last.second == 0 else "%H:%M:%S"
    begun = f"%Y-%m-%d {clock}" + ("" if first.tzname() == last.tzname() else " %Z")
    ended = f"{clock} %Z" if first.date() == last.date() else f"%Y-%m-%d {clock} %Z"
    return f"{first:{begun}} to {last:{ended}}"


def _moment(at: int, zone: str) -> datetime:
    """In UTC where this machine does not know the zone: its name, which is shown, says so."""
    if zone not in ("", "UTC"):
        from zoneinfo import ZoneInfo

        with contextlib.suppress(KeyError, ValueError, OSError):
            return datetime.fromtimestamp(at / 1000, tz=ZoneInfo(zone))
    return datetime.fromtimestamp(at / 1000, tz=UTC)


def ago(then: int, now: int) -> str:
    """How long ago (both epoch milliseconds), in one short unit: `now`, `4 min ago`."""
    return f"{age(then, now)} ago" if now - then >= 60_000 else "now"


def plural(count: int, word: str) -> str:
    """`1 agent`, `2 agents`, `2 companies`, `2 days`."""
    if count == 1:
        return f"1 {word}"
    changes = word.endswith("y") and word[-2:-1] not in "aeiou"
    return f"{count} {word[:-1]}ies" if changes else f"{count} {word}s"


def seconds(duration_ms: int) -> str:
    """A duration for people: `0.8 s`, `2 min 5 s`."""
    if duration_ms < 60_000:
        return f"{duration_ms / 1000:.1f} s"
    minutes, rest = divmod(duration_ms // 1000, 60)
    return f"{minutes} min {rest} s"


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
