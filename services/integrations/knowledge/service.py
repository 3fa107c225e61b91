"""The knowledge base of each company: taking documents in, keeping them fresh, answering questions."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlmodel import Session, col, select

from services.clock import Clock
from services.errors import ServiceError, UsageError, VaultLocked
from services.events import EventBus, KnowledgeChanged
from services.integrations.knowledge import store
from services.integrations.knowledge.adapters import EMBEDDINGS, REMOTE
from services.integrations.knowledge.chunking import Chunk, chunks_of
from services.integrations.knowledge.embedding import Embedding
from services.integrations.knowledge.extract import MARKDOWN, TEXT, Document, heading_path, read_document
from services.integrations.knowledge.fusion import reciprocal_rank
from services.integrations.knowledge.intake import Original, from_file, from_upload, from_url
from services.integrations.knowledge.model import (
    Answer,
    Hit,
    Ingested,
    KnowledgeStatus,
    Mode,
    OnProgress,
    Progress,
    Source,
    SourceKind,
    unheard,
)
from services.integrations.knowledge.remote import RemoteKnowledge
from services.integrations.knowledge.vectors import VectorSearch
from services.integrations.knowledge.words import MOST_CHARACTERS, tidy
from services.integrations.llm.embeddings import Embedder
from services.integrations.llm.endpoints import Endpoints
from services.integrations.model import Kind, Resolved
from services.integrations.registry import IntegrationService
from services.resilience import Fallback, Policies, RateLimiter, Result
from services.resilience import Source as Origin
from services.resilience.retry import Sleep
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import KnowledgeSource
from services.text import clean_line

T = TypeVar("T")
MOST_HITS: Final = 100
REMEMBERED: Final = 900.0
"""Seconds for which a remote service's answer to a question stands in while it does not answer."""
_CANDIDATES: Final = 50
"""How many of each ranking are fused, at least."""


class KnowledgeService:
    """Documents of every company, searched by words and, with an embedding endpoint, by meaning.

    A company that uses a remote service has its documents there: what is added is read here and sent there.
    A company never sees another's. Every method raises UsageError for what cannot be (an unknown company or
    source), else ServiceError.
    """

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        integrations: IntegrationService,
        policies: Policies,
        bus: EventBus,
        clock: Clock,
        *,
        limiter: RateLimiter | None = None,
        sleep: Sleep = asyncio.sleep,
        user_agent: str = "callboard",
        vec_path: str = "",
    ) -> None:
        self._open_database = open_database
        self._integrations = integrations
        self._bus = bus
        self._clock = clock
        self._sleep = sleep  # between two tries to read a page
        self._user_agent = user_agent
        self._endpoints = Endpoints(policies, clock, limiter=limiter, user_agent=user_agent, sleep=sleep)
        self._vectors = VectorSearch(vec_path)

    async def aclose(self) -> None:
        await self._endpoints.aclose()

    # Taking in.

    async def ingest_file(
        self,
        company: str,
        file: Path | tuple[str, bytes],
        *,
        actor: str = "",
        progress: OnProgress = unheard,
    ) -> Ingested:
        """Take in a file of this machine, or bytes with a name. What was there under its address goes."""
        progress(Progress("reading"))
        original = await from_file(file) if isinstance(file, Path) else from_upload(*file)
        return await self._ingest(company, original, actor, progress)

    async def ingest_url(
        self,
        company: str,
        url: str,
        *,
        actor: str = "",
        allow_private: bool = False,
        progress: OnProgress = unheard,
    ) -> Ingested:
        """Take in a page of the web. `allow_private`: addresses of this machine and its network, too."""
        await self._company(company)
        progress(Progress("reading"))
        original = await self._page(url, allow_private)
        return await self._ingest(company, original, actor, progress)

    async def ingest_text(
        self,
        company: str,
        text: str,
        *,
        title: str,
        uri: str = "",
        markdown: bool = False,
        actor: str = "",
        progress: OnProgress = unheard,
    ) -> Ingested:
        """Take in a text as it is. `uri` names it, else its title does."""
        name = clean_line(title)
        if not name:
            raise UsageError("A text needs a title", advice="Give one with --title", code="no_title")
        original = Original(
            SourceKind.TEXT,
            clean_line(uri) or f"text:{name}",
            name,
            text.encode("utf-8", "replace"),
            f"{MARKDOWN if markdown else TEXT}; charset=utf-8",
            name,
        )
        return await self._ingest(company, original, actor, progress)

    async def refresh(
        self,
        company: str,
        source: str,
        *,
        actor: str = "",
        allow_private: bool = False,
        progress: OnProgress = unheard,
    ) -> Ingested:
        """Read a source again from where it came. The same text again writes nothing.

        Vectors that are missing, or of another model than the one in use, are made in any case. `source` is
        an id, an address or a title.
        """
        company_id, company = await self._company(company)
        await self._refuse_remote(company_id)
        database = await self._open_database()
        row = await database.read(lambda session: store.find_source(session, company_id, source))
        progress(Progress("reading"))
        if row.kind == SourceKind.URL:
            original = replace(await self._page(row.uri, allow_private), uri=row.uri)
        elif row.kind == SourceKind.FILE and row.uri.startswith("file:"):
            original = await from_file(row.uri)
        else:
            return await self._embedded(company_id, company, row.id or 0, False, progress)
        return await self._ingest(company, original, actor, progress, action="knowledge.refresh")

    async def remove(self, company: str, source: str, *, actor: str = "") -> Source:
        """Forget a source with its pieces. `source` is an id, an address or a title."""
        company_id, company = await self._company(company)
        remote = await self._remote(company_id, company)
        now = self._clock.now()
        if remote is not None:
            gone = _find(await remote.sources(), source)
            await remote.remove(gone.id)

        def write(session: Session) -> Source:
            found = gone if remote is not None else _removed(session, company_id, company, source)
            before = {"title": found.title, "uri": found.uri, "company": company}
            record(
                session, at=now, actor=actor, action="knowledge.remove", subject=found.title, before=before
            )
            return found

        removed = await (await self._open_database()).write(write)
        self._bus.publish(KnowledgeChanged())
        return removed

    # Reading.

    async def sources(self, company: str) -> list[Source]:
        """Every source of a company, by title."""
        company_id, company = await self._company(company)
        remote = await self._remote(company_id, company)
        if remote is not None:
            return sorted(await remote.sources(), key=lambda source: source.title.casefold())

        def read(session: Session) -> list[Source]:
            mine = select(KnowledgeSource).where(KnowledgeSource.company_id == company_id)
            rows = session.exec(mine.order_by(col(KnowledgeSource.title), col(KnowledgeSource.id)))
            return [store.as_source(row, company) for row in rows]

        return await (await self._open_database()).read(read)

    async def search(self, company: str, query: str, *, limit: int = 8) -> Answer:
        """The pieces that answer a question best. A question without a word finds nothing."""
        company_id, company = await self._company(company)
        limit = max(1, min(MOST_HITS, limit))
        question = tidy(query[:MOST_CHARACTERS]).strip()
        remote = await self._remote(company_id, company)
        if remote is None:
            return await self._search_here(company_id, company, question, limit)

        async def here(error: ServiceError) -> Answer:
            found = await self._search_here(company_id, company, question, limit)
            if not found.hits:
                raise error
            return found

        # What was found a moment ago, or is known here, is better than nothing; and it says so.
        result = await remote.policy.call(
            lambda: remote.search(question, limit),
            Fallback(
                key=("search", company_id, question.casefold(), limit), max_age=REMEMBERED, function=here
            ),
        )
        if not result.degraded:
            return result.value
        why = result.why("the knowledge base on this machine instead")
        return replace(
            result.value,
            degraded="; ".join(filter(None, (why, result.value.degraded))),
            failure=result.reason,
            age=result.age if result.source is Origin.STALE else None,
        )

    async def status(self, company: str) -> KnowledgeStatus:
        """How large it is, and how it is searched."""
        company_id, company = await self._company(company)
        embedder = await self._embedder(company_id)
        model = embedder.model if embedder else ""
        database = await self._open_database()
        found = await database.read(lambda session: store.counts(session, company_id, model))
        remote = await self._integrations.resolve(Kind.KNOWLEDGE, company_id, adapter=REMOTE)
        ranking = await self._vectors.ranking(database) if embedder else ""
        name = remote.info.policy if remote.info.adapter == REMOTE else ""
        return KnowledgeStatus(*found, model, ranking, name)

    async def probe(self, where: Resolved) -> str:
        """Ask an integration of this kind something harmless; says what it found. Raises ServiceError."""
        if where.info.adapter == REMOTE:
            remote = await RemoteKnowledge.open(where, self._endpoints, where.info.company)
            return await remote.probe()
        return await (await Embedder.open(where, self._endpoints)).probe()

    # The parts.

    async def _company(self, name: str) -> tuple[int, str]:
        def read(session: Session) -> tuple[int, str]:
            row = store.company_of(session, name)
            return row.id or 0, row.name

        return await (await self._open_database()).read(read)

    async def _remote(self, company_id: int, company: str) -> RemoteKnowledge | None:
        where = await self._integrations.resolve(Kind.KNOWLEDGE, company_id, adapter=REMOTE)
        if where.info.adapter != REMOTE:
            return None
        return await RemoteKnowledge.open(where, self._endpoints, company)

    async def _refuse_remote(self, company_id: int) -> None:
        where = await self._integrations.resolve(Kind.KNOWLEDGE, company_id, adapter=REMOTE)
        if where.info.adapter == REMOTE:
            raise UsageError(
                f"The sources of this company are at {where.info.policy}, which keeps them fresh itself",
                advice="Add a changed document again: callboard knowledge add",
                code="remote_knowledge",
            )

    async def _embedder(self, company_id: int) -> Embedder | None:
        where = await self._integrations.resolve(Kind.KNOWLEDGE, company_id, adapter=EMBEDDINGS)
        if where.info.adapter != EMBEDDINGS:
            return None
        return await Embedder.open(where, self._endpoints)

    async def _page(self, url: str, allow_private: bool) -> Original:
        return await from_url(
            url, clock=self._clock, user_agent=self._user_agent, private=allow_private, sleep=self._sleep
        )

    async def _ingest(
        self,
        company: str,
        original: Original,
        actor: str,
        progress: OnProgress,
        *,
        action: str = "knowledge.add",
    ) -> Ingested:
        company_id, company = await self._company(company)
        document = await _read(original)
        digest = hashlib.sha256(f"{document.title}\n{document.text}".encode()).hexdigest()
        remote = await self._remote(company_id, company)
        progress(Progress("writing"))
        if remote is not None:
            source = await remote.put(
                title=document.title,
                uri=original.uri,
                media_type=document.media_type,
                digest=digest,
                text=document.text,
            )
            now = self._clock.now()
            told = {"uri": original.uri, "digest": digest[:12], "company": company, "at": remote.name}
            await (await self._open_database()).write(
                lambda session: record(
                    session, at=now, actor=actor, action=action, subject=source.title, after=told
                )
            )
            self._bus.publish(KnowledgeChanged())
            return Ingested(source)
        chunks = await asyncio.to_thread(_pieces, document)
        now = self._clock.now()
        new = store.NewSource(
            document.title, original.kind, original.uri, document.media_type, digest, len(original.data)
        )

        def write(session: Session) -> tuple[int, bool]:
            row = store.source_at(session, company_id, new.uri)
            if row is not None and row.digest == digest:
                return row.id or 0, False
            before = {"digest": row.digest[:12], "chunks": row.chunk_count} if row is not None else None
            row = store.replace_source(session, company_id, new, chunks, now)
            after = {"uri": new.uri, "digest": digest[:12], "chunks": len(chunks), "company": company}
            record(session, at=now, actor=actor, action=action, subject=new.title, before=before, after=after)
            return row.id or 0, True

        source_id, changed = await (await self._open_database()).write(write)
        if changed:
            self._bus.publish(KnowledgeChanged())
        return await self._embedded(company_id, company, source_id, changed, progress)

    async def _embedded(
        self, company_id: int, company: str, source_id: int, changed: bool, progress: OnProgress
    ) -> Ingested:
        """The source with the vectors it lacks, or with the reason why it lacks them."""
        database = await self._open_database()
        made = await self._by_embedder(
            company_id,
            lambda embedding: embedding.complete(database, source_id, company_id, company, progress),
        )
        if made.value:
            self._bus.publish(KnowledgeChanged())

        def read(session: Session) -> Source | None:
            row = session.get(KnowledgeSource, source_id)
            return store.as_source(row, company) if row is not None else None

        source = await database.read(read)
        if source is None:
            raise ServiceError("The source was removed meanwhile", code="gone")
        return Ingested(source, changed, made.why("it is found by its words only"))

    async def _by_embedder(
        self, company_id: int, ask: Callable[[Embedding], Awaitable[T]]
    ) -> Result[T | None]:
        """What is asked of the company's embedding endpoint; None without one, or when it fails."""
        nothing: Fallback[T | None] = Fallback.to(None)
        try:
            embedder = await self._embedder(company_id)
        except VaultLocked:
            raise
        except ServiceError as error:  # its key is missing, an option is wrong
            return await nothing.instead_of(error)
        if embedder is None:
            return Result(None)
        embedding = Embedding(embedder, self._vectors)

        async def work() -> T | None:
            return await ask(embedding)

        return await embedder.policy.call(work, nothing)

    async def _search_here(self, company_id: int, company: str, question: str, limit: int) -> Answer:
        database = await self._open_database()
        candidates = max(_CANDIDATES, 4 * limit)
        by_words = await database.read(
            lambda session: store.search_text(session, company_id, question, candidates)
        )
        near: Result[tuple[list[tuple[int, float]], str] | None] = Result(None)
        if question:
            near = await self._by_embedder(
                company_id,
                lambda embedding: embedding.nearest(database, company_id, company, question, candidates),
            )
        by_meaning, lacking = near.value or ([], "")
        mode = Mode.TEXT if near.value is None else Mode.BOTH
        rankings = [[chunk for chunk, _ in ranking] for ranking in (by_words, by_meaning)]
        ranked = reciprocal_rank(rankings if mode is Mode.BOTH else rankings[:1])[:limit]
        words, meaning = dict(by_words), dict(by_meaning)
        found = await database.read(
            lambda session: store.pieces(session, company_id, [chunk for chunk, _ in ranked])
        )
        hits = [
            _hit(found[chunk], score, words.get(chunk), meaning.get(chunk))
            for chunk, score in ranked
            if chunk in found
        ]
        degraded = near.why("found by words only") or lacking
        return Answer(tuple(hits), mode, degraded=degraded, failure=near.reason)


async def _read(original: Original) -> Document:
    """The document, in a thread that gives up soon after the caller was cancelled."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(
            read_document, original.data, original.name, declared=original.media_type, stopped=stop.is_set
        )
    finally:
        stop.set()


def _pieces(document: Document) -> list[Chunk]:
    """The document's pieces, each below its title."""
    return [
        chunk
        if document.title in chunk.heading
        else replace(chunk, heading=heading_path([document.title, chunk.heading]))
        for chunk in chunks_of(document.sections)
    ]


def _hit(piece: store.Piece, score: float, bm25: float | None, similarity: float | None) -> Hit:
    return Hit(
        text=piece.text,
        heading=piece.heading,
        title=piece.title,
        uri=piece.uri,
        score=score,
        ordinal=piece.ordinal,
        source_id=str(piece.source_id),
        bm25=bm25,
        similarity=similarity,
    )


def _removed(session: Session, company_id: int, company: str, wanted: str) -> Source:
    row = store.find_source(session, company_id, wanted)
    source = store.as_source(row, company)
    session.delete(row)
    return source


def _find(sources: list[Source], wanted: str) -> Source:
    """One of a remote service's sources, by id, address or title."""
    rules: tuple[Callable[[Source], Any], ...] = (
        lambda source: source.id == wanted,
        lambda source: source.uri == wanted,
        lambda source: source.title.casefold() == wanted.strip().casefold(),
    )
    for rule in rules:
        found = [source for source in sources if rule(source)]
        if len(found) == 1:
            return found[0]
    raise UsageError(
        f"There is no single source {clean_line(wanted)} in this knowledge base",
        advice="callboard knowledge list shows what there is",
        code="unknown_source",
    )
