"""A knowledge service elsewhere, by the contract of `http-knowledge`.

    POST|GET /knowledge/search    GET|POST /knowledge/sources    DELETE /knowledge/sources/{id}

It finds paragraphs by the words they share with the question. Companies see their own sources only.
"""

from __future__ import annotations

import re
from typing import Any, Final

from services.simulator.partners import Partner, Partners, plain_failure
from services.simulator.wire import Json, Reply, Request, answer

PREFIX: Final = "/knowledge"
_WORD: Final = re.compile(r"\w{3,}")
_UPDATED: Final = 1_764_000_000_000


class KnowledgeStore:
    """Documents by company and address."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], Json] = {}
        self._count = 0
        self.put(
            {
                "company": "",
                "title": "House rules",
                "uri": "https://knowledge.example/house-rules",
                "media_type": "text/plain",
                "text": "Breakfast is served from 7 to 10.\n\nDogs are welcome for 15 euros a night.",
            }
        )

    def put(self, body: Json) -> Json:
        key = (str(body.get("company") or ""), str(body["uri"]))
        old = self._sources.get(key)
        if old is None:
            self._count += 1
        source = {
            "id": old["id"] if old else f"src-{self._count}",
            "title": str(body.get("title") or body["uri"]),
            "uri": key[1],
            "media_type": str(body.get("media_type") or ""),
            "size": len(str(body["text"]).encode()),
            "chunks": len(_paragraphs(str(body["text"]))),
            "updated_at": _UPDATED,
            "text": str(body["text"]),
        }
        self._sources[key] = source
        return source

    def of(self, company: str) -> list[Json]:
        """The company's own and those for everybody."""
        return [source for (owner, _), source in self._sources.items() if owner in ("", company)]

    def search(self, request: Request) -> Reply:
        body: Json | None = dict(request.query) if request.method == "GET" else request.json_object()
        if body is None or not isinstance(body.get("query"), str):
            return answer({"error": {"message": "query: a text is required"}}, 422)
        limit = int(body.get("limit") or 8)
        words = {word.lower() for word in _WORD.findall(body["query"])}
        hits: list[tuple[float, Json]] = []
        for source in self.of(str(body.get("company") or "")):
            for ordinal, text in enumerate(_paragraphs(source["text"])):
                shared = words & {word.lower() for word in _WORD.findall(text)}
                if shared:
                    score = len(shared) / len(words)
                    hits.append((score, _hit(source, ordinal, text, score)))
        hits.sort(key=lambda pair: -pair[0])
        return answer({"hits": [hit for _, hit in hits[:limit]]})

    def listed(self, request: Request) -> Reply:
        found = self.of(request.query.get("company", ""))
        limit = int(request.query.get("limit") or len(found) or 1)
        return answer({"sources": [_shown(source) for source in found[:limit]]})

    def add(self, request: Request) -> Reply:
        body = request.json_object()
        if not body or not body.get("uri") or not isinstance(body.get("text"), str):
            return answer({"error": {"message": "uri and text are required"}}, 422)
        return answer({"source": _shown(self.put(body))}, 201)

    def remove(self, request: Request, source_id: str) -> Reply:
        company = request.query.get("company", "")
        for key, source in self._sources.items():
            if source["id"] == source_id and key[0] == company:
                del self._sources[key]
                return Reply(204)
        return plain_failure(404)


def _hit(source: Json, ordinal: int, text: str, score: float) -> Json:
    return {
        "text": text,
        "heading": "",
        "title": source["title"],
        "uri": source["uri"],
        "score": score,
        "ordinal": ordinal,
        "source_id": source["id"],
    }


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _shown(source: Json) -> dict[str, Any]:
    return {name: value for name, value in source.items() if name != "text"}


def mount(partners: Partners) -> KnowledgeStore:
    """Adds the routes and the partner."""
    store = KnowledgeStore()
    for method in ("GET", "POST"):
        partners.router.add(method, f"{PREFIX}/search", "list", store.search)
    partners.router.add("GET", f"{PREFIX}/sources", "list", store.listed)
    partners.router.add("POST", f"{PREFIX}/sources", "write", store.add)
    partners.router.add("DELETE", f"{PREFIX}/sources/*", "write", store.remove)
    partners.add(Partner(PREFIX, plain_failure))
    return store
