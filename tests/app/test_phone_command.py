from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from app.commands import _secrets
from services.calls.telephony import TelephonyInfo, TwilioAccount, parse_rule
from services.errors import Category, ServiceError, UsageError

SID = "AC" + "0123abcd" * 4
TOKEN = "token_0123456789abcdef"
REFUSED = ServiceError(
    "Twilio refused it", category=Category.AUTHENTICATION, advice="Copy it", code="wrong_key"
)
DOWN = ServiceError("Twilio cannot be reached", category=Category.TRANSIENT, code="unreachable")


@dataclass
class FakeTelephony:
    info: TelephonyInfo = field(default_factory=lambda: TelephonyInfo("acme", 1))
    error: ServiceError | None = None
    tokens: list[str] = field(default_factory=list)
    tested: list[tuple[str, str, str | None]] = field(default_factory=list)

    async def show(self, company):
        return self.info

    async def set(self, company, account_sid, token, *, base_url=None):
        self.tokens.append(token)
        self.info = replace(self.info, account_sid=account_sid, base_url=base_url or self.info.base_url)
        return self.info

    async def remove(self, company):
        if not self.info.has_account:
            raise UsageError(f"{company} has no Twilio account")
        self.info = replace(self.info, account_sid="")
        return self.info

    async def allow(self, company, rules):
        self.info = replace(self.info, allowed=(*self.info.allowed, *map(parse_rule, rules)))
        return self.info

    async def disallow(self, company, rules):
        gone = [parse_rule(rule) for rule in rules]
        self.info = replace(self.info, allowed=tuple(r for r in self.info.allowed if r not in gone))
        return self.info

    async def test(self, company):
        return await self.test_account("", "")

    async def test_account(self, account_sid, token, base_url=None):
        self.tested.append((account_sid, token, base_url))
        if self.error:
            raise self.error
        return TwilioAccount("Acme Ltd", "active")

    async def numbers(self, company):
        return ["+493012345678"] if self.info.has_account else []


@pytest.fixture
def telephony(services):
    services.with_company()
    services.telephony = FakeTelephony()
    return services.telephony


@pytest.fixture
def piped(monkeypatch):
    def give(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return give


@pytest.fixture
def someone(monkeypatch):
    """Somebody at a terminal: what they type at hidden and at visible questions."""
    typist = SimpleNamespace(hidden=[], answers=[], questions=[])

    def hidden(question: str) -> str:
        typist.questions.append(question)
        return typist.hidden.pop(0)

    def answer(question: str) -> str:
        typist.questions.append(question)
        return typist.answers.pop(0)

    monkeypatch.setattr(_secrets, "can_ask", lambda: True)
    monkeypatch.setattr(_secrets, "ask_hidden", hidden)
    monkeypatch.setattr(_secrets, "ask", answer)
    return typist


def test_a_token_from_standard_input(callboard, telephony, piped):
    piped(f"{TOKEN}\n")
    result = callboard("phone", "set", "Acme", SID, "--key-stdin", "--json")
    assert result.code == 0
    assert result.json["phone"]["account_sid"] == SID
    assert telephony.tokens == [TOKEN]
    assert telephony.tested == [(SID, TOKEN, None)]
    assert TOKEN not in result.out + result.err


def test_a_token_from_a_variable(callboard, telephony, monkeypatch):
    monkeypatch.setenv("TWILIO", TOKEN)
    words = ("phone", "set", "acme", SID, "--key-env", "TWILIO", "--base-url", "https://twilio.example")
    assert callboard(*words).code == 0
    assert telephony.tested == [(SID, TOKEN, "https://twilio.example")]


def test_both_are_asked_for_at_a_terminal(callboard, telephony, someone):
    someone.answers, someone.hidden = [SID], [TOKEN]
    result = callboard("phone", "set", "acme")
    assert result.code == 0
    assert "memory" in result.out
    assert "phone allow" in result.err
    assert (telephony.info.account_sid, telephony.tokens) == (SID, [TOKEN])
    assert [("SID" in q, "not shown" in q) for q in someone.questions] == [(True, False), (False, True)]


def test_nobody_to_ask(callboard, telephony, piped):
    piped("")
    assert callboard("phone", "set", "acme").code == 2
    result = callboard("phone", "set", "acme", SID)
    assert result.code == 2
    assert "--key-stdin" in result.err


def test_what_is_no_account_or_token(callboard, telephony, piped):
    piped(TOKEN)
    assert "account SID" in callboard("phone", "set", "acme", "AC12", "--key-stdin").err
    piped("two words")
    result = callboard("phone", "set", "acme", SID, "--key-stdin")
    assert result.code == 2
    assert "two words" not in result.err
    assert callboard("phone", "set", "acme", SID, "--key", TOKEN).code == 2
    assert telephony.tokens == []


def test_a_refused_token_is_not_stored(callboard, telephony, someone):
    telephony.error = REFUSED
    someone.hidden = [TOKEN]
    result = callboard("phone", "set", "acme", SID)
    assert result.code == 5
    assert "nothing was stored" in result.err
    assert telephony.tokens == []


def test_twilio_that_cannot_be_asked(callboard, telephony, piped):
    telephony.error = DOWN
    piped(TOKEN)
    result = callboard("phone", "set", "acme", SID, "--key-stdin")
    assert result.code == 1
    assert "--no-test" in result.err
    assert telephony.tokens == []
    piped(TOKEN)
    assert callboard("phone", "set", "acme", SID, "--key-stdin", "--no-test").code == 0
    assert telephony.tokens == [TOKEN]


@pytest.mark.parametrize(("typed", "code", "stored"), [("y", 0, 1), ("", 1, 0)])
def test_somebody_may_store_it_untested(typed, code, stored, callboard, telephony, someone):
    telephony.error = DOWN
    someone.hidden, someone.answers = [TOKEN], [typed]
    assert callboard("phone", "set", "acme", SID).code == code
    assert len(telephony.tokens) == stored


def test_testing_the_stored_one(callboard, telephony):
    telephony.info = replace(telephony.info, account_sid=SID)
    assert "Acme Ltd" in callboard("phone", "test", "acme").out
    assert callboard("phone", "test", "acme", "--json").json["status"] == "active"
    telephony.error = REFUSED
    assert callboard("phone", "test", "acme").code == 5


def test_show(callboard, telephony):
    assert "none" in callboard("phone", "show", "acme").out
    shown = callboard("phone", "show", "acme", "--json").json["phone"]
    assert (shown["account_sid"], shown["base_url"], shown["allowed"]) == (None, None, [])
    telephony.info = replace(telephony.info, account_sid=SID, allowed=("+4930*",))
    assert SID in callboard("phone", "show", "acme").out
    assert "+4930*" in callboard("phone", "show", "acme").out


def test_the_list(callboard, telephony):
    result = callboard("phone", "allow", "acme", "+49 30 1234567", "+4940*")
    assert result.code == 0
    assert "+49301234567, +4940*" in result.out
    assert callboard("phone", "allow", "acme", "0301234").code == 2
    result = callboard("phone", "disallow", "acme", "+49301234567", "+4940*")
    assert result.code == 0
    assert "each call has to be confirmed" in result.err
    shown = callboard("phone", "disallow", "acme", "+4940*", "--json")
    assert shown.json["phone"]["allowed"] == []


@pytest.mark.parametrize(("typed", "code"), [("acme", 0), ("", 1)])
def test_remove_asks_for_the_name(typed, code, callboard, telephony, someone):
    telephony.info = replace(telephony.info, account_sid=SID)
    someone.answers = [typed]
    assert callboard("phone", "remove", "acme").code == code
    assert telephony.info.has_account == bool(code)


def test_remove_without_a_terminal(callboard, telephony, piped):
    telephony.info = replace(telephony.info, account_sid=SID)
    piped("")
    assert callboard("phone", "remove", "acme").code == 2
    removed = callboard("phone", "remove", "acme", "--yes", "--json")
    assert removed.json["phone"]["account_sid"] is None
    assert callboard("phone", "remove", "acme", "--yes").code == 2, "there is none any more"


def test_numbers(callboard, telephony):
    assert "no number" in callboard("phone", "numbers", "acme").err
    telephony.info = replace(telephony.info, account_sid=SID)
    assert callboard("phone", "numbers", "acme").out == "+493012345678\n"
    assert callboard("phone", "numbers", "acme", "--json").json["numbers"] == ["+493012345678"]


def test_a_company_that_is_none(callboard, telephony):
    result = callboard("phone", "show", "acne")
    assert result.code == 2
    assert "Did you mean acme?" in result.err
