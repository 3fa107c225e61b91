"""What the settings decide about the services and the screens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.resilience import BreakerOptions, Limits
from services.storage import DatabaseLocation


@dataclass(frozen=True, slots=True)
class Gateway:
    """A service named by environment variables such as `CRM_API_URL` and `CRM_API_KEY`."""

    url: str
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the settings decide about the services; times in the unit their name says."""

    database: DatabaseLocation
    secrets_file: Path
    secret_store: str = "auto"  # noqa: S105  # a choice, not a secret
    secret_service: str = "callboard"  # noqa: S105  # a name, not a secret
    """The name under which a keyring files our entries; differs per data folder."""
    passphrase: str | None = field(default=None, repr=False)
    timezone: str = "UTC"
    stale_after_minutes: int = 60
    hourly_sync: bool = True
    daily_sync: str | None = "02:00"
    concurrency: int | None = None
    request_timeout_seconds: float = 30.0
    list_cache_seconds: float = 60.0
    metrics_cache_seconds: float = 30.0
    calls_folder: Path | None = None
    """Where recordings of calls are kept; None for `calls` beside the secrets file."""
    calls_keep_days: int | None = None
    messages_keep_days: int = 90
    """Days for which the texts of messages are kept; 0 for ever."""
    input_device: str = ""
    output_device: str = ""
    echo_cancellation: bool = True
    client_tools: Path | None = None
    redis_url: str | None = field(default=None, repr=False)
    limits: Limits = Limits()  # noqa: RUF009  # immutable
    """Of each account, agent and user."""
    breaker: BreakerOptions = BreakerOptions()  # noqa: RUF009  # immutable
    """Of each vendor and integration."""
    health: bool = True
    health_interval_seconds: float = 30.0
    health_failures: int = 2
    partners_folder: Path | None = None
    """Where the operator's own mapping files of booking partners are."""
    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    """Services of the environment that stand in where a company configured none, by kind of integration."""


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """What the settings decide about the screens."""

    stale_after: int = 60
    """Minutes after which an agent counts as stale."""
    timezone: str = "UTC"
    theme: str = "textual-dark"
    ascii: bool = False
    mouse: bool = True
