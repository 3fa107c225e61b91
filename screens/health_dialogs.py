"""The dialogs of the health screen: a breaker closed or opened by hand, a time of maintenance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from screens.dialogs import Choice, Dialog, labelled
from screens.glyphs import Tone
from screens.health_ports import Health
from screens.health_words import KIND_TITLES, countdown
from screens.textfit import display
from screens.when import exact
from services.errors import UsageError
from services.health.model import CheckView, HealthState, Window
from services.resilience import BreakerState

if TYPE_CHECKING:
    from screens.health import HealthScreen

LONGEST = 30 * 24 * 60
"""Minutes that maintenance may last: who wants more forgot to end it."""
_PART = re.compile(r"(\d+(?:[.,]\d+)?)\s*(minutes|minute|mins|min|m|hours|hour|h|days|day|d)?")
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}


def parse_minutes(text: str) -> int:
    """Minutes of `90`, `45 min`, `2h`, `1 d 12 h`. Raises UsageError (code `bad_duration`)."""
    wanted = text.strip().lower()
    parts = _PART.findall(wanted)
    total = sum(float(number.replace(",", ".")) * _MINUTES[unit[:1] or "m"] for number, unit in parts)
    minutes = round(total)
    if _PART.sub("", wanted).strip() or not 1 <= minutes <= LONGEST:
        raise UsageError(
            f"{text.strip()!r} is no time from one minute to 30 days",
            advice="Write 90, 45 min, 2 h or 1 d",
            code="bad_duration",
        )
    return minutes


def ask_breaker(screen: HealthScreen, check: CheckView) -> None:
    """Ask what is to be done with the breaker, and do it."""

    def done(word: str | None) -> None:
        if word:
            screen.console_app.tell(f"The breaker of {display(check.name)} is {word}")

    # As it is now: what is on the screen may be a flush behind.
    found = next((each for each in screen.services.health.view().checks if each.id == check.id), None)
    elapsed = screen.elapsed if found is None or found is check else 0.0
    screen.app.push_screen(BreakerDialog(screen.services.health, found or check, elapsed), done)


def ask_maintenance(screen: HealthScreen, check: CheckView) -> None:
    """Ask how long and why, or whether it is to end, and do it."""

    async def open_dialog() -> None:
        from services.health.maintenance import running

        spans = running(await screen.services.health.maintenance(), screen.services.clock.now())
        windows = [span.window for span in spans if _covers(span.window, check)]
        dialog: Dialog[str]
        if windows and check.state is HealthState.MAINTENANCE:
            dialog = EndMaintenanceDialog(screen.services.health, check, windows, screen.zone)
        else:
            dialog = MaintenanceDialog(screen.services.health, check)
        screen.app.push_screen(dialog, told)

    def told(text: str | None) -> None:
        if text:
            screen.console_app.tell(text)

    screen.console_app.perform(open_dialog, group="health")


def _covers(window: Window, check: CheckView) -> bool:
    company = f"company:{check.company}".casefold()
    return window.scope in ("*", check.id, check.kind.value) or window.scope.casefold() == company


class Deciding(Choice):
    """The only field of a dialog: enter does what it says instead of going to the next field."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.switch", "do it", show=False)]


class BreakerDialog(Dialog[str]):
    """Closes the breaker or opens it by hand; the dialog is the question. Gives what it is then."""

    keys_text = "enter does it   left and right change it   esc cancel"
    WORDS = ("close it", "open it")

    def __init__(self, health: Health, check: CheckView, elapsed: float) -> None:
        """`elapsed`: seconds since the check was viewed."""
        self.title_text = f"Breaker of {display(check.name)}"
        super().__init__()
        self._health, self._check, self._elapsed = health, check, elapsed

    def fields(self) -> Iterable[Widget]:
        yield Static(Content(self._standing()), classes="text")
        yield Deciding(list(self.WORDS), ident="breaker-choice")
        yield Static("", id="consequence", classes="about")

    def _standing(self) -> str:
        breaker = self._check.breaker
        if breaker is None:
            return "It has not been used yet."
        view = self._health.view()
        shared = ", and shared with other processes" if breaker.shared else ""
        if not breaker.shared and view.prober and not view.started:
            shared = " in the process that probes"
        left = breaker.reopens_in - self._elapsed
        match breaker.state:
            case BreakerState.CLOSED:
                return f"It is closed{shared}: requests pass."
            case BreakerState.HALF_OPEN:
                return f"It is half open{shared}: a few requests pass, to try."
        again = f"in {countdown(left)}" if left > 0 else "now"
        return f"It is open{shared}: the next request passes {again}."

    def on_mount(self) -> None:
        choice = self.query_one(Choice)
        breaker = self._check.breaker
        if breaker is not None and breaker.state is BreakerState.CLOSED:
            choice.action_turn(1)
        self.set_focus(choice)  # not `focus()`, which waits its turn: the next key may be here
        self._tell_consequence()

    @on(Choice.Changed)
    def _tell_consequence(self) -> None:
        name = display(self._check.name)
        if self._closes:
            text = f"Requests to {name} are let through again at once, whatever they meet."
        else:
            hang = f" {self._check.dependents:,} checks hang on it." if self._check.dependents else ""
            text = f"Every request to {name} is refused at once, for the breaker's usual time.{hang}"
        about = self.query_one("#consequence", Static)
        about.set_class(not self._closes, "-look")
        about.update(Content(text))

    @property
    def _closes(self) -> bool:
        return self.query_one(Choice).value == self.WORDS[0]

    def action_switch(self) -> None:
        async def switch() -> None:
            self.say("working", Tone.MOVING)
            if self._closes:
                await self._health.reset_breaker(self._check.id)
            else:
                await self._health.trip_breaker(self._check.id)
            self.dismiss("closed" if self._closes else "open")

        self.attempt(switch)


class MaintenanceDialog(Dialog[str]):
    """Begins a time in which something may fail without an alert. Gives what was done, in words."""

    keys_text = "enter begins it   tab next field   esc cancel"

    def __init__(self, health: Health, check: CheckView) -> None:
        self.title_text = "Begin maintenance"
        super().__init__()
        self._health, self._check = health, check
        self._scopes = {display(check.name): check.id}
        if check.company:
            self._scopes[f"all of {display(check.company)}"] = f"company:{check.company}"
        self._scopes[f"all {KIND_TITLES[check.kind]}"] = check.kind.value
        self._scopes["everything"] = "*"

    def fields(self) -> Iterable[Widget]:
        yield Static(Content("It is checked and shown meanwhile, but alerts nobody."), classes="text")
        yield labelled("Of what", "left and right change it")
        yield Choice(list(self._scopes), ident="scope")
        yield labelled("How long", "90, 45 min, 2 h, 1 d")
        yield Input("60 min", id="minutes", max_length=20)
        yield labelled("Why", "for whoever sees it")
        yield Input(id="reason", max_length=200)

    def on_mount(self) -> None:
        self.query_one("#minutes", Input).focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()

        async def begin() -> None:
            minutes = parse_minutes(self.query_one("#minutes", Input).value)
            reason = self.query_one("#reason", Input).value.strip()
            label = self.query_one("#scope", Choice).value
            await self._health.add_maintenance(self._scopes[label], minutes=minutes, reason=reason)
            self.dismiss(f"Maintenance of {label} for {_lasting(minutes)}")

        self.attempt(begin)


class EndMaintenanceDialog(Dialog[str]):
    """Ends the maintenance that a check is in. Gives what was done, in words."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "end", "end it", show=False)]
    keys_text = "y ends it   esc keeps it"

    def __init__(self, health: Health, check: CheckView, windows: Sequence[Window], zone: str) -> None:
        self.title_text = f"End the maintenance of {display(check.name)}?"
        super().__init__()
        self._health, self._check, self._windows, self._zone = health, check, windows, zone

    def fields(self) -> Iterable[Widget]:
        until = self._check.maintenance_until
        lines = [f"It lasts until {exact(until, self._zone)}." if until is not None else "It has no end."]
        for window in self._windows:
            reason = f": {display(window.reason)}" if window.reason else ""
            if window.scope != self._check.id:
                lines.append(f"It holds for {_scope_words(window.scope)}{reason}.")
            elif reason:
                lines.append(f"Reason{reason}.")
            if window.cron:
                lines.append(f"It recurs ({window.cron}, {window.timezone}): ending it ends all of it.")
        yield Static(Content("\n".join(lines)), classes="text")

    def action_end(self) -> None:
        async def end() -> None:
            for window in self._windows:
                await self._health.end_maintenance(window.id)
            self.dismiss(f"The maintenance of {display(self._check.name)} is over")

        self.attempt(end)


def _scope_words(scope: str) -> str:
    if scope == "*":
        return "everything"
    kind, colon, company = scope.partition(":")
    return f"all of {display(company)}" if colon and kind == "company" else f"all {display(scope)}s"


def _lasting(minutes: int) -> str:
    if minutes % (24 * 60) == 0:
        return f"{minutes // (24 * 60)} d"
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"
