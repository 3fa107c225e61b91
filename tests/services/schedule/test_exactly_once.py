"""Several processes' worth of schedulers on one database: every due time has exactly one run."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from services.schedule import ledger
from services.schedule.due import next_due, schedules
from services.storage import Database
from tests.support.scheduling import HOUR, Bench, FakeSync, at, idle
from tests.support.simulator import running_simulator
from tests.support.world import FakeClock, services_on

HOURLY = schedules("UTC", hourly=True, daily=None)


async def test_three_schedulers_run_every_hour_once(shared: Bench):
    syncs = [FakeSync() for _ in range(3)]
    schedulers = [await shared.scheduler(sync, name=f"p{n}") for n, sync in enumerate(syncs)]
    assert [scheduler.holder for scheduler in schedulers] == [True, False, False]
    shared.clock.time = at("2026-11-20T13:00:00Z")
    for _ in range(30):
        await asyncio.gather(*(scheduler.check() for scheduler in schedulers))
        await idle(*schedulers)
        shared.clock.advance(hours=1)
    requests = [request for sync in syncs for request in sync.requests]
    assert Counter(request.cause for request in requests) == {"hourly schedule": 29, "daily schedule": 1}
    rows = await shared.firings()
    assert sum(row.result == "done: 1 unchanged" for row in rows.values()) == 30
    assert rows["stale:2026-11-21T02:00:00Z"].result == ledger.COVERED


@pytest.mark.parametrize("seed", range(5))
async def test_crashes_and_closings_in_any_order_repeat_nothing(bench: Bench, seed):
    """Processes come, are closed, or simply stop; every due time that was taken has one run."""
    dice = random.Random(seed)
    runs: list[FakeSync] = []
    alive = []
    for step in range(120):
        if not alive or (len(alive) < 4 and dice.random() < 0.15):
            runs.append(FakeSync())
            alive.append(await bench.scheduler(runs[-1], name=f"s{seed}-{step}", daily=None))
        bench.clock.advance(minutes=dice.choice([1, 5, 25]))
        checked = dice.sample(alive, len(alive))
        await asyncio.gather(*(scheduler.check() for scheduler in checked))
        await idle(*alive)
        if dice.random() < 0.1:
            await alive.pop(dice.randrange(len(alive))).aclose()
        elif dice.random() < 0.1:
            alive.pop(dice.randrange(len(alive)))  # stops renewing without a word
    rows = [row for row in (await bench.firings()).values() if row.result != ledger.BASELINE]
    assert len(rows) >= 15
    assert all(row.result == "done: 1 unchanged" for row in rows)
    assert sum(len(sync.requests) for sync in runs) == len(rows)
    assert len({row.due_at for row in rows}) == len(rows)


async def test_of_two_that_take_the_same_due_time_one_loses(shared: Bench):
    """Even without a lease in between: the row itself decides."""
    databases = [await Database.open(shared.where) for _ in range(4)]
    shared.databases.extend(databases)
    due = at("2026-11-20T12:00:00Z")
    for _ in range(25):
        due = next_due(HOURLY[0], due)

        def take(session, *, name, due=due):
            return ledger.take_firing(session, HOURLY[0], due, name, due)

        taken = await asyncio.gather(
            *(
                database.write(lambda session, name=f"p{n}": take(session, name=name))
                for n, database in enumerate(databases)
            )
        )
        assert sum(claim is not None for claim in taken) == 1


async def test_of_two_that_take_an_expired_lease_one_loses(shared: Bench):
    databases = [await Database.open(shared.where) for _ in range(4)]
    shared.databases.extend(databases)
    now = shared.clock.now()
    for _ in range(25):
        held = await asyncio.gather(
            *(
                database.write(
                    lambda session, name=f"p{n}", now=now: ledger.take_lease(session, name, now, 20_000)
                )
                for n, database in enumerate(databases)
            )
        )
        assert sum(held) == 1
        now += 20_000


async def test_a_lease_is_renewed_by_its_holder_only_and_freed_by_release(shared: Bench):
    database = await Database.open(shared.where)
    shared.databases.append(database)

    async def take(name, now):
        return await database.write(lambda session: ledger.take_lease(session, name, now, 20_000))

    assert await take("a", 0)
    assert await take("a", 15_000)
    assert not await take("b", 34_999)
    assert await take("b", 35_000)
    assert not await take("a", 35_001)
    await database.write(lambda session: ledger.release_lease(session, "a"))
    assert not await take("a", 35_002)
    await database.write(lambda session: ledger.release_lease(session, "b"))
    assert await take("a", 35_003)


async def test_without_the_lease_nothing_is_taken(shared: Bench):
    scheduler = await shared.scheduler(FakeSync(), name="holder")
    later = shared.clock.now() + HOUR
    claims = await shared.databases[0].write(
        lambda session: ledger.claim_due(session, HOURLY, "somebody else", later)
    )
    assert claims == []
    assert scheduler.holder


async def test_two_whole_programs_sync_one_mirror_once_an_hour(tmp_path):
    """The real sync service against the simulator: two containers on one file, six simulated hours."""
    clock = FakeClock(at("2026-11-20T12:10:00Z"))
    async with (
        running_simulator(agents=6) as simulator,
        services_on(simulator, tmp_path, clock=clock) as one,
        services_on(simulator, tmp_path, clock=clock) as two,
    ):
        await one.start_background()
        await two.start_background()
        assert (one.schedule.holder, two.schedule.holder) == (True, False)
        for hour in range(6):
            if hour == 3:
                await one.schedule.aclose()
            clock.advance(hours=1)
            both = [two.schedule] if hour >= 3 else [two.schedule, one.schedule]
            await asyncio.gather(*(schedule.check() for schedule in both))
            await idle(*both)
        runs = await one.agents.runs()
        assert [(run.cause, run.actor, run.status) for run in runs] == [
            ("hourly schedule", "schedule", "done")
        ] * 6
        assert runs[-1].counts["created"] == 6
        assert runs[0].counts["unchanged"] == 6
