"""A process that shares limits and breakers with others: `redis_worker.py URL WORK [ARGUMENT …]`.

Waits for a line on its standard input before it begins, so that several begin together, and tells what
happened as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from services.clock import SystemClock
from services.errors import Category, ServiceError
from services.resilience import Attempt, BreakerOptions, Limits, Policies, Subject
from services.resilience.shared import SharedStore

ACCOUNT = Limits(burst=60, minute=100, hour=1_000, day=10_000)
AGENT = Limits(burst=40, minute=80, hour=1_000, day=10_000)
USER = Limits(burst=20, minute=60, hour=1_000, day=10_000)
BREAKER = BreakerOptions(failure_threshold=3, open_seconds=600)
PATIENCE = 30.0
"""A test machine may be busy: this is about counting, not about speed."""


async def hammer(policies: Policies, takes: str) -> dict[str, Any]:
    """Ask for at least so many and over two bursts, for two agents and four users of one account."""
    rng = random.Random()
    limiter = policies.limiter(account=ACCOUNT, agent=AGENT, user=USER)
    told = {"allowed": 0, "refused": 0, "degraded": 0, "full": []}
    full: set[str] = set()

    async def ask() -> None:
        subject = Subject("acme", rng.choice(("x", "y")), rng.choice(("a", "b", "c", "d")))
        decision = await limiter.take(subject)
        told["allowed" if decision.allowed else "refused"] += 1
        told["degraded"] += decision.degraded
        if not decision.allowed:
            full.add(f"{decision.level}/{decision.window}")

    began, rounds = time.monotonic(), 0
    while rounds * 10 < int(takes) or time.monotonic() < began + 2.2:
        await asyncio.gather(*(ask() for _ in range(10)))
        rounds += 1
    told["full"] = sorted(full)
    return told


async def fail(policies: Policies, times: str) -> dict[str, Any]:
    """Let a dependency fail so many times."""
    policy = policies.of("The line", breaker=BREAKER)

    async def work(attempt: Attempt) -> None:
        raise ServiceError("It is dead", category=Category.TRANSIENT)

    codes = []
    for _ in range(int(times)):
        try:
            await policy.run(work, attempts=1)
        except ServiceError as error:
            codes.append(error.code)
    return {"codes": codes, "state": policy.breaker.view().state}


async def main(url: str, work: str, *arguments: str) -> None:
    policies = Policies(SystemClock(), shared=SharedStore(url, patience=PATIENCE))
    assert policies.shared is not None
    await policies.shared.check()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    told = await {"hammer": hammer, "fail": fail}[work](policies, *arguments)
    await policies.aclose()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
