"""The smallest Textual program: what any console's start is measured against."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Label


class OneLabel(App[None]):
    def compose(self) -> ComposeResult:
        yield Label("Hello")


OneLabel().run()
