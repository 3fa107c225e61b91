"""What there is instead of a failure, always marked: the last good value, a function's, a fixed one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar, cast

from services.errors import ServiceError, UsageError
from services.resilience.rules import duration

T = TypeVar("T")
_BEGINNING: Final = re.compile(r"(The|A|An|No|It|This|That|There|Nobody|Nothing|Not)\b")
"""Words with which a sentence begins that are no names."""


class Source(StrEnum):
    """Where a value came from. Everything but `LIVE` is degraded and must be shown as such."""

    LIVE = "live"
    FALLBACK = "fallback"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """A value and how it came about. `age`: seconds since a stale value was live."""

    value: T
    source: Source = Source.LIVE
    reason: ServiceError | None = None
    """Why it is not live."""
    age: float = 0.0

    @property
    def degraded(self) -> bool:
        return self.source is not Source.LIVE

    def why(self, instead: str) -> str:
        """How to show it: empty when live, else `instead` (for a stale value: as of when) and the reason.

        `instead` says what a fallback is, such as `rules instead of the model`.
        """
        if self.reason is None:
            return ""
        what = f"as of {duration(self.age)} ago" if self.source is Source.STALE else instead
        return because(what, self.reason.message)


@dataclass(frozen=True, slots=True)
class Fallback(Generic[T]):
    """What to do instead of failing, tried in this order: the last good value, a function, a value.

    `key` names what is remembered of good answers, the latest 64 of a policy; `max_age` (seconds) bounds how
    old one may be. It stands in for what will pass: who is refused is not to get it all the same. It is
    remembered as it is, not copied: whoever gets a value from `Policy.call` with a key must not change it.
    If the function fails with a `ServiceError` too, the value is next, else the first failure stands. Wrong
    use (`UsageError`) is raised all the same: no other answer would be right.
    """

    key: Hashable = None
    max_age: float = float("inf")
    function: Callable[[ServiceError], Awaitable[T]] | None = None
    value: T | None = None
    has_value: bool = False

    @classmethod
    def to(cls, value: T) -> Fallback[T]:
        """This value, None included."""
        return cls(value=value, has_value=True)

    async def instead_of(self, error: ServiceError) -> Result[T]:
        """What stands in for a failure where nothing is remembered; raises it where nothing does."""
        if isinstance(error, UsageError):
            raise error
        if self.function is not None:
            with suppress(ServiceError):
                return Result(await self.function(error), Source.FALLBACK, bare(error))
        if self.has_value:
            return Result(cast(T, self.value), Source.FALLBACK, bare(error))
        raise error


def because(what: str, message: str) -> str:
    """What there is instead, and the failure's sentence as the reason for it."""
    small = _BEGINNING.match(message)
    return f"{what}, because {message[:1].lower() if small else message[:1]}{message[1:]}"


def bare(error: ServiceError) -> ServiceError:
    """The error without its traceback, which would keep alive everything the call held."""
    return error.with_traceback(None)
