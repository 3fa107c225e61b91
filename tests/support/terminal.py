"""A program in a pseudo-terminal of its own, and the screen that a person would see.

The terminal answers the questions Textual asks. What the program wrote is kept with its times and is drawn
(by pyte, slowly) only when somebody looks, so that drawing does not disturb what is being measured.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pyte

PATIENCE = 30.0
"""Seconds after which a condition that does not come true fails the test; never a measure of speed."""

ANSWERS: tuple[tuple[re.Pattern[bytes], bytes], ...] = (
    (re.compile(rb"\x1b\[\?2026\$p"), b"\x1b[?2026;2$y"),
    (re.compile(rb"\x1b\[\?2048\$p"), b"\x1b[?2048;0$y"),
    (re.compile(rb"\x1b\[c"), b"\x1b[?62;22c"),
    (re.compile(rb"\x1b\[6n"), b"\x1b[1;1R"),
)
# What pyte would print or stumble over: private modes other than `?…h/l`, OSC, DCS and APC strings.
_UNKNOWN = re.compile(
    rb"\x1b\[[<>=][0-9;:]*[a-zA-Z]|\x1b\[\?[0-9;]*(?:\$p|u)|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[P_][^\x1b]*\x1b\\"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[<>=?]?[0-9;:]*\$?|\][^\x07\x1b]*\x1b?|[P_][^\x1b]*\x1b?)?$")
_ALTERNATE = re.compile(rb"\x1b\[\?1049[hl]")
_MODE = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
SGR_COLOR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
"""Any sequence that sets a foreground or background colour (not 39 and 49, which take it away)."""


class Picture:
    """A pyte screen that can be fed whatever a Textual program writes."""

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        unfinished = _UNFINISHED.search(data)
        self._rest = unfinished.group() if unfinished else b""
        if self._rest:
            data = data[: -len(self._rest)]
        # pyte has one screen only: entering and leaving the alternate one both show an empty one.
        data = _ALTERNATE.sub(b"\x1b[2J\x1b[H", _UNKNOWN.sub(b"", data))
        self._stream.feed(data)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def text(self) -> str:
        return "\n".join(self.lines())


class Terminal:
    """One program in one pseudo-terminal; leaving the `with` block ends it, and its children, for sure."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 120,
        rows: int = 40,
        folder: Path | None = None,
    ) -> None:
        self.columns, self.rows = columns, rows
        self.chunks: list[tuple[float, bytes]] = []
        """What was written, with the time (`time.monotonic`) it was read."""
        self.modes: dict[int, bool] = {}
        """The last state of every private mode that was set or reset: 1049 alternate screen, 25 cursor, …"""
        self._fed = 0
        self._tail = b""
        self._picture = Picture(columns, rows)
        self.master, slave = pty.openpty()
        self._resize(columns, rows)
        self.attributes_before = termios.tcgetattr(slave)
        self.slave_name = os.ttyname(slave)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._slave: int | None = slave
        self._family: dict[int, psutil.Process] = {}

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        family = self.family()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.hang_up()

    # -- what the program does ------------------------------------------------------------------------

    def family(self) -> list[psutil.Process]:
        """The program and every process it or they started, as far as they were seen; alive ones only."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            for process in (root, *root.children(recursive=True)):
                self._family[process.pid] = process
        return [process for process in self._family.values() if alive(process)]

    def children(self) -> list[psutil.Process]:
        return [process for process in self.family() if process.pid != self.process.pid]

    def wait_exit(self, patience: float = PATIENCE) -> int:
        """The exit code, once it has ended; what it still writes is read meanwhile."""
        end = time.monotonic() + patience
        while self.process.poll() is None:
            assert time.monotonic() < end, f"the program did not end; its screen:\n{self.text()}"
            self.pump(0.05)
        while self.pump(0.05):
            pass
        return self.process.returncode

    # -- reading --------------------------------------------------------------------------------------

    def pump(self, seconds: float) -> int:
        """Wait at most so long for output and take what is there; returns how many bytes."""
        if self.master < 0:
            time.sleep(seconds)
            return 0
        try:
            if not select.select([self.master], [], [], seconds)[0]:
                return 0
            data = os.read(self.master, 1 << 16)
        except OSError:  # EIO: the last writer is gone
            if self.process.poll() is None:
                time.sleep(0.01)
            return 0
        self.chunks.append((time.monotonic(), data))
        self._tail = self._tail[-24:] + data
        fresh = max(0, len(self._tail) - len(data) - 24)
        for question, answer in ANSWERS:
            for found in question.finditer(self._tail, fresh):
                if found.end() > len(self._tail) - len(data):
                    os.write(self.master, answer)
        for found in _MODE.finditer(self._tail):
            for mode in found.group(1).split(b";"):
                self.modes[int(mode)] = found.group(2) == b"h"
        return len(data)

    def text(self) -> str:
        """The screen as it is now."""
        while self._fed < len(self.chunks):
            self._picture.feed(self.chunks[self._fed][1])
            self._fed += 1
        return self._picture.text()

    def raw(self, since: int = 0) -> bytes:
        """Everything that was written, from the `since`-th byte on."""
        return b"".join(data for _, data in self.chunks)[since:]

    @property
    def written(self) -> int:
        """How many bytes the program has written."""
        return sum(len(data) for _, data in self.chunks)

    def wait_for(self, wanted: str | Callable[[str], bool], patience: float = PATIENCE) -> str:
        """The screen, once it shows the text or fulfils the condition."""
        fits = (lambda text: wanted in text) if isinstance(wanted, str) else wanted
        end = time.monotonic() + patience
        while not fits(text := self.text()):
            ended = self.process.poll() is not None
            assert not ended, f"the program ended before {wanted!r} came; the screen:\n{text}"
            assert time.monotonic() < end, f"{wanted!r} never came; the screen:\n{text}"
            self.pump(0.1)
        return text

    def wait_gone(self, text: str, patience: float = PATIENCE) -> str:
        return self.wait_for(lambda screen: text not in screen, patience)

    def settle(self, quiet: float = 0.3, patience: float = PATIENCE) -> int:
        """Read until nothing was written for so long; returns how many bytes came."""
        end, got = time.monotonic() + patience, 0
        while now := self.pump(quiet):
            got += now
            assert time.monotonic() < end, f"it never stops writing; the screen:\n{self.text()}"
        return got

    def listen(self, seconds: float) -> int:
        """Read for so long, whatever happens; returns how many bytes came."""
        end, got = time.monotonic() + seconds, 0
        while (left := end - time.monotonic()) > 0:
            got += self.pump(left)
        return got

    def moment(self, fits: Callable[[str], bool], since: float = 0.0) -> float | None:
        """Seconds from the start to the first output after which the screen fulfilled the condition."""
        for at, picture in self.replay():
            if at >= since and fits(picture.text()):
                return at - self.started
        return None

    def replay(self) -> Iterator[tuple[float, Picture]]:
        """The screen after every piece of output."""
        picture = Picture(self.columns, self.rows)
        for at, data in self.chunks:
            picture.feed(data)
            yield at, picture

    # -- doing ----------------------------------------------------------------------------------------

    def send(self, keys: str) -> None:
        """Type. Use `\\x1b` for escape, `\\r` for enter."""
        os.write(self.master, keys.encode())

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def resize(self, columns: int, rows: int) -> None:
        """As when a person pulls at the window's corner; the kernel tells the program."""
        self.text()
        self.columns, self.rows = columns, rows
        self._picture.screen.resize(rows, columns)
        self._resize(columns, rows)

    def _resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attributes(self) -> list[object]:
        """The line's settings (`termios.tcgetattr`); cooked mode has ICANON and ECHO."""
        assert self._slave is not None
        return list(termios.tcgetattr(self._slave))

    @property
    def cooked(self) -> bool:
        local = self.attributes()[3]
        assert isinstance(local, int)
        return bool(local & termios.ICANON and local & termios.ECHO and local & termios.ISIG)

    def hang_up(self) -> None:
        """The terminal's window is closed: the master side goes away, the kernel sends SIGHUP."""
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_all_gone(processes: Sequence[psutil.Process], patience: float = PATIENCE) -> None:
    """Wait until none of them is alive; fails with their command lines."""
    end = time.monotonic() + patience
    while left := [process for process in processes if alive(process)]:
        assert time.monotonic() < end, f"still there: {[process.cmdline() for process in left]}"
        time.sleep(0.02)


def quick_kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait()
