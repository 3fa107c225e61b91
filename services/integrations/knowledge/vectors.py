"""Vectors of pieces: stored, and ranked by how near they are to the question's.

Stored as little-endian float32 of unit length, so that nearness is their product. Ranked inside the database
where it can: by sqlite-vec over the column where this Python's SQLite loads extensions, by pgvector where the
server has it; else exactly, with numpy, over a copy that is kept while nothing changes.
"""

from __future__ import annotations

import math
import sqlite3
import sys
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from sqlalchemy import func, text, update
from sqlmodel import Session, col, select

from services.errors import ServiceError
from services.storage import Database
from services.storage.tables import KnowledgeChunk, KnowledgeSource

SQLITE_VEC: Final = "sqlite-vec"
PGVECTOR: Final = "pgvector"
EXACT: Final = "exact (numpy)"
MOST_DIMENSIONS: Final = 16_000
"""What pgvector's type holds; more than any embedding model has."""
_KEPT_BYTES: Final = 256 * 1024 * 1024
_AT_ONCE: Final = 5_000
_BATCH: Final = 500

_SQLITE: Final = text(
    """
SELECT c.id, 1 - vec_distance_cosine(c.embedding, :vector) AS similarity
FROM knowledge_chunk c JOIN knowledge_source s ON s.id = c.source_id
WHERE s.company_id = :company AND s.embedding_model = :model AND length(c.embedding) = :size
ORDER BY similarity DESC, c.id LIMIT :limit
"""
)
# pgvector's type cannot be a column of a schema that also has to exist without the extension: its vectors
# are a copy of the column's, made where they are missing.
_POSTGRES_TABLE: Final = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    "CREATE TABLE IF NOT EXISTS knowledge_vector (chunk_id integer PRIMARY KEY"
    " REFERENCES knowledge_chunk (id) ON DELETE CASCADE, model text NOT NULL, embedding vector NOT NULL)",
)
_POSTGRES_MISSING: Final = text(
    """
SELECT c.id, c.embedding FROM knowledge_chunk c JOIN knowledge_source s ON s.id = c.source_id
WHERE s.company_id = :company AND s.embedding_model = :model AND c.embedding IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM knowledge_vector v WHERE v.chunk_id = c.id AND v.model = :model)
ORDER BY c.id LIMIT :limit
"""
)
_POSTGRES_PUT: Final = text(
    """
INSERT INTO knowledge_vector (chunk_id, model, embedding) VALUES (:id, :model, CAST(:vector AS vector))
ON CONFLICT (chunk_id) DO UPDATE SET model = excluded.model, embedding = excluded.embedding
"""
)
_POSTGRES: Final = text(
    """
SELECT c.id, 1 - (v.embedding <=> CAST(:vector AS vector)) AS similarity
FROM knowledge_vector v JOIN knowledge_chunk c ON c.id = v.chunk_id
JOIN knowledge_source s ON s.id = c.source_id
WHERE s.company_id = :company AND s.embedding_model = :model AND v.model = :model
AND length(c.embedding) = :size
ORDER BY similarity DESC, c.id LIMIT :limit
"""
)


def unit(values: Sequence[float]) -> array[float]:
    """A vector of length 1 in the same direction. Raises ServiceError for one that has none."""
    try:
        vector = array("f", values)
    except (TypeError, OverflowError):
        raise _no_vector() from None
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not 0 < len(vector) <= MOST_DIMENSIONS or not math.isfinite(length) or not length:
        raise _no_vector()
    return array("f", (value / length for value in vector))


def pack(vector: array[float]) -> bytes:
    """As stored: little-endian float32."""
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return vector.tobytes()


def unpack(raw: bytes) -> array[float]:
    vector = array("f")
    vector.frombytes(raw[: len(raw) // 4 * 4])
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def put(session: Session, vectors: Mapping[int, bytes]) -> None:
    """Store vectors by the id of their piece."""
    if vectors:
        session.execute(
            update(KnowledgeChunk),
            [{"id": chunk_id, "embedding": raw} for chunk_id, raw in vectors.items()],
        )


class VectorSearch:
    """Ranks the pieces of a company by nearness. `vec_path`: another sqlite-vec than the one installed."""

    def __init__(self, vec_path: str = "") -> None:
        self._vec_path = vec_path
        self._ranking = ""
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], tuple[tuple[Any, ...], Any, Any]] = OrderedDict()

    async def ranking(self, database: Database) -> str:
        """Which of the three ways this database allows; found out once."""
        if not self._ranking:
            if database.where.is_sqlite:
                self._ranking = await database.read(self._on_sqlite)
            else:
                self._ranking = await self._on_postgres(database)
        return self._ranking

    async def nearest(
        self, database: Database, company_id: int, model: str, vector: array[float], limit: int
    ) -> list[tuple[int, float]]:
        """Ids of the company's pieces with their cosine similarity to a unit vector, nearest first."""
        ranking = await self.ranking(database)
        await self.catch_up(database, company_id, model)
        values = {"company": company_id, "model": model, "limit": limit, "size": 4 * len(vector)}

        def read(session: Session) -> list[tuple[int, float]]:
            if ranking == EXACT:
                return self._exact(session, company_id, model, vector, limit)
            if ranking == SQLITE_VEC:
                self._load(session)
                rows = session.execute(_SQLITE, {**values, "vector": pack(vector)}).all()
            else:
                rows = session.execute(_POSTGRES, {**values, "vector": _literal(vector)}).all()
            return [(int(row[0]), float(row[1])) for row in rows]

        return await database.read(read)

    def _on_sqlite(self, session: Session) -> str:
        try:
            self._load(session)
        except (ImportError, AttributeError, sqlite3.Error):
            return EXACT
        return SQLITE_VEC

    def _load(self, session: Session) -> None:
        """sqlite-vec into the connection of this session, unless it is there."""
        connection: Any = session.connection().connection.driver_connection
        try:
            connection.execute("SELECT vec_version()")
        except sqlite3.OperationalError:
            connection.enable_load_extension(True)
            try:
                connection.load_extension(self._vec_path or _installed())
            finally:
                connection.enable_load_extension(False)

    async def _on_postgres(self, database: Database) -> str:
        def offered(session: Session) -> bool:
            sql = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
            return session.execute(text(sql)).first() is not None

        def create(session: Session) -> None:
            for statement in _POSTGRES_TABLE:
                session.execute(text(statement))

        if not await database.read(offered):
            return EXACT
        try:
            await database.write(create)
        except ServiceError:  # the database's user may not
            return EXACT
        return PGVECTOR

    async def catch_up(self, database: Database, company_id: int, model: str) -> None:
        """Let what ranks know the vectors stored since; after each batch, so that no search waits for all."""
        if await self.ranking(database) != PGVECTOR:
            return
        values = {"company": company_id, "model": model, "limit": _BATCH}

        def copy(session: Session) -> int:
            rows = session.execute(_POSTGRES_MISSING, values).all()
            if rows:
                session.execute(
                    _POSTGRES_PUT,
                    [{"id": row[0], "model": model, "vector": _literal(unpack(row[1]))} for row in rows],
                )
            return len(rows)

        def missing(session: Session) -> bool:
            return session.execute(_POSTGRES_MISSING, {**values, "limit": 1}).first() is not None

        if await database.read(missing):
            while await database.write(copy) == _BATCH:
                pass

    def _exact(
        self, session: Session, company_id: int, model: str, vector: array[float], limit: int
    ) -> list[tuple[int, float]]:
        import numpy as np

        wanted = np.asarray(vector, dtype=np.float32)
        found: list[tuple[int, float]] = []
        for ids, matrix in self._matrices(session, company_id, model, len(vector)):
            near = matrix @ wanted
            count = min(limit, len(ids))
            best = np.argpartition(-near, count - 1)[:count]
            found += [(int(ids[place]), float(near[place])) for place in best]
            found = sorted(found, key=lambda pair: (-pair[1], pair[0]))[:limit]
        return found

    def _matrices(
        self, session: Session, company_id: int, model: str, dimensions: int
    ) -> Iterator[tuple[Any, Any]]:
        """Every vector of a company, one a row, with the ids of their pieces.

        As one matrix that is read again only when there are others; piece by piece where that would be too
        large to keep.
        """
        mine = (
            KnowledgeSource.company_id == company_id,
            KnowledgeSource.embedding_model == model,
            func.length(col(KnowledgeChunk.embedding)) == 4 * dimensions,
        )
        joined = col(KnowledgeSource.id) == col(KnowledgeChunk.source_id)
        number = col(KnowledgeChunk.id)
        facts = select(func.count(number), func.max(number), func.sum(number))
        stamp = (dimensions, *session.execute(facts.join(KnowledgeSource, joined).where(*mine)).one())
        key = (company_id, model)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        if kept is not None and kept[0] == stamp:
            yield kept[1], kept[2]
            return
        query = select(number, col(KnowledgeChunk.embedding)).join(KnowledgeSource, joined).where(*mine)
        if stamp[1] * dimensions * 4 > _KEPT_BYTES:
            for rows in session.execute(query).yield_per(_AT_ONCE).partitions():
                yield _matrix(rows, dimensions)
        elif stamp[1]:
            ids, matrix = _matrix(session.execute(query).all(), dimensions)
            with self._lock:
                self._kept[key] = (stamp, ids, matrix)
                self._kept.move_to_end(key)
                while sum(entry[2].nbytes for entry in self._kept.values()) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
            yield ids, matrix


def _matrix(rows: Sequence[Any], dimensions: int) -> tuple[Any, Any]:
    import numpy as np

    ids = np.array([row[0] for row in rows], dtype=np.int64)
    return ids, np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4").reshape(len(rows), dimensions)


def _installed() -> str:
    path: str = import_module("sqlite_vec").loadable_path()
    return path


def _literal(vector: array[float]) -> str:
    return "[" + ",".join(repr(value) for value in vector) + "]"


def _no_vector() -> ServiceError:
    return ServiceError(
        "The embedding endpoint sent something that is no vector",
        advice="Check that the address and the model are those of an embedding endpoint",
        code="wrong_shape",
    )
