"""Checks of the connections to vendors: an authenticated call, and what the account has left.

The call goes through the connection's policy, insisting where its breaker is open: a check that finds the
vendor well again is one of the successes that close it. While the vendor's 429 asks to be left alone it is
left alone, and that is the reading: degraded, a sign of life. What the vendor says about quota and
concurrency is a remark and never makes a check fail: keys often may not read it, and it may take half of the
time that the probe has left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
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
from services.resilience import RULES, Fallback, Result, Subject, duration, time_left

SECRETS = "system:secrets"
DATABASE = "system:database"
ALMOST = 0.9
"""From this share of a quota or of the lines in use on, the connection is degraded."""
REFUSED = 3600.0
"""Seconds after which something that the vendor refused to say is asked again."""
REMEMBERED = 900.0
"""Seconds for which what an account has used is believed while the vendor does not say it."""
LINES_ADVICE = "Raise the limit at the vendor, or let fewer calls run at once"
CREDITS_ADVICE = (
    "Raise the plan or what may be bought beyond it at the vendor: calls fail when nothing is left"
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account has used of something: `used` of `limit` (None: no limit, or none is known)."""

    label: str
    used: int
    limit: int | None
    what: str
    advice: str
    remark: str = ""

    @property
    def scarce(self) -> bool:
        return self.limit is not None and self.limit > 0 and self.used >= ALMOST * self.limit

    @property
    def exhausted(self) -> bool:
        return self.limit is not None and self.limit > 0 and self.used >= self.limit

    def text(self) -> str:
        of = "" if self.limit is None else f" of {self.limit:,}"
        return f"{self.used:,}{of} {self.what}"

    def message(self) -> str:
        """The sentence of a reading of something scarce."""
        remark = f"; {self.remark}" if self.remark else ""
        return f"{'Used up' if self.exhausted else 'Almost used up'}: {self.text()}{remark}"


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
    depends_on: tuple[str, ...] = (SECRETS,),
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
        depends_on=depends_on,
        subject=Subject(account=connection.company),
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
        started, patience = clock.monotonic(), time_left()
        async with _within(0.95):
            account = await client.check()
    except TimeoutError:
        held = client.stats.held_until
        if held - started < patience / 2:
            raise  # there was time to ask
        return _held(connection, held - clock.monotonic())
    except VaultLocked as error:
        return failed(error)
    except ServiceError as error:
        return failed(error, (clock.monotonic() - started) * 1000)
    took_ms = (clock.monotonic() - started) * 1000
    usages = await accounts.usages(connection.id, client)
    scarce = max((usage for usage in usages if usage.scarce), key=lambda usage: usage.exhausted, default=None)
    facts = (
        ("account", account.name),
        *((("key", account.detail),) if account.detail else ()),
        *((usage.label, usage.text() + (f"; {usage.remark}" if usage.remark else "")) for usage in usages),
        ("address", connection.base_url),
    )
    state, message, advice = HealthState.UP, "answers", ""
    if scarce is not None:
        state, message, advice = HealthState.DEGRADED, scarce.message(), scarce.advice
    return Reading(state, message, advice, "", took_ms, facts, simulated)


def _within(share: float) -> asyncio.Timeout:
    """A part of the time that the probe has left."""
    left = time_left()
    return asyncio.timeout(share * left if left < math.inf else None)


def _held(connection: ConnectionInfo, seconds: float) -> Reading:
    """Nothing was asked: the vendor told some other request of ours to wait."""
    vendor, rule = VENDOR_NAMES[connection.provider], RULES[Category.RATE_LIMIT]
    more = f" for {duration(seconds)} more" if seconds > 0 else ""
    message = f"{vendor} had too many requests and asks to be left alone{more}"
    return Reading(HealthState.DEGRADED, message, rule.advice, Category.RATE_LIMIT.value)


class Accounts:
    """What accounts have used. Where the key may not know, or the vendor does not say, is asked seldom.

    What cannot be learnt at the moment is as it was, for a while, and says so: it does not end because
    nobody answers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refused: dict[tuple[int, str], float] = {}

    async def usages(self, connection_id: int, client: RetellClient | ElevenLabsClient) -> list[Usage]:
        """What there is to know; an empty list where nothing is."""
        if client.provider is Provider.RETELL:
            return await self._of_retell(connection_id, client)  # type: ignore[arg-type]  # as it says
        return await self._of_elevenlabs(connection_id, client)  # type: ignore[arg-type]

    async def _of_retell(self, connection_id: int, client: RetellClient) -> list[Usage]:
        known = await self._ask(connection_id, "concurrency", client, client.concurrency)
        found = known.value
        used, limit = _count(found, "current_concurrency"), _count(found, "concurrency_limit")
        if used is None:
            return []
        burst = _count(found, "concurrency_burst_limit") if _is(found, "concurrency_burst_enabled") else None
        remark = f"{burst:,} at a surcharge" if burst and burst > (limit or 0) else ""
        return [Usage("lines", used, limit, "calls at once", LINES_ADVICE, _as_of(known, remark))]

    async def _of_elevenlabs(self, connection_id: int, client: ElevenLabsClient) -> list[Usage]:
        subscription, live = await asyncio.gather(
            self._ask(connection_id, "subscription", client, client.subscription),
            self._ask(connection_id, "live count", client, client.live_count),
        )
        usages = _credits(subscription)
        calls = _count(live.value, "count")
        if calls is not None:
            # The vendor names no limit for them: it is one of the plan, and each agent's own.
            usages.append(Usage("lines", calls, None, "calls at once", LINES_ADVICE, _as_of(live)))
        return usages

    async def _ask(
        self,
        connection_id: int,
        what: str,
        client: RetellClient | ElevenLabsClient,
        ask: Callable[[], Awaitable[Wire]],
    ) -> Result[Any]:
        """What the vendor says of it, or said a while ago; None where it does not."""
        key, now = (connection_id, what), self._clock.monotonic()
        refused_at = self._refused.get(key)
        if refused_at is not None and now - refused_at < REFUSED:
            return Result(None)

        async def work() -> Any:
            try:
                async with _within(0.5):
                    return (await ask()).data
            except TimeoutError:
                slow = ServiceError("It was not said in time", category=Category.TIMEOUT, code="timeout")
            raise slow

        try:
            found = await client.policy.call(work, Fallback(key=("account", what), max_age=REMEMBERED))
        except ServiceError as error:
            found = Result(None, reason=error)
        if found.reason is not None and found.reason.category in (
            Category.AUTHENTICATION,
            Category.PERMANENT,
        ):
            self._refused[key] = now
            return Result(None)
        return found


def _as_of(known: Result[Any], *remarks: str) -> str:
    """Remarks on what is known, with its age where it is not from just now."""
    age = f"as of {duration(known.age)} ago" if known.degraded else ""
    return ", ".join(filter(None, (*remarks, age)))


def _credits(known: Result[Any]) -> list[Usage]:
    """The credits of the period (called characters in the vendor's documents), and the plan they belong to.

    What may be bought beyond the plan's own counts; without an end to it nothing is ever used up.
    """
    subscription = known.value
    used = _count(subscription, "character_count")
    if used is None:
        return []
    limit, beyond = _count(subscription, "character_limit"), subscription.get("max_credit_limit_extension")
    remarks = []
    if isinstance(subscription.get("tier"), str):
        remarks.append(f"plan {subscription['tier']}")
    if beyond == "unlimited":
        remarks.append("beyond them each is paid for, without an end")
        limit = None
    elif (extra := _count(subscription, "max_credit_limit_extension")) and limit is not None:
        remarks.append(f"{extra:,} of them beyond the plan")
        limit += extra
    reset = _count(subscription, "next_character_count_reset_unix")
    if reset is not None:
        with suppress(ValueError, OverflowError, OSError):
            remarks.append(f"new ones on {datetime.fromtimestamp(reset, tz=UTC):%Y-%m-%d}")
    return [Usage("quota", used, limit, "credits in this period", CREDITS_ADVICE, _as_of(known, *remarks))]


def _is(document: Any, name: str) -> bool:
    return isinstance(document, dict) and document.get(name) is True


def _count(document: Any, name: str) -> int | None:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
