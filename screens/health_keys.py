"""Moving the cursor over the panels: what the keys of `screens.health_actions` do."""

from __future__ import annotations

from screens.widgets.panels import Panels


class PanelKeys:
    """Mixed into the screen that has the panels."""

    panels: Panels

    def action_up(self) -> None:
        self.panels.move(-1)

    def action_down(self) -> None:
        self.panels.move(1)

    def action_page_up(self) -> None:
        self.panels.move(-self.panels.page)

    def action_page_down(self) -> None:
        self.panels.move(self.panels.page)

    def action_left(self) -> None:
        self.panels.aside(-1)

    def action_right(self) -> None:
        self.panels.aside(1)

    def action_first(self) -> None:
        self.panels.first()

    def action_last(self) -> None:
        self.panels.last()
