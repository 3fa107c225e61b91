"""How long what runs now may take: said by who waits for it, heeded by every wait on the way.

A probe of ten seconds gains nothing from a retry that would wait for thirty: what it asked has failed, and
the failure says more than "no answer". Times are seconds of the event loop.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar

_ends: ContextVar[float] = ContextVar("ends", default=math.inf)


def limit_time(seconds: float) -> None:
    """The task that runs now, and those it starts from now on, have so long."""
    _ends.set(asyncio.get_running_loop().time() + seconds)


def time_left() -> float:
    """Seconds until the end of that time; endless where nobody said anything.

    Endless as well after the end: whoever waited has gone, and what was started on the way may live on.
    """
    ends = _ends.get()
    if ends == math.inf:
        return ends
    left = ends - asyncio.get_running_loop().time()
    return left if left > 0 else math.inf
