"""A company's knowledge base: documents in pieces, searched by words and by meaning, or a remote service.

Names are loaded on first use: adapters and model are light, the service brings SQLModel.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.integrations.knowledge.adapters import ADAPTERS
    from services.integrations.knowledge.model import (
        Answer,
        Hit,
        Ingested,
        KnowledgeStatus,
        Mode,
        Progress,
        Source,
        SourceKind,
    )
    from services.integrations.knowledge.service import KnowledgeService
    from services.integrations.knowledge.words import content_words, detect_language, same_stem

__all__ = [
    "ADAPTERS",
    "Answer",
    "Hit",
    "Ingested",
    "KnowledgeService",
    "KnowledgeStatus",
    "Mode",
    "Progress",
    "Source",
    "SourceKind",
    "content_words",
    "detect_language",
    "same_stem",
]

_HOMES: Final = {
    "adapters": ("ADAPTERS",),
    "model": ("Answer", "Hit", "Ingested", "KnowledgeStatus", "Mode", "Progress", "Source", "SourceKind"),
    "service": ("KnowledgeService",),
    "words": ("content_words", "detect_language", "same_stem"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
