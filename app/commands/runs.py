"""`callboard runs [RUN]`: past sync runs, or what one of them did to each agent."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from app.commands._demo import command
from app.commands._progress import counts_text, print_outcomes
from app.commands._run import with_services
from app.commands.sync import outcome_dict
from app.output import ExitCode, emit_json, iso, print_table, say, seconds, write_line
from app.parsing import positive
from services.errors import UsageError
from services.model import SyncRunInfo
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services

SEARCHED = 1000
STYLES = {"failed": "red", "partial": "yellow", "interrupted": "yellow", "cancelled": "yellow"}
EXAMPLES = """\
examples:
  callboard runs
  callboard runs --json --limit 5
  callboard runs 4f1c                  what that run did (the id, or how it begins)
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("runs", help="list past sync runs and what each did", epilog=EXAMPLES)
    parser.add_argument("run", nargs="?", metavar="RUN", help="show what this run did")
    parser.add_argument("--limit", type=positive, default=20, metavar="N", help="at most N runs (20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    work = _one if args.run else _list
    return with_services(args, lambda services: work(services, args))


async def _list(services: Services, args: Namespace) -> int:
    runs = await services.agents.runs(limit=args.limit)
    if args.json:
        emit_json("runs", {"runs": [as_dict(info) for info in runs]})
    elif runs:
        print_table(
            ("STARTED", "RUN", "SCOPE", "STATUS", "CAUSE", "ACTOR", "TOOK", "WHAT"),
            [
                (
                    iso(info.started_at) or "",
                    info.id,
                    info.scope + (" (forced)" if info.forced else ""),
                    info.status,
                    info.cause,
                    info.actor,
                    seconds(info.ended_at - info.started_at) if info.ended_at else "",
                    info.message or counts_text(info.counts),
                )
                for info in runs
            ],
            styles=STYLES,
        )
    else:
        say(f"Nothing was ever synced: {command('sync', demo=args.demo)}")
    return ExitCode.DONE


async def _one(services: Services, args: Namespace) -> int:
    found = [info for info in await services.agents.runs(limit=SEARCHED) if info.id.startswith(args.run)]
    if len(found) != 1:
        raise UsageError(
            f"{len(found) or 'No'} sync runs have an id that begins with {clean_line(args.run)}",
            advice="callboard runs lists them",
            code="unknown_run",
        )
    rows = await services.agents.run_outcomes(found[0].id)
    if args.json:
        emit_json("run", {"run": as_dict(found[0]), "agents": [outcome_dict(row) for row in rows]})
        return ExitCode.DONE
    info = found[0]
    write_line(f"{info.id}  {clean_line(info.scope)}  {info.status}  {counts_text(info.counts)}".rstrip())
    if info.message:
        write_line(clean_line(info.message))
    if rows:
        print_outcomes(rows)
    return ExitCode.DONE


def as_dict(info: SyncRunInfo) -> dict[str, Any]:
    """The documented JSON of a stored run."""
    return {
        "run_id": info.id,
        "scope": info.scope,
        "cause": info.cause,
        "actor": info.actor,
        "forced": info.forced,
        "status": info.status.value,
        "started_at": iso(info.started_at),
        "ended_at": iso(info.ended_at),
        "counts": info.counts,
        "requests": info.requests,
        "message": info.message,
    }
