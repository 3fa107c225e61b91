"""A call that goes on: its transcript, both meters, latency, and everything the operator may do in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from textual import on
from textual.constants import MAX_FPS
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget

from screens.actions import CALL, CALLS, bindings_of
from screens.call_bars import CallBar, Facts, Heading, Prompt, Title
from screens.call_keys import TalkFrame
from screens.call_ports import Session
from screens.frame import Console
from screens.glyphs import Tone
from screens.textfit import display
from screens.widgets.bars import Hints
from screens.widgets.entry_line import EntryLine
from screens.widgets.meters import Meters, MeterStrip, Source
from screens.widgets.plot import LatencyPlot
from screens.widgets.transcript import Transcript
from services.calls.live import Area, LiveCall
from services.errors import ServiceError

SLOWEST_FPS = 10
TYPING_MS = 1_000
"""The agent is told at most this often that the operator types."""
TYPING_HINTS: Hints = [("enter", "send", ""), ("esc", "leave the line", "")]
SEARCH_HINTS: Hints = [("enter", "keep", ""), ("esc", "drop", ""), ("n", "next, after enter", "")]
AUDIO_KEYS = frozenset({"mute", "push_to_talk", "devices"})
OVER_KEYS = frozenset({"again", "replay"})


class CallScreen(TalkFrame):
    """One session. Leaving the screen leaves the call as it is."""

    place = CALL
    tab = CALLS
    BINDINGS = bindings_of(CALL)
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [  # noqa: RUF012 - declared so by Textual
        (0, "-narrow"),
        (110, "-wide"),
    ]

    def __init__(self, console: Console, session: Session) -> None:
        super().__init__(console)
        self.session = session
        self.top.tells_call = False
        self.bar = CallBar(session, self.glyphs)
        source = Source(session.meters, lambda: session.live)
        self.strip = MeterStrip(source, self.glyphs)
        self.transcript = Transcript(lambda: session.live, self.glyphs, ident="transcript")
        self.heading = Heading(self.transcript)
        self.meters = Meters(source, self.glyphs)
        self.plot = LatencyPlot(lambda: session.live, self.glyphs)
        self.facts = Facts(session)
        self.prompt = Prompt(session, self.glyphs)
        self._dirty: set[Area] = set(Area)
        self._timer: Timer | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._told_typing: int | None = None

    def work(self) -> Iterable[Widget]:
        yield self.bar
        yield self.strip
        with Horizontal(id="callwork"):
            with Vertical(id="talk"):
                yield self.heading
                yield self.transcript
            with Vertical(id="side"):
                yield Title("line", ident="line-title")
                yield self.meters
                yield Title("latency by turn", ident="latency-title")
                yield self.plot
                yield Title("call", ident="call-title")
                yield self.facts
        yield self.prompt

    @property
    def picture(self) -> LiveCall:
        return self.session.live

    # -- live -------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self.transcript.note = self._note()
        self._unsubscribe = self.session.subscribe(self._changed)
        # One timer for everything that moves. A slow link gets fewer pictures, but never fewer than ten.
        every = max(self.console_app.flush_every, 1 / max(SLOWEST_FPS, MAX_FPS))
        self._timer = self.set_interval(every, self._beat, name="call")

    def on_unmount(self) -> None:
        self._unsubscribe()

    def on_screen_resume(self) -> None:
        self._changed(frozenset(Area))
        super().on_screen_resume()

    def _note(self) -> list[tuple[str, Tone]]:
        if self.session.live.ended is not None:
            return [("Nothing was said", Tone.MUTED)]
        return [
            (f"Calling {display(self.session.target.name)}", Tone.PLAIN),
            ("", Tone.PLAIN),
            ("what is said appears here", Tone.MUTED),
        ]

    def _changed(self, areas: frozenset[Area]) -> None:
        self._dirty |= areas
        if self._timer is not None:
            self._timer.resume()

    def _beat(self) -> None:
        """Draw what differs: levels and duration each time, the rest when a message changed it."""
        dirty, self._dirty = self._dirty, set()
        in_strip = self.has_class("-narrow") and not self.has_class("-panel")
        (self.strip if in_strip else self.meters).redraw()
        self.bar.redraw()
        if Area.TRANSCRIPT in dirty:
            self.transcript.sync()
        if Area.LATENCY in dirty:
            self.plot.redraw()
        if dirty:
            self.facts.redraw()
            self.prompt.redraw()
            self.keys.redraw()
        if self.session.live.ended is not None:
            if Area.STATUS in dirty:
                self.transcript.note = self._note()
                self.transcript.refresh()
                if self.entry is not None and self.entry.kind != "search":
                    self.call_later(self.close_entry)
            if self._timer is not None and not self._dirty:
                self._timer.pause()

    def redraw_bars(self) -> None:
        super().redraw_bars()
        for line in (self.bar, self.heading, self.prompt, self.facts):
            line.redraw()

    def reading_changed(self) -> None:
        self.heading.redraw()
        self.keys.redraw()

    # -- what is available ------------------------------------------------------------------------

    def is_available(self, method: str) -> bool:
        reading = self.reading_available(method)
        if reading is not None:
            return reading
        live, can = self.session.live, self.session.capabilities
        if method in OVER_KEYS:
            return live.ended is not None and (
                method == "replay" or self.session.target.agent_row is not None
            )
        if method == "panel" or method == "leave" or method.startswith(("line_", "page_", "first", "last")):
            return True
        if live.ended is not None:
            return False
        if method in AUDIO_KEYS:
            return can.audio
        if method == "talk":
            return can.audio and live.push_to_talk
        if method == "say":
            return can.text
        if method == "inform":
            return can.context
        if method in ("approve", "deny"):
            return can.approvals and live.waiting_approval is not None
        return True

    def hints(self) -> Hints:
        if self.entry is not None:
            return SEARCH_HINTS if self.entry.kind == "search" else TYPING_HINTS
        live = self.session.live
        words = {
            "mute": "unmute" if live.muted else "mute",
            "talk": "stop talking" if live.held else "talk",
            "push_to_talk": "open microphone" if live.push_to_talk else "push to talk",
            "panel": "transcript" if self.has_class("-panel", "-narrow") else "line",
        }
        return [(key, words.get(method, word), method) for key, word, method in super().hints()]

    # -- what the operator does -------------------------------------------------------------------

    def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        self.console_app.perform(work, group="call")

    def action_end_call(self) -> None:
        self._do(self.session.end)

    def action_mute(self) -> None:
        on = not self.session.live.muted
        self._do(lambda: self.session.mute(on))

    def action_push_to_talk(self) -> None:
        on = not self.session.live.push_to_talk
        self._do(lambda: self.session.push_to_talk(on))

    def action_talk(self) -> None:
        """A terminal tells no release of a key: one press opens, the next one closes."""
        held = not self.session.live.held
        self._do(lambda: self.session.talk(held))

    def action_approve(self) -> None:
        self._answer(True)

    def action_deny(self) -> None:
        self._answer(False)

    def _answer(self, yes: bool) -> None:
        waiting = self.session.live.waiting_approval
        if waiting is not None:
            self._do(lambda: self.session.approve(waiting.tool_id, yes))

    def action_mark_now(self) -> None:
        self._do(self.session.mark)

    async def action_mark_note(self) -> None:
        await self.open_entry("mark", self.prompt)

    async def action_say(self) -> None:
        await self.open_entry("say", self.prompt)

    async def action_inform(self) -> None:
        await self.open_entry("inform", self.prompt)

    async def action_search(self) -> None:
        await self.open_entry("search", self.prompt)

    @on(EntryLine.Changed)
    def _typed(self, event: EntryLine.Changed) -> None:
        event.stop()
        if event.kind == "search":
            self.transcript.search(event.text)
        elif event.kind == "say" and event.text:
            now = self.session.now_ms()
            if self._told_typing is None or now - self._told_typing >= TYPING_MS:
                self._told_typing = now
                self._do(self.session.activity)

    @on(EntryLine.Done)
    async def _entered(self, event: EntryLine.Done) -> None:
        event.stop()
        text, session = event.text.strip(), self.session
        if event.kind == "say" and text:
            self._do(lambda: self._say(text))
            if self.entry is not None:
                self.entry.clear()  # open for the next message
            return
        await self.close_entry()
        if event.kind == "inform" and text:
            self._do(lambda: session.inform(text))
        elif event.kind == "mark":
            self._do(lambda: session.mark(text))

    async def _say(self, text: str) -> None:
        """What the limits, say, refuse stands in the line again, to be sent later."""
        try:
            await self.session.say(text)
        except ServiceError:
            if self.entry is not None:
                self.entry.restore(text)
            raise

    def action_devices(self) -> None:
        from screens.call_dialogs import DeviceDialog

        session, live = self.session, self.session.live

        def chosen(wanted: tuple[str | None, str | None] | None) -> None:
            if wanted is not None and any(wanted):
                self._do(lambda: session.switch(input=wanted[0], output=wanted[1]))

        self.app.push_screen(DeviceDialog(self.services.calls, live.devices, self.glyphs), chosen)

    def action_panel(self) -> None:
        self.toggle_class("-panel")
        self._changed(frozenset(Area))
        self.redraw_bars()

    def action_again(self) -> None:
        from screens.calling import begin_call

        row = self.session.target.agent_row
        if row is not None:
            begin_call(self, row, self.session.target.name, self.session.kind)

    def action_replay(self) -> None:
        from screens.calling import begin_replay

        begin_replay(self, self.session.id)

    async def action_leave(self) -> None:
        if self.entry is not None:
            searching = self.entry.kind == "search"
            await self.close_entry()
            if searching:
                self.transcript.search("")
        elif self.transcript.search_state is not None:
            self.transcript.search("")
        else:
            self.app.pop_screen()
