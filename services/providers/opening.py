"""Opening the client of a connection."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from types import MappingProxyType
from typing import Final, Literal, overload

from services import __product__
from services.clock import Clock
from services.http.client import HttpOptions
from services.model import Provider
from services.providers.elevenlabs import ElevenLabsClient
from services.providers.hosts import VENDOR_NAMES
from services.providers.retell import RetellClient
from services.resilience import Policy
from services.security import Secret

DEFAULT_CONCURRENCY: Final = MappingProxyType({Provider.RETELL: 10, Provider.ELEVENLABS: 10})
"""Requests in flight per connection. Neither vendor publishes a number for reads; 429 shrinks it."""

_HEADERS: Final = MappingProxyType(
    {Provider.RETELL: ("authorization", "Bearer "), Provider.ELEVENLABS: ("xi-api-key", "")}
)


@overload
def open_client(
    provider: Literal[Provider.RETELL],
    *,
    base_url: str,
    key: str,
    concurrency: int | None = ...,
    clock: Clock,
    list_ttl: float = ...,
    metrics_ttl: float = ...,
    timeout: float = ...,
    user_agent: str = ...,
    sleep: Callable[[float], Awaitable[object]] = ...,
    rng: random.Random | None = ...,
    policy: Policy | None = ...,
) -> RetellClient: ...
@overload
def open_client(
    provider: Literal[Provider.ELEVENLABS],
    *,
    base_url: str,
    key: str,
    concurrency: int | None = ...,
    clock: Clock,
    list_ttl: float = ...,
    metrics_ttl: float = ...,
    timeout: float = ...,
    user_agent: str = ...,
    sleep: Callable[[float], Awaitable[object]] = ...,
    rng: random.Random | None = ...,
    policy: Policy | None = ...,
) -> ElevenLabsClient: ...
@overload
def open_client(
    provider: Provider,
    *,
    base_url: str,
    key: str,
    concurrency: int | None = ...,
    clock: Clock,
    list_ttl: float = ...,
    metrics_ttl: float = ...,
    timeout: float = ...,
    user_agent: str = ...,
    sleep: Callable[[float], Awaitable[object]] = ...,
    rng: random.Random | None = ...,
    policy: Policy | None = ...,
) -> RetellClient | ElevenLabsClient: ...
def open_client(
    provider: Provider,
    *,
    base_url: str,
    key: str,
    concurrency: int | None = None,
    clock: Clock,
    list_ttl: float = 60.0,
    metrics_ttl: float = 30.0,
    timeout: float = 30.0,
    user_agent: str = "",
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    rng: random.Random | None = None,
    policy: Policy | None = None,
) -> RetellClient | ElevenLabsClient:
    """The client of one connection; nothing is sent before its first method.

    `timeout`: seconds one attempt may take; `list_ttl`, `metrics_ttl`: seconds an answer is kept;
    `policy`: what its requests go through, one of its own when None; `sleep` and `rng` are for tests of
    the waits between attempts. Raises `UsageError` for a bad base
    URL and `ServiceError` (`wrong_key`) for a key no header can carry. Call it inside the event loop.
    """
    header, prefix = _HEADERS[provider]
    options = HttpOptions(
        vendor=VENDOR_NAMES[provider],
        base_url=base_url,
        key=Secret(key.strip()),
        header=header,
        prefix=prefix,
        concurrency=max(1, DEFAULT_CONCURRENCY[provider] if concurrency is None else concurrency),
        clock=clock,
        timeout=timeout,
        user_agent=user_agent or _user_agent(),
        sleep=sleep,
        rng=rng,
        policy=policy,
    )
    if provider is Provider.RETELL:
        return RetellClient(options, list_ttl=list_ttl, metrics_ttl=metrics_ttl)
    return ElevenLabsClient(options, list_ttl=list_ttl, metrics_ttl=metrics_ttl)


@functools.cache
def _user_agent() -> str:
    try:
        return f"{__product__}/{installed_version(__product__)}"
    except PackageNotFoundError:
        return __product__
