"""`callboard calls`: past calls, with no network: list, show, export, delete, and who keeps what."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands._names import find_agent, require_company
from app.commands._run import with_services
from app.commands._secrets import ask, can_ask
from app.output import (
    ExitCode,
    emit_json,
    iso,
    paint,
    plural,
    print_table,
    say,
    seconds,
    write_line,
)
from services.calls.model import END_WORDS, CallRow, CallState, EndReason, TransportKind
from services.errors import UsageError
from services.text import age, clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.calls.archive import Recording
    from services.container import Services

FORMS = ("folder", "json", "text", "csv")
EXAMPLES = """\
examples:
  callboard calls list --agent "Front desk" --transport text
  callboard calls list --search opening --json      what was said is searched too
  callboard calls show 3f9a                         an id may be shortened
  callboard calls export 3f9a --form json --to call.json
  callboard calls delete 3f9a 77c1
  callboard calls delete --older-than 30            recordings of more than 30 days ago
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("calls", help="list, show, export and delete past calls", epilog=EXAMPLES)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list calls, the newest first")
    listing.add_argument(
        "--agent", metavar="AGENT", help="only this agent's: vendor id or a part of its name"
    )
    listing.add_argument("--company", metavar="NAME", help="only this company's")
    listing.add_argument("--transport", choices=[kind.value for kind in TransportKind], help="only these")
    listing.add_argument(
        "--end", choices=[reason.value for reason in EndReason], help="only calls that ended so"
    )
    listing.add_argument("--search", metavar="TEXT", default="", help="in names, numbers and what was said")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default 50)")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    show = actions.add_parser("show", help="one call with its transcript")
    show.add_argument("call", metavar="CALL", help="the id, or the beginning of it")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    export = actions.add_parser("export", help="write a call to a folder or a file")
    export.add_argument("call", metavar="CALL", help="the id, or the beginning of it")
    export.add_argument("--form", choices=FORMS, default="folder", help="what to write (default folder)")
    export.add_argument(
        "--to", metavar="PATH", type=Path, default=Path(), help="where (default: the current folder)"
    )
    remove = actions.add_parser("delete", help="delete calls with their recordings; asks first")
    remove.add_argument("calls", nargs="*", metavar="CALL", help="ids, or the beginnings of them")
    remove.add_argument("--older-than", type=int, metavar="DAYS", help="every call older than that")
    remove.add_argument("--yes", action="store_true", help="do not ask")


def run(args: Namespace) -> int:
    work = {"list": _list, "show": _show, "export": _export, "delete": _delete}[args.action]
    return with_services(args, lambda services: work(services, args))


async def _list(services: Services, args: Namespace) -> int:
    await _settle_lost(services)
    company = (await require_company(services, args.company)).name if args.company else ""
    agent = find_agent(await services.agents.cards(), args.agent).id if args.agent else None
    if args.limit < 1:
        raise UsageError("--limit is a number of 1 or more", advice="leave it out for 50")
    rows = await services.calls.rows(
        args.limit,
        text=args.search,
        transport=TransportKind(args.transport) if args.transport else None,
        reason=EndReason(args.end) if args.end else None,
        agent_row=agent,
        company=company,
    )
    if args.json:
        from services.calls.export import row_facts

        emit_json("calls", {"calls": [with_times(row_facts(row)) for row in rows]})
        return ExitCode.DONE
    if not rows:
        say(
            "No call matches."
            if (args.search or args.end or args.agent or args.transport)
            else "No call yet: callboard call AGENT"
        )
        return ExitCode.DONE
    now = services.clock.now()
    print_table(
        ("CALL", "STARTED", "AGENT", "COMPANY", "TRANSPORT", "LASTED", "TURNS", "P50", "P95", "COST", "END"),
        [
            (
                row.id[:8],
                f"{age(row.started_at, now)} ago" if now - row.started_at >= 60_000 else "now",
                row.agent_name,
                row.company,
                row.transport.value + (" (simulated)" if row.simulated else ""),
                "" if row.duration_ms is None else seconds(row.duration_ms),
                str(row.turns),
                _ms(row.p50_ms),
                _ms(row.p95_ms),
                cost_text(row),
                end_text(row),
            )
            for row in rows
        ],
        right=(5, 6, 7, 8, 9),
    )
    return ExitCode.DONE


async def _show(services: Services, args: Namespace) -> int:
    await _settle_lost(services)
    recording = await services.calls.recording(args.call)
    if args.json:
        from services.calls.export import call_document

        emit_json("call", {"call": with_times(call_document(recording))})
        return ExitCode.DONE
    _print(recording)
    return ExitCode.DONE


def _print(recording: Recording) -> None:
    from services.calls.archive import LABELS, clock_text, entry_text

    row = recording.row
    facts = [
        ("call", row.id),
        ("agent", f"{row.agent_name}, {row.company}" if row.company else row.agent_name),
        ("transport", row.transport.value + (", simulated" if row.simulated else "")),
        ("started", iso(row.started_at) or ""),
        ("lasted", "never live" if row.duration_ms is None else seconds(row.duration_ms)),
        ("end", end_text(row) + (f": {row.detail}" if row.detail else "")),
        (
            "latency",
            f"p50 {_ms(row.p50_ms)}, p95 {_ms(row.p95_ms)}" if row.p50_ms is not None else "not measured",
        ),
        ("cost", cost_text(row) or "not known"),
        ("folder", row.folder if recording.folder else "the recording's folder is gone"),
    ]
    for name, value in facts:
        write_line(f"{paint(f'{name:<10}', 'dim')}{clean_line(value)}")
    if recording.folder and not row.has_transcript:
        say("The company keeps no transcript.")
    write_line()
    for entry in recording.fold().entries:
        write_line(f"{clock_text(entry.t)}  {LABELS[entry.who]:<5}  {clean_line(entry_text(entry))}")


async def _export(services: Services, args: Namespace) -> int:
    row = await services.calls.row(args.call)
    written = await services.calls.export(row.id, args.to, form=args.form)
    write_line(str(written))
    return ExitCode.DONE


async def _delete(services: Services, args: Namespace) -> int:
    if bool(args.calls) == (args.older_than is not None):
        raise UsageError(
            "Which calls are to be deleted is not clear",
            advice="Give their ids, or --older-than DAYS",
            code="nothing_to_delete",
        )
    if args.calls:
        rows = [await services.calls.row(call) for call in args.calls]
    else:
        if args.older_than < 0:
            raise UsageError("--older-than is a number of days", advice="such as --older-than 30")
        before = services.clock.now() - args.older_than * 86_400_000
        rows = [row for row in await services.calls.rows(1_000_000) if row.started_at < before]
    rows = [row for row in rows if row.state is CallState.ENDED]
    if not rows:
        say("No finished call is that old.")
        return ExitCode.DONE
    if not args.yes:
        if not can_ask():
            raise UsageError(
                f"Deleting {plural(len(rows), 'call')} cannot be undone and nobody is there to ask",
                advice="Add --yes",
                code="not_confirmed",
            )
        say(f"This deletes {plural(len(rows), 'call')} with their recordings; it cannot be undone.")
        if ask("Type yes to delete: ").lower() != "yes":
            say("Nothing was deleted.")
            return ExitCode.FAILED
    deleted = await services.calls.delete([row.id for row in rows])
    say(f"Deleted {plural(deleted, 'call')}.")
    return ExitCode.DONE


async def _settle_lost(services: Services) -> None:
    """A call whose program was killed reads as what it is."""
    from services.errors import ServiceError

    try:
        await services.calls.recover()
    except ServiceError as error:
        say(f"note: {error.message}")  # a database that cannot be written can still be read


def with_times(facts: dict[str, Any]) -> dict[str, Any]:
    """A call's facts with its times as `--json` writes them."""
    return {**facts, **{name: iso(facts[name]) for name in ("started_at", "live_at", "ended_at")}}


def end_text(row: CallRow) -> str:
    """How it ended, or where it stands, in words."""
    return END_WORDS[row.reason] if row.reason is not None else row.state.value


def cost_text(row: CallRow) -> str:
    """The cost with its currency; empty where it is not known."""
    return "" if row.cost is None else f"{row.cost:.2f} {row.currency}".strip()


def _ms(value: int | None) -> str:
    return "" if value is None else f"{value:,} ms"
