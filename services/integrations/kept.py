"""Clients of integrations, kept for as long as the integration stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from services.integrations.model import Resolved


class Closable(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closable)


class KeptClients(Generic[C]):
    """One client an integration; another one once its address, settings or secret changed.

    The one before may have orders under way and lives on until `aclose` ends them all. Belongs to one event
    loop.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Resolved, C]] = {}
        self._before: list[C] = []

    def of(self, resolved: Resolved, make: Callable[[], C]) -> C:
        """The client of an integration, made if it is new or has changed."""
        name = resolved.info.check_id
        known = self._kept.get(name)
        if known is not None and known[0] == resolved:
            return known[1]
        client = make()
        self._kept[name] = (resolved, client)
        if known is not None:
            self._before.append(known[1])
        return client

    async def aclose(self) -> None:
        clients = [*self._before, *(client for _, client in self._kept.values())]
        self._kept, self._before = {}, []
        for client in clients:
            await client.aclose()
