"""`callboard agents list|show`: the mirror, read with no network; every answer says how old it is."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from app.commands._demo import command
from app.commands._names import find_agent, match_name
from app.commands._run import with_services
from app.masking import mask_secrets
from app.output import (
    ExitCode,
    emit_json,
    is_terminal,
    iso,
    paint,
    plural,
    print_table,
    safe_json,
    say,
    write_line,
)
from services.model import AgentCard, SyncStatus
from services.text import age, clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.agents import AgentEvent, BundleView
    from services.container import Services

HISTORY = 20
STYLES = {"error": "red", "gone": "yellow", "synced": "green"}
FILTER_HELP = """\
filters: words that must all hold. A bare word looks in name, id, voice, language, model and company;
vendor: status: drift: company: voice: model: language: release: look in one field, a,b takes either,
! turns a word round.
"""
LIST_EXAMPLES = f"""\
{FILTER_HELP}
examples:
  callboard agents list --company acme
  callboard agents list --filter 'status:error,gone !vendor:retell'
  callboard agents list --json
"""
SHOW_EXAMPLES = """\
examples:
  callboard agents show "Front desk"
  callboard agents show agent_7f3a --json
  callboard agents show agent_7f3a --raw       one JSON document for each part, as the vendor sent it
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("agents", help="list and show agents from the mirror, with no network")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list agents", epilog=LIST_EXAMPLES)
    listing.add_argument("--filter", metavar="EXPR", default="", help="only agents that match")
    listing.add_argument("--company", metavar="NAME", help="only this company's")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    show = actions.add_parser("show", help="everything known about one agent", epilog=SHOW_EXAMPLES)
    show.add_argument("agent", metavar="AGENT", help="vendor id, mirror id, or a part of the name")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument(
        "--raw",
        action="store_true",
        help="print the stored vendor JSON; values that look like secrets are always masked",
    )


def run(args: Namespace) -> int:
    work = _list if args.action == "list" else _show
    return with_services(args, lambda services: work(services, args))


async def _list(services: Services, args: Namespace) -> int:
    from services.agents.filtering import parse_filter

    wanted = parse_filter(args.filter)
    cards = await services.agents.cards()
    if args.company:
        company = match_name("company", args.company, await services.agents.company_names())
        cards = [card for card in cards if card.company == company]
    shown = [card for card in cards if wanted.matches(card)]
    now = services.clock.now()
    synced_at = await services.agents.last_sync_at()
    stale_after = services.stale_after_ms
    if args.json:
        mirror_age = None if synced_at is None else max(0, now - synced_at)
        agents = [as_dict(card, now, stale_after) for card in shown]
        emit_json("agents", {"mirror_age_ms": mirror_age, "agents": agents})
        return ExitCode.DONE
    counted = plural(len(shown), "agent") + (f" of {len(cards)}" if len(shown) != len(cards) else "")
    say(f"{mirror_line(synced_at, now, demo=args.demo)} · {counted}")
    if shown:
        print_table(
            ("COMPANY", "VENDOR", "AGENT", "NAME", "STATUS", "DRIFT", "RELEASE", "CHECKED"),
            [
                (
                    card.company,
                    card.provider,
                    card.agent_id,
                    card.name,
                    status_word(card),
                    card.drift.replace("_", " "),
                    card.release,
                    checked_word(card, now, stale_after),
                )
                for card in shown
            ],
            styles=STYLES,
        )
    return ExitCode.DONE


async def _show(services: Services, args: Namespace) -> int:
    card = find_agent(await services.agents.cards(), args.agent)
    bundle = await services.agents.bundle(card.id)
    if args.raw:
        return _print_raw(card, bundle, demo=args.demo)
    history = await services.agents.history(card.id, limit=HISTORY)
    now = services.clock.now()
    synced_at = await services.agents.last_sync_at()
    if args.json:
        emit_json(
            "agent",
            {
                "mirror_age_ms": None if synced_at is None else max(0, now - synced_at),
                "agent": as_dict(card, now, services.stale_after_ms),
                "bundle": _bundle_dict(bundle),
                "history": [_event_dict(event) for event in history],
            },
        )
        return ExitCode.DONE
    say(mirror_line(synced_at, now, demo=args.demo))
    _print_overview(card, bundle, now, services.stale_after_ms)
    if history:
        write_line()
        print_table(
            ("WHEN", "OUTCOME", "CAUSE", "REMARK"),
            [
                (
                    iso(event.at) or "",
                    event.outcome,
                    event.cause,
                    event.error.message if event.error else event.detail,
                )
                for event in history
            ],
            styles={"failed": "red", "updated": "green", "created": "green"},
        )
    return ExitCode.DONE


def _print_overview(card: AgentCard, bundle: BundleView | None, now: int, stale_after: int) -> None:
    parts = ", ".join(f"{part.kind} {part.id}".strip() for part in bundle.parts) if bundle else ""
    functions = "" if card.function_count is None else str(card.function_count)
    rows = (
        ("agent", f"{clean_line(card.agent_id)} at {card.provider}"),
        ("company", card.company),
        ("status", status_word(card)),
        ("drift", card.drift.replace("_", " ")),
        ("release", card.release),
        ("voice", card.voice),
        ("language", card.language),
        ("model", card.model),
        ("functions", functions),
        ("checked", _moment(card.checked_at, checked_word(card, now, stale_after))),
        ("changed", _moment(card.changed_at, age(card.changed_at, now))),
        ("gone", _moment(card.gone_at, age(card.gone_at, now)) if card.gone_at else ""),
        ("stored", parts),
    )
    write_line(paint(clean_line(card.name) or "(no name)", "bold"))
    for label, value in rows:
        if value:
            write_line(f"  {label:<10}{clean_line(value)}")
    if card.error:
        write_line(f"  {'error':<10}" + paint(clean_line(card.error.message), "red"))
        if card.error.advice:
            write_line(f"  {'try':<10}{clean_line(card.error.advice)}")


def _print_raw(card: AgentCard, bundle: BundleView | None, *, demo: bool) -> int:
    """The parts one after another as JSON documents; what they are is said on standard error."""
    if bundle is None or not bundle.parts:
        sync = command(f"sync --agent {clean_line(card.agent_id)}", demo=demo)
        say(f"Nothing of {clean_line(card.name)} was ever read: {sync}")
        return ExitCode.FAILED
    on_terminal = is_terminal(sys.stdout)
    for part in bundle.parts:
        say(f"{part.kind} {clean_line(part.id)}")
        text, masked = mask_secrets(part.text)
        write_line(safe_json(text).replace("\r", "") if on_terminal else text)
        if masked:
            say(f"{plural(masked, 'value')} masked")
    return ExitCode.DONE


def mirror_line(synced_at: int | None, now: int, *, demo: bool = False) -> str:
    """How old the mirror is, in words."""
    if synced_at is None:
        return f"mirror empty, never synced: {command('sync', demo=demo)}"
    old = age(synced_at, now)
    return "mirror up to the minute" if old == "now" else f"mirror {old} old"


def status_word(card: AgentCard) -> str:
    """The sync status; an agent the vendor no longer has is `gone` whatever its last sync said."""
    return "gone" if card.gone_at is not None else card.status.value


def is_stale(card: AgentCard, now: int, stale_after: int) -> bool:
    """Whether the mirror's copy was last checked longer than `stale_after` milliseconds ago, or never."""
    return card.gone_at is None and (card.checked_at is None or now - card.checked_at >= stale_after)


def checked_word(card: AgentCard, now: int, stale_after: int) -> str:
    word = age(card.checked_at, now)
    stale = (
        card.checked_at is not None
        and card.status is not SyncStatus.PENDING
        and is_stale(card, now, stale_after)
    )
    return f"{word} (stale)" if stale else word


def as_dict(card: AgentCard, now: int, stale_after: int) -> dict[str, Any]:
    """The documented JSON of an agent in the mirror."""
    return {
        "id": card.id,
        "company": card.company,
        "provider": card.provider.value,
        "agent_id": card.agent_id,
        "name": card.name,
        "status": card.status.value,
        "drift": card.drift.value,
        "release": card.release,
        "voice": card.voice,
        "language": card.language,
        "model": card.model,
        "function_count": card.function_count,
        "checked_at": iso(card.checked_at),
        "changed_at": iso(card.changed_at),
        "gone_at": iso(card.gone_at),
        "stale": is_stale(card, now, stale_after),
        "error": card.error.as_dict() if card.error else None,
    }


def _bundle_dict(bundle: BundleView | None) -> dict[str, Any] | None:
    if bundle is None:
        return None
    return {
        "digest": bundle.digest,
        "stored_at": iso(bundle.stored_at),
        "parts": [
            {"kind": part.kind, "id": part.id, "bytes": len(part.text.encode("utf-8", "surrogatepass"))}
            for part in bundle.parts
        ],
    }


def _event_dict(event: AgentEvent) -> dict[str, Any]:
    return {
        "at": iso(event.at),
        "outcome": event.outcome.value,
        "cause": event.cause,
        "detail": event.detail,
        "run_id": event.run_id,
        "error": event.error.as_dict() if event.error else None,
    }


def _moment(at: int | None, word: str) -> str:
    return f"{word}, {iso(at)}" if at is not None else word
