"""What a killed process left of its orders is given up by itself, whether or not somebody lists it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.errors import ServiceError
from services.events import BookingsChanged
from services.integrations.care import CARE_SECONDS, OrderCare
from services.integrations.effects import GIVEN_UP_MS, Deed, EffectRow, EffectState, Intent
from services.storage import Database, DatabaseLocation
from tests.support.integrating import COMPANY, Bench

LEFT: list[asyncio.Task[EffectRow]] = []


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    database = await Database.open(DatabaseLocation(path=tmp_path / "callboard.db"))
    made = Bench(database)
    await made.add_company()
    yield made
    await made.aclose()
    await database.aclose()


async def leave(bench: Bench, kind: str) -> None:
    """An order whose process dies before the other side answers."""
    begun = asyncio.Event()

    async def hang(row: EffectRow) -> Deed:
        begun.set()
        await asyncio.Event().wait()
        return Deed()

    intent = Intent(kind, "", "opentable", await bench.integrations.company_id(COMPANY))
    task = asyncio.create_task(bench.effects.once(intent, hang))
    await begun.wait()
    LEFT.append(task)


async def test_what_was_left_behind_is_given_up_at_the_start_and_again_later(bench: Bench) -> None:
    LEFT.clear()
    for kind in ("booking", "booking.cancel", "crm.contact"):
        await leave(bench, kind)
    naps: asyncio.Queue[float] = asyncio.Queue()
    wake = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        naps.put_nowait(seconds)
        await wake.acquire()

    told: list[BookingsChanged] = []
    bench.bus.subscribe(BookingsChanged, told.append)
    bookings, crm = bench.bookings(), bench.crm()
    care = OrderCare(
        bench.effects, {"booking": bookings.give_up, "crm": crm.give_up}, timeout=1.0, sleep=sleep
    )
    care.start()
    care.start()
    try:
        assert await naps.get() == CARE_SECONDS
        rows = [*await bench.effects.recent("booking"), *await bench.effects.recent("crm")]
        assert {row.state for row in rows} == {EffectState.INTENDED}
        bench.clock.advance(seconds=GIVEN_UP_MS / 1000 + 101)
        wake.release()
        await naps.get()
        rows = [*await bench.effects.recent("booking"), *await bench.effects.recent("crm")]
        assert {row.state for row in rows} == {EffectState.UNKNOWN}
        assert len(told) == 1
    finally:
        await care.aclose()
        for task in LEFT:
            task.cancel()
        await asyncio.gather(*LEFT, return_exceptions=True)


async def test_one_sweep_that_fails_does_not_keep_the_other_from_being_done(bench: Bench) -> None:
    LEFT.clear()
    for kind in ("booking", "crm.note"):
        await leave(bench, kind)
    bench.clock.advance(seconds=10_000)

    async def broken() -> int:
        raise ServiceError("The database is away")

    care = OrderCare(bench.effects, {"booking": broken, "crm": bench.crm().give_up}, timeout=1.0)
    assert await care.sweep() == 1
    for task in LEFT:
        task.cancel()
    await asyncio.gather(*LEFT, return_exceptions=True)


async def test_nothing_is_loaded_where_nothing_was_left(bench: Bench) -> None:
    async def never() -> int:
        raise AssertionError("nothing is to be given up")

    assert await OrderCare(bench.effects, {"booking": never, "crm": never}).sweep() == 0
