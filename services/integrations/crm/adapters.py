"""The customer-relations systems that can be configured. Light."""

from __future__ import annotations

from typing import Final

from services.integrations.model import AdapterInfo, Kind

GENERIC: Final = "http-crm"
HUBSPOT: Final = "hubspot"

ADAPTERS: Final[tuple[AdapterInfo, ...]] = (
    AdapterInfo(
        GENERIC,
        Kind.CRM,
        "A CRM by an HTTP service",
        secret="API key",  # noqa: S106  # what it is called
        secret_required=False,
        needs_url=True,
    ),
    AdapterInfo(
        HUBSPOT,
        Kind.CRM,
        "HubSpot",
        secret="private-app token",  # noqa: S106
        default_url="https://api.hubapi.com",
        config={
            "api": "The version of its paths: v3 (unless said otherwise), or a dated one such as 2026-09",
            "pipeline": "The pipeline of new deals, by its internal name",
            "stage": "The stage of new deals, by its internal name",
        },
    ),
)
