"""Checks of the connections to vendors: an authenticated call, and what the account has left.

The call goes through the connection's policy, insisting where its breaker is open: a check that finds the
vendor well again closes it. What the vendor says about quota and concurrency is a remark and never makes a
check fail: keys often may not read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from services.clock import Clock
from services.companies import ConnectionClients
from services.companies.clients import policy_name
from services.errors import Category, ServiceError, VaultLocked
from services.health.model import CheckKind, CheckSpec, HealthState, Reading
from services.health.runner import failed
from services.http import Wire
from services.model import ConnectionInfo, Provider
from services.providers import VENDOR_NAMES, ElevenLabsClient, RetellClient

SECRETS = "system:secrets"
ALMOST = 0.9
"""From this share of a quota or of the lines in use on, the connection is degraded."""
REFUSED = 3600.0
"""Seconds after which something that the vendor refused to say is asked again."""


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
    accounts: Accounts,
    clock: Clock,
    *,
    interval: float,
    failures: int,
    slow_ms: float | None,
    simulated: Callable[[ConnectionInfo], bool],
) -> CheckSpec:
    """The check of one connection."""

    async def probe() -> Reading:
        return await read(connection, clients, accounts, clock, simulated=simulated(connection))

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
        simulated=simulated(connection),
    )


async def read(
    connection: ConnectionInfo,
    clients: ConnectionClients,
    accounts: Accounts,
    clock: Clock,
    *,
    simulated: bool,
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
    usages = await accounts.usages(connection.id, client)
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


class Accounts:
    """What accounts have used. Where the key may not know, or the vendor does not say, is asked seldom."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refused: dict[tuple[int, str], float] = {}

    async def usages(self, connection_id: int, client: RetellClient | ElevenLabsClient) -> list[Usage]:
        """What there is to know; an empty list where nothing is."""
        if client.provider is Provider.RETELL:
            return await self._of_retell(connection_id, client)  # type: ignore[arg-type]  # as it says
        return await self._of_elevenlabs(connection_id, client)  # type: ignore[arg-type]

    async def _of_retell(self, connection_id: int, client: RetellClient) -> list[Usage]:
        found = await self._ask(connection_id, "concurrency", client.concurrency)
        used, limit = _count(found, "current_concurrency"), _count(found, "concurrency_limit")
        return [] if used is None else [Usage("lines", used, limit, "calls at once")]

    async def _of_elevenlabs(self, connection_id: int, client: ElevenLabsClient) -> list[Usage]:
        subscription, live = await asyncio.gather(
            self._ask(connection_id, "subscription", client.subscription),
            self._ask(connection_id, "live count", client.live_count),
        )
        usages = []
        credits_used = _count(subscription, "character_count")
        if credits_used is not None:
            limit = _count(subscription, "character_limit")
            usages.append(Usage("quota", credits_used, limit, "credits in this period"))
        calls = _count(live, "count")
        if calls is not None:
            usages.append(Usage("lines", calls, None, "calls at once"))
        return usages

    async def _ask(self, connection_id: int, what: str, ask: Callable[[], Awaitable[Wire]]) -> Any:
        key, now = (connection_id, what), self._clock.monotonic()
        refused_at = self._refused.get(key)
        if refused_at is not None and now - refused_at < REFUSED:
            return None
        try:
            return (await ask()).data
        except ServiceError as error:
            if error.category in (Category.AUTHENTICATION, Category.PERMANENT):
                self._refused[key] = now
            return None


def _count(document: Any, name: str) -> int | None:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
