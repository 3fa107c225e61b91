"""JSON over HTTP for every client of the program: pooled, bounded requests with one kind of error.

Names are loaded on first use: addresses and wire documents are light, the client brings httpx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.http.addresses import is_loopback, normalize_base_url
    from services.http.cache import SharedCache
    from services.http.client import Call, Http, HttpOptions, segment
    from services.http.places import ClientStats
    from services.http.wire import Page, Wire, digest, parse, parse_page, wrong_shape

__all__ = [
    "Call",
    "ClientStats",
    "Http",
    "HttpOptions",
    "Page",
    "SharedCache",
    "Wire",
    "digest",
    "is_loopback",
    "normalize_base_url",
    "parse",
    "parse_page",
    "segment",
    "wrong_shape",
]

_HOMES: Final = {
    "addresses": ("is_loopback", "normalize_base_url"),
    "cache": ("SharedCache",),
    "client": ("Call", "Http", "HttpOptions", "segment"),
    "places": ("ClientStats",),
    "wire": ("Page", "Wire", "digest", "parse", "parse_page", "wrong_shape"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
