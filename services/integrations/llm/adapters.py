"""The adapters of language models."""

from __future__ import annotations

from typing import Final

from services.integrations.model import AdapterInfo, Kind

OPENAI: Final = "openai"
ANTHROPIC: Final = "anthropic"

_CONFIG: Final = {
    "model*": "which of its models decides",
    "price_in": "price of a million tokens read; without prices a decision's cost is unknown",
    "price_out": "price of a million tokens written",
    "currency": "of the prices (default USD)",
    "max_tokens": "tokens one answer may have (default 512)",
}

ADAPTERS: Final = (
    AdapterInfo(
        name=OPENAI,
        kind=Kind.LLM,
        title="A language model by the API of OpenAI (any compatible address)",
        secret="API key",  # noqa: S106  # what its secret is called
        secret_required=False,
        default_url="https://api.openai.com/v1",
        config=_CONFIG,
    ),
    AdapterInfo(
        name=ANTHROPIC,
        kind=Kind.LLM,
        title="A language model of Anthropic",
        secret="API key",  # noqa: S106  # what its secret is called
        default_url="https://api.anthropic.com",
        config=_CONFIG,
    ),
)
