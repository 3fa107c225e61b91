"""The frame of every screen: a line on top, the work, a line of keys; how an action reaches its method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from screens.actions import EVERYWHERE, Action, actions_of, by_method
from screens.glyphs import Glyphs
from screens.live import Changes, Live
from screens.ports import Services
from screens.widgets.bars import Hints, KeyLine, TopBar
from screens.widgets.table import Cell


class Console(Protocol):
    """What the app does for screens. Screens never import `app`."""

    services: Services
    live: Live
    glyphs: Glyphs
    flush_every: float
    """Seconds between repaints of live data; more over a slow link."""

    def perform(self, work: Callable[[], Awaitable[object]], *, group: str = "work") -> None:
        """Run it in the background; whatever it raises is told to the operator."""

    def tell(self, message: str, advice: str = "", *, failed: bool = False) -> None: ...
    def tell_error(self, error: BaseException) -> None: ...
    def copy(self, text: str, what: str) -> None: ...
    def after_unlock(self, then: Callable[[], None]) -> None:
        """Go on at once, or once the operator has opened a locked secret store."""

    async def ready(self) -> None:
        """Wait until the heavy services are loaded. Raises ServiceError."""

    def set_up(self) -> None:
        """Begin setting up the first company; in the demo, leave it for that."""

    def is_available(self, method: str) -> bool: ...


class Frame(Screen[None]):
    """A screen of the console. Subclasses name their `place`, yield their work and answer `is_available`."""

    place = EVERYWHERE
    tab = ""
    """The place whose tab is marked, where that is another one."""
    AUTO_FOCUS = ""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console_app = console
        self.services = console.services
        self.live = console.live
        self.glyphs = console.glyphs
        self.zone = console.services.settings.timezone
        self.top = TopBar(self.live, self.tab or self.place, self.zone, self.glyphs)
        self.keys = KeyLine(self.hints)
        self._left = False

    def compose(self) -> ComposeResult:
        yield self.top
        yield from self.work()
        yield self.keys

    def work(self) -> Iterable[Widget]:
        """What stands between the first and the last line."""
        raise NotImplementedError

    # -- live -------------------------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        if self.is_mounted and self._left:
            self.show(Changes(everything=True, sync=True, status=True))

    def on_screen_suspend(self) -> None:
        self._left = True

    def show(self, changes: Changes) -> None:
        """Something changed while this screen is the active one, or since it last was."""
        self.redraw_bars()

    def redraw_bars(self) -> None:
        self.top.redraw()
        self.keys.redraw()

    # -- actions ----------------------------------------------------------------------------------

    def is_available(self, method: str) -> bool:
        """Whether an action of this screen makes sense now."""
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        known = by_method(self.place, action)
        return self.is_available(action) if known is not None and known.place == self.place else True

    def valid_actions(self) -> list[tuple[Action, Any]]:
        """Every action that can be done now with the object whose method does it; this screen's own first."""
        own = [(action, self) for action in actions_of(self.place) if self.is_available(action.id)]
        everywhere = [
            (action, self.app)
            for action in actions_of(EVERYWHERE)
            if self.console_app.is_available(action.id)
        ]
        return [*own, *everywhere]

    def hints(self) -> Hints:
        """The key line: valid actions by weight, the help last."""
        if not self.is_attached:
            return []
        weighed = sorted(
            ((action, owner) for action, owner in self.valid_actions() if action.weight > 1),
            key=lambda each: each[0].weight,
        )
        hints = [(action.shown_keys[0], action.label, action.id) for action, _ in weighed]
        return [*hints, ("?", "keys", "help")]

    def legend(self) -> Sequence[tuple[Cell, str]]:
        """The signs of this screen and what each stands for; the help shows them."""
        return ()


async def run_valid(screen: Frame, action: Action) -> None:
    """Do an action as if its key had been pressed."""
    for valid, owner in screen.valid_actions():
        if valid is action:
            result = getattr(owner, f"action_{action.id}")()
            if result is not None:
                await result
            return
