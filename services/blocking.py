"""Blocking work whose end is not certain: a keyring's window, a name server, a device driver."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T], time_limit: float, *, name: str = "callboard-wait") -> T:
    """Run the work in a thread of its own. Raises TimeoutError after `time_limit` seconds.

    The thread is then left behind and ends with the process. The loop's executor would not do: the
    interpreter waits for its threads at exit.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except StopIteration as error:  # a future does not take this one
            failure = RuntimeError(str(error))
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(time_limit):
        return await done
