"""The demo's switch on the health screen: let a vendor or a partner fail as real ones do, and mend it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from screens.dialogs import Choice, Dialog, labelled
from screens.glyphs import Tone
from screens.health_dialogs import Deciding
from screens.ports import DemoControl
from screens.textfit import display
from services.health.model import CheckKind, CheckView

if TYPE_CHECKING:
    from screens.health import HealthScreen


@dataclass(frozen=True, slots=True)
class Way:
    """One way to fail: the simulator's word for it, ours, and what it leads to."""

    fault: str
    word: str
    consequence: str


WAYS = (
    Way("503", "is down", "answers everything with 503. After two failed checks it is down"),
    Way("hang", "hangs", "takes every request and never answers. After two checks in vain it is down"),
    Way("429", "throttles", "answers 429, too many requests. It is degraded, not down"),
    Way("revoke", "refuses the key", "no longer knows the key. It is down at once for good: no retry helps"),
)


class DemoKeys:
    """Mixed into the health screen."""

    def broken_by(self, check: CheckView) -> CheckView | None:
        """The check of the vendor or the partner that breaking this line breaks; None if there is none."""
        host = cast("HealthScreen", self)
        if host.services.demo is None:
            return None
        if check.kind is CheckKind.AGENT:
            above = (host.board.checks.get(ident) for ident in check.depends_on)
            return next((each for each in above if each and each.kind is CheckKind.PROVIDER), None)
        return check if host.services.demo_control.service_of(check.id, check.name) else None

    def action_break_vendor(self) -> None:
        host = cast("HealthScreen", self)
        check = self.broken_by(host.current) if host.current is not None else None
        if check is None:
            return
        control = host.services.demo_control
        service = control.service_of(check.id, check.name)

        def done(text: str | None) -> None:
            if text:
                host.console_app.tell(text, "it is checked now")
                host.check_again(check.id)

        async def ask() -> None:
            faults = await control.faults_of(service)
            host.app.push_screen(
                MendDialog(control, service, check, faults)
                if faults
                else BreakDialog(control, service, check),
                done,
            )

        host.console_app.perform(ask, group="demo")


class BreakDialog(Dialog[str]):
    """Asks how it is to fail; the dialog is the question. Gives what was done, in words."""

    keys_text = "enter does it   left and right change it   esc cancel"

    def __init__(self, control: DemoControl, service: str, check: CheckView) -> None:
        self.title_text = f"Let {display(check.name)} fail"
        super().__init__()
        self._control, self._service, self._check = control, service, check

    def fields(self) -> Iterable[Widget]:
        text = "Only the simulator of this demo is concerned, until B is pressed again."
        yield Static(Content(text), classes="text")
        yield labelled(f"From now on {display(self._check.name)} …")
        yield Deciding([way.word for way in WAYS], ident="way")
        yield Static("", id="consequence", classes="about")

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Choice))  # not `focus()`: the next key may be here
        self._tell_consequence()

    @property
    def _way(self) -> Way:
        return WAYS[self.query_one(Choice).index]

    @on(Choice.Changed)
    def _tell_consequence(self) -> None:
        count = self._check.dependents
        hang = f" {count:,} checks hang on it and wait: one cause, one alert." if count else ""
        if self._way.fault == "429":
            hang = ""
        text = f"It {self._way.consequence}.{hang} Syncs and calls meet it too."
        self.query_one("#consequence", Static).update(Content(text))

    def action_switch(self) -> None:
        async def switch() -> None:
            self.say("working", Tone.MOVING)
            await self._control.break_service(self._service, self._way.fault)
            self.dismiss(f"{display(self._check.name)} {self._way.word} from now on; B mends it")

        self.attempt(switch)


class MendDialog(Dialog[str]):
    """Takes away what makes it fail. Gives what was done, in words."""

    keys_text = "enter mends it   esc cancel"

    def __init__(self, control: DemoControl, service: str, check: CheckView, faults: Sequence[str]) -> None:
        self.title_text = f"Mend {display(check.name)}"
        super().__init__()
        self._control, self._service, self._check, self._faults = control, service, check, faults

    def fields(self) -> Iterable[Widget]:
        faults = ", ".join(display(fault) for fault in self._faults)
        yield Static(Content(f"The simulator lets it fail: {faults}."), classes="text")
        yield Deciding(["let it answer again"], ident="way")

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Choice))  # not `focus()`: the next key may be here

    def action_switch(self) -> None:
        async def switch() -> None:
            self.say("working", Tone.MOVING)
            await self._control.mend_service(self._service)
            self.dismiss(f"{display(self._check.name)} answers again")

        self.attempt(switch)
