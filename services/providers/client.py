"""What both vendors' clients share: life cycle, caches, and following a list through all its pages.

Reads name no subject, so the limits of account, agent and user do not hold them back: a sync of a thousand
agents is one operator's one wish, and a probe nobody's. A number of ours would only guess at what the vendor
allows; instead its own word governs: the requests in flight (`concurrency` in the settings bounds them) halve
with each 429 and grow again, its Retry-After holds all of them, and the limits its headers tell are shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

from services.errors import Category, ServiceError
from services.http.cache import SharedCache
from services.http.client import Call, Http, HttpOptions
from services.http.places import ClientStats
from services.http.wire import Page, Wire, parse, parse_page, wrong_shape
from services.model import Provider
from services.resilience import Policy

T = TypeVar("T")

MAX_PAGES: Final = 2000


@dataclass(frozen=True, slots=True)
class Account:
    """Whose key it is: the workspace's name (or a word for it) and a remark."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Listing:
    """How a vendor pages one list.

    `items`, `cursor_out`: members of the answer; `size_param`, `cursor_param`: query names; `id_key`:
    the member every item must have (empty: none); `what`: the list's name for people.
    """

    call: Call
    what: str
    items: str
    id_key: str
    size_param: str
    size: int
    cursor_param: str
    cursor_out: str


class Client:
    """The base of the two clients. Belongs to one event loop; close it with `aclose` or `async with`."""

    provider: ClassVar[Provider]

    def __init__(self, options: HttpOptions, *, list_ttl: float = 60.0, metrics_ttl: float = 30.0) -> None:
        self._http = Http(options)
        self._cache = SharedCache(options.clock)
        self._list_ttl = list_ttl
        self._metrics_ttl = metrics_ttl

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def stats(self) -> ClientStats:
        """Counters that go on changing; copy what must stay."""
        return self._http.stats

    @property
    def policy(self) -> Policy:
        """What every request of this client goes through."""
        return self._http.policy

    def drop_caches(self) -> None:
        """The next list and metrics reads go to the vendor again."""
        self._cache.drop()

    async def aclose(self) -> None:
        """Ends every request of this client. May be called twice."""
        await self._cache.aclose()
        await self._http.aclose()

    async def _object(
        self,
        call: Call,
        expected: str,
        id_key: str = "",
        *,
        attempts: int | None = None,
        insist: bool = False,
    ) -> Wire:
        """One document that must be an object, with a text under `id_key` if that is named."""

        def read(text: str) -> Wire:
            wire = parse(text)
            if not isinstance(wire.data, dict) or (id_key and not isinstance(wire.data.get(id_key), str)):
                raise wrong_shape(f"{expected} with {id_key!r}" if id_key else expected, wire.data)
            return wire

        return await self._http.read(call, read, attempts=attempts, insist=insist)

    async def _listed(self, key: str, fetch: Callable[[], Awaitable[list[T]]], *, fresh: bool) -> list[T]:
        """A whole list, kept for the list age. The caller gets a list of its own."""
        return list(await self._cache.get(key, fetch, ttl=self._list_ttl, fresh=fresh))

    async def _pages(self, listing: Listing) -> list[Wire]:
        """Every item of every page, in order; of one seen twice (the list moved meanwhile) the later one."""
        return await self._kept(listing, lambda item: item)

    async def _kept(self, listing: Listing, keep: Callable[[Wire], T]) -> list[T]:
        """What `keep` makes of every item, page by page: a list of large documents is never held whole.

        Never returns a part of a list as if it were whole: what is missing from it counts as deleted.
        """
        found: dict[object, T] = {}
        size = listing.size
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            try:
                page = await self._page(listing, size, cursor)
            except ServiceError as exc:
                if exc.code != "too_large" or size == 1:
                    raise
                # A few huge prompts on one page: ask for fewer at once.
                size = max(1, size // 10)
                continue
            for item in page.items:
                found[item.data[listing.id_key] if listing.id_key else len(found)] = keep(item)
            cursor = self._next(listing, page)
            if cursor is None:
                return list(found.values())
            if cursor in seen:
                raise self._endless(listing)
            seen.add(cursor)
        raise self._endless(listing)

    async def _page(self, listing: Listing, size: int, cursor: str | None) -> Page:
        params = {**(listing.call.params or {}), listing.size_param: size, listing.cursor_param: cursor}

        def read(text: str) -> Page:
            page = parse_page(text, listing.items)
            if listing.id_key:
                for item in page.items:
                    if not isinstance(item.data.get(listing.id_key), str):
                        raise wrong_shape(f"items with {listing.id_key!r}", item.data)
            return page

        return await self._http.read(dataclasses.replace(listing.call, params=params), read)

    def _next(self, listing: Listing, page: Page) -> str | None:
        """The cursor of the next page; None after the last one."""
        more: Any = page.envelope.get("has_more")
        value: Any = page.envelope.get(listing.cursor_out)
        usable = isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""
        cursor = str(value) if usable else None
        if more is False or (more is None and (cursor is None or not page.items)):
            return None
        if cursor is None:
            raise ServiceError(
                f"{self._http.peer} says that the list of {listing.what} goes on but not where",
                category=Category.TRANSIENT,
                advice="Try again; a part of the list is not taken for the whole",
                code="wrong_shape",
            )
        return cursor

    def _endless(self, listing: Listing) -> ServiceError:
        return ServiceError(
            f"{self._http.peer} repeats the pages of the list of {listing.what} without an end",
            advice=f"Report this to {self._http.peer.vendor}; a part of the list is not taken for the whole",
            code="endless_list",
        )
