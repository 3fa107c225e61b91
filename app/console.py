"""The console: the Textual app around the screens. Wiring, theme, live updates, errors, the end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from app.paths import stylesheet
from app.pulse import Pulse
from app.telling import Telling
from app.terminal import (
    HANGUP_CODE,
    end_without_fail,
    flush_interval,
    let_go_of_dead_widgets,
    quiet_native_code,
    steady_driver,
    watch_hangup,
)
from screens.actions import ACTIVITY, AGENTS, CALL, CALLS, COMPANIES, EVERYWHERE, HEALTH, bindings_of
from screens.agents import AgentsScreen
from screens.frame import Frame
from screens.glyphs import ASCII, UNICODE
from screens.ports import Secrets, Services
from screens.theme import DARK, FALLBACKS, LIGHT, PLAIN, THEMES, draw_plainly, theme_name
from services.errors import ServiceError, VaultLocked

if TYPE_CHECKING:
    from textual.command import Provider

    from screens.call_ports import Session

LEAVE_DEMO = "leave demo"
"""The app's result when the operator wants to set up a company of their own."""


def _provider() -> type[Provider]:
    from screens.palette import ActionProvider

    return ActionProvider


class Callboard(Telling, inherit_bindings=False):
    """Built around a container of services; opens with the agents screen."""

    TITLE = "Callboard"
    CSS_PATH = stylesheet()
    BINDINGS = bindings_of(EVERYWHERE)
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_provider}
    ENABLE_COMMAND_PALETTE = False
    """The registry's `go to` opens it instead, so that its keys are in the registry too."""

    def __init__(self, services: Services, *, set_up: bool = False, driver_class: Any = None) -> None:
        """`set_up` begins with setting up a company, if there is none."""
        self.services = services
        self._set_up_first = set_up
        self.glyphs = ASCII if services.settings.ascii or os.environ.get("TERM") == "dumb" else UNICODE
        self.failure: ServiceError | None = None
        """What made the console end, for the terminal; None after a normal end."""
        self.copied = ""
        self._secrets: Secrets | None = None
        self._stop_watching: Callable[[], None] | None = None
        super().__init__(driver_class=driver_class)
        draw_plainly(self, self.glyphs is ASCII)
        self._pulse = Pulse(self)
        self.live = self._pulse.live
        self.live.call_ended = self._call_ended
        self.flush_every = flush_interval(os.environ)
        self._choose_theme()

    # -- look -------------------------------------------------------------------------------------

    def _choose_theme(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        name = theme_name(services_theme(self.services), self.console.color_system, self.no_color)
        self.theme = name if name in self.available_themes else DARK
        if self.no_color and self.theme == PLAIN:
            from textual.filter import Monochrome, NoColor

            # Without colours means none at all: greys instead would ignore the terminal's own background.
            self._filters = [NoColor() if isinstance(each, Monochrome) else each for each in self._filters]

    def get_css_variables(self) -> dict[str, str]:
        variables = super().get_css_variables()
        for ours, theirs in FALLBACKS.items():
            variables.setdefault(ours, variables[theirs])
        return variables

    # -- start and end ----------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[Any]:
        return AgentsScreen(self)

    def on_mount(self) -> None:
        self._watch_terminal()
        self.call_after_refresh(self._pulse.start)

    def started(self) -> None:
        """Everything is up."""
        if self._set_up_first and not self.live.has_connections:
            self.set_up()

    async def on_unmount(self) -> None:
        if self._stop_watching is not None:
            self._stop_watching()
        await self._pulse.stop()

    async def look_at_secrets(self) -> None:
        """Show which secret store is in use and whether it is open."""
        try:
            self._secrets = await self.services.open_secrets()
        except ServiceError:
            self.live.secret_label = ""  # what was seen at a glance is not so
            self.live.secret_locked = False
            self.live.mark_status()
            raise
        self._show_secrets()

    def _show_secrets(self) -> None:
        if self._secrets is not None:
            self.live.secret_label, self.live.secret_locked = self._secrets.label, self._secrets.locked
            self.live.mark_status()

    def _watch_terminal(self) -> None:
        """SIGHUP, SIGTERM and a vanished terminal end the console cleanly, and surely."""
        if self.is_headless or os.name == "nt":
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self._lost, 128 + number)
        if sys.__stdin__ is not None:
            self._stop_watching = watch_hangup(sys.__stdin__.fileno(), lambda: self._hung_up(loop))

    def _hung_up(self, loop: asyncio.AbstractEventLoop) -> None:
        end_without_fail()
        loop.call_soon_threadsafe(self._lost, HANGUP_CODE)

    def _lost(self, code: int) -> None:
        end_without_fail(code=code)
        self.exit(return_code=code)

    # -- what screens ask for (screens.frame.Console) ---------------------------------------------

    async def ready(self) -> None:
        await self._pulse.ready()

    def perform(self, work: Callable[[], Awaitable[object]], *, group: str = "work") -> None:
        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                self.tell_error(error)

        self.run_worker(guarded(), group=group, exit_on_error=False)

    def tell_error(self, error: BaseException) -> None:
        """Say what went wrong and what to do; what nobody expected goes to a redacted report as well."""
        if not isinstance(error, ServiceError):
            from app.crash import report_crash

            error = report_crash(error)
        self.tell(error.message, error.advice, failed=True)
        if isinstance(error, VaultLocked):
            self._show_secrets()

    def copy(self, text: str, what: str) -> None:
        # Told once: a message hides what stands under it.
        advice = "" if self.copied else "not in your clipboard? ctrl+y shows it, to select by hand"
        self.copied = text
        self.copy_to_clipboard(text)
        self.tell(f"Copied {what}", advice)

    def after_unlock(self, then: Callable[[], None]) -> None:
        if self.live.secret_locked:
            self._ask_passphrase(then)
        else:
            then()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """No worker fails in silence, whoever started it."""
        if event.state is WorkerState.ERROR and event.worker.error is not None:
            self.tell_error(event.worker.error)

    # -- actions ----------------------------------------------------------------------------------

    def is_available(self, method: str) -> bool:
        match method:
            case "unlock":
                return self.live.secret_locked
            case "show_text":
                return bool(self.copied)
            case "switch_theme":
                return self.theme != PLAIN
            case "go_call":
                return bool(self.live.calls) and self._top_frame.place != CALL
        return True

    async def _on_key(self, event: events.Key) -> None:
        """Keys typed while the one before them still opened a line to type in belong to that line.

        A line that has the focus lets no printable key pass; one that arrives here was sent before it had.
        """
        insert = getattr(self.focused, "insert_text_at_cursor", None)
        if insert is not None and event.is_printable and event.character:
            event.prevent_default()
            insert(event.character)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.is_available(action)

    def _go(self, place: str) -> None:
        top = self.screen_stack[-1]
        if isinstance(top, Frame) and top.place == place:
            return
        if place == AGENTS:
            while len(self.screen_stack) > 1:
                self.pop_screen()
            return
        while len(self.screen_stack) > 2:
            self.pop_screen()
        screen: Frame
        if place == CALLS:
            from screens.calls import CallsScreen

            screen = CallsScreen(self)
        elif place == COMPANIES:
            from screens.companies import CompaniesScreen

            screen = CompaniesScreen(self)
        elif place == HEALTH:
            from screens.health import HealthScreen

            screen = HealthScreen(self)
        else:
            from screens.activity import ActivityScreen

            screen = ActivityScreen(self)
        if len(self.screen_stack) > 1:
            self.switch_screen(screen)
        else:
            self.push_screen(screen)

    def set_up(self) -> None:
        if self.services.demo is not None:
            self.exit(LEAVE_DEMO)
            return
        self._go(COMPANIES)
        self.call_after_refresh(self._add_company)

    def _add_company(self) -> None:
        from screens.companies import CompaniesScreen

        if isinstance(self.screen, CompaniesScreen):
            self.screen.action_add_company()

    def action_go_agents(self) -> None:
        self._go(AGENTS)

    def action_go_calls(self) -> None:
        self._go(CALLS)

    def action_go_call(self) -> None:
        from screens.calling import open_call

        frame = self.screen
        if isinstance(frame, Frame) and self.live.calls:
            open_call(frame, self.live.calls[-1])

    def _call_ended(self, session: Session) -> None:
        from screens.calling import tell_end

        tell_end(self._top_frame, session)

    @property
    def _top_frame(self) -> Frame:
        """The screen on top, dialogs apart."""
        return next(screen for screen in reversed(self.screen_stack) if isinstance(screen, Frame))

    async def action_quit(self) -> None:
        """Leave; calls that go on are ended first."""
        if self.live.calls:
            from screens.calling import end_all

            await end_all(self.live.calls)
        self.exit()

    def action_go_companies(self) -> None:
        self._go(COMPANIES)

    def action_go_health(self) -> None:
        self._go(HEALTH)

    def action_go_activity(self) -> None:
        self._go(ACTIVITY)

    def action_go_to(self) -> None:
        from textual.command import CommandPalette

        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder="Go to, or do…"))

    def action_help(self) -> None:
        from screens.help import HelpScreen

        frame = self.screen
        if isinstance(frame, Frame):
            self.push_screen(HelpScreen(frame))

    def action_switch_theme(self) -> None:
        self.theme = LIGHT if self.current_theme.dark else DARK

    def action_show_text(self) -> None:
        from screens.dialogs import TextDialog

        self.push_screen(TextDialog("Copied text", self.copied))

    def action_unlock(self) -> None:
        self._ask_passphrase(lambda: None)

    def _ask_passphrase(self, then: Callable[[], None]) -> None:
        from screens.dialogs import UnlockDialog

        def unlocked(done: bool | None) -> None:
            self._show_secrets()
            if done:
                then()

        async def open_first() -> None:
            await self.look_at_secrets()
            self.after_unlock(then)

        if self._secrets is not None:
            self.push_screen(UnlockDialog(self._secrets), unlocked)
        else:  # so early that only the file has been looked at
            self.perform(open_first, group="unlock")

    def fail(self, error: Exception) -> None:
        """End because of an error nobody expected."""
        self._handle_exception(error)

    # -- failing ----------------------------------------------------------------------------------

    def _fatal_error(self) -> None:
        """Textual's own would print a traceback with local variables, keys among them."""
        from app.crash import report_crash

        error = self._exception
        if self.failure is None and error is not None:
            self.failure = error if isinstance(error, ServiceError) else report_crash(error)
        self._close_messages_no_wait()


def services_theme(services: Services) -> str:
    """The theme of this environment (`TEXTUAL_THEME` is honoured as everywhere), else of the settings."""
    return os.environ.get("TEXTUAL_THEME") or services.settings.theme


def run_console(open_services: Callable[[], Services]) -> int:
    """Open the console and stay in it; returns the exit code. The caller has checked for a terminal.

    Setting up a company in the demo leaves it: the console opens anew on the operator's own data.
    """
    set_up = False
    let_go_of_dead_widgets()
    while True:
        gc.disable()  # nothing to collect until the first frame; the pulse turns it on again
        services = open_services()
        app = Callboard(services, set_up=set_up, driver_class=steady_driver())
        with quiet_native_code():
            asyncio.run(_stay(app))
        if app.failure is not None:
            print(f"error: {app.failure.message}\n  try: {app.failure.advice}", file=sys.stderr)
            return 1
        if app.return_value != LEAVE_DEMO or services.real is None:
            return app.return_code or 0
        open_services, set_up = services.real, True


async def _stay(app: Callboard) -> None:
    try:
        await app.run_async(mouse=app.services.settings.mouse)
    finally:
        await app.services.aclose()
