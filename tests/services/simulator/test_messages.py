"""Messages at the simulated vendors, by their vendors' specifications; and what we send, by the same."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator

from services.integrations.messages.model import Channel, Order, Template
from services.integrations.messages.whatsapp import body_of
from services.simulator import ACCOUNT_SID
from services.simulator.partner_whatsapp import BUSINESS_ID, PHONE_NUMBER_ID
from tests.services.simulator.test_twilio import PATH, check
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.webhooks import receiving

META = "meta-business-messaging_v23.0.openapi.yaml"
FROM, TO = "+15005550006", "+493012345678"
MESSAGES = f"/whatsapp/v23.0/{PHONE_NUMBER_ID}/messages"


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2) as running:
        await running.phone(speed=0)
        yield running


@pytest.fixture
async def twilio(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    auth = (ACCOUNT_SID, simulator.key)
    async with httpx.AsyncClient(base_url=simulator.twilio_url, auth=auth, trust_env=False) as client:
        yield client


@pytest.fixture
async def partners(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {simulator.key}"}
    async with httpx.AsyncClient(base_url=simulator.partners_url, headers=headers, trust_env=False) as client:
        yield client


@functools.cache
def meta() -> dict[str, Any]:
    checkout = Path(__file__).parents[3]
    folder = Path(os.environ.get("CALLBOARD_OPENAPI_DIR", checkout.parent / "shared" / "openapi"))
    if not (folder / META).is_file():
        pytest.skip(f"{META} is not in {folder} (set CALLBOARD_OPENAPI_DIR)")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load((folder / META).read_text(encoding="utf-8"), loader)
    return document


def assert_meta(name: str, data: Any) -> None:
    """True to a schema of Meta's. Its parts of a whole forbid each other's members: that is not asked for."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": meta()["components"]}
    wrong = [
        f"{error.json_path}: {error.message[:200]}"
        for error in Draft202012Validator(schema).iter_errors(data)
        if error.validator != "additionalProperties"
    ]
    assert not wrong, "\n".join(wrong[:10])


async def sms(twilio: httpx.AsyncClient, to: str = TO, **form: str) -> httpx.Response:
    return await twilio.post(f"{PATH}/Messages.json", data={"To": to, "From": FROM, "Body": "Hi", **form})


async def test_an_sms_comes_along_as_the_clock_does(simulator, twilio):
    made = check(await sms(twilio), "/Messages.json")
    assert (made["status"], made["date_sent"], made["price"]) == ("queued", None, None)
    for step, status in ((300, "sending"), (300, "sent"), (900, "delivered")):
        await simulator.phone(advance_ms=step)
        found = check(await twilio.get(f"{PATH}/Messages/{made['sid']}.json"), "/Messages/{Sid}.json")
        assert found["status"] == status
    listed = check(await twilio.get(f"{PATH}/Messages.json", params={"To": TO}), "/Messages.json")
    assert [row["sid"] for row in listed["messages"]] == [made["sid"]]
    assert (await twilio.get(f"{PATH}/Messages.json", params={"To": FROM})).json()["messages"] == []


@pytest.mark.parametrize(
    ("form", "code", "status"),
    [
        ({"To": ""}, 21604, 400),
        ({"From": ""}, 21603, 400),
        ({"Body": ""}, 21602, 400),
        ({"Body": "x" * 1601}, 21617, 400),
        ({"To": "030"}, 21211, 400),
        ({"From": "+4930"}, 21606, 400),
        ({"From": "+15005550008"}, 21611, 429),
        ({"To": "+15005550004"}, 21610, 400),
    ],
)
async def test_what_twilio_refuses(twilio, form, code, status):
    answer = await sms(twilio, **form)
    assert answer.status_code == status
    assert answer.json()["code"] == code
    assert set(answer.json()) == {"code", "message", "more_info", "status"}


async def test_the_wrong_token(simulator, twilio):
    twilio.auth = (ACCOUNT_SID, "wrong")
    assert (await sms(twilio)).status_code == 401


@pytest.mark.parametrize(
    "template",
    [
        None,
        Template("appointment_reminder", "de", {"2": "neun", "1": "Montag"}),
        Template("hello_world", "en_US"),
    ],
)
async def test_what_we_send_and_what_comes_back_are_true_to_metas_specification(partners, template):
    text = "" if template else "Hello"
    body = body_of(Order("7", "acme", Channel.WHATSAPP, TO, body=text, template=template))
    assert_meta("TemplateMessage" if template else "TextMessage", body)
    answer = await partners.post(MESSAGES, json=body)
    assert answer.status_code == 200
    assert_meta("MessageResponsePayload", answer.json())
    if template is not None and template.parameters:
        (component,) = body["template"]["components"]
        assert [each["text"] for each in component["parameters"]] == ["Montag", "neun"]


async def test_a_user_without_a_number_gets_no_number_in_the_answer(partners):
    body = body_of(Order("7", "acme", Channel.WHATSAPP, "US.13491208655302741918", body="Hello"))
    assert "to" not in body
    contact = (await partners.post(MESSAGES, json=body)).json()["contacts"][0]
    assert contact == {"input": "US.13491208655302741918", "user_id": "US.13491208655302741918"}


async def test_reports_are_true_to_metas_specification(simulator, partners):
    async with receiving() as receiver:

        async def challenged(got):
            return 200, got.query.get("hub.challenge", "").encode()

        receiver.answer = challenged
        wanted = {"callback_url": f"{receiver.url}/hook", "verify_token": "t"}
        assert (await partners.post("/whatsapp/v23.0/1/subscriptions", json=wanted)).json() == {
            "success": True
        }
        assert (await receiver.next()).query["hub.verify_token"] == "t"
        receiver.answer = None
        for to in (TO, "+15005550001"):
            await partners.post(MESSAGES, json=body_of(Order("7", "a", Channel.WHATSAPP, to, body="x")))
        await simulator.phone(advance_ms=5_000)
        told = []
        for _ in range(4):
            got = await receiver.next()
            assert_meta("WebhookPayload", json.loads(got.body))
            told += json.loads(got.body)["entry"][0]["changes"][0]["value"]["statuses"]
    assert sorted(each["status"] for each in told) == ["delivered", "failed", "read", "sent"]


async def test_a_webhook_that_does_not_know_the_challenge_is_not_taken(partners):
    async with receiving() as receiver:
        wanted = {"callback_url": receiver.url, "verify_token": "t"}
        assert (await partners.post("/whatsapp/v23.0/1/subscriptions", json=wanted)).status_code == 400
    wanted = {"callback_url": "https://example.com/hook", "verify_token": "t"}
    assert (await partners.post("/whatsapp/v23.0/1/subscriptions", json=wanted)).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (MESSAGES, {}, 400, 100),
        (MESSAGES, {"messaging_product": "whatsapp", "to": "x", "type": "text"}, 400, 100),
        (MESSAGES, {"messaging_product": "whatsapp", "to": TO, "type": "song"}, 400, 131051),
        (MESSAGES, {"messaging_product": "whatsapp", "to": "+15005550003", "type": "text"}, 429, 130429),
        ("/whatsapp/v23.0/1/messages", {"messaging_product": "whatsapp"}, 400, 100),
    ],
)
async def test_metas_errors(partners, path, body, status, code):
    answer = await partners.post(path, json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


async def test_the_number_and_its_templates(partners):
    assert (await partners.get(f"/whatsapp/v23.0/{PHONE_NUMBER_ID}")).json()["quality_rating"] == "GREEN"
    listed = (await partners.get(f"/whatsapp/v23.0/{BUSINESS_ID}/message_templates")).json()["data"]
    assert {row["name"] for row in listed} == {"appointment_reminder", "hello_world", "named_greeting"}


async def test_a_fault_of_one_service_has_its_shape(simulator, partners):
    await simulator.fault("500:whatsapp")
    answer = await partners.post(MESSAGES, json={})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == 131000
    assert (await partners.get("/messages-gateway/messages?idempotency_key=x")).json() == {"messages": []}
    partners.headers["authorization"] = "Bearer wrong"
    await simulator.clear_faults()
    assert (await partners.post(MESSAGES, json={})).json()["error"]["code"] == 190


async def test_the_gateway_keeps_its_contract(simulator, partners):
    url = "/messages-gateway/messages"
    body, key = {"channel": "sms", "to": TO, "body": "Hi"}, {"idempotency-key": "k"}
    first = await partners.post(url, json=body, headers=key)
    again = await partners.post(url, json=body, headers=key)
    other = await partners.post(url, json={**body, "body": "Ho"}, headers=key)
    assert [first.status_code, again.status_code, other.status_code] == [202, 200, 422]
    assert first.json()["id"] == again.json()["id"]
    await simulator.phone(advance_ms=2_000)
    assert (await partners.get(f"{url}/{first.json()['id']}")).json()["status"] == "delivered"
    assert (await partners.get(f"{url}/nobody")).status_code == 404
    assert len((await partners.get(f"{url}?idempotency_key=k")).json()["messages"]) == 1
    assert (await partners.post(url, json={"channel": "pigeon", "to": "x", "body": "y"})).status_code == 400
