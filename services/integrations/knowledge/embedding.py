"""Vectors for pieces and questions: made in batches, taken up again where they were left."""

from __future__ import annotations

from functools import partial

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from services.errors import ServiceError
from services.integrations.knowledge import vectors
from services.integrations.knowledge.model import OnProgress, Progress
from services.integrations.knowledge.vectors import VectorSearch, pack, unit
from services.integrations.llm.embeddings import Embedder
from services.resilience import Subject
from services.storage import Database
from services.storage.tables import KnowledgeChunk, KnowledgeSource


class Embedding:
    """One embedding endpoint at work on the knowledge base."""

    def __init__(self, embedder: Embedder, search: VectorSearch) -> None:
        self._embedder = embedder
        self._search = search

    async def complete(
        self, database: Database, source_id: int, company_id: int, company: str, progress: OnProgress
    ) -> bool:
        """Give every piece of a source a vector of the model in use; whether any was made.

        Each batch is stored at once: whoever is cancelled goes on there next time. Raises ServiceError.
        """
        model, batch = self._embedder.model, self._embedder.batch

        def begin(session: Session) -> tuple[str, int, int]:
            row = session.get(KnowledgeSource, source_id)
            if row is None:
                return "", 0, 0
            pieces = col(KnowledgeChunk.source_id) == source_id
            if row.embedding_model != model:
                # Vectors of two models do not compare; a source has those of one only.
                session.execute(update(KnowledgeChunk).where(pieces).values(embedding=None))
                row.embedding_model = model
                session.add(row)
            empty = col(KnowledgeChunk.embedding).is_(None)
            left = session.execute(select(func.count()).where(pieces, empty)).scalar_one()
            return row.title, row.chunk_count, int(left)

        def following(session: Session) -> list[tuple[int, str, str]]:
            query = (
                select(KnowledgeChunk.id, KnowledgeChunk.heading, KnowledgeChunk.text)
                .where(KnowledgeChunk.source_id == source_id, col(KnowledgeChunk.embedding).is_(None))
                .order_by(col(KnowledgeChunk.ordinal))
                .limit(batch)
            )
            return [(row[0] or 0, row[1], row[2]) for row in session.execute(query)]

        _, total, left = await database.write(begin)
        made = 0
        while left > made:
            progress(Progress("embedding", total - left + made, total))
            rows = await database.read(following)
            if not rows:
                break
            texts = [f"{heading}\n\n{text}" if heading else text for _, heading, text in rows]
            waiting = Progress("waiting for room in the limits", total - left + made, total)
            # Where our own limit has no room, as soon as it has.
            await self._embedder.policy.take(
                Subject(account=company), on_wait=partial(_tell, progress, waiting)
            )
            found = await self._embedder.embed(texts, unit)
            raw = {row[0]: pack(vector) for row, vector in zip(rows, found, strict=True)}

            def put(session: Session, raw: dict[int, bytes] = raw) -> None:
                there = select(KnowledgeChunk.id).where(col(KnowledgeChunk.id).in_(list(raw)))
                vectors.put(session, {number: raw[number] for number in session.exec(there) if number})

            await database.write(put)
            await self._search.catch_up(database, company_id, model)
            made += len(rows)
            progress(Progress("embedding", total - left + made, total))
        return made > 0

    async def nearest(
        self, database: Database, company_id: int, company: str, question: str, limit: int
    ) -> tuple[list[tuple[int, float]], str]:
        """Pieces nearest to a question with their similarity, and why there may be more (empty: no more).

        Raises ServiceError when the endpoint does not answer.
        """
        model = self._embedder.model

        def count(session: Session) -> tuple[int, int]:
            query = (
                select(func.count(col(KnowledgeChunk.id)), func.count(col(KnowledgeChunk.embedding)))
                .join(KnowledgeSource, col(KnowledgeSource.id) == col(KnowledgeChunk.source_id))
                .where(KnowledgeSource.company_id == company_id)
            )
            total = session.execute(query).one()[0]
            usable = session.execute(query.where(KnowledgeSource.embedding_model == model)).one()[1]
            return int(total), int(usable)

        total, usable = await database.read(count)
        lacking = total - usable
        note = ""
        if lacking:
            note = f"{lacking} of {total} pieces have no vector of {model} yet: callboard knowledge refresh"
        if not usable:
            return [], note
        [vector] = await self._embedder.embed([question], unit, subject=Subject(account=company))
        found = await self._search.nearest(database, company_id, model, vector, limit)
        return [pair for pair in found if pair[1] > self._embedder.least], note


def _tell(progress: OnProgress, waiting: Progress, refusal: ServiceError) -> None:
    progress(waiting)
