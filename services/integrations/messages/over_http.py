"""What the adapters over HTTP share: an order that is given once, a question that may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from services.clock import Clock
from services.errors import ServiceError
from services.http.client import Call, Http, HttpOptions
from services.http.wire import parse, wrong_shape
from services.resilience import Policy, Subject
from services.security import Secret


class Line:
    """JSON objects to and from one service.

    `vendor` is what people call it, `dialect` whose error bodies it has (see `services.resilience.bodies`).
    """

    def __init__(
        self,
        vendor: str,
        base_url: str,
        key: Secret,
        policy: Policy,
        clock: Clock,
        *,
        user: str = "",
        dialect: str = "plain",
        timeout: float = 30.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.vendor = vendor
        self._http = Http(
            HttpOptions(
                vendor=vendor,
                base_url=base_url,
                key=key or None,
                user=user,
                clock=clock,
                timeout=timeout,
                user_agent="callboard",
                policy=policy,
                dialect=dialect,
                sleep=sleep,
            )
        )

    def __repr__(self) -> str:
        return f"Line({self.vendor})"

    async def order(
        self,
        call: Call,
        *,
        subject: Subject,
        idempotency_key: str | None = None,
        parser: Callable[[str], dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Change something there, once; only with an `idempotency_key` a failed attempt is repeated."""
        return await self._http.read(
            call, parser or object_of, write=True, idempotency_key=idempotency_key, subject=subject
        )

    async def ask(self, call: Call, *, attempts: int = 2) -> dict[str, Any]:
        """Read something there."""
        return await self._http.read(call, object_of, attempts=attempts)

    async def aclose(self) -> None:
        await self._http.aclose()


def object_of(text: str) -> dict[str, Any]:
    """The JSON object of a text. Raises ServiceError."""
    data = parse(text).data
    if not isinstance(data, dict):
        raise wrong_shape("an object", data)
    return data


def object_if_any(text: str) -> dict[str, Any]:
    """The JSON object of a text; empty for whatever else a receiver answers."""
    try:
        return object_of(text)
    except ServiceError:
        return {}
