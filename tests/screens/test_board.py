"""The board: what is shown, where, and counts that stay right one card at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from screens.board import SORTS, Board
from screens.glyphs import State, state_of
from services.agents.filtering import parse_filter
from services.model import AgentCard, Drift, SyncStatus
from tests.support.fake_services import seeded_cards


def loaded(count: int = 30) -> Board:
    board = Board()
    board.load(seeded_cards(count))
    return board


def test_every_order_is_total_and_stable() -> None:
    board = loaded(60)
    for _ in SORTS:
        name = board.next_sort()
        keys = [SORTS[name](card) for card in board.shown]
        assert keys == sorted(keys)  # type: ignore[type-var]
        assert [board.index_of(card.id) for card in board.shown] == list(range(60))


def test_a_changed_card_keeps_its_place_until_things_are_arranged() -> None:
    board = loaded()
    board.set_filter(parse_filter("status:error"))
    failed = board.shown[0]
    mended = replace(failed, status=SyncStatus.SYNCED, drift=Drift.IN_SYNC, error=None)
    assert board.update(mended) == 0
    assert board.shown[0] is mended
    board.arrange()
    assert mended not in board.shown


def test_a_new_card_appears_at_the_end() -> None:
    board = loaded(10)
    new = replace(board.shown[0], id=99, name="AAA")
    assert board.update(new) == 10
    assert board.shown[-1] is new


def test_merging_finds_only_what_differs() -> None:
    board = loaded(10)
    cards = list(board.cards.values())
    same = [replace(card) for card in cards]
    assert board.merge(same, board.differing(same)) == set()
    other = [replace(cards[0], voice="other"), *cards[1:]]
    assert board.merge(other, board.differing(other)) == {board.index_of(cards[0].id)}
    assert board.merge(cards[1:], board.differing(cards[1:])) is None
    assert len(board.shown) == 9


def test_marks_go_with_their_cards() -> None:
    board = loaded(10)
    board.toggle_all()
    assert len(board.marks) == 10
    board.load(list(board.cards.values())[:4])
    assert len(board.marks) == 4
    board.toggle_all()
    assert not board.marks
    assert [card.id for card in board.chosen(2)] == [board.shown[2].id]
    board.toggle_mark(board.shown[0].id)
    assert board.chosen(2) == [board.shown[0]]


changes = st.lists(
    st.tuples(
        st.integers(1, 30), st.sampled_from(list(SyncStatus)), st.sampled_from(list(Drift)), st.booleans()
    ),
    max_size=25,
)


@given(changes, st.lists(st.sets(st.integers(1, 30), max_size=6), max_size=4))
def test_counts_are_always_those_of_the_cards(
    steps: list[tuple[int, SyncStatus, Drift, bool]], reading: list[set[int]]
) -> None:
    board = loaded()
    for number, (agent, status, drift, gone) in enumerate(steps):
        board.update(replace(board.cards[agent], status=status, drift=drift, gone_at=1 if gone else None))
        if number < len(reading):
            board.set_syncing(reading[number])
    expected = Counter(state_of(card, card.id in board.syncing) for card in board.cards.values())
    assert {state: count for state, count in board.counts.items() if count} == dict(expected)


def test_a_state_is_told_in_the_order_of_its_weight() -> None:
    card: AgentCard = replace(seeded_cards(1)[0], status=SyncStatus.ERROR, drift=Drift.CONFLICT)
    assert state_of(card) is State.ERROR
    assert state_of(card, syncing=True) is State.SYNCING
    assert state_of(replace(card, gone_at=1)) is State.GONE
    assert state_of(replace(card, status=SyncStatus.PENDING)) is State.PENDING
    assert state_of(replace(card, status=SyncStatus.SYNCED)) is State.CONFLICT
