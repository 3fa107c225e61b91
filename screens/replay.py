"""A past call again: its transcript as it grew, on a timeline with both voices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from textual import events, on
from textual.timer import Timer
from textual.widget import Widget

from screens.actions import CALLS, REPLAY, bindings_of
from screens.call_bars import Heading, fitting, latency_groups
from screens.call_keys import TalkFrame
from screens.call_lines import clock_text
from screens.call_words import end_lines, money, transport_words
from screens.frame import Console
from screens.glyphs import Glyphs, Tone
from screens.textfit import cut, display, width_of
from screens.when import exact
from screens.widgets.bars import Hints
from screens.widgets.entry_line import EntryLine
from screens.widgets.line import Line, Piece
from screens.widgets.timeline import Moment, Timeline
from screens.widgets.transcript import Transcript
from services.calls.live import Area, LiveCall
from services.calls.model import END_WORDS
from services.calls.replay import SPEEDS, MarkKind

if TYPE_CHECKING:
    from services.calls.replay import Replay

STEP_MS = 5_000
TURNS = frozenset({MarkKind.USER, MarkKind.AGENT, MarkKind.INTERRUPTION})
NOTABLE = frozenset({MarkKind.MARK, MarkKind.INTERRUPTION, MarkKind.ERROR, MarkKind.TOOL})
NEAR_MS = 1_500
"""`turn before` goes to the turn before this one only within so much of its beginning."""
SEARCH_HINTS: Hints = [("enter", "keep", ""), ("esc", "drop", ""), ("n", "next, after enter", "")]


class ReplayBar(Line):
    """Whom, when, over what; playing or paused and how fast; what it came to."""

    def __init__(self, replay: Replay, zone: str, glyphs: Glyphs) -> None:
        super().__init__(ident="callbar")
        self._replay, self._zone, self._glyphs = replay, zone, glyphs

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        replay, row = self._replay, self._replay.recording.row
        sign, word = (self._glyphs.cursor, "plays") if replay.playing else (self._glyphs.pause, "paused")
        at = f"{clock_text(replay.position_ms)} / {clock_text(replay.duration_ms)}"
        speed = f"  {replay.speed:g}x" if replay.speed != 1 else ""
        tone = Tone.MOVING if replay.playing else Tone.MUTED
        left: list[Piece] = [
            (f" {cut(display(row.agent_name), max(16, width // 4))}   ", "strong"),
            (f"{sign} {word} {at}{speed}   ", tone),
        ]
        room = width - sum(width_of(text) for text, _ in left)
        when = exact(row.started_at, self._zone)
        groups: list[tuple[int, Sequence[Piece]]] = [
            (4, [(f"{transport_words(row.transport)}   ", Tone.MUTED)]),
            (6, [(f"{when}   ", Tone.MUTED)]),
            *latency_groups(replay.live),
            (5, [("cost ", Tone.MUTED), (f"{money(row.cost, row.currency)} ", Tone.PLAIN)]),
        ]
        shown = fitting(groups, room)
        at_figures = next((n for n, (text, _) in enumerate(shown) if text == "last "), len(shown))
        return [*left, *shown[:at_figures]], shown[at_figures:]


class Remark(Line):
    """How the call ended, and whether anything is heard."""

    def __init__(self, replay: Replay, glyphs: Glyphs) -> None:
        super().__init__(ident="remark")
        self._replay, self._glyphs = replay, glyphs

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        replay, row = self._replay, self._replay.recording.row
        well = row.reason is not None and row.reason.well
        words = end_lines(replay.live)[0]
        if not words:
            words = f"Ended: {END_WORDS[row.reason]}" if row.reason is not None else "This call goes on"
        sound = self._sound()
        left: list[Piece] = [(f" {words}", Tone.MUTED if well else Tone.LOOK)]
        return left, [(f"{sound} ", Tone.LOOK if replay.problem else Tone.MUTED)] if sound else []

    def _sound(self) -> str:
        replay = self._replay
        if not replay.has_audio:
            return "silent: this recording has no audio"
        if replay.problem:
            return f"silent: {display(replay.problem)}"
        return "" if replay.speed == 1 else "silent: heard at 1x only"


class ReplayScreen(TalkFrame):
    """One recording."""

    place = REPLAY
    tab = CALLS
    BINDINGS = bindings_of(REPLAY)

    def __init__(self, console: Console, replay: Replay) -> None:
        super().__init__(console)
        self.replay = replay
        self.bar = ReplayBar(replay, self.zone, self.glyphs)
        self.transcript = Transcript(lambda: replay.live, self.glyphs, ident="transcript")
        self.heading = Heading(self.transcript)
        self.timeline = Timeline(
            lambda: Moment(replay.position_ms, replay.duration_ms),
            replay.events,
            self.glyphs,
            voices=replay.has_audio,
        )
        self.remark = Remark(replay, self.glyphs)
        self._dirty: set[Area] = set(Area)
        self._timer: Timer | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    def work(self) -> Iterable[Widget]:
        yield self.bar
        yield self.heading
        yield self.transcript
        yield self.timeline
        yield self.remark

    @property
    def picture(self) -> LiveCall:
        return self.replay.live

    def on_mount(self) -> None:
        self.transcript.note = self._note()
        self._unsubscribe = self.replay.subscribe(self._changed)
        self._timer = self.set_interval(self.console_app.flush_every, self._beat, name="replay")
        # The whole call is there to be read at once; playing begins at its start.
        self.replay.seek(self.replay.duration_ms)

    async def on_unmount(self) -> None:
        self._unsubscribe()
        await self.replay.aclose()

    def _note(self) -> list[tuple[str, Tone]]:
        if not self.replay.recording.messages:
            return [
                ("Nothing of this call was kept", Tone.PLAIN),
                ("", Tone.PLAIN),
                ("its folder is gone, or the company keeps no transcripts", Tone.MUTED),
            ]
        return [("nothing was said yet", Tone.MUTED), ("", Tone.PLAIN), ("space plays", Tone.MUTED)]

    @on(events.Resize)
    def _resized(self) -> None:
        self.call_after_refresh(lambda: self.console_app.perform(self._read_waves, group="waves"))

    async def _read_waves(self) -> None:
        """Both voices for the width there is."""
        room = self.timeline.room
        for track in ("you", "agent"):
            self.timeline.waves[track] = await self.replay.waveform(track, room)
        if self.is_mounted:
            self.timeline.redraw()

    # -- moving -----------------------------------------------------------------------------------

    def _changed(self, areas: frozenset[Area]) -> None:
        self._dirty |= areas
        if self._timer is not None:
            self._timer.resume()

    def _beat(self) -> None:
        dirty, self._dirty = self._dirty, set()
        self.bar.redraw()
        self.timeline.redraw()
        if Area.TRANSCRIPT in dirty:
            self.transcript.sync()
        if dirty - {Area.STATUS}:
            self.remark.redraw()
            self.keys.redraw()
        if not self.replay.playing:
            self.remark.redraw()
            self.keys.redraw()
            if self._timer is not None and not self._dirty:
                self._timer.pause()

    def redraw_bars(self) -> None:
        super().redraw_bars()
        for line in (self.bar, self.heading, self.remark):
            line.redraw()

    def reading_changed(self) -> None:
        self.heading.redraw()
        self.keys.redraw()

    def is_available(self, method: str) -> bool:
        reading = self.reading_available(method)
        if reading is not None:
            return reading
        if method == "jump_here":
            return self.transcript.cursor is not None
        if method == "faster":
            return self.replay.speed < SPEEDS[-1]
        if method == "slower":
            return self.replay.speed > SPEEDS[0]
        return True

    def hints(self) -> Hints:
        if self.entry is not None:
            return SEARCH_HINTS
        words = {"play": "pause" if self.replay.playing else "play"}
        return [(key, words.get(method, word), method) for key, word, method in super().hints()]

    # -- keys -------------------------------------------------------------------------------------

    def action_play(self) -> None:
        if self.replay.playing:
            self.replay.pause()
        else:
            self.transcript.follow()
            self.replay.play()

    def _seek(self, ms: int) -> None:
        self.transcript.follow()
        self.replay.seek(ms)

    def action_back_5(self) -> None:
        self._seek(self.replay.position_ms - STEP_MS)

    def action_ahead_5(self) -> None:
        self._seek(self.replay.position_ms + STEP_MS)

    def action_turn_next(self) -> None:
        self._next(TURNS)

    def action_mark_next(self) -> None:
        self._next(NOTABLE)

    def _next(self, kinds: frozenset[MarkKind]) -> None:
        now = self.replay.position_ms
        later = (mark.t for mark in self.replay.events if mark.kind in kinds and mark.t > now)
        self._seek(next(later, self.replay.duration_ms))

    def action_turn_before(self) -> None:
        now = self.replay.position_ms - (NEAR_MS if self.replay.playing else 1)
        earlier = [mark.t for mark in self.replay.events if mark.kind in TURNS and mark.t <= now]
        self._seek(earlier[-1] if earlier else 0)

    def action_faster(self) -> None:
        self.replay.set_speed(next((speed for speed in SPEEDS if speed > self.replay.speed), SPEEDS[-1]))

    def action_slower(self) -> None:
        slower = [speed for speed in SPEEDS if speed < self.replay.speed]
        self.replay.set_speed(slower[-1] if slower else SPEEDS[0])

    def action_jump_here(self) -> None:
        entry = self.transcript.current
        if self.transcript.cursor is not None and entry is not None:
            self._seek(entry.t)
            self.replay.play()

    @on(Timeline.Jumped)
    def _jumped(self, event: Timeline.Jumped) -> None:
        event.stop()
        self._seek(event.ms)

    def action_export(self) -> None:
        from screens.call_dialogs import ask_export

        ask_export(self, self.replay.recording.row)

    async def action_search(self) -> None:
        await self.open_entry("search", self.keys)

    @on(EntryLine.Changed)
    def _typed(self, event: EntryLine.Changed) -> None:
        event.stop()
        self.transcript.search(event.text)

    @on(EntryLine.Done)
    async def _entered(self, event: EntryLine.Done) -> None:
        event.stop()
        await self.close_entry()

    async def action_leave(self) -> None:
        if self.entry is not None or self.transcript.search_state is not None:
            await self.close_entry()
            self.transcript.search("")
        else:
            self.app.pop_screen()
