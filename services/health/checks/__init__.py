"""What is checked and how: one module for each kind of thing. Names are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.health.checks.catalog import CatalogOptions, StandardCatalog

__all__ = ["CatalogOptions", "StandardCatalog"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from services.health.checks import catalog

        return getattr(catalog, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
