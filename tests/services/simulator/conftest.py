"""Clients for the two simulated vendors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.simulator import RunningSimulator, running_simulator


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=48, seed=7) as running:
        yield running


@pytest.fixture
async def retell(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {simulator.key}"}
    async with httpx.AsyncClient(base_url=simulator.retell_url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
async def elevenlabs(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"xi-api-key": simulator.key}
    async with httpx.AsyncClient(
        base_url=simulator.elevenlabs_url, headers=headers, trust_env=False
    ) as client:
        yield client
