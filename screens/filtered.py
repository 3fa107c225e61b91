"""A screen with a filter: typed at the bottom, applied letter by letter, dropped by escape."""

from __future__ import annotations

from typing import ClassVar

from textual import on

from screens.frame import Frame
from screens.textfit import sentence
from screens.widgets.bars import Hints
from screens.widgets.entry_line import EntryLine
from services.errors import UsageError


class FilteredFrame(Frame):
    """Subclasses say what a filter does; while one is typed that does not hold, the one before stays."""

    ENTRY: ClassVar[str] = "filter"
    """Which kind of line is typed in, see `screens.widgets.entry_line`."""
    TYPING_HINTS: ClassVar[Hints]
    """The key line while a filter is typed: what may stand in it."""
    entry: EntryLine | None = None

    @property
    def filter_text(self) -> str:
        """The filter in force, as it was typed; empty without one."""
        raise NotImplementedError

    def set_filter(self, typed: str) -> None:
        """Show what fits. Raises UsageError when it cannot be understood."""
        raise NotImplementedError

    def show_problem(self, problem: str) -> None:
        """Say what is wrong with what is typed; empty takes it back."""
        raise NotImplementedError

    def hints(self) -> Hints:
        return self.TYPING_HINTS if self.entry is not None else super().hints()

    async def action_filter(self) -> None:
        if self.entry is None:
            self.entry = EntryLine(self.ENTRY, self.filter_text)
            await self.mount(self.entry, before=self.keys)
            self.redraw_bars()

    async def drop_filter(self) -> None:
        """Leave the line and show everything again."""
        await self._close_entry()
        self.set_filter("")

    @on(EntryLine.Changed)
    def _typed(self, event: EntryLine.Changed) -> None:
        event.stop()
        try:
            self.set_filter(event.text)
        except UsageError as error:
            self.show_problem(sentence(error.message, error.advice))

    @on(EntryLine.Done)
    async def _kept(self, event: EntryLine.Done) -> None:
        event.stop()
        await self._close_entry()

    async def _close_entry(self) -> None:
        entry, self.entry = self.entry, None
        if entry is not None:
            self.set_focus(None)
            await entry.remove()
            self.show_problem("")
            self.redraw_bars()
