"""The keys of the screen one comes from, read from its own bindings."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from screens.actions import BY_ID, EVERYWHERE, Action
from screens.frame import Frame
from screens.glyphs import Tone
from screens.widgets.table import Column, LineTable, Row

COLUMNS = (Column("key", 17), Column("what it does"))


def help_rows(frame: Frame) -> list[tuple[Action, bool]]:
    """Every action bound on the screen as it is now, and whether it is available; in the table's order."""
    bound: list[str] = []
    for _, bindings in frame._modal_binding_chain:
        for each in bindings.key_to_bindings.values():
            bound += [binding.id for binding in each if binding.id in BY_ID and binding.id not in bound]
    valid = {action.binding_id for action, _ in frame.valid_actions()}
    rows = [(action, action.binding_id in valid) for name, action in BY_ID.items() if name in bound]
    own_last = sorted(rows, key=lambda each: each[0].place == EVERYWHERE)
    return sorted(own_last, key=lambda each: each[0].group == "Move")


class HelpScreen(ModalScreen[None]):
    """A table of keys; those that do nothing now are grey."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1,enter", "leave", "close", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup", "move(-10)", "up", show=False),
        Binding("pagedown,space", "move(10)", "down", show=False),
    ]

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self._rows = help_rows(frame)
        self._place = frame.place
        self._table = LineTable(COLUMNS, frame.glyphs, ident="help")

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(f"Keys of {self._place}"), classes="title")
            yield self._table
            yield Static(Content("up and down scroll   esc closes"), classes="keys")

    def on_mount(self) -> None:
        rows: list[Row] = []
        group = ""
        for action, available in self._rows:
            if action.group != group:
                group = action.group
                rows.append(Row(None, ((group, Tone.PLAIN), ("", Tone.PLAIN)), heading=True))
            keys = "  ".join(action.shown_keys)
            tone = Tone.PLAIN if available else Tone.MUTED
            rows.append(
                Row(action.binding_id, ((keys, Tone.ACCENT if available else tone), (action.help, tone)))
            )
        self._table.set_rows(rows)

    def action_move(self, by: int) -> None:
        self._table.move(by)

    def action_leave(self) -> None:
        self.dismiss(None)
