"""Routing without a model: words and language in common, the same answer every time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.integrations.knowledge.words import content_words, detect_language, joined, same_stem
from services.integrations.llm.model import Candidate, Choice

_NAME, _FUNCTION, _PURPOSE = 3.0, 2.0, 1.0
"""How much a word in common counts, by where the agent has it."""
_LANGUAGE: Final = 1.5
_MOST_WORDS: Final = 60
_MOST_PURPOSE_WORDS: Final = 400


@dataclass(frozen=True, slots=True)
class _Score:
    points: float
    words: tuple[str, ...]
    language: bool


def choose(candidates: Sequence[Candidate], request: str) -> Choice:
    """The agent that has most in common with the request; none where nothing is in common.

    A word counts more in a name than in a prompt, and less the more agents have it. Equal scores go to the
    first by name.
    """
    if not candidates:
        return Choice(None, "There is no agent to choose from")
    wanted = list(dict.fromkeys(content_words(request)))[:_MOST_WORDS]
    language = detect_language(request)
    if len(candidates) == 1:
        return Choice(candidates[0], "It is the only agent", 0.5)
    places = [_places(candidate) for candidate in candidates]
    rarity = {
        word: math.log(1 + len(candidates) / max(1, sum(bool(_weight(word, place)) for place in places)))
        for word in wanted
    }
    scored = [
        (candidate, _score(candidate, place, wanted, rarity, language))
        for candidate, place in zip(candidates, places, strict=True)
    ]
    scored.sort(key=lambda pair: (-pair[1].points, pair[0].name.casefold(), pair[0].agent_row))
    best, score = scored[0]
    if not score.points:
        return Choice(None, "No agent has a word or the language in common with the request", 0.0)
    second = scored[1][1].points
    confidence = round(0.3 + 0.5 * (score.points - second) / score.points, 2)
    return Choice(best, _reason(score, language), confidence)


def _places(candidate: Candidate) -> list[tuple[float, frozenset[str]]]:
    functions = " ".join(candidate.functions).replace("_", " ").replace("-", " ")
    return [
        (_NAME, frozenset(content_words(candidate.name.replace("_", " ")))),
        (_FUNCTION, frozenset(content_words(functions))),
        (_PURPOSE, frozenset(content_words(candidate.purpose)[:_MOST_PURPOSE_WORDS])),
    ]


def _weight(word: str, places: list[tuple[float, frozenset[str]]]) -> float:
    """The most that a word counts for an agent; forms of a word count a little less than the word."""
    for weight, words in places:
        if word in words:
            return weight
        if any(same_stem(word, other) for other in words):
            return 0.8 * weight
    return 0.0


def _score(
    candidate: Candidate,
    places: list[tuple[float, frozenset[str]]],
    wanted: Sequence[str],
    rarity: dict[str, float],
    language: str,
) -> _Score:
    found = {word: weight for word in wanted if (weight := _weight(word, places))}
    points = sum(weight * rarity[word] for word, weight in found.items())
    spoken = [part.strip().lower()[:2] for part in candidate.language.split(",")]
    same = bool(language) and language in spoken
    return _Score(points + (_LANGUAGE if same else 0.0), tuple(found), same)


def _reason(score: _Score, language: str) -> str:
    parts = []
    if score.words:
        parts.append(f"the words {joined([f'“{word}”' for word in score.words[:5]])}")
    if score.language:
        parts.append(f"the language ({language})")
    return f"It has in common with the request: {joined(parts)}"
