"""`callboard company add|list|keep|remove`: the tenants."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from app.commands._names import require_company
from app.commands._run import with_services
from app.commands._secrets import confirm_removal, unlocked
from app.output import ExitCode, emit_json, iso, plural, print_table, say, write_line
from services.errors import UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services
    from services.model import CompanyInfo

EXAMPLES = """\
examples:
  callboard company add acme
  callboard company list --json
  callboard company keep acme --audio off          recordings of its calls keep no audio
  callboard company remove acme --yes
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("company", help="add, list and remove companies", epilog=EXAMPLES)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a company", description="Add a company. Its keys come next.")
    add.add_argument("name", metavar="NAME", help="the company's name, as it will be shown")
    listing = actions.add_parser("list", help="list the companies")
    keep = actions.add_parser(
        "keep",
        help="decide what recordings of its calls keep",
        description="Decide what recordings of the company's calls keep from now on. What was recorded "
        "before stays until it is deleted: callboard calls delete.",
    )
    keep.add_argument("name", metavar="NAME")
    keep.add_argument("--audio", choices=("on", "off"), help="both audio tracks")
    keep.add_argument("--transcript", choices=("on", "off"), help="what was said, the brief and tool calls")
    remove = actions.add_parser(
        "remove",
        help="remove a company",
        description="Remove a company with its connections, their stored keys, and the mirror of its agents; "
        "with its integrations and their secrets, what was sent, booked and written by them, its maintenance "
        "windows and the rules of its checks. Nothing changes at the vendors; the audit log keeps its lines. "
        "Asks for the name on a terminal.",
    )
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    for action in (add, listing, keep, remove):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    actions = {"add": _add, "list": _list, "keep": _keep, "remove": _remove}
    return with_services(args, lambda services: actions[args.action](services, args), vendors=True)


async def _add(services: Services, args: Namespace) -> int:
    company = await services.companies.add(args.name)
    if args.json:
        emit_json("company", {"company": as_dict(company)})
        return ExitCode.DONE
    name = clean_line(company.name)
    write_line(f"Added company {name}.")
    say(f"Next, a key: callboard connection add {_quoted(name)} retell    (or elevenlabs)")
    return ExitCode.DONE


async def _list(services: Services, args: Namespace) -> int:
    companies = await services.companies.list()
    if args.json:
        emit_json("companies", {"companies": [as_dict(company) for company in companies]})
    elif companies:
        print_table(
            ("COMPANY", "CONNECTIONS", "AGENTS", "ADDED"),
            [
                (item.name, str(item.connections), str(item.agents), iso(item.created_at) or "")
                for item in companies
            ],
            right=(1, 2),
        )
    else:
        say("There is no company yet: callboard company add NAME    (or look around first: callboard --demo)")
    return ExitCode.DONE


async def _keep(services: Services, args: Namespace) -> int:
    if args.audio is None and args.transcript is None:
        raise UsageError("What is to be kept is not said", advice="Add --audio off, or --transcript off")
    company = await require_company(services, args.name)
    company = await services.companies.keep(
        company.name,
        audio=None if args.audio is None else args.audio == "on",
        transcript=None if args.transcript is None else args.transcript == "on",
    )
    if args.json:
        emit_json("company", {"company": as_dict(company)})
    else:
        kept = [
            word
            for word, on in (("audio", company.keep_audio), ("transcripts", company.keep_transcript))
            if on
        ]
        write_line(
            f"{clean_line(company.name)} keeps {' and '.join(kept) or 'neither audio nor transcripts'}."
        )
    return ExitCode.DONE


async def _remove(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.name)
    what = (
        f"the company {clean_line(company.name)} with {plural(company.connections, 'connection')} and their "
        f"keys, and the mirror and history of {plural(company.agents, 'agent')}; its integrations, messages, "
        "bookings, documents and maintenance windows as well"
    )
    if not confirm_removal(what, company.name, yes=args.yes):
        return ExitCode.FAILED
    if company.connections:
        await unlocked(services)
    await services.companies.remove(company.name)
    if args.json:
        emit_json("company", {"company": as_dict(company)})
    else:
        write_line(f"Removed company {clean_line(company.name)}.")
    return ExitCode.DONE


def as_dict(company: CompanyInfo) -> dict[str, Any]:
    """The documented JSON of a company."""
    return {
        "name": company.name,
        "created_at": iso(company.created_at),
        "connections": company.connections,
        "agents": company.agents,
        "keep_audio": company.keep_audio,
        "keep_transcript": company.keep_transcript,
    }


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)
