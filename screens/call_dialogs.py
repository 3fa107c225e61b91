"""Dialogs of calls: how to call an agent, which devices, where to write a recording."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Static

from screens.call_ports import Calls, Session
from screens.call_words import transport_words
from screens.dialogs import Choice, ConfirmDialog, Dialog, labelled
from screens.frame import Console, Frame
from screens.glyphs import Glyphs, Tone
from screens.textfit import cut, display, fit, sentence, wrap
from screens.widgets.line import Piece
from screens.widgets.lines import Lines, Row
from screens.widgets.table import Column, LineTable
from screens.widgets.table import Row as TableRow
from services.calls.messages import DevicesChanged
from services.calls.model import Brief, CallRow, TransportKind
from services.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from services.calls.service import CallRequest, Preparation

PAUSE = 0.25
"""Seconds after the last letter before the brief is read."""
MOST_PARTS = 8
USE_TONE = {"used": Tone.OK, "ignored": Tone.LOOK, "refused": Tone.ACT}
ABOUT = {
    TransportKind.MOCK: "a script on this machine, no vendor and no cost",
    TransportKind.TEXT: "you type, the agent answers; no audio",
    TransportKind.MICROPHONE: "your microphone and speaker",
    TransportKind.WEBRTC: "your microphone and speaker over WebRTC",
    TransportKind.PHONE: "the vendor dials a number; asks before it does",
}
FIELDS = {"number": TransportKind.PHONE, "scenario": TransportKind.MOCK}


class Ways(Choice):
    """The transports; enter begins the call."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.begin", "call", show=False)]


class Parts(Lines):
    """What becomes of the brief: each part with its size, and whether the agent takes it."""

    def __init__(self) -> None:
        super().__init__(ident="parts")
        self.preparation: Preparation | None = None

    def rows(self, width: int) -> list[Row]:
        prepared = self.preparation
        if prepared is None:
            return [([("the agent's own settings", Tone.MUTED)], [])]
        # What the agent would refuse stands first: it is what has to be changed.
        order = {"refused": 0, "ignored": 1, "used": 2}
        parts = sorted(prepared.parts, key=lambda part: order.get(part.use, 3))
        rows: list[Row] = []
        for part in parts[:MOST_PARTS]:
            size = f"{part.size:,}" if part.size else ""
            head: list[Piece] = [
                (fit(display(part.name), 20), Tone.PLAIN),
                (f"{size:>7}  ", Tone.MUTED),
                (fit(part.use, 9), USE_TONE.get(part.use, Tone.PLAIN)),
            ]
            rows.append(([*head, (cut(display(part.why), max(0, width - 38)), Tone.MUTED)], []))
        if len(parts) > MOST_PARTS:
            rows.append(([(f"and {len(parts) - MOST_PARTS} more", Tone.MUTED)], []))
        for warning in prepared.warnings:
            rows += [([(line, Tone.LOOK)], []) for line in wrap(display(warning), width)]
        return rows or [([("the agent's own settings", Tone.MUTED)], [])]


class PlaceDialog(ConfirmDialog):
    """Shows number and cost, and dials only for a yes."""

    def __init__(self, question: str) -> None:
        super().__init__("Place this phone call?", question)
        self.keys_text = "y calls   esc does not"


class CallDialog(Dialog[Session | None]):
    """How to call an agent. Gives the session that was begun."""

    keys_text = "enter calls   tab next field   esc cancel"

    def __init__(self, console: Console, agent_row: int, name: str, kind: TransportKind) -> None:
        self.title_text = f"Call {display(name)}"
        super().__init__()
        self._host = console
        self._calls: Calls = console.services.calls
        self._row, self._kind = agent_row, kind
        self._kinds = list(TransportKind)
        self._reasons: dict[TransportKind, str] = {}
        self._parts = Parts()
        self._waiting: Timer | None = None
        self._loaded: tuple[tuple[str, str, str], Brief] = (("", "", ""), Brief())

    def fields(self) -> Iterable[Widget]:
        yield labelled("Over", "left and right change it")
        ways = Ways([transport_words(kind) for kind in self._kinds], ident="way")
        ways.index = self._kinds.index(self._kind)
        yield ways
        yield Static("", classes="about")
        yield labelled("Number", "with + and the country's code").add_class("of-number")
        yield Input(id="number", placeholder="+49 30 1234567", classes="of-number")
        yield labelled("Scenario", "a YAML file; empty for the built-in one").add_class("of-scenario")
        yield Input(id="scenario", classes="of-scenario")
        yield labelled("Brief", "a YAML or JSON file; empty for none")
        yield Input(id="brief", placeholder="brief.yaml")
        yield labelled("Data", "a file of subjects and, after a blank, the row or name").add_class("of-data")
        yield Input(id="data", placeholder="patients.csv 12", classes="of-data")
        yield self._parts

    def on_mount(self) -> None:
        self.query_one("#way").focus()
        self._show_fields()
        self._look()

    # -- looking ahead ----------------------------------------------------------------------------

    @property
    def kind(self) -> TransportKind:
        return self._kinds[self.query_one("#way", Choice).index]

    def _value(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _show_fields(self) -> None:
        kind = self.kind
        for name, of in FIELDS.items():
            for field in self.query(f".of-{name}"):
                field.display = kind is of
        for field in self.query(".of-data"):
            field.display = bool(self._value("brief"))
        why = self._reasons.get(kind, "")
        about = self.query_one(".about", Static)
        about.set_class(bool(why), "-look")
        about.update(Content(sentence(f"not available: {display(why)}") if why else self._about(kind)))

    def _about(self, kind: TransportKind) -> str:
        """What a way is; and who would hear the operator as well."""
        also = [call for call in self._host.live.calls if call.capabilities.audio and not call.live.muted]
        if kind in (TransportKind.MICROPHONE, TransportKind.WEBRTC) and also:
            return f"{ABOUT[kind]}; {display(also[-1].target.name)} hears you, too: m there mutes"
        return ABOUT[kind]

    @on(Choice.Changed)
    def _way_changed(self) -> None:
        self._show_fields()
        self.say("")
        self._look()

    @on(Input.Changed)
    def _edited(self) -> None:
        self._show_fields()
        if self._waiting is not None:
            self._waiting.stop()
        self._waiting = self.set_timer(PAUSE, self._look)

    def _look(self) -> None:
        async def look() -> None:
            try:
                prepared = await self._calls.prepare(await self._request())
            except ServiceError as error:
                self.say(sentence(error.message, error.advice), Tone.LOOK)
                return
            self._show(prepared)

        if not self.busy:
            self.run_worker(look(), group="prepare", exit_on_error=False, exclusive=True)

    def _show(self, prepared: Preparation) -> None:
        self._reasons = dict(prepared.available)
        self._parts.preparation = prepared
        self._parts.redraw()
        self._show_fields()
        if prepared.refused:
            why = next((part.why for part in prepared.parts if part.use == "refused"), "")
            self.say(sentence("The call would be refused", display(why)), Tone.ACT)
        else:
            self.say("")

    async def _request(self, *, confirmed: bool = False) -> CallRequest:
        """What is asked for. Raises ServiceError for a brief that cannot be read."""
        from services.calls.service import CallRequest

        kind = self.kind
        scenario = self._value("scenario") if kind is TransportKind.MOCK else ""
        return CallRequest(
            self._row,
            kind,
            await self._brief(),
            scenario=_path(scenario),
            number=self._value("number") if kind is TransportKind.PHONE else "",
            confirmed=confirmed,
        )

    async def _brief(self) -> Brief:
        path, data = self._value("brief"), self._value("data")
        if not path:
            return Brief()
        file, row = await asyncio.to_thread(_data_and_row, data)
        wanted = (path, file, row)
        if self._loaded[0] != wanted:
            from services.calls.brief import load_brief

            brief = await load_brief(_path(path) or Path(), data=_path(file), row=_row(row))
            self._loaded = (wanted, brief)
        return self._loaded[1]

    # -- beginning --------------------------------------------------------------------------------

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_begin()

    def action_begin(self) -> None:
        if self.kind is TransportKind.MOCK:
            self.attempt(self._begin)
        else:
            self._host.after_unlock(lambda: self.attempt(self._begin))

    async def _begin(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()
        self._loaded = (("", "", ""), Brief())  # the file may have been saved since
        request = await self._request()
        why = self._reasons.get(request.transport, "")
        if why:
            raise UsageError(f"Not available: {why}", advice=self._other_way())
        self.say("preparing", Tone.MOVING)
        prepared = await self._calls.prepare(request)
        self._show(prepared)
        if prepared.refused:
            return
        if prepared.needs_confirmation:
            yes = await self.app.push_screen_wait(PlaceDialog(prepared.needs_confirmation))
            if not yes:
                self.say("Not called")
                return
            request = await self._request(confirmed=True)
        self.say("calling", Tone.MOVING)
        self.dismiss(await self._calls.start(request))

    def _other_way(self) -> str:
        """Without a device, typing still works."""
        text = TransportKind.TEXT
        if self.kind in (TransportKind.MICROPHONE, TransportKind.WEBRTC) and not self._reasons.get(text, ""):
            return "Text works here: choose it with the left and right arrow"
        return "Choose another way with the left and right arrow"


def _data_and_row(text: str) -> tuple[str, str]:
    """A path that may hold blanks, and behind its last blank the row of it; or only one of them."""
    if not text or Path(text).expanduser().exists():
        return text, ""
    file, blank, row = text.rpartition(" ")
    return (file.strip(), row) if blank else (text, "")


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _row(text: str) -> str | int | None:
    return int(text) if text.isdecimal() else text or None


class DeviceDialog(Dialog[tuple[str | None, str | None] | None]):
    """Other devices during a call. Gives the chosen (input, output), one of them None."""

    title_text = "Microphone and speaker"
    keys_text = "up and down choose   enter uses it   esc keeps"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("enter", "use", "use", show=False),
    ]

    def __init__(self, calls: Calls, now: DevicesChanged, glyphs: Glyphs) -> None:
        super().__init__()
        self._calls, self._now, self._glyphs = calls, now, glyphs
        self.table = LineTable((Column("device"), Column("", 8)), glyphs, ident="devices")
        self.table.empty = [("looking for devices", Tone.MUTED)]

    def fields(self) -> Iterable[Widget]:
        yield self.table

    def on_mount(self) -> None:
        self.attempt(self._read)

    async def _read(self) -> None:
        try:
            devices = await self._calls.devices()
        except ServiceError:
            self.table.empty = []
            self.table.refresh()
            raise
        rows: list[TableRow] = []
        for title, side, used in (
            ("microphone", "input", self._now.input),
            ("speaker", "output", self._now.output),
        ):
            fits = [each for each in devices if (each.inputs if side == "input" else each.outputs)]
            if fits:
                lead = self._glyphs.rule * 2
                rows.append(TableRow(None, ((f"{lead} {title}", Tone.MUTED), ("", Tone.MUTED)), heading=True))
            for device in fits:
                here = device.name == used
                tone = Tone.ACCENT if here else Tone.PLAIN
                rows.append(
                    TableRow((side, device.id), ((device.name, tone), ("in use" if here else "", Tone.MUTED)))
                )
        self.table.empty = [("There is no audio device", Tone.LOOK)]
        self.table.set_rows(rows)
        if not rows:
            self.say("Plug one in, then open this again; typing works without", Tone.LOOK)

    def action_move(self, by: int) -> None:
        self.table.move(by)

    @on(LineTable.Opened)
    def action_use(self) -> None:
        row = self.table.current
        if row is not None and row.key is not None:
            side, device = row.key
            self.dismiss((device, None) if side == "input" else (None, device))


class PathDialog(Dialog[Path]):
    """Asks for a folder."""

    keys_text = "enter writes   esc cancel"

    def __init__(self, title: str, path: Path) -> None:
        self.title_text = title
        super().__init__()
        self._path = path

    def fields(self) -> Iterable[Widget]:
        yield labelled("Folder", "is made if it is not there")
        yield Input(str(self._path), id="path", select_on_focus=False)

    def on_mount(self) -> None:
        self.query_one("#path").focus()

    @on(Input.Submitted, "#path")
    def _submitted(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if text:
            self.dismiss(Path(text).expanduser())
        else:
            self.say("Type a folder first", Tone.LOOK)


def ask_export(frame: Frame, row: CallRow) -> None:
    """Ask for a folder and write the call's recording there."""
    name = Path(row.folder).name if row.folder else f"call-{row.id}"

    def chosen(target: Path | None) -> None:
        async def write() -> None:
            written = await frame.services.calls.export(row.id, target or Path())
            frame.console_app.tell("Written", str(written))

        if target is not None:
            frame.console_app.perform(write, group="export")

    title = f"Export the call with {display(row.agent_name)}"
    frame.app.push_screen(PathDialog(title, Path("~") / name), chosen)
