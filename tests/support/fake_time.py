"""A clock and a sleep that only move when somebody waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class FakeTime:
    """A clock and a sleep that belong together: sleeping moves the clock at once."""

    seconds: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> int:
        return 1_800_000_000_000 + int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)
