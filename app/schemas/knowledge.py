"""The contracts of the knowledge base and of the orchestrator."""

from __future__ import annotations

from app.schemas.shapes import COUNT, ERROR, FLAG, TEXT, TIME, Schema, list_of, object_of, one_of, or_null
from services.integrations.knowledge.model import Mode, SourceKind
from services.integrations.llm.model import DecisionSource

NUMBER: Schema = {"type": "number"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
DEGRADED: Schema = {**TEXT, "description": "why it is less than it could be; empty when all is well"}

SOURCE = object_of(
    {
        "id": TEXT,
        "title": TEXT,
        "kind": one_of(SourceKind),
        "uri": TEXT,
        "media_type": TEXT,
        "size": {**COUNT, "description": "bytes of the original"},
        "chunks": {**COUNT, "description": "pieces it was cut into"},
        "embedding_model": {**TEXT, "description": "the model of its vectors; empty without"},
        "created_at": or_null(TIME),
        "updated_at": or_null(TIME),
    }
)
INGESTED = object_of(
    {
        "given": {**TEXT, "description": "what was to be taken in"},
        "source": or_null(SOURCE),
        "changed": {**FLAG, "description": "false when the very same text was there already"},
        "degraded": DEGRADED,
        "error": or_null(ERROR),
    }
)
HIT = object_of(
    {
        "text": TEXT,
        "heading": {**TEXT, "description": "the headings above it"},
        "title": {**TEXT, "description": "the source's"},
        "uri": TEXT,
        "source_id": TEXT,
        "ordinal": {**COUNT, "description": "its place in the source"},
        "score": {**NUMBER, "description": "comparable within this answer only"},
        "bm25": or_null({**NUMBER, "description": "how well its words fit; null when they do not"}),
        "similarity": or_null({**NUMBER, "description": "cosine of the vectors; null without"}),
    }
)
STATUS = object_of(
    {
        "sources": COUNT,
        "chunks": COUNT,
        "embedded": {**COUNT, "description": "pieces with a vector of the model in use"},
        "model": {**TEXT, "description": "the embedding model in use; empty without"},
        "ranking": {**TEXT, "description": "how vectors are ranked; empty without"},
        "remote": {**TEXT, "description": "the service that is used instead; empty without"},
    }
)
DECISION = object_of(
    {
        "id": TEXT,
        "company": TEXT,
        "at": TIME,
        "actor": TEXT,
        "request": {**TEXT, "description": "secrets masked, cut to 2,000 characters"},
        "agent": or_null(
            object_of(
                {
                    "id": or_null({**COUNT, "description": "the mirror's own id; null once it is gone"}),
                    "agent_id": {**TEXT, "description": "the vendor's id"},
                    "name": TEXT,
                },
                description="null when nobody fits",
            )
        ),
        "reason": TEXT,
        "confidence": or_null(SHARE),
        "source": one_of(DecisionSource),
        "model": TEXT,
        "integration": or_null(
            {**TEXT, "description": "whose model was asked; null without one, and of past decisions"}
        ),
        "tokens_in": or_null(COUNT),
        "tokens_out": or_null(COUNT),
        "cost": or_null({**NUMBER, "description": "null where a price or a count is not known"}),
        "currency": TEXT,
        "took_ms": COUNT,
        "simulated": FLAG,
        "degraded": DEGRADED,
        "error": or_null(
            {**ERROR, "description": "why the model did not decide, or had not all of the documents"}
        ),
    }
)
ORCHESTRATOR = object_of(
    {
        "endpoint": {**TEXT, "description": "the language model in use; empty without"},
        "simulated": {**FLAG, "description": "the model is a simulation, as in the demo"},
        "decisions_24h": COUNT,
        "success_share": or_null({**SHARE, "description": "decided by the model"}),
        "fallback_share": or_null({**SHARE, "description": "decided by rules"}),
        "p95_ms": or_null(COUNT),
        "tokens_today": COUNT,
        "cost_today": {"type": "object", "additionalProperties": NUMBER, "description": "by currency"},
        "cost_unknown_today": {**COUNT, "description": "decisions whose cost is not known"},
    }
)

SUMMARIES: dict[str, str] = {
    "knowledge-added": "callboard knowledge add, callboard knowledge refresh",
    "knowledge": "callboard knowledge list",
    "knowledge-answer": "callboard knowledge search",
    "knowledge-source": "callboard knowledge remove",
    "decision": "callboard route",
    "decisions": "callboard route --decisions",
}
SCHEMAS: dict[str, Schema] = {
    "knowledge-added": object_of({"company": TEXT, "results": list_of(INGESTED)}),
    "knowledge": object_of({"company": TEXT, "sources": list_of(SOURCE), "status": STATUS}),
    "knowledge-answer": object_of(
        {
            "company": TEXT,
            "query": TEXT,
            "mode": one_of(Mode),
            "origin": {**TEXT, "description": "`local`, or the name of the remote service"},
            "degraded": DEGRADED,
            "age_seconds": or_null(
                {**COUNT, "description": "of an earlier answer that stands in; null when it was just found"}
            ),
            "hits": list_of(HIT),
        }
    ),
    "knowledge-source": object_of({"company": TEXT, "source": SOURCE}),
    "decision": object_of({"decision": DECISION}),
    "decisions": object_of({"decisions": list_of(DECISION), "orchestrator": ORCHESTRATOR}),
}
