"""Telephone numbers: how they are written, and which of them may be dialled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from services.errors import ServiceError, UsageError
from services.text import clean_line

_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_RULE: Final = re.compile(r"\+([0-9]{1,15}\*?|\*)")
_SPACING: Final = re.compile(r"[\s()./\u2010-\u2015-]+")
# Numbers people write for looks only: "+49 (0)30 …" has a zero that is not dialled from abroad.
_TRUNK_ZERO: Final = re.compile(r"\(0\)")
ADVICE: Final = "Write it with + and the country code, such as +493012345678"


class Permission(StrEnum):
    """What the allow-list says about a number."""

    ALLOWED = "allowed"
    """It is on the list."""
    ASK = "ask"
    """There is no list: every call needs a person's yes."""
    FORBIDDEN = "forbidden"
    """There is a list, and it is not on it."""


def parse_number(text: str) -> str:
    """The number in E.164 form (`+` and 7 to 15 digits), spaces, dashes and brackets left out.

    Raises `ServiceError` with code `invalid_number`; a number without a country code is never guessed at.
    """
    number = _SPACING.sub("", _TRUNK_ZERO.sub("", text.strip()))
    if _E164.fullmatch(number):
        return number
    shown = clean_line(text)[:40]
    if number.startswith("00") and _E164.fullmatch("+" + number[2:]):
        raise ServiceError(
            f"{shown} begins with 00 instead of +",
            advice=f"If it is meant as +{number[2:]}, write it so",
            code="invalid_number",
        )
    raise ServiceError(
        f"{shown!r} is not a telephone number in international form", advice=ADVICE, code="invalid_number"
    )


def parse_rule(text: str) -> str:
    """A rule of the allow-list: a whole number, or the beginning of numbers with a `*` at its end.

    Raises `UsageError` for anything else. `+*` allows every number.
    """
    rule = _SPACING.sub("", text.strip())
    if not rule.endswith("*"):
        try:
            return parse_number(rule)
        except ServiceError as error:
            raise UsageError(error.message, advice=error.advice, code="bad_rule") from None
    if not _RULE.fullmatch(rule):
        raise UsageError(
            f"{clean_line(text)[:40]!r} is not a number or the beginning of numbers",
            advice="Write a whole number such as +493012345678, or a beginning such as +4930*",
            code="bad_rule",
        )
    return rule


def permission(number: str, rules: Iterable[str]) -> Permission:
    """Whether `number` (E.164) may be dialled under these rules."""
    known = list(rules)
    if not known:
        return Permission.ASK
    fits = any(number.startswith(rule[:-1]) if rule.endswith("*") else number == rule for rule in known)
    return Permission.ALLOWED if fits else Permission.FORBIDDEN


def require_permission(number: str, rules: Iterable[str], *, confirmed: bool) -> None:
    """Refuse what may not be dialled: `ServiceError` with code `not_allowed` or `not_confirmed`."""
    known = permission(number, rules)
    if known is Permission.FORBIDDEN:
        raise ServiceError(
            f"{number} is not on the company's list of numbers that may be called",
            advice="Add it with: callboard phone allow COMPANY NUMBER",
            code="not_allowed",
        )
    if known is Permission.ASK and not confirmed:
        raise ServiceError(
            f"Nobody confirmed the call to {number}",
            advice="Confirm the number, or put it on the list: callboard phone allow COMPANY NUMBER",
            code="not_confirmed",
        )


def cost_warning(to: str, from_number: str, vendor: str) -> str:
    """What is said before dialling: one sentence for people."""
    source = f" from {from_number}" if from_number else ""
    return f"This calls {to}{source} for real: Twilio and {vendor} charge for every minute."
