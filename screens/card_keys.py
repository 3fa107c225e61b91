"""Keys of the agents screen that need only its grid: moving the cursor, and the demo's fault switch."""

from __future__ import annotations

from screens.frame import Console
from screens.ports import Services
from screens.widgets.card_grid import CardGrid


class MovingKeys:
    """Moves the cursor of the grid."""

    grid: CardGrid

    def action_left(self) -> None:
        self.grid.move(columns=-1)

    def action_right(self) -> None:
        self.grid.move(columns=1)

    def action_up(self) -> None:
        self.grid.move(rows=-1)

    def action_down(self) -> None:
        self.grid.move(rows=1)

    def action_page_up(self) -> None:
        self.grid.move(rows=-self.grid.page_rows)

    def action_page_down(self) -> None:
        self.grid.move(rows=self.grid.page_rows)

    def action_first(self) -> None:
        self.grid.move_to(0)

    def action_last(self) -> None:
        self.grid.move_to(len(self.grid.board.shown) - 1)


class DemoKeys:
    """Breaks, mends and edits agents at the simulated vendor."""

    grid: CardGrid
    services: Services
    console_app: Console
    _broken: frozenset[int] = frozenset()

    def action_break_agent(self) -> None:
        card = self.grid.current
        if card is None:
            return
        broken = card.id in self._broken

        async def switch() -> None:
            control = self.services.demo_control
            await (control.mend_agent(card) if broken else control.break_agent(card))
            self._broken ^= {card.id}
            done = "answers again" if broken else "now fails at the vendor"
            self.console_app.tell(f"{card.name} {done}", "s syncs it, and the card says what happened")

        self.console_app.perform(switch, group="demo")

    def action_edit_agent(self) -> None:
        card = self.grid.current
        if card is None:
            return

        async def edit() -> None:
            await self.services.demo_control.edit_agent(card)
            self.console_app.tell(f"{card.name} was changed at the vendor", "s syncs it")

        self.console_app.perform(edit, group="demo")
