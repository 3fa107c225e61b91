from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.health.model import HealthState, Reading
from services.health.runner import JITTER, NEWCOMERS, Job, Probed, Runner, Timetable
from tests.support.fake_time import FakeTime
from tests.support.scheduling import until

FINE = Reading(HealthState.UP)


def job(name: str, interval: float = 30.0, run=None, timeout: float = 5.0) -> Job:
    async def fine():
        return [(name, FINE)]

    return Job(name, interval, timeout, run or fine, (name,))


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(1, 300), min_size=1), st.integers(0, 2**32))
def test_everything_comes_at_its_interval(intervals: dict[str, float], seed: int) -> None:
    """Each comes as often as its interval says, jitter included, and never two at once."""
    table = Timetable(random.Random(seed))
    table.set_jobs([job(name, interval) for name, interval in intervals.items()], 0.0)
    now, seen = 0.0, {name: [] for name in intervals}
    while now < 2000:
        due = table.due(now)
        assert len({each.id for each in due}) == len(due)
        for each in due:
            seen[each.id].append(now)
            assert table.due_at(each.id) is None
            table.begun(each.id, now)
        upcoming = table.next_at()
        assert upcoming is not None
        now = max(upcoming, now + 0.001)
    for name, interval in intervals.items():
        times = seen[name]
        assert times[0] <= min(interval, 2.0) + 0.1
        first, *gaps = [after - before for before, after in pairwise(times)]
        assert interval / 2 - 0.1 <= first <= interval + 0.1
        assert all(interval * (1 - JITTER) - 0.1 <= gap <= interval + 0.1 for gap in gaps)


def test_jobs_come_and_go_and_the_others_keep_their_time() -> None:
    table = Timetable(random.Random(1))
    table.set_jobs([job("a"), job("b")], 0.0)
    due = table.due_at("a")
    table.set_jobs([job("a"), job("c", 5.0)], 0.5)
    assert table.due_at("a") == due
    assert "b" not in table
    assert {each.id for each in table.due(100.0)} == {"a", "c"}
    # One whose interval shrank does not wait for its old time.
    table.begun("a", 100.0)
    table.set_jobs([job("a", 5.0), job("c", 5.0)], 101.0)
    assert table.due_at("a") <= 106.0


def test_who_joins_a_round_does_not_wait_for_its_whole_interval() -> None:
    table = Timetable(random.Random(1))
    few, more = (replace(job("all", 60.0), checks=tuple(names)) for names in ("ab", "abc"))
    table.set_jobs([few], 0.0)
    table.due(100.0)
    table.begun("all", 100.0)
    table.begun("all", 130.0)
    table.set_jobs([few], 131.0)
    assert (table.due_at("all") or 0) > 150.0
    table.set_jobs([more], 132.0)
    assert table.due_at("all") == 132.0 + NEWCOMERS
    table.set_jobs([few], 133.0)
    table.set_jobs([more], 134.0)
    assert table.due_at("all") == 132.0 + NEWCOMERS, "who joins later does not put it off"


class Bench:
    def __init__(self, concurrency: int = 4) -> None:
        self.time = FakeTime()
        self.told: list[Probed] = []
        self.runner = Runner(
            self.time, self._took, concurrency=concurrency, most=concurrency, rng=random.Random(1)
        )

    async def _took(self, probed: Probed) -> None:
        self.told.append(probed)

    async def idle(self) -> None:
        await until(lambda: not self.runner.busy)


async def test_no_more_than_so_many_at_once_and_none_twice() -> None:
    bench, running, most = Bench(concurrency=4), [], []

    def slow(name: str):
        async def run():
            assert name not in running
            running.append(name)
            most.append(len(running))
            for _ in range(5):
                await asyncio.sleep(0)
            running.remove(name)
            return [(name, FINE)]

        return run

    bench.runner.set_jobs(job(f"c{place}", run=slow(f"c{place}")) for place in range(50))
    bench.time.seconds += 10
    bench.runner.tick()
    looks = [asyncio.create_task(bench.runner.check([f"c{place}" for place in range(50)])) for _ in range(3)]
    await asyncio.gather(*looks)
    await bench.idle()
    assert max(most) == 4
    assert len(bench.told) == 50


async def test_a_look_waits_for_its_end() -> None:
    bench, gate = Bench(concurrency=1), asyncio.Event()

    async def wait():
        await gate.wait()
        return [("a", FINE)]

    bench.runner.set_jobs([job("a", run=wait), job("b")])
    look = asyncio.create_task(bench.runner.check(["b", "a", "nobody"]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not look.done()
    gate.set()
    await look
    assert [each.job.id for each in bench.told] == ["b", "a"]


async def test_what_hangs_is_given_up_and_said_so() -> None:
    bench = Bench()

    async def hang():
        await asyncio.Event().wait()

    bench.runner.set_jobs([job("a", run=hang, timeout=0.01)])
    await bench.runner.check(["a"])
    ((_, reading),) = bench.told[0].readings
    assert (reading.state, reading.message) == (HealthState.DOWN, "No answer within 0.01 s")


async def test_stopping_ends_what_is_under_way() -> None:
    bench, ended = Bench(), []

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    bench.runner.set_jobs(job(f"c{place}", run=hang) for place in range(10))
    bench.runner.start()
    bench.time.seconds += 10
    bench.runner.expedite([f"c{place}" for place in range(10)])
    await until(lambda: len(asyncio.all_tasks()) >= 6)
    await asyncio.sleep(0)
    await bench.runner.stop()
    assert len(ended) == 4
    assert bench.told == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await bench.runner.stop()


async def test_a_stop_that_comes_with_a_waking_is_not_forgotten() -> None:
    for _ in range(20):
        bench = Bench()
        bench.runner.set_jobs([job("a", 3600.0)])
        bench.runner.start()
        await asyncio.sleep(0)
        bench.runner.expedite(["a"])
        async with asyncio.timeout(20):
            await bench.runner.stop()


async def test_idle_there_is_one_task_however_many_checks() -> None:
    bench = Bench()
    bench.runner.set_jobs(job(f"c{place}") for place in range(1000))
    bench.runner.start()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) <= 1 + 1 + 4
    await bench.runner.stop()
