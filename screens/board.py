"""What the agents screen shows, without a widget: the cards, which of them, in what order, which are marked.

While a sync runs nothing changes its place: a card keeps its cell although its status or age no longer
fits the filter or the order. `arrange` puts things right when the run ends or the operator asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from screens.glyphs import STATE_RANK, State, state_of
from services.agents.filtering import Filter
from services.model import AgentCard, SyncStatus

SORTS: dict[str, Callable[[AgentCard], tuple[object, ...]]] = {
    "name": lambda card: (card.name.casefold(), card.id),
    "status": lambda card: (STATE_RANK[state_of(card)], card.name.casefold(), card.id),
    "age": lambda card: (card.checked_at or 0, card.name.casefold(), card.id),
    "vendor": lambda card: (card.provider.value, card.name.casefold(), card.id),
    "company": lambda card: (card.company.casefold(), card.name.casefold(), card.id),
}
"""The orders, by their name on screen. `age` has the longest unchecked first."""


class Board:
    """Cards by id, the shown ones in order, marks, and counts by state kept up to date one card at a time."""

    def __init__(self) -> None:
        self.loaded = False
        self.cards: dict[int, AgentCard] = {}
        self.shown: list[AgentCard] = []
        self.marks: set[int] = set()
        self.syncing: frozenset[int] = frozenset()
        self.counts: Counter[State] = Counter()
        self.companies: Counter[str] = Counter()
        self.filter = Filter()
        self.sort = "name"
        self._place: dict[int, int] = {}

    # -- reading ----------------------------------------------------------------------------------

    def state(self, card: AgentCard) -> State:
        return state_of(card, card.id in self.syncing)

    def index_of(self, agent: int) -> int | None:
        """Where the agent is among the shown, or None when it is not."""
        return self._place.get(agent)

    @property
    def several_companies(self) -> bool:
        return len(self.companies) > 1

    def chosen(self, cursor: int) -> list[AgentCard]:
        """What a key acts on: the marked cards, or else the one under the cursor. Gone cards included."""
        if self.marks:
            return [card for agent in sorted(self.marks) if (card := self.cards.get(agent)) is not None]
        return [self.shown[cursor]] if 0 <= cursor < len(self.shown) else []

    # -- changing ---------------------------------------------------------------------------------

    def load(self, cards: Sequence[AgentCard]) -> None:
        """Take the whole mirror anew."""
        self.loaded = True
        self.cards = {card.id: card for card in cards}
        self.marks &= self.cards.keys()
        self.companies = Counter(card.company for card in cards)
        self._count_all()
        self.arrange()

    def differing(self, cards: Sequence[AgentCard]) -> list[AgentCard] | None:
        """Which of the whole mirror's cards differ from those here; None when other agents are in it.

        Changes nothing, so that a thread may do it: comparing 10,000 cards takes longer than a frame.
        """
        same = len(cards) == len(self.cards) and all(card.id in self.cards for card in cards)
        if not self.loaded or not same:
            return None
        return [card for card in cards if card != self.cards[card.id]]

    def merge(self, cards: Sequence[AgentCard], differing: Sequence[AgentCard] | None) -> set[int] | None:
        """Take the whole mirror again, of which `differing` is new; returns the places of these, or None
        when it had to be loaded anew because other agents are in it."""
        if differing is None:
            self.load(cards)
            return None
        places = [self.update(card) for card in differing]
        return {place for place in places if place is not None}

    def update(self, card: AgentCard) -> int | None:
        """Take one changed card in; returns its place if it is shown. A new card appears at the end."""
        old = self.cards.get(card.id)
        self.cards[card.id] = card
        if old is None:
            self.companies[card.company] += 1
            self.counts[self.state(card)] += 1
            if self.filter.matches(card):
                self._place[card.id] = len(self.shown)
                self.shown.append(card)
            return self._place.get(card.id)
        if old.company != card.company:
            self.companies = Counter(each.company for each in self.cards.values())
        before, after = self.state(old), self.state(card)
        if before is not after:
            self.counts[before] -= 1
            self.counts[after] += 1
        place = self._place.get(card.id)
        if place is not None:
            self.shown[place] = card
        return place

    def set_syncing(self, ids: Iterable[int]) -> list[int]:
        """Which agents are being read now; returns the places of the shown cards whose badge changes."""
        now = frozenset(ids)
        changed = now ^ self.syncing
        if not changed:
            return []
        known = [self.cards[agent] for agent in changed if agent in self.cards]
        for card in known:
            self.counts[self.state(card)] -= 1
        self.syncing = now
        for card in known:
            self.counts[self.state(card)] += 1
        return [place for card in known if (place := self._place.get(card.id)) is not None]

    def arrange(self) -> None:
        """Choose and order what is shown."""
        cards: Iterable[AgentCard] = self.cards.values()
        if self.filter:
            cards = [card for card in cards if self.filter.matches(self._as_filtered(card))]
        self.shown = sorted(cards, key=SORTS[self.sort])
        self._place = {card.id: place for place, card in enumerate(self.shown)}

    def set_filter(self, chosen: Filter) -> None:
        self.filter = chosen
        self.arrange()

    def next_sort(self) -> str:
        """Go on to the next order; returns its name."""
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self.arrange()
        return self.sort

    def toggle_mark(self, agent: int) -> bool:
        """Mark or unmark; returns whether it is marked now."""
        self.marks ^= {agent}
        return agent in self.marks

    def toggle_all(self) -> None:
        """Mark everything shown, or nothing when all of it is marked already."""
        ids = {card.id for card in self.shown}
        self.marks = set() if ids <= self.marks else self.marks | ids

    # -- inside -----------------------------------------------------------------------------------

    def _as_filtered(self, card: AgentCard) -> AgentCard:
        return replace(card, status=SyncStatus.SYNCING) if card.id in self.syncing else card

    def _count_all(self) -> None:
        self.counts = Counter(self.state(card) for card in self.cards.values())
