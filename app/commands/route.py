"""`callboard route`: which agent a request is for, and what was decided so far."""

from __future__ import annotations

import shlex
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from app.commands._demo import agents_there, command
from app.commands._integrating import actor, keys_ready
from app.commands._names import require_company
from app.commands._run import with_services
from app.output import ExitCode, emit_json, iso, plural, print_table, say, say_degraded, seconds, write_line
from app.parsing import positive
from services.errors import UsageError
from services.integrations.model import Kind
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services
    from services.integrations.llm import DecisionRow, OrchestratorStats

EXAMPLES = """\
examples:
  callboard route "my invoice is wrong" --company acme
  callboard route "Tisch für vier heute abend" --company acme --knowledge --json
  callboard route --decisions --limit 20
  callboard integration add openai --company acme --set model=gpt-5-mini      who decides; rules do without
"""
DESCRIPTION = """\
Decides which of a company's agents a request is for. A configured language model decides; without one, or
when it fails, rules do, and the decision says so. Of several models one is taken: `callboard integration
list` shows which, `callboard integration prefer` changes it. Every decision is stored with reason, tokens and
cost.
Exit code 1 when no agent fits.
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "route", help="decide which agent a request is for", description=DESCRIPTION, epilog=EXAMPLES
    )
    parser.add_argument("request", metavar="REQUEST", nargs="?", help="what somebody wants, in their words")
    parser.add_argument("--company", metavar="COMPANY", help="whose agents; may be left out if there is one")
    parser.add_argument("--context", metavar="TEXT", help="what else is known of who asks")
    parser.add_argument(
        "--knowledge", action="store_true", help="let passages of the company's documents help"
    )
    parser.add_argument(
        "--integration", metavar="NAME", default="", help="by this language model, where there are several"
    )
    parser.add_argument("--decisions", action="store_true", help="list past decisions instead")
    parser.add_argument("--limit", type=positive, default=20, metavar="N", help="decisions listed (20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    work = _decisions if args.decisions else _route
    return with_services(args, lambda services: work(services, args), vendors=True)


async def _route(services: Services, args: Namespace) -> int:
    if not args.request:
        raise UsageError(
            "What is to be routed is not said", advice='Such as: callboard route "my invoice is wrong"'
        )
    company = await _company(services, args.company)
    await agents_there(services)
    for kind in (Kind.LLM, Kind.KNOWLEDGE):
        await keys_ready(services, kind, company)
    decision = await services.orchestrator.route(
        company,
        args.request,
        context=args.context,
        actor=actor(),
        with_knowledge=args.knowledge,
        integration=args.integration,
    )
    found = decision.agent_row is not None
    if args.json:
        emit_json("decision", {"decision": as_dict(decision)})
    else:
        if found:
            write_line(f"{clean_line(decision.agent_name)}  ({clean_line(decision.agent_id)})")
        else:
            say("No agent fits.")
        write_line(f"  {clean_line(decision.reason)}")
        say(_how(decision, demo=args.demo))
        say_degraded(decision.degraded, decision.error.advice if decision.error else "")
    return ExitCode.DONE if found else ExitCode.FAILED


async def _decisions(services: Services, args: Namespace) -> int:
    if args.request or args.integration:
        what = "request" if args.request else "--integration"
        raise UsageError(f"--decisions lists past ones and takes no {what}", advice="Leave one of them out")
    company = (await require_company(services, args.company)).name if args.company else None
    rows = await services.orchestrator.decisions(company, limit=args.limit)
    stats = await services.orchestrator.stats(company)
    if args.json:
        shown = [as_dict(row) for row in rows]
        emit_json("decisions", {"decisions": shown, "orchestrator": stats_dict(stats)})
        return ExitCode.DONE
    if not rows:
        say('Nothing was decided yet: callboard route "…" --company COMPANY')
        return ExitCode.DONE
    print_table(
        ("AT", "COMPANY", "AGENT", "BY", "TOOK", "TOKENS", "COST", "REQUEST"),
        [
            (
                iso(row.at) or "",
                row.company,
                row.agent_name or "none",
                _by(row),
                seconds(row.took_ms),
                _tokens(row),
                _cost(row),
                row.request,
            )
            for row in rows
        ],
        right=(4, 5, 6),
        styles={"rules": "yellow", "none": "yellow"},
    )
    say(_summary(stats))
    return ExitCode.DONE


async def _company(services: Services, name: str | None) -> str:
    if name:
        return (await require_company(services, name)).name
    companies = await services.companies.list()
    if len(companies) == 1:
        return companies[0].name
    there = ", ".join(clean_line(company.name) for company in companies[:8])
    advice = f"There is: {there}" if companies else "callboard company add NAME"
    raise UsageError("Whose agents is not said: --company is missing", advice=advice, code="no_company")


def _how(decision: DecisionRow, *, demo: bool) -> str:
    took = seconds(decision.took_ms)
    if decision.source == "model":
        sure = f", {decision.confidence:.0%} sure" if decision.confidence is not None else ""
        cost = f", {_cost(decision)}" if decision.cost is not None else ""
        made_up = " (simulated)" if decision.simulated else ""
        by = clean_line(decision.model)
        if decision.integration not in ("", decision.model):
            by += f" of {clean_line(decision.integration)}"
        return f"Decided by {by}{made_up}{sure} in {took}{cost}."
    if decision.source == "rules":
        model = "; with a model: callboard integration add openai" if decision.error is None else "."
        return f"Decided by rules in {took}{model}"
    sync = command(f"sync --company {shlex.quote(clean_line(decision.company))}", demo=demo)
    return f"Its agents are fetched by: {sync}"


def _by(row: DecisionRow) -> str:
    by = row.model or row.source.value if row.source == "model" else row.source.value
    return f"{by} (simulated)" if row.simulated else by


def _summary(stats: OrchestratorStats) -> str:
    if not stats.decisions:
        return "None in the last 24 hours."
    share = "" if stats.fallback_share is None else f", {stats.fallback_share:.0%} by rules"
    p95 = "" if stats.p95_ms is None else f", p95 {seconds(stats.p95_ms)}"
    spent = ", ".join(f"{value:.4f} {currency}" for currency, value in stats.cost_today.items())
    cost = f", {spent}" if spent else ""
    made_up = " The model is simulated." if stats.simulated else ""
    return (
        f"Last 24 hours: {plural(stats.decisions, 'decision')}{share}{p95}. "
        f"Today: {stats.tokens_today} tokens{cost}.{made_up}"
    )


def _tokens(row: DecisionRow) -> str:
    if row.tokens_in is None and row.tokens_out is None:
        return ""
    return str((row.tokens_in or 0) + (row.tokens_out or 0))


def _cost(row: DecisionRow) -> str:
    return "" if row.cost is None else f"{row.cost:.4f} {clean_line(row.currency)}"


def as_dict(row: DecisionRow) -> dict[str, Any]:
    """The documented JSON of a decision."""
    agent = {"id": row.agent_row, "agent_id": row.agent_id, "name": row.agent_name}
    return {
        "id": row.id,
        "company": row.company,
        "at": iso(row.at),
        "actor": row.actor,
        "request": row.request,
        "agent": agent if row.agent_name else None,
        "reason": row.reason,
        "confidence": row.confidence,
        "source": row.source.value,
        "model": row.model,
        "integration": row.integration or None,
        "tokens_in": row.tokens_in,
        "tokens_out": row.tokens_out,
        "cost": row.cost,
        "currency": row.currency,
        "took_ms": row.took_ms,
        "simulated": row.simulated,
        "degraded": row.degraded,
        "error": row.error.as_dict() if row.error else None,
    }


def stats_dict(stats: OrchestratorStats) -> dict[str, Any]:
    """The documented JSON of how decisions went."""
    return {
        "endpoint": stats.endpoint,
        "simulated": stats.simulated,
        "decisions_24h": stats.decisions,
        "success_share": stats.success_share,
        "fallback_share": stats.fallback_share,
        "p95_ms": stats.p95_ms,
        "tokens_today": stats.tokens_today,
        "cost_today": dict(stats.cost_today),
        "cost_unknown_today": stats.cost_unknown_today,
    }
