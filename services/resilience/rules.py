"""What each error category means for a call: is it tried again, does it trip a breaker, what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.errors import Category, ServiceError, UsageError, VaultLocked


@dataclass(frozen=True, slots=True)
class Rule:
    """How failures of one category are treated."""

    retried: bool
    """Whether the same request may succeed a moment later. Writes need an idempotency key besides."""
    trips: bool
    """Whether it says that the dependency is unwell, and so counts for its breaker."""
    advice: str
    """What an operator is told where the failure itself brings no advice."""


RULES: Final = MappingProxyType(
    {
        Category.TRANSIENT: Rule(
            True, True, "It is tried again; if it stays, look at the vendor's status page"
        ),
        Category.TIMEOUT: Rule(True, True, "Check the network; a longer request timeout helps on slow lines"),
        # The dependency is well and says so: opening the breaker would punish every other caller.
        Category.RATE_LIMIT: Rule(True, False, "Wait until the limit has room again, or raise it"),
        Category.PERMANENT: Rule(False, False, "Trying again does not help; correct what the message names"),
        Category.AUTHENTICATION: Rule(False, False, "Check the key and its permissions, then store it anew"),
    }
)

OWN_CODES: Final = frozenset({"closed", "limited", "breaker_open"})
"""Codes of failures that this program makes itself: the dependency was not asked."""


_OWN_KINDS: Final = (UsageError, VaultLocked)


def rule_of(error: BaseException) -> Rule:
    """The rule of a failure. What is no `ServiceError` is a fault of ours: never retried, trips nothing."""
    if isinstance(error, ServiceError):
        return RULES[error.category]
    return RULES[Category.PERMANENT]


def says_nothing(error: BaseException) -> bool:
    """Whether the failure arose before or beside the dependency, so that it tells nothing about it.

    That is a fault of ours, wrong use, a locked secret store, a limit or a breaker further in.
    """
    return not isinstance(error, ServiceError) or isinstance(error, _OWN_KINDS) or error.code in OWN_CODES


def is_retried(error: BaseException) -> bool:
    """Whether trying again makes sense."""
    return not says_nothing(error) and rule_of(error).retried


def trips(error: BaseException) -> bool:
    """Whether the failure counts against the dependency's breaker."""
    return not says_nothing(error) and rule_of(error).trips


def advice_of(error: ServiceError) -> str:
    """The failure's own advice, else its category's."""
    return error.advice or RULES[error.category].advice


def duration(seconds: float) -> str:
    """A wait for people, rounded up, in one short unit: `1 s`, `90 s`, `4 min`, `14 h`."""
    if seconds <= 120:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds <= 7200:
        return f"{math.ceil(seconds / 60)} min"
    return f"{math.ceil(seconds / 3600)} h"
