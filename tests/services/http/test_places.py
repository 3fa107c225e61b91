from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from services.errors import ServiceError
from services.http.places import ClientStats, Limiter


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_never_more_than_the_limit_and_first_come_first_served() -> None:
    stats = ClientStats()
    limiter = Limiter(2, stats)
    order: list[int] = []
    gates = [asyncio.Event() for _ in range(5)]

    async def work(number: int) -> None:
        async with limiter.slot(limiter.ticket()):
            order.append(number)
            await gates[number].wait()

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    await settle()
    assert order == [0, 1]
    gates[1].set()
    await settle()
    assert order == [0, 1, 2]
    for gate in gates:
        gate.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert (stats.in_flight, stats.max_in_flight) == (0, 2)


async def test_a_cancelled_waiter_gives_its_place_to_the_next() -> None:
    stats = ClientStats()
    limiter = Limiter(1, stats)
    got: list[str] = []
    release = asyncio.Event()

    async def work(name: str) -> None:
        async with limiter.slot(limiter.ticket()):
            got.append(name)
            await release.wait()

    holder, waiter, last = (asyncio.create_task(work(name)) for name in ("holder", "waiter", "last"))
    await settle()
    release.set()
    await asyncio.sleep(0)
    # The place may just have been handed to the waiter, which is cancelled in the same moment.
    waiter.cancel()
    await asyncio.gather(holder, waiter, last, return_exceptions=True)
    assert got[-1] == "last"
    assert stats.in_flight == 0


@pytest.mark.parametrize("steps", range(6))
async def test_cancelling_at_any_moment_loses_no_place(steps: int) -> None:
    stats = ClientStats()
    limiter = Limiter(1, stats)

    async def work() -> None:
        async with limiter.slot(limiter.ticket()):
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tasks[:3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not tasks[3].cancelled()
    assert stats.in_flight == 0


async def test_an_older_request_that_tries_again_goes_first() -> None:
    limiter = Limiter(1, ClientStats())
    old = limiter.ticket()
    order: list[str] = []

    async def work(name: str, ticket: int) -> None:
        async with limiter.slot(ticket):
            order.append(name)

    async with limiter.slot(limiter.ticket()):
        young = asyncio.create_task(work("young", limiter.ticket()))
        await settle()
        again = asyncio.create_task(work("again", old))
        await settle()
    await asyncio.gather(young, again)
    assert order == ["again", "young"]


async def test_halves_once_for_requests_in_flight_together_and_grows_back() -> None:
    stats = ClientStats()
    limiter = Limiter(8, stats)
    async with AsyncExitStack() as stack:
        slots = [await stack.enter_async_context(limiter.slot(limiter.ticket())) for _ in range(8)]
        for slot in slots:
            limiter.throttled(slot)
        assert stats.limit == 4
    async with limiter.slot(limiter.ticket()) as slot:
        limiter.throttled(slot)
    assert stats.limit == 2
    limits = []
    for _ in range(2 + 3 + 4 + 5 + 6 + 7 + 20):
        limiter.succeeded()
        limits.append(stats.limit)
    assert limits[1] == 3
    assert limits[4] == 4
    assert limits[-1] == 8


async def test_never_below_one() -> None:
    stats = ClientStats()
    limiter = Limiter(1, stats)
    async with limiter.slot(limiter.ticket()) as slot:
        limiter.throttled(slot)
    assert stats.limit == 1


async def test_nothing_new_is_sent_while_the_vendor_asks_to_wait() -> None:
    stats = ClientStats()
    wake = asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert seconds == 3
        await wake.wait()

    limiter = Limiter(4, stats, sleep)
    async with limiter.slot(limiter.ticket()) as slot:
        limiter.throttled(slot, hold=3)
    task = asyncio.create_task(limiter.slot(limiter.ticket()).__aenter__())
    await settle()
    assert not task.done()
    wake.set()
    await task
    assert stats.in_flight == 1


async def test_closing_tells_who_waits() -> None:
    limiter = Limiter(1, ClientStats())
    async with limiter.slot(limiter.ticket()):
        task = asyncio.create_task(limiter.slot(limiter.ticket()).__aenter__())
        await settle()
        await limiter.aclose()
        with pytest.raises(ServiceError) as caught:
            await task
    assert caught.value.code == "closed"


async def test_those_who_gave_up_do_not_fill_the_queue() -> None:
    """A vendor that does not answer holds all places; whoever asks meanwhile soon gives up again."""
    stats = ClientStats()
    limiter = Limiter(1, stats)

    async def wait() -> None:
        async with limiter.slot(limiter.ticket()):
            pass

    async with limiter.slot(limiter.ticket()):
        patient = asyncio.create_task(wait())
        for _ in range(20):
            hasty = [asyncio.create_task(wait()) for _ in range(50)]
            await settle()
            assert stats.queued == 51
            for task in hasty:
                task.cancel()
            await asyncio.gather(*hasty, return_exceptions=True)
            assert stats.queued == 1
            assert len(limiter._waiting) < 100
    await patient
    assert (stats.queued, stats.in_flight) == (0, 0)


async def test_an_urgent_one_goes_first_and_waits_only_for_a_time_that_was_named() -> None:
    stats, held = ClientStats(), asyncio.Event()

    async def sleep(_: float) -> None:
        await held.wait()

    limiter = Limiter(1, stats, sleep)
    got: list[str] = []

    async def work(name: str, *, urgent: bool = False) -> None:
        async with limiter.slot(limiter.ticket(urgent=urgent)):
            got.append(name)

    async with limiter.slot(limiter.ticket()) as slot:
        usual = asyncio.create_task(work("usual"))
        await work("urgent", urgent=True)
        assert got == ["urgent"]
        limiter.throttled(slot, 5.0)
        urgent = asyncio.create_task(work("urgent again", urgent=True))
        await settle()
        assert got == ["urgent"]
        held.set()
        await urgent
    await usual
    assert got == ["urgent", "urgent again", "usual"]
    assert (stats.in_flight, stats.queued) == (0, 0)
