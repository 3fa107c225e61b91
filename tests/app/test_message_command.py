"""`callboard message`: what is asked of the service, what is shown, and the exit codes."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from app.commands import message as command
from services.errors import Category, ServiceError, UsageError
from services.integrations.messages import (
    Channel,
    InboundRow,
    Kept,
    MessageEventRow,
    MessageRow,
    MessageState,
    Template,
)
from services.model import ErrorInfo
from tests.app.fakes import NOW, card

ROW = MessageRow(
    id="3f9a12ab" + "0" * 24,
    company_id=1,
    company="acme",
    channel=Channel.SMS,
    adapter="twilio-sms",
    integration_id=4,
    integration="twilio-sms",
    agent_row=None,
    recipient="+493012345678",
    sender="+15005550006",
    subject="",
    body="Hello",
    template=None,
    state=MessageState.SENDING,
    remark="",
    resend_of="",
    simulated=False,
    provider_id="SM1",
    error=None,
    created_at=NOW,
    updated_at=NOW,
    next_look_at=NOW + 2000,
)
FAILED = ErrorInfo("permanent", "Twilio refused it (21211): not valid", "Check the recipient's number")
LOST = ErrorInfo("timeout", "Twilio did not answer", "It may have been sent: ask the recipient")


HEARD = InboundRow(
    id="b0b1" + "0" * 28,
    company_id=1,
    company="acme",
    channel=Channel.WHATSAPP,
    integration_id=4,
    integration="WhatsApp",
    provider_id="wamid.1",
    sender="US.1349",
    sender_user="US.1349",
    sender_name="Robin\x1b[2J",
    recipient="+15005550100",
    kind="text",
    body="Monday\nsuits me",
    reply_to="wamid.0",
    sent_at=NOW,
    received_at=NOW,
    text_removed_at=None,
)


@dataclass
class FakeTexts:
    kept: list[Kept] = field(default_factory=lambda: [Kept(1, "acme", 90, False)])

    async def of(self, company: str | None = None) -> list[Kept]:
        return self.kept

    async def set(self, company: str, days: int | None, *, actor: str = "") -> Kept:
        self.kept = [Kept(1, company, 90 if days is None else days, days is not None)]
        return self.kept[0]


@dataclass
class FakeMessages:
    row: MessageRow = ROW
    error: ServiceError | None = None
    later: tuple[MessageRow, ...] = ()
    orders: list[dict[str, Any]] = field(default_factory=list)
    needs_yes: bool = False
    inbound: tuple[InboundRow, ...] = ()
    texts: FakeTexts = field(default_factory=lambda: FakeTexts())

    async def send_message(self, company: str, channel: Channel, to: str, **more: Any) -> MessageRow:
        if self.needs_yes and not more["confirmed"]:
            raise ServiceError("Nobody confirmed the call", advice="Confirm it", code="not_confirmed")
        if self.error is not None:
            raise self.error
        self.orders.append({"company": company, "channel": channel, "to": to, **more})
        return replace(self.row, channel=channel)

    async def resend(self, message_id: str, **more: Any) -> MessageRow:
        self.orders.append({"resend": message_id, **more})
        return replace(self.row, id="77c1" + "0" * 28, resend_of=message_id, state=MessageState.SENDING)

    async def get(self, message_id: str) -> MessageRow:
        if not self.row.id.startswith(message_id):
            raise UsageError(
                f"There is no message {message_id!r}", advice="list them", code="unknown_message"
            )
        return self.row

    async def list(self, company: str | None = None, **how: Any) -> list[MessageRow]:
        self.orders.append({"list": company, **how})
        return [self.row] if how["state"] in (None, self.row.state) else []

    async def received(self, company: str | None = None, **how: Any) -> list[InboundRow]:
        self.orders.append({"received": company, **how})
        return [row for row in self.inbound if row.id.startswith(how.get("beginning", ""))]

    async def events(self, message_id: str) -> list[MessageEventRow]:
        return [MessageEventRow(NOW, MessageState.QUEUED, "send", "")]

    async def settle(self) -> tuple[MessageRow, ...]:
        return ()

    async def follow(self, message_id: str, *, seconds: float):
        self.orders.append({"follow": message_id, "seconds": seconds})
        yield self.row
        for row in self.later:
            yield row


@pytest.fixture
def messages(services):
    services.with_company()
    services.messages = FakeMessages()
    return services.messages


def send(callboard, *words: str, channel: str = "sms", to: str = "+493012345678"):
    return callboard("message", "send", "Acme", channel, to, *words)


def test_sending(callboard, messages):
    result = send(callboard, "--body", "Hello", "--key", "k1", "--integration", "hub")
    assert result.code == 0
    assert result.out == "3f9a12ab  sending  sms to +493012345678 by twilio-sms\n"
    (order,) = messages.orders
    assert (order["company"], order["channel"], order["body"]) == ("acme", Channel.SMS, "Hello")
    assert (order["idempotency_key"], order["integration"], order["confirmed"]) == ("k1", "hub", False)
    assert order["actor"]


def test_a_text_from_standard_input(callboard, messages, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Dear Ann,\n\nsee you.\n"))
    assert send(callboard, "--subject", "Hi", channel="email", to="ann@example.com").code == 0
    assert messages.orders[0]["body"] == "Dear Ann,\n\nsee you."


def test_no_text_at_a_terminal(callboard, messages, monkeypatch):
    monkeypatch.setattr(command, "is_terminal", lambda stream: True)
    assert send(callboard).code == 2


def test_a_template(callboard, messages):
    words = ("--template", "reminder", "--lang", "de", "--param", "1=Montag", "--param", "2=a=b")
    assert send(callboard, *words, channel="whatsapp").code == 0
    assert messages.orders[0]["template"] == Template("reminder", "de", {"1": "Montag", "2": "a=b"})


@pytest.mark.parametrize("words", [("--param", "x"), ("--param", "1=a", "--param", "1=b"), ("--lang", "de")])
def test_wrong_parameters(callboard, messages, words):
    assert send(callboard, "--body", "x", *words).code == 2
    assert messages.orders == []


def test_json(callboard, messages):
    told = send(callboard, "--body", "Hello", "--json").json
    assert told["message"]["state"] == "sending"
    assert told["message"]["followed"] is True
    assert told["events"][0]["state"] == "queued"


def test_a_simulation_says_that_it_is_one(callboard, messages):
    messages.row = replace(
        ROW,
        simulated=True,
        state=MessageState.DELIVERED,
        remark="Simulated: nothing was sent",
        next_look_at=None,
    )
    result = send(callboard, "--body", "Hello")
    assert result.code == 0
    assert "SIMULATED" in result.err
    assert "simulated" in result.out


@pytest.mark.parametrize(
    ("state", "error", "code", "words"),
    [
        (MessageState.FAILED, FAILED, 1, "Check the recipient's number"),
        (MessageState.FAILED, replace(FAILED, category="authentication"), 5, "21211"),
        (MessageState.UNKNOWN, LOST, 1, "message follow 3f9a12ab"),
    ],
)
def test_what_went_wrong_is_the_exit_code(callboard, messages, state, error, code, words):
    messages.row = replace(ROW, state=state, error=error)
    result = send(callboard, "--body", "Hello")
    assert result.code == code
    assert words in result.err
    assert state.value in result.out
    assert send(callboard, "--body", "Hello", "--json").json["message"]["error"]["message"] == error.message


def test_waiting_for_its_delivery(callboard, messages):
    messages.later = (
        replace(ROW, state=MessageState.SENT),
        replace(ROW, state=MessageState.DELIVERED, next_look_at=None),
    )
    result = send(callboard, "--body", "Hello", "--wait", "60")
    assert result.err == "sending\nsent\ndelivered\n"
    assert "delivered" in result.out
    assert messages.orders[1]["seconds"] == 60


def test_a_call_is_asked_about_and_waited_for(callboard, messages, services, monkeypatch):
    services.agents.items = [card(7, name="Front desk")]
    messages.needs_yes = True
    words = ("--agent", "front", "--body", "The car is ready")
    assert send(callboard, *words, channel="phone").code == 1  # nobody to ask
    assert messages.orders == []
    answers = ["no", "yes"]
    monkeypatch.setattr(command, "can_ask", lambda: True)
    monkeypatch.setattr(command, "ask", lambda question: answers.pop(0))
    assert send(callboard, *words, channel="phone").code == 1
    messages.later = (replace(ROW, channel=Channel.PHONE, state=MessageState.DELIVERED, next_look_at=None),)
    assert send(callboard, *words, channel="phone").code == 0
    assert messages.orders[0]["agent_id"] == 7
    assert messages.orders[0]["confirmed"] is True
    assert messages.orders[1]["seconds"] > 3600
    assert send(callboard, *words, "--yes", channel="phone").code == 0


def test_a_refusal_before_anything_is_sent(callboard, messages):
    messages.error = UsageError("'x' is not an e-mail address", advice="Give one", code="bad_recipient")
    result = send(callboard, "--body", "x", channel="email", to="x")
    assert result.code == 2
    assert result.out == ""
    messages.error = ServiceError("Not on the list", category=Category.PERMANENT, code="not_allowed")
    assert send(callboard, "--body", "x").code == 4
    assert send(callboard, "--body", "x", channel="pigeon").code == 2


def test_listing(callboard, messages):
    result = callboard("message", "list", "acme", "--channel", "sms")
    header, line = result.out.splitlines()
    assert header.split() == ["MESSAGE", "SENT", "COMPANY", "CHANNEL", "TO", "BY", "STATE", "REMARK"]
    assert line.split()[:2] == ["3f9a12ab", "now"]
    assert messages.orders[0] == {"list": "acme", "channel": Channel.SMS, "state": None, "limit": 50}
    assert len(callboard("message", "list", "--json").json["messages"]) == 1
    empty = callboard("message", "list", "--state", "failed")
    assert (empty.code, empty.out) == (0, "")
    assert "No message matches" in empty.err
    assert callboard("message", "list", "--limit", "0").code == 2
    assert callboard("message", "list", "nobody").code == 2


def test_showing(callboard, messages):
    messages.row = replace(
        ROW, body="One\x1b[31m\ntwo", template=Template("r", "de", {"1": "x"}), error=FAILED, remark="why"
    )
    out = callboard("message", "show", "3f9a").out
    for part in ("3f9a12ab", "sms", "twilio-sms", "SM1", "Check the recipient", "queued", "two"):
        assert part in out
    assert "\x1b" not in out
    assert callboard("message", "show", "3f9a", "--json").json["message"]["template"]["name"] == "r"
    assert callboard("message", "show", "zz").code == 2


def test_resending_asks_when_the_first_may_have_arrived(callboard, messages, monkeypatch):
    assert callboard("message", "resend", "3f9a").code == 2
    assert messages.orders == []
    monkeypatch.setattr(command, "can_ask", lambda: True)
    monkeypatch.setattr(command, "ask", lambda question: "no")
    assert callboard("message", "resend", "3f9a").code == 1
    result = callboard("message", "resend", "3f9a", "--yes")
    assert result.code == 0
    assert result.out.startswith("77c1")
    messages.row = replace(ROW, state=MessageState.FAILED, error=FAILED)
    monkeypatch.setattr(command, "ask", lambda question: pytest.fail("nothing to ask"))
    assert callboard("message", "resend", "3f9a", "--json").json["message"]["resend_of"] == ROW.id


def test_following(callboard, messages):
    messages.later = (replace(ROW, state=MessageState.DELIVERED, next_look_at=None),)
    result = callboard("message", "follow", "3f9a", "--for", "9")
    assert (result.code, result.err) == (0, "sending\ndelivered\n")
    assert messages.orders == [{"follow": ROW.id, "seconds": 9.0}]
    messages.later = ()
    assert "not at its end" in callboard("message", "follow", "3f9a").err


# -- what people wrote, and for how long texts are kept ------------------------------------------------


def test_listing_what_people_wrote(callboard, messages):
    picture = replace(HEARD, id="c1" + "0" * 30, kind="image", body="", company="")
    gone = replace(HEARD, id="d2" + "0" * 30, body="", text_removed_at=NOW)
    messages.inbound = (HEARD, picture, gone)
    result = callboard("message", "list", "acme", "--inbound", "--channel", "whatsapp", "--limit", "7")
    assert result.code == 0
    assert messages.orders == [{"received": "acme", "channel": Channel.WHATSAPP, "limit": 7}]
    first, second, third = result.out.splitlines()[1:]
    assert first.startswith("b0b10000")
    assert "Monday suits me" in first
    assert "\x1b" not in result.out
    assert "[image]" in second
    assert "(not kept any more)" in third
    told = callboard("message", "list", "--inbound", "--json").json["messages"]
    assert (told[0]["from"], told[0]["user"], told[0]["company"]) == ("US.1349", "US.1349", "acme")
    assert (told[1]["company"], told[2]["text_removed_at"] is not None) == (None, True)
    wrong = callboard("message", "list", "--inbound", "--state", "sent")
    assert (wrong.code, "Only what was sent has a state" in wrong.err) == (2, True)
    messages.inbound = ()
    assert "Nobody wrote yet" in callboard("message", "list", "--inbound").err
    assert "No message matches" in callboard("message", "list", "acme", "--inbound").err


def test_showing_what_somebody_wrote(callboard, messages):
    messages.inbound = (HEARD,)
    result = callboard("message", "show", "b0b1")
    assert result.code == 0
    assert "Monday\nsuits me\n" in result.out
    assert "calls itself" in result.out
    assert callboard("message", "show", "b0b1", "--json").json["message"]["reply_to"] == "wamid.0"
    assert callboard("message", "show", "ffff").code == 2


def test_a_text_that_is_gone(callboard, messages):
    messages.row = replace(ROW, body="", text_removed_at=NOW)
    assert "not kept any more" in callboard("message", "show", "3f9a").out
    told = callboard("message", "show", "3f9a", "--json").json["message"]
    assert (told["body"], told["text_removed_at"] is not None) == ("", True)


def test_for_how_long_texts_are_kept(callboard, messages):
    assert callboard("message", "keep").out == (
        "acme keeps texts of messages and orders for 90 days (as the setting messages_keep_days says).\n"
    )
    assert callboard("message", "keep", "acme", "--days", "1").out == (
        "acme keeps texts of messages and orders for 1 day.\n"
    )
    assert callboard("message", "keep", "acme", "--forever", "--json").json["companies"] == [
        {"company": "acme", "days": None, "own": True}
    ]
    assert callboard("message", "keep", "acme", "--default").out.endswith("says).\n")
    for words, said in (
        (("--days", "3"), "Whose texts is not said"),
        (("acme", "--days", "0"), "--days"),
        (("acme", "--days", "3", "--forever"), "not allowed with"),
        (("nobody", "--days", "3"), "no company"),
    ):
        wrong = callboard("message", "keep", *words)
        assert wrong.code == 2
        assert said in wrong.err
