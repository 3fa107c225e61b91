"""The adapters of the knowledge base. The local one is built in and needs no row."""

from __future__ import annotations

from typing import Final

from services.integrations.model import AdapterInfo, Kind

REMOTE: Final = "http-knowledge"
EMBEDDINGS: Final = "embeddings"

ADAPTERS: Final = (
    AdapterInfo(
        name=REMOTE,
        kind=Kind.KNOWLEDGE,
        title="A knowledge service over HTTP",
        secret="key",  # noqa: S106  # what its secret is called
        secret_required=False,
        needs_url=True,
    ),
    AdapterInfo(
        name=EMBEDDINGS,
        kind=Kind.KNOWLEDGE,
        title="An embedding endpoint (OpenAI-compatible)",
        secret="API key",  # noqa: S106  # what its secret is called
        secret_required=False,
        default_url="https://api.openai.com/v1",
        config={
            "model*": "the embedding model, such as text-embedding-3-small",
            "dimensions": "length of its vectors, where the model lets one choose",
            "least_similarity": "cosine below which a piece does not count as found (default 0)",
            "batch": "pieces in one request (default 64)",
        },
    ),
)
