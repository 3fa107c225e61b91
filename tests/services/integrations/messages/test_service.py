"""Sending and following over real sockets, against the simulator."""

from __future__ import annotations

import asyncio
import json

import pytest

from services.container import ServiceOptions, Services
from services.errors import UsageError
from services.integrations.effects import EffectState
from services.integrations.messages import Channel, MessageState, Template
from services.options import Gateway
from services.resilience import Limits
from services.security import MemoryStore
from services.storage import DatabaseLocation
from tests.services.integrations.messages.conftest import SMS_FROM, TO, World
from tests.support.world import FakeClock

SENDING, SENT, FAILED = MessageState.SENDING, MessageState.SENT, MessageState.FAILED
DELIVERED, UNKNOWN, QUEUED = MessageState.DELIVERED, MessageState.UNKNOWN, MessageState.QUEUED


async def sms(world: World, to: str = TO, **more):
    return await world.messages.send_message("acme", Channel.SMS, to, **{"body": "See you at nine", **more})


# -- SMS ------------------------------------------------------------------------------------------


async def test_an_sms_is_sent_and_followed_to_its_delivery(world):
    integration = await world.add_twilio()
    row = await sms(world, " +49 (0)30 1234-5678", actor="me", agent_id=None)
    assert (row.state, row.recipient, row.sender) == (SENDING, TO, SMS_FROM)
    assert (row.adapter, row.integration_id, row.company) == ("twilio-sms", integration, "acme")
    assert row.provider_id.startswith("SM")
    assert row.simulated  # a vendor on this machine is a simulator
    assert row.followed
    row = await world.until(row.id, DELIVERED)
    assert not row.followed
    steps = [event.state for event in await world.messages.events(row.id)]
    assert steps[0] is QUEUED
    assert steps[-1] is DELIVERED
    effect = await world.services.effects.get(row.id)
    assert effect is not None
    assert effect.state is EffectState.DONE
    assert {change.ids for change in world.changes} == {(row.id,)}
    audit = (await world.services.agents.audit())[0]
    assert (audit.action, audit.subject) == ("message.send", TO)


async def test_the_same_key_is_the_same_message(world):
    await world.add_twilio()
    rows = await asyncio.gather(*(sms(world, idempotency_key="order-7") for _ in range(5)))
    assert len({row.id for row in rows}) == 1
    again = await sms(world, idempotency_key="order-7")
    assert again.id == rows[0].id
    with pytest.raises(UsageError, match="another request"):
        await sms(world, idempotency_key="order-7", body="Something else")
    stats = await world.simulator.stats()
    assert stats["twilio"]["by_route"] == {"POST /2010-04-01/Accounts/*/Messages.json": 1}


@pytest.mark.parametrize(
    ("to", "code", "advice"),
    [
        ("+15005550001", "21211", "number"),
        ("+15005550003", "21408", "geographic permissions"),
        ("+15005550004", "21610", "START"),
        ("+15005550009", "21614", "another channel"),
    ],
)
async def test_what_twilio_refuses_at_once(world, to, code, advice):
    await world.add_twilio()
    row = await sms(world, to)
    assert row.state is FAILED
    assert not row.followed
    assert row.error is not None
    assert code in row.error.message
    assert advice in row.error.advice
    effect = await world.services.effects.get(row.id)
    assert effect is not None
    assert effect.state is EffectState.FAILED


async def test_what_the_carrier_does_not_deliver(world):
    await world.add_twilio()
    row = await sms(world, "+15005550011")
    row = await world.until(row.id, FAILED)
    assert row.error is not None
    assert "30007" in row.error.message
    assert "filter" in row.error.message
    assert "Change the text" in row.error.advice


async def test_a_messaging_service_chooses_the_sender(world):
    await world.add_twilio(**{"from": "", "messaging_service": "MG" + "0a" * 16})
    row = await sms(world)
    assert row.sender == ""
    assert (await world.until(row.id, DELIVERED)).sender == SMS_FROM


async def test_a_content_template(world):
    await world.add_twilio()
    template = Template("HX" + "0f" * 16, parameters={"1": "Monday", "2": "nine"})
    row = await world.messages.send_message("acme", Channel.SMS, TO, template=template)
    assert row.template == template
    assert row.state is SENDING


async def test_a_wrong_token_is_certain_and_says_what_to_do(world):
    await world.add_twilio()
    await world.simulator.fault("revoke:twilio")
    row = await sms(world)
    assert row.state is FAILED
    assert row.error is not None
    assert row.error.category == "authentication"


async def test_no_report_for_three_days_ends_the_following(world):
    await world.add_twilio()
    row = await sms(world, "+15005550012")
    row = await world.until(row.id, SENT)
    world.clock.advance(hours=73)
    await world.messages.look_at_due()
    row = await world.messages.get(row.id)
    assert (row.state, row.followed) == (SENT, False)
    assert "three days" in row.remark


# -- lost answers ---------------------------------------------------------------------------------


async def test_an_answer_that_is_lost_is_looked_up_and_never_sent_again(world):
    await world.add_twilio()
    await world.simulator.fault("drop:twilio:write:at=body:x1")
    row = await sms(world)
    assert row.state is UNKNOWN
    assert row.error is not None
    assert row.followed
    row = await world.until(row.id, DELIVERED)
    assert row.error is None
    assert row.provider_id.startswith("SM")
    effect = await world.services.effects.get(row.id)
    assert effect is not None
    assert effect.state is EffectState.DONE
    stats = await world.simulator.stats()
    assert stats["twilio"]["by_route"]["POST /2010-04-01/Accounts/*/Messages.json"] == 1


async def test_what_twilio_does_not_list_stays_unknown(world):
    await world.add_twilio()
    await world.simulator.fault("drop:twilio:write:x1")
    row = await sms(world)
    assert row.state is UNKNOWN
    for _ in range(20):
        world.clock.advance(minutes=2)
        await world.messages.look_at_due()
    row = await world.messages.get(row.id)
    assert (row.state, row.followed) == (UNKNOWN, False)
    assert row.error is not None
    assert "resend" in row.error.advice
    # It was asked, and that is what is said.
    assert row.remark == "Twilio was asked, and lists no message that could be it"
    assert row.simulated


async def test_of_two_equal_messages_each_lost_one_finds_its_own(world):
    await world.add_twilio()
    first = await sms(world)
    await world.simulator.fault("drop:twilio:write:at=body:x1")
    second = await sms(world)
    assert (first.state, second.state) == (SENDING, UNKNOWN)
    second = await world.until(second.id, DELIVERED)
    assert second.provider_id
    assert second.provider_id != first.provider_id


async def test_of_two_equal_lost_messages_only_one_was_there(world):
    """Both answers are lost, one order came through: it is found once, and nobody guesses about the other."""
    await world.add_twilio()
    await world.simulator.fault("drop:twilio:write:at=body:x1")
    first = await sms(world)
    await world.simulator.fault("drop:twilio:write:x1")
    second = await sms(world)
    for _ in range(12):
        world.clock.advance(minutes=2)
        await world.simulator.phone(advance_ms=2_000)
        await world.messages.look_at_due()
    rows = [await world.messages.get(each.id) for each in (first, second)]
    assert sorted(row.state for row in rows) == [DELIVERED, UNKNOWN]
    assert not any(row.followed for row in rows)


async def test_the_environments_gateway_stands_in(simulator, tmp_path):
    gateway = Gateway(f"{simulator.partners_url}/messages-gateway", simulator.key)
    clock = FakeClock()
    services = Services(
        ServiceOptions(
            database=DatabaseLocation(path=tmp_path / "callboard.db"),
            secrets_file=tmp_path / "secrets.json",
            gateways={"messages": gateway},
        ),
        clock=clock,
        secrets=MemoryStore(),
    )
    try:
        await services.companies.add("Acme")
        row = await services.messages.send_message("ACME", Channel.SMS, TO, body="Hello")
        assert (row.company, row.adapter, row.integration_id) == ("Acme", "http-messages", None)
        assert not row.simulated
        row = await World(services, simulator, clock).until(row.id, DELIVERED)
    finally:
        await services.aclose()


async def test_resending_is_a_new_message_by_order(world):
    await world.add_twilio()
    await world.simulator.fault("drop:twilio:write:x1")
    lost = await sms(world)
    again = await world.messages.resend(lost.id, actor="me")
    assert again.id != lost.id
    assert (again.resend_of, again.body, again.state) == (lost.id, lost.body, SENDING)
    audit = (await world.services.agents.audit())[0]
    assert (audit.action, audit.subject) == ("message.resend", TO)


async def test_a_gateway_that_never_got_it_says_so(world):
    await world.add_gateway()
    await world.simulator.fault("hang:messages-gateway:write")
    sending = asyncio.create_task(sms(world))
    await _until_asked(world, "POST /messages-gateway/messages")
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    (row,) = await world.messages.list("acme")
    assert row.state is UNKNOWN
    await world.simulator.clear_faults()
    assert await world.messages.look(row)
    assert (await world.messages.get(row.id)).state is UNKNOWN  # it may still be on its way
    row = await world.until(row.id, FAILED)
    assert row.error is not None
    assert "safe to send it again" in row.error.advice


async def _until_asked(world: World, route: str) -> None:
    async with asyncio.timeout(20):
        while route not in (await world.simulator.stats())["by_route"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- the gateway, chat, the simulation ------------------------------------------------------------


async def test_a_gateway_carries_every_channel_and_repeats_safely(world):
    await world.add_gateway()
    await world.simulator.fault("drop:messages-gateway:write:at=body:x1")
    row = await world.messages.send_message("acme", Channel.EMAIL, "ann@example.com", body="Hello")
    assert row.state is SENDING  # the second attempt got the first one's message
    stats = await world.simulator.stats()
    assert stats["by_route"]["POST /messages-gateway/messages"] == 2
    assert (await world.until(row.id, DELIVERED)).provider_id == "msg_000001"
    row = await world.messages.send_message("acme", Channel.CHAT, "fail-me", body="Hello")
    row = await world.until(row.id, FAILED)
    assert row.error is not None
    assert "does not take messages" in row.error.message


async def test_a_channel_of_ones_own_comes_before_the_gateway(world):
    await world.add_gateway(company="", name="hub")
    await world.add_twilio()
    assert (await sms(world)).adapter == "twilio-sms"
    assert (await sms(world, integration="hub")).adapter == "http-messages"
    with pytest.raises(UsageError, match="does not send by email"):
        await world.messages.send_message(
            "acme", Channel.EMAIL, "a@b.example", body="x", subject="y", integration="twilio-sms"
        )


async def test_a_chat_is_posted_with_a_signature(world):
    url = f"{world.simulator.partners_url}/messages-gateway/chat"
    await world.add("chat-webhook", secret=world.simulator.key, base_url=url)
    row = await world.messages.send_message("acme", Channel.CHAT, "room 7", body="Grüße — 你好")
    assert (row.state, row.provider_id, row.followed) == (SENT, "chat_1", False)
    assert "has not told" in row.remark


async def test_a_chat_with_another_secret_is_refused(world):
    url = f"{world.simulator.partners_url}/messages-gateway/chat"
    await world.add("chat-webhook", secret="another-secret", base_url=url)
    row = await world.messages.send_message("acme", Channel.CHAT, "room 7", body="Hello")
    assert row.state is FAILED
    assert row.error is not None
    assert row.error.category == "authentication"


async def test_without_an_integration_nothing_is_sent_and_it_says_so(world):
    row = await world.messages.send_message("acme", Channel.EMAIL, "a@b.example", body="x", subject="y")
    assert (row.state, row.simulated, row.followed) == (DELIVERED, True, False)
    assert row.remark.startswith("Simulated")
    effect = await world.services.effects.get(row.id)
    assert effect is not None
    assert effect.simulated


# -- WhatsApp -------------------------------------------------------------------------------------


async def test_whatsapp_takes_text_numbers_and_users_without_one(world):
    await world.add_whatsapp()
    for to in (TO, "US.13491208655302741918", "US.ENT.11815799212886844830"):
        row = await world.messages.send_message("acme", Channel.WHATSAPP, to, body="Hello")
        assert (row.state, row.recipient) == (SENDING, to)
        assert row.provider_id.startswith("wamid.")
        assert not row.followed  # reports come by webhook only
    with pytest.raises(UsageError):
        await world.messages.send_message("acme", Channel.WHATSAPP, "us.13", body="Hello")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (Template("appointment_reminder", "de", {"1": "Montag", "2": "neun"}), None),
        (Template("named_greeting", "de", {"name": "Ann"}), None),
        (Template("hello_world", "en_US"), None),
        (Template("appointment_reminder", "fr", {"1": "lundi", "2": "neuf"}), ("132001", "language")),
        (Template("appointment_reminder", "de", {"1": "Montag"}), ("132000", "parameters")),
    ],
)
async def test_whatsapp_templates(world, template, words):
    await world.add_whatsapp()
    row = await world.messages.send_message("acme", Channel.WHATSAPP, TO, template=template)
    if words is None:
        assert row.state is SENDING
        return
    assert row.state is FAILED
    assert row.error is not None
    assert words[0] in row.error.message
    assert words[1] in row.error.advice


async def test_whatsapp_outside_of_the_day_advises_a_template(world):
    await world.add_whatsapp()
    row = await world.messages.send_message("acme", Channel.WHATSAPP, "+15005550005", body="Hello")
    assert row.state is FAILED
    assert row.error is not None
    assert "131047" in row.error.message
    assert "template" in row.error.advice


async def test_a_whatsapp_answer_that_is_lost_stays_unknown(world):
    await world.add_whatsapp()
    for fault in ("drop:whatsapp:write:at=body:x1", "truncate:whatsapp:write:x1", "500:whatsapp:write:x1"):
        await world.simulator.fault(fault)
        row = await world.messages.send_message("acme", Channel.WHATSAPP, TO, body="Hello")
        assert (row.state, row.followed) == (UNKNOWN, False), fault


# -- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "to", "more", "code"),
    [
        (Channel.SMS, "030 1234", {"body": "x"}, "invalid_number"),
        (Channel.SMS, TO, {"body": "  "}, "no_body"),
        (Channel.SMS, TO, {"body": "x" * 1601}, "too_long"),
        (Channel.SMS, TO, {"body": "x", "subject": "y"}, "no_subject"),
        (Channel.SMS, TO, {"template": Template("welcome")}, "bad_template"),
        (Channel.WHATSAPP, TO, {"template": Template("welcome")}, "no_language"),
        (Channel.WHATSAPP, TO, {"template": Template("w", "de"), "body": "x"}, "two_texts"),
        (Channel.SMS, TO, {"body": "x", "agent_id": 99}, "unknown_agent"),
        (Channel.SMS, TO, {"body": "x", "integration": "nobody"}, "unknown_integration"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is_written(world, channel, to, more, code):
    await world.add_twilio()
    await world.add_whatsapp()
    with pytest.raises(UsageError) as caught:
        await world.messages.send_message("acme", channel, to, **more)
    assert caught.value.code == code
    assert await world.messages.list() == []


async def test_every_message_counts_for_company_and_user(world):
    await world.add_twilio()
    policy = world.services.policies.of("twilio-sms (acme)")
    policy.limiter = world.services.policies.limiter(user=Limits(minute=2))
    rows = [await sms(world, actor="ann") for _ in range(3)]
    assert [row.state for row in rows] == [SENDING, SENDING, FAILED]
    assert rows[2].error is not None
    assert rows[2].error.category == "rate_limit"
    assert (await sms(world, actor="bob")).state is SENDING


async def test_a_message_that_never_left_is_sent_with_the_same_key(world):
    await world.add_twilio()
    policy = world.services.policies.of("twilio-sms (acme)")
    policy.limiter = world.services.policies.limiter(user=Limits(minute=1))
    await sms(world, actor="ann")
    first = await sms(world, actor="ann", idempotency_key="k-1")
    assert (first.state, first.error.category) == (FAILED, "rate_limit")
    second = await sms(world, actor="ann", idempotency_key="k-1")
    assert (second.id, second.state) == (first.id, FAILED)
    world.clock.advance(seconds=61)
    sent = await sms(world, actor="ann", idempotency_key="k-1")
    assert (sent.id, sent.state, sent.error) == (first.id, SENDING, None)
    assert sent.created_at == world.clock.now()
    assert (await sms(world, actor="ann", idempotency_key="k-1")).state is SENDING
    steps = [(step.state.value, step.source) for step in await world.messages.events(sent.id)]
    assert steps == [
        ("queued", "send"),
        ("failed", "send"),
        ("queued", "send"),
        ("failed", "send"),
        ("queued", "send"),
        ("sending", "send"),
    ]
    assert len(await world.messages.list()) == 2
    world.clock.advance(seconds=10)
    await world.messages.look_at_due()
    assert (await world.messages.get(sent.id)).state is not FAILED


async def test_one_process_follows_one_message(world, tmp_path):
    await world.add_twilio()
    row = await sms(world)
    world.clock.advance(seconds=10)
    before = (await world.simulator.stats())["requests"]
    looks = await asyncio.gather(*(world.messages.look_at_due() for _ in range(6)))
    assert sum(looks) == 1
    assert (await world.simulator.stats())["requests"] == before + 1
    assert row.id in json.dumps([each.id for each in await world.messages.list()])


async def test_a_provider_that_is_away_is_asked_again_later(world):
    await world.add_twilio()
    row = await sms(world)
    await world.simulator.fault("500:twilio:detail")
    world.clock.advance(seconds=10)
    assert await world.messages.look_at_due() == 1
    row = await world.messages.get(row.id)
    assert row.next_look_at is not None
    assert row.next_look_at > world.clock.now()
    await world.simulator.clear_faults()
    await world.until(row.id, DELIVERED)


async def test_an_integration_that_is_gone_ends_the_following(world):
    integration = await world.add_twilio()
    row = await sms(world)
    await world.services.integrations.remove(integration)
    world.clock.advance(seconds=10)
    await world.messages.look_at_due()
    row = await world.messages.get(row.id)
    assert (row.state, row.followed) == (SENDING, False)
    assert "integration" in row.remark


async def test_reading_lists_and_shortened_ids(world):
    await world.add_twilio()
    first = await sms(world)
    world.clock.advance(seconds=1)
    second = await sms(world, "+15005550001")
    assert [row.id for row in await world.messages.list("ACME")] == [second.id, first.id]
    assert [row.id for row in await world.messages.list(state=FAILED)] == [second.id]
    assert await world.messages.list(channel=Channel.CHAT) == []
    assert (await world.messages.get(first.id[:8])).id == first.id
    for wrong in ("", "zz", "%", "_"):
        with pytest.raises(UsageError):
            await world.messages.get(wrong)


async def test_the_follower_works_by_itself_and_ends(world):
    await world.add_twilio()
    await world.messages.start()
    await world.messages.start()
    row = await sms(world)
    await world.simulator.phone(advance_ms=5_000)
    world.clock.advance(seconds=10)
    changed = asyncio.Event()
    world.services.bus.subscribe(type(world.changes[0]), lambda event: changed.set())
    async with asyncio.timeout(20):
        while (row := await world.messages.get(row.id)).state is not DELIVERED:
            await changed.wait()
            changed.clear()
    await world.messages.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "messages"]
