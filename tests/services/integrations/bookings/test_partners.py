"""Bookings at partners over real sockets: what is sent, what comes back, and what a failure leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.errors import Category, ServiceError, UsageError
from services.events import BookingsChanged
from services.integrations.bookings import BookingService, BookingState, Route
from services.integrations.effects import EffectState
from services.integrations.registry import Kind
from services.resilience import Limits
from services.storage import Database, DatabaseLocation
from tests.services.integrations.bookings.conftest import connect
from tests.support.integrating import Bench
from tests.support.rawserver import Seen, raw_server, reply, scripted
from tests.support.simulator import RunningSimulator

TABLE: dict[str, Any] = {
    "party_size": 2,
    "at": "2027-03-01T19:30",
    "name": "Ann Smith",
    "phone": "+493012345678",
    "email": "ann@example.com",
}
VISIT: dict[str, Any] = {
    "service": "motive-7",
    "at": "2027-03-01T09:30",
    "name": "Ann Smith",
    "phone": "+33123456789",
}


@pytest.fixture
async def opentable(bench: Bench, simulator: RunningSimulator) -> BookingService:
    await connect(bench, simulator, "opentable")
    return bench.bookings()


@pytest.fixture
async def gateway(database: Database, simulator: RunningSimulator) -> AsyncIterator[BookingService]:
    bench = Bench(database, gateways={"bookings": (f"{simulator.partners_url}/bookings", simulator.key)})
    await bench.add_company()
    yield bench.bookings()
    await bench.aclose()


async def requests(simulator: RunningSimulator, route: str) -> int:
    found: dict[str, int] = (await simulator.stats())["by_route"]
    return found.get(route, 0)


RESERVE = "POST /opentable/v2/booking/*/reservations"
LOCK = "POST /opentable/v2/booking/*/slot_locks"
TOKEN = "POST /opentable/api/v2/oauth/token"


# OpenTable


async def test_a_table_is_found_reserved_and_cancelled(opentable: BookingService, bench: Bench) -> None:
    seen: list[BookingsChanged] = []
    bench.bus.subscribe(BookingsChanged, seen.append)
    slots = await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert len(slots) == 20
    assert slots[0].timezone == "Europe/Berlin"
    assert slots[0].starts_at == 1_803_916_800_000  # 17:00 in Berlin
    booking = await opentable.create_reservation(
        "ACME", "opentable", **TABLE, notes="by the window", actor="ann"
    )
    assert booking.state is BookingState.CONFIRMED
    assert booking.route is Route.DIRECT
    assert booking.simulated  # who answers stands on this machine
    assert booking.provider_id.startswith("1038007-")
    assert booking.starts_at == 1_803_925_800_000
    assert booking.timezone == "Europe/Berlin"
    assert booking.who == "Ann Smith"
    assert booking.result["party_size"] == "2"
    cancelled = await opentable.cancel(booking.id[:8], actor="ann")
    assert cancelled.state is BookingState.CANCELLED
    with pytest.raises(UsageError, match="is cancelled, there is nothing to cancel"):
        await opentable.cancel(booking.id)
    assert [each.state for each in await opentable.list("acme")] == [BookingState.CANCELLED]
    assert {event.ids for event in seen} == {(booking.id,)}


async def test_while_the_partner_is_down_its_earlier_times_stand_in_with_their_age(
    opentable: BookingService, bench: Bench, simulator: RunningSimulator
) -> None:
    live = await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert (live.degraded, live.age) == ("", None)
    await simulator.fault("503:opentable")
    bench.clock.advance(minutes=3)
    slots = await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert list(slots) == list(live)
    assert slots.age == pytest.approx(180, abs=30)
    assert slots.degraded.startswith("as of ")
    assert "because " in slots.degraded
    told = await opentable.execute_integration(
        "acme", "opentable", "availability", {"day": "2027-03-01", "party_size": 2}
    )
    assert len(told.result["slots"]) == len(live)
    assert told.result["degraded"].startswith("as of ")
    for day, party_size in (("2027-03-02", 2), ("2027-03-01", 4)):
        with pytest.raises(ServiceError):
            await opentable.availability("acme", "opentable", day=day, party_size=party_size)
    bench.clock.advance(minutes=3)
    with pytest.raises(ServiceError):
        await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)


async def test_tables_run_out(opentable: BookingService) -> None:
    for _ in range(2):
        await opentable.create_reservation("acme", "opentable", **TABLE)
    with pytest.raises(ServiceError, match="has that time no more") as caught:
        await opentable.create_reservation("acme", "opentable", **TABLE)
    assert caught.value.code == "taken"
    slots = await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert 1_803_925_800_000 not in {slot.starts_at for slot in slots}
    states = [each.state for each in await opentable.list()]
    assert sorted(states) == [BookingState.CONFIRMED, BookingState.CONFIRMED, BookingState.FAILED]


async def test_a_key_books_once(opentable: BookingService, simulator: RunningSimulator) -> None:
    first = await opentable.create_reservation("acme", "opentable", **TABLE, idempotency_key="call-7")
    again = await opentable.create_reservation("acme", "opentable", **TABLE, idempotency_key="call-7")
    assert (first.id, first.fresh, again.fresh) == (again.id, True, False)
    assert await requests(simulator, RESERVE) == 1
    with pytest.raises(UsageError, match="used for another request"):
        await opentable.create_reservation(
            "acme", "opentable", **{**TABLE, "party_size": 3}, idempotency_key="call-7"
        )


async def test_many_at_once_with_one_key_book_once(
    opentable: BookingService, simulator: RunningSimulator
) -> None:
    made = await asyncio.gather(
        *(
            opentable.create_reservation("acme", "opentable", **TABLE, idempotency_key="call-7")
            for _ in range(6)
        )
    )
    assert len({booking.id for booking in made}) == 1
    assert await requests(simulator, RESERVE) == 1


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(
    opentable: BookingService, simulator: RunningSimulator
) -> None:
    """OpenTable honours X-Request-Id, so the lost answer comes again and nobody has two tables."""
    await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    await simulator.fault("drop:at=body:opentable:write:x2")
    booking = await opentable.create_reservation("acme", "opentable", **TABLE)
    assert booking.state is BookingState.CONFIRMED
    assert await requests(simulator, LOCK) + await requests(simulator, RESERVE) == 4
    left = await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert 1_803_925_800_000 in {slot.starts_at for slot in left}  # one of two tables


async def test_a_lock_that_failed_is_no_question(
    opentable: BookingService, simulator: RunningSimulator
) -> None:
    await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    await simulator.fault("500:opentable:write")
    with pytest.raises(ServiceError):
        await opentable.create_reservation("acme", "opentable", **TABLE)
    assert [each.state for each in await opentable.list()] == [BookingState.FAILED]
    assert await requests(simulator, RESERVE) == 0


async def test_a_token_is_fetched_once_and_again_when_it_is_refused(
    opentable: BookingService, simulator: RunningSimulator
) -> None:
    for _ in range(3):
        await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert await requests(simulator, TOKEN) == 1
    await simulator.fault("revoke:opentable:list:x1")
    assert await opentable.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert await requests(simulator, TOKEN) == 2


async def test_a_wrong_secret_books_nothing(
    opentable: BookingService, bench: Bench, simulator: RunningSimulator
) -> None:
    (info,) = [info for info in await bench.integrations.list() if info.adapter == "opentable"]
    await bench.integrations.set_secret(info.id or 0, "canary-4f1c9e77-wrong")
    with pytest.raises(ServiceError) as caught:
        await opentable.create_reservation("acme", "opentable", **TABLE)
    assert caught.value.category is Category.AUTHENTICATION
    assert "canary" not in repr(caught.value) + caught.value.advice
    assert [each.state for each in await opentable.list()] == [BookingState.FAILED]
    assert await requests(simulator, LOCK) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"email": ""}, "OpenTable needs an e-mail address"),
        ({"name": " "}, "A booking needs a name"),
        ({"at": ""}, "A booking needs a time"),
        ({"at": "2027-03-28T02:30"}, "does not exist"),
        ({"at": "2027-10-31T02:30"}, "occurs twice"),
        ({"at": "2027-10-31T02:30+02:00"}, "occurs twice there"),
        ({"at": "2027-03-01T19:30:15"}, "whole minute"),
        ({"party_size": 0}, "at least one person"),
    ],
)
async def test_what_cannot_be_booked_leaves_nothing(
    opentable: BookingService, simulator: RunningSimulator, change: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await opentable.create_reservation("acme", "opentable", **{**TABLE, **change})
    assert await opentable.list() == []
    assert await requests(simulator, LOCK) == 0


async def test_days_around_a_change_of_clocks_are_whole(opentable: BookingService) -> None:
    for day in ("2027-03-28", "2027-10-31"):
        slots = await opentable.availability("acme", "opentable", day=day, party_size=2)
        assert len(slots) == 20
    both = await opentable.availability(
        "acme", "opentable", begin="2027-03-27T00:00", end="2027-03-29T00:00", party_size=2
    )
    assert len(both) == 40
    assert len({slot.starts_at for slot in both}) == 40


@pytest.mark.parametrize(
    "range_",
    [
        {"begin": "2027-03-02", "end": "2027-03-01"},
        {"begin": "2027-03-01", "end": "2027-05-01"},
        {"day": "monday"},
    ],
)
async def test_a_range_that_is_none_is_refused(opentable: BookingService, range_: Any) -> None:
    with pytest.raises(UsageError):
        await opentable.availability("acme", "opentable", party_size=2, **range_)


# Toast, Doctolib


async def test_toast_takes_a_reservation_as_an_order(bench: Bench, simulator: RunningSimulator) -> None:
    await connect(bench, simulator, "toast")
    service = bench.bookings()
    booking = await service.create_reservation("acme", "toast", **TABLE)
    assert booking.state is BookingState.PENDING
    assert booking.timezone == "America/New_York"
    assert booking.starts_at == 1_803_947_400_000  # 19:30 in New York
    with pytest.raises(UsageError, match="Toast does not offer availability") as caught:
        await service.availability("acme", "toast", day="2027-03-01", party_size=2)
    assert caught.value.advice == "It offers reserve"
    with pytest.raises(UsageError, match="does not offer cancel"):
        await service.cancel(booking.id)


async def test_what_is_not_honoured_twice_is_not_sent_twice(
    bench: Bench, simulator: RunningSimulator
) -> None:
    """Toast has no idempotency header: a lost answer is a question for a person, and stays one."""
    await connect(bench, simulator, "toast")
    service = bench.bookings()
    await simulator.fault("drop:at=body:toast:write")
    with pytest.raises(ServiceError, match="whether it was booked is not known") as caught:
        await service.create_reservation("acme", "toast", **TABLE, idempotency_key="call-9")
    assert caught.value.code == "unknown_outcome"
    await simulator.clear_faults()
    again = await service.create_reservation("acme", "toast", **TABLE, idempotency_key="call-9")
    assert again.state is BookingState.UNKNOWN
    assert await requests(simulator, "POST /toast/orders/v2/orders") == 1
    settled = await service.settle(again.id, BookingState.CONFIRMED, provider_id="order-1", actor="ann")
    assert (settled.state, settled.provider_id) == (BookingState.CONFIRMED, "order-1")
    with pytest.raises(UsageError, match="decided already"):
        await service.settle(again.id, BookingState.FAILED, actor="ann")
    cancelled = await service.settle(again.id, BookingState.CANCELLED, actor="ann", cause="by phone")
    assert cancelled.state is BookingState.CANCELLED


async def test_an_appointment_is_found_made_and_cancelled(bench: Bench, simulator: RunningSimulator) -> None:
    await connect(bench, simulator, "doctolib")
    service = bench.bookings()
    slots = await service.availability(
        "acme", "doctolib", begin="2027-03-01T09:15", end="2027-03-02T10:00", service="motive-7"
    )
    assert len(slots) == 5 + 2
    booking = await service.create_appointment("acme", "doctolib", **VISIT, birth_date="1980-02-29")
    assert booking.state is BookingState.CONFIRMED
    assert booking.starts_at == slots[0].starts_at
    with pytest.raises(ServiceError, match="has that time no more"):
        await service.create_appointment("acme", "doctolib", **VISIT)
    other = await service.create_appointment("acme", "doctolib", **VISIT, practitioner="a-2")
    assert other.state is BookingState.CONFIRMED
    assert (await service.cancel(booking.id)).state is BookingState.CANCELLED
    with pytest.raises(UsageError, match="does not offer reserve"):
        await service.create_reservation("acme", "doctolib", **TABLE)


# The gateway


async def test_the_gateway_stands_in_for_partners_that_are_not_connected(gateway: BookingService) -> None:
    slots = await gateway.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert len(slots) == 10
    assert slots[0].seats == 2
    booking = await gateway.create_reservation("acme", "opentable", **TABLE)
    assert (booking.state, booking.route) == (BookingState.CONFIRMED, Route.GATEWAY)
    assert not booking.simulated
    assert (await gateway.cancel(booking.id)).state is BookingState.CANCELLED
    with pytest.raises(UsageError, match="does not do that: there is no partner bistro"):
        await gateway.create_reservation("acme", "bistro", **TABLE)


async def test_a_gateway_that_books_and_is_not_heard_books_once(
    gateway: BookingService, simulator: RunningSimulator
) -> None:
    await simulator.fault("drop:at=body:bookings:write")
    with pytest.raises(ServiceError, match="whether it was booked is not known"):
        await gateway.create_reservation("acme", "opentable", **TABLE, idempotency_key="call-3")
    await simulator.clear_faults()
    again = await gateway.create_reservation("acme", "opentable", **TABLE, idempotency_key="call-3")
    assert again.state is BookingState.UNKNOWN
    slots = await gateway.availability(
        "acme", "opentable", begin="2027-03-01T19:30Z", end="2027-03-01T19:31Z"
    )
    assert [slot.seats for slot in slots] == [1]


async def test_a_cancellation_that_is_not_heard_is_not_sent_again(
    gateway: BookingService, simulator: RunningSimulator
) -> None:
    booking = await gateway.create_reservation("acme", "opentable", **TABLE)
    await simulator.fault("drop:at=body:bookings:write")
    with pytest.raises(ServiceError, match="whether the cancel was done is not known") as caught:
        await gateway.cancel(booking.id)
    assert "settle" in caught.value.advice
    await simulator.clear_faults()
    sent = await requests(simulator, "POST /bookings/execute")
    with pytest.raises(ServiceError, match="asked for before and never answered"):
        await gateway.cancel(booking.id)
    assert await requests(simulator, "POST /bookings/execute") == sent
    settled = await gateway.settle(booking.id, BookingState.CANCELLED, actor="ann")
    assert settled.state is BookingState.CANCELLED


async def test_a_cancellation_that_was_refused_may_be_ordered_again(
    gateway: BookingService, simulator: RunningSimulator
) -> None:
    booking = await gateway.create_reservation("acme", "opentable", **TABLE)
    await simulator.fault("422:bookings:write:x1")
    with pytest.raises(ServiceError, match="refused it"):
        await gateway.cancel(booking.id)
    assert (await gateway.cancel(booking.id)).state is BookingState.CANCELLED


async def test_a_timeout_after_the_booking_is_unknown(
    database: Database, simulator: RunningSimulator
) -> None:
    bench = Bench(
        database,
        gateways={"bookings": (f"{simulator.partners_url}/bookings", simulator.key)},
        timeout=0.3,
    )
    await bench.add_company()
    service = bench.bookings()
    await simulator.fault("slow:ms=60000:bookings:write")
    with pytest.raises(ServiceError) as caught:
        await service.create_reservation("acme", "opentable", **TABLE)
    assert caught.value.category is Category.TIMEOUT
    assert [each.state for each in await service.list()] == [BookingState.UNKNOWN]
    await bench.aclose()


async def test_a_refusal_of_the_gateway_is_certain(
    gateway: BookingService, simulator: RunningSimulator
) -> None:
    await simulator.fault("422:bookings:write")
    with pytest.raises(ServiceError, match="refused it: simulated failure 422"):
        await gateway.create_reservation("acme", "opentable", **TABLE)
    assert [each.state for each in await gateway.list()] == [BookingState.FAILED]


async def test_any_other_action_goes_through_as_it_is(gateway: BookingService) -> None:
    first = await gateway.execute_integration(
        "acme", "opentable", "send_menu", {"to": "ann"}, idempotency_key="m-1", actor="ann"
    )
    assert (first.state, first.route) == (EffectState.DONE, Route.GATEWAY)
    assert first.result["action"] == "send_menu"
    again = await gateway.execute_integration(
        "acme", "opentable", "send_menu", {"to": "ann"}, idempotency_key="m-1"
    )
    assert (again.id, again.fresh) == (first.id, False)
    booked = await gateway.execute_integration("acme", "opentable", "reserve", TABLE)
    assert booked.result["state"] == "confirmed"
    asked = await gateway.execute_integration("acme", "opentable", "availability", {"day": "2027-03-01"})
    assert asked.id == ""
    assert len(asked.result["slots"]) == 10


async def test_a_companys_own_gateway_comes_before_the_environments(
    bench: Bench, simulator: RunningSimulator
) -> None:
    await bench.integrations.add(
        "http-bookings",
        name="our gateway",
        company="acme",
        base_url=f"{simulator.partners_url}/bookings",
        secret=simulator.key,
        config={"timezone": "Europe/Berlin"},
    )
    booking = await bench.bookings().create_reservation("acme", "opentable", **TABLE)
    assert (booking.route, booking.starts_at) == (Route.GATEWAY, 1_803_925_800_000)
    found = await bench.integrations.resolve(Kind.BOOKINGS, 1)
    assert await bench.bookings().probe(found) == "Knows opentable, toast, doctolib"


# Nothing configured


async def test_a_simulation_says_so_and_keeps_its_diary(bench: Bench) -> None:
    service = bench.bookings()
    slots = await service.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert slots
    assert all(slot.simulated for slot in slots)
    booking = await service.create_reservation("acme", "opentable", **TABLE)
    assert booking.simulated
    assert booking.route is Route.SIMULATION
    assert booking.provider_id.startswith("SIM-")
    with pytest.raises(ServiceError, match=r"taken \(simulated\)"):
        await service.create_reservation("acme", "opentable", **TABLE)
    left = await service.availability("acme", "opentable", day="2027-03-01", party_size=2)
    assert len(left) == len(slots) - 1
    assert (await service.cancel(booking.id)).state is BookingState.CANCELLED
    assert len(await service.availability("acme", "opentable", day="2027-03-01", party_size=2)) == len(slots)
    with pytest.raises(UsageError, match="no partner 'opentabel'") as caught:
        await service.create_reservation("acme", "opentabel", **TABLE)
    assert caught.value.advice == "Did you mean opentable?"
    with pytest.raises(UsageError, match="does not offer appoint"):
        await service.create_appointment("acme", "opentable", **VISIT)


async def test_every_probe_asks_the_partner(bench: Bench, simulator: RunningSimulator) -> None:
    for partner in ("opentable", "toast", "doctolib"):
        await connect(bench, simulator, partner)
    service = bench.bookings()
    for info in await bench.integrations.list("acme"):
        if info.id is not None:
            resolved = await bench.integrations.resolve(Kind.BOOKINGS, 1, adapter=info.adapter)
            assert (await service.probe(resolved)).endswith("answers")
    await simulator.fault("revoke:doctolib")
    resolved = await bench.integrations.resolve(Kind.BOOKINGS, 1, adapter="doctolib")
    with pytest.raises(ServiceError) as caught:
        await service.probe(resolved)
    assert caught.value.category is Category.AUTHENTICATION


async def test_two_integrations_of_one_partner_are_told_apart(
    bench: Bench, simulator: RunningSimulator
) -> None:
    await connect(bench, simulator, "doctolib")
    await bench.integrations.add(
        "doctolib",
        name="second practice",
        company="acme",
        base_url=f"{simulator.partners_url}/doctolib",
        config={"agenda": "b-1"},
        secret=simulator.key,
    )
    service = bench.bookings()
    await service.create_appointment("acme", "doctolib", **VISIT)
    other = await service.create_appointment("acme", "doctolib", **VISIT, integration="second practice")
    assert other.state is BookingState.CONFIRMED
    assert other.integration == "second practice"
    assert (await service.cancel(other.id)).state is BookingState.CANCELLED
    with pytest.raises(UsageError, match="is not for opentable"):
        await service.create_reservation("acme", "opentable", **TABLE, integration="second practice")


# A partner without code


async def test_a_partner_is_added_by_a_file(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "partners"
    folder.mkdir()
    (folder / "bistro.yaml").write_text(
        """\
partner: bistro
title: Bistro
documented: its own page
assumed: nothing
base_url: https://bistro.example
timezone: Europe/Berlin
settings: {house*: which house}
secret: key
auth: {style: header, header: X-Key, prefix: "Key "}
times: epoch
states: {ok: confirmed, wait: pending}
errors: {message: [why]}
operations:
  reserve:
    steps:
      - method: POST
        path: "/houses/{settings.house}/tables"
        headers: {X-Ref: "{key}"}
        body: {at: "{at|epoch}", party: "{party_size|int}", for: "{name}"}
    result: {id: table.id, state: table.state, starts_at: table.at}
"""
    )
    table = {"id": 5, "state": "wait", "at": 1_803_925_800}
    async with raw_server(
        scripted([reply({"table": table}, status=201), reply({"why": "We are closed."}, status=400)])
    ) as server:
        bench = Bench(database, partners=folder)
        await bench.add_company()
        await bench.integrations.add(
            "bistro",
            company="acme",
            base_url=server.url,
            config={"house": "old town"},
            secret="canary-secret-1",
        )
        service = bench.bookings()
        booking = await service.create_reservation("acme", "bistro", **TABLE)
        assert (booking.state, booking.provider_id) == (BookingState.PENDING, "5")
        with pytest.raises(ServiceError, match="Bistro refused it: We are closed"):
            await service.create_reservation("acme", "bistro", **TABLE)
        seen: Seen = server.seen[0]
        assert seen.path == "/houses/old%20town/tables"
        assert seen.headers["x-key"] == "Key canary-secret-1"
        assert seen.headers["x-ref"] == booking.effect_id
        assert b'"at":1803925800' in seen.body
        await bench.aclose()


@pytest.mark.parametrize("body", ["<html>", "{", "[1]", '"x"', '{"id": null}', "\x00"])
async def test_an_answer_that_cannot_be_read_leaves_a_question(database: Database, body: str) -> None:
    async with raw_server(scripted([reply(body=body)])) as server:
        bench = Bench(database, gateways={"bookings": (server.url, "key")})
        await bench.add_company()
        service = bench.bookings()
        try:
            booking = await service.create_reservation("acme", "opentable", **TABLE)
        except ServiceError as error:
            failure: ServiceError | None = error
        else:
            failure = None
            assert booking.state is BookingState.PENDING  # accepted, without an id or a state
        stored = (await service.list())[0]
        assert stored.state is (BookingState.PENDING if failure is None else BookingState.UNKNOWN)
        await bench.aclose()


# The other database


async def test_the_same_on_postgresql(postgres_url: str, simulator: RunningSimulator) -> None:
    database = await Database.open(DatabaseLocation.from_url(postgres_url))
    bench = Bench(database)
    await bench.add_company()
    await connect(bench, simulator, "opentable")
    service = bench.bookings()
    made = await asyncio.gather(
        *(
            service.create_reservation("acme", "opentable", **TABLE, idempotency_key="call-7")
            for _ in range(4)
        )
    )
    assert len({booking.id for booking in made}) == 1
    assert (await service.cancel(made[0].id)).state is BookingState.CANCELLED
    assert [each.state for each in await service.list("acme", state=BookingState.CANCELLED)] == [
        BookingState.CANCELLED
    ]
    await bench.aclose()
    await database.aclose()


# Times that are past, keys of what never left, other orders that nobody answered

PAST = {**TABLE, "at": "2026-09-20T19:30"}


async def test_a_time_that_is_past_is_refused_unless_it_is_meant(
    opentable: BookingService, bench: Bench
) -> None:
    with pytest.raises(UsageError) as caught:
        await opentable.create_reservation("acme", "opentable", **PAST)
    assert caught.value.message == ("2026-09-20 19:30 Europe/Berlin is past: it is 2026-09-21 16:13 now"), (
        caught.value.message
    )
    assert "--anyway" in caught.value.advice
    with pytest.raises(UsageError, match="is past"):
        await opentable.execute_integration("acme", "opentable", "reserve", PAST)
    assert await opentable.list() == []
    key = {"idempotency_key": "k-1"}
    booking = await opentable.create_reservation("acme", "opentable", **PAST, anyway=True, **key)  # type: ignore[arg-type]
    # Who asks again under the key is told of it, whatever the time is now.
    again = await opentable.create_reservation("acme", "opentable", **PAST, **key)  # type: ignore[arg-type]
    assert (again.id, again.fresh) == (booking.id, False)
    now = await opentable.create_reservation("acme", "opentable", **{**TABLE, "at": "2026-09-21T16:13+02:00"})
    assert now.state is BookingState.CONFIRMED


async def test_a_booking_that_never_left_is_made_with_the_same_key(
    opentable: BookingService, bench: Bench
) -> None:
    policy = bench.policies.of("opentable (acme)")
    policy.limiter = bench.policies.limiter(account=Limits(minute=2))  # the lock and the reservation
    await opentable.create_reservation("acme", "opentable", **{**TABLE, "at": "2027-03-01T18:00"})
    with pytest.raises(ServiceError) as caught:
        await opentable.create_reservation("acme", "opentable", **TABLE, idempotency_key="k-1")
    assert caught.value.code == "limited"
    (failed,) = await opentable.list(state=BookingState.FAILED)
    bench.clock.advance(seconds=61)
    made = await opentable.create_reservation("acme", "opentable", **TABLE, idempotency_key="k-1")
    assert (made.id, made.state, made.error) == (failed.id, BookingState.CONFIRMED, None)
    assert len(await opentable.list()) == 2


async def test_another_order_that_is_not_heard_is_settled(
    gateway: BookingService, simulator: RunningSimulator
) -> None:
    await simulator.fault("drop:at=body:bookings:write")
    with pytest.raises(ServiceError) as caught:
        await gateway.execute_integration("acme", "opentable", "send_menu", {"to": "ann"}, actor="ann")
    await simulator.clear_faults()
    assert caught.value.code == "unknown_outcome"
    (action,) = await gateway.actions.list(state=EffectState.UNKNOWN)
    assert (action.action, action.partner, action.company) == ("send_menu", "opentable", "acme")
    assert f"callboard booking settle {action.id[:8]} done" in caught.value.advice
    with pytest.raises(UsageError, match="no action that begins"):
        await gateway.actions.settle("zzz", done=True)
    settled = await gateway.actions.settle(action.id[:8], done=True, provider_id="M-1", actor="ann")
    assert (settled.state, settled.provider_id, settled.error) == (EffectState.DONE, "M-1", None)
    with pytest.raises(UsageError, match="decided already"):
        await gateway.actions.settle(action.id, done=False)
    # Bookings themselves are settled as bookings.
    await gateway.create_reservation("acme", "opentable", **TABLE)
    assert len(await gateway.actions.list()) == 1


async def test_a_booking_settled_as_cancelled_settles_its_cancellation(
    gateway: BookingService, simulator: RunningSimulator
) -> None:
    booking = await gateway.create_reservation("acme", "opentable", **TABLE)
    await simulator.fault("drop:at=body:bookings:write")
    with pytest.raises(ServiceError, match="not known"):
        await gateway.cancel(booking.id)
    (cancellation,) = await gateway.actions.list()
    assert cancellation.state is EffectState.UNKNOWN
    await gateway.settle(booking.id, BookingState.CANCELLED, actor="ann")
    assert (await gateway.actions.get(cancellation.id)).state is EffectState.DONE
