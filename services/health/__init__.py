"""What the program depends on: watched all the time (the service), or examined once (the doctor).

Names are loaded on first use; nothing heavy is imported before a check runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.health.data import DatabaseCheck, SecretsCheck
    from services.health.doctor import Check, Finding, Level, examine, worst
    from services.health.integrated import Configured, IntegrationsCheck, redis
    from services.health.machine import (
        TerminalFacts,
        audio,
        bytecode,
        colours,
        locale,
        terminal,
        versions,
        webrtc,
    )
    from services.health.reach import Host, Network
    from services.health.service import HealthOptions, HealthService

__all__ = [
    "Check",
    "Configured",
    "DatabaseCheck",
    "Finding",
    "HealthOptions",
    "HealthService",
    "Host",
    "IntegrationsCheck",
    "Level",
    "Network",
    "SecretsCheck",
    "TerminalFacts",
    "audio",
    "bytecode",
    "colours",
    "examine",
    "locale",
    "redis",
    "terminal",
    "versions",
    "webrtc",
    "worst",
]

_HOMES = {
    "doctor": ("Check", "Finding", "Level", "examine", "worst"),
    "machine": ("TerminalFacts", "audio", "bytecode", "colours", "locale", "terminal", "versions", "webrtc"),
    "data": ("DatabaseCheck", "SecretsCheck"),
    "integrated": ("Configured", "IntegrationsCheck", "redis"),
    "reach": ("Host", "Network"),
    "service": ("HealthOptions", "HealthService"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
