"""Two rankings made one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.integrations.knowledge.fusion import K, reciprocal_rank

RANKING = st.lists(st.integers(0, 30), max_size=20, unique=True)
RANKINGS = st.lists(RANKING, max_size=4)


@given(RANKINGS)
def test_everything_is_in_it_once_with_a_share(rankings):
    fused = reciprocal_rank(rankings)
    assert {item for item, _ in fused} == {item for ranking in rankings for item in ranking}
    assert len(fused) == len({item for item, _ in fused})
    assert all(0 < score <= 1 + 1e-12 for _, score in fused)
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)


@given(RANKING)
def test_one_ranking_stays_as_it_is(ranking):
    assert [item for item, _ in reciprocal_rank([ranking])] == ranking
    assert [item for item, _ in reciprocal_rank([ranking, ranking])] == ranking


@given(RANKINGS)
def test_who_is_ahead_everywhere_stays_ahead(rankings):
    everywhere = set.intersection(*map(set, rankings)) if rankings else set()
    order = [item for item, _ in reciprocal_rank(rankings)]
    for one in everywhere:
        for other in everywhere:
            if all(ranking.index(one) < ranking.index(other) for ranking in rankings):
                assert order.index(one) < order.index(other)


@given(RANKINGS, st.randoms())
def test_the_order_of_the_rankings_does_not_count(rankings, rng):
    shuffled = list(rankings)
    rng.shuffle(shuffled)
    one, other = dict(reciprocal_rank(rankings)), dict(reciprocal_rank(shuffled))
    assert one.keys() == other.keys()
    assert all(abs(one[item] - other[item]) < 1e-12 for item in one)


@given(RANKING, RANKING)
def test_a_better_rank_never_lowers_a_score(first, second):
    for place in range(1, len(first)):
        better = [*first[: place - 1], first[place], first[place - 1], *first[place + 1 :]]
        before, after = dict(reciprocal_rank([first, second])), dict(reciprocal_rank([better, second]))
        assert after[first[place]] >= before[first[place]]


def test_the_formula():
    fused = dict(reciprocal_rank([["a", "b"], ["b"]]))
    assert fused["b"] == (1 / (K + 2) + 1 / (K + 1)) / (2 / (K + 1))
    assert reciprocal_rank([]) == []
    assert [item for item, _ in reciprocal_rank([["a", "a", "b"]])] == ["a", "b"]
    assert dict(reciprocal_rank([["a", "a", "b"]]))["b"] == pytest.approx((K + 1) / (K + 3))
