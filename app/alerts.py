"""Tells who sits at this terminal of an alert: a message, the bell, the desktop unless they look here.

A terminal that never says whether it has the focus gets every notification: one too many is better than none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from services.events import AlertRaised
from services.text import clean_line

if TYPE_CHECKING:
    from app.console import Callboard

LONGEST = 200
"""Letters of a desktop notification."""


class Alerts:
    """Listens for alerts from the moment it is made until `close`."""

    def __init__(self, app: Callboard) -> None:
        self._app = app
        self.close = app.services.bus.subscribe(AlertRaised, self._raised)

    def _raised(self, alert: AlertRaised) -> None:
        # The bus calls from whoever published it; drawing is for the app's own time.
        self._app.call_later(self._tell, alert)

    def _tell(self, alert: AlertRaised) -> None:
        text = clean_line(alert.text)
        self._app.tell(text, "" if alert.over else "4 shows why", failed=not alert.over)
        if alert.bell:
            self._app.bell()
        if alert.desktop and not self._app.looked_at:
            self.write(notification(f"Callboard: {text}", os.environ))

    def write(self, sequence: str) -> None:
        """Send a sequence to the terminal, which shows nothing of it in the console's picture."""
        driver = self._app._driver
        if driver is not None and not self._app.is_headless:
            driver.write(sequence)


def notification(text: str, environ: Mapping[str, str]) -> str:
    """The OSC 9 sequence that asks a terminal to show a text on the desktop; through tmux where it is one.

    Terminals that do not know it ignore it; tmux passes it on only with `allow-passthrough on`.
    """
    body = clean_line(text).replace(";", ",")[:LONGEST]
    sequence = f"\x1b]9;{body}\x07"
    if environ.get("TMUX"):
        return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return sequence
