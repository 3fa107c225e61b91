"""Sliding-window rate limits: for the account, the agent and the user at once, all or nothing.

A window of a level never holds more than its limit, wherever it is laid: every grant is remembered until it
has left the longest window, none is approximated. All levels are checked before any is taken. A grant at the
time t is in every window until t + length, and no longer at that moment itself.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple, Protocol

from services.clock import Clock
from services.errors import Category, ServiceError
from services.resilience.rules import duration


class Level(StrEnum):
    """Whose limit it is."""

    ACCOUNT = "account"
    AGENT = "agent"
    USER = "user"


WINDOWS: Final = (("burst", 1.0), ("minute", 60.0), ("hour", 3600.0), ("day", 86400.0))
"""Every window with its length in seconds. `burst` is what may come within one second."""
_SHORTEST: Final = WINDOWS[0][1]

Limit = tuple[int, str, float, int]
"""One window that is limited: its place in `WINDOWS`, name, length in seconds, and the limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one level may have; 0 means no limit for that window."""

    minute: int = 60
    hour: int = 1_000
    day: int = 10_000
    burst: int = 10
    limited: tuple[Limit, ...] = field(init=False, repr=False, compare=False)
    """The windows that have a limit, shortest first."""
    longest: float = field(init=False, repr=False, compare=False)
    """The length of the last of these in seconds; 0 without one."""

    def __post_init__(self) -> None:
        if min(self.minute, self.hour, self.day, self.burst) < 0:
            raise ValueError("a rate limit cannot be below 0")
        windows = ((index, name, length, self.of(name)) for index, (name, length) in enumerate(WINDOWS))
        limited = tuple(window for window in windows if window[3])
        object.__setattr__(self, "limited", limited)
        object.__setattr__(self, "longest", limited[-1][2] if limited else 0.0)

    def of(self, window: str) -> int:
        """The limit of the window of this name."""
        value: int = getattr(self, window)
        return value


@dataclass(frozen=True, slots=True)
class Subject:
    """For whom a call is made. An empty part is not limited.

    Agents and users belong to their account: those of another account with the same name are others.
    """

    account: str = ""
    agent: str = ""
    user: str = ""

    def parts(self) -> list[tuple[Level, str]]:
        found = ((Level.ACCOUNT, self.account), (Level.AGENT, self.agent), (Level.USER, self.user))
        return [(level, name) for level, name in found if name]


class Decision(NamedTuple):
    """One answer for all levels.

    `level` and `window` name the tightest one: the one that refuses for longest, or the one with the least
    left. `remaining`: how many more it would allow at this moment. `retry_after`: seconds until the same
    question is answered with yes, if nobody else asks; 0 when allowed.
    """

    allowed: bool
    level: Level | None = None
    """None where nothing is limited."""
    window: str = ""
    remaining: int = 0
    retry_after: float = 0.0
    degraded: bool = False
    """Counted by this process alone, because the shared store is lost."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left of one window of one level. `frees_in`: seconds until one more is free (0: now)."""

    level: Level
    window: str
    limit: int
    used: int
    frees_in: float = 0.0
    degraded: bool = False
    """Known by this process alone, because the shared store is lost."""

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


LevelLimits = Sequence[tuple[Level, Limits]]


class Windows(Protocol):
    """Where grants are counted."""

    async def take(self, subject: Subject, limits: LevelLimits) -> Decision:
        """Check every level, then take from all of them or from none. Levels not named have no limit."""

    async def budgets(self, subject: Subject, limits: LevelLimits) -> list[Budget]:
        """What is left, by level and window, shortest window first. What has no limit is not listed."""

    def busiest(self, account: str, limits: LevelLimits) -> Subject:
        """The agent and the user of an account that have the least left, as far as this process knows."""


class _Log:
    """The grants of one level of one name: times in ascending order, and where each window begins in it.

    Grants before a window's beginning have left it; beginnings are moved on by `look`. Between two moments
    at which a grant leaves a window only their number changes: then `slack` minus that number is what the
    tightest window has left, and nobody has to look.
    """

    __slots__ = ("limits", "slack", "starts", "times", "until", "window")

    def __init__(self) -> None:
        self.times = array("d")
        self.starts = [0] * len(WINDOWS)
        self.limits: Limits | None = None
        """What `slack` and `window` were found for."""
        self.slack = 0
        self.window = ""
        self.until = -math.inf
        """The moment at which to look again."""

    def look(self, limits: Limits, now: float) -> None:
        """Move the windows to now and find the tightest."""
        times, starts = self.times, self.starts
        count = len(times)
        until, slack, tightest = math.inf, 0, ""
        for index, window, length, limit in limits.limited:
            start = starts[index]
            if start < count:
                leaves = times[start] + length
                if leaves <= now:
                    # Usually one has left, or all have.
                    start += 1
                    if start < count and times[start] + length <= now:
                        start = _first_inside(times, length, now, start + 1)
                    starts[index] = start
                    leaves = times[start] + length if start < count else math.inf
                if leaves < until:
                    until = leaves
            if not tightest or limit + start < slack:
                slack, tightest = limit + start, window
        self.limits, self.until, self.slack, self.window = limits, until, slack, tightest

    def full_until(self, limits: Limits) -> tuple[float, str]:
        """The moment at which the last of the full windows has room again, and that window's name."""
        count = len(self.times)
        free, found = -math.inf, ""
        for index, window, length, limit in limits.limited:
            if limit - count + self.starts[index] <= 0 and self.times[count - limit] + length > free:
                free, found = self.times[count - limit] + length, window
        return free, found

    def trim(self, length: float, now: float) -> None:
        """Let go of grants that have left this window: not one by one, but half of all at a time."""
        times = self.times
        middle = len(times) // 2
        if times[middle] + length > now:
            return
        gone = _first_inside(times, length, now, middle)
        del times[:gone]
        self.starts = [max(0, start - gone) for start in self.starts]
        self.until = -math.inf


_Key = tuple[str, str, str]
"""Level, account and name."""
_LATELY: Final = 1_000
"""Names among which the busiest are looked for: those granted last."""
_TIDIED: Final = 64
"""Every so many grants of one name, those that have left are let go of."""


class MemoryWindows:
    """Grants counted in this process. Times are the clock's monotonic seconds.

    Only what is in a window that somebody limits is remembered: about twice what fits into it, for each
    name. Names whose grants have all left are forgotten; beyond `most_names` also the one unused longest.
    """

    def __init__(self, clock: Clock, *, most_names: int = 50_000) -> None:
        self._clock = clock
        self._most_names = most_names
        self._logs: OrderedDict[_Key, _Log] = OrderedDict()
        """Those granted last come last."""
        self._longest = 0.0
        """The length of the longest window that anybody limits."""

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._logs)

    async def take(self, subject: Subject, limits: LevelLimits) -> Decision:
        return self.take_now(subject, limits)

    def take_now(self, subject: Subject, limits: LevelLimits) -> Decision:
        """`take`, at once."""
        now = self._clock.monotonic()
        account = subject.account
        find = self._logs.get
        asked: list[tuple[_Key, _Log]] = []
        least, least_level, least_window = math.inf, None, ""
        latest, refusing_level, refusing_window = 0.0, None, ""
        for level, wanted in limits:
            name = getattr(subject, level)
            if not name or not wanted.limited:
                continue
            key = (level, account, name)
            log = find(key) or _Log()
            asked.append((key, log))
            if log.until <= now or log.limits is not wanted:
                log.look(wanted, now)
                if wanted.longest > self._longest:
                    self._longest = wanted.longest
            left = log.slack - len(log.times)
            if left <= 0:
                free, window = log.full_until(wanted)
                if free > latest:
                    latest, refusing_level, refusing_window = free, level, window
            elif left < least:
                least, least_level, least_window = left, level, log.window
        if refusing_level is not None:
            return Decision(False, refusing_level, refusing_window, 0, _until(latest, now))
        if least_level is None:
            return Decision(True)
        self._add(asked, now)
        return Decision(True, least_level, least_window, int(least) - 1)

    async def budgets(self, subject: Subject, limits: LevelLimits) -> list[Budget]:
        return self.budgets_now(subject, limits)

    def budgets_now(self, subject: Subject, limits: LevelLimits, *, degraded: bool = False) -> list[Budget]:
        """`budgets`, at once."""
        now = self._clock.monotonic()
        found: list[Budget] = []
        for level, wanted in limits:
            name = getattr(subject, level)
            if not name:
                continue
            log = self._logs.get((level, subject.account, name))
            for index, window, length, limit in wanted.limited:
                used, wait = 0, 0.0
                if log is not None:
                    used = len(log.times) - _first_inside(log.times, length, now, log.starts[index])
                    if used >= limit:
                        wait = _until(log.times[len(log.times) - limit] + length, now)
                found.append(Budget(level, window, limit, used, wait, degraded))
        return found

    def busiest(self, account: str, limits: LevelLimits) -> Subject:
        """Of those that were granted something lately; others have as much left as ever."""
        now = self._clock.monotonic()
        wanted: dict[str, Limits] = {
            level: each for level, each in limits if level is not Level.ACCOUNT and each.limited
        }
        found: dict[str, tuple[float, str]] = {}
        for level, owner, name in islice(reversed(self._logs), _LATELY):
            limited_to = wanted.get(level) if owner == account else None
            if limited_to is None:
                continue
            log = self._logs[level, owner, name]
            share = min(
                1 - (len(log.times) - _first_inside(log.times, length, now, log.starts[index])) / limit
                for index, _, length, limit in limited_to.limited
            )
            if share < found.get(level, (1.0, ""))[0]:
                found[level] = share, name
        names = {level: name for level, (_, name) in found.items()}
        return Subject(account, names.get(Level.AGENT, ""), names.get(Level.USER, ""))

    def note(self, subject: Subject, limits: LevelLimits) -> None:
        """Count what was granted elsewhere, whether it fits or not."""
        asked: list[tuple[_Key, _Log]] = []
        for level, wanted in limits:
            name = getattr(subject, level)
            if name and wanted.limited:
                key = (level, subject.account, name)
                asked.append((key, self._logs.get(key) or _Log()))
                self._longest = max(self._longest, wanted.longest)
        self._add(asked, self._clock.monotonic())

    def _add(self, asked: list[tuple[_Key, _Log]], now: float) -> None:
        logs = self._logs
        names = len(logs)
        soon = now + _SHORTEST
        for key, log in asked:
            times = log.times
            times.append(now)
            if soon < log.until:
                log.until = soon
            count = len(times)
            if count == 1:
                logs[key] = log
            else:
                logs.move_to_end(key)
                if not count % _TIDIED:
                    log.trim(self._longest, now)
        if len(logs) > names:
            self._forget(2 * (len(logs) - names), now)

    def _forget(self, most: int, now: float) -> None:
        """Let go of up to so many names that no window remembers any more: two with every new one."""
        for _ in range(most):
            key, log = next(iter(self._logs.items()))
            if len(self._logs) <= self._most_names and log.times[-1] + self._longest > now:
                return
            del self._logs[key]


def _first_inside(times: array[float], length: float, now: float, start: int) -> int:
    """The first grant from `start` on that is still in the window of this length that ends now.

    A grant has left when t + length <= now, in just this arithmetic: the limit and `retry_after` are exact
    to the last bit only if everybody computes it the same way.
    """
    count = len(times)
    first = max(start, bisect_right(times, now - length, start))
    while first < count and times[first] + length <= now:
        first += 1
    while first > start and times[first - 1] + length > now:
        first -= 1
    return first


def _until(moment: float, now: float) -> float:
    """The seconds from now to a moment, such that the clock then shows it, or a last bit more."""
    wait = moment - now
    while now + wait < moment:
        wait = math.nextafter(wait, math.inf)
    return wait


class RateLimiter:
    """The limits of one kind of call: the same question for every caller."""

    def __init__(
        self,
        windows: Windows,
        *,
        account: Limits = Limits(),  # immutable
        agent: Limits = Limits(),
        user: Limits = Limits(),
    ) -> None:
        self._windows = windows
        self._limits = ((Level.ACCOUNT, account), (Level.AGENT, agent), (Level.USER, user))

    async def take(self, subject: Subject) -> Decision:
        """Take one from every level that the subject names, or from none."""
        return await self._windows.take(subject, self._limits)

    async def look(self, subject: Subject) -> Decision:
        """What `take` would answer now. Takes nothing."""
        budgets = await self.budgets(subject)
        if not budgets:
            return Decision(True)
        full = [each for each in budgets if not each.remaining]
        tightest = (
            max(full, key=lambda each: each.frees_in) if full else min(budgets, key=lambda b: b.remaining)
        )
        return Decision(
            not full,
            tightest.level,
            tightest.window,
            tightest.remaining,
            tightest.frees_in if full else 0.0,
            tightest.degraded,
        )

    async def budgets(self, subject: Subject) -> list[Budget]:
        """What is left, level by level and window by window."""
        return await self._windows.budgets(subject, self._limits)

    async def tightest(self, account: str) -> list[Budget]:
        """What is left of an account, and of its agent and its user that have the least left of theirs.

        Of these two only what was used of; who they are is not said.
        """
        subject = self._windows.busiest(account, self._limits)
        found = await self.budgets(subject)
        return [each for each in found if each.used or each.level is Level.ACCOUNT]


def limited(name: str, decision: Decision) -> ServiceError:
    """The error of a call that a limit refused. It names the level, never whose it is."""
    alone = "; this process counts for itself, since Redis is lost" if decision.degraded else ""
    per = "within one second" if decision.window == "burst" else f"within one {decision.window}"
    return ServiceError(
        f"{name} was not asked: this {decision.level} has used up what it may ask {per}; "
        f"room again in {duration(decision.retry_after)}",
        category=Category.RATE_LIMIT,
        advice=f"Wait, or raise limit_{decision.window} in the settings{alone}",
        code="limited",
        retry_after=decision.retry_after,
    )
