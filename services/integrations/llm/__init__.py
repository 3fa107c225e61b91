"""Language models, and the orchestrator that routes requests to agents with their help.

Names are loaded on first use: adapters and model are light, the orchestrator brings SQLModel.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.integrations.llm.adapters import ADAPTERS
    from services.integrations.llm.clients import LlmClients
    from services.integrations.llm.embeddings import Embedder
    from services.integrations.llm.endpoints import Endpoints
    from services.integrations.llm.model import (
        Candidate,
        DecisionRow,
        DecisionSource,
        OrchestratorStats,
        Prices,
        Question,
        Reply,
        Usage,
    )
    from services.integrations.llm.orchestrator import Orchestrator

__all__ = [
    "ADAPTERS",
    "Candidate",
    "DecisionRow",
    "DecisionSource",
    "Embedder",
    "Endpoints",
    "LlmClients",
    "Orchestrator",
    "OrchestratorStats",
    "Prices",
    "Question",
    "Reply",
    "Usage",
]

_HOMES: Final = {
    "adapters": ("ADAPTERS",),
    "clients": ("LlmClients",),
    "embeddings": ("Embedder",),
    "endpoints": ("Endpoints",),
    "model": (
        "Candidate",
        "DecisionRow",
        "DecisionSource",
        "OrchestratorStats",
        "Prices",
        "Question",
        "Reply",
        "Usage",
    ),
    "orchestrator": ("Orchestrator",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
