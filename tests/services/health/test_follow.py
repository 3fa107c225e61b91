"""States follow what happens within two intervals, whatever it is: in virtual time, over the real runner."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from services.health.board import Board
from services.health.model import CheckKind, CheckSpec, HealthState, Reading
from services.health.runner import SETTLES, SHARE, Job, Probed, Readings, Runner
from services.resilience import time_left
from tests.services.health.virtual_time import VirtualLoop

INTERVALS = st.one_of(st.integers(1, 3600).map(float), st.floats(1, 3600))
SEEDS = st.integers(0, 2**32)


@dataclass
class Weather:
    """Something that fails from `begins` until `ends`, in epoch seconds of the loop.

    `answers` and `fails`: how long a probe takes when all is well and when it fails (inf: it hangs for ever).
    `strikes`: whether one that is under way when the fault begins fails, too.
    """

    begins: float
    ends: float
    answers: float
    fails: float
    strikes: bool

    async def probe(self) -> Reading:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self.begins <= began < self.ends:
            soon = self.strikes and began < self.begins < began + self.answers
            if not soon:
                await asyncio.sleep(self.answers)
                return Reading(HealthState.UP)
            await asyncio.sleep(self.begins - began)
        await (asyncio.sleep(self.fails) if self.fails < float("inf") else asyncio.Event().wait())
        return Reading(HealthState.DOWN, "gone")


@dataclass
class Watched:
    """Checks over one weather, taken in as the service does it."""

    loop: VirtualLoop
    specs: list[CheckSpec]
    rng: random.Random
    board: Board = field(default_factory=Board)
    entered: list[tuple[str, HealthState, float]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board.set_specs(self.specs)
        self.runner = Runner(self.loop, self._took, rng=self.rng)
        self.runner.set_jobs(
            Job(spec.id, spec.interval, spec.timeout, self._question(spec), (spec.id,)) for spec in self.specs
        )

    def _question(self, spec: CheckSpec):
        async def run() -> Readings:
            self.asked.append(self.loop.time())
            return [(spec.id, await spec.probe())]

        return run

    async def _took(self, probed: Probed) -> None:
        for check_id, reading in probed.readings:
            before = self.board.standing(check_id).state
            self.board.apply(check_id, reading, probed.asked_at, probed.at)
            after = self.board.standing(check_id).state
            if after is not before:
                self.entered.append((check_id, after, self.loop.time()))
        if self.board.doubtful(probed.job.checks):
            self.runner.look_again(probed.job.id)

    def first(self, check_id: str, state: HealthState, since: float) -> float:
        """When it first was in this state from a moment on; endless for never."""
        return min(
            (
                at
                for name, entered, at in self.entered
                if (name, entered) == (check_id, state) and at >= since
            ),
            default=float("inf"),
        )


def watch(weather: Weather, interval: float, seed: int, *, threshold: int = 2, checks: int = 1) -> Watched:
    """Watch it from the beginning until some time after the weather is over."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        start = loop.time()
        weather.begins += start
        weather.ends += start
        specs = [
            CheckSpec(
                f"provider:{place}",
                CheckKind.PROVIDER,
                "Retell",
                weather.probe,
                interval=interval,
                timeout=3600.0,
                failure_threshold=threshold,
            )
            for place in range(checks)
        ]

        async def run() -> Watched:
            watched = Watched(loop, specs, random.Random(seed))
            watched.runner.start()
            await asyncio.sleep(weather.ends - start + 3 * interval)
            await watched.runner.stop()
            return watched

        return runner.run(run())


@st.composite
def situations(draw: st.DrawFn) -> tuple[Weather, float, int]:
    """Any interval, any moment of the fault's beginning, any duration of an answer and of a failure."""
    interval = draw(INTERVALS)
    part = st.floats(0, 0.95)
    weather = Weather(
        begins=2.5 + interval * (1.5 + draw(st.floats(0, 2))),
        ends=0.0,
        answers=SHARE * interval * draw(part),
        fails=draw(st.one_of(st.just(float("inf")), part.map(lambda share: share * SHARE * interval))),
        strikes=draw(st.booleans()),
    )
    weather.ends = weather.begins + interval * draw(st.floats(0.1, 5))
    return weather, interval, draw(SEEDS)


@settings(deadline=None)
@given(situations())
def test_down_within_two_intervals_and_up_again_as_fast(situation: tuple[Weather, float, int]) -> None:
    weather, interval, seed = situation
    watched = watch(weather, interval, seed)
    lasted = weather.ends - weather.begins
    down = watched.first("provider:0", HealthState.DOWN, weather.begins)
    if lasted >= 2 * interval:
        assert down - weather.begins <= 2 * interval
    fine = watched.board.standing("provider:0")
    assert fine.state is HealthState.UP
    if down < float("inf"):
        assert fine.since is not None
        assert fine.since / 1000 - weather.ends <= 2 * interval + 0.001


@settings(deadline=None)
@given(situations(), st.integers(1, 6))
def test_a_larger_threshold_is_so_many_intervals_of_patience(
    situation: tuple[Weather, float, int], threshold: int
) -> None:
    """With a threshold of n: down within n intervals (and never sooner than two less), at n=1 within two."""
    weather, interval, seed = situation
    weather.ends = weather.begins + (threshold + 1) * interval
    watched = watch(weather, interval, seed, threshold=threshold)
    took = watched.first("provider:0", HealthState.DOWN, weather.begins) - weather.begins
    assert (threshold - 2) * interval * 0.95 <= took <= max(2, threshold) * interval


@settings(deadline=None)
@given(situations(), st.integers(2, 60))
def test_a_black_hole_behind_all_of_them_keeps_none_waiting(
    situation: tuple[Weather, float, int], checks: int
) -> None:
    weather, interval, seed = situation
    interval = max(interval, 10.0)  # below, the places for beginnings are what is scarce
    weather.begins, weather.fails = 2.5 + 2.2 * interval, float("inf")
    weather.answers = min(weather.answers, SHARE * interval / 2)
    weather.ends = weather.begins + 2.5 * interval
    watched = watch(weather, interval, seed, checks=checks)
    for place in range(checks):
        down = watched.first(f"provider:{place}", HealthState.DOWN, weather.begins)
        assert down - weather.begins <= 2 * interval


@settings(deadline=None)
@given(situations())
def test_a_second_look_is_one_more_and_no_more(situation: tuple[Weather, float, int]) -> None:
    """Who is in trouble is asked once more than usual, and not sooner than after a third of an interval."""
    weather, interval, seed = situation
    weather.ends = weather.begins + 5 * interval
    watched = watch(weather, interval, seed)
    gaps = [after - before for before, after in zip(watched.asked, watched.asked[1:], strict=False)]
    short = [gap for gap in gaps[1:] if gap < 0.9 * interval]
    assert len(short) <= 1
    assert all(gap >= 0.4 * interval for gap in gaps)


def test_so_many_wait_at_once_and_no_more_and_only_a_few_begin_together() -> None:
    running: list[int] = []
    under_way = begun = 0

    async def hang() -> Readings:
        nonlocal under_way, begun
        under_way, begun = under_way + 1, begun + 1
        try:
            await asyncio.Event().wait()
        finally:
            under_way -= 1
        return []

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)

        async def told(_: Probed) -> None:
            """Nobody listens."""

        async def run() -> None:
            probes = Runner(loop, told, concurrency=4, most=10, rng=random.Random(1))
            probes.set_jobs(Job(f"c{place}", 60.0, 20.0, hang, (f"c{place}",)) for place in range(30))
            looking = asyncio.create_task(probes.check([f"c{place}" for place in range(30)]))
            await asyncio.sleep(SETTLES / 2)
            for _ in range(6):
                running.append(under_way)
                await asyncio.sleep(SETTLES)
            await looking
            await probes.stop()

        runner.run(run())
    assert running == [4, 8, 10, 10, 10, 10]
    assert begun >= 30


def test_a_probe_knows_how_long_it_may_take() -> None:
    told = []

    async def later() -> None:
        await asyncio.sleep(1.0)
        told.append(time_left())

    async def probe() -> Reading:
        told.append(time_left())
        await asyncio.create_task(later())
        return Reading(HealthState.UP)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)

        async def run() -> None:
            spec = CheckSpec("system:a", CheckKind.SYSTEM, "a", probe, interval=10.0)
            watched = Watched(loop, [spec], random.Random(1))
            await watched.runner.check(["system:a"])

        runner.run(run())
    assert told == [4.0, 3.0]
    assert time_left() == float("inf")
