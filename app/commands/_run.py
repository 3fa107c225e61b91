"""What every command that needs the services shares: opening them, running, closing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from services.container import Services

AGAIN_AFTER = 0.5
"""Seconds after which a second signal is meant as one: end now."""


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
                await services.demo.prepare(services.companies, services.integrations)
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


@contextlib.contextmanager
def on_first_signal(act: Callable[[signal.Signals], None], *names: str) -> Iterator[None]:
    """Call `act` on the first of these signals; from then on each ends the process as it always does.

    Who ends a process and its group (`timeout`, a service manager) sends the same signal twice: within
    `AGAIN_AFTER` it counts once. A signal that is ignored (`nohup`) stays ignored. Where the platform or the
    thread has no such handlers, plain Ctrl-C remains.
    """
    loop = asyncio.get_running_loop()
    known: list[signal.Signals] = [getattr(signal, name) for name in names if hasattr(signal, name)]
    watched = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]

    def first(number: signal.Signals) -> None:
        since = time.monotonic()

        def again(repeated: int, _: FrameType | None) -> None:
            if time.monotonic() - since >= AGAIN_AFTER:
                signal.signal(repeated, signal.SIG_DFL)
                signal.raise_signal(repeated)

        for each in watched:
            loop.remove_signal_handler(each)
            signal.signal(each, again)
        act(number)

    before = {number: signal.getsignal(number) for number in watched}
    try:
        for number in watched:
            loop.add_signal_handler(number, first, number)
    except (NotImplementedError, ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
