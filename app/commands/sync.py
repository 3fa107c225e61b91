"""`callboard sync`: bring the mirror up to date with the vendors, and say what happened to each agent.

Ctrl-C (or SIGTERM) once: no new read begins, what is being written is finished, the report is printed,
exit code 1, and `--resume` goes on from there. Twice: the process ends at once; every agent is then
either old or new.
"""

from __future__ import annotations

import getpass
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from app.commands._names import require_company
from app.commands._progress import SyncView, counts_text, may_redraw, print_outcomes
from app.commands._run import on_first_signal, with_services
from app.commands._secrets import unlocked
from app.output import (
    ExitCode,
    emit_json,
    exit_code_of_failures,
    is_terminal,
    plural,
    say,
    say_error,
    seconds,
    write_line,
)
from services.errors import Category, ServiceError, UsageError
from services.model import Outcome, OutcomeRow, RunStatus, SyncReport
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services

LAST = "last"
RESUMABLE = (RunStatus.CANCELLED, RunStatus.INTERRUPTED)
NAMES_SHOWN = 5
DESCRIPTION = """\
Read from the vendors what is new, changed or not checked for an hour, and write it to the mirror.
Nothing is ever written to a vendor. One agent's failure does not stop the others.
"""
EXAMPLES = """\
examples:
  callboard sync                               every company
  callboard sync --company acme --force        read everything again, whatever the lists say
  callboard sync --agent "Front desk" --json
  callboard sync --dry-run -v                  what would happen, agent by agent
  callboard sync --resume                      go on with the run that was stopped

exit codes: 0 all done, 3 some failed, 1 all failed or cancelled, 2 unknown company or agent,
5 when every failure is a wrong key or a missing permission
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "sync",
        help="bring the mirror up to date with the vendors",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--all", action="store_true", help="every company (the default)")
    scope.add_argument("--company", metavar="NAME", help="only this company")
    parser.add_argument("--agent", metavar="AGENT", help="only this agent: vendor id, name or part of it")
    parser.add_argument("--force", action="store_true", help="read every agent, changed or not")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, write nothing")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=LAST,
        metavar="RUN",
        help="go on with a stopped run: the last one, or this id",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="unchanged agents, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    if args.resume and (args.company or args.agent):
        raise UsageError(
            "A resumed run keeps its own agents",
            advice="Leave --company and --agent out, or start a new run without --resume",
            code="usage",
        )
    return with_services(args, lambda services: _sync(services, args), vendors=True)


async def _sync(services: Services, args: Namespace) -> int:
    connections = await _connections_in_scope(services, args)
    from services.agents import SyncRequest

    request = SyncRequest(
        company=(await require_company(services, args.company)).name if args.company else None,
        agent=args.agent,
        force=args.force,
        dry_run=args.dry_run,
        actor=_actor(),
        resume=args.resume,
    )
    await unlocked(services)
    on_terminal = is_terminal(sys.stdout)
    view = SyncView(
        services.bus,
        progress=may_redraw(os.environ),
        lines=not args.json and not on_terminal,
        verbose=args.verbose,
    )
    async with view.shown():
        with _cancelling(services.sync.cancel, view):
            report = await services.sync.run(request)
    if view.reader_gone:
        raise BrokenPipeError
    if args.json:
        emit_json("sync", as_dict(report))
    else:
        if on_terminal:
            _print_outcomes(report, verbose=args.verbose)
        write_line(summary(report))
        _say_errors(report)
        if report.status in RESUMABLE:
            say("Stopped before the end; `callboard sync --resume` goes on with the rest.")
    return exit_code(report, connections)


async def _connections_in_scope(services: Services, args: Namespace) -> int:
    """How many connections the run is about; raises `UsageError` where there is nothing to sync."""
    company = (await require_company(services, args.company)).name if args.company else None
    if company is None and not await services.companies.list():
        raise UsageError(
            "There is no company to sync yet",
            advice="Add one: callboard company add NAME, then callboard connection add NAME retell; "
            "or try the demo company: callboard sync --demo",
            code="no_company",
        )
    connections = await services.companies.connections(company)
    if not connections:
        whose = clean_line(company) if company else "NAME"
        raise UsageError(
            f"{whose} has no connection yet" if company else "No company has a connection yet",
            advice=f"Add a vendor's key: callboard connection add {whose} retell (or elevenlabs)",
            code="no_connection",
        )
    return len(connections)


def _cancelling(cancel: Callable[[], bool], view: SyncView) -> AbstractContextManager[None]:
    """The first SIGINT or SIGTERM cancels the run, the second one ends the process by that signal."""

    def stop(number: signal.Signals) -> None:
        view.note = "stopping"
        say("\nStopping: what is being written is finished first. Once more ends it at once.")
        if not cancel():
            signal.raise_signal(number)

    return on_first_signal(stop, "SIGINT", "SIGTERM")


def exit_code(report: SyncReport, connections: int) -> ExitCode:
    """The documented exit code of a run over this many connections."""
    if report.status in (RunStatus.CANCELLED, RunStatus.INTERRUPTED):
        return ExitCode.FAILED
    failed = [row for row in report.outcomes if row.outcome is Outcome.FAILED]
    categories = [row.error.category if row.error else "" for row in (*failed, *report.errors)]
    if report.outcomes:
        succeeded = sum(row.outcome not in (Outcome.FAILED, Outcome.CANCELLED) for row in report.outcomes)
    else:
        succeeded = connections - len(report.errors)
    if not categories and report.status is RunStatus.FAILED:
        return ExitCode.FAILED
    return exit_code_of_failures(categories, succeeded)


def summary(report: SyncReport) -> str:
    """`17 agents: 12 unchanged, 4 updated, 1 failed · 23 requests · 0.8 s`."""
    counts = counts_text(report.counts())
    parts = [plural(len(report.outcomes), "agent") + (f": {counts}" if counts else "")]
    if report.errors:
        parts.append(f"{plural(len(report.errors), 'connection')} could not be listed")
    parts += [plural(report.requests, "request"), seconds(report.duration_ms)]
    if report.dry_run:
        parts.append("dry run, nothing was written")
    return " · ".join(parts)


def _print_outcomes(report: SyncReport, *, verbose: bool) -> None:
    rows = [row for row in report.outcomes if verbose or row.outcome is not Outcome.UNCHANGED]
    if rows:
        print_outcomes(sorted(rows, key=lambda row: (row.outcome is Outcome.FAILED, row.company, row.name)))


def _say_errors(report: SyncReport) -> None:
    """Each cause once, with its advice and whom it struck."""
    struck: dict[tuple[str, str, str], list[OutcomeRow]] = {}
    for row in (*report.errors, *report.outcomes):
        if row.error:
            cause = (row.error.category, row.error.message, row.error.advice)
            struck.setdefault(cause, []).append(row)
    for (category, message, advice), rows in struck.items():
        names = [clean_line(row.name or f"{row.company} · {row.provider}") for row in rows]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        who = ", ".join(names[:NAMES_SHOWN]) + more
        say_error(ServiceError(f"{who}: {message}", category=Category(category), advice=advice))


def as_dict(report: SyncReport) -> dict[str, Any]:
    """The documented JSON of a sync."""
    return {
        "run_id": report.run_id,
        "status": report.status.value,
        "agents": [outcome_dict(row) for row in report.outcomes],
        "counts": report.counts(),
        "requests": report.requests,
        "duration_ms": report.duration_ms,
        "dry_run": report.dry_run,
        "connections_failed": [
            {
                "company": row.company,
                "provider": row.provider.value,
                "error": row.error.as_dict() if row.error else None,
            }
            for row in report.errors
        ],
    }


def outcome_dict(row: OutcomeRow) -> dict[str, Any]:
    """The documented JSON of one agent's outcome."""
    return {
        "company": row.company,
        "provider": row.provider.value,
        "agent_id": row.agent_id,
        "name": row.name,
        "outcome": row.outcome.value,
        "error": row.error.as_dict() if row.error else None,
    }


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
