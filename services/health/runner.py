"""When each check is probed, and the probing: one loop, a bounded number of probes at once.

A `Job` is one question: a check's probe, or a round that reads a whole group of checks. While nothing is
due there is one sleeping task, however many checks there are.

What is promised: whatever happens to what is watched, two probes have failed within two intervals of it, also
where nothing answers at all. So a probe may take two fifths of its interval (`SHARE`), and after a first
failure the second look comes half an interval after the failed one began (`SECOND_LOOK`): at the latest
1 + 0.5 + 0.4 intervals after the last probe that succeeded. The rest is for a busy machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.clock import Clock
from services.errors import Category, ServiceError
from services.health.model import HealthState, Reading
from services.resilience import advice_of, limit_time
from services.security import redact, secrets_known
from services.text import clean_line

log = logging.getLogger("callboard.health")

FIRST_ROUND: Final = 2.0
"""Seconds over which the first probes are spread."""
NEWCOMERS: Final = 5.0
"""Seconds that a check which joins others waits for the round of all of them at most."""
JITTER: Final = 0.05
"""By which part of its interval a probe may come earlier (never later), so that they do not come in step."""
SHARE: Final = 0.4
"""The part of its interval that a probe may take; its own timeout may be shorter."""
SECOND_LOOK: Final = 0.5
"""The part of its interval after which what failed for the first time is looked at again.

Not sooner: what is over after a moment is no outage, and who is in trouble is not to be hammered.
"""
SETTLES: Final = 0.25
"""Seconds after which a probe that still runs is waiting for an answer and costs nothing any more."""
OVERDUE: Final = 0.1
"""The part of its interval after which one that was due while it still ran is probed again."""
TOGETHER: Final = 0.02
"""Seconds within which what is due is started together."""
LONGEST_NAP: Final = 60.0
CLEANED_AT_ONCE: Final = 25
"""Readings; each may take a tenth of a millisecond the first time."""

Readings = Sequence[tuple[str, Reading]]


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked at once. `interval` and `timeout` in seconds. `checks`: whose readings it brings."""

    id: str
    interval: float
    timeout: float
    run: Callable[[], Awaitable[Readings]]
    checks: tuple[str, ...]

    def checks_as(self, other: Job) -> bool:
        """Whether it brings the readings of all that the other one brings."""
        return self.checks is other.checks or set(self.checks).issuperset(other.checks)

    @property
    def limit(self) -> float:
        """Seconds it may take."""
        return min(self.timeout, SHARE * self.interval)


@dataclass(frozen=True, slots=True)
class Probed:
    """The end of one job; times in epoch milliseconds."""

    job: Job
    readings: Readings
    asked_at: int
    at: int


class Timetable:
    """What is due when. Pure; times in monotonic seconds given by the caller."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._jobs: dict[str, Job] = {}
        self._due: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    @property
    def jobs(self) -> dict[str, Job]:
        return self._jobs

    def set_jobs(self, jobs: Iterable[Job], now: float) -> None:
        """These and no others. One that stays keeps its time, or comes earlier if its interval shrank or if
        it has checks now that it did not have.
        """
        wanted = {job.id: job for job in jobs}
        for job_id in [job_id for job_id in self._jobs if job_id not in wanted]:
            del self._jobs[job_id], self._due[job_id]
            self._begun.pop(job_id, None)
        for job_id, job in wanted.items():
            known = self._jobs.get(job_id)
            self._jobs[job_id] = job
            if known is None:
                self.set_due(job_id, now + self._rng.uniform(0, min(job.interval, FIRST_ROUND)))
            elif self._due[job_id] > now + job.interval:
                self.set_due(job_id, now + self._rng.uniform(0, job.interval))
            elif now + NEWCOMERS < self._due[job_id] and not known.checks_as(job):
                self.set_due(job_id, now + NEWCOMERS)

    def set_due(self, job_id: str, at: float) -> None:
        """Be due then, instead of when it was."""
        self._due[job_id] = at
        heapq.heappush(self._heap, (at, job_id))

    def take(self, job_id: str) -> None:
        """Off the table until it has `begun`, so that it is not started a second time before its turn."""
        self._due[job_id] = float("inf")

    def begun(self, job_id: str, now: float) -> None:
        """Put the next time on the table: after the first, which all have together, perhaps much earlier."""
        job = self._jobs.get(job_id)
        if job is not None:
            spread = JITTER if job_id in self._begun else 0.5
            self._begun[job_id] = now
            self.set_due(job_id, now + job.interval * (1 - self._rng.uniform(0, spread)))

    def again(self, job_id: str, now: float) -> None:
        """It failed for the first time: look a second time before its turn."""
        job, begun = self._jobs.get(job_id), self._begun.get(job_id)
        if job is not None and begun is not None:
            at = max(now, begun + job.interval * (SECOND_LOOK - self._rng.uniform(0, JITTER)))
            if at < self._due[job_id]:
                self.set_due(job_id, at)

    def due(self, now: float) -> list[Job]:
        """What is due and was not handed out yet, soonest first; each is off the table until `begun`."""
        found = []
        while self._heap and self._heap[0][0] <= now + TOGETHER:
            at, job_id = heapq.heappop(self._heap)
            if self._due.get(job_id) == at:
                self._due[job_id] = float("inf")
                found.append(self._jobs[job_id])
        return found

    def next_at(self) -> float | None:
        """When the next one is due; None when nothing is."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due_at(self, job_id: str) -> float | None:
        due = self._due.get(job_id)
        return due if due is not None and due != float("inf") else None


class Runner:
    """Probes what is due. `told` gets every end; its place is free again when that has returned.

    At most `concurrency` probes are in their first moments, in which they cost something, and at most `most`
    are under way: a hundred that wait for an answer that never comes keep nobody waiting.
    """

    def __init__(
        self,
        clock: Clock,
        told: Callable[[Probed], Awaitable[None]],
        *,
        began: Callable[[Job], None] = lambda job: None,
        concurrency: int = 16,
        most: int = 128,
        rng: random.Random | None = None,
    ) -> None:
        self.table = Timetable(rng or random.Random())
        self._clock = clock
        self._told = told
        self._began = began
        self._concurrency = concurrency
        self._most = max(concurrency, most)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._fresh: dict[str, asyncio.TimerHandle] = {}
        self._missed: set[str] = set()
        self._only: Collection[str] | None = None
        self._resting: set[str] = set()
        self._ready: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return bool(self._running or self._ready)

    @property
    def started(self) -> bool:
        return self._loop is not None

    def start(self, only: Collection[str] | None = None) -> None:
        """Begin to probe by the timetable, or go on; `only`: see `restrict`."""
        self.restrict(only)
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name="health")

    async def stop(self) -> None:
        """Stop probing; what is under way is cancelled and awaited."""
        loop, self._loop = self._loop, None
        tasks = [*self._running.values(), *([loop] if loop is not None else [])]
        self._ready.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()
        for timer in self._fresh.values():
            timer.cancel()
        self._fresh.clear()
        self._missed.clear()

    def restrict(self, job_ids: Collection[str] | None) -> None:
        """Probe only these by the timetable; None: all. What became due meanwhile is due when that ends."""
        self._only = job_ids
        resting = [each for each in self._resting if job_ids is None or each in job_ids]
        self._resting.difference_update(resting)
        for job_id in resting:
            if job_id in self.table and self.table.due_at(job_id) is None:
                self.table.set_due(job_id, self._clock.monotonic())
        if resting:
            self._wake.set()

    def set_jobs(self, jobs: Iterable[Job]) -> None:
        """Probe these and no others from now on."""
        self.table.set_jobs(jobs, self._clock.monotonic())
        self._wake.set()

    def expedite(self, job_ids: Iterable[str]) -> None:
        """Probe these as soon as there is room."""
        now = self._clock.monotonic()
        for job_id in job_ids:
            if job_id in self.table and job_id not in self._running:
                due = self.table.due_at(job_id)
                if due is not None and due > now:
                    self.table.set_due(job_id, now)
        self._wake.set()

    def look_again(self, job_id: str) -> None:
        """Probe it once before its turn: it failed, and whether it is down is for a second look to say."""
        self.table.again(job_id, self._clock.monotonic())
        self._wake.set()

    async def check(self, job_ids: Iterable[str]) -> None:
        """Probe these now and wait for their ends; one that is under way is waited for instead."""
        waiting = []
        for job_id in dict.fromkeys(job_ids):
            job = self.table.jobs.get(job_id)
            if job is None:
                continue
            if job_id not in self._running:
                self._ready = deque(each for each in self._ready if each.id != job_id)
                self.table.take(job_id)
                self._ready.append(job)
            waiting.append(job_id)
        self._fill()
        for job_id in waiting:
            while job_id in self._running or any(job.id == job_id for job in self._ready):
                task = self._running.get(job_id) or next(iter(self._running.values()), None)
                if task is None:
                    break  # it was stopped meanwhile
                await asyncio.wait({task})

    def tick(self) -> None:
        """Start what is due, as far as there is room."""
        for job in self.table.due(self._clock.monotonic()):
            if self._only is None or job.id in self._only:
                self._ready.append(job)
            else:
                self._resting.add(job.id)
        self._fill()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self.tick()
            upcoming = self.table.next_at()
            nap = LONGEST_NAP if upcoming is None else upcoming - self._clock.monotonic()
            # Not `wait_for`, which forgets a cancellation that comes together with the waking.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LONGEST_NAP, max(0.0, nap))):
                    await self._wake.wait()

    def _fill(self) -> None:
        while self._ready and len(self._running) < self._most and len(self._fresh) < self._concurrency:
            job = self._ready.popleft()
            if job.id not in self.table:
                continue
            if job.id in self._running:
                # What it found is still being taken in: its turn comes when that is done.
                self._missed.add(job.id)
                continue
            self.table.begun(job.id, self._clock.monotonic())
            self._began(job)
            self._running[job.id] = asyncio.create_task(self._probe(job), name=f"probe {job.id}")
            self._fresh[job.id] = asyncio.get_running_loop().call_later(SETTLES, self._settled, job.id)

    def _settled(self, job_id: str) -> None:
        """Its first moments are over, or all of it is."""
        timer = self._fresh.pop(job_id, None)
        if timer is not None:
            timer.cancel()
        self._fill()

    async def _probe(self, job: Job) -> None:
        asked_at = self._clock.now()
        try:
            readings = await asked(job)
            await self._told(Probed(job, readings, asked_at, self._clock.now()))
        except Exception:
            log.exception("what the check %s found could not be taken in", job.id)
        finally:
            self._running.pop(job.id, None)
            if job.id in self._missed:
                self._missed.discard(job.id)
                if job.id in self.table:
                    self.table.set_due(job.id, self._clock.monotonic() + OVERDUE * job.interval)
                    self._wake.set()
            self._settled(job.id)


async def asked(job: Job) -> Readings:
    """The readings of one job; whatever goes wrong is a reading. Raises only when it is cancelled."""
    limit_time(job.limit)
    try:
        async with asyncio.timeout(job.limit):
            found = await job.run()
    except TimeoutError:
        found = [(check_id, silent(job)) for check_id in job.checks]
    except ServiceError as error:
        found = [(check_id, failed(error)) for check_id in job.checks]
    except Exception as error:
        log.exception("the check %s failed", job.id)
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else "no reason given"
        broken = Reading(
            HealthState.DOWN,
            f"The check itself failed: {reason}",
            "Report this with the log; what is checked may be well",
            Category.PERMANENT.value,
        )
        found = [(check_id, broken) for check_id in job.checks]
    return await _cleaned(found)


def silent(job: Job) -> Reading:
    """The reading of something that did not answer in time."""
    advice = "Check the network and the vendor's status page"
    if job.limit < job.timeout:
        advice += f"; it is probed every {job.interval:g} s, a longer interval gives it more time to answer"
    return Reading(HealthState.DOWN, f"No answer within {job.limit:g} s", advice, Category.TIMEOUT.value)


def failed(error: ServiceError, took_ms: float | None = None) -> Reading:
    """The reading of a failure. One that says "not so fast" is a sign of life: degraded, not down."""
    mild = error.category is Category.RATE_LIMIT
    return Reading(
        HealthState.DEGRADED if mild else HealthState.DOWN,
        error.message,
        advice_of(error),
        error.category.value,
        took_ms,
    )


class _Texts:
    """Texts without secrets and without what could disturb a terminal; each is worked on once in a while.

    Thousands of agents say the same things round after round. What was said before a new secret became known
    is worked on again.
    """

    MOST: Final = 50_000

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._secrets = secrets_known()

    def clean(self, text: str) -> str:
        if not text:
            return ""
        if len(self._known) > self.MOST or self._secrets != secrets_known():
            self._known, self._secrets = {}, secrets_known()
        cleaned = self._known.get(text)
        if cleaned is None:
            cleaned = self._known[text] = clean_line(redact(text))
        return cleaned

    def reading(self, reading: Reading) -> Reading:
        """The same reading with every text cleaned: part of it came from elsewhere."""
        message, advice = self.clean(reading.message), self.clean(reading.advice)
        facts = tuple((self.clean(label), self.clean(value)) for label, value in reading.facts)
        if (message, advice, facts) == (reading.message, reading.advice, reading.facts):
            return reading
        return replace(reading, message=message, advice=advice, facts=facts)


_texts = _Texts()


async def _cleaned(found: Readings) -> Readings:
    """All of them cleaned, a few between two turns of the event loop."""
    cleaned = []
    for start in range(0, len(found), CLEANED_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        part = found[start : start + CLEANED_AT_ONCE]
        cleaned += [(check_id, _texts.reading(reading)) for check_id, reading in part]
    return cleaned
