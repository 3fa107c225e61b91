"""What each category means: the table, and the failures that say nothing about a dependency."""

from __future__ import annotations

import pytest

from services.errors import Category, ServiceError, UsageError, VaultLocked
from services.resilience import RULES, advice_of, duration, is_retried, rule_of, trips
from services.resilience.rules import OWN_CODES, says_nothing


def test_every_category_has_a_rule_with_advice() -> None:
    assert set(RULES) == set(Category)
    for rule in RULES.values():
        assert rule.advice[0].isupper()
        assert not rule.advice.endswith(".")


@pytest.mark.parametrize(
    ("category", "retried", "tripping"),
    [
        (Category.TRANSIENT, True, True),
        (Category.TIMEOUT, True, True),
        (Category.RATE_LIMIT, True, False),
        (Category.PERMANENT, False, False),
        (Category.AUTHENTICATION, False, False),
    ],
)
def test_what_is_retried_and_what_trips(category: Category, retried: bool, tripping: bool) -> None:
    error = ServiceError("No", category=category)
    assert is_retried(error) is retried
    assert trips(error) is tripping
    assert not says_nothing(error)
    assert rule_of(error) is RULES[category]


@pytest.mark.parametrize("code", sorted(OWN_CODES))
def test_what_this_program_refused_itself_says_nothing(code: str) -> None:
    error = ServiceError("No", category=Category.TRANSIENT, code=code)
    assert says_nothing(error)
    assert not is_retried(error)
    assert not trips(error)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), TimeoutError(), UsageError("No such agent"), VaultLocked("The secret store is locked")],
)
def test_faults_of_ours_are_neither_retried_nor_held_against_anybody(error: Exception) -> None:
    assert says_nothing(error)
    assert not is_retried(error)
    assert not trips(error)


def test_the_failures_own_advice_comes_first() -> None:
    assert advice_of(ServiceError("No", advice="Do this")) == "Do this"
    assert advice_of(ServiceError("No", category=Category.TIMEOUT)) == RULES[Category.TIMEOUT].advice


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 s"),
        (0.2, "1 s"),
        (29.1, "30 s"),
        (120, "120 s"),
        (121, "3 min"),
        (7200, "120 min"),
        (7201, "3 h"),
    ],
)
def test_waits_are_rounded_up(seconds: float, words: str) -> None:
    assert duration(seconds) == words
