"""Time that only moves when a client waits, and clients that use it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.model import Provider
from services.providers import open_client

KEY = "key-for-tests-0123456789"


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


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def connect(fake_time: FakeTime) -> Callable[..., Any]:
    """`connect(url, provider=…, **options)`: a client on the fake time."""

    def build(url: str, provider: Provider = Provider.RETELL, **options: Any) -> Any:
        settings: dict[str, Any] = {
            "key": KEY,
            "clock": fake_time,
            "sleep": fake_time.sleep,
            "rng": random.Random(7),
            "timeout": 10.0,
        }
        return open_client(provider, base_url=url, **(settings | options))

    return build
