"""What became of changes whose answer was lost: asked of the system, or decided by a person."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from sqlmodel import select

from services.errors import ServiceError, UsageError
from services.integrations.crm import Change, ContactData, CrmService, DealData, NoteData, RecordKind
from services.integrations.crm.lost import SURE_AFTER_MS
from services.integrations.effects import GIVEN_UP_MS, Deed, EffectRow, EffectState, Intent
from services.integrations.model import Kind
from services.storage.tables import Audit, Effect
from tests.support.integrating import Bench
from tests.support.rawserver import raw_server, reply, scripted
from tests.support.simulator import RunningSimulator

ANN = ContactData(email="ann@example.com", first_name="Ann", last_name="Smith", phone="+493012345678")
SYSTEMS = ["hubspot", "http-crm"]


@pytest.fixture(params=SYSTEMS)
async def system(request: pytest.FixtureRequest, bench: Bench, simulator: RunningSimulator) -> str:
    """One that is asked; its name among the simulator's services."""
    word = {"hubspot": "hubspot", "http-crm": "crm"}[request.param]
    await bench.integrations.add(
        request.param, company="acme", base_url=f"{simulator.partners_url}/{word}", secret=simulator.key
    )
    return word


async def lose(crm: CrmService, simulator: RunningSimulator, word: str, order: object, key: str) -> Change:
    """Order it, have it written there, and lose every answer."""
    await simulator.fault(f"drop:at=body:{word}:write")
    with pytest.raises(ServiceError, match="not known") as caught:
        await ordered(crm, order, key)
    await simulator.clear_faults()
    change = (await crm.changes("acme", state=EffectState.UNKNOWN))[0]
    assert f"callboard crm settle {change.id[:8]}" in caught.value.advice
    return change


async def ordered(crm: CrmService, order: object, key: str) -> None:
    match order:
        case ContactData():
            await crm.create_contact("acme", order, idempotency_key=key)
        case DealData():
            await crm.create_deal("acme", order, idempotency_key=key)
        case NoteData():
            await crm.create_note("acme", order, idempotency_key=key)
        case (str(contact), ContactData() as data):
            await crm.update_contact("acme", contact, data, idempotency_key=key)


def real_time(bench: Bench) -> None:
    """The simulator dates its records by the machine's clock."""
    bench.clock.time = time.time_ns() // 1_000_000


async def cut_off(bench: Bench, kind: str, request: dict[str, Any], key: str) -> None:
    """A change whose program broke off before anything was sent: unknown."""
    info = (await bench.integrations.resolve(Kind.CRM, 1)).info

    async def break_off(row: EffectRow) -> Deed:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await bench.effects.once(Intent(kind, key, "Ann", 1, "ann", request, info.id, info.name), break_off)


async def left_behind(bench: Bench, request: dict[str, Any], integration_id: int | None, name: str) -> str:
    """A change whose program was killed: its intent is all there is. Returns its id."""
    effect = Effect(
        id="a1b2c3d4",
        company_id=1,
        kind="crm.contact",
        key="k",
        target="ann@example.com",
        actor="ann",
        state="intended",
        integration_id=integration_id,
        integration=name,
        request=json.dumps(request),
        created_at=bench.clock.now(),
        updated_at=bench.clock.now(),
    )
    await bench.database.write(lambda session: session.add(effect))
    return "a1b2c3d4"


async def test_what_was_written_is_found_at_the_system(
    bench: Bench, simulator: RunningSimulator, system: str
) -> None:
    real_time(bench)
    crm = bench.crm()
    contact = await lose(crm, simulator, system, ANN, "a")
    assert (contact.what, contact.kind, contact.target) == ("create", RecordKind.CONTACT, ANN.email)
    settled = await crm.settle(contact.id, actor="ann")
    (there,) = (await crm.search("acme", RecordKind.CONTACT, filters={"email": ANN.email})).records
    assert (settled.state, settled.record_id, settled.error) == (EffectState.DONE, there.id, None)
    again = await crm.create_contact("acme", ANN, idempotency_key="a")
    assert (again.state, again.id, again.existed, again.fresh) == ("done", there.id, False, False)
    for key, order in (
        ("b", DealData("Renewal", amount="12.50", contact_id=there.id)),
        ("c", NoteData("Called about it", contact_id=there.id)),
        ("d", (ANN.email, ContactData(company="Smith Ltd"))),
    ):
        lost = await lose(crm, simulator, system, order, key)
        found = await crm.settle(lost.id[:8], actor="ann")
        assert (found.state, found.id) == (EffectState.DONE, lost.id)
        assert found.record_id
    assert await crm.changes("acme", state=EffectState.UNKNOWN) == []


async def test_what_never_came_is_not_done_once_that_is_certain(
    bench: Bench, simulator: RunningSimulator, system: str
) -> None:
    real_time(bench)
    crm = bench.crm()
    intents: dict[str, dict[str, Any]] = {
        "crm.contact": {"email": ANN.email, "properties": {}},
        "crm.deal": {"name": "Renewal", "properties": {}},
        "crm.note": {"body": "Called", "at": None, "properties": {}, "contact": "1"},
    }
    for kind, request in intents.items():
        await cut_off(bench, kind, request, kind)
    lost = await crm.changes("acme", state=EffectState.UNKNOWN)
    assert len(lost) == 3
    for change in lost:
        with pytest.raises(ServiceError, match="may still be on its way") as caught:
            await crm.settle(change.id)
        assert caught.value.code == "cannot_tell"
    assert len(await crm.changes("acme", state=EffectState.UNKNOWN)) == 3
    bench.clock.advance(seconds=SURE_AFTER_MS / 1000)
    for change in lost:
        settled = await crm.settle(change.id, actor="ann")
        assert (settled.state, settled.record_id) == (EffectState.FAILED, "")


async def test_a_contact_that_was_there_before_is_told_as_such(
    bench: Bench, simulator: RunningSimulator, system: str
) -> None:
    real_time(bench)
    crm = bench.crm()
    first = await crm.create_contact("acme", ANN)
    bench.clock.advance(minutes=10)
    lost = await lose(crm, simulator, system, ContactData(email=ANN.email, first_name="Other"), "k")
    assert (await crm.settle(lost.id)).record_id == first.id
    again = await crm.create_contact(
        "acme", ContactData(email=ANN.email, first_name="Other"), idempotency_key="k"
    )
    assert (again.id, again.existed) == (first.id, True)


async def test_one_record_answers_for_one_change_only(
    bench: Bench, simulator: RunningSimulator, system: str
) -> None:
    real_time(bench)
    crm = bench.crm()
    deal = DealData("Renewal")
    await crm.create_deal("acme", deal)
    await cut_off(bench, "crm.deal", {"name": "Renewal", "properties": {}}, "second")
    (lost,) = await crm.changes("acme", state=EffectState.UNKNOWN)
    with pytest.raises(ServiceError, match="another change's"):
        await crm.settle(lost.id)


async def test_an_older_record_of_the_same_name_is_another_one(
    bench: Bench, simulator: RunningSimulator, system: str
) -> None:
    real_time(bench)
    crm = bench.crm()
    await crm.create_deal("acme", DealData("Renewal"))
    bench.clock.advance(hours=1)
    await cut_off(bench, "crm.deal", {"name": "Renewal", "properties": {}}, "second")
    (lost,) = await crm.changes("acme", state=EffectState.UNKNOWN)
    bench.clock.advance(seconds=SURE_AFTER_MS / 1000)
    assert (await crm.settle(lost.id)).state is EffectState.FAILED


async def test_an_update_that_others_wrote_over_is_for_a_person(
    bench: Bench, simulator: RunningSimulator
) -> None:
    real_time(bench)
    await bench.integrations.add(
        "hubspot", company="acme", base_url=f"{simulator.partners_url}/hubspot", secret=simulator.key
    )
    crm = bench.crm()
    made = await crm.create_contact("acme", ANN)
    lost = await lose(crm, simulator, "hubspot", (made.id, ContactData(company="Smith Ltd")), "k")
    await crm.update_contact("acme", made.id, ContactData(company="Jones Ltd"))
    with pytest.raises(ServiceError, match="was changed since") as caught:
        await crm.settle(lost.id)
    assert "--not-done" in caught.value.advice
    settled = await crm.settle(lost.id, done=True, record_id=made.id, cause="asked Ann", actor="ben")
    assert (settled.state, settled.record_id) == (EffectState.DONE, made.id)
    with pytest.raises(UsageError, match="decided already: done"):
        await crm.settle(lost.id, done=False)


async def test_a_persons_word_is_in_the_audit_log_and_the_key_stays_used(
    bench: Bench, simulator: RunningSimulator, system: str
) -> None:
    crm = bench.crm()
    lost = await lose(crm, simulator, system, ANN, "k")
    settled = await crm.settle(lost.id, done=False, actor="ben")
    assert (settled.state, settled.company) == (EffectState.FAILED, "acme")
    assert (await crm.create_contact("acme", ANN, idempotency_key="k")).state == "failed"

    rows = await bench.database.read(lambda session: list(session.exec(select(Audit))))
    (row,) = [row for row in rows if row.action == "crm.contact.settle"]
    assert (row.actor, row.subject, json.loads(row.after)) == ("ben", ANN.email, {"state": "failed"})
    assert json.loads(row.before) == {"state": "unknown"}
    assert "looked it up" in row.cause


async def test_what_a_killed_program_left_is_listed_and_waited_for(bench: Bench) -> None:
    crm = bench.crm()
    added = await bench.integrations.add("hubspot", company="acme", secret="token-" * 4)
    change = await left_behind(bench, {"email": ANN.email}, added.id, added.name)
    assert [each.state for each in await crm.changes()] == [EffectState.INTENDED]
    with pytest.raises(UsageError, match="may still be under way"):
        await crm.settle(change)
    bench.clock.advance(seconds=GIVEN_UP_MS / 1000 + 1)
    assert [each.state for each in await crm.changes()] == [EffectState.UNKNOWN]


async def test_a_simulated_change_never_happened(bench: Bench) -> None:
    crm = bench.crm()
    change = await left_behind(bench, {"email": ANN.email}, None, "crm")
    bench.clock.advance(seconds=GIVEN_UP_MS / 1000 + 1)
    await crm.changes()
    assert (await crm.settle(change)).state is EffectState.FAILED


async def test_an_integration_that_is_gone_cannot_be_asked(
    bench: Bench, simulator: RunningSimulator, system: str
) -> None:
    crm = bench.crm()
    lost = await lose(crm, simulator, system, ANN, "k")
    (info,) = [info for info in await bench.integrations.list() if info.id is not None]
    await bench.integrations.remove(info.id or 0)
    with pytest.raises(UsageError, match=r"no integration|not there any more"):
        await crm.settle(lost.id)
    assert (await crm.settle(lost.id, done=True, record_id="7")).record_id == "7"


@pytest.mark.parametrize("wanted", ["", "zz", "%"])
async def test_an_unknown_change_is_told(bench: Bench, wanted: str) -> None:
    with pytest.raises(UsageError, match="no change that begins"):
        await bench.crm().settle(wanted)


async def test_a_system_that_does_not_say_when_cannot_tell(bench: Bench) -> None:
    found = {"records": [{"id": "7", "fields": {"name": "Renewal"}}]}
    async with raw_server(scripted([reply(body="[]"), reply(found)])) as server:
        await bench.integrations.add("http-crm", company="acme", base_url=server.url)
        crm = bench.crm()
        with pytest.raises(ServiceError, match="not known"):
            await crm.create_deal("acme", DealData("Renewal"))
        (lost,) = await crm.changes(state=EffectState.UNKNOWN)
        with pytest.raises(ServiceError, match="does not say when"):
            await crm.settle(lost.id)
