"""Services that agents and workflows use besides their vendors, all behind one port, each below a path.

`/whatsapp`, `/hubspot`, `/llm`, `/gateway`, …: each module registers its routes under its own prefix and says
how its errors look. Every one of them is opened by the simulator's key, as a bearer token or in `x-api-key`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.simulator.sockets import SocketRoutes
from services.simulator.wire import Json, Reply, Request, Router, answer

PARTNERS: Final = "partners"


@dataclass(frozen=True, slots=True)
class Partner:
    """One of the services. `failure` makes its error answer for a status (401, 403, 404, 429, 5xx, …)."""

    prefix: str
    """Its path, without a final slash."""
    failure: Callable[[int], Reply]
    aclose: Callable[[], object] = lambda: None
    words: tuple[str, ...] = ()
    """What faults call it; without any it is the word of its path."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.words or (self.prefix.strip("/"),)


def plain_failure(status: int) -> Reply:
    """The error of a service without a shape of its own."""
    return answer({"error": {"message": f"simulated failure {status}", "status": status}}, status)


class Partners:
    """All partner services behind one port. `add` mounts one; faults and statistics apply to all alike."""

    provider = PARTNERS

    def __init__(self, key: str, limited_key: str) -> None:
        self.router = Router()
        self.sockets = SocketRoutes()
        self._partners: list[Partner] = []
        self._key, self._limited = key, limited_key
        self._path = ""

    def add(self, partner: Partner) -> None:
        self._partners.append(partner)

    def facing(self, path: str) -> Partners:
        """The same services, answering errors in the shape of the one this path belongs to."""
        other = copy.copy(self)
        other._path = path
        return other

    # What every vendor offers to the server and to the control requests.

    async def aclose(self) -> None:
        for partner in self._partners:
            ended = partner.aclose()
            if inspect.isawaitable(ended):
                await ended

    def refuse(self, request: Request) -> Reply | None:
        """The answer to a request whose key does not do, or None."""
        bearer = request.headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        given = {bearer, request.headers.get(b"x-api-key", b"").decode("latin-1")}
        if self._key in given:
            return None
        return self.failure(403 if self._limited in given else 401)

    def revoked(self) -> Reply:
        return self.failure(401)

    def lacks_permission(self) -> Reply:
        return self.failure(403)

    def not_found(self) -> Reply:
        return self.failure(404)

    def failure(self, status: int) -> Reply:
        partner = self._at(self._path)
        return partner.failure(status) if partner else plain_failure(status)

    def names(self) -> list[tuple[str, str]]:
        """It has no agents; a fault names a service by one of its words (`500:hubspot`)."""
        words = dict.fromkeys(word for partner in self._partners for word in partner.names)
        return [(word, word) for word in words]

    def names_at(self, path: str) -> tuple[str, ...]:
        """What faults call the service that this path belongs to."""
        partner = self._at(path)
        return partner.names if partner else ()

    def has_object(self, object_id: str) -> bool:
        return any(object_id in partner.names for partner in self._partners)

    def edit(self, agent_id: str, part: str, patch: Json) -> Json | None:
        """It has no agents."""
        return None

    def remove(self, agent_id: str) -> bool:
        """It has no agents."""
        return False

    def _at(self, path: str) -> Partner | None:
        return next((each for each in self._partners if path.startswith(each.prefix + "/")), None)
