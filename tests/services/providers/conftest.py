"""Time that only moves when a client waits, and clients that use it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from services.model import Provider
from services.providers import open_client
from tests.support.fake_time import FakeTime

KEY = "key-for-tests-0123456789"


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
