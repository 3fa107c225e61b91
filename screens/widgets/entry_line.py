"""The line in which a message, a remark or a search is typed. Imported when it is first needed."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

SIGNS = {
    "say": " say ",
    "inform": " tell ",
    "mark": " note ",
    "search": " / ",
    "filter": " / ",
    "health": " / ",
    "rows": " / ",
}
PLACEHOLDERS = {
    "say": "what you say to the agent; enter sends, esc leaves",
    "inform": "what the agent should know; enter sends, esc leaves",
    "mark": "a note for this moment; enter keeps it",
    "search": "text in the transcript",
    "filter": "text, transport: end: agent: company:",
    "health": "text, state: kind: company: vendor:",
    "rows": "words, or column:word such as state:failed",
}


class EntryLine(Horizontal):
    """One line: a sign and an input. Tells the screen every change and every enter."""

    class Changed(Message):
        """Something was typed."""

        def __init__(self, kind: str, text: str) -> None:
            super().__init__()
            self.kind, self.text = kind, text

    class Done(Message):
        """Enter was pressed."""

        def __init__(self, kind: str, text: str) -> None:
            super().__init__()
            self.kind, self.text = kind, text

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(id="entry")
        self.kind = kind
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(SIGNS[self.kind], classes="sign")
        yield Input(
            self._text,
            id="typed",
            compact=True,
            select_on_focus=False,
            placeholder=PLACEHOLDERS[self.kind],
        )

    def on_mount(self) -> None:
        # Not `focus()`, which waits its turn: the next key may be here already.
        self.screen.set_focus(self.query_one(Input))

    def clear(self) -> None:
        self.query_one(Input).value = ""

    def restore(self, text: str) -> None:
        """Put back what could not be sent, unless something new is being typed."""
        typed = self.query_one(Input)
        if not typed.value:
            typed.value = text
            typed.cursor_position = len(text)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self.kind, event.value))

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Done(self.kind, event.value))
