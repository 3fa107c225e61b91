"""The care for orders whose process died: at the start and every minute they are given up, whoever looks.

Messages have their own, which asks their providers (`messages.following`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from services.errors import ServiceError
from services.integrations.effects import Effects, given_up_after

log = logging.getLogger(__name__)

CARE_SECONDS: Final = 60.0

Sweep = Callable[[], Awaitable[int]]
"""Decides what was left behind; of how many. Raises ServiceError."""


class OrderCare:
    """Sweeps until `aclose`. Several processes may: what is decided once stays so.

    `sweeps` by kind of effect; one is called only when there is something to do, since it loads its service.
    `timeout`: seconds that one request may take. Belongs to one event loop.
    """

    def __init__(
        self,
        effects: Effects,
        sweeps: Mapping[str, Sweep],
        *,
        timeout: float = 30.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._effects = effects
        self._sweeps = dict(sweeps)
        self._age = given_up_after(timeout)
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    async def sweep(self) -> int:
        """Once; what fails is told in the log and does not keep the others from being done."""
        decided = 0
        for kind, give_up in self._sweeps.items():
            try:
                if await self._effects.open_ones(kind, older_than_ms=self._age):
                    decided += await give_up()
            except ServiceError as error:
                log.warning("orders that were left behind could not be given up: %s", error.message)
        return decided

    def start(self) -> None:
        """Begin; again is no error."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="orders left behind")

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception:  # one order that breaks something must not end the care for all others
                log.exception("orders that were left behind could not be given up")
            await self._sleep(CARE_SECONDS)
