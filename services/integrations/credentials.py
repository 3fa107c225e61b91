"""What opens a service, as an object that may renew itself: a fixed token today, OAuth with a refresh next.

A request takes the newest token at the moment it is sent. After a 401 the credentials are asked to renew it,
once, and the request is sent again: what was refused was not done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from services.clock import Clock
from services.errors import ServiceError
from services.http.client import Call, Http, HttpOptions
from services.integrations.effects import NotDone
from services.resilience import Subject
from services.security import Secret

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """A token in force. `base_url`: where it opens, for vendors that say so with the token (Salesforce)."""

    token: Secret
    base_url: str = ""


class Credentials(Protocol):
    """Gives access, and another one when it was refused."""

    async def access(self) -> Access:
        """The access in force, fetched or refreshed first where needed. Raises ServiceError."""
        ...

    async def renew(self, refused: Access) -> bool:
        """The other side refused this access: whether there is another one now. Raises ServiceError."""
        ...


class FixedToken:
    """A token that stays as it is: an API key, a private-app token."""

    def __init__(self, token: Secret) -> None:
        self._access = Access(token)

    async def access(self) -> Access:
        return self._access

    async def renew(self, refused: Access) -> bool:
        return False


class FetchedToken:
    """A token with a life, fetched by `fetch` (which returns it and its life in seconds).

    Whoever comes while it is fetched waits for the same one. It is fetched anew a minute before its end.
    """

    EARLY = 60.0

    def __init__(self, fetch: Callable[[], Awaitable[tuple[Access, float]]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._access: Access | None = None
        self._until = 0.0
        self._fetching = asyncio.Lock()

    async def access(self) -> Access:
        async with self._fetching:
            if self._access is None or self._clock.monotonic() >= self._until:
                self._access, life = await self._fetch()
                self._until = self._clock.monotonic() + max(life / 2, life - self.EARLY)
            return self._access

    async def renew(self, refused: Access) -> bool:
        async with self._fetching:
            # Somebody else may have renewed it since the request went out.
            if self._access is refused:
                self._access = None
        await self.access()
        return True


class NewestSecret(Secret):
    """A secret that is replaced while requests are under way: each request takes the newest."""

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        super().__init__("")
        self._newest = Secret("")

    def replace(self, secret: Secret) -> None:
        self._newest = secret

    def reveal(self) -> str:
        return self._newest.reveal()

    def __bool__(self) -> bool:
        return bool(self._newest)


class Caller:
    """Requests to one service with credentials that renew themselves. `aclose` ends it."""

    def __init__(self, options: HttpOptions, credentials: Credentials) -> None:
        """The key of the options is ignored: the credentials give it, and perhaps the address."""
        self._key = NewestSecret()
        self._options = options
        self._http: Http | None = None
        self._credentials = credentials

    def __repr__(self) -> str:
        return f"Caller({self._options.vendor})"

    async def read(
        self,
        call: Call,
        parser: Callable[[str], T],
        *,
        write: bool = False,
        idempotency_key: str | None = None,
        subject: Subject | None = None,
        insist: bool = False,
    ) -> T:
        """As `Http.read`. For a write, a failure to get a token is one before anything was ordered."""

        async def once(http: Http) -> T:
            return await http.read(
                call,
                parser,
                write=write,
                idempotency_key=idempotency_key,
                subject=subject,
                insist=insist,
            )

        access, http = await self._authorized(write)
        try:
            return await once(http)
        except ServiceError as error:
            if error.code != "wrong_key":
                raise
            refusal = error
        if not await self._renewed(access, write):
            raise refusal
        _, http = await self._authorized(write)
        try:
            return await once(http)
        except ServiceError as error:
            error.earlier = (*refusal.earlier, *error.earlier)
            raise

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def _authorized(self, write: bool) -> tuple[Access, Http]:
        try:
            access = await self._credentials.access()
        except ServiceError as error:
            raise NotDone.because(error) if write else error from None
        self._key.replace(access.token)
        if self._http is None:
            address = access.base_url or self._options.base_url
            # A service on this machine may want no key at all.
            key = self._key if access.token else None
            self._http = Http(replace(self._options, base_url=address, key=key))
        return access, self._http

    async def _renewed(self, refused: Access, write: bool) -> bool:
        try:
            return await self._credentials.renew(refused)
        except ServiceError as error:
            raise NotDone.because(error) if write else error from None
