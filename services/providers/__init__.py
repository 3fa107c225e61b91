"""The vendors' read APIs: wire JSON out, one error type, bounded and retried requests.

Names are loaded on first use: the hosts are light, the clients bring httpx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.providers.client import Account
    from services.providers.elevenlabs import ElevenLabsClient
    from services.providers.hosts import DEFAULT_BASE_URLS, VENDOR_NAMES, residency_hosts
    from services.providers.opening import DEFAULT_CONCURRENCY, open_client
    from services.providers.retell import RetellClient

__all__ = [
    "DEFAULT_BASE_URLS",
    "DEFAULT_CONCURRENCY",
    "VENDOR_NAMES",
    "Account",
    "ElevenLabsClient",
    "RetellClient",
    "open_client",
    "residency_hosts",
]

_HOME: Final = {
    "Account": "client",
    "DEFAULT_BASE_URLS": "hosts",
    "DEFAULT_CONCURRENCY": "opening",
    "ElevenLabsClient": "elevenlabs",
    "RetellClient": "retell",
    "VENDOR_NAMES": "hosts",
    "open_client": "opening",
    "residency_hosts": "hosts",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
