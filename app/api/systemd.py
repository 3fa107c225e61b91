"""What a service manager is told: ready, alive, stopping. Nothing happens where none asks for it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Speaks systemd's notification protocol (sd_notify(3)) over the socket of the environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the abstract name space, which begins with a null byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every = _watchdog_seconds(environ)
        self._task: asyncio.Task[None] | None = None

    async def ready(self, status: str) -> None:
        """Everything listens; from now on the watchdog is fed by the event loop, if it is wanted."""
        if not self._address.startswith(("/", "\0")):
            return
        self._send(f"READY=1\nSTATUS={status}")
        if self._every:
            self._task = asyncio.create_task(self._feed(self._every), name="watchdog")

    async def aclose(self) -> None:
        """Stopping has begun."""
        if not self._address.startswith(("/", "\0")):
            return
        self._send("STOPPING=1")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _feed(self, every: float) -> None:
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(every)

    def _send(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(text.encode(), self._address)
        except OSError:
            return  # a manager that does not listen is no reason to stop serving


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Half of the time after which the manager would give us up; 0 for no watchdog."""
    given, owner = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not given.isdigit() or (owner and owner != str(os.getpid())):
        return 0.0
    return int(given) / 2_000_000
