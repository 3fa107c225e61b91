"""Companies, their connections to vendors, and the clients those connections open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.companies.clients import ConnectionClients
    from services.companies.service import CompanyService, ConnectionCheck

__all__ = ["CompanyService", "ConnectionCheck", "ConnectionClients"]


def __getattr__(name: str) -> Any:
    if name == "ConnectionClients":
        from services.companies.clients import ConnectionClients

        return ConnectionClients
    if name in ("CompanyService", "ConnectionCheck"):
        from services.companies import service

        return getattr(service, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
