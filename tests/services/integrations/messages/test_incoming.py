"""What people write to us: taken from vendors' webhooks, made safe, stored once."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.events import MessagesReceived
from services.integrations.messages import Channel, webhooks
from services.integrations.messages.incoming import LONGEST_TEXT, twilio_message, whatsapp_messages
from services.simulator.options import ACCOUNT_SID
from services.simulator.partner_whatsapp import PHONE_NUMBER_ID
from tests.services.integrations.messages.conftest import TO, World
from tests.services.integrations.messages.test_webhooks import signed, with_secrets
from tests.support.simulator import RunningSimulator
from tests.support.webhooks import receiving

URL = "https://callboard.example.com/webhooks/twilio/messages"
BSUID = "US.13491208655302741918"


def value(*messages: dict, contacts: Any = (), number: str = PHONE_NUMBER_ID) -> dict:
    return {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "1 500 555 0100", "phone_number_id": number},
        "contacts": list(contacts),
        "messages": list(messages),
    }


def posted(*messages: dict, contacts: Any = (), number: str = PHONE_NUMBER_ID) -> bytes:
    change = {"field": "messages", "value": value(*messages, contacts=contacts, number=number)}
    return json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    ).encode()


def text(body: str, *, wamid: str = "wamid.1", **more: Any) -> dict:
    return {"id": wamid, "timestamp": "1790000001", "type": "text", "text": {"body": body}, **more}


async def wrote(world: World, *messages: dict, **more: Any) -> list:
    body = posted(*messages, **more)
    assert (await world.messages.take_whatsapp(signed(body), body)).status == 200
    return list(await world.messages.received())


# -- WhatsApp -------------------------------------------------------------------------------------


async def test_what_somebody_wrote_is_stored_once_and_told(world):
    heard: list[MessagesReceived] = []
    world.services.bus.subscribe(MessagesReceived, heard.append)
    await with_secrets(world)
    contacts = [{"profile": {"name": "Ann"}, "wa_id": "493012345678", "user_id": BSUID}]
    message = text("Monday\nsuits me", **{"from": "493012345678", "context": {"id": "wamid.0"}})
    for _ in range(2):
        (row,) = await wrote(world, message, contacts=contacts)
    assert (row.company, row.channel, row.integration) == ("acme", Channel.WHATSAPP, "whatsapp")
    assert (row.sender, row.sender_user, row.sender_name) == ("+493012345678", BSUID, "Ann")
    assert (row.kind, row.body, row.reply_to) == ("text", "Monday\nsuits me", "wamid.0")
    assert (row.recipient, row.provider_id) == ("+15005550100", "wamid.1")
    assert (row.sent_at, row.received_at) == (world.clock.now(), world.clock.now())  # not in the future
    assert [event.ids for event in heard] == [(row.id,)]


async def test_a_user_without_a_number_is_known_by_the_id_towards_the_business(world):
    await with_secrets(world)
    contacts = [{"profile": {"name": "", "username": "robin"}, "user_id": BSUID}]
    (row,) = await wrote(world, text("Hello", from_user_id=BSUID), contacts=contacts)
    assert (row.sender, row.sender_user, row.sender_name) == (BSUID, BSUID, "robin")
    # Only the contact says who it is.
    rows = await wrote(world, text("Hello", wamid="wamid.2"), contacts=contacts)
    assert {row.sender for row in rows} == {BSUID}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "image", "image": {"id": "1", "caption": "My tooth"}}, ("image", "My tooth")),
        ({"type": "document", "document": {"filename": "scan.pdf"}}, ("document", "scan.pdf")),
        ({"type": "audio", "audio": {"id": "1", "voice": True}}, ("audio", "")),
        ({"type": "button", "button": {"text": "Yes", "payload": "y"}}, ("button", "Yes")),
        (
            {"type": "interactive", "interactive": {"list_reply": {"id": "1", "title": "Nine o'clock"}}},
            ("interactive", "Nine o'clock"),
        ),
        ({"type": "reaction", "reaction": {"emoji": "👍", "message_id": "x"}}, ("reaction", "👍")),
        (
            {"type": "location", "location": {"name": "Harbour", "latitude": 53.5, "longitude": 9.9}},
            ("location", "Harbour, 53.5, 9.9"),
        ),
        (
            {"type": "contacts", "contacts": [{"name": {"formatted_name": "Ben"}}, {"name": 7}]},
            ("contacts", "Ben, "),
        ),
        ({"type": "system", "system": {"body": "Ann changed"}}, ("system", "Ann changed")),
        ({"type": "unsupported", "errors": [{"title": "Unknown"}]}, ("unsupported", "Unknown")),
        ({"type": "../x", "../x": {"body": "?"}}, ("unknown", "")),
        ({"type": "text", "text": "no object"}, ("text", "")),
        ({}, ("unknown", "")),
    ],
)
def test_every_type_says_what_it_says(message: dict, expected: tuple[str, str]) -> None:
    (found,) = whatsapp_messages(value({"id": "wamid.1", "from": "493012345678", **message}))
    assert (found.kind, found.body) == (expected[0], expected[1].strip())


def test_a_strangers_text_is_cleaned_and_cut() -> None:
    evil = "a\x1b[2Jb\u202ec\x00d\r\ne\ud800f\ufe0f" + "x" * LONGEST_TEXT
    contact = {"profile": {"name": "A\x1b]0;n\x07n\nn" + "y" * 500}, "wa_id": "493012345678"}
    (found,) = whatsapp_messages(value(text(evil, **{"from": "493012345678"}), contacts=[contact]))
    assert found.body.startswith("a[2Jbcd\ne\ufffdfx")
    assert len(found.body) == LONGEST_TEXT
    assert found.body.endswith("…")
    assert found.sender_name.startswith("A]0;nn ny")
    assert len(found.sender_name) == 120


@pytest.mark.parametrize(
    "message",
    [
        {"text": {"body": "no id"}},
        {"id": "a\nb"},
        {"id": "x" * 201},
        {"id": 1.5},
        {"id": True},
        "text",
    ],
)
def test_what_has_no_id_is_no_message(message: Any) -> None:
    assert whatsapp_messages(value(message)) == []


@pytest.mark.parametrize("sender", ["", "0", "12", "49\n301234567", "9" * 16, None, 4.5, {"a": 1}])
def test_what_is_no_number_is_no_sender(sender: Any) -> None:
    (found,) = whatsapp_messages(value({"id": "wamid.1", "from": sender}))
    assert found.sender == ""


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["messages", "contacts", "id", "type", "text", "profile", "from", "name", "body"]),
        inner | st.just("text"),
        max_size=6,
    ),
    max_leaves=25,
))  # fmt: skip
def test_nothing_breaks_the_reading(data: Any) -> None:
    found = whatsapp_messages(data if isinstance(data, dict) else {"messages": [data], "contacts": data})
    for each in found:
        assert each.provider_id
        assert "\x00" not in each.body + each.sender_name


async def test_what_is_not_signed_or_not_to_our_number_is_not_stored(world):
    await with_secrets(world)
    body = posted(text("Hello", **{"from": "493012345678"}))
    assert (await world.messages.take_whatsapp({}, body)).status == 401
    assert (await world.messages.take_whatsapp(signed(body, "wrong"), body)).status == 401
    assert await wrote(world, text("Hello", **{"from": "493012345678"}), number="999") == []


async def test_an_integration_of_all_companies_asks_who_wrote_last(world):
    integration = await world.add_whatsapp(company="", name="shared")
    await world.services.integrations.set_secret(integration, "sim-app-secret", name="app_secret")
    (row,) = await wrote(world, text("Who are you?", **{"from": TO.removeprefix("+")}))
    assert row.company == ""
    await world.services.companies.add("globex")
    await world.messages.send_message("globex", Channel.WHATSAPP, TO, body="Hello")
    rows = await wrote(world, text("Ah", wamid="wamid.2", **{"from": TO.removeprefix("+")}))
    assert {row.body: row.company for row in rows} == {"Who are you?": "", "Ah": "globex"}
    assert [row.body for row in await world.messages.received("globex")] == ["Ah"]
    assert await world.messages.received("acme") == []


async def test_somebody_writes_back_over_real_sockets(world: World, simulator: RunningSimulator) -> None:
    await with_secrets(world)
    async with receiving() as receiver:

        async def challenged(got: Any) -> tuple[int, bytes]:
            answer = await world.messages.whatsapp_challenge(got.query)
            return answer.status, answer.body

        receiver.answer = challenged
        wanted = {"callback_url": f"{receiver.url}/webhooks/whatsapp", "verify_token": "the-verify-token"}
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {simulator.key}"}) as meta:
            address = f"{simulator.partners_url}/whatsapp/v23.0/1234/subscriptions"
            assert (await meta.post(address, json=wanted)).json() == {"success": True}
        receiver.answer = None
        await receiver.next()
        sent = await world.messages.send_message("acme", Channel.WHATSAPP, "+15005550013", body="Monday?")
        await world.simulator.phone(advance_ms=10_000)
        for _ in range(4):  # sent, delivered, read, and what was written back
            got = await receiver.next()
            assert (await world.messages.take_whatsapp(got.headers, got.body)).status == 200
    (row,) = await world.messages.received("acme")
    assert (row.sender, row.reply_to) == ("+15005550013", sent.provider_id)
    assert row.body == "Thanks, that suits me"


# -- Twilio ---------------------------------------------------------------------------------------


def sms(**more: str) -> dict[str, str]:
    sid = "SM" + "0" * 32
    return {
        "AccountSid": ACCOUNT_SID,
        "MessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "From": TO,
        "To": "+15005550006",
        "Body": "Yes\x07, Monday",
        "NumMedia": "0",
        **more,
    }


async def came(world: World, fields: dict[str, str], secret: str = "") -> webhooks.Answer:
    made = webhooks.twilio_signature(secret or world.simulator.key, URL, fields.items())
    return await world.messages.take_twilio_status(
        {"X-Twilio-Signature": made}, urlencode(fields).encode(), URL
    )


async def test_a_text_message_comes_in_and_nothing_is_sent_back(world):
    await world.add_twilio()
    assert (await came(world, sms(), "wrong")).status == 401
    for _ in range(2):
        answer = await came(world, sms())
        # Twilio would send a plain text back to whoever wrote.
        assert (answer.status, answer.body) == (200, b"<Response></Response>")
        assert answer.content_type.startswith("text/xml")
    (row,) = await world.messages.received("acme")
    assert (row.channel, row.sender, row.recipient, row.body) == (
        Channel.SMS,
        TO,
        "+15005550006",
        "Yes, Monday",
    )


async def test_the_number_that_was_written_to_says_whose_message_it_is(world):
    await world.add_twilio()
    await world.services.companies.add("globex")
    await world.add_twilio(company="globex", name="theirs", **{"from": "+15005550100"})
    await came(world, sms(To="+15005550100"))
    await came(world, sms(To="+15005550006", MessageSid="SM" + "1" * 32))
    assert {row.recipient: row.company for row in await world.messages.received()} == {
        "+15005550100": "globex",
        "+15005550006": "acme",
    }


def test_a_message_of_twilios_whatsapp_and_one_with_a_picture() -> None:
    found = twilio_message(
        sms(From=f"whatsapp:{TO}", To="whatsapp:+15005550006", ProfileName="Ann", NumMedia="1")
    )
    assert found is not None
    assert (found.channel, found.sender, found.recipient) == (Channel.WHATSAPP, TO, "+15005550006")
    assert (found.sender_name, found.kind) == ("Ann", "media")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"MessageSid": "SM1", "MessageStatus": "delivered", "SmsStatus": "delivered"},
        {"MessageSid": "SM1", "MessageStatus": "received", "SmsStatus": "received"},
        {"SmsStatus": "received"},
    ],
)
def test_a_delivery_report_is_no_message(fields: dict[str, str]) -> None:
    assert twilio_message(fields) is None
