"""The lines around the work: where am I, how many of what, how far is the sync, which keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style

from screens.actions import ACTIVITY, AGENTS, CALLS, COMPANIES, HEALTH
from screens.glyphs import OVERALL, STATE_TONE, Glyphs, State, Tone
from screens.live import Live
from screens.textfit import cut, display, width_of
from screens.when import clock_time
from screens.widgets.line import Line, Piece
from services.agents.progress import LiveSync
from services.clock import Clock
from services.model import AgentCard, ErrorInfo, RunStatus
from services.text import age

if TYPE_CHECKING:
    from textual.timer import Timer

    from screens.call_ports import Session

NARROW = 100
"""Below this width the name of the program gives way to what the operator needs to know."""
TIGHT = 72
"""Below this width the tabs that are not open are their numbers alone."""
TABS = (
    (AGENTS, "1 Agents"),
    (CALLS, "2 Calls"),
    (COMPANIES, "3 Companies"),
    (HEALTH, "4 Health"),
    (ACTIVITY, "5 Activity"),
)


class TopBar(Line):
    """Name, tabs; at the right whose data, demo or offline, where keys are kept, when the next sync is."""

    def __init__(self, live: Live, place: str, zone: str, glyphs: Glyphs) -> None:
        super().__init__(ident="top")
        self._live, self._place, self._zone, self._glyphs = live, place, zone, glyphs
        self.tells_call = True
        """Whether a call that goes on is shown here; its own screen shows it already."""
        self._ticking: Timer | None = None
        self._links: dict[str, str] = {}
        """What a click on a piece does, by its text."""

    def redraw(self) -> None:
        """A call that goes on is shown with its duration, so each second counts as a change."""
        if self._live.calls and self._ticking is None and self.is_attached:
            self._ticking = self.set_interval(1.0, self.redraw, name="live call")
        elif not self._live.calls and self._ticking is not None:
            self._ticking.stop()
            self._ticking = None
        super().redraw()

    def on_mount(self) -> None:
        self.redraw()

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        narrow = width < NARROW
        self._links = {title: f"app.go_{place}" for place, title in TABS}
        left: list[Piece] = [(" ", Tone.MUTED)] if narrow else [(" callboard  ", "strong")]
        for place, title in TABS:
            tone: Tone | str = "tab" if place == self._place else Tone.MUTED
            if width < TIGHT and place != self._place:
                title = title.partition(" ")[0]
                self._links[title] = f"app.go_{place}"
            if narrow and place == HEALTH:
                left += self._health_tab(title, tone)
            else:
                left.append((title, tone))
            left.append((" " if narrow else "  ", Tone.MUTED))
        room = width - sum(width_of(text) for text, _ in left) - 1
        return left, self._facts(room, narrow)

    def _health_tab(self, title: str, tone: Tone | str) -> list[Piece]:
        """Where there is no room for both, the tab says how everything is instead of its name."""
        health = self._live.health
        if health is None:
            return [(title, tone)]
        state, colour = OVERALL[health.overall.value]
        number = title.partition(" ")[0]
        word = title.partition(" ")[2] if colour is Tone.OK else health.overall.value.capitalize()
        pieces: list[Piece] = [(number, tone), (f" {self._glyphs.states[state]}", colour)]
        if word:
            pieces.append((f" {word}", tone if colour is Tone.OK else colour))
        self._links.update((text, "app.go_health") for text, _ in pieces)
        return pieces

    def _facts(self, room: int, narrow: bool) -> list[Piece]:
        """As many facts as fit, the most important ones first to stay, in their fixed order."""
        live = self._live
        companies = live.board.companies
        facts: list[tuple[int, Piece]] = []  # rank, piece
        if live.failure and live.board.loaded:
            since = clock_time(live.failed_at, live.services.clock.now(), self._zone)
            words = f"{self._glyphs.failed} stale{'' if narrow else ' since'} {since}"
            facts.append((0, (words, Tone.ACT)))
        if live.calls and self.tells_call:
            call = self._call(live.calls[-1], room)
            self._links[call] = "app.go_call"
            facts.append((0, (call, Tone.OK)))
        if live.services.demo is not None:
            facts.append((0, (" DEMO ", "badge")))
        if len(companies) == 1:
            facts.append((2, (cut(display(next(iter(companies))), 24), Tone.PLAIN)))
        elif companies:
            facts.append((2, (f"{len(companies)} companies", Tone.PLAIN)))
        if live.health is not None and not narrow:
            state, tone = OVERALL[live.health.overall.value]
            whole = f"{self._glyphs.states[state]} {live.health.overall.value}"
            self._links[whole] = "app.go_health"
            facts.append((1, (whole, tone)))
        if live.offline:
            facts.append((1, (f"{self._glyphs.failed} offline", Tone.ACT)))
        if live.secret_label:
            short = live.secret_label.split(" (")[0]
            if live.secret_locked:
                locked = f"{short}, locked"
                facts.append((1, (locked if width_of(locked) + 2 <= room else "keys locked", Tone.LOOK)))
            else:
                facts.append((3, (short, Tone.MUTED)))
        if live.next_at is not None:
            at = clock_time(live.next_at, live.services.clock.now(), self._zone)
            facts.append((4, (f"next {at}" if narrow else f"next sync {at}", Tone.MUTED)))
        kept: set[int] = set()
        for number in sorted(range(len(facts)), key=lambda each: facts[each][0]):
            rank, (text, colour) = facts[number]
            if width_of(text) + 2 > room and text.startswith("next sync"):
                facts[number] = (rank, (text.replace("next sync", "next", 1), colour))
            needed = width_of(facts[number][1][0]) + 2
            if needed <= room:
                room -= needed
                kept.add(number)
        pieces: list[Piece] = []
        for number, (_, piece) in enumerate(facts):
            if number in kept:
                pieces += [piece, ("  ", Tone.PLAIN)]
        if pieces:
            pieces[-1] = (" ", Tone.PLAIN)
        return pieces

    def _call(self, session: Session, room: int) -> str:
        """The call that goes on; a click leads to it, and the key line says which key does."""
        seconds = session.live.duration(session.now_ms()) // 1000
        state = f"{seconds // 60:02}:{seconds % 60:02}" if session.live.live_at is not None else "calling"
        more = f" +{len(self._live.calls) - 1}" if len(self._live.calls) > 1 else ""
        words = f"{self._glyphs.ok} live {state}"
        name = cut(display(session.target.name), min(24, room - width_of(words + more) - 3))
        return f"{words} {name}{more}" if len(name) > 3 else f"{words}{more}"

    def segment(self, text: str, name: Tone | str) -> Segment:
        if text in self._links:
            return Segment(text, self.style_of(name) + Style.from_meta({"@click": self._links[text]}))
        return super().segment(text, name)


class CountsBar(Line):
    """How many agents in which state; at the right the marks, the filter and the order."""

    def __init__(self, live: Live, glyphs: Glyphs) -> None:
        super().__init__(ident="counts")
        self._live, self._glyphs = live, glyphs
        self.problem = ""
        """What is wrong with the filter being typed."""

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        board = self._live.board
        right: list[Piece] = []
        if board.marks:
            right.append((f"{self._glyphs.mark} {len(board.marks)} marked  ", Tone.ACCENT))
        if self.problem:
            right.append((f"{cut(self.problem, width // 2)}  ", Tone.LOOK))
        elif board.filter:
            right.append((f"/ {cut(display(board.filter.text), max(12, width // 3))}  ", Tone.ACCENT))
        right.append((f"by {board.sort} ", Tone.MUTED))
        if not board.loaded:
            return [], right
        total, shown = len(board.cards), len(board.shown)
        count = f"{shown:,} of {total:,}" if board.filter else f"{total:,}"
        left: list[Piece] = [(f" {count} agent{'' if total == 1 else 's'}  ", "strong")]
        room = width - sum(width_of(text) for text, _ in (*left, *right)) - 1
        states = [state for state in (State.IN_SYNC, *State) if board.counts[state]]
        for state in dict.fromkeys(states):
            glyph, number = self._glyphs.states[state], board.counts[state]
            text = f" {glyph} {number:,} {state.value} "
            if width_of(text) > room:
                text = f" {glyph} {number:,} "
            if width_of(text) > room:
                break
            room -= width_of(text)
            left.append((text, STATE_TONE[state]))
        return left, right


class SyncBar(Line):
    """The running sync with its progress; after it what came out; between syncs how old the mirror is."""

    def __init__(
        self, live: Live, glyphs: Glyphs, clock: Clock, current: Callable[[], AgentCard | None]
    ) -> None:
        super().__init__(ident="sync")
        self._live, self._glyphs, self._clock, self._current = live, glyphs, clock, current
        self.dismissed = ""
        """The run whose result has been read; from then on the line is about the card under the cursor."""

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        sync = self._live.sync
        if self._live.failure and self._live.board.shown:
            return [(f" {self._glyphs.failed} {display(self._live.failure)}", Tone.ACT)], []
        if sync is None or self.dismissed == sync.run_id:
            card = self._current()
            failed = card is not None and self._live.board.state(card) is State.ERROR
            return self._why(card.error) if failed and card and card.error else self._idle()
        return self._progress(sync, width) if not sync.finished else self._result(sync)

    def _why(self, error: ErrorInfo) -> tuple[Sequence[Piece], Sequence[Piece]]:
        """The whole cause and advice of the card under the cursor: a card has little room for them."""
        cause = (f" {self._glyphs.failed} {display(error.message)}", Tone.ACT)
        return [cause, (f"  {self._glyphs.arrow} {display(error.advice)}", Tone.PLAIN)], []

    def _idle(self) -> tuple[Sequence[Piece], Sequence[Piece]]:
        at = self._live.last_sync_at
        demo: list[Piece] = []
        if self._live.services.demo is not None:
            demo = [("a demo company on this machine; 3 connects your own ", Tone.MUTED)]
        if at is None or not self._live.board.cards:
            return [], demo
        old = age(at, self._clock.now())
        return [(f" last sync {'just now' if old == 'now' else f'{old} ago'}", Tone.MUTED)], demo

    def _progress(self, sync: LiveSync, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        glyph = self._glyphs.states[State.SYNCING]
        verb = "reading all of" if sync.forced else "syncing"
        head = (
            f" {glyph} {verb} {sync.settled:,}/{sync.total:,}  "
            if sync.total
            else f" {glyph} listing {display(sync.scope)}  "
        )
        counts = self._counts(sync)
        right: list[Piece] = [*counts, ("esc cancels ", Tone.MUTED)]
        room = width - width_of(head) - sum(width_of(text) for text, _ in right) - 3
        bar = self._bar(sync.settled / sync.total if sync.total else 0.0, min(40, room)) if room >= 6 else ""
        return [(head, Tone.MOVING), (bar, Tone.MOVING)], right

    def _result(self, sync: LiveSync) -> tuple[Sequence[Piece], Sequence[Piece]]:
        glyphs = self._glyphs
        counts = self._counts(sync)
        match sync.status:
            case RunStatus.CANCELLED | RunStatus.INTERRUPTED:
                where = f"{sync.status.value} at {sync.settled:,}/{sync.total:,}"
                head: Piece = (f" {glyphs.states[State.PENDING]} {where}  ", Tone.LOOK)
                return [head, *counts], [("r resumes ", Tone.ACCENT)]
            case RunStatus.FAILED:
                why = display(sync.message) or "no agent could be synced"
                return [(f" {glyphs.failed} sync failed: ", Tone.ACT), (why, Tone.PLAIN)], []
            case RunStatus.PARTIAL:
                why = f"{display(sync.message)}  " if sync.message else ""
                return [(f" {glyphs.failed} partly synced  ", Tone.LOOK), *counts, (why, Tone.PLAIN)], []
        return [(f" {glyphs.ok} synced {display(sync.scope)}  ", Tone.OK), *counts], []

    def _counts(self, sync: LiveSync) -> list[Piece]:
        tones = {"failed": Tone.ACT, "created": Tone.OK, "updated": Tone.OK}
        order = ("unchanged", "updated", "created", "gone", "cancelled", "failed")
        return [
            (f"{sync.counts[name]:,} {name}  ", tones.get(name, Tone.PLAIN))
            for name in order
            if sync.counts.get(name)
        ]

    def _bar(self, share: float, width: int) -> str:
        glyphs = self._glyphs
        eighths = round(min(1.0, share) * width * 8)
        full, rest = divmod(eighths, 8)
        part = glyphs.bar_parts[rest] if glyphs.bar_parts and full < width and rest else ""
        return (glyphs.bar_full * full + part).ljust(width, glyphs.bar_rest) + "  "


Hints = list[tuple[str, str, str]]
"""Key, label and the action to run when it is clicked (empty for none)."""


class KeyLine(Line):
    """The keys that are valid now, the more important ones first, as many as fit; `? keys` always."""

    def __init__(self, hints: Callable[[], Hints]) -> None:
        super().__init__(ident="keys")
        self._hints = hints

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        hints = self._hints()
        last = hints[-1:] if hints and hints[-1][0] == "?" else []
        room = width - 1 - sum(len(key) + len(label) + 3 for key, label, _ in last)
        pieces: list[Piece] = [(" ", Tone.MUTED)]
        for key, label, _ in hints[: len(hints) - len(last)]:
            needed = width_of(key) + width_of(label) + 3
            if needed > room:
                continue
            room -= needed
            pieces += [(key, "key"), (f" {label}  ", Tone.MUTED)]
        for key, label, _ in last:
            pieces += [(key, "key"), (f" {label}", Tone.MUTED)]
        return pieces, []
