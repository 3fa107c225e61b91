"""What every command that needs the services shares: opening them, running, closing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.container import Services


def open_services(*, demo: bool) -> Services:
    """The services of the real or the demo companies; cheap, nothing is connected yet."""
    from app import runtime

    return runtime.open_services(demo=demo)


def with_services(
    args: Namespace, work: Callable[[Services], Awaitable[int]], *, vendors: bool = False
) -> int:
    """Run `work` on an event loop with the services open, and close them whatever happens.

    `vendors` says that the work asks vendors or needs keys: the demo company is then set up and its
    simulator started.
    """

    async def body() -> int:
        services = open_services(demo=args.demo)
        try:
            if vendors and services.demo is not None:
                await services.demo.prepare(services)
            return await work(services)
        finally:
            await services.aclose()

    return asyncio.run(body())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends a blocking prompt at once.

    `asyncio.run` turns the first Ctrl-C into a cancellation that a blocking read never notices.
    """
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not in the main thread: nobody presses Ctrl-C here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
