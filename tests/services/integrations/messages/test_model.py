"""The state of a message after any reports in any order; when it is looked at next."""

from __future__ import annotations

from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.integrations.messages.model import (
    FOLLOWED_FOR_MS,
    LONGEST_LOOK_MS,
    MessageState,
    furthest,
    next_look,
)

states = st.sampled_from(MessageState)


@given(st.lists(states, min_size=1), st.randoms(use_true_random=False))
def test_order_and_repetition_of_reports_do_not_matter(reports, random):
    end = reduce(furthest, reports)
    mixed = [*reports, *random.choices(reports, k=len(reports))]
    random.shuffle(mixed)
    assert reduce(furthest, mixed) is end


@given(states, states)
def test_a_state_never_goes_back(before, reported):
    after = furthest(before, reported)
    assert furthest(after, before) is after
    assert furthest(after, reported) is after
    if before is MessageState.READ:
        assert after is MessageState.READ
    if before.final:
        assert after.final


@pytest.mark.parametrize(
    ("reports", "end"),
    [
        (("queued", "sending", "sent", "delivered"), "delivered"),
        (("sent", "failed"), "failed"),
        (("failed", "sent", "sending"), "failed"),
        (("unknown", "sending"), "sending"),  # the provider has it after all
        (("sending", "unknown"), "sending"),
        (("delivered", "failed"), "delivered"),  # a delivery was seen to happen
        (("read", "delivered", "sent"), "read"),
    ],
)
def test_where_reports_lead(reports, end):
    for order in permutations(reports):
        assert reduce(furthest, map(MessageState, order)) is MessageState(end)


@given(st.integers(0, 10**13), st.integers(0, 10**10))
def test_looks_grow_apart_and_end(created, age):
    now = created + age
    at = next_look(created, now)
    if age >= FOLLOWED_FOR_MS:
        assert at is None
        return
    assert at is not None
    assert 2_000 <= at - now <= LONGEST_LOOK_MS
    assert at - now >= min(LONGEST_LOOK_MS, age // 2)


def test_a_message_that_never_ends_is_asked_about_some_hundred_times_at_most():
    now, looks = 0, 0
    while (at := next_look(0, now)) is not None:
        now, looks = at, looks + 1
    assert 80 <= looks <= 120
