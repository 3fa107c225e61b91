"""`callboard schema [KIND]`: the JSON Schemas of everything `--json` prints."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from app.output import ExitCode, write_line
from app.schemas import SCHEMAS, SUMMARIES, document
from services.errors import UsageError

if TYPE_CHECKING:
    from app.parsing import Subparsers

DESCRIPTION = """\
Every --json prints one object whose first member, "schema", names its contract, such as
"callboard.sync/1". Members may be added to a contract; removing or changing one gives it a new number.
A command that fails prints "callboard.error/1" instead, and its exit code says the same as without --json.
"""
EXAMPLES = """\
examples:
  callboard schema                     the kinds and the commands that print them
  callboard schema sync                one JSON Schema
  callboard schema --all               all of them, as one object by kind
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of what --json prints",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    parser.add_argument("kind", nargs="?", metavar="KIND", help="print this kind's schema")
    parser.add_argument("--all", action="store_true", help="print every schema")


def run(args: Namespace) -> int:
    if args.all:
        write_line(json.dumps({kind: document(kind) for kind in SCHEMAS}, indent=2))
    elif args.kind is None:
        width = max(map(len, SCHEMAS))
        for kind in SCHEMAS:
            write_line(f"{kind:<{width}}  {SUMMARIES[kind]}")
    elif args.kind in SCHEMAS:
        write_line(json.dumps(document(args.kind), indent=2))
    else:
        raise UsageError(
            f"There is no JSON output of the kind {args.kind}",
            advice=f"The kinds are {', '.join(SCHEMAS)}",
            code="unknown_kind",
        )
    return ExitCode.DONE
