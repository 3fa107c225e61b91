"""What commands on the demo company share. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.output import say

if TYPE_CHECKING:
    from services.container import Services


def command(words: str, *, demo: bool) -> str:
    """A command to give as advice, for the companies that this one was about."""
    return f"callboard {'--demo ' if demo else ''}{words}"


async def agents_there(services: Services) -> None:
    """On a demo that was never synced its agents are fetched first: the first look is to show something."""
    if services.demo is None or await services.agents.cards():
        return
    from services.agents import SyncRequest

    await services.demo.prepare(services.companies, services.integrations)
    say("Fetching the demo's agents first …")
    await services.sync.run(SyncRequest(cause="first look"))
