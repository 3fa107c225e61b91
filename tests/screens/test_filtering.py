"""The filter language: what it finds, how it names what is wrong, and its laws."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agents.filtering import CLOSED, FIELDS, Filter, Term, parse_filter
from services.errors import UsageError
from services.model import AgentCard
from tests.support.fake_services import seeded_cards

CARDS = seeded_cards(60, companies=("acme", "Zahnarzt Weber"))


def names(text: str) -> list[str]:
    chosen = parse_filter(text)
    return [card.name for card in CARDS if chosen.matches(card)]


def test_a_bare_word_is_looked_for_in_every_text() -> None:
    assert names("booking") == [card.name for card in CARDS if "Booking" in card.name]
    some = CARDS[0]
    assert some.name in names(some.agent_id)
    assert set(names("zahnarzt")) == {card.name for card in CARDS if card.company == "Zahnarzt Weber"}


def test_fields_alternatives_and_inversion() -> None:
    assert names("vendor:retell") == [card.name for card in CARDS if card.provider == "retell"]
    assert names("!vendor:retell") == [card.name for card in CARDS if card.provider != "retell"]
    both = [card.name for card in CARDS if card.gone_at is None and card.status in ("error", "pending")]
    assert names("status:error,pending") == both
    assert names("status:gone") == [card.name for card in CARDS if card.gone_at is not None]
    assert names("vendor:r drift:local-ahead") == names("vendor:retell drift:local_ahead")
    assert names('company:"zahnarzt weber"') == [
        card.name for card in CARDS if card.company == "Zahnarzt Weber"
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("vendr:retell", "vendor"),
        ("vendor:", "retell, elevenlabs"),
        ("vendor:twilio", "retell, elevenlabs"),
        ("status:sync", "syncing or synced"),
        ("status:eror", "error"),
        ("!", "!retell"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(text)
    assert named in f"{caught.value.message} {caught.value.advice}"
    assert caught.value.code == "bad_filter"


def test_nothing_filters_nothing() -> None:
    assert not parse_filter("  ")
    assert all(parse_filter("").matches(card) for card in CARDS)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        chosen = parse_filter(text)
        assert [chosen.matches(card) in (True, False) for card in CARDS[:5]]


terms = st.one_of(
    *(
        st.builds(Term, st.just(field), st.tuples(st.sampled_from(values)), st.booleans())
        for field, values in CLOSED.items()
    ),
    st.builds(
        Term,
        st.sampled_from([field for field in FIELDS if field not in CLOSED]),
        st.tuples(st.text("abcdefgh- ", min_size=1, max_size=4).filter(str.strip).map(str.strip)),
        st.booleans(),
    ),
)


def written(term: Term) -> str:
    return f'{"!" if term.inverted else ""}{term.field}:"{",".join(term.values)}"'


@given(st.lists(terms, max_size=4), st.sampled_from(CARDS))
def test_what_is_written_is_what_is_read(wanted: list[Term], card: AgentCard) -> None:
    read = parse_filter(" ".join(map(written, wanted)))
    assert read.terms == tuple(wanted)
    assert read.matches(card) is all(term.matches(card) for term in wanted)


@given(terms, st.sampled_from(CARDS))
def test_inverting_turns_every_answer_round(term: Term, card: AgentCard) -> None:
    turned = Term(term.field, term.values, not term.inverted)
    assert Filter((term,)).matches(card) is not Filter((turned,)).matches(card)
