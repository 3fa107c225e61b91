"""What a knowledge base is made of and what it answers. Times are epoch milliseconds, UTC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from services.errors import ServiceError


class SourceKind(StrEnum):
    """How a document came in, and so whether it can be read again."""

    FILE = "file"
    URL = "url"
    TEXT = "text"
    REMOTE = "remote"


class Mode(StrEnum):
    """How an answer was found."""

    TEXT = "text"
    BOTH = "text+vectors"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Source:
    """One document of a company's knowledge base. `id` is a number here and any word at a remote service."""

    id: str
    company: str
    title: str
    kind: SourceKind
    uri: str
    media_type: str = ""
    size: int = 0
    """Bytes of the original."""
    chunks: int = 0
    embedding_model: str = ""
    """Empty until every piece has a vector."""
    created_at: int = 0
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one document that was to be taken in."""

    source: Source
    changed: bool = True
    """False when the very same text was there already: nothing was written."""
    degraded: str = ""
    """Why it has no vectors although an embedding endpoint is configured; empty when all is well."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One piece of an answer.

    `score` is from 0 to 1 and comparable within its answer only. `bm25` (higher is better) and `similarity`
    (cosine) say what the two rankings thought of it; None where it was not in that one.
    """

    text: str
    heading: str
    title: str
    uri: str
    score: float
    ordinal: int
    source_id: str = ""
    bm25: float | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The pieces that answer a question best, best first.

    `origin` says who found them: `local`, or the name of the remote service.
    """

    hits: tuple[Hit, ...]
    mode: Mode
    origin: str = "local"
    degraded: str = ""
    """Why it is less than it could be (an endpoint or a service is down); empty when all is well."""
    failure: ServiceError | None = None
    """What failed, where an endpoint or a service did."""
    age: float | None = None
    """Seconds since it was found, where it is an earlier answer; None when it was looked for just now."""


@dataclass(frozen=True, slots=True)
class KnowledgeStatus:
    """A company's knowledge base at one moment."""

    sources: int
    chunks: int
    embedded: int
    """Pieces with a vector of the model in use."""
    model: str
    """The embedding model in use; empty without one."""
    ranking: str
    """How vectors are ranked: `sqlite-vec`, `pgvector`, `exact (numpy)`; empty without vectors."""
    remote: str
    """The name of the remote service that is used instead; empty without one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one document is. `step`: `reading`, `writing`, `embedding`, what is waited for; `total` is 0
    while unknown."""

    step: str
    done: int = 0
    total: int = 0


OnProgress = Callable[[Progress], None]


def unheard(progress: Progress) -> None:
    """For those who do not ask how far it is."""
