"""Checks of the connections to vendors: an authenticated call, and what the account has left.

The call goes through the connection's policy, insisting where its breaker is open: a check that finds the
vendor well again closes it. What the vendor says about quota and concurrency is a remark and never makes a
check fail: keys often may not read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.clock import Clock
from services.companies import ConnectionClients
from services.companies.clients import policy_name
from services.errors import ServiceError, VaultLocked
from services.health.model import CheckKind, CheckSpec, HealthState, Reading
from services.health.runner import failed
from services.model import ConnectionInfo, Provider
from services.providers import VENDOR_NAMES, ElevenLabsClient, RetellClient

SECRETS = "system:secrets"
ALMOST = 0.9
"""From this share of a quota or of the lines in use on, the connection is degraded."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account has used of something: `used` of `limit` (None: no limit is known)."""

    label: str
    used: int
    limit: int | None
    what: str

    @property
    def scarce(self) -> bool:
        return self.limit is not None and self.limit > 0 and self.used >= ALMOST * self.limit

    def text(self) -> str:
        of = "" if self.limit is None else f" of {self.limit:,}"
        return f"{self.used:,}{of} {self.what}"


def check_id(connection: ConnectionInfo) -> str:
    """`provider:acme/retell`."""
    return f"provider:{connection.company}/{connection.provider}"


def spec_of(
    connection: ConnectionInfo,
    clients: ConnectionClients,
    clock: Clock,
    *,
    interval: float,
    failures: int,
    slow_ms: float | None,
    simulated: Callable[[ConnectionInfo], bool],
) -> CheckSpec:
    """The check of one connection."""

    async def probe() -> Reading:
        return await read(connection, clients, clock, simulated=simulated(connection))

    return CheckSpec(
        id=check_id(connection),
        kind=CheckKind.PROVIDER,
        name=VENDOR_NAMES[connection.provider],
        probe=probe,
        company=connection.company,
        policy=policy_name(connection),
        interval=interval,
        timeout=max(10.0, min(interval, 30.0)),
        failure_threshold=failures,
        slow_ms=slow_ms,
        depends_on=(SECRETS,),
    )


async def read(
    connection: ConnectionInfo, clients: ConnectionClients, clock: Clock, *, simulated: bool
) -> Reading:
    """Ask the vendor whose key it is, then what is left."""
    started = clock.monotonic()
    try:
        client = await clients.client(connection)
        started = clock.monotonic()
        account = await client.check()
    except VaultLocked as error:
        return failed(error)
    except ServiceError as error:
        return failed(error, (clock.monotonic() - started) * 1000)
    took_ms = (clock.monotonic() - started) * 1000
    usages = await _usages(client)
    scarce = next((usage for usage in usages if usage.scarce), None)
    facts = (
        ("account", account.name),
        *((("key", account.detail),) if account.detail else ()),
        *((usage.label, usage.text()) for usage in usages),
        ("address", connection.base_url),
    )
    state, message, advice = HealthState.UP, "answers", ""
    if scarce is not None:
        state = HealthState.DEGRADED
        message = f"Almost used up: {scarce.text()}"
        advice = "Raise the limit at the vendor, or let fewer calls run at once"
    return Reading(state, message, advice, "", took_ms, facts, simulated)


async def _usages(client: RetellClient | ElevenLabsClient) -> list[Usage]:
    """What the account has used; nothing where the key may not know or the vendor does not say."""
    if client.provider is Provider.RETELL:
        return await _of_retell(client)  # type: ignore[arg-type]  # the provider tells which
    return await _of_elevenlabs(client)  # type: ignore[arg-type]


async def _of_retell(client: RetellClient) -> list[Usage]:
    try:
        found = (await client.concurrency()).data
    except ServiceError:
        return []
    used, limit = _count(found, "current_concurrency"), _count(found, "concurrency_limit")
    return [] if used is None else [Usage("lines", used, limit, "calls at once")]


async def _of_elevenlabs(client: ElevenLabsClient) -> list[Usage]:
    answers = await asyncio.gather(client.subscription(), client.live_count(), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, ServiceError):
            raise answer
    subscription, live = (None if isinstance(each, BaseException) else each.data for each in answers)
    usages = []
    credits_used = _count(subscription, "character_count")
    if credits_used is not None:
        limit = _count(subscription, "character_limit")
        usages.append(Usage("quota", credits_used, limit, "credits in this period"))
    calls = _count(live, "count")
    if calls is not None:
        usages.append(Usage("lines", calls, None, "calls at once"))
    return usages


def _count(document: Any, name: str) -> int | None:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
