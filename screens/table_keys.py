"""Moving the cursor over a table that fills its screen, the same in all of them."""

from __future__ import annotations

from screens.widgets.table import LineTable


class TableKeys:
    """Mixed into the screen that has the table."""

    table: LineTable

    def action_row_up(self) -> None:
        self.table.move(-1)

    def action_row_down(self) -> None:
        self.table.move(1)

    def action_rows_up(self) -> None:
        self.table.move(-self.table.page)

    def action_rows_down(self) -> None:
        self.table.move(self.table.page)

    def action_first_row(self) -> None:
        self.table.move(-len(self.table.lines))

    def action_last_row(self) -> None:
        self.table.move(len(self.table.lines))
