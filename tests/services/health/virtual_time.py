"""An event loop whose time passes only while nobody has anything to do, and then at once.

`asyncio.Runner(loop_factory=VirtualLoop)` where no thread, process or socket is waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Skipping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # chosen by the platform
    """Never waits: the time that would have passed is told to `passed`."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits for something that never comes"
            self.seconds += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. It is a clock besides (`services.clock.Clock`)."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.seconds

    def monotonic(self) -> float:
        return self.time()

    def now(self) -> int:
        """Epoch milliseconds."""
        return round(self.time() * 1000)
