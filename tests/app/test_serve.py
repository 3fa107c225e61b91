"""`callboard serve` as a program: what it prints, how it ends, and who goes on when it is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest

from app.cli import main
from app.paths import Paths
from app.schemas import document
from services.events import EventBus
from services.schedule import Scheduler, SchedulerOptions, ledger
from services.storage import Database, DatabaseLocation, Reader
from services.storage.tables import Firing
from tests.support.program import CALLBOARD, connect, real_environment
from tests.support.scheduling import FakeSync, ManualTimer, until
from tests.support.simulator import running_simulator
from tests.support.world import FakeClock

DAY = 86_400_000
AN_HOUR_AGO = f"{datetime.now(UTC) - timedelta(hours=1):%H:%M}"


@pytest.fixture
def home(own_environment):
    return own_environment


def daily_an_hour_ago():
    """Settings with one schedule, whose next due time is far enough away not to come during a test."""
    return {
        "CALLBOARD_HOURLY_SYNC": "off",
        "CALLBOARD_DAILY_SYNC": AN_HOUR_AGO,
        "CALLBOARD_TIMEZONE": "UTC",
    }


@asynccontextmanager
async def serving(home, *words, **environment):
    """`callboard serve` as a child process, killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *(*CALLBOARD, "serve", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=real_environment(home, **{**daily_an_hour_ago(), **environment}),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def connected(home, simulator):
    """A company with two connections to the simulator, and daily syncs that were missed."""
    await asyncio.to_thread(connect, home, simulator)
    database = await Database.open(location(home))
    long_ago = int(time.time() * 1000) - 3 * DAY
    row = Firing(
        id="sync:daily:earlier", schedule="daily", due_at=long_ago, claimed_by="t", claimed_at=long_ago
    )
    row.finished_at = long_ago
    await database.write(lambda session: session.add(row))
    await database.aclose()


def location(home):
    return DatabaseLocation(path=Paths(home).database_file)


def firings(home):
    """Newest first: claimed by, finished at, result."""
    with closing(Reader(location(home))) as reader:
        return reader.rows("SELECT claimed_by, finished_at, result, id FROM firing ORDER BY due_at DESC")


def sync_runs(home):
    with closing(Reader(location(home))) as reader:
        return reader.rows("SELECT status, cause FROM sync_run ORDER BY started_at")


async def line(process):
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().rstrip("\n")


async def test_a_missed_sync_is_made_up_and_told_in_one_line(home):
    async with running_simulator(agents=4) as simulator:
        await connected(home, simulator)
        async with serving(home) as process:
            text = await line(process)
            assert "daily schedule" in text
            assert "done: 4 created" in text
            process.send_signal(signal.SIGTERM)
            out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (0, b"")
    said = err.decode()
    assert str(Paths(home).log_dir) in said
    assert "Daily schedule, next: " in said
    assert "This process runs the schedule." in said
    assert said.endswith("Stopped.\n")
    assert sync_runs(home) == [("done", "daily schedule")]


async def test_json_lines_keep_their_contract(home):
    async with running_simulator(agents=4) as simulator:
        await connected(home, simulator)
        async with serving(home, "--json") as process:
            events = [json.loads(await line(process)) for _ in range(3)]
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), 60)
    events += [json.loads(text) for text in out.decode().splitlines()]
    assert [event["event"] for event in events] == ["started", "role", "run", "stopped"]
    for event in events:
        assert event["schema"] == "callboard.serve-event/1"
        jsonschema.Draft202012Validator(document("serve-event")).validate(event)
    assert events[2]["counts"]["created"] == 4
    assert (process.returncode, err) == (0, b"")


async def test_it_ends_during_a_sync_and_records_that(home):
    async with running_simulator(agents=8) as simulator:
        await connected(home, simulator)
        await simulator.fault("hang:detail")
        async with serving(home) as process:
            await until(lambda: bool(sync_runs(home)), 60)
            process.send_signal(signal.SIGTERM)
            out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert b"cancelled" in out
    assert sync_runs(home) == [("cancelled", "daily schedule")]
    _, finished, result, _ = firings(home)[0]
    assert result.startswith("cancelled")
    assert finished is not None
    with closing(Reader(location(home))) as reader:
        assert reader.rows("SELECT owner FROM lease") == []


async def test_killed_in_the_middle_another_takes_over_and_repeats_nothing(home):
    async with running_simulator(agents=8) as simulator:
        await connected(home, simulator)
        await simulator.fault("hang:detail")
        async with serving(home) as process:
            await until(lambda: bool(sync_runs(home)), 60)
            process.kill()
            await process.wait()
    [(dead, finished, _, taken), *_] = firings(home)
    assert finished is None
    clock = FakeClock(int(time.time() * 1000))
    database = await Database.open(location(home))
    sync = FakeSync()

    async def opened():
        return database

    heir = Scheduler(
        opened,
        sync,
        EventBus(),
        clock,
        SchedulerOptions(hourly=False, daily=AN_HOUR_AGO, renew_seconds=3600),
        make_timer=ManualTimer,
    )
    await heir.start()
    assert not heir.holder  # the dead one's lease has not expired
    clock.advance(seconds=20)
    await heir.check()
    assert heir.holder
    clock.advance(seconds=61)
    await heir.check()
    row = next(row for row in firings(home) if row[3] == taken)
    assert (row[0], row[2]) == (dead, ledger.ABANDONED)
    clock.advance(hours=24)
    await heir.check()
    await until(lambda: not heir.busy)
    [newest, *_] = firings(home)
    assert (newest[2], newest[3] == taken, len(sync.requests)) == ("done: 1 unchanged", False, 1)
    await heir.aclose()
    await database.aclose()


async def test_a_second_one_stands_by_and_takes_over_when_the_first_ends(home):
    async with serving(home, "--json") as first:
        assert [json.loads(await line(first))["event"] for _ in range(2)] == ["started", "role"]
        async with serving(home, "--json") as second:
            assert json.loads(await line(second))["event"] == "started"
            assert json.loads(await line(second))["active"] is False
            first.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(first.wait(), 60) == 0
            assert json.loads(await line(second))["active"] is True  # at its next look, every 5 s
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 60) == 0


def test_with_every_schedule_off_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("CALLBOARD_HOURLY_SYNC", "off")
    monkeypatch.setenv("CALLBOARD_DAILY_SYNC", "off")
    assert main(["serve"]) == 2
    assert "hourly_sync" in capsys.readouterr().err


async def test_without_the_passphrase_it_ends_at_once(home):
    async with running_simulator(agents=2) as simulator:
        await connected(home, simulator)
    async with serving(home, CALLBOARD_PASSPHRASE="") as process:
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 5
    assert b"passphrase" in err
