"""The command palette: every action of the registry that makes sense now, and every agent by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from screens.actions import Action
from screens.agents import AgentsScreen
from screens.frame import Console, Frame, run_valid
from screens.textfit import display

AGENTS_FOUND = 12
"""Agents offered at most; the filter of the agents screen is for more."""


class ActionProvider(Provider):
    """Commands for the screen below the palette."""

    def _frame(self) -> Frame | None:
        return next((screen for screen in reversed(self.app.screen_stack) if isinstance(screen, Frame)), None)

    def actions(self) -> Iterator[tuple[str, Action, Frame]]:
        """Title, action and screen of every command."""
        frame = self._frame()
        if frame is not None:
            for action, _ in frame.valid_actions():
                if action.palette:
                    keys = " ".join(action.shown_keys)
                    yield f"{action.group}: {action.label}  ({keys})", action, frame

    async def discover(self) -> Hits:
        for title, action, frame in self.actions():
            yield DiscoveryHit(title, partial(run_valid, frame, action), help=action.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for title, action, frame in self.actions():
            score = max(matcher.match(title), matcher.match(action.help) * 0.8)
            if score > 0:
                yield Hit(
                    score, matcher.highlight(title), partial(run_valid, frame, action), help=action.help
                )
        wanted, found = query.lower(), 0
        for card in cast(Console, self.app).live.board.cards.values():
            if wanted in card.name.lower():
                found += 1
                title = f"Agent: {display(card.name)}"
                help_text = f"{card.provider.value}, {display(card.company)}"
                yield Hit(
                    0.5, title.replace("[", "\\["), partial(self._show, card.id), text=title, help=help_text
                )
                if found == AGENTS_FOUND:
                    return

    async def _show(self, agent: int) -> None:
        """Go to the agents screen with the cursor on this agent."""
        while len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        home = self.app.screen
        if isinstance(home, AgentsScreen):
            home.reveal(agent)
