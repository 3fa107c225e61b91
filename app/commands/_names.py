"""Finding what a name on the command line means, or saying what is nearest to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from services.errors import UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from services.container import Services
    from services.model import AgentCard, CompanyInfo

MOST_LISTED = 8


async def require_company(services: Services, name: str) -> CompanyInfo:
    """The company of this name (case does not count); raises `UsageError` with the nearest one."""
    companies = {company.name: company for company in await services.companies.list()}
    return companies[match_name("company", name, list(companies))]


def match_name(what: str, name: str, known: Sequence[str]) -> str:
    """The known name that is meant (case does not count); raises `UsageError` with the nearest one."""
    if name in known:
        return name
    folded = [item for item in known if item.casefold() == name.strip().casefold()]
    if len(folded) == 1:
        return folded[0]
    raise unknown(what, name, known)


def unknown(what: str, name: str, known: Sequence[str]) -> UsageError:
    """There is nothing of this name; the advice names the nearest, else all there are."""
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        advice = f"Did you mean {clean_line(near[0])}?"
    elif known:
        shown = ", ".join(clean_line(item) for item in known[:MOST_LISTED])
        advice = f"There is: {shown}" + (", …" if len(known) > MOST_LISTED else "")
    else:
        advice = f"There is no {what} yet: callboard {what} add"
    return UsageError(f"There is no {what} named {clean_line(name)}", advice=advice, code=f"unknown_{what}")


def find_agent(cards: Iterable[AgentCard], wanted: str) -> AgentCard:
    """One agent by vendor id, mirror id, name or a part of either that only one agent has.

    What is exact wins over what is a part. Raises `UsageError` that lists the candidates.
    """
    everything = list(cards)
    folded = wanted.casefold()
    rules = (
        [card for card in everything if card.agent_id == wanted],
        [card for card in everything if str(card.id) == wanted],
        [card for card in everything if card.name.casefold() == folded],
        [card for card in everything if folded in card.name.casefold() or card.agent_id.startswith(wanted)],
    )
    found = next((matches for matches in rules if matches), [])
    if len(found) == 1:
        return found[0]
    if found:
        shown = "; ".join(
            f"{clean_line(card.name)} ({clean_line(card.agent_id)}, {clean_line(card.company)})"
            for card in found[:MOST_LISTED]
        )
        raise UsageError(
            f"{len(found)} agents match {clean_line(wanted)}",
            advice=f"Use the vendor's id of one: {shown}" + ("; …" if len(found) > MOST_LISTED else ""),
            code="ambiguous_agent",
        )
    if not everything:
        raise UsageError("The mirror holds no agent yet", advice="callboard sync", code="unknown_agent")
    near = get_close_matches(wanted, [card.name for card in everything], n=1, cutoff=0.5)
    advice = f"Did you mean {clean_line(near[0])}?" if near else "callboard agents list shows what there is"
    raise UsageError(
        f"No agent in the mirror matches {clean_line(wanted)}", advice=advice, code="unknown_agent"
    )
