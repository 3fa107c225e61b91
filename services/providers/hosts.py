"""Where the vendors answer. Imports nothing heavy.

Sources: the vendors' SDKs (Retell has one host; ElevenLabs one per data residency).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from services.model import Provider

GLOBAL: Final = "global"

_HOSTS: Final = MappingProxyType(
    {
        Provider.RETELL: {GLOBAL: "https://api.retellai.com"},
        Provider.ELEVENLABS: {
            GLOBAL: "https://api.elevenlabs.io",
            "us": "https://api.us.elevenlabs.io",
            "eu": "https://api.eu.residency.elevenlabs.io",
            "in": "https://api.in.residency.elevenlabs.io",
            "sg": "https://api.sg.residency.elevenlabs.io",
        },
    }
)

DEFAULT_BASE_URLS: Final = MappingProxyType({provider: hosts[GLOBAL] for provider, hosts in _HOSTS.items()})
"""The base URL of each vendor unless one is chosen, without a trailing slash."""

VENDOR_NAMES: Final = MappingProxyType({Provider.RETELL: "Retell", Provider.ELEVENLABS: "ElevenLabs"})
"""The vendors' names as people write them."""


def residency_hosts(provider: Provider) -> dict[str, str]:
    """The base URL of each data region of a vendor; `global` is always there."""
    return dict(_HOSTS[provider])
