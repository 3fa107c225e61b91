"""What one scheduler does: when it starts what, what it makes up, what it leaves alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlmodel import select

from services.errors import Category, ServiceError, UsageError
from services.events import EventBus, ScheduleChanged, ScheduleRan
from services.schedule import ledger
from services.storage.tables import Firing
from tests.support.scheduling import Bench, FakeSync, at, idle, until


async def test_a_new_database_does_not_begin_with_a_missed_sync(bench: Bench):
    sync = FakeSync()
    scheduler = await bench.scheduler(sync)
    await scheduler.check()
    assert scheduler.holder
    assert sync.requests == []
    assert {key: row.result for key, row in (await bench.firings()).items()} == {
        "daily:2026-11-20T02:00:00Z": ledger.BASELINE,
        "stale:2026-11-20T12:00:00Z": ledger.BASELINE,
    }


async def test_the_hourly_sync_is_started_when_it_is_due_and_recorded(bench: Bench):
    sync, bus, told = FakeSync(), EventBus(), []
    bus.subscribe(ScheduleRan, told.append)
    scheduler = await bench.scheduler(sync, bus=bus)
    assert scheduler.next_at == at("2026-11-20T13:00:00Z") == bench.timers[0].at
    bench.clock.time = at("2026-11-20T13:00:00Z") - 1
    await scheduler.check()
    assert not scheduler.busy
    bench.clock.advance(seconds=0.001)
    bench.timers[0].ring()
    await until(lambda: bool(told))
    [request] = sync.requests
    assert (request.force, request.cause, request.actor) == (False, "hourly schedule", "schedule")
    row = (await bench.firings())["stale:2026-11-20T13:00:00Z"]
    assert (row.due_at, row.finished_at, row.result) == (
        at("2026-11-20T13:00:00Z"),
        bench.clock.now(),
        "done: 1 unchanged",
    )
    [event] = told
    assert (event.cause, event.result, event.report.run_id) == ("hourly schedule", row.result, "run1")
    assert scheduler.next_at == at("2026-11-20T14:00:00Z") == bench.timers[0].at


async def test_the_daily_sync_is_forced_and_covers_the_hourly_one_of_the_same_time(bench: Bench):
    sync = FakeSync()
    scheduler = await bench.scheduler(sync, timezone="Europe/Berlin")
    bench.clock.time = at("2026-11-21T02:00:00+01:00")
    await scheduler.check()
    await idle(scheduler)
    [request] = sync.requests
    assert (request.force, request.cause) == (True, "daily schedule")
    rows = await bench.firings()
    assert rows["daily:2026-11-21T01:00:00Z"].result == "done: 1 unchanged"
    assert rows["stale:2026-11-21T01:00:00Z"].result == ledger.COVERED


async def test_what_was_missed_is_made_up_once_for_the_latest_time(bench: Bench):
    sync = FakeSync()
    first = await bench.scheduler(sync)
    await first.aclose()
    bench.clock.time = at("2026-11-20T17:25:00Z")  # 13:00 to 17:00 were missed
    second = await bench.scheduler(sync)
    await idle(second)
    await second.check()
    assert [request.cause for request in sync.requests] == ["hourly schedule"]
    assert [key for key, row in (await bench.firings()).items() if row.result.startswith("done")] == [
        "stale:2026-11-20T17:00:00Z"
    ]


async def test_missed_daily_and_hourly_syncs_together_are_one_forced_one(bench: Bench):
    sync = FakeSync()
    scheduler = await bench.scheduler(sync)
    bench.clock.time = at("2026-12-24T10:30:00Z")  # the machine slept for a month
    await scheduler.check()
    await idle(scheduler)
    await scheduler.check()
    assert [request.cause for request in sync.requests] == ["daily schedule"]
    rows = await bench.firings()
    assert rows["stale:2026-12-24T10:00:00Z"].result == ledger.COVERED
    assert rows["daily:2026-12-24T02:00:00Z"].result == "done: 1 unchanged"


async def test_what_falls_due_during_a_long_run_is_made_up_when_it_ends(bench: Bench):
    sync = FakeSync()
    sync.gate.clear()
    scheduler = await bench.scheduler(sync, daily=None)
    bench.clock.time = at("2026-11-20T13:00:00Z")
    await scheduler.check()
    bench.clock.time = at("2026-11-20T15:30:00Z")
    await scheduler.check()
    assert len(sync.requests) == 1
    sync.gate.set()
    await until(lambda: len(sync.requests) == 2 and not scheduler.busy)
    assert [key for key, row in (await bench.firings()).items() if row.result.startswith("done")] == [
        "stale:2026-11-20T13:00:00Z",
        "stale:2026-11-20T15:00:00Z",
    ]


async def test_without_a_connection_there_is_nothing_to_sync_and_no_error(tmp_path):
    from services.storage import DatabaseLocation

    bench = Bench(DatabaseLocation(path=tmp_path / "empty.db"), "2026-11-20T12:10:00Z")
    sync, bus, told = FakeSync(), EventBus(), []
    bus.subscribe(ScheduleRan, told.append)
    scheduler = await bench.scheduler(sync, bus=bus)
    bench.clock.advance(hours=1)
    await scheduler.check()
    row = (await bench.firings())["stale:2026-11-20T13:00:00Z"]
    assert (row.result, row.finished_at) == (ledger.NOTHING, bench.clock.now())
    assert [event.report for event in told] == [None]
    assert sync.requests == []
    await bench.aclose()


async def test_a_failure_is_recorded_in_words_and_the_next_hour_runs(bench: Bench):
    sync = FakeSync(failure=UsageError("no company has a connection yet"))
    scheduler = await bench.scheduler(sync, daily=None)
    bench.clock.advance(hours=1)
    await scheduler.check()
    await idle(scheduler)
    sync.failure = RuntimeError("a bug")
    bench.clock.advance(hours=1)
    await scheduler.check()
    await idle(scheduler)
    sync.failure = None
    bench.clock.advance(hours=1)
    await scheduler.check()
    await idle(scheduler)
    rows = await bench.firings()
    assert [row.result for row in rows.values()][1:] == [
        "failed: no company has a connection yet",
        "failed: an unexpected failure, see the log",
        "done: 1 unchanged",
    ]


async def test_closing_cancels_the_run_records_that_and_gives_the_lease_back(bench: Bench):
    sync, other = FakeSync(), FakeSync()
    sync.gate.clear()
    scheduler = await bench.scheduler(sync)
    bench.clock.advance(hours=1)
    await scheduler.check()
    assert scheduler.busy
    await scheduler.aclose()
    assert (sync.cancelled, scheduler.busy, scheduler.holder) == (1, False, False)
    assert bench.timers[0].closed
    row = (await bench.firings())["stale:2026-11-20T13:00:00Z"]
    assert row.result.startswith("cancelled")
    assert row.finished_at == bench.clock.now()
    successor = await bench.scheduler(other)
    await idle(successor)
    assert successor.holder  # without waiting for the lease to expire
    assert other.requests == []  # a run that was stopped is not repeated


async def test_the_run_of_a_dead_process_is_closed_and_not_repeated(bench: Bench):
    sync, other = FakeSync(), FakeSync()
    sync.gate.clear()
    dead = await bench.scheduler(sync, name="dead")
    bench.clock.advance(hours=1)
    await dead.check()
    heir = await bench.scheduler(other, name="heir")
    assert not heir.holder
    bench.clock.advance(seconds=21)  # `dead` renews no more
    await heir.check()
    assert heir.holder
    row = (await bench.firings())["stale:2026-11-20T13:00:00Z"]
    assert (row.finished_at, row.claimed_by) == (None, "dead")
    bench.clock.advance(seconds=61)
    await heir.check()
    row = (await bench.firings())["stale:2026-11-20T13:00:00Z"]
    assert (row.result, row.finished_at) == (ledger.ABANDONED, bench.clock.now())
    assert other.requests == []
    bench.clock.advance(hours=1)
    await heir.check()
    await idle(heir)
    assert len(other.requests) == 1
    # It was only suspended: what it did counts, and it has noticed that it is no longer in charge.
    sync.gate.set()
    await until(lambda: not dead.busy)
    assert (await bench.firings())["stale:2026-11-20T13:00:00Z"].result == "done: 1 unchanged"
    await dead.check()
    assert not dead.holder


async def test_a_lease_from_a_clock_that_was_wrong_binds_nobody(bench: Bench):
    bench.clock.advance(hours=24 * 365)
    await bench.scheduler(FakeSync(), name="from the future")
    bench.clock.advance(hours=-24 * 365)
    scheduler = await bench.scheduler(FakeSync(), name="now")
    assert scheduler.holder


async def test_a_clock_set_back_repeats_nothing(bench: Bench):
    sync = FakeSync()
    scheduler = await bench.scheduler(sync, daily=None)
    bench.clock.advance(hours=1)
    await scheduler.check()
    await idle(scheduler)
    bench.clock.advance(minutes=-50)
    await scheduler.check()
    bench.clock.advance(minutes=50)
    await scheduler.check()
    await idle(scheduler)
    assert len(sync.requests) == 1


async def test_changes_of_the_next_time_and_of_the_role_are_told_once(bench: Bench):
    bus, told = EventBus(), []
    bus.subscribe(ScheduleChanged, lambda event: told.append(event.next_at))
    scheduler = await bench.scheduler(FakeSync(), bus=bus)
    await scheduler.check()
    assert told == [at("2026-11-20T13:00:00Z")]
    bench.clock.advance(hours=1)
    await scheduler.check()
    await idle(scheduler)
    await scheduler.check()
    assert told == [at("2026-11-20T13:00:00Z"), at("2026-11-20T14:00:00Z")]


async def test_everything_switched_off_schedules_nothing(bench: Bench):
    scheduler = await bench.scheduler(FakeSync(), hourly=False, daily=None)
    assert (scheduler.next_at, scheduler.holder, scheduler.upcoming(), bench.timers) == (None, False, (), [])


async def test_both_schedules_announce_their_next_time(bench: Bench):
    scheduler = await bench.scheduler(FakeSync(), timezone="Asia/Kolkata", daily="18:00")
    assert [(each.cause, each.at, each.forced) for each in scheduler.upcoming()] == [
        ("daily schedule", at("2026-11-20T12:30:00Z"), True),
        ("hourly schedule", at("2026-11-20T12:30:00Z"), False),  # a full hour there
    ]


async def test_a_database_that_refuses_is_told_and_the_schedule_goes_on_later(bench: Bench, monkeypatch):
    sync = FakeSync()
    scheduler = await bench.scheduler(sync, daily=None)
    database, write = bench.databases[0], bench.databases[0].write

    async def refuse(work):
        raise ServiceError("the disk is full", category=Category.TRANSIENT, advice="free some space")

    monkeypatch.setattr(database, "write", refuse)
    bench.clock.advance(hours=1)
    await scheduler.check()
    assert scheduler.problem is not None
    assert (scheduler.problem.message, scheduler.holder) == ("the disk is full", False)
    monkeypatch.setattr(database, "write", write)
    await scheduler.check()
    await idle(scheduler)
    assert (scheduler.problem, scheduler.holder, len(sync.requests)) == (None, True, 1)


async def test_old_firings_go_and_the_newest_of_each_schedule_stays(bench: Bench):
    scheduler = await bench.scheduler(FakeSync(), daily=None)
    bench.clock.advance(hours=24 * 91)
    await scheduler.check()
    await idle(scheduler)
    assert list(await bench.firings()) == ["stale:2027-02-19T12:00:00Z"]


async def test_the_real_timer_rings_on_the_loop_and_late_rather_than_never():
    import time

    from services.schedule.timer import WallTimer

    rung = asyncio.Event()
    timer = WallTimer(rung.set)  # Event.set is only right on the loop's own thread
    timer.start()
    timer.set(round(time.time() * 1000) + 3_600_000)
    timer.set(None)
    timer.set(round(time.time() * 1000) + 3_600_000)
    timer.set(round(time.time() * 1000) - 60_000)
    await asyncio.wait_for(rung.wait(), 20)
    timer.close()
    timer.close()


async def test_the_kept_rows_have_the_documented_ids(bench: Bench):
    await bench.scheduler(FakeSync())
    ids = await bench.databases[0].read(lambda session: sorted(session.exec(select(Firing.id))))
    assert ids == ["sync:daily:2026-11-20T02:00:00Z", "sync:stale:2026-11-20T12:00:00Z"]


@pytest.mark.parametrize(
    ("zone", "hourly", "daily"),
    [
        ("Europe/Berlin", True, "13:05"),
        ("UTC", False, "13:30"),
        ("Asia/Kolkata", True, None),
        ("UTC", False, None),
    ],
)
async def test_what_is_seen_at_a_glance_is_what_the_schedule_says(
    bench: Bench, tmp_path, zone, hourly, daily
):
    from services.container import Services
    from services.options import ServiceOptions
    from services.storage import DatabaseLocation

    scheduler = await bench.scheduler(FakeSync(), timezone=zone, hourly=hourly, daily=daily)
    await scheduler.check()
    options = ServiceOptions(
        DatabaseLocation(path=tmp_path / "callboard.db"),
        tmp_path / "secrets.json",
        timezone=zone,
        hourly_sync=hourly,
        daily_sync=daily,
    )
    services = Services(options, clock=bench.clock)
    assert services.next_sync_at_a_glance() == scheduler.next_at
    wrong = Services(replace(options, timezone="Mars/Olympus"), clock=bench.clock)
    assert wrong.next_sync_at_a_glance() is None
