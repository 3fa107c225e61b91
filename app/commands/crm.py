"""`callboard crm contact|deal|note|search|list|settle`: contacts, deals and notes of a company's CRM."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from app.commands._integrating import actor, company_ready, keys_ready, ordering, pairs
from app.commands._names import require_company
from app.commands._run import with_services
from app.output import ExitCode, ago, emit_json, iso, paint, print_table, say, say_degraded, write_line
from app.parsing import positive
from services.errors import UsageError
from services.integrations.crm.model import (
    Change,
    ContactData,
    CrmRecord,
    DealData,
    NoteData,
    RecordKind,
    Written,
)
from services.integrations.model import EffectState, Kind
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services

EXAMPLES = """\
examples:
  callboard crm contact acme --email ann@example.com --first-name Ann --last-name Smith
  callboard crm contact acme --update ann@example.com --phone +493012345678
  callboard crm deal acme --name "Renewal 2027" --amount 1250.00 --contact ann@example.com
  callboard crm note acme --contact ann@example.com --body "Called about the renewal"
  callboard crm search acme contact smith --json
  callboard crm search acme deal --where stage=closedwon
  callboard crm list acme --state unknown
  callboard crm settle 3f9a                           asks the CRM; else you decide:
  callboard crm settle 3f9a --done 10451              or --not-done
"""
HELP = """\
Writes to the company's CRM (HubSpot, or any service behind CRM_API_URL); without one it is simulated, and
says so. It is written at most once: with the same --key again the first one is shown.
"""
SETTLE_HELP = """\
A change whose answer was lost is `unknown`: it was perhaps written and is never written again by itself.
Without --done or --not-done the CRM is asked for it, by e-mail address, name or time, and the change stays
unknown where the CRM cannot tell. Your own word is taken as it is. Both go into the audit log.
"""
_STYLES = {"done": "green", "failed": "red", "unknown": "yellow"}
_COLUMNS = {
    RecordKind.CONTACT: ("email", "first_name", "last_name", "phone", "company"),
    RecordKind.DEAL: ("name", "amount", "stage", "closes_at"),
    RecordKind.NOTE: ("at", "body"),
}


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "crm", help="contacts, deals and notes of a company's CRM", epilog=EXAMPLES
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    contact = _action(actions, "contact", "create a contact, or change one", HELP)
    contact.add_argument("--update", metavar="CONTACT", default="", help="change this one: its id or e-mail")
    contact.add_argument("--email", default="")
    contact.add_argument("--first-name", default="")
    contact.add_argument("--last-name", default="")
    contact.add_argument("--phone", default="")
    contact.add_argument("--company-name", metavar="NAME", default="", help="where the contact works")
    deal = _action(actions, "deal", "create a deal", HELP)
    deal.add_argument("--name", required=True)
    deal.add_argument("--amount", metavar="NUMBER", default="", help="such as 1250.00")
    deal.add_argument("--stage", default="", help="by the CRM's own name of it")
    deal.add_argument("--pipeline", default="", help="by the CRM's own name of it")
    deal.add_argument("--closes", metavar="DATE", default="", help="when it is expected, such as 2027-03-01")
    deal.add_argument("--contact", default="", help="whose it is: an id or an e-mail address")
    note = _action(actions, "note", "write a note on a contact or a deal", HELP)
    note.add_argument("--body", metavar="TEXT", required=True)
    note.add_argument("--contact", default="", help="an id or an e-mail address")
    note.add_argument("--deal", metavar="ID", default="")
    for action in (contact, deal, note):
        action.add_argument(
            "--set", metavar="NAME=VALUE", action="append", default=[], help="a field by the CRM's own name"
        )
        action.add_argument("--key", metavar="KEY", default="", help="your own key: one record for each")
    search = _action(actions, "search", "find records")
    search.add_argument("kind", metavar="KIND", choices=[kind.value for kind in RecordKind])
    search.add_argument("words", metavar="WORD", nargs="*", help="what they hold")
    search.add_argument(
        "--where", metavar="FIELD=VALUE", action="append", default=[], help="what a field equals"
    )
    search.add_argument(
        "--limit", metavar="N", type=positive, default=20, help="at most so many (default 20)"
    )
    search.add_argument("--after", metavar="PAGE", default="", help="the next page, as the last one said")
    listing = actions.add_parser("list", help="list what was written here, the newest first")
    listing.add_argument("company", metavar="COMPANY", nargs="?")
    listing.add_argument("--state", choices=[state.value for state in EffectState], help="only these")
    listing.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="at most so many (default 50)"
    )
    settle = actions.add_parser(
        "settle", help="decide what became of an unknown change", description=SETTLE_HELP, epilog=EXAMPLES
    )
    settle.add_argument("change", metavar="CHANGE", help="its id, or the beginning of it")
    word = settle.add_mutually_exclusive_group()
    word.add_argument("--done", metavar="ID", help="it was written: the CRM's own id of the record")
    word.add_argument("--not-done", action="store_true", help="it was not written")
    settle.add_argument("--cause", default="", help="how you know, for the audit log")
    for action in (listing, settle):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def _action(actions: Subparsers, name: str, text: str, description: str = "") -> ArgumentParser:
    parser = actions.add_parser(name, help=text, description=description or None, epilog=EXAMPLES)
    parser.add_argument("company", metavar="COMPANY")
    parser.add_argument("--integration", metavar="NAME", default="", help="by this one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: Namespace) -> int:
    actions = {
        "contact": _contact,
        "deal": _deal,
        "note": _note,
        "search": _search,
        "list": _list,
        "settle": _settle,
    }
    return with_services(args, lambda services: actions[args.action](services, args), vendors=True)


async def _contact(services: Services, args: Namespace) -> int:
    company = await company_ready(services, args, Kind.CRM)
    contact = ContactData(
        args.email.strip(),
        args.first_name,
        args.last_name,
        args.phone,
        args.company_name,
        pairs(args.set),
    )
    if args.update:
        written = await services.crm.update_contact(company, args.update, contact, **ordering(args))
    else:
        written = await services.crm.create_contact(company, contact, **ordering(args))
    return _shown(args, written, "Changed" if args.update else "Created")


async def _deal(services: Services, args: Namespace) -> int:
    company = await company_ready(services, args, Kind.CRM)
    deal = DealData(
        args.name,
        args.amount,
        args.stage,
        args.pipeline,
        _day(args.closes),
        args.contact,
        pairs(args.set),
    )
    written = await services.crm.create_deal(company, deal, **ordering(args))
    return _shown(args, written, "Created")


async def _note(services: Services, args: Namespace) -> int:
    company = await company_ready(services, args, Kind.CRM)
    note = NoteData(args.body, None, args.contact, args.deal, pairs(args.set))
    written = await services.crm.create_note(company, note, **ordering(args))
    return _shown(args, written, "Wrote")


async def _search(services: Services, args: Namespace) -> int:
    company = await company_ready(services, args, Kind.CRM)
    kind = RecordKind(args.kind)
    page = await services.crm.search(
        company,
        kind,
        " ".join(args.words),
        filters=pairs(args.where, "--where"),
        limit=args.limit,
        after=args.after,
        integration=args.integration,
        actor=actor(),
    )
    if args.json:
        told = {"system": page.system, "simulated": page.simulated, "total": page.total, "after": page.after}
        told |= {"degraded": page.degraded, "age_seconds": None if page.age is None else round(page.age)}
        emit_json("crm-records", {**told, "records": [record_dict(record) for record in page.records]})
        return ExitCode.DONE
    if page.records:
        columns = _COLUMNS[kind]
        print_table(
            ("ID", *(name.replace("_", " ").upper() for name in columns)),
            [
                (record.id, *(clean_line(record.fields.get(name, "")) for name in columns))
                for record in page.records
            ],
        )
    else:
        say(f"{clean_line(page.system)} has no such {kind}.")
    if page.after:
        say(f"There is more: --after {clean_line(page.after)}")
    if page.simulated:
        say("This CRM is simulated.")
    say_degraded(page.degraded)
    return ExitCode.DONE


async def _list(services: Services, args: Namespace) -> int:
    company = (await require_company(services, args.company)).name if args.company else ""
    state = EffectState(args.state) if args.state else None
    found = await services.crm.changes(company, state=state, limit=args.limit)
    if args.json:
        emit_json("crm-changes", {"changes": [change_dict(change) for change in found]})
    elif found:
        now = services.clock.now()
        print_table(
            ("CHANGE", "AT", "COMPANY", "WHAT", "ABOUT", "CRM", "STATE", "RECORD"),
            [
                (
                    change.id[:8],
                    ago(change.created_at, now),
                    change.company,
                    f"{change.what} {change.kind}",
                    clean_line(change.target),
                    clean_line(change.system) + (" (simulated)" if change.simulated else ""),
                    change.state,
                    clean_line(change.record_id),
                )
                for change in found
            ],
            styles=_STYLES,
        )
        if any(change.state == EffectState.UNKNOWN for change in found):
            say("What is unknown the CRM can be asked for: callboard crm settle CHANGE")
    else:
        narrowed = args.company or args.state
        say("No change matches." if narrowed else "Nothing was written yet: callboard crm contact COMPANY …")
    return ExitCode.DONE


async def _settle(services: Services, args: Namespace) -> int:
    done = None if args.done is None and not args.not_done else not args.not_done
    if done is None:
        await keys_ready(services, Kind.CRM)
    change = await services.crm.settle(
        args.change, done=done, record_id=args.done or "", cause=args.cause, actor=actor()
    )
    if args.json:
        emit_json("crm-change", {"change": change_dict(change)})
    elif change.state == EffectState.DONE:
        where = f" in {clean_line(change.system)}" if change.system else ""
        where += " (simulated)" if change.simulated else ""
        write_line(f"{change.id[:8]}  done: it is {change.kind} {clean_line(change.record_id)}{where}.")
    else:
        write_line(f"{change.id[:8]}  failed: it was not written. With a new key it can be written again.")
    return ExitCode.DONE


def _shown(args: Namespace, written: Written, done: str) -> int:
    if args.json:
        emit_json("crm-record", {"record": written_dict(written)})
    elif written.state == "done":
        if written.existed:
            done = "There was already"
        where = clean_line(written.system)
        made_up = " (simulated)" if written.simulated else ""
        write_line(f"{done} {written.kind} {clean_line(written.id)} in {where}{made_up}.")
        if not written.fresh:
            say("It was written before, by its key.")
    if written.state == "done":
        return ExitCode.DONE
    say(f"An earlier request with this key is {written.state}.")
    advice = f"callboard crm settle {written.effect_id[:8]}" if written.state != "failed" else "Use a new key"
    say(f"{paint('  try:', 'cyan', sys.stderr)} {advice}")
    return ExitCode.FAILED


def _day(text: str) -> int | None:
    import datetime as dt

    if not text:
        return None
    try:
        day = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no day", advice="Write it as 2027-03-01", code="bad_value") from None
    return round((day if day.tzinfo else day.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def written_dict(written: Written) -> dict[str, Any]:
    """The documented JSON of a change."""
    return {
        "kind": written.kind.value,
        "id": written.id,
        "state": written.state,
        "existed": written.existed,
        "simulated": written.simulated,
        "system": written.system,
        "url": written.url,
        "effect": written.effect_id,
        "fresh": written.fresh,
    }


def change_dict(change: Change) -> dict[str, Any]:
    """The documented JSON of a stored change."""
    return {
        "id": change.id,
        "company": change.company,
        "what": change.what,
        "kind": change.kind.value,
        "target": change.target,
        "state": change.state.value,
        "record": change.record_id,
        "system": change.system,
        "simulated": change.simulated,
        "error": change.error.as_dict() if change.error else None,
        "created_at": iso(change.created_at),
        "updated_at": iso(change.updated_at),
    }


def record_dict(record: CrmRecord) -> dict[str, Any]:
    """The documented JSON of a record."""
    return {
        "kind": record.kind.value,
        "id": record.id,
        "fields": dict(record.fields),
        "properties": dict(record.properties),
        "url": record.url,
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
    }
