"""What orders say of people goes for its age, and a digest stays, by which their keys are still known."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from services.errors import ServiceError, UsageError
from services.integrations.bookings import BookingState
from services.integrations.crm.model import ContactData, NoteData, RecordKind
from services.integrations.effects import Deed, EffectRow, EffectState, Intent
from services.integrations.messages.keeping import KeptTexts
from services.storage import Database, DatabaseLocation
from services.storage.tables import Audit, Booking, Effect
from tests.support.integrating import Bench
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401

GUEST: dict[str, Any] = {
    "party_size": 2,
    "at": "2026-10-01T19:30",
    "name": "Canary Guest",
    "phone": "+493012345678",
    "email": "canary@example.com",
    "notes": "canary allergies",
}


@pytest.fixture(params=["sqlite", "postgresql"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    where = DatabaseLocation(path=tmp_path / "callboard.db")
    if request.param == "postgresql":
        where = DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))
    database = await Database.open(where)
    made = Bench(database)
    await made.add_company()
    yield made
    await made.aclose()
    await database.aclose()


def texts(bench: Bench, days: int = 90) -> KeptTexts:
    return KeptTexts(bench.open_database, bench.bus, bench.clock, days=days)


async def everything(bench: Bench) -> str:
    """All that is stored of orders, as text; whom a CRM's change was about stays and is left out."""
    rows = await bench.database.read(
        lambda session: [
            *(effect.model_dump(exclude={"target"}) for effect in session.exec(select(Effect))),
            *(booking.model_dump() for booking in session.exec(select(Booking))),
        ]
    )
    return str(rows).casefold()


async def test_a_guest_is_forgotten_so_long_after_the_time_of_the_booking(bench: Bench) -> None:
    bookings = bench.bookings()
    made = await bookings.create_reservation("acme", "opentable", **GUEST, idempotency_key="k-1")
    later = await bookings.create_reservation("acme", "opentable", **{**GUEST, "at": "2027-06-01T19:30"})
    at = dt.datetime.fromisoformat("2026-10-01T19:30+00:00").timestamp() * 1000
    bench.clock.advance(seconds=(at - bench.clock.now()) / 1000 + 90 * 86_400)
    assert await texts(bench).sweep() == 0  # not a moment too early
    bench.clock.advance(seconds=1)
    assert await texts(bench).sweep() == 1
    assert await texts(bench).sweep() == 0
    kept = await bookings.get(made.id)
    assert (kept.who, kept.state, kept.provider_id) == ("", BookingState.CONFIRMED, made.provider_id)
    assert (kept.route, kept.starts_at, kept.timezone) == (made.route, made.starts_at, made.timezone)
    assert kept.request["party_size"] == 2
    assert (await bookings.get(later.id)).who == "Canary Guest"
    # The key still stands for the same request, and for no other.
    again = await bookings.create_reservation("acme", "opentable", **GUEST, idempotency_key="k-1")
    assert (again.id, again.fresh) == (made.id, False)
    with pytest.raises(UsageError, match="used for another request"):
        await bookings.create_reservation(
            "acme", "opentable", **{**GUEST, "party_size": 3}, idempotency_key="k-1", anyway=True
        )
    bench.clock.advance(seconds=400 * 86_400)
    assert await texts(bench).sweep() == 1
    assert "canary" not in await everything(bench)
    lines = await bench.database.read(lambda session: [row.action for row in session.exec(select(Audit))])
    assert lines.count("order.words.remove") == 2


async def test_what_was_written_to_a_crm_is_forgotten(bench: Bench) -> None:
    crm = bench.crm()
    contact = ContactData(email="ann@example.com", first_name="Canary", properties={"note": "canary"})
    how = {"idempotency_key": "k-1"}
    made = await crm.create_contact("acme", contact, **how)  # type: ignore[arg-type]
    await crm.create_note("acme", NoteData("the canary sang", contact_id=made.id))
    bench.clock.advance(seconds=90 * 86_400 + 1)
    assert await texts(bench).sweep() == 2
    assert "canary" not in await everything(bench)
    again = await crm.create_contact("acme", contact, **how)  # type: ignore[arg-type]
    assert (again.id, again.fresh) == (made.id, False)
    assert {change.target for change in await crm.changes()} == {made.id, "ann@example.com"}
    # The simulation knows only what it was told.
    assert (await crm.search("acme", RecordKind.CONTACT)).records == ()


async def test_a_change_that_nobody_settled_is_then_for_a_person_alone(bench: Bench) -> None:
    crm = bench.crm()
    company_id = await bench.integrations.company_id("acme")
    under_way = Intent("crm.deal", "k-2", "Renewal", company_id, "ann", {"name": "Canary deal"})

    async def lost(row: EffectRow) -> Deed:
        raise ServiceError("It broke off", code="connection_lost")

    async def hang(row: EffectRow) -> Deed:
        bench.clock.advance(seconds=100 * 86_400)
        assert await texts(bench).sweep() == 0  # what is under way keeps its words
        return await lost(row)

    async def unknown(row: EffectRow) -> Deed:
        raise RuntimeError("cut off")

    with pytest.raises(ServiceError):
        await bench.effects.once(under_way, hang)
    with pytest.raises(RuntimeError):
        await bench.effects.once(Intent("crm.note", "k-3", "x", company_id, "ann", {"body": "c"}), unknown)
    bench.clock.advance(seconds=100 * 86_400)
    await texts(bench).sweep()
    (change,) = await crm.changes(state=EffectState.UNKNOWN)
    settled = await crm.settle(change.id, done=True, record_id="17", actor="ann")
    assert (settled.state, settled.record_id) == (EffectState.DONE, "17")


async def test_for_ever_is_for_ever(bench: Bench) -> None:
    await bench.crm().create_contact("acme", ContactData(email="ann@example.com"))
    bench.clock.advance(seconds=4_000 * 86_400)
    assert await texts(bench, days=0).sweep() == 0
    kept = texts(bench, days=0)
    await kept.set("acme", 30)
    assert await kept.sweep() == 1
