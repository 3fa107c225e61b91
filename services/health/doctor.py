"""Findings, and how checks are run: side by side, each on its own, none for longer than the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from services.errors import ServiceError
from services.security import redact

TIME_LIMIT = 5.0
"""Seconds for one check."""


class Level(StrEnum):
    """How a check ended; `warn` is something that works less well or not everywhere."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, what was found, what to do about it."""

    name: str
    level: Level
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """The documented JSON shape."""
        return {"name": self.name, "status": self.level.value, "found": self.found, "advice": self.advice}


@dataclass(frozen=True, slots=True)
class Check:
    """A named check. `slow_advice` is what to do when it does not answer in time."""

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    slow_advice: str = "Try again; if it stays silent, look at what this check uses"


def worst(findings: Sequence[Finding]) -> Level:
    """The most serious level among them."""
    levels = [finding.level for finding in findings]
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)


async def examine(checks: Sequence[Check], *, time_limit: float = TIME_LIMIT) -> list[Finding]:
    """Run all checks at the same time; their findings in the order of the checks. Never raises.

    Secrets are masked in whatever a check found.
    """
    results = await asyncio.gather(*(_examine_one(check, time_limit) for check in checks))
    return [
        replace(finding, found=redact(finding.found), advice=redact(finding.advice))
        for findings in results
        for finding in findings
    ]


async def _examine_one(check: Check, time_limit: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(time_limit):
            return await check.run()
    except TimeoutError:
        silent = f"did not answer within {time_limit:g} seconds"
        return [Finding(check.name, Level.FAIL, silent, check.slow_advice)]
    except ServiceError as error:
        return [Finding(check.name, Level.FAIL, error.message, error.advice)]
    except Exception as error:
        # The doctor is asked when things are broken: what breaks a check is itself a finding.
        reason = str(error).strip().splitlines()
        return [
            Finding(
                check.name,
                Level.FAIL,
                f"the check itself failed: {reason[0] if reason else 'no reason given'}",
                "Report this, with the output of callboard doctor",
            )
        ]
