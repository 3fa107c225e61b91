"""What the console says to whoever sits at it, each thing once, and whether its terminal says who looks."""

from __future__ import annotations

from textual.app import App
from textual.notifications import Notification, Notify

from services.text import clean


class Telling(App[str], inherit_bindings=False):
    """The part of the app that talks to the operator."""

    reports_focus = False
    """Whether the terminal ever said that it has or lost the focus. Many never do: tmux by default."""

    def on_app_focus(self) -> None:
        self.reports_focus = True

    def on_app_blur(self) -> None:
        self.reports_focus = True

    @property
    def looked_at(self) -> bool:
        """Whether the terminal says that somebody looks at it; one that says nothing is taken to be alone."""
        return self.reports_focus and self.app_focus

    def tell(self, message: str, advice: str = "", *, failed: bool = False) -> None:
        """Show it for a while; what stands there already is not said twice."""
        text = clean(f"{message}\n{advice}" if advice else message)
        if any(shown.message == text for shown in self._notifications):
            return
        told = Notification(text, severity="error" if failed else "information", timeout=8 if failed else 4)
        self._notifications.add(told)  # at once: the message that shows it has its turn later
        self.post_message(Notify(told))
