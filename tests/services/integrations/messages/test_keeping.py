"""For how long texts are kept: the settings' word, a company's own, and what stays when a text is gone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from sqlmodel import select

from services.errors import UsageError
from services.events import MessagesChanged
from services.integrations.messages import Channel, MessageState, Template
from services.integrations.messages.keeping import DAY_MS, KEEP_DAYS
from services.storage.tables import Audit, Effect
from tests.services.integrations.messages.conftest import TO, World
from tests.services.integrations.messages.test_incoming import text, wrote
from tests.services.integrations.messages.test_webhooks import with_secrets

DAY_HOURS = 24


async def sent(world: World, body: str = "The diagnosis is bad", **more):
    return await world.messages.send_message("acme", Channel.EMAIL, "ann@example.com", body=body, **more)


async def test_an_old_text_goes_and_all_else_stays(world):
    old = await sent(world, subject="Your results", idempotency_key="k")
    world.clock.advance(hours=KEEP_DAYS * DAY_HOURS)
    new = await sent(world, "Hello")
    assert await world.messages.texts.sweep() == 0  # not a moment too early
    world.clock.advance(seconds=1)
    world.changes.clear()
    assert await world.messages.texts.sweep() == 1
    assert world.changes == [MessagesChanged()]
    assert await world.messages.texts.sweep() == 0
    row = await world.messages.get(old.id)
    assert (row.subject, row.body, row.text_removed_at) == ("", "", world.clock.now())
    assert replace(row, subject=old.subject, body=old.body, text_removed_at=None) == old
    assert len(await world.messages.events(old.id)) == 2
    assert (await world.messages.get(new.id)).body == "Hello"
    # The key stays used, and the same request is still known as the same.
    assert (await sent(world, subject="Your results", idempotency_key="k")).id == old.id
    with pytest.raises(UsageError, match="not kept any more"):
        await world.messages.resend(old.id)


async def test_a_templates_values_go_too_and_are_nowhere_else(world):
    template = Template("reminder", "de", {"1": "the-secret-diagnosis"})
    row = await world.messages.send_message("acme", Channel.WHATSAPP, TO, template=template)
    await with_secrets(world)
    await wrote(world, text("the-secret-answer", **{"from": "493012345678"}))
    world.clock.advance(hours=KEEP_DAYS * DAY_HOURS, seconds=1)
    assert await world.messages.texts.sweep() == 2
    kept = (await world.messages.get(row.id)).template
    assert kept == Template("reminder", "de", {})
    (heard,) = await world.messages.received()
    assert (heard.body, heard.sender_name, heard.sender) == ("", "", "+493012345678")
    assert heard.text_removed_at == world.clock.now()
    database = await world.services.open_database()
    effects = await database.read(lambda session: list(session.exec(select(Effect))))
    assert "the-secret" not in "".join(effect.request + effect.result for effect in effects)


async def test_a_company_has_its_own_number_of_days(world):
    await world.services.companies.add("globex")
    texts = world.messages.texts
    assert [(each.company, each.days, each.own) for each in await texts.of()] == [
        ("acme", KEEP_DAYS, False),
        ("globex", KEEP_DAYS, False),
    ]
    kept = await texts.set("ACME", 2, actor="ann")
    assert (kept.company, kept.days, kept.own) == ("acme", 2, True)
    await texts.set("globex", 0)
    first = await sent(world)
    theirs = await world.messages.send_message("globex", Channel.EMAIL, "ann@example.com", body="Hi")
    world.clock.advance(hours=2 * DAY_HOURS, seconds=1)
    assert await texts.sweep() == 1
    assert (await world.messages.get(first.id)).body == ""
    world.clock.advance(hours=5_000 * DAY_HOURS)
    assert await texts.sweep() == 0  # kept for ever
    await texts.set("globex", None)
    assert await texts.sweep() == 1
    assert (await world.messages.get(theirs.id)).text_removed_at is not None
    rows = await (await world.services.open_database()).read(
        lambda session: [row for row in session.exec(select(Audit)) if row.action.startswith("message.")]
    )
    told = [(row.action, row.actor, row.subject) for row in rows if row.action != "message.send"]
    assert ("message.keep", "ann", "acme") in told
    assert ("message.text.remove", "callboard", "acme") in told
    (removed,) = [row for row in rows if row.action == "message.text.remove" and row.subject == "acme"]
    assert (removed.cause, json.loads(removed.after)) == ("older than 2 days", {"messages": 1})


async def test_what_is_still_followed_keeps_its_text(world):
    await world.add_twilio()
    await world.messages.texts.set("acme", 1)
    row = await world.messages.send_message("acme", Channel.SMS, TO, body="Hello")
    assert row.followed
    world.clock.advance(hours=DAY_HOURS, seconds=1)
    assert await world.messages.texts.sweep() == 0
    await world.simulator.phone(advance_ms=10_000)
    for _ in range(2):  # it is on its way, then there
        world.clock.advance(hours=2)
        await world.messages.look_at_due()
    assert (await world.messages.get(row.id)).state is MessageState.DELIVERED
    assert await world.messages.texts.sweep() == 1


async def test_many_go_in_several_steps(world, monkeypatch):
    monkeypatch.setattr("services.integrations.messages.keeping._AT_ONCE", 3)
    for number in range(7):
        await sent(world, f"Text {number}")
    await with_secrets(world)
    for number in range(4):
        await wrote(world, text("x", wamid=f"wamid.{number}", **{"from": "493012345678"}))
    world.clock.time += KEEP_DAYS * DAY_MS + 1
    assert await world.messages.texts.sweep() == 11
    assert all(row.text_removed_at for row in await world.messages.list())


async def test_it_sweeps_when_it_starts(world):
    row = await sent(world)
    world.clock.advance(hours=KEEP_DAYS * DAY_HOURS, seconds=1)
    swept = asyncio.Event()
    world.services.bus.subscribe(MessagesChanged, lambda event: swept.set() if not event.ids else None)
    await world.messages.start()
    await asyncio.wait_for(swept.wait(), 10)
    assert (await world.messages.get(row.id)).body == ""


@pytest.mark.parametrize("days", [-1, 3_651])
async def test_a_number_of_days_that_cannot_be(world, days):
    with pytest.raises(UsageError, match="no number of days"):
        await world.messages.texts.set("acme", days)
    with pytest.raises(UsageError, match="no company"):
        await world.messages.texts.set("nobody", 3)
