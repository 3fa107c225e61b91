"""Routing without a model: explainable, and the same every time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.integrations.llm.model import Candidate
from services.integrations.llm.rules import choose

BILLING = Candidate(
    "a1", 1, "agent_b", "Billing", "You answer questions about invoices and payment.", "en-US"
)
RECEPTION = Candidate(
    "a2", 2, "agent_r", "Rezeption", "Du nimmst Reservierungen an.", "de-DE", ("book_table",)
)
SUPPORT = Candidate("a3", 3, "agent_s", "Tech support", "You help with broken devices.", "en-GB, fr-FR")
ALL = (BILLING, RECEPTION, SUPPORT)

TEXT = st.text(max_size=60)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        id=TEXT,
        agent_row=st.integers(1, 999),
        agent_id=TEXT,
        name=TEXT,
        purpose=st.text(max_size=200),
        language=TEXT,
        functions=st.lists(TEXT, max_size=3).map(tuple),
    ),
    max_size=6,
    unique_by=lambda candidate: candidate.agent_row,
)


@pytest.mark.parametrize(
    ("request_", "agent", "reason"),
    [
        ("There is a mistake in my invoice", BILLING, "“invoice”"),
        ("I want to talk to tech support", SUPPORT, "“tech” and “support”"),
        ("Ich möchte bitte einen Tisch für vier", RECEPTION, "the language (de)"),
        ("Je voudrais parler avec une personne", SUPPORT, "the language (fr)"),
        ("book a table", RECEPTION, "“book” and “table”"),
        ("My DEVICES broke", SUPPORT, "“devices”"),
    ],
)
def test_who_fits_and_why(request_, agent, reason):
    choice = choose(ALL, request_)
    assert choice.candidate == agent
    assert reason in choice.reason
    assert choice.confidence is not None
    assert 0.3 <= choice.confidence <= 0.8


def test_nobody_fits():
    choice = choose(ALL, "qwertz 123")
    assert choice.candidate is None
    assert choice.confidence == 0.0
    assert choose((), "anything").candidate is None
    assert choose((BILLING,), "qwertz").candidate == BILLING


def test_a_rare_word_counts_more_than_a_common_one():
    common = [Candidate(f"a{n}", n, "", f"Agent {n}", "hotel questions", "en") for n in range(1, 5)]
    special = Candidate("a9", 9, "", "Agent 9", "sauna", "en")
    assert choose([*common, special], "hotel sauna").candidate == special


@given(CANDIDATES, st.text(st.characters(codec=None, exclude_categories=()), max_size=200), st.randoms())
def test_the_same_answer_in_any_order(candidates, request_, rng):
    shuffled = list(candidates)
    rng.shuffle(shuffled)
    one, other = choose(candidates, request_), choose(shuffled, request_)
    assert one == other
    assert one.candidate is None or one.candidate in candidates
    assert one.reason
