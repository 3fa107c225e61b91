"""`callboard audit`: who changed what, when and why. Rows never hold a secret."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from app.commands._run import with_services
from app.output import ExitCode, emit_json, iso, print_table, say
from app.parsing import positive

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.agents import AuditRow
    from services.container import Services

EXAMPLES = """\
examples:
  callboard audit
  callboard audit --limit 500 --json
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("audit", help="list who changed what, and when", epilog=EXAMPLES)
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="at most N entries, newest first (50)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    return with_services(args, lambda services: _list(services, args))


async def _list(services: Services, args: Namespace) -> int:
    rows = await services.agents.audit(args.limit)
    if args.json:
        emit_json("audit", {"entries": [as_dict(row) for row in rows]})
    elif rows:
        print_table(
            ("WHEN", "ACTOR", "ACTION", "SUBJECT", "DETAIL"),
            [(iso(row.at) or "", row.actor, row.action, row.subject, row.detail) for row in rows],
        )
    else:
        say("Nothing was changed yet.")
    return ExitCode.DONE


def as_dict(row: AuditRow) -> dict[str, Any]:
    """The documented JSON of an audit entry; `detail` is cause, before and after in one line."""
    return {
        "at": iso(row.at),
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "detail": row.detail,
    }
