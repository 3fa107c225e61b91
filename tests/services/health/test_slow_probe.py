"""A probe that takes longer than its interval leaves out one turn, not all that follow."""

from __future__ import annotations

import asyncio

from services.health.model import HealthState, Reading
from services.health.runner import Job, Probed, Readings, Runner
from tests.support.fake_time import FakeTime


async def test_a_probe_longer_than_its_interval_goes_on_being_made(fake_time: FakeTime) -> None:
    gate, begun = asyncio.Event(), 0

    async def probe() -> Readings:
        nonlocal begun
        begun += 1
        await gate.wait()
        return [("slow", Reading(HealthState.UP))]

    async def told(_: Probed) -> None:
        """Nobody listens."""

    runner = Runner(fake_time, told)
    runner.set_jobs([Job("slow", 2.0, 60.0, probe, ("slow",))])
    fake_time.seconds += 2.5
    runner.tick()
    await asyncio.sleep(0)
    for _ in range(3):  # due, and due again, while it is still under way
        fake_time.seconds += 2.2
        runner.tick()
    gate.set()
    while runner.busy:  # noqa: ASYNC110  # it ends with its task
        await asyncio.sleep(0)
    assert begun == 1
    for turn in (2, 3):
        fake_time.seconds += 2.2
        runner.tick()
        while runner.busy:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert begun == turn
    await runner.stop()
