"""Alerts that were claimed and did not go out: another process sends them, and only those."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from sqlmodel import col, select

from services.errors import Category, ServiceError
from services.events import AgentsChanged
from services.health import claims
from services.health.model import HealthState
from services.storage.tables import Lease
from tests.support.scheduling import until
from tests.support.watching import GONE

RETELL = "provider:acme/retell"


class Stuck:
    """Stands for a network that takes an alert and never lets go of it."""

    def __init__(self) -> None:
        self.got: list[str] = []

    async def send(self, channel, secret, alert) -> None:
        self.got.append(alert.key)
        await asyncio.Event().wait()


class Keys:
    """Keeps the keys of what was sent, by channel."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, str]] = []
        self.failure: ServiceError | None = None

    async def send(self, channel, secret, alert) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((channel.id, alert.key, alert.text))


async def leases(watch) -> list[tuple[str, str]]:
    def read(session):
        query = select(Lease).where(col(Lease.name).startswith(claims.PREFIX))
        return [(row.name, row.owner) for row in session.exec(query)]

    return await watch.databases[0].read(read)


async def crash(service) -> None:
    """The process is gone: nothing is written or given back any more."""
    await service._runner.stop()
    keeper = service._keeper
    if keeper is not None:
        keeper.cancel()
    for task in list(service._desk._tasks.values()):
        task.cancel()
    await asyncio.gather(*service._desk._tasks.values(), return_exceptions=True)
    service._keeping.holder = False


async def down(watch, service) -> None:
    watch.world.add(RETELL, name="Retell", failure_threshold=1)
    for bus in watch.buses:
        bus.publish(AgentsChanged())
    watch.world.readings[RETELL] = GONE
    await watch.round(service)


async def test_what_a_crash_left_behind_goes_out_once_its_time_is_over(shared) -> None:
    shared.sender = Stuck()
    first = await shared.service(name="one:1:x")
    await first.add_alert("webhook", "https://hooks.example.com/a")
    await first.add_alert("webhook", "https://hooks.example.com/b", least=HealthState.DOWN)
    await first.add_alert("bell")
    await down(shared, first)
    await until(lambda: len(shared.sender.got) == 2)
    assert [owner for _, owner in await leases(shared)] == ["one:1:x", "one:1:x"]
    await crash(first)

    shared.sender = Keys()
    second = await shared.service(name="two:2:y")
    await shared.round(second, seconds=60)
    assert second.holder
    assert shared.sender.sent == []  # its time is not over: perhaps it goes out after all
    await shared.round(second, seconds=claims.LASTS_MS / 1000)
    await until(lambda: len(shared.sender.sent) == 2)
    assert {channel for channel, _, _ in shared.sender.sent} == {1, 2}
    assert len({key for _, key, _ in shared.sender.sent}) == 1
    assert {text for _, _, text in shared.sender.sent} == {"Retell is down: 503 service unavailable"}
    await until(lambda: _nothing_left(shared))
    for _ in range(3):
        await shared.round(second, seconds=claims.LASTS_MS / 1000)
    assert len(shared.sender.sent) == 2


async def _nothing_left(watch) -> bool:
    return await leases(watch) == []


async def test_the_end_is_told_as_well_when_a_crash_came_before_it(shared) -> None:
    shared.sender = Keys()
    first = await shared.service(name="one:1:x")
    await first.add_alert("webhook", "https://hooks.example.com/a")
    await down(shared, first)
    await until(lambda: len(shared.sender.sent) == 1)
    # The end is stored, and before anybody is told the process is gone.
    first._keeping._tell = _nobody
    shared.world.readings.clear()
    await shared.round(first)
    (incident,) = await first.incidents()
    assert incident.ended_at is not None
    await crash(first)
    second = await shared.service(name="two:2:y")
    for _ in range(3):
        await shared.round(second)
    await until(lambda: len(shared.sender.sent) == 2)
    assert shared.sender.sent[1][2].startswith("Retell is up again")
    for _ in range(3):
        await shared.round(second)
    assert len(shared.sender.sent) == 2


async def _nobody(database, now) -> None:
    """Instead of telling."""


async def test_one_that_waited_too_long_is_left_to_who_took_it_over(watch) -> None:
    """The queue of a slow channel: what another process sends by now is not sent a second time."""
    watch.sender = Stuck()
    first = await watch.service(name="one:1:x")
    await first.add_alert("webhook", "https://hooks.example.com/a")
    await down(watch, first)
    await until(lambda: len(watch.sender.got) == 1)
    desk = first._desk
    ((name, _),) = await leases(watch)
    taken = await watch.databases[0].write(
        lambda session: claims.take(session, "two:2:y", watch.clock.now() + claims.LASTS_MS, ())
    )
    assert [claim.name for claim in taken] == [name]
    assert not await desk._is_ours(name)


async def test_what_is_in_hand_is_not_taken_a_second_time(watch) -> None:
    watch.sender = Stuck()
    first = await watch.service(name="one:1:x")
    await first.add_alert("webhook", "https://hooks.example.com/a")
    await down(watch, first)
    await until(lambda: len(watch.sender.got) == 1)
    for _ in range(3):
        await watch.round(first, seconds=claims.LASTS_MS / 1000)
    assert len(watch.sender.got) == 1
    assert len(await leases(watch)) == 1
    await crash(first)


@pytest.mark.parametrize("category", [Category.TRANSIENT, Category.TIMEOUT, Category.RATE_LIMIT])
async def test_who_did_not_take_it_is_told_again_later_and_later(watch, category) -> None:
    watch.sender = Keys()
    watch.sender.failure = ServiceError("Away", category=category)
    first = await watch.service(name="one:1:x")
    await first.add_alert("webhook", "https://hooks.example.com/a")
    await down(watch, first)
    await until(lambda: _error(first, "Away"))
    await until(lambda: not first._desk.in_hand())
    began = watch.clock.now()
    ((name, _),) = await leases(watch)
    ends = [await _expiry(watch, name)]
    for _ in range(7):
        await watch.round(first, seconds=(ends[-1] - watch.clock.now()) / 1000 + 1)
        await until(lambda: not first._desk.in_hand())
        ends.append(await _expiry(watch, name))
    waits = [later - sooner for sooner, later in itertools.pairwise(ends)]
    assert waits == sorted(waits)
    assert waits[-1] >= claims.LONGEST_WAIT_MS
    assert watch.clock.now() - began < claims.FORGOTTEN_MS
    watch.sender.failure = None
    await watch.round(first, seconds=(ends[-1] - watch.clock.now()) / 1000 + 1)
    await until(lambda: len(watch.sender.sent) == 1)
    await until(lambda: _nothing_left(watch))


async def _error(service, words: str) -> bool:
    return (await service.alerts())[0].last_error == words


async def _expiry(watch, name: str) -> int:
    def read(session):
        lease = session.get(Lease, name)
        return 0 if lease is None else lease.expires_at

    return await watch.databases[0].read(read)


async def test_a_channel_that_refuses_or_is_gone_is_not_told_for_ever(watch) -> None:
    watch.sender = Keys()
    watch.sender.failure = ServiceError("No", category=Category.PERMANENT)
    first = await watch.service(name="one:1:x")
    await first.add_alert("webhook", "https://hooks.example.com/a")
    await down(watch, first)
    await until(lambda: _nothing_left(watch))
    assert (await first.alerts())[0].last_error == "No"

    def leave(session):
        claims.note(session, "gone:1:x", watch.clock.now(), ["alert/1/down/99", "alert/777/down/1"])

    await watch.databases[0].write(leave)
    await watch.round(first, seconds=claims.LASTS_MS / 1000 + 1)
    watch.world.readings.clear()
    watch.sender.failure = None
    await watch.round(first)
    await until(lambda: len(watch.sender.sent) == 1)
    await until(lambda: _nothing_left(watch))


@pytest.mark.parametrize("name", ["alert/x/down/1", "alert/1/odd/1", "alert/1/down", "alert/"])
async def test_odd_leases_are_cleared_away(watch, name) -> None:
    service = await watch.service()
    await watch.databases[0].write(lambda session: claims.note(session, "gone", 0, [name]))
    await watch.round(service)
    assert await leases(watch) == []


async def test_after_a_day_it_is_no_news(watch) -> None:
    watch.sender = Stuck()
    first = await watch.service(name="one:1:x")
    await first.add_alert("webhook", "https://hooks.example.com/a")
    await down(watch, first)
    await until(lambda: len(watch.sender.got) == 1)
    await crash(first)
    watch.sender = Keys()
    watch.clock.advance(hours=30)
    second = await watch.service(name="two:2:y")
    await watch.round(second)
    await watch.round(second)
    assert await leases(watch) == []
    assert watch.sender.sent == []
