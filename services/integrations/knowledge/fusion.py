"""Several rankings made one, by rank alone: scores of different kinds are never compared."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, TypeVar

K: Final = 60
"""How much the first places count above the rest (Cormack, Clarke and Büttcher 2009, who settled on 60)."""

T = TypeVar("T", bound=Hashable)


def reciprocal_rank(rankings: Sequence[Sequence[T]], *, k: int = K) -> list[tuple[T, float]]:
    """Every item of the rankings with its score, best first.

    An item's score is the sum of 1 / (k + its rank from 1 on) over the rankings it is in, as a share of what
    an item at the head of all of them has (0 to 1). Within one ranking only its first place counts. Equal
    scores keep the order in which the items first appear, the first ranking first.
    """
    scores: dict[T, float] = {}
    for ranking in rankings:
        seen: set[T] = set()
        for rank, item in enumerate(ranking, 1):
            if item not in seen:
                seen.add(item)
                scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    most = max(1, len(rankings)) / (k + 1)
    return sorted(((item, score / most) for item, score in scores.items()), key=lambda pair: -pair[1])
