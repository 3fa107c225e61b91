"""The knowledge base in the database: sources and pieces, and the search of their words.

SQLite searches with FTS5 (the table `knowledge_fts` follows `knowledge_chunk` by triggers), PostgreSQL with a
GIN index over the column `words`, which it keeps itself; both fold case and accents alike. What somebody asks
is always data: every word is quoted, nothing of it can be an operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from sqlalchemy import delete, func, insert, text
from sqlmodel import Session, col, select

from services.errors import UsageError
from services.integrations.knowledge.chunking import Chunk
from services.integrations.knowledge.model import Source, SourceKind
from services.integrations.knowledge.words import search_words
from services.storage.tables import Company, KnowledgeChunk, KnowledgeSource
from services.text import clean_line

HEADING_WEIGHT: Final = 3.0
"""How much more a word counts in a heading than in the text."""
SHORTEST_BEGINNING: Final = 3
"""Letters and digits from which on the last word of a question also finds longer ones."""

_SQLITE: Final = text(
    f"""
SELECT f.rowid, -bm25(knowledge_fts, {HEADING_WEIGHT}, 1.0) AS score
FROM knowledge_fts f CROSS JOIN knowledge_chunk c ON c.id = f.rowid
CROSS JOIN knowledge_source s ON s.id = c.source_id
WHERE knowledge_fts MATCH :query AND s.company_id = :company
ORDER BY bm25(knowledge_fts, {HEADING_WEIGHT}, 1.0), f.rowid LIMIT :limit
"""  # noqa: S608  # a constant of ours
)
# Weights of D, C, B, A: headings are A, the text is D.
_POSTGRES: Final = text(
    f"""
SELECT c.id,
  ts_rank('{{{1 / HEADING_WEIGHT:.3f}, 0.2, 0.4, 1.0}}', c.words, q.query, 1)
FROM (SELECT CAST(:query AS tsquery) AS query) q,
  knowledge_chunk c JOIN knowledge_source s ON s.id = c.source_id
WHERE c.words @@ q.query AND s.company_id = :company
ORDER BY 2 DESC, c.id LIMIT :limit
"""  # noqa: S608  # a constant of ours
)


@dataclass(frozen=True, slots=True)
class NewSource:
    """A document as it is about to be stored."""

    title: str
    kind: SourceKind
    uri: str
    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One stored piece with what an answer says about it."""

    id: int
    text: str
    heading: str
    ordinal: int
    source_id: int
    title: str
    uri: str


def company_of(session: Session, name: str) -> Company:
    """The company of this name. Raises UsageError with the nearest one."""
    rows = session.exec(select(Company)).all()
    found = next((row for row in rows if row.name.casefold() == name.strip().casefold()), None)
    if found is None:
        near = get_close_matches(name, [row.name for row in rows], n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else "list them with: callboard company list"
        raise UsageError(f"There is no company {clean_line(name)!r}", advice=advice, code="unknown_company")
    return found


def source_at(session: Session, company_id: int, uri: str) -> KnowledgeSource | None:
    """The source of this address."""
    query = select(KnowledgeSource).where(
        KnowledgeSource.company_id == company_id, KnowledgeSource.uri == uri
    )
    return session.exec(query).first()


def find_source(session: Session, company_id: int, wanted: str) -> KnowledgeSource:
    """A source by id, address or title. Raises UsageError with the nearest one."""
    rows = session.exec(select(KnowledgeSource).where(KnowledgeSource.company_id == company_id)).all()
    folded = wanted.strip().casefold()
    for rule in (
        [row for row in rows if str(row.id) == wanted.strip()],
        [row for row in rows if row.uri == wanted.strip()],
        [row for row in rows if row.title.casefold() == folded],
    ):
        if len(rule) == 1:
            return rule[0]
        if rule:
            ids = ", ".join(f"{row.id} ({clean_line(row.uri)})" for row in rule[:6])
            raise UsageError(
                f"{len(rule)} sources are called {clean_line(wanted)}",
                advice=f"Use the id of one: {ids}",
                code="ambiguous_source",
            )
    near = get_close_matches(wanted, [row.title for row in rows], n=1, cutoff=0.5)
    advice = f"Did you mean {near[0]}?" if near else "callboard knowledge list shows what there is"
    raise UsageError(
        f"There is no source {clean_line(wanted)} in this knowledge base",
        advice=advice,
        code="unknown_source",
    )


def replace_source(
    session: Session, company_id: int, new: NewSource, chunks: Sequence[Chunk], now: int
) -> KnowledgeSource:
    """Store a document with its pieces in place of what was there under its address."""
    row = source_at(session, company_id, new.uri)
    if row is None:
        row = KnowledgeSource(
            company_id=company_id, title="", kind="", uri=new.uri, created_at=now, updated_at=now
        )
        session.add(row)
    else:
        session.execute(delete(KnowledgeChunk).where(col(KnowledgeChunk.source_id) == row.id))
    row.title, row.kind, row.media_type = new.title, new.kind.value, new.media_type
    row.digest, row.size, row.chunk_count = new.digest, new.size, len(chunks)
    row.embedding_model, row.updated_at = "", now
    session.flush()
    if chunks:
        session.execute(
            insert(KnowledgeChunk),
            [
                {"source_id": row.id, "ordinal": chunk.ordinal, "heading": chunk.heading, "text": chunk.text}
                for chunk in chunks
            ],
        )
    return row


def search_text(session: Session, company_id: int, question: str, limit: int) -> list[tuple[int, float]]:
    """Ids of pieces with their score, best first; empty for a question without a word."""
    words = search_words(question)
    if not words:
        return []
    if session.get_bind().dialect.name == "sqlite":
        sql, query = _SQLITE, fts_query(words)
    else:
        sql, query = _POSTGRES, postgres_query(session, words)
    if not query:
        return []
    rows = session.execute(sql, {"query": query, "company": company_id, "limit": limit}).all()
    return [(int(row[0]), float(row[1])) for row in rows]


def fts_query(words: Sequence[str]) -> str:
    """Any of the words, the last one also as a beginning; each a string, where only a quote is special."""
    quoted = ['"' + word.replace('"', '""') + '"' for word in words]
    return " OR ".join([*quoted[:-1], quoted[-1] + " *" * _begins(words[-1])])


def postgres_query(session: Session, words: Sequence[str]) -> str:
    """The same as a `tsquery`, made by the server word by word; empty where its parser finds no word."""
    parts = [f"phraseto_tsquery('simple', knowledge_fold(:w{number}))" for number in range(len(words) - 1)]
    # The last one by the syntax of tsquery, the word a quoted string in it.
    last = "'" + words[-1].replace("\\", "\\\\").replace("'", "''") + "'" + ":*" * _begins(words[-1])
    parts.append("to_tsquery('simple', knowledge_fold(:last))")
    values = {f"w{number}": word for number, word in enumerate(words[:-1])}
    found = session.execute(text("SELECT CAST(" + " || ".join(parts) + " AS text)"), {**values, "last": last})
    return str(found.scalar_one() or "")


def _begins(word: str) -> bool:
    """Whether a word may stand for those that begin with it: one letter would find everything."""
    return sum(character.isalnum() for character in word) >= SHORTEST_BEGINNING


def pieces(session: Session, company_id: int, ids: Iterable[int]) -> dict[int, Piece]:
    """The pieces of these ids that belong to the company."""
    rows = session.execute(
        select(KnowledgeChunk, KnowledgeSource)
        .join(KnowledgeSource, col(KnowledgeSource.id) == col(KnowledgeChunk.source_id))
        .where(col(KnowledgeChunk.id).in_(list(ids)), KnowledgeSource.company_id == company_id)
    ).all()
    return {
        chunk.id: Piece(
            chunk.id, chunk.text, chunk.heading, chunk.ordinal, chunk.source_id, source.title, source.uri
        )
        for chunk, source in rows
    }


def counts(session: Session, company_id: int, model: str) -> tuple[int, int, int]:
    """Sources, pieces, and pieces with a vector of this model."""
    rows = session.execute(
        select(
            func.count(col(KnowledgeSource.id)),
            func.coalesce(func.sum(col(KnowledgeSource.chunk_count)), 0),
        ).where(col(KnowledgeSource.company_id) == company_id)
    ).one()
    embedded = session.execute(
        select(func.count(col(KnowledgeChunk.id)))
        .join(KnowledgeSource, col(KnowledgeSource.id) == col(KnowledgeChunk.source_id))
        .where(
            KnowledgeSource.company_id == company_id,
            KnowledgeSource.embedding_model == model,
            col(KnowledgeChunk.embedding).is_not(None),
        )
    ).scalar_one()
    return int(rows[0]), int(rows[1]), int(embedded) if model else 0


def as_source(row: KnowledgeSource, company: str) -> Source:
    """A row for those outside."""
    known: dict[str, Any] = {
        "title": row.title,
        "uri": row.uri,
        "media_type": row.media_type,
        "size": row.size,
        "chunks": row.chunk_count,
        "embedding_model": row.embedding_model,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }
    return Source(id=str(row.id), company=company, kind=SourceKind(row.kind), **known)
