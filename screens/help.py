"""The keys of the screen one comes from, read from its own bindings."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from screens.actions import BY_ID, Action
from screens.frame import Frame
from screens.glyphs import Tone
from screens.widgets.table import Column, LineTable, Row

COLUMNS = (Column("key", 17), Column("what it does"))
EVERYWHERE_GROUP, MOVE_GROUP = "Everywhere", "Move"


def help_rows(frame: Frame) -> list[tuple[Action, bool]]:
    """Every action bound on the screen as it is now, and whether it is available; group by group, what holds
    everywhere and how one moves last."""
    bound: list[str] = []
    for _, bindings in frame._modal_binding_chain:
        for each in bindings.key_to_bindings.values():
            bound += [binding.id for binding in each if binding.id in BY_ID and binding.id not in bound]
    valid = {action.binding_id for action, _ in frame.valid_actions()}
    rows = [(action, action.binding_id in valid) for name, action in BY_ID.items() if name in bound]
    groups = list(dict.fromkeys(action.group for action, _ in rows))
    last = (EVERYWHERE_GROUP, MOVE_GROUP)
    groups = [*(group for group in groups if group not in last), *last]
    return sorted(rows, key=lambda each: groups.index(each[0].group))


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
        self._legend = frame.legend()
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
                if group == EVERYWHERE_GROUP:
                    rows += self._signs()
                rows.append(_heading(group))
            keys = "  ".join(action.shown_keys)
            tone = Tone.PLAIN if available else Tone.MUTED
            rows.append(
                Row(action.binding_id, ((keys, Tone.ACCENT if available else tone), (action.help, tone)))
            )
        self._table.set_rows(rows)

    def _signs(self) -> list[Row]:
        """What the signs of the screen stand for."""
        if not self._legend:
            return []
        lines = [Row(("sign", meaning), (sign, (meaning, Tone.PLAIN))) for sign, meaning in self._legend]
        return [_heading("Signs"), *lines]

    def action_move(self, by: int) -> None:
        self._table.move(by)

    def action_leave(self) -> None:
        self.dismiss(None)


def _heading(title: str) -> Row:
    return Row(None, ((title, Tone.PLAIN), ("", Tone.PLAIN)), heading=True)
