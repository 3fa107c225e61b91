"""One open vendor client per connection, made when first needed and kept for its caches and sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from services.clock import Clock
from services.errors import Category, ServiceError
from services.model import ConnectionInfo, Provider
from services.providers import VENDOR_NAMES, ElevenLabsClient, RetellClient, open_client
from services.resilience import Policies, Policy
from services.security import SecretStore

Client: TypeAlias = RetellClient | ElevenLabsClient


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What the settings say about every client; times in seconds."""

    concurrency: int | None = None
    timeout: float = 30.0
    list_cache: float = 60.0
    metrics_cache: float = 30.0


class ConnectionClients:
    """Hands out clients by connection.

    `addresses` replaces the stored base URL per vendor; the demo uses it, since its simulator listens
    on other ports at every start.
    """

    def __init__(
        self,
        open_secrets: Callable[[], Awaitable[SecretStore]],
        clock: Clock,
        options: ClientOptions,
        policies: Policies,
        addresses: Callable[[], Awaitable[Mapping[Provider, str]]] | None = None,
    ) -> None:
        self._open_secrets = open_secrets
        self._clock = clock
        self._options = options
        self._policies = policies
        self._limiter = policies.limiter()
        self._addresses = addresses
        self._clients: dict[int, Client] = {}
        self._names: dict[int, str] = {}
        self._lock = asyncio.Lock()

    async def client(self, connection: ConnectionInfo) -> Client:
        """The connection's client. Raises ServiceError when its key is not in the secret store."""
        async with self._lock:
            client = self._clients.get(connection.id)
            if client is None:
                base_url, key = await self.address_and_key(connection)
                client = self.open(connection.provider, base_url, key, self.policy(connection))
                self._clients[connection.id] = client
            return client

    def policy(self, connection: ConnectionInfo) -> Policy:
        """What every request of this connection goes through, be it a sync's or a call's.

        Its limits hold for whatever names a subject: acts of people and agents do (`services.calls.access`),
        what is read for the mirror and the checks does not (see `services.providers.client`).
        """
        name = policy_name(connection)
        self._names[connection.id] = name
        return self._policies.of(name, limiter=self._limiter)

    async def address_and_key(self, connection: ConnectionInfo) -> tuple[str, str]:
        """The base URL in force and the key. Raises ServiceError when no key is stored."""
        secrets = await self._open_secrets()
        key = await secrets.get(connection.secret_name)
        if not key:
            raise ServiceError(
                f"No key is stored for {connection.company}, {connection.provider}",
                category=Category.AUTHENTICATION,
                advice=f"enter it: callboard connection rotate {connection.company} {connection.provider}",
                code="no_key",
            )
        base_url = (await self._addresses()).get(connection.provider) if self._addresses else None
        return base_url or connection.base_url, key

    def open(self, provider: Provider, base_url: str, key: str, policy: Policy | None = None) -> Client:
        """A client that is not kept; the caller closes it. Without a policy it has one of its own."""
        options = self._options
        return open_client(
            provider,
            base_url=base_url,
            key=key,
            concurrency=options.concurrency,
            clock=self._clock,
            list_ttl=options.list_cache,
            metrics_ttl=options.metrics_cache,
            timeout=options.timeout,
            policy=policy,
        )

    async def drop(self, connection_id: int) -> None:
        """Close and forget one connection's client: its key changed, or it is removed.

        Its policy goes too: what the breaker learnt was about the old key.
        """
        name = self._names.pop(connection_id, None)
        if name is not None:
            self._policies.drop(name)
        client = self._clients.pop(connection_id, None)
        if client is not None:
            await client.aclose()

    async def aclose(self) -> None:
        for connection_id in list(self._clients):
            await self.drop(connection_id)


def policy_name(connection: ConnectionInfo) -> str:
    """What people call this dependency: `Retell (acme)`."""
    return f"{VENDOR_NAMES[connection.provider]} ({connection.company})"
