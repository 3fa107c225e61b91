"""Words of a question, and the language they are in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.integrations.knowledge.words import (
    LONGEST_WORD,
    MOST_WORDS,
    content_words,
    detect_language,
    same_stem,
    search_words,
    tidy,
)

ANYTHING = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)


@given(ANYTHING)
def test_any_question_gives_usable_words(question):
    words = search_words(question)
    assert len(words) <= MOST_WORDS
    for word in words:
        assert 0 < len(word) <= LONGEST_WORD
        assert not any(character.isspace() or character == "\x00" for character in word)
        word.encode()  # no half of a surrogate pair
    assert tidy(tidy(question)) == tidy(question)


def test_common_words_go_unless_nothing_else_is_left():
    assert search_words("What are the opening hours?") == ["opening", "hours?"]
    assert search_words("to be or not to be") == ["to", "be", "or", "not"]
    assert search_words("?! … -- '") == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I would like to book a table for two", "en"),
        ("Ich möchte einen Tisch für zwei Personen reservieren", "de"),
        ("Je voudrais réserver une table pour deux personnes", "fr"),
        ("Quiero reservar una mesa para dos personas", "es"),
        ("Vorrei prenotare un tavolo per due persone", "it"),
        ("Ik wil graag een tafel voor twee personen reserveren", "nl"),
        ("Eu quero reservar uma mesa para duas pessoas", "pt"),
        ("xyzzy 123", ""),
        ("", ""),
    ],
)
def test_the_language_of_a_request(text, language):
    assert detect_language(text) == language


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("invoice", "invoices", True),
        ("reservieren", "reservierung", True),
        ("Preis".lower(), "preise", True),
        ("cat", "category", False),
        ("support", "supper", False),
        ("same", "same", True),
        ("cancel", "cancellation", True),
        ("book", "booking", True),
        ("contact", "contract", False),
    ],
)
def test_forms_of_one_word(one, other, same):
    assert same_stem(one, other) is same
    assert same_stem(other, one) is same


def test_words_with_a_topic():
    assert content_words("My invoice is WRONG, the 3rd time; invoice!") == [
        "invoice",
        "wrong",
        "rd",
        "time",
        "invoice",
    ]
