"""The gateway for bookings. Partners that are spoken to directly come from their mapping files. Light."""

from __future__ import annotations

from typing import Final

from services.integrations.model import AdapterInfo, Kind

GATEWAY: Final = "http-bookings"

ADAPTERS: Final[tuple[AdapterInfo, ...]] = (
    AdapterInfo(
        GATEWAY,
        Kind.BOOKINGS,
        "Bookings by an HTTP service",
        secret="API key",  # noqa: S106  # what it is called
        secret_required=False,
        needs_url=True,
        config={
            "timezone": "The time zone of times without an offset, such as Europe/Berlin; UTC unless said"
        },
    ),
)
