"""Reports that come unasked: whose signature is good, what is stored, and that all else is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import VaultLocked
from services.http.client import Call
from services.integrations.effects import EffectState
from services.integrations.messages import Channel, MessageState, webhooks
from services.integrations.messages.over_http import Line
from services.resilience import Subject
from services.security import MemoryStore, Secret
from services.simulator.options import ACCOUNT_SID
from services.simulator.partner_whatsapp import APP_SECRET, PHONE_NUMBER_ID
from tests.services.integrations.messages.conftest import TO, World
from tests.support.webhooks import receiving

DELIVERED, FAILED, READ = MessageState.DELIVERED, MessageState.FAILED, MessageState.READ
SENDING, SENT, UNKNOWN = MessageState.SENDING, MessageState.SENT, MessageState.UNKNOWN


def batch(*statuses: dict, number: str = PHONE_NUMBER_ID) -> bytes:
    value = {"metadata": {"phone_number_id": number}, "statuses": list(statuses)}
    change = {"field": "messages", "value": value}
    entry = {"id": "1", "changes": [change]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def signed(body: bytes, secret: str = APP_SECRET) -> dict[str, str]:
    made = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={made}"}


async def whatsapp(world: World, to: str = TO, **more):
    return await world.messages.send_message("acme", Channel.WHATSAPP, to, **{"body": "Hello", **more})


async def with_secrets(world: World) -> int:
    integration = await world.add_whatsapp()
    await world.services.integrations.set_secret(integration, APP_SECRET, name="app_secret")
    await world.services.integrations.set_secret(integration, "the-verify-token", name="verify_token")
    return integration


# -- WhatsApp -------------------------------------------------------------------------------------


async def test_whatsapp_asks_whether_the_address_is_ours(world):
    query = {"hub.mode": "subscribe", "hub.verify_token": "the-verify-token", "hub.challenge": "1158201444"}
    assert (await world.messages.whatsapp_challenge(query)).status == 403  # nothing is set up
    await with_secrets(world)
    answer = await world.messages.whatsapp_challenge(query)
    assert (answer.status, answer.body) == (200, b"1158201444")
    assert answer.content_type.startswith("text/plain")
    for name, value in (
        ("hub.verify_token", "wrong"),
        ("hub.verify_token", ""),
        ("hub.mode", "unsubscribe"),
        ("hub.challenge", "<script>"),
        ("hub.challenge", ""),
    ):
        assert (await world.messages.whatsapp_challenge({**query, name: value})).status == 403


async def test_reports_in_any_order_move_the_state_forward_only(world):
    await with_secrets(world)
    row = await whatsapp(world)
    for status, expected in (("delivered", DELIVERED), ("sent", DELIVERED), ("read", READ), ("failed", READ)):
        body = batch({"id": row.provider_id, "status": status, "timestamp": "1790000001"})
        for _ in range(2):
            assert (await world.messages.take_whatsapp(signed(body), body)).status == 200
        assert (await world.messages.get(row.id)).state is expected
    states = [event.state.value for event in await world.messages.events(row.id)]
    assert states == ["queued", "sending", "delivered", "sent", "read", "failed"]


async def test_a_batch_about_users_without_a_number(world):
    await with_secrets(world)
    first = await whatsapp(world, "US.13491208655302741918")
    second = await whatsapp(world)
    body = batch(
        {
            "id": first.provider_id,
            "status": "delivered",
            "timestamp": "1790000001",
            "recipient_user_id": "US.1",
        },
        {"id": second.provider_id, "status": "sent", "timestamp": "1790000001", "recipient_id": "4930"},
        {"id": "wamid.nobody", "status": "sent", "timestamp": "x"},
        {"status": "sent"},
        {"id": second.provider_id, "status": "a new word"},
    )
    assert (await world.messages.take_whatsapp(signed(body), body)).status == 200
    assert (await world.messages.get(first.id)).state is DELIVERED
    assert (await world.messages.get(second.id)).state is SENT


async def test_a_failure_says_why(world):
    await with_secrets(world)
    row = await whatsapp(world)
    errors = [
        {"code": 131026, "title": "Message undeliverable", "error_data": {"details": "Not on WhatsApp."}}
    ]
    body = batch({"id": row.provider_id, "status": "failed", "timestamp": "1790000001", "errors": errors})
    await world.messages.take_whatsapp(signed(body), body)
    row = await world.messages.get(row.id)
    assert row.state is FAILED
    assert row.error is not None
    assert "131026" in row.error.message
    assert "another channel" in row.error.advice


async def test_a_report_settles_a_message_whose_answer_was_lost(world):
    await with_secrets(world)
    await world.simulator.fault("drop:whatsapp:write:at=body:x1")
    row = await whatsapp(world)
    assert (row.state, row.provider_id) == (UNKNOWN, "")
    status = {"id": "wamid.X", "status": "sent", "timestamp": "1", "biz_opaque_callback_data": row.id}
    body = batch(status)
    assert (await world.messages.take_whatsapp(signed(body), body)).status == 200
    row = await world.messages.get(row.id)
    assert (row.state, row.provider_id, row.error) == (SENT, "wamid.X", None)
    effect = await world.services.effects.get(row.id)
    assert effect is not None
    assert effect.state is EffectState.DONE


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature-256": "sha256=" + "0" * 64},
        {"X-Hub-Signature": "sha1=0"},
        {"X-Hub-Signature-256": "ä" * 71},
    ],
)
async def test_what_is_not_signed_changes_nothing(world, headers):
    await with_secrets(world)
    row = await whatsapp(world)
    body = batch({"id": row.provider_id, "status": "read", "timestamp": "1790000001"})
    assert (await world.messages.take_whatsapp(headers, body)).status == 401
    other = signed(body, "another-secret")
    assert (await world.messages.take_whatsapp(other, body)).status == 401
    assert (await world.messages.take_whatsapp(signed(body), body + b" ")).status == 401
    assert (await world.messages.get(row.id)).state is SENDING


async def test_one_companys_secret_reports_on_its_own_messages_only(world):
    await with_secrets(world)
    row = await whatsapp(world)
    await world.services.companies.add("globex")
    other = await world.add_whatsapp(company="globex", name="theirs")
    await world.services.integrations.set_secret(other, "their-secret", name="app_secret")
    for number in (PHONE_NUMBER_ID, "1", ""):
        status = {
            "id": row.provider_id,
            "status": "read",
            "timestamp": "1",
            "biz_opaque_callback_data": row.id,
        }
        body = batch(status, number=number)
        assert (await world.messages.take_whatsapp(signed(body, "their-secret"), body)).status == 200
    assert (await world.messages.get(row.id)).state is SENDING


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["entry", "changes", "value", "statuses", "field", "id", "status", "errors"]),
        inner | st.just("messages") | st.just("failed"),
        max_size=5,
    ),
    max_leaves=20,
).map(lambda data: json.dumps(data).encode())))  # fmt: skip
def test_no_body_breaks_the_reading(body):
    for reports in (webhooks.read_whatsapp(body), webhooks.read_chat(body)):
        assert reports is None or reports or reports == []
    webhooks.read_twilio(dict(webhooks.parse_form(body)), body.decode("latin-1"))


async def test_what_is_signed_and_unreadable_is_answered_400(world):
    await with_secrets(world)
    for body in (b"", b"[]", b"\xff", b"{", b"[" * 100_000):
        assert (await world.messages.take_whatsapp(signed(body), body)).status == 400
    body = b"{}"
    assert (await world.messages.take_whatsapp(signed(body), body)).status == 200
    assert (await world.messages.take_whatsapp({}, b"x" * (webhooks.MOST_BYTES + 1))).status == 413


class Locked(MemoryStore):
    async def get(self, name):
        raise VaultLocked("The secret store needs its passphrase", code="vault_locked")


async def test_a_locked_store_asks_to_send_it_again(world):
    await with_secrets(world)
    row = await whatsapp(world)
    body = batch({"id": row.provider_id, "status": "read", "timestamp": "1"})
    open_secrets = world.messages._receiver._open_secrets

    async def locked():
        return Locked()

    world.messages._receiver._open_secrets = locked
    assert (await world.messages.take_whatsapp(signed(body), body)).status == 503
    assert (await world.messages.get(row.id)).state is SENDING
    world.messages._receiver._open_secrets = open_secrets
    assert (await world.messages.take_whatsapp(signed(body), body)).status == 200


# -- Twilio ---------------------------------------------------------------------------------------

URL = "https://callboard.example/webhooks/twilio/messages?message=abc"


def test_the_signature_of_twilios_documentation():
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675310",
        "Digits": "1234",
        "From": "+14158675310",
        "To": "+18005551212",
    }
    url = "https://example.com/myapp.php?foo=1&bar=2"
    assert webhooks.twilio_signature("12345", url, fields.items()) == "L/OH5YylLD5NRKLltdqwSvS0BnU="


@pytest.mark.parametrize(
    ("signed_url", "asked_url"),
    [
        (URL, URL),
        (URL.replace("example/", "example:443/"), URL),
        (URL, URL.replace("example/", "example:443/")),
        (URL.replace("example/", "example:8443/"), URL.replace("example/", "example:8443/")),
    ],
)
def test_twilios_address_with_and_without_its_port(signed_url, asked_url):
    fields = [("A", "1"), ("B", "x"), ("B", "w")]
    made = webhooks.twilio_signature("token", signed_url, fields)
    body = urlencode(fields).encode()
    fits = webhooks.twilio_signature_fits("token", "", asked_url, {"X-Twilio-Signature": made}, body)
    assert fits


def test_repeated_values_count_once_and_sorted():
    one = webhooks.twilio_signature("token", URL, [("B", "x"), ("B", "w"), ("B", "x"), ("A", "1")])
    wanted = hmac.new(b"token", (URL + "A1" + "BwBx").encode(), hashlib.sha1).digest()
    assert one == base64.b64encode(wanted).decode()


def test_a_shared_key_signs_with_sha256():
    body = b"A=1"
    made = webhooks.twilio_signature("shared", URL, [("A", "1")], "sha256")
    settings = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
    headers = {"X-Twilio-Signature": made, "X-Twilio-Webhooks-Signature-Settings": settings}
    assert webhooks.twilio_signature_fits("token", "shared", URL, headers, body)
    assert not webhooks.twilio_signature_fits("shared", "", URL, headers, body)
    headers["X-Twilio-Webhooks-Signature-Settings"] = "key=x,algorithm=NONE"
    assert not webhooks.twilio_signature_fits("shared", "shared", URL, headers, body)


def test_a_json_body_is_signed_by_its_digest():
    body = b'{"a": 1}'
    url = f"https://callboard.example/x?bodySHA256={hashlib.sha256(body).hexdigest()}"
    headers = {"x-twilio-signature": webhooks.twilio_signature("token", url, [])}
    assert webhooks.twilio_signature_fits("token", "", url, headers, body)
    assert not webhooks.twilio_signature_fits("token", "", url, headers, body + b" ")


async def test_twilio_reports_by_callback_over_a_real_socket(world):
    async with receiving() as receiver:
        await world.add_twilio(status_callback=f"{receiver.url}/webhooks/twilio/messages?tenant=1")
        row = await world.messages.send_message("acme", Channel.SMS, TO, body="Hello")
        await world.simulator.phone(advance_ms=5_000)
        for _ in range(3):
            got = await receiver.next()
            url = receiver.url + got.target
            assert f"message={row.id}" in url
            answer = await world.messages.take_twilio_status(got.headers, got.body, url)
            assert answer.status == 200
    row = await world.messages.get(row.id)
    assert (row.state, row.followed) == (DELIVERED, False)
    sources = {event.source for event in await world.messages.events(row.id)}
    assert sources == {"send", "report"}


async def test_a_twilio_callback_that_is_not_signed(world):
    await world.add_twilio()
    row = await world.messages.send_message("acme", Channel.SMS, TO, body="Hello")
    fields = {"AccountSid": ACCOUNT_SID, "MessageSid": row.provider_id, "MessageStatus": "read"}
    for secret, account in ((world.simulator.key, "AC" + "0" * 32), ("wrong", ACCOUNT_SID), ("", "")):
        given = {**fields, "AccountSid": account}
        made = webhooks.twilio_signature(secret, URL, given.items())
        headers = {"X-Twilio-Signature": made}
        answer = await world.messages.take_twilio_status(headers, urlencode(given).encode(), URL)
        assert answer.status == 401
    assert (await world.messages.get(row.id)).state is SENDING


# -- chat -----------------------------------------------------------------------------------------


async def test_a_chat_reports_back(world):
    url = f"{world.simulator.partners_url}/messages-gateway/chat"
    await world.add("chat-webhook", secret=world.simulator.key, base_url=url)
    row = await world.messages.send_message("acme", Channel.CHAT, "room 7", body="Hello")
    body = json.dumps({"id": row.id, "state": "read"}).encode()
    stamp = world.clock.now() // 1000

    def headers(at: int = stamp, secret: str = world.simulator.key, message_id: str = "m1") -> dict[str, str]:
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
            "webhook-signature": "v1,AAAA " + webhooks.standard_signature(secret, message_id, at, body),
        }

    for wrong in (
        {},
        headers(stamp - 301),
        headers(stamp + 301),
        headers(secret="wrong"),
        {**headers(), "webhook-id": "m2"},
        {**headers(), "webhook-timestamp": "soon"},
        {**headers(), "webhook-signature": "v1," + "\udcff"},
    ):
        assert (await world.messages.take_chat(wrong, body)).status == 401
    assert (await world.messages.get(row.id)).state is SENT
    assert (await world.messages.take_chat(headers(), body)).status == 200
    assert (await world.messages.get(row.id)).state is READ


def test_the_example_of_standard_webhooks():
    """From the specification's own documentation."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    made = webhooks.standard_signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# -- over real sockets, set up as at the vendor ---------------------------------------------------


async def test_whatsapp_end_to_end_by_webhook(world):
    await with_secrets(world)
    async with receiving() as receiver:
        line = Line(
            "Meta",
            f"{world.simulator.partners_url}/whatsapp",
            Secret(world.simulator.key),
            world.services.policies.of("meta"),
            world.clock,
        )

        async def challenged(got):
            answer = await world.messages.whatsapp_challenge(got.query)
            return answer.status, answer.body

        receiver.answer = challenged
        wanted = {"callback_url": f"{receiver.url}/webhooks/whatsapp", "verify_token": "the-verify-token"}
        call = Call("POST", "/v23.0/1234/subscriptions", body=wanted)
        assert await line.order(call, subject=Subject()) == {"success": True}
        await line.aclose()
        receiver.answer = None
        assert (await receiver.next()).query["hub.mode"] == "subscribe"
        row = await whatsapp(world, "+15005550004")
        await world.simulator.phone(advance_ms=5_000)
        got = await receiver.next()
        assert (await world.messages.take_whatsapp(got.headers, got.body)).status == 200
    row = await world.messages.get(row.id)
    assert row.state is FAILED
    assert row.error is not None
    assert "131047" in row.error.message
    assert "template" in row.error.advice
