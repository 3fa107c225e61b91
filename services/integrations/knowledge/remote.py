"""A knowledge base elsewhere, over a small HTTP contract.

    POST   /search    {"query", "limit", "company"} → {"hits": [{"text", "heading", "title", "uri", "score",
                      "ordinal", "source_id"}]}; all but `text` may be left out; best first
    GET    /search    the same with `query`, `limit` and `company` in the query string
    GET    /sources   ?company=&limit= → {"sources": [{"id", "title", "uri", "media_type", "size", "chunks",
                      "updated_at"}]}; all but `id` and `title` may be left out; times in epoch milliseconds
    POST   /sources   {"company", "title", "uri", "media_type", "digest", "text"} → {"source": {…}}; stored in
                      place of what was there under the same `uri`, so that sending it twice changes nothing
    DELETE /sources/{id}   ?company= → 2xx

The key is a bearer token. Errors are any status of 400 and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.http.client import Call, Http, segment
from services.http.wire import wrong_shape
from services.integrations.knowledge.model import Answer, Hit, Mode, Source, SourceKind
from services.integrations.llm.endpoints import Endpoints, object_of
from services.integrations.model import Resolved
from services.resilience import Policy, Subject
from services.text import clean_line

MOST_HITS: Final = 100
LONGEST_TEXT: Final = 20_000
"""Characters of one hit that are kept."""


class RemoteKnowledge:
    """One remote service, on behalf of one company."""

    def __init__(self, where: Resolved, http: Http, company: str) -> None:
        self.name = where.info.policy
        self._http = http
        self._company = company
        self._subject = Subject(account=company)

    @classmethod
    async def open(cls, where: Resolved, endpoints: Endpoints, company: str) -> RemoteKnowledge:
        """Raises ServiceError for a wrong address or key."""
        return cls(where, await endpoints.of(where), company)

    async def search(self, query: str, limit: int) -> Answer:
        body = {"query": query, "limit": limit, "company": self._company}
        call = Call("POST", "/search", body=body)
        hits = await self._http.read(call, lambda text: _hits(object_of(text)), subject=self._subject)
        return Answer(tuple(hits[:limit]), Mode.REMOTE, self.name)

    async def sources(self) -> list[Source]:
        return await self._sources(None, self._subject)

    async def probe(self) -> str:
        """Whether it answers. Raises ServiceError; counts against nobody's limits."""
        await self._sources(1, None)
        return "It answers"

    async def _sources(self, limit: int | None, subject: Subject | None) -> list[Source]:
        call = Call("GET", "/sources", params={"company": self._company, "limit": limit})

        def read(text: str) -> list[Source]:
            found = object_of(text).get("sources")
            if not isinstance(found, list):
                raise wrong_shape("a list in 'sources'", found)
            return [_source(item, self._company) for item in found]

        return await self._http.read(call, read, subject=subject)

    async def put(self, *, title: str, uri: str, media_type: str, digest: str, text: str) -> Source:
        body = {
            "company": self._company,
            "title": title,
            "uri": uri,
            "media_type": media_type,
            "digest": digest,
            "text": text,
        }
        return await self._http.read(
            Call("POST", "/sources", body=body),
            lambda answer: _source(object_of(answer).get("source"), self._company),
            write=True,
            # The same document under the same address: whoever stores it twice has it once.
            idempotency_key=digest,
            subject=self._subject,
        )

    async def remove(self, source_id: str) -> None:
        path = f"/sources/{segment(source_id, 'a source')}"
        call = Call("DELETE", path, params={"company": self._company})
        await self._http.read(call, lambda text: None, write=True, subject=self._subject)

    @property
    def policy(self) -> Policy:
        """What its requests go through."""
        return self._http.policy


def _hits(data: Mapping[str, Any]) -> list[Hit]:
    found = data.get("hits")
    if not isinstance(found, list):
        raise wrong_shape("a list in 'hits'", found)
    return [_hit(item) for item in found[:MOST_HITS]]


def _hit(item: Any) -> Hit:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise wrong_shape("a hit with a 'text'", item)
    score = item.get("score")
    return Hit(
        text=item["text"][:LONGEST_TEXT],
        heading=_line(item, "heading"),
        title=_line(item, "title"),
        uri=_line(item, "uri"),
        score=float(score) if isinstance(score, int | float) and not isinstance(score, bool) else 0.0,
        ordinal=_count(item, "ordinal"),
        source_id=_line(item, "source_id"),
    )


def _source(item: Any, company: str) -> Source:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str | int):
        raise wrong_shape("a source with an 'id'", item)
    return Source(
        id=str(item["id"]),
        company=company,
        title=_line(item, "title") or str(item["id"]),
        kind=SourceKind.REMOTE,
        uri=_line(item, "uri"),
        media_type=_line(item, "media_type"),
        size=_count(item, "size"),
        chunks=_count(item, "chunks"),
        created_at=_count(item, "created_at"),
        updated_at=_count(item, "updated_at"),
    )


def _line(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    return clean_line(value)[:2000] if isinstance(value, str) else ""


def _count(item: Mapping[str, Any], name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0
