"""`callboard config show|path|validate`: what is set, where it came from, what is wrong with it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from app.output import emit_json, say_error, write_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.parsing import Subparsers
    from services.errors import UsageError


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("config", help="show the settings and check them")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="each setting, its value and where it came from")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    actions.add_parser("path", help="the place of the settings file")
    validate = actions.add_parser("validate", help="list everything wrong with the file and the variables")
    validate.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """0, or 2 when a setting is wrong."""
    from app.paths import paths_from

    paths = paths_from(os.environ)
    if args.action == "path":
        write_line(str(paths.config_file))
        return 0
    return _show(args.json) if args.action == "show" else _validate(args.json)


def _show(as_json: bool) -> int:
    from app.paths import paths_from
    from app.settings import ROWS, explain, read_settings, rule_of, value_text, variable

    paths = paths_from(os.environ)
    loaded = read_settings(paths, os.environ)
    rows = [
        {
            "name": name,
            "value": value_text(name, getattr(loaded.settings, name)),
            "from": loaded.origins[name],
            "variable": variable(name),
            "allowed": rule_of(name).allowed,
            "help": explain(name),
        }
        for name in ROWS
    ]
    if as_json:
        emit_json(
            "config",
            {"file": str(paths.config_file), "settings": rows, "problems": _problems(loaded.problems)},
        )
        return 2 if loaded.problems else 0
    widths = [max(len(row[column]) for row in rows) for column in ("name", "value")]
    for row in rows:
        write_line(f"{row['name']:<{widths[0]}}  {row['value']:<{widths[1]}}  {row['from']}")
    write_line(f"\nfile   {paths.config_file}")
    for label, directory in (("data", paths.data_dir), ("logs", paths.log_dir), ("cache", paths.cache_dir)):
        write_line(f"{label:<5}  {directory}")
    return _report(loaded.problems)


def _validate(as_json: bool) -> int:
    from app.paths import paths_from
    from app.settings import read_settings

    paths = paths_from(os.environ)
    loaded = read_settings(paths, os.environ)
    if as_json:
        emit_json("config", {"file": str(paths.config_file), "problems": _problems(loaded.problems)})
        return 2 if loaded.problems else 0
    if not loaded.problems:
        there = "is valid" if paths.config_file.is_file() else "does not exist; the defaults are in force"
        write_line(f"The settings file {paths.config_file} {there}")
    return _report(loaded.problems)


def _report(problems: Sequence[UsageError]) -> int:
    for problem in problems:
        say_error(problem)
    return 2 if problems else 0


def _problems(problems: Sequence[UsageError]) -> list[dict[str, str]]:
    return [{"message": problem.message, "advice": problem.advice} for problem in problems]
