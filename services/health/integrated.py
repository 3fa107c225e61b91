"""The doctor's look at what is configured around the agents: integrations with their keys, and Redis.

Addresses are tried by `services.health.reach`, together with the vendors'; nothing here asks a service.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.clock import Clock
from services.errors import ServiceError, VaultLocked
from services.health.doctor import Finding, Level
from services.health.model import HealthState
from services.health.reach import Host, without_user

if TYPE_CHECKING:
    from services.integrations.model import AdapterInfo
    from services.security import SecretStore

QUERY: Final = (
    "SELECT i.id, i.name, i.kind, i.adapter, i.base_url, i.config, i.enabled, c.name FROM integration i "
    "LEFT JOIN company c ON c.id = i.company_id ORDER BY i.kind, i.name, i.id"
)
"""What `stored` reads."""
_MAIL_PORTS: Final = {"implicit": 465}


@dataclass(frozen=True, slots=True)
class Configured:
    """One integration that is stored, or that the environment names.

    `secret`: the name of its entry in the secret store, empty where it has none there; `key`: what its secret
    is called, empty where it needs none; `given`: whether the environment brings it.
    """

    name: str
    kind: str
    adapter: str
    company: str = ""
    url: str = ""
    enabled: bool = True
    number: int = 0
    secret: str = ""
    key: str = ""
    required: bool = False
    given: bool = False
    problem: str = ""
    """Why it cannot be used at all."""

    @property
    def host(self) -> Host | None:
        """Where it is, as far as that can be tried from here."""
        if not self.url or not self.enabled:
            return None
        return Host(f"{self.name} ({self.company})" if self.company else self.name, self.url, used=True)


def stored(rows: Iterable[Sequence[Any]], adapters: Mapping[str, AdapterInfo]) -> list[Configured]:
    """The integrations of a database, from the rows of `QUERY`."""
    found = []
    for number, name, kind, adapter, url, config, enabled, company in rows:
        how = adapters.get(str(adapter))
        found.append(
            Configured(
                str(name),
                str(kind),
                str(adapter),
                str(company or ""),
                str(url) or _address(how, config),
                bool(enabled),
                int(number),
                f"integration/{number}",
                how.secret if how is not None else "",
                how is not None and how.secret_required,
                problem="" if how is not None else "this version has no such adapter",
            )
        )
    return found


def _address(how: AdapterInfo | None, config: object) -> str:
    """Where it is when nobody said it: the vendor's own address, or the mail server of its options."""
    try:
        options = json.loads(str(config))
        host, port = (
            str(options["host"]),
            int(options.get("port") or _MAIL_PORTS.get(options.get("tls"), 587)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return how.default_url if how is not None else ""
    return f"tcp://{host}:{port}"


class IntegrationsCheck:
    """Which integrations there are, and whether each has the key it needs."""

    def __init__(
        self,
        configured: Sequence[Configured],
        open_secrets: Callable[[], Awaitable[SecretStore]],
    ) -> None:
        self._configured = configured
        self._open_secrets = open_secrets

    async def __call__(self) -> Sequence[Finding]:
        found = self._configured
        if not found:
            return [
                Finding(
                    "integrations",
                    Level.OK,
                    "none is configured: what agents order is simulated",
                    "callboard integration adapters lists what can be added",
                )
            ]
        store = await self._store() if any(each.secret and each.key for each in found) else None
        return [await self._look(each, store) for each in found]

    async def _store(self) -> SecretStore | None:
        """None where it cannot be looked into; why is told by its own check."""
        try:
            store = await self._open_secrets()
        except ServiceError:
            return None
        return None if store.locked else store

    async def _look(self, each: Configured, store: SecretStore | None) -> Finding:
        whose = f" of {each.company}" if each.company else ""
        level, words, advice = await self._key(each, store)
        if each.problem:
            remedy = "Update Callboard, or remove it" if each.secret else "Correct the variable, or unset it"
            level, words, advice = Level.FAIL, each.problem, remedy
        if not each.enabled:
            level, words, advice = Level.OK, f"{words}; it is switched off", ""
        found = f"{each.kind} by {each.adapter}{whose}: {words}"
        return Finding(f"integration: {each.name}", level, found, advice)

    async def _key(self, each: Configured, store: SecretStore | None) -> tuple[Level, str, str]:
        if not each.key:
            return Level.OK, "it needs no key", ""
        if each.given:
            return Level.OK, f"its {each.key} is in the environment", ""
        there = None
        if each.secret:
            unseen = Level.WARN, f"whether its {each.key} is stored cannot be seen", "Unlock the secret store"
            if store is None:
                return unseen
            try:
                there = await store.get(each.secret)
            except VaultLocked:
                return unseen
        if there:
            return Level.OK, f"its {each.key} is stored", ""
        if each.required:
            return Level.FAIL, f"its {each.key} is missing", f"callboard integration rotate {each.number}"
        return Level.OK, f"no {each.key} is stored; not every service wants one", ""


async def redis(url: str, clock: Clock) -> Sequence[Finding]:
    """Whether the store that processes share for limits and breakers answers."""
    from services.health.checks.system import RedisProbe

    reading = await RedisProbe(url, clock)()
    address = without_user(url)
    if reading.state is not HealthState.UP:
        # Nothing stops for it: each process counts for itself meanwhile.
        return [Finding("redis", Level.WARN, f"{address}: {reading.message}", reading.advice)]
    return [Finding("redis", Level.OK, f"{address} answers, {dict(reading.facts)['version']}")]
