"""Sliding-window rate limits: for the account, the agent and the user at once, all or nothing.

A window of a level never holds more than its limit, wherever it is laid: every grant is remembered for a
day, none is approximated. All levels are checked before any is taken.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from services.clock import Clock
from services.errors import Category, ServiceError


class Level(StrEnum):
    """Whose limit it is."""

    ACCOUNT = "account"
    AGENT = "agent"
    USER = "user"


WINDOWS: Final = (("burst", 1.0), ("minute", 60.0), ("hour", 3600.0), ("day", 86400.0))
"""Every window with its length in seconds. `burst` is what may come within one second."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one level may have; 0 means no limit for that window."""

    minute: int = 60
    hour: int = 1_000
    day: int = 10_000
    burst: int = 10

    def of(self, window: str) -> int:
        value: int = getattr(self, window)
        return value


@dataclass(frozen=True, slots=True)
class Subject:
    """For whom a call is made. An empty part is not limited."""

    account: str = ""
    agent: str = ""
    user: str = ""

    def parts(self) -> list[tuple[Level, str]]:
        found = ((Level.ACCOUNT, self.account), (Level.AGENT, self.agent), (Level.USER, self.user))
        return [(level, name) for level, name in found if name]


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer for all levels.

    `level` and `window` name the tightest one: the one that refuses, or the one with the least left.
    `remaining`: how many more it would allow at this moment. `retry_after`: seconds until the same question
    is answered with yes, if nobody else asks; 0 when allowed.
    """

    allowed: bool
    level: Level | None = None
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

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


class Windows(Protocol):
    """Where grants are counted. Methods may raise `ServiceError` when a shared store is lost."""

    async def take(self, subject: Subject, limits: Sequence[tuple[Level, Limits]]) -> Decision: ...
    async def budgets(self, subject: Subject, limits: Sequence[tuple[Level, Limits]]) -> list[Budget]: ...


class Log:
    """The grants of one level of one name: times in ascending order, and where each window begins in it."""

    __slots__ = ("limits", "starts", "times")

    def __init__(self, limits: Limits) -> None:
        self.limits = [(name, length, limits.of(name)) for name, length in WINDOWS]
        self.times = array("d")
        self.starts = [0] * len(WINDOWS)


class MemoryWindows:
    """Grants counted in this process. Times are the clock's monotonic seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logs: dict[tuple[Level, str], Log] = {}

    async def take(self, subject: Subject, limits: Sequence[tuple[Level, Limits]]) -> Decision:
        return self.take_now(subject, limits)

    def take_now(self, subject: Subject, limits: Sequence[tuple[Level, Limits]]) -> Decision:
        """Check every level, then take from all of them or from none."""
        now = self._clock.monotonic()
        by_level = dict(limits)
        logs: list[Log] = []
        tightest: tuple[int, Level | None, str] = (1 << 62, None, "")
        refused: tuple[float, Level | None, str] = (0.0, None, "")
        for level, name in subject.parts():
            log = self._log(level, name, by_level.get(level, Limits()))
            logs.append(log)
            times, starts = log.times, log.starts
            count = len(times)
            for index, (window, length, limit) in enumerate(log.limits):
                start = starts[index]
                oldest = now - length
                while start < count and times[start] <= oldest:
                    start += 1
                starts[index] = start
                if not limit:
                    continue
                left = limit - (count - start)
                if left <= 0:
                    wait = times[count - limit] + length - now
                    if wait > refused[0]:
                        refused = (wait, level, window)
                elif left < tightest[0]:
                    tightest = (left, level, window)
        if refused[1] is not None:
            return Decision(False, refused[1], refused[2], 0, refused[0])
        for log in logs:
            self._add(log, now)
        left, found, window = tightest
        return Decision(True, found, window, left - 1 if found is not None else 0)

    async def budgets(self, subject: Subject, limits: Sequence[tuple[Level, Limits]]) -> list[Budget]:
        now = self._clock.monotonic()
        by_level = dict(limits)
        found: list[Budget] = []
        for level, name in subject.parts():
            log = self._log(level, name, by_level.get(level, Limits()))
            for window, length, limit in log.limits:
                used = sum(1 for at in log.times if at > now - length)
                wait = 0.0
                if limit and used >= limit:
                    wait = log.times[len(log.times) - limit] + length - now
                found.append(Budget(level, window, limit, used, wait))
        return found

    def _log(self, level: Level, name: str, limits: Limits) -> Log:
        log = self._logs.get((level, name))
        if log is None:
            log = self._logs[level, name] = Log(limits)
        return log

    @staticmethod
    def _add(log: Log, now: float) -> None:
        log.times.append(now)
        gone = log.starts[-1]
        if gone > 1024 and gone * 2 > len(log.times):
            del log.times[:gone]
            log.starts = [max(0, start - gone) for start in log.starts]


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

    async def budgets(self, subject: Subject) -> list[Budget]:
        """What is left, level by level and window by window."""
        return await self._windows.budgets(subject, self._limits)


def limited(name: str, decision: Decision) -> ServiceError:
    """The error of a call that a limit refused."""
    wait = max(1, round(decision.retry_after))
    return ServiceError(
        f"The {decision.level} has used up what it may ask of {name} in this {decision.window or 'window'}; "
        f"room again in {wait} s",
        category=Category.RATE_LIMIT,
        advice="Wait, or raise the limit in the settings",
        code="limited",
        retry_after=decision.retry_after,
    )
