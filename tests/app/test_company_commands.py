from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from app.commands import _secrets
from services.companies.service import ConnectionCheck
from services.errors import UsageError
from services.model import Provider
from tests.app.fakes import DOWN, WRONG_KEY, LockedStore

KEY = "key_0123456789abcdef"


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
    monkeypatch.setattr("app.commands.connection.can_ask", lambda: True)
    monkeypatch.setattr(_secrets, "ask_hidden", hidden)
    monkeypatch.setattr(_secrets, "ask", answer)
    monkeypatch.setattr("app.commands.connection.ask", answer)
    return typist


@pytest.fixture
def piped(monkeypatch):
    def give(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return give


def test_company_add_and_list(callboard, services):
    result = callboard("company", "add", "acme")
    assert result.code == 0
    assert "connection add acme retell" in result.err
    assert "acme" in callboard("company", "list").out
    assert callboard("company", "list", "--json").json["companies"][0]["name"] == "acme"
    assert callboard("company", "add", "beta", "--json").json["company"]["name"] == "beta"


def test_no_company_yet(callboard):
    result = callboard("company", "list")
    assert (result.code, result.out) == (0, "")
    assert "company add" in result.err


def test_remove_needs_a_yes(callboard, services, piped):
    services.with_company(Provider.RETELL)
    piped("acme\n")
    result = callboard("company", "remove", "acme")
    assert result.code == 2
    assert "--yes" in result.err
    assert services.companies.removed == []
    assert callboard("company", "remove", "Acme", "--yes").code == 0
    assert services.companies.removed == ["acme"]


@pytest.mark.parametrize(
    ("typed", "code", "removed"), [("acme", 0, ["acme/retell"]), ("retell", 1, []), ("", 1, [])]
)
def test_remove_asks_for_the_name(typed, code, removed, callboard, services, someone):
    services.with_company(Provider.RETELL)
    someone.answers = [typed]
    assert callboard("connection", "remove", "acme", "retell").code == code
    assert services.companies.removed == removed


def test_unknown_names_name_the_nearest(callboard, services):
    services.with_company(Provider.RETELL)
    assert "Did you mean acme?" in callboard("company", "remove", "acm", "--yes").err
    result = callboard("connection", "test", "acme", "elevenlabs")
    assert result.code == 2
    assert "connection add acme elevenlabs" in result.err


def test_a_key_from_standard_input(callboard, services, piped):
    services.with_company()
    piped(f"{KEY}\n")
    result = callboard("connection", "add", "acme", "retell", "--key-stdin")
    assert result.code == 0
    assert services.companies.keys == {"acme/retell": KEY}
    assert services.companies.tested == [KEY]
    assert KEY not in result.out + result.err


def test_a_key_from_the_environment(callboard, services, monkeypatch):
    services.with_company()
    monkeypatch.setenv("OUR_KEY", KEY)
    words = ("connection", "add", "acme", "elevenlabs", "--key-env", "OUR_KEY", "--residency", "eu", "--json")
    shown = callboard(*words).json["connection"]
    assert shown["residency"] == "eu"
    assert services.companies.keys == {"acme/elevenlabs": KEY}
    result = callboard("connection", "rotate", "acme", "elevenlabs", "--key-env", "OUR_KEX")
    assert result.code == 2
    assert "OUR_KEX" in result.err


def test_a_key_from_a_prompt(callboard, services, someone):
    services.with_company()
    someone.hidden = [KEY]
    assert callboard("connection", "add", "acme", "retell").code == 0
    assert services.companies.keys == {"acme/retell": KEY}


def test_no_terminal_no_prompt(callboard, services, piped):
    services.with_company()
    piped("")
    result = callboard("connection", "add", "acme", "retell")
    assert result.code == 2
    assert "--key-stdin" in result.err


def test_a_key_is_never_an_argument(callboard, services):
    services.with_company()
    assert callboard("connection", "add", "acme", "retell", "--key", KEY).code == 2


def test_a_second_key_for_a_vendor_is_a_rotation(callboard, services, piped):
    services.with_company(Provider.RETELL)
    assert "rotate" in callboard("connection", "add", "acme", "retell", "--key-stdin").err
    piped(KEY)
    assert callboard("connection", "rotate", "acme", "retell", "--key-stdin").code == 0
    assert services.companies.keys == {"acme/retell": KEY}


@pytest.mark.parametrize(
    "text",
    ["", "\n", "   \n", "a\nb\n", "key with blank", " padded", "ключ", "kéy", "a\x00b", "a\tb", "x" * 4097],
)
def test_what_is_no_key_is_refused_without_being_shown(text, callboard, services, piped):
    services.with_company()
    piped(text)
    result = callboard("connection", "add", "acme", "retell", "--key-stdin")
    assert result.code == 2
    assert services.companies.keys == {}
    assert services.companies.tested == []
    if text.strip():
        assert text.strip() not in result.err


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_one_line_end_is_not_part_of_a_key(end):
    assert _secrets.checked_key(KEY + end, "it") == KEY
    with pytest.raises(UsageError):
        _secrets.checked_key(KEY + "\n\n", "it")


def failed(error, code):
    return ConnectionCheck(False, "", code, error, 3)


def test_a_refused_key_is_not_stored(callboard, services, someone):
    services.with_company()
    services.companies.check = failed(WRONG_KEY, "wrong_key")
    someone.hidden = [KEY]
    result = callboard("connection", "add", "acme", "retell")
    assert result.code == 5
    assert services.companies.keys == {}
    assert "nothing was stored" in result.err


def test_an_unreachable_vendor_without_a_terminal(callboard, services, piped):
    services.with_company()
    services.companies.check = failed(DOWN, "unreachable")
    piped(KEY)
    result = callboard("connection", "add", "acme", "retell", "--key-stdin")
    assert result.code == 1
    assert "--no-test" in result.err
    assert services.companies.keys == {}
    piped(KEY)
    assert callboard("connection", "add", "acme", "retell", "--key-stdin", "--no-test").code == 0


@pytest.mark.parametrize(("typed", "code", "stored"), [("y", 0, 1), ("", 1, 0), ("n", 1, 0)])
def test_an_unreachable_vendor_at_a_terminal(typed, code, stored, callboard, services, someone):
    services.with_company()
    services.companies.check = failed(DOWN, "unreachable")
    someone.hidden, someone.answers = [KEY], [typed]
    assert callboard("connection", "add", "acme", "retell").code == code
    assert len(services.companies.keys) == stored


def test_connection_test_of_all(callboard, services):
    services.with_company(Provider.RETELL, Provider.ELEVENLABS)
    assert callboard("connection", "test", "acme").code == 0
    services.companies.checks = {Provider.RETELL: failed(WRONG_KEY, "wrong_key")}
    result = callboard("connection", "test", "acme", "--json")
    assert result.code == 5
    assert [check["ok"] for check in result.json["checks"]] == [False, True]
    services.companies.checks = {Provider.RETELL: failed(DOWN, "unreachable")}
    assert callboard("connection", "test", "acme").code == 3
    result = callboard("connection", "test", "acme", "retell")
    assert result.code == 1
    assert DOWN.advice in result.err


def test_connection_list(callboard, services):
    services.with_company(Provider.RETELL)
    assert "retell" in callboard("connection", "list").out
    shown = callboard("connection", "list", "--company", "acme", "--json").json["connections"]
    assert [item["provider"] for item in shown] == ["retell"]


def test_a_locked_store_asks_until_it_opens(callboard, services, someone):
    services.with_company(Provider.RETELL)
    services.store = LockedStore()
    someone.hidden = ["wrong", "right"]
    assert callboard("connection", "test", "acme").code == 0
    services.store = LockedStore()
    someone.hidden = ["wrong", "wrong", "wrong"]
    assert callboard("connection", "test", "acme").code == 5


def test_a_new_store_asks_twice(callboard, services, someone):
    services.with_company(Provider.RETELL)
    services.store = LockedStore(is_new=True)
    someone.hidden = ["one", "two"]
    assert callboard("connection", "test", "acme").code == 2
    someone.hidden = ["one", "one"]
    assert callboard("connection", "test", "acme").code == 0
    assert services.store.passphrase == "one"


def test_a_locked_store_without_a_terminal(callboard, services, piped):
    services.with_company(Provider.RETELL)
    services.store = LockedStore()
    piped("right\n")
    result = callboard("sync")
    assert result.code == 5
    assert "CALLBOARD_PASSPHRASE" in result.err
