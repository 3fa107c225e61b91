"""One cause, one alert: a model of things that hang on each other, broken and mended at random."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from services.health.board import Board
from services.health.incidents import Incidents, Notice
from services.health.model import CheckKind, CheckSpec, HealthState, Reading

THRESHOLD = 2
ROUNDS_TO_SETTLE = 3 * THRESHOLD + 6
"""Rounds after which everybody must have found out: each check at every depth settles in a few."""


async def nothing() -> Reading:
    raise NotImplementedError


@dataclass
class World:
    """Checks in a tree of dependencies; a check fails when it, or anything it hangs on, is broken."""

    parents: list[list[int]]
    broken: set[int] = field(default_factory=set)
    now: int = 1_800_000_000_000
    quiet_ms: int = 0
    told: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board = Board()
        self.board.set_specs(
            CheckSpec(
                f"provider:{place}",
                CheckKind.PROVIDER,
                f"p{place}",
                nothing,
                failure_threshold=THRESHOLD,
                depends_on=tuple(f"provider:{each}" for each in parents),
            )
            for place, parents in enumerate(self.parents)
        )
        self.incidents = Incidents(self.board, self.quiet_ms)

    def causes(self, place: int) -> set[int]:
        """What keeps a check from working, itself included."""
        found = {place} & self.broken
        for parent in self.parents[place]:
            found |= self.causes(parent)
        return found

    def probe(self, place: int) -> None:
        asked_at, self.now = self.now, self.now + 10
        state = HealthState.DOWN if self.causes(place) else HealthState.UP
        check_id = f"provider:{place}"
        self.board.apply(check_id, Reading(state, "broken" if self.causes(place) else ""), asked_at, self.now)
        self.now += 10
        self.told += self.incidents.step([check_id], self.now)

    def round(self, order: list[int]) -> None:
        for place in order:
            self.probe(place)
        for check_id in sorted(self.incidents.urgent):
            self.probe(int(check_id.partition(":")[2]))
        self.incidents.urgent.clear()

    def settle(self, orders: list[list[int]]) -> None:
        for turn in range(ROUNDS_TO_SETTLE):
            self.round(orders[turn % len(orders)])

    def take(self) -> tuple[list[int], list[int]]:
        """Who was told to be down, and up again, since the last time."""
        told = [(int(each.alert.check_id.partition(":")[2]), each.alert.over) for each in self.told]
        self.told.clear()
        return [place for place, over in told if not over], [place for place, over in told if over]


def _last(place: int, world: World) -> bool:
    """Whether somebody believes now that it is down."""
    return any(each.check_id == f"provider:{place}" and each.alerted_state for each in world.incidents.open)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    size = draw(st.integers(min_value=1, max_value=7))
    parents = [
        draw(st.lists(st.integers(0, place - 1), unique=True, max_size=2)) if place else []
        for place in range(size)
    ]
    orders = draw(st.lists(st.permutations(range(size)), min_size=2, max_size=4))
    return parents, [list(order) for order in orders]


@settings(max_examples=150, deadline=None)
@given(
    worlds(),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.booleans()), min_size=1, max_size=12),
)
def test_each_cause_is_told_once_and_its_end_once(shape, events) -> None:
    """What is to blame is told once, what only hangs on it never; and so is the end.

    An event is something broken or mended, anywhere within a round. When everything had come to rest before
    and after it, who is told is known exactly. Where events come faster than that (`hurried`) nobody is
    told twice of the same, and in the end everybody who was told is told that it is over.
    """
    parents, orders = shape
    world = World(parents)
    world.settle(orders)
    assert world.take() == ([], [])
    standing: set[int] = set()
    at_rest = True
    for number, (which, rounds, hurried) in enumerate(events):
        place, before = which % len(parents), set(standing)
        world.probe(number % len(parents))
        world.broken ^= {place}
        if hurried:
            for turn in range(rounds):
                world.round(orders[turn % len(orders)])
        else:
            world.settle(orders)
        down, up = world.take()
        assert len(set(down)) == len(down) or at_rest is False
        assert not set(down) & before - set(up)
        assert set(up) <= before | set(down)
        standing = {each for each in standing | set(down) if each not in up or _last(each, world)}
        if not hurried:
            to_blame = {each for each in world.broken if world.causes(each) == {each}}
            assert to_blame <= standing
            if at_rest:
                assert sorted(down) == sorted(to_blame - before)
                assert set(up) == {each for each in before if not world.causes(each)}
        at_rest = not hurried
    world.broken.clear()
    world.settle(orders)
    # What was found out in a hurry may be told only now, and then its end is told as well.
    down, up = world.take()
    assert not set(down) & standing
    assert sorted(up) == sorted(standing | set(down))


@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers(0, 6))
def test_one_outage_is_one_alert_and_one_end(shape, which) -> None:
    parents, orders = shape
    place = which % len(parents)
    world = World(parents)
    world.settle(orders)
    world.broken = {place}
    world.settle(orders)
    assert world.take() == ([place], [])
    held = [each for each in world.incidents.open if each.check_id != f"provider:{place}"]
    assert all(each.cause and not each.alerted_state for each in held)
    world.broken = set()
    world.settle(orders)
    assert world.take() == ([], [place])
    assert not world.incidents.open


def test_what_was_found_in_maintenance_is_told_when_it_is_over() -> None:
    world = World([[]])
    world.probe(0)
    world.board.set_maintenance("provider:0", world.now + 1_000_000, world.now)
    world.broken = {0}
    world.settle([[0]])
    assert world.take() == ([], [])
    assert not world.incidents.open
    world.board.set_maintenance("provider:0", None, world.now)
    world.told += world.incidents.step(["provider:0"], world.now)
    assert world.take() == ([0], [])


def test_flapping_is_not_told_again_within_the_quiet_time() -> None:
    world = World([[]], quiet_ms=900_000)
    for _ in range(5):
        world.broken = {0}
        world.settle([[0]])
        world.broken = set()
        world.settle([[0]])
    down, up = world.take()
    assert (down, up) == ([0], [0])
    world.broken = {0}
    world.settle([[0]])
    assert world.take() == ([], [])
    # It is still down when the quiet time is over: now it is news.
    world.now += 900_000
    world.probe(0)
    assert world.take() == ([0], [])


def test_worse_is_told_again_milder_is_not() -> None:
    world = World([[]])
    degraded, down = Reading(HealthState.DEGRADED, "slow"), Reading(HealthState.DOWN, "gone")
    told = []
    for reading in (degraded, degraded, down, down, degraded, down, down):
        world.now += 1000
        world.board.apply("provider:0", reading, world.now, world.now)
        told += [each.alert.state for each in world.incidents.step(["provider:0"], world.now)]
    assert told == [HealthState.DEGRADED, HealthState.DOWN]
    (trouble,) = world.incidents.open
    assert (trouble.state, trouble.message) == (HealthState.DOWN, "gone")


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    world = World([[], [0]])
    world.settle([[0, 1]])
    world.broken = {1}
    world.probe(1)
    world.now -= 3_600_000
    world.settle([[0, 1]])
    assert world.take() == ([1], [])
