"""What a transport needs to reach a vendor."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.model import Provider
from services.resilience import Policy


@dataclass(frozen=True, slots=True)
class VendorAccess:
    """A company's way to one vendor: base URL without a trailing slash, and the key, which is never shown."""

    provider: Provider
    base_url: str
    key: str = field(repr=False)
    residency: str = "global"
    policy: Policy | None = field(default=None, repr=False, compare=False)
    """What requests go through; None where there is no connection whose policy it could be."""
