"""The same on a real PostgreSQL server: sending, reports at once from several sides, claims, settling."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from services.integrations.messages import Channel, MessageState, store
from services.integrations.messages.model import Report
from services.integrations.messages.webhooks import twilio_signature
from services.simulator.options import ACCOUNT_SID
from services.storage import DatabaseLocation
from tests.services.integrations.messages.conftest import TO, World
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401
from tests.support.world import FakeClock, services_on

URL = "https://callboard.example.com/webhooks/twilio/messages"


async def test_messages_on_postgresql(simulator, postgres_url, tmp_path):  # noqa: F811
    clock = FakeClock()
    where = DatabaseLocation.from_url(postgres_url)
    async with (
        services_on(simulator, tmp_path, clock=clock, vendors=(), database=where) as services,
        services_on(simulator, tmp_path, clock=clock, vendors=(), database=where) as others,
    ):
        world = World(services, simulator, clock)
        integration = await world.add_twilio()
        await (await others.open_secrets()).set(f"integration/{integration}", simulator.key)

        # One key, two processes: one message.
        rows = await asyncio.gather(*(
            each.messages.send_message("acme", Channel.SMS, TO, body="Hello", idempotency_key="k")
            for each in (services, others)
            for _ in range(4)
        ))  # fmt: skip
        assert len({row.id for row in rows}) == 1
        row = rows[0]
        assert (await simulator.stats())["twilio"]["by_route"] == {
            "POST /2010-04-01/Accounts/*/Messages.json": 1
        }

        # One look, two processes.
        clock.advance(seconds=10)
        looks = await asyncio.gather(services.messages.look_at_due(), others.messages.look_at_due())
        assert sum(looks) == 1

        # Reports from both at once, each twice, in any order: the furthest one stays, each is stored once.
        states = [MessageState.SENT, MessageState.READ, MessageState.DELIVERED, MessageState.FAILED] * 2
        databases = [await services.open_database(), await others.open_database()]
        await asyncio.gather(*(
            databases[number % 2].write(
                lambda session, state=state: store.apply(
                    session, row.id, Report(state), "report", clock.now(), asked=True
                )
            )
            for number, state in enumerate(states)
        ))  # fmt: skip
        row = await services.messages.get(row.id[:9])
        assert (row.state, row.followed) == (MessageState.READ, False)
        kept = [event.state for event in await services.messages.events(row.id)]
        assert len(kept) == len(set(kept))

        # A lost answer is found again, and listed.
        await simulator.fault("drop:twilio:write:at=body:x1")
        lost = await services.messages.send_message("acme", Channel.SMS, TO, body="Lost")
        assert lost.state is MessageState.UNKNOWN
        assert (await world.until(lost.id, MessageState.DELIVERED)).provider_id
        assert [each.id for each in await services.messages.list("acme", channel=Channel.SMS)] == [
            lost.id,
            row.id,
        ]
        assert await services.messages.settle(older_than_ms=0) == ()
        await services.companies.remove("acme")
        assert await services.messages.list() == []


async def test_what_comes_in_on_postgresql(simulator, postgres_url, tmp_path):  # noqa: F811
    clock = FakeClock()
    where = DatabaseLocation.from_url(postgres_url)
    async with (
        services_on(simulator, tmp_path, clock=clock, vendors=(), database=where) as services,
        services_on(simulator, tmp_path, clock=clock, vendors=(), database=where) as others,
    ):
        world = World(services, simulator, clock)
        integration = await world.add_twilio()
        await (await others.open_secrets()).set(f"integration/{integration}", simulator.key)
        sms = {"AccountSid": ACCOUNT_SID, "MessageSid": "SM1", "SmsStatus": "received", "From": TO}
        fields = {**sms, "To": "+15005550006", "Body": "Yes\x00, Monday"}
        headers = {"X-Twilio-Signature": twilio_signature(simulator.key, URL, fields.items())}
        answers = await asyncio.gather(*(
            each.messages.take_twilio_status(headers, urlencode(fields).encode(), URL)
            for each in (services, others)
            for _ in range(4)
        ))  # fmt: skip
        assert {answer.status for answer in answers} == {200}
        (row,) = await others.messages.received("acme")
        assert row.body == "Yes, Monday"

        await world.messages.send_message("acme", Channel.EMAIL, "ann@example.com", body="Hello")
        await services.messages.texts.set("acme", 3)
        clock.advance(hours=3 * 24, seconds=1)
        swept = await asyncio.gather(services.messages.texts.sweep(), others.messages.texts.sweep())
        assert max(swept) == 2
        assert (await others.messages.received())[0].text_removed_at == clock.now()
