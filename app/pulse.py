"""What beats below the console: the first read, the flushes of live data, the look for others' writes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from app.alerts import Alerts
from app.terminal import flush_interval
from screens.frame import Frame
from screens.live import Changes, Live
from services.errors import ServiceError

if TYPE_CHECKING:
    from app.console import Callboard

POLL = 2.0
"""Seconds between looks at whether another process wrote the database."""
SETTLED = 60.0
"""Seconds after which everything that lasts is there: what the first checks and screens imported, too."""


class Pulse:
    """Owns the console's background tasks; all of them end with `stop`."""

    def __init__(self, app: Callboard) -> None:
        self._app = app
        self.live = Live(app.services, self.wake)
        self._alerts = Alerts(app)
        self._every = flush_interval(os.environ)
        self._waiting: asyncio.TimerHandle | None = None
        self._context: contextvars.Context | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._warming = asyncio.Lock()
        self._warm = False
        self._begun = False

    def start(self) -> None:
        """After the first frame: the cards, then everything that is slow to import."""
        self._context = contextvars.copy_context()
        self.own(self._start)

    async def stop(self) -> None:
        self.live.close()
        self._alerts.close()
        if self._waiting is not None:
            self._waiting.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        gc.unfreeze()  # where a process opens one console after another, each may be collected

    async def ready(self) -> None:
        """Wait until the heavy services are loaded and the database is open. Raises ServiceError."""
        async with self._warming:
            if not self._warm:
                await self._app.services.warm()
                self._warm = True

    async def _start(self) -> None:
        glance = self.own(self.live.glance)
        try:
            await self.live.load()
        except ServiceError as error:
            self.live.fail(error)
        await glance
        self._show(Changes(everything=True, status=True, sync=True))
        paused = not gc.isenabled()
        gc.enable()
        _keep_for_good(clean_up=paused)
        await self._begin()
        _keep_for_good(clean_up=paused)  # the heavy imports, too, and what was read
        self._app.set_timer(SETTLED, gc.freeze, name="settled")
        self._app.set_interval(POLL, self._poll, name="elsewhere")
        self._app.started()

    async def _begin(self) -> None:
        """Load what is slow and start what works by itself."""
        try:
            await self.ready()
            await self._app.look_at_secrets()
            await self._app.services.start_background()
            self._begun = True
        except ServiceError as error:
            self.live.next_at = None
            self.live.mark_status()
            self._app.tell_error(error)

    # -- flushing ---------------------------------------------------------------------------------

    def wake(self, seconds: float = 0.0) -> None:
        """Something is dirty: flush soon, once, whatever else gets dirty until then.

        `seconds` is how long it may wait; what may wait less is not held up by it.
        """
        if not self._app.is_running:
            return
        # A timer of Textual's would be a task of its own for each flush. The context is the app's,
        # whoever published the event.
        loop = asyncio.get_running_loop()
        due = loop.time() + max(self._every, seconds)
        if self._waiting is not None:
            if self._waiting.when() <= due:
                return
            self._waiting.cancel()
        self._waiting = loop.call_at(due, self._beat, context=self._context)

    def _beat(self) -> None:
        self._waiting = None
        if self._flushing is not None and not self._flushing.done():
            self.wake()
            return
        self._flushing = self.own(self._flush)

    async def _flush(self) -> None:
        try:
            changes = await self.live.flush()
        except ServiceError as error:
            self.live.fail(error)
            changes = Changes(everything=True)
        if changes:
            self._show(changes)

    def _show(self, changes: Changes) -> None:
        for screen in reversed(self._app.screen_stack):
            if isinstance(screen, Frame):
                screen.show(changes)
                return

    def _poll(self) -> None:
        if self._polling is None or self._polling.done():  # a database that hangs is asked once at a time
            self._polling = self.own(self._look)

    async def _look(self) -> None:
        """Read what others wrote. A database that is away is told once, and marked until it is back."""
        try:
            changed = await self._app.services.agents.changed_elsewhere()
        except ServiceError as error:
            if self.live.fail(error):
                advice = "What is shown is stale until it answers; it is asked again by itself"
                self._app.tell(error.message, advice, failed=True)
                self._show(Changes(status=True))
            return
        if changed:
            self.live.mark_all()
        if self.live.answered() and not self._begun:
            await self._begin()

    def own(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run it as a task that ends with the app and whose failure is not lost."""

        async def run() -> None:
            try:
                await work()
            except ServiceError as error:
                self._app.tell_error(error)
            except Exception as error:
                self._app.fail(error)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _keep_for_good(*, clean_up: bool) -> None:
    """Take everything there is out of the collector's way: a later collection need not walk through it.

    `clean_up`: let go of what is garbage by now. Imports leave two megabytes of it, which would stay, too.
    """
    if clean_up:
        gc.collect()
    gc.freeze()
