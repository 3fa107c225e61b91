"""Who may read more than up or down: one bearer token, and how often an address may guess it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
from collections.abc import Sequence
from typing import Final

from app.api.errors import Refused
from services.clock import Clock
from services.errors import Category
from services.resilience import Limits, MemoryWindows, RateLimiter, Subject
from services.security import Secret

GUESSES: Final = Limits(minute=10, hour=100, day=0, burst=0)
"""Wrong tokens of one address; after that it is refused, with the right one too, until a window has room."""
MOST_ADDRESSES: Final = 10_000
"""Of which wrong tokens are remembered; when there are more, counting starts anew."""

Headers = Sequence[tuple[bytes, bytes]]


class Access:
    """Checks the token of requests. Without a token of its own nobody gets more than up or down."""

    def __init__(self, token: Secret | None, clock: Clock) -> None:
        self._digest = _digest(token.reveal().encode()) if token else None
        self._clock = clock
        self._guesses = RateLimiter(MemoryWindows(clock), user=GUESSES)
        self._addresses: set[str] = set()

    @property
    def has_token(self) -> bool:
        return self._digest is not None

    async def require(self, headers: Headers, client: str) -> None:
        """Let the request through, or raise `Refused` with 401 or 429."""
        if not await self.allows(headers, client):
            raise _unauthenticated(
                "This needs a token" if self._digest else "This needs a token, and none is set here",
                code="no_token",
                advice="Send it as Authorization: Bearer TOKEN"
                if self._digest
                else "Make one on the server: callboard serve --new-token, then start it again",
            )

    async def allows(self, headers: Headers, client: str) -> bool:
        """Whether the right token came along; False for none, `Refused` with 401 or 429 for a wrong one."""
        given = [value for name, value in headers if name == b"authorization"]
        if not given:
            return False
        subject = Subject(user=_group(client))
        if subject.user in self._addresses and (wait := await self._wait(subject)):
            raise Refused(
                429,
                "Too many wrong tokens came from this address",
                code="too_many_guesses",
                category=Category.RATE_LIMIT,
                advice=f"Correct the token, then try again in {wait} s",
                headers={"Retry-After": str(wait)},
            )
        scheme, _, token = given[0].strip().partition(b" ")
        right = len(given) == 1 and scheme.lower() == b"bearer" and self._digest is not None
        # Digests are of one length, whatever was sent: the comparison tells nothing by its time.
        if hmac.compare_digest(_digest(token.strip()), self._digest or b"") and right:
            return True
        await self._remember(subject)
        raise _unauthenticated(
            "The token is wrong" if self._digest else "No token is set here, so none is right",
            code="wrong_token",
            advice="Use the one that callboard serve --new-token printed, or that CALLBOARD_API_TOKEN holds",
            problem=', error="invalid_token"',
        )

    async def _wait(self, subject: Subject) -> int:
        """Whole seconds until this address may try again; 0 when it may now."""
        used_up = [
            budget.frees_in
            for budget in await self._guesses.budgets(subject)
            if budget.limit and not budget.remaining
        ]
        return max(1, math.ceil(max(used_up))) if used_up else 0

    async def _remember(self, subject: Subject) -> None:
        if len(self._addresses) >= MOST_ADDRESSES:
            self._addresses.clear()
            self._guesses = RateLimiter(MemoryWindows(self._clock), user=GUESSES)
        self._addresses.add(subject.user)
        await self._guesses.take(subject)


def _unauthenticated(message: str, *, code: str, advice: str, problem: str = "") -> Refused:
    return Refused(
        401,
        message,
        code=code,
        category=Category.AUTHENTICATION,
        advice=advice,
        headers={"WWW-Authenticate": f'Bearer realm="callboard"{problem}'},
    )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _group(client: str) -> str:
    """What counts as one guesser: an IPv4 address, or the /64 that one IPv6 household has."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)
