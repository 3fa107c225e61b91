"""Opens the console as the command does, with a watch on its event loop; run in a pseudo-terminal.

    python probe.py RESULT.json

A tick every few milliseconds says how late the loop is, and every callback is timed. SIGUSR1 begins a
measurement, SIGUSR2 ends it and writes the result.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

TICK = 0.002


class Watch:
    """Lateness of ticks and the time of every callback, in milliseconds."""

    def __init__(self, result: Path) -> None:
        self.result = result
        self.on = False
        self.late: list[float] = []
        self.held: list[float] = []
        self.worst: list[tuple[float, str]] = []
        self.collecting = 0.0
        """Milliseconds of the present callback that went to the garbage collector."""
        self._began = 0.0

    def install(self) -> None:
        """Time every callback of every event loop in this process."""
        run = asyncio.Handle._run  # type: ignore[attr-defined]
        watch = self

        def collects(phase: str, info: dict[str, int]) -> None:
            now = time.perf_counter() * 1000
            if phase == "start":
                self._began = now
            else:
                self.collecting += now - self._began

        gc.callbacks.append(collects)

        def timed(handle: Any) -> None:
            started, watch.collecting = time.perf_counter(), 0.0
            try:
                run(handle)
            finally:
                if watch.on:
                    watch.note((time.perf_counter() - started) * 1000, handle)

        asyncio.Handle._run = timed  # type: ignore[attr-defined]

    def note(self, took: float, handle: Any) -> None:
        self.held.append(took)
        if took > 8:
            owner = getattr(handle._callback, "__self__", None)
            name = (
                owner.get_name() + " " + repr(owner.get_coro())[:120]
                if isinstance(owner, asyncio.Task)
                else repr(handle._callback)
            )
            collector = f" (collector {self.collecting:.0f} ms)" if self.collecting >= 1 else ""
            self.worst.append((took, name[:150] + collector))

    async def tick(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.begin)
        loop.add_signal_handler(signal.SIGUSR2, self.end)
        while True:
            due = loop.time() + TICK
            await asyncio.sleep(TICK)
            if self.on:
                self.late.append((loop.time() - due) * 1000)

    def begin(self) -> None:
        self.late, self.held, self.worst, self.on = [], [], [], True

    def end(self) -> None:
        self.on = False
        told = {"late": self.late, "held": self.held, "worst": sorted(self.worst, reverse=True)[:20]}
        spare = self.result.with_suffix(".part")
        spare.write_text(json.dumps(told))
        spare.rename(self.result)


def main() -> int:
    from app.terminal import prepare_environment

    prepare_environment(os.environ)
    watch = Watch(Path(sys.argv[1]))
    watch.install()
    from app import console
    from app.runtime import open_services

    class Watched(console.Callboard):
        ticking: asyncio.Task[None]

        def on_mount(self) -> None:
            super().on_mount()
            self.ticking = asyncio.get_running_loop().create_task(watch.tick())

        async def on_unmount(self) -> None:
            self.ticking.cancel()
            await super().on_unmount()

    console.Callboard = Watched  # type: ignore[misc]
    return console.run_console(lambda: open_services(demo=False))


if __name__ == "__main__":
    sys.exit(main())
