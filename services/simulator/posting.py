"""Posts of the simulated providers to the program's own webhooks: to this machine only, in order, owned."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from services.http.addresses import is_loopback

if TYPE_CHECKING:
    import httpx

_PATIENCE: Final = 10.0
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Post:
    url: str
    body: bytes
    headers: Mapping[str, str]


class Poster:
    """Sends posts one after the other. Whoever does not answer with 2xx gets a post three times."""

    def __init__(self) -> None:
        self.sent = 0
        self._queue: asyncio.Queue[Post] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None

    def send(self, post: Post) -> None:
        """Post it soon. The simulator calls nobody but this machine."""
        if not is_loopback(urlsplit(post.url).hostname or ""):
            return
        self._queue.put_nowait(post)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="simulated webhooks")

    async def ask(self, url: str, query: Mapping[str, str]) -> str | None:
        """The text that this machine's webhook answers to a question; None without one."""
        import httpx

        if not is_loopback(urlsplit(url).hostname or ""):
            return None
        try:
            answer = await self._opened().get(url, params=dict(query))
        except httpx.HTTPError:
            return None
        return answer.text if answer.status_code == 200 else None

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, timeout=_PATIENCE)
        return self._client

    async def _run(self) -> None:
        import httpx

        while True:
            post = await self._queue.get()
            for attempt in range(_TRIES):
                with contextlib.suppress(httpx.HTTPError):
                    answer = await self._opened().post(
                        post.url, content=post.body, headers=dict(post.headers)
                    )
                    if answer.status_code < 300:
                        self.sent += 1
                        break
                await asyncio.sleep(0.2 * (attempt + 1))
