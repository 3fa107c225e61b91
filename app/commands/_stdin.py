"""Lines of standard input on an event loop, whatever it is connected to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator

CHUNK = 65_536
LONGEST = 100_000
"""Characters of a line; the rest is dropped."""
MOST_WAITING = 1_000
"""Lines that are read ahead of the one being said; the writer waits with the rest."""


class StdinLines:
    """An async iterator over the lines. A thread of its own reads the descriptor: files, pipes and
    terminals alike, and it never keeps the process from ending."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._space = threading.Semaphore(MOST_WAITING)
        try:
            found = sys.stdin.fileno() if descriptor is None else descriptor
        except (AttributeError, OSError, ValueError):  # closed, or none at all
            self._lines.put_nowait(None)
            return
        threading.Thread(target=self._read, args=(found,), name="callboard-stdin", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while (line := await self._lines.get()) is not None:
            self._space.release()
            yield line

    def _read(self, descriptor: int) -> None:
        rest = bytearray()
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now
            while True:
                try:
                    piece = os.read(descriptor, CHUNK)
                except OSError:
                    piece = b""
                *lines, last = piece.split(b"\n")
                for line in lines:
                    rest += line[: 4 * LONGEST]
                    self._put(rest)
                    rest.clear()
                rest += last
                del rest[4 * LONGEST :]  # no character takes more than four bytes
                if not piece:
                    if rest:
                        self._put(rest)
                    self._loop.call_soon_threadsafe(self._lines.put_nowait, None)
                    return

    def _put(self, line: bytearray) -> None:
        self._space.acquire()
        text = line.decode("utf-8", "replace")[:LONGEST]
        self._loop.call_soon_threadsafe(self._lines.put_nowait, text)
