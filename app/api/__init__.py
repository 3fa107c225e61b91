"""The HTTP API of `callboard serve`: health for monitors, metrics for Prometheus, webhooks of vendors.

Names are loaded on first use: FastAPI and uvicorn are imported only where the API is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.api.app import ApiOptions, create_app
    from app.api.server import ApiServer
    from app.api.token import find_token, make_token, needs_token

__all__ = ["ApiOptions", "ApiServer", "create_app", "find_token", "make_token", "needs_token"]

_HOMES = {
    "ApiOptions": "app",
    "create_app": "app",
    "ApiServer": "server",
    "find_token": "token",
    "make_token": "token",
    "needs_token": "token",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
