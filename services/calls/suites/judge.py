"""Whether what was said means what was expected. The judge is an interface; the one here compares words."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

# Words that say little in the two languages of most of our agents.
_LITTLE_WORDS = """
a an and are at be can do for from have i in is it of on or our so that the this to us we will with you your
am auf bei das dem den der die ein eine einen er es fur haben hat ich ihnen ihr im ist kann mit sie sind und
uns unser von was wir wird zu zum zur
"""
_NEGATING_WORDS = "not no never cannot nicht kein keine keinen nie niemals"
_SHORTENED_WORDS = "do does did is are was were ca wo could would should have has"  # don't, can't, won't
_LITTLE = frozenset(_LITTLE_WORDS.split())
_NEGATIONS = frozenset(_NEGATING_WORDS.split())
_VERBS = frozenset(_SHORTENED_WORDS.split())
_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Judgement:
    """How sure the judge is, 0 to 1, and a word about it."""

    score: float
    why: str = ""


class MeaningJudge(Protocol):
    """Anything that can compare two texts: words, vectors, a language model."""

    @property
    def label(self) -> str:
        """What it is and what it can tell, for the report."""
        ...

    async def judge(self, said: str, meant: str) -> Judgement:
        """How much of `meant` is in `said`. Raises ServiceError when it cannot say."""
        ...


class LexicalJudge:
    """Compares words and parts of words. Understands nothing: a paraphrase in other words fails.

    The score is the share of the expected words (weighing rare endings little, by trigrams) found in the best
    sentence or pair of sentences; a negation on one side only halves it.
    """

    label = "lexical judge (compares words, not meaning)"

    async def judge(self, said: str, meant: str) -> Judgement:
        wanted = _words(meant)
        if not wanted:
            return Judgement(0.0, "nothing to compare with")
        best, where = 0.0, ""
        for passage in _passages(said):
            score = _score(_words(passage), wanted)
            if bool(_negations(passage)) is not bool(_negations(meant)):
                score /= 2
            if score > best:
                best, where = score, passage
        return Judgement(round(best, 3), f"best in {where[:120]!r}" if where else "no word in common")


def _passages(text: str) -> list[str]:
    sentences = [part.strip() for part in _SENTENCE.split(text) if part.strip()]
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(sentences)]
    return [*sentences, *pairs]


def _plain(text: str) -> str:
    """Without case, accents and apostrophes."""
    folded = unicodedata.normalize("NFKD", text.casefold().replace("’", "'").replace("'", ""))
    return "".join(character for character in folded if not unicodedata.combining(character))


def _words(text: str) -> list[str]:
    every = _WORD.findall(_plain(text))
    return [word for word in every if word not in _LITTLE] or every


def _negations(text: str) -> set[str]:
    found = set(_WORD.findall(_plain(text)))
    return (found & _NEGATIONS) | {word for word in found if word.endswith("nt") and word[:-2] in _VERBS}


def _score(said: list[str], wanted: list[str]) -> float:
    if not said:
        return 0.0
    total = sum(max(_alike(word, other) for other in said) for word in wanted)
    return total / len(wanted)


def _alike(one: str, other: str) -> float:
    """1 for the same word, the share of common trigrams for a similar one, else 0."""
    if one == other:
        return 1.0
    first, second = _trigrams(one), _trigrams(other)
    common = sum((first & second).values())
    share = 2 * common / (sum(first.values()) + sum(second.values()))
    return share if share >= 0.5 else 0.0


def _trigrams(word: str) -> Counter[str]:
    padded = f" {word} "
    return Counter(padded[index : index + 3] for index in range(len(padded) - 2))
