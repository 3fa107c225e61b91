"""Contacts, deals and notes over real sockets: at HubSpot, at a generic service, and where there is none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from services.errors import Category, ServiceError, UsageError
from services.integrations.credentials import Access, FetchedToken
from services.integrations.crm import ContactData, CrmService, DealData, NoteData, RecordKind
from services.integrations.crm.hubspot import HubSpot, Pace
from services.integrations.registry import Kind
from services.resilience import Subject
from services.security import RedactingFilter, Secret
from services.storage import Database, DatabaseLocation
from tests.support.fake_time import FakeTime
from tests.support.integrating import Bench
from tests.support.rawserver import raw_server, reply, scripted
from tests.support.simulator import RunningSimulator

CANARY = "canary-4f1c9e77-in-the-mine"
ANN = ContactData(email="ann@example.com", first_name="Ann", last_name="Smith", phone="+493012345678")
SYSTEMS = ["hubspot", "hubspot 2026-09", "http-crm"]


@pytest.fixture(params=SYSTEMS)
async def crm(request: pytest.FixtureRequest, bench: Bench, simulator: RunningSimulator) -> CrmService:
    name, _, version = request.param.partition(" ")
    path = {"hubspot": "hubspot", "http-crm": "crm"}[name]
    await bench.integrations.add(
        name,
        company="acme",
        base_url=f"{simulator.partners_url}/{path}",
        secret=simulator.key,
        config={"api": version} if version else {},
    )
    return bench.crm()


@pytest.fixture
async def hubspot(bench: Bench, simulator: RunningSimulator) -> CrmService:
    await bench.integrations.add(
        "hubspot", company="acme", base_url=f"{simulator.partners_url}/hubspot", secret=simulator.key
    )
    return bench.crm()


async def written(simulator: RunningSimulator) -> int:
    found: dict[str, int] = (await simulator.stats())["by_kind"]
    return found.get("write", 0)


async def test_a_contact_its_deal_and_a_note_are_written_and_found(crm: CrmService) -> None:
    made = await crm.create_contact("ACME", ANN, actor="ann")
    assert (made.state, made.existed, made.fresh) == ("done", False, True)
    # A vendor on this machine is a simulator; any other service may well be here.
    assert made.simulated == (made.system == "HubSpot")
    assert made.id
    changed = await crm.update_contact("acme", "ann@example.com", ContactData(company="Smith Ltd"))
    assert changed.id == made.id
    deal = await crm.create_deal(
        "acme",
        DealData("Renewal", amount="1250.50", closes_at=1_803_925_800_000, contact_id="ann@example.com"),
    )
    note = await crm.create_note(
        "acme", NoteData("Called about the renewal", contact_id=made.id, deal_id=deal.id)
    )
    assert len({made.id, deal.id, note.id}) == 3
    page = await crm.search("acme", RecordKind.CONTACT, "smith")
    assert [record.id for record in page.records] == [made.id]
    assert page.total == 1
    record = page.records[0]
    assert record.fields["company"] == "Smith Ltd"
    assert record.fields["first_name"] == "Ann"
    assert record.created_at is not None
    deals = await crm.search("acme", RecordKind.DEAL, filters={"name": "Renewal"})
    assert deals.records[0].fields["amount"] == "1250.50"
    notes = await crm.search("acme", RecordKind.NOTE, "renewal")
    assert notes.records[0].fields["body"] == "Called about the renewal"


async def test_a_contact_that_is_there_is_returned_and_said_so(crm: CrmService) -> None:
    first = await crm.create_contact("acme", ANN)
    again = await crm.create_contact("acme", ContactData(email="ANN@example.com", first_name="Other"))
    assert (again.id, again.existed) == (first.id, True)
    page = await crm.search("acme", RecordKind.CONTACT, filters={"email": "ann@example.com"})
    assert page.records[0].fields["first_name"] == "Ann"


async def test_a_key_writes_once(crm: CrmService, simulator: RunningSimulator) -> None:
    first = await crm.create_contact("acme", ANN, idempotency_key="call-1")
    count = await written(simulator)
    again = await crm.create_contact("acme", ANN, idempotency_key="call-1")
    assert (again.id, again.fresh) == (first.id, False)
    assert await written(simulator) == count
    with pytest.raises(UsageError, match="used for another request"):
        await crm.create_contact("acme", ContactData(email="ben@example.com"), idempotency_key="call-1")


async def test_pages_follow_each_other(crm: CrmService) -> None:
    for number in range(5):
        await crm.create_contact("acme", ContactData(email=f"guest{number}@example.com"))
    found: list[str] = []
    after = ""
    for _ in range(3):
        page = await crm.search("acme", RecordKind.CONTACT, limit=2, after=after)
        found += [record.fields["email"] for record in page.records]
        after = page.after
    assert found == [f"guest{number}@example.com" for number in range(5)]
    assert after == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda crm: crm.create_contact("acme", ContactData()), "Nothing is said about the contact"),
        (lambda crm: crm.create_contact("acme", ContactData(email="ann")), "is no e-mail address"),
        (lambda crm: crm.create_contact("nobody", ANN), "no company"),
        (lambda crm: crm.create_contact("acme", ANN, integration="none"), "no integration 'none'"),
        (lambda crm: crm.update_contact("acme", " ", ANN), "Which contact is not said"),
        (lambda crm: crm.create_deal("acme", DealData(" ")), "A deal needs a name"),
        (lambda crm: crm.create_deal("acme", DealData("x", amount="1,50")), "is no amount"),
        (
            lambda crm: crm.create_deal("acme", DealData("x", contact_id="no@example.com")),
            "has no contact with",
        ),
        (lambda crm: crm.create_note("acme", NoteData(" ", contact_id="1")), "A note needs a text"),
        (lambda crm: crm.create_note("acme", NoteData("x")), "belongs to a contact or a deal"),
        (lambda crm: crm.search("acme", RecordKind.CONTACT, limit=0), "no number of records"),
    ],
)
async def test_what_cannot_be_is_told_before_anything_is_written(
    hubspot: CrmService, simulator: RunningSimulator, call: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await call(hubspot)
    assert await written(simulator) == 0


async def test_another_contacts_address_is_a_conflict(hubspot: CrmService) -> None:
    ann = await hubspot.create_contact("acme", ANN)
    ben = await hubspot.create_contact("acme", ContactData(email="ben@example.com"))
    with pytest.raises(ServiceError, match=r"another contact with the address ann@example\.com") as caught:
        await hubspot.update_contact("acme", ben.id, ContactData(email="ann@example.com"))
    assert caught.value.code == "conflict"
    assert ann.id in caught.value.advice


async def test_a_refusal_is_told_in_the_systems_words(hubspot: CrmService) -> None:
    with pytest.raises(ServiceError, match="associations are not valid"):
        await hubspot.create_note("acme", NoteData("Hello", contact_id="999"))
    with pytest.raises(ServiceError) as caught:
        await hubspot.update_contact("acme", "999", ANN)
    assert caught.value.code == "not_found"


async def test_a_lost_answer_is_unknown_and_not_written_again(
    hubspot: CrmService, simulator: RunningSimulator
) -> None:
    await simulator.fault("drop:at=body:hubspot:write")
    with pytest.raises(ServiceError, match="whether the contact was written is not known") as caught:
        await hubspot.create_contact("acme", ANN, idempotency_key="call-2")
    assert caught.value.code == "unknown_outcome"
    await simulator.clear_faults()
    again = await hubspot.create_contact("acme", ANN, idempotency_key="call-2")
    assert again.state == "unknown"
    assert await written(simulator) == 1


async def test_a_generic_service_is_asked_again_with_the_same_key(
    bench: Bench, simulator: RunningSimulator
) -> None:
    await bench.integrations.add(
        "http-crm", company="acme", base_url=f"{simulator.partners_url}/crm", secret=simulator.key
    )
    crm = bench.crm()
    await simulator.fault("drop:at=body:crm:write:x1")
    made = await crm.create_contact("acme", ANN)
    assert made.state == "done"
    page = await crm.search("acme", RecordKind.CONTACT)
    assert [record.id for record in page.records] == [made.id]


async def test_a_limit_is_waited_for_and_a_revoked_token_is_told(
    hubspot: CrmService, simulator: RunningSimulator
) -> None:
    await simulator.fault("429:hubspot:list:retry-after=1:x1")
    assert (await hubspot.search("acme", RecordKind.CONTACT)).records == ()
    await simulator.fault("revoke:hubspot")
    with pytest.raises(ServiceError) as caught:
        await hubspot.search("acme", RecordKind.CONTACT)
    assert caught.value.category is Category.AUTHENTICATION
    with pytest.raises(ServiceError) as caught:
        await hubspot.create_contact("acme", ANN, idempotency_key="call-3")
    assert caught.value.category is Category.AUTHENTICATION
    await simulator.clear_faults()
    assert (await hubspot.create_contact("acme", ANN, idempotency_key="call-3")).state == "failed"


async def test_every_system_can_be_probed(crm: CrmService, bench: Bench) -> None:
    resolved = await bench.integrations.resolve(Kind.CRM, 1)
    assert await crm.probe(resolved) in ("HubSpot answers and shows contacts", "Simulated CRM service")


async def test_the_environments_service_stands_in(database: Database, simulator: RunningSimulator) -> None:
    bench = Bench(database, gateways={"crm": (f"{simulator.partners_url}/crm", simulator.key)})
    await bench.add_company()
    made = await bench.crm().create_contact("acme", ANN)
    assert (made.system, made.simulated) == ("Crm gateway", False)
    await bench.aclose()


async def test_a_simulation_says_so_and_keeps_companies_apart(bench: Bench) -> None:
    await bench.add_company("other")
    crm = bench.crm()
    made = await crm.create_contact("acme", ANN)
    assert made.simulated
    assert made.id.startswith("SIM-")
    assert (await crm.create_contact("acme", ANN)).existed
    await crm.update_contact("acme", "ann@example.com", ContactData(company="Smith Ltd"))
    await crm.create_deal("acme", DealData("Renewal", contact_id="ann@example.com"))
    await crm.create_note("acme", NoteData("Hello", contact_id=made.id))
    page = await crm.search("acme", RecordKind.CONTACT, "smith")
    assert page.simulated
    assert page.records[0].fields["company"] == "Smith Ltd"
    assert (await crm.search("other", RecordKind.CONTACT)).records == ()
    assert len((await crm.search("acme", RecordKind.DEAL, "renew")).records) == 1


# Credentials that renew themselves: what OAuth needs


async def test_a_token_that_expired_is_renewed_once_and_the_request_sent_again(
    bench: Bench, simulator: RunningSimulator
) -> None:
    added = await bench.integrations.add(
        "hubspot", company="acme", base_url=f"{simulator.partners_url}/hubspot", secret="refresh-token-1"
    )
    tokens = ["expired-token-1", simulator.key]
    fetched: list[str] = []

    async def fetch() -> tuple[Access, float]:
        fetched.append(tokens.pop(0))
        return Access(Secret(fetched[-1])), 1800.0

    resolved = await bench.integrations.resolve(Kind.CRM, 1)
    policy = bench.policies.of(added.policy)
    system = HubSpot(resolved, policy, bench.clock, credentials=FetchedToken(fetch, bench.clock))
    stored = await system.create_contact(ANN, key="k", subject=Subject())
    assert stored.id
    assert len(fetched) == 2
    assert await system.find_contact("ann@example.com", subject=Subject()) == stored.id
    assert await system.find_contact("nobody@example.com", subject=Subject()) == ""
    assert len(fetched) == 2
    await system.aclose()


async def test_a_token_is_fetched_by_one_and_a_minute_early(fake_time: FakeTime) -> None:
    count = 0

    async def fetch() -> tuple[Access, float]:
        nonlocal count
        count += 1
        return Access(Secret(f"token-number-{count}")), 1800.0

    token = FetchedToken(fetch, fake_time)
    first = await token.access()
    fake_time.seconds += 1739
    assert await token.access() is first
    fake_time.seconds += 2
    second = await token.access()
    assert second is not first
    assert await token.renew(first)  # refused late: somebody else renewed it already
    assert await token.access() is second
    assert count == 2


async def test_searches_keep_their_pace(fake_time: FakeTime) -> None:
    pace = Pace(5, fake_time, fake_time.sleep)
    started = fake_time.monotonic()
    times = []
    for _ in range(12):
        await pace.turn()
        times.append(fake_time.monotonic() - started)
    assert times == [0.0] * 5 + [1.0] * 5 + [2.0] * 2


# The other database, secrets, garbage


async def test_the_same_on_postgresql(postgres_url: str, simulator: RunningSimulator) -> None:
    database = await Database.open(DatabaseLocation.from_url(postgres_url))
    bench = Bench(database)
    await bench.add_company()
    await bench.integrations.add(
        "hubspot", company="acme", base_url=f"{simulator.partners_url}/hubspot", secret=simulator.key
    )
    crm = bench.crm()
    first = await crm.create_contact("acme", ANN, idempotency_key="call-1")
    again = await crm.create_contact("acme", ANN, idempotency_key="call-1")
    assert (first.id, first.fresh, again.fresh) == (again.id, True, False)
    await bench.aclose()
    await database.aclose()


async def test_the_token_is_nowhere(
    bench: Bench, simulator: RunningSimulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.addFilter(RedactingFilter())
    async with raw_server(
        scripted([reply({"message": f"the token {CANARY} is wrong", "category": "INVALID"}, status=400)])
    ) as server:
        await bench.integrations.add("hubspot", company="acme", base_url=server.url, secret=CANARY)
        with pytest.raises(ServiceError) as caught:
            await bench.crm().create_contact("acme", ANN)
        assert server.seen[0].headers["authorization"] == f"Bearer {CANARY}"
    stored = await bench.effects.recent("crm")
    assert CANARY not in repr(caught.value) + caught.value.advice + repr(stored) + caplog.text
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes()


@pytest.mark.parametrize("body", ["<html></html>", "{", "[]", '{"id": 7}', '{"id": ""}'])
async def test_an_answer_that_cannot_be_read_leaves_a_question(bench: Bench, body: str) -> None:
    async with raw_server(scripted([reply(body=body, status=201)])) as server:
        await bench.integrations.add("hubspot", company="acme", base_url=server.url, secret=CANARY)
        with pytest.raises(ServiceError, match="not known"):
            await bench.crm().create_contact("acme", ANN)
    (effect,) = await bench.effects.recent("crm")
    assert effect.state == "unknown"


async def test_a_version_of_paths_that_is_none_is_told(bench: Bench, simulator: RunningSimulator) -> None:
    await bench.integrations.add(
        "hubspot", company="acme", base_url=simulator.partners_url, secret=CANARY, config={"api": "v3/../x"}
    )
    with pytest.raises(UsageError, match="no API version"):
        await bench.crm().search("acme", RecordKind.CONTACT)


async def test_while_the_system_is_down_an_earlier_answer_stands_in_with_its_age(
    hubspot: CrmService, bench: Bench, simulator: RunningSimulator
) -> None:
    await hubspot.create_contact("acme", ANN)
    live = await hubspot.search("acme", RecordKind.CONTACT, "smith")
    assert (len(live.records), live.degraded, live.age) == (1, "", None)
    await simulator.fault("503:hubspot")
    bench.clock.advance(minutes=4)
    page = await hubspot.search("acme", RecordKind.CONTACT, " smith ")
    assert page.records == live.records
    assert page.age == pytest.approx(240, abs=30)
    assert page.degraded.startswith("as of ")
    assert "ago, because HubSpot answered 503" in page.degraded
    for kind, words in ((RecordKind.DEAL, "smith"), (RecordKind.CONTACT, "jones")):
        with pytest.raises(ServiceError):
            await hubspot.search("acme", kind, words)
    # A write is never stood in for, nor is anything for ever.
    with pytest.raises(ServiceError):
        await hubspot.create_contact("acme", ContactData(email="bob@example.com"))
    bench.clock.advance(minutes=15)
    with pytest.raises(ServiceError):
        await hubspot.search("acme", RecordKind.CONTACT, "smith")
