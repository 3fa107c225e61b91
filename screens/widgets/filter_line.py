"""The line in which a filter or a search is typed. Imported when it is first needed: inputs are not cheap."""

from __future__ import annotations

from typing import Protocol, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Static


class _Listener(Protocol):
    def filter_typed(self, text: str) -> None: ...
    def filter_kept(self) -> None: ...


class FilterLine(Horizontal):
    """One line: a sign and what is typed, told to the screen letter by letter."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(" / ", classes="sign")
        yield Input(self._text, id="filter", compact=True, select_on_focus=False)

    def on_mount(self) -> None:
        # Not `focus()`, which waits its turn: the next key may be here already.
        self.screen.set_focus(self.query_one(Input))

    @property
    def _listener(self) -> _Listener:
        return cast(_Listener, self.screen)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._listener.filter_typed(event.value)

    @on(Input.Submitted)
    def _kept(self, event: Input.Submitted) -> None:
        event.stop()
        self._listener.filter_kept()
