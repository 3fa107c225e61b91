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


class StdinLines:
    """An async iterator over the lines. A thread of its own reads the descriptor: files, pipes and
    terminals alike, and it never keeps the process from ending."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        try:
            found = sys.stdin.fileno() if descriptor is None else descriptor
        except (AttributeError, OSError, ValueError):  # closed, or none at all
            self._lines.put_nowait(None)
            return
        threading.Thread(target=self._read, args=(found,), name="callboard-stdin", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while (line := await self._lines.get()) is not None:
            yield line

    def _read(self, descriptor: int) -> None:
        rest = b""
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now
            while True:
                try:
                    piece = os.read(descriptor, CHUNK)
                except OSError:
                    piece = b""
                rest += piece
                *lines, rest = rest.split(b"\n")
                if not piece and rest:
                    lines.append(rest)
                for line in lines:
                    self._put(line.decode("utf-8", "replace")[:LONGEST])
                if not piece:
                    self._loop.call_soon_threadsafe(self._lines.put_nowait, None)
                    return

    def _put(self, line: str) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
