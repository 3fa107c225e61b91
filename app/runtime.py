"""From settings to services: the one place where the program is wired."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from app.paths import Paths, paths_from
from app.settings import PASSPHRASE_VARIABLE, Settings, load_settings, secret_from, secret_service
from services.container import Services
from services.errors import ServiceError, UsageError
from services.options import ConsoleOptions, Gateway, ServiceOptions
from services.resilience import BreakerOptions, Limits
from services.storage import DatabaseLocation, Reader

DEMO_AGENTS = 24


def open_services(*, demo: bool = False, environ: Mapping[str, str] | None = None) -> Services:
    """The services of the configured data folder, or of the demo company. Opens nothing yet.

    Raises UsageError for wrong settings.
    """
    # httpx brings a command line of its own (click, pygments: 3 MB, 40 ms) when it can import it.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    environ = os.environ if environ is None else environ
    paths = paths_from(environ)
    settings = load_settings(paths, environ)
    options = _options(paths, settings, environ)

    def set_up_logs() -> None:
        from app import logs

        logs.set_up(paths.log_dir, settings.log_level)

    if not demo:
        return Services(options, settings=_console(settings, options), on_first_use=set_up_logs)
    from dataclasses import replace

    from services.demo import Demo

    location = DatabaseLocation(path=paths.demo_dir / "callboard.db")
    command = (sys.executable, "-P", "-m", "app", "simulator", "--agents", str(DEMO_AGENTS))
    return Services(
        replace(options, database=location, calls_folder=paths.demo_dir / "calls"),
        settings=_console(settings, options),
        real=lambda: open_services(environ=environ),
        demo=Demo(
            paths.demo_dir,
            (
                *(*command, "--latency", "60", "--exit-with-parent", "--announce", "json"),
                *("--memory", str(paths.demo_dir / "partners.json")),
            ),
        ),
        on_first_use=set_up_logs,
    )


def has_company(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the configured database holds a company; without one the console opens the demo.

    A database that cannot be read counts as having one: its error must be shown, not hidden by a demo.
    """
    environ = os.environ if environ is None else environ
    paths = paths_from(environ)
    reader = Reader(_location(paths, load_settings(paths, environ)))
    try:
        return bool(reader.rows("SELECT 1 FROM company LIMIT 1"))
    except ServiceError as error:
        return error.code != "missing_table"
    finally:
        reader.close()


def _location(paths: Paths, settings: Settings) -> DatabaseLocation:
    if settings.database_url:
        return DatabaseLocation.from_url(settings.database_url)
    return DatabaseLocation(path=paths.database_file)


def _options(paths: Paths, settings: Settings, environ: Mapping[str, str]) -> ServiceOptions:
    return ServiceOptions(
        database=_location(paths, settings),
        secrets_file=paths.secrets_file,
        secret_store=settings.secret_store,
        secret_service=secret_service(settings, paths),
        passphrase=secret_from(environ, PASSPHRASE_VARIABLE),
        timezone=settings.timezone or machine_zone(environ),
        stale_after_minutes=settings.stale_after,
        hourly_sync=settings.hourly_sync,
        daily_sync=None if settings.daily_sync == "off" else settings.daily_sync,
        concurrency=settings.concurrency,
        request_timeout_seconds=settings.request_timeout,
        list_cache_seconds=settings.list_cache,
        metrics_cache_seconds=settings.metrics_cache,
        calls_folder=paths.calls_dir,
        calls_keep_days=settings.calls_keep_days,
        messages_keep_days=settings.messages_keep_days,
        input_device=settings.input_device,
        output_device=settings.output_device,
        echo_cancellation=settings.echo_cancellation,
        client_tools=Path(settings.client_tools).expanduser() if settings.client_tools else None,
        redis_url=settings.redis_url,
        limits=Limits(
            minute=settings.limit_minute,
            hour=settings.limit_hour,
            day=settings.limit_day,
            burst=settings.limit_burst,
        ),
        breaker=BreakerOptions(
            failure_threshold=settings.breaker_failures,
            open_seconds=settings.breaker_open,
            success_threshold=settings.breaker_successes,
            half_open_concurrency=settings.breaker_trials,
        ),
        health=settings.health,
        health_interval_seconds=settings.health_interval,
        health_failures=settings.health_failures,
        gateways=gateways(environ),
        partners_folder=paths.data_dir / "partners",
    )


GATEWAYS = {
    "messages": "COMMUNICATIONS_API",
    "bookings": "INTEGRATION_API",
    "knowledge": "KNOWLEDGE_BASE_API",
    "crm": "CRM_API",
}
"""The environment variables `…_URL` and `…_KEY` of each kind of integration."""


def gateways(environ: Mapping[str, str]) -> dict[str, Gateway]:
    """The integrations that the environment names. Raises UsageError for a wrong address."""
    from services.http import normalize_base_url

    found = {}
    for kind, name in GATEWAYS.items():
        url = environ.get(f"{name}_URL", "").strip()
        if not url:
            continue
        try:
            address = normalize_base_url(url)
        except UsageError as error:
            raise UsageError(f"{name}_URL: {error.message}", advice=error.advice, code=error.code) from None
        found[kind] = Gateway(address, environ.get(f"{name}_KEY", "").strip())
    return found


def _console(settings: Settings, options: ServiceOptions) -> ConsoleOptions:
    return ConsoleOptions(
        stale_after=settings.stale_after,
        timezone=options.timezone,
        theme=settings.theme,
        ascii=settings.ascii,
        mouse=settings.mouse,
    )


def machine_zone(environ: Mapping[str, str]) -> str:
    """The IANA name of this machine's time zone; UTC when it has none that is known."""
    named = environ.get("TZ", "").lstrip(":")
    target = named or os.path.realpath("/etc/localtime").partition("zoneinfo/")[2]
    if not target:
        # tzlocal knows every other way a system may say it, and costs 25 ms to ask.
        from tzlocal import get_localzone_name

        target = get_localzone_name() or ""
    try:
        from zoneinfo import ZoneInfo

        return ZoneInfo(target).key if target else "UTC"
    except (KeyError, ValueError, OSError):
        return "UTC"
