"""Reading the command line: argparse with messages that name what was meant, and readable help."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from services.errors import UsageError

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction["CommandParser"]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Text of several lines as it was written, a single line wrapped at the terminal's width.

    The width is set here because argparse alone imports shutil to ask for it.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        options.setdefault("max_help_position", 28)
        options.setdefault("width", _columns() - 2)
        super().__init__(prog, **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text.strip():
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


class CommandParser(argparse.ArgumentParser):
    """A parser that raises `UsageError` instead of ending the program, and never guesses at options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            message[:1].upper() + message[1:],
            advice=f"{self.format_usage().strip()}  (`{self.prog} --help` explains)",
            code="usage",
        )


def unknown_command(name: str, known: Sequence[str]) -> UsageError:
    """There is no such command; names the nearest."""
    what = "option" if name.startswith("-") else "command"
    near = get_close_matches(name, known, n=1)
    advice = f"Did you mean `callboard {near[0]}`?" if near else "callboard --help lists the commands"
    return UsageError(f"There is no {what} `{name}`", advice=advice, code="usage")


def unknown_words(command: str, words: Sequence[str]) -> UsageError:
    """The command was found, and these words mean nothing to it."""
    return UsageError(
        f"callboard {command} does not know {' '.join(words)}",
        advice=f"`callboard {command} --help` lists what it knows",
        code="usage",
    )


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return min(os.get_terminal_size().columns, 110) or 80
    except OSError:
        return 80


def positive(text: str) -> int:
    """A whole number from 1 on, for `type=`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
