"""The lines around a transcript: state and figures, facts, what can be typed or decided now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from screens.call_lines import LOOK_MS, arguments_text
from screens.call_ports import Session
from screens.call_words import UNKNOWN, cost_text, echo_words, end_lines, state_piece, transport_words
from screens.glyphs import Glyphs, Tone
from screens.textfit import cut, display, fit, width_of, wrap
from screens.widgets.line import Line, Piece
from screens.widgets.lines import Lines, Row
from screens.widgets.transcript import Transcript
from services.calls.live import LiveCall

LABEL = 12
MOST_LINES = 5


def fitting(pieces: Sequence[tuple[int, Sequence[Piece]]], room: int) -> list[Piece]:
    """As many groups as fit, the lowest rank first to stay, in their order."""
    kept: set[int] = set()
    for number in sorted(range(len(pieces)), key=lambda each: pieces[each][0]):
        needed = sum(width_of(text) for text, _ in pieces[number][1])
        if needed <= room:
            room -= needed
            kept.add(number)
    shown = [piece for number, (_, group) in enumerate(pieces) if number in kept for piece in group]
    if shown:
        shown[-1] = (shown[-1][0].rstrip() + " ", shown[-1][1])
    return shown


def latency_groups(live: LiveCall) -> list[tuple[int, Sequence[Piece]]]:
    """The newest latency and the percentiles, for `fitting`."""
    groups: list[tuple[int, Sequence[Piece]]] = []
    for rank, name, value in (
        (1, "last", live.last_ms),
        (4, "p50", live.latency_percentile(0.5)),
        (2, "p95", live.latency_percentile(0.95)),
    ):
        tone = Tone.LOOK if value is not None and value >= LOOK_MS else Tone.PLAIN
        shown = UNKNOWN if value is None else f"{value:,} ms" if name == "last" else f"{value:,}"
        groups.append((rank, [(f"{name} ", Tone.MUTED), (f"{shown}   ", tone)]))
    return groups


class CallBar(Line):
    """Whom, over what, in which state; latencies and cost."""

    def __init__(self, session: Session, glyphs: Glyphs) -> None:
        super().__init__(ident="callbar")
        self._session, self._glyphs = session, glyphs

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        session, live = self._session, self._session.live
        state = state_piece(live, session.now_ms(), self._glyphs)
        name = cut(display(session.target.name), max(16, width // 4))
        left: list[Piece] = [(f" {name}   ", "strong"), state, ("   ", Tone.PLAIN)]
        room = width - sum(width_of(text) for text, _ in left)
        how = transport_words(session.kind)
        badge: Sequence[Piece] = [(" SIMULATED ", "badge"), ("  ", Tone.PLAIN)]
        groups: list[tuple[int, Sequence[Piece]]] = [
            (3, [(f"{how}   ", Tone.MUTED)]),
            (7, [(f"{echo_words(live.echo)}   ", Tone.MUTED)] if live.echo else []),
            *latency_groups(live),
            (5, [("cost ", Tone.MUTED), (f"{cost_text(live.cost)} ", Tone.PLAIN)]),
        ]
        if session.capabilities.simulated:
            groups.insert(0, (6, badge))
        shown = fitting(groups, room)
        # What it travels over stands left, the figures right.
        at = next((n for n, (text, _) in enumerate(shown) if text == "last "), len(shown))
        return [*left, *shown[:at]], shown[at:]


class Heading(Line):
    """Over the transcript: how much is new below, where a search stands."""

    def __init__(self, transcript: Transcript, *, title: str = "transcript") -> None:
        super().__init__(ident="heading")
        self._transcript, self._title = transcript, title

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        transcript = self._transcript
        right: list[Piece] = []
        found = transcript.search_state
        if found is not None:
            here, count = found
            words = f"{here or 1} of {count} found" if count else "nothing found"
            right.append((f"{words}  ", Tone.LOOK if not count else Tone.ACCENT))
        if transcript.new_below:
            right.append((f"{transcript.new_below} new below, f follows ", Tone.ACCENT))
        elif not transcript.following:
            right.append(("f follows ", Tone.MUTED))
        return [(f" {self._title}", Tone.MUTED)], right


class Title(Line):
    """The name of a part of the side panel, at its right a figure."""

    def __init__(self, title: str, figure: Callable[[], str] = lambda: "", *, ident: str) -> None:
        super().__init__(ident=ident, classes="title")
        self._title, self._figure = title, figure

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        figure = self._figure()
        return [(f" {self._title}", Tone.MUTED)], [(f"{figure} ", Tone.MUTED)] if figure else []


class Facts(Lines):
    """Devices, echo, the line's quality, the numbers of the call. What is not known says so."""

    def __init__(self, session: Session) -> None:
        super().__init__(ident="facts")
        self._session = session

    def rows(self, width: int) -> list[Row]:
        session, live = self._session, self._session.live
        rows: list[Row] = []
        if session.capabilities.audio:
            rows += [
                self._row("microphone", display(live.devices.input) or UNKNOWN, width),
                self._row("speaker", display(live.devices.output) or UNKNOWN, width),
                self._row(
                    "echo", echo_words(live.echo).removeprefix("echo ") if live.echo else UNKNOWN, width
                ),
            ]
            if live.push_to_talk:
                word = "open, space closes it" if live.held else "closed, space opens it"
                rows.append(self._row("push to talk", word, width, Tone.OK if live.held else Tone.LOOK))
        quality = live.quality
        rows += [
            self._row("round trip", _unit(quality.round_trip_ms, "ms"), width),
            self._row(
                "jitter", f"{_unit(quality.jitter_ms, 'ms')}   loss {_unit(quality.loss_percent, '%')}", width
            ),
            ([], []),
            self._row(
                "turns",
                f"{live.user_turns} you, {live.agent_turns} agent   cut off {live.interruptions}",
                width,
            ),
            self._row("tools", str(live.tools), width),
            self._row("cost", cost_text(live.cost) + _so_far(live), width),
            self._row("id", display(live.conversation_id) or UNKNOWN, width),
        ]
        return rows

    def _row(self, label: str, value: str, width: int, tone: Tone = Tone.PLAIN) -> Row:
        pieces: list[Piece] = [(f" {fit(label, LABEL)} ", Tone.MUTED)]
        return [*pieces, (cut(value, width - LABEL - 3), Tone.MUTED if value == UNKNOWN else tone)], []


def _unit(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else f"{value:.0f} {unit}"


def _so_far(live: LiveCall) -> str:
    return " so far" if live.cost is not None and not live.cost.final and live.ended is None else ""


class Prompt(Lines):
    """Below the transcript: what to type; a question that waits for a yes; how the call ended."""

    def __init__(self, session: Session, glyphs: Glyphs) -> None:
        super().__init__(ident="prompt")
        self._session, self._glyphs = session, glyphs

    def rows(self, width: int) -> list[Row]:
        live, can = self._session.live, self._session.capabilities
        if live.ended is not None:
            return self._ended(live, width)
        waiting = live.waiting_approval
        if waiting is not None:
            arguments = arguments_text(waiting.arguments)
            question = f"Let {display(waiting.text)} run?"
            about = f"  with {arguments}" if arguments else ""
            keys: list[Piece] = [
                ("a", "key"),
                (" allow   ", Tone.PLAIN),
                ("d", "key"),
                (" deny ", Tone.PLAIN),
            ]
            return [([(f" {question}", Tone.LOOK), (about, Tone.PLAIN)], keys)]
        if live.push_to_talk:
            word, tone = ("speak, space closes the microphone", Tone.OK)
            if not live.held:
                word, tone = ("space opens the microphone", Tone.LOOK)
            return [([(f" {self._glyphs.cursor} ", Tone.ACCENT), (word, tone)], [])]
        if can.text:
            return [([(f" {self._glyphs.cursor} ", Tone.ACCENT), ("t types a message", Tone.MUTED)], [])]
        return [([(f" {self._glyphs.cursor} ", Tone.ACCENT), ("this call is spoken", Tone.MUTED)], [])]

    def _ended(self, live: LiveCall, width: int) -> list[Row]:
        """How it ended and what to do, whole, on as many lines as that takes."""
        words, advice = end_lines(live)
        well = live.ended is not None and live.ended.reason.well
        lines: list[Row] = []
        for sign, text, tone in (
            (self._glyphs.ok if well else self._glyphs.failed, words, Tone.PLAIN if well else Tone.ACT),
            (self._glyphs.arrow, advice, Tone.PLAIN),
        ):
            for number, line in enumerate(wrap(text, width - len(self._glyphs.arrow) - 3)):
                lead = sign if number == 0 else " "
                lines.append(([(f" {lead.ljust(len(self._glyphs.arrow))} {line}", tone)], []))
        return lines[:MOST_LINES]
