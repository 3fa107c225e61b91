"""The terminal around the console: what must be set before Textual is imported, and losing the link.

Imports nothing but the standard library: the command line uses it before it knows whether there is a console.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TextIO

SSH_FPS = 15
"""Frames a second over SSH: a slow link shows a fast producer late instead of dropping frames."""
GRACE = 5.0
"""Seconds a console without a terminal may take to end before it is ended."""
HANGUP_CODE = 129
"""The exit code after a lost terminal: 128 + SIGHUP, as shells count."""


def over_ssh(environ: MutableMapping[str, str]) -> bool:
    return bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"))


def prepare_environment(environ: MutableMapping[str, str], fps: int | None = None) -> None:
    """Set what Textual reads once, when it is imported. Must run before `textual` is."""
    if fps is not None:
        environ["TEXTUAL_FPS"] = str(fps)
    elif over_ssh(environ):
        environ.setdefault("TEXTUAL_FPS", str(SSH_FPS))
    # Whole-line scrolling everywhere; pixel-exact mouse reports only cost bytes here.
    environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    if environ.get("TERM") == "dumb":
        environ.setdefault("NO_COLOR", "1")


def flush_interval(environ: MutableMapping[str, str]) -> float:
    """Seconds between repaints of live data."""
    return 0.1 if over_ssh(environ) else 0.05


def terminal_problem(stdin: TextIO | None, stdout: TextIO | None) -> str | None:
    """Why the console cannot open here, in one sentence, or None when it can."""
    for stream, name in ((stdin, "standard input"), (stdout, "standard output")):
        try:
            usable = stream is not None and stream.isatty()
        except ValueError:  # closed
            usable = False
        if not usable:
            return f"The console needs a terminal, and {name} is not one"
    return None


def watch_hangup(fileno: int, lost: Callable[[], None]) -> Callable[[], None]:
    """Call `lost` (from a thread) when the terminal goes away; returns how to stop watching.

    A terminal whose other side is gone reads as an endless end of file: without this, a console that a
    supervisor shields from SIGHUP would spin for ever. Waiting costs nothing: only the hang-up is polled for.
    """
    wake_read, wake_write = os.pipe()

    def watch() -> None:
        poll = select.poll()
        poll.register(fileno, 0)
        poll.register(wake_read, select.POLLIN)
        try:
            while True:
                for ready, event in poll.poll():
                    if ready == wake_read:
                        return
                    if event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                        lost()
                        return
        finally:
            os.close(wake_read)

    threading.Thread(target=watch, name="terminal-watch", daemon=True).start()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            with contextlib.suppress(OSError):
                os.write(wake_write, b"x")
            os.close(wake_write)

    return stop


def end_without_fail(seconds: float = GRACE, code: int = HANGUP_CODE) -> None:
    """End the process in so many seconds, however stuck it is by then."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


class SteadyFile:
    """The terminal to write to, which may vanish: writes to a dead one are dropped instead of raised.

    Textual writes from a thread; were that to die of an error, the queue before it would fill and
    block the loop.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            return int(self._file.write(text))
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except (OSError, ValueError):
            return

    def fileno(self) -> int:
        return int(self._file.fileno())

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def quiet_native_code() -> Iterator[None]:
    """Keep what native libraries write to standard error off the terminal while the screen is drawn.

    Sound libraries write there when a device goes away, in the middle of a picture. A standard error
    that somebody sent elsewhere is left alone.
    """
    try:
        shown = os.isatty(2)
        kept = os.dup(2) if shown else -1
    except OSError:
        shown, kept = False, -1
    if not shown:
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def steady_driver() -> Any:
    """Textual's driver, made to survive a vanished terminal; None where there is nothing to change."""
    if os.name == "nt":
        return None
    from textual.drivers.linux_driver import LinuxDriver

    class SteadyDriver(LinuxDriver):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            # To standard output, which is known to be a terminal; standard error may be a file.
            self._file = SteadyFile(sys.__stdout__)  # type: ignore[assignment]  # all Textual uses

    return SteadyDriver


def let_go_of_dead_widgets() -> None:
    """Keep Textual from remembering widgets that are gone, with all that they ever painted.

    It caches two colours under the object that asked for them (textual 8.2.8, `StylesCache.get_inner_outer`),
    so the last thousand painted widgets stay alive: 100 MB after an hour of going from screen to screen.
    """
    from functools import lru_cache

    from textual._styles_cache import StylesCache

    known = getattr(StylesCache.get_inner_outer, "__wrapped__", None)
    if known is None:
        return  # this Textual does it differently, or it was done before

    @lru_cache(1024)
    def of_colours(base_background: Any, background: Any) -> Any:
        return known(StylesCache, base_background, background)

    def get_inner_outer(self: Any, base_background: Any, background: Any) -> Any:
        return of_colours(base_background, background)

    StylesCache.get_inner_outer = get_inner_outer  # type: ignore[assignment]
