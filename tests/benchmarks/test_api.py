"""How quickly `/health/` answers 200 requests a second while the health of 1,000 agents changes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.clock import SystemClock
from services.health.model import CheckView, HealthState, HealthView, Overall
from tests.app.api.api_world import BEARER, TOKEN, ApiServices, api_of, listening, port_of
from tests.benchmarks.measuring import Figure, percentile, unmet
from tests.support.fake_health import agents, others, providers

ROOT = Path(__file__).resolve().parents[2]
AGENTS = 1000
RATE = 200
SECONDS = 20
PROBES = 33
"""A second: each of 1,000 agents every 30 s."""
WARM_SECONDS = 2


class Changing:
    """Health of 1,000 agents, of which one is probed 33 times a second; a hundredth of them is degraded."""

    def __init__(self) -> None:
        self.checks: list[CheckView] = [*providers(), *agents(AGENTS), *others()]
        for number in range(5, len(self.checks), 100):
            ill = replace(self.checks[number], state=HealthState.DEGRADED, message="its webhook is slow")
            self.checks[number] = ill
        self.view_now: HealthView | None = None
        self.number = 0

    def view(self) -> HealthView:
        if self.view_now is None:
            self.view_now = HealthView(
                Overall.DEGRADED, "10 agents are slow", tuple(self.checks), self.number
            )
        return self.view_now

    def ready(self) -> bool:
        return True

    async def probe(self) -> None:
        while True:
            await asyncio.sleep(1 / PROBES)
            self.number += 1
            place = self.number % len(self.checks)
            self.checks[place] = replace(self.checks[place], checked_at=self.number, took_ms=12.5)
            self.view_now = None


async def loaded(port: int, token: str, seconds: float) -> dict[str, Any]:
    """What the other process measured."""
    words = ["-m", "tests.benchmarks.api_load", str(port), "/health/", str(RATE), str(seconds)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(token.encode())
    told: dict[str, Any] = json.loads(out)
    return told


async def scraping(url: str) -> None:
    """What Prometheus and a curious operator ask, once a second."""
    async with httpx.AsyncClient(base_url=url, headers=BEARER) as client:
        while True:
            for path in ("/metrics", "/health/agents"):
                assert (await client.get(path)).status_code == 200
            await asyncio.sleep(1)


async def measure(folder: Path) -> list[Figure]:
    services = ApiServices()
    services.clock = SystemClock()  # type: ignore[assignment]
    services.health = health = Changing()  # type: ignore[assignment]
    figures = []
    async with listening(api_of(services)) as server:
        tasks = [asyncio.create_task(health.probe())]
        await loaded(port_of(server), TOKEN, WARM_SECONDS)
        for name, token, seconds, target in (
            ("with the token", TOKEN, SECONDS, 20.0),
            ("without", "", 5, 20.0),
            ("beside a scrape of /metrics each second", TOKEN, 10, None),
        ):
            if target is None:
                tasks.append(asyncio.create_task(scraping(server.urls[0])))
            busy, started = time.process_time(), time.perf_counter()
            told = await loaded(port_of(server), token, seconds)
            share = (time.process_time() - busy) / (time.perf_counter() - started)
            assert told["statuses"] == {"200": RATE * seconds}, told["statuses"]
            took = [1000 * each for each in told["took"]]
            title = f"/health/ at {RATE} requests/s {name}"
            figures += [
                Figure(f"{title}: p50", percentile(took, 50), "ms"),
                Figure(f"{title}: p99", percentile(took, 99), "ms", target),
                Figure(f"{title}: slowest", max(took), "ms"),
                Figure(f"{title}: processor", 100 * share, "%"),
            ]
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
    return figures


@pytest.mark.benchmark
async def test_api(tmp_path):
    assert not unmet(await measure(tmp_path))
