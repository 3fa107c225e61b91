from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.calls.telephony import Permission, cost_warning, parse_number, parse_rule, permission
from services.calls.telephony.numbers import require_permission
from services.errors import ServiceError, UsageError


@pytest.mark.parametrize(
    "text",
    ["+493012345678", " +49 30 12345678 ", "+49 (0)30 1234-5678", "+49/30/12345678", "+49.30.1234\u20115678"],
)
def test_a_number_may_be_written_for_people(text: str) -> None:
    assert parse_number(text) == "+493012345678"


@pytest.mark.parametrize(
    "text",
    ["", "+", "030 12345678", "493012345678", "+0301234567", "+12345", "+1234567890123456", "+49x30", "112",
     "+49\u0663\u0660123456", "+4930123;456"],
)  # fmt: skip
def test_what_is_no_international_number_is_refused(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_number(text)
    assert caught.value.code == "invalid_number"
    assert "+49" in caught.value.advice


def test_a_leading_00_is_asked_about_and_not_guessed() -> None:
    with pytest.raises(ServiceError) as caught:
        parse_number("0049 30 12345678")
    assert "+493012345678" in caught.value.advice


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_e164_stays_as_it_is(number: str) -> None:
    assert parse_number(number) == number
    assert permission(number, [number]) is Permission.ALLOWED
    assert permission(number, [number[:4] + "*"]) is Permission.ALLOWED
    assert permission(number + "0", [number]) is Permission.FORBIDDEN


@pytest.mark.parametrize(
    ("text", "rule"), [("+49 30*", "+4930*"), ("+*", "+*"), ("+49 30 1234567", "+49301234567")]
)
def test_rules(text: str, rule: str) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "*", "4930*", "+49*30", "+49**", "+4930?", "030123456"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rule(text)


def test_the_list_decides() -> None:
    rules = ["+493012345678", "+4940*"]
    assert permission("+493012345678", rules) is Permission.ALLOWED
    assert permission("+49401", rules) is Permission.ALLOWED
    assert permission("+4930123456789", rules) is Permission.FORBIDDEN, "a whole number is no beginning"
    assert permission("+4411", rules) is Permission.FORBIDDEN
    assert permission("+4411", ["+*"]) is Permission.ALLOWED
    assert permission("+4411", []) is Permission.ASK, "without a list nothing is called silently"


@pytest.mark.parametrize(
    ("rules", "confirmed", "code"), [([], False, "not_confirmed"), (["+49*"], True, "not_allowed")]
)
def test_what_is_not_permitted(rules: list[str], confirmed: bool, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        require_permission("+441234567", rules, confirmed=confirmed)
    assert caught.value.code == code


@pytest.mark.parametrize(("rules", "confirmed"), [([], True), (["+44*"], False)])
def test_what_is_permitted(rules: list[str], confirmed: bool) -> None:
    require_permission("+441234567", rules, confirmed=confirmed)


def test_the_warning_names_both_numbers_and_who_charges() -> None:
    text = cost_warning("+4411", "+4930", "Retell")
    assert all(word in text for word in ("+4411", "+4930", "Retell", "Twilio", "charge"))
