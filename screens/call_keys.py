"""The keys of a transcript, the same in a call and in a replay, and the line in which one types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on

from screens.frame import Frame
from screens.widgets.transcript import Transcript
from services.calls.live import LiveCall

if TYPE_CHECKING:
    from textual.widget import Widget

    from screens.widgets.entry_line import EntryLine


class TalkFrame(Frame):
    """A screen around a transcript."""

    transcript: Transcript
    entry: EntryLine | None = None

    @property
    def picture(self) -> LiveCall:
        """The call that is shown."""
        raise NotImplementedError

    def reading_available(self, method: str) -> bool | None:
        """Whether a key of the transcript does something now; None for other keys."""
        if method in ("next_match", "previous_match"):
            found = self.transcript.search_state
            return found is not None and found[1] > 0
        if method == "follow":
            return not self.transcript.following
        if method in ("search", "copy_line", "copy_all"):
            return bool(self.picture.entries)
        return None

    # -- typing -----------------------------------------------------------------------------------

    async def open_entry(self, kind: str, instead: Widget) -> None:
        """Open a line to type in, where `instead` is."""
        from screens.widgets.entry_line import EntryLine

        if self.entry is not None:
            await self.close_entry()
        self.entry = EntryLine(kind)
        self.add_class("-typing")
        await self.mount(self.entry, before=instead)
        self.redraw_bars()

    async def close_entry(self) -> None:
        entry, self.entry = self.entry, None
        if entry is not None:
            self.set_focus(None)
            self.remove_class("-typing")
            await entry.remove()
            self.redraw_bars()

    @on(Transcript.Moved)
    def _moved(self, event: Transcript.Moved) -> None:
        event.stop()
        self.reading_changed()

    def reading_changed(self) -> None:
        """The cursor or a search moved: what depends on it is drawn again."""
        self.keys.redraw()

    # -- keys -------------------------------------------------------------------------------------

    def action_next_match(self) -> None:
        self.transcript.step(1)

    def action_previous_match(self) -> None:
        self.transcript.step(-1)

    def action_follow(self) -> None:
        self.transcript.follow()

    def action_line_up(self) -> None:
        self.transcript.move(-1)

    def action_line_down(self) -> None:
        self.transcript.move(1)

    def action_page_up(self) -> None:
        self.transcript.page(-1)

    def action_page_down(self) -> None:
        self.transcript.page(1)

    def action_first(self) -> None:
        self.transcript.first()

    def action_last(self) -> None:
        self.transcript.follow()

    def action_copy_line(self) -> None:
        from services.calls.archive import entry_text

        entry = self.transcript.current
        if entry is not None:
            self.console_app.copy(entry_text(entry), "this line")

    def action_copy_all(self) -> None:
        from services.calls.archive import transcript_text

        entries = self.picture.entries
        self.console_app.copy(transcript_text(entries), f"the transcript, {len(entries):,} lines")
