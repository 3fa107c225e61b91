"""`callboard serve`: the schedule, the health checks and, with `--port`, the HTTP API; without a screen.

It runs until SIGTERM, Ctrl-C or SIGHUP. One line on standard output for every scheduled sync that ended; the
detail of failures is in the sync log. Any number of these and of open consoles share the work of one
database: each due sync runs once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

from app.commands._run import on_first_signal, with_services
from app.commands._secrets import unlocked
from app.commands._serve_report import Reporter
from app.output import ExitCode, emit_json, say, write_line
from services.errors import UsageError

if TYPE_CHECKING:
    import socket

    from app.parsing import Subparsers
    from services.container import Services
    from services.security import Secret, SecretStore

DESCRIPTION = """\
Run without a screen: the schedule (hourly what is stale, once a day everything: settings hourly_sync,
daily_sync and timezone), the health checks, and with --port the HTTP API. Runs until Ctrl-C or SIGTERM. With
several on one database, or a console beside it, each sync still happens exactly once, and what was missed
while nothing ran is made up once.

The API: /health/ (200 healthy or degraded, 503 unhealthy), /health/agents, /health/agents/NAME,
/health/orchestrator, /health/dependencies, /livez, /readyz, /metrics, /openapi.json. Everything that says
more than up or down needs Authorization: Bearer TOKEN. The token is CALLBOARD_API_TOKEN, what is in the file
that CALLBOARD_API_TOKEN_FILE names, or the one that --new-token made.
"""
EXAMPLES = """\
examples:
  callboard serve
  callboard serve --new-token          make a token, print it once
  callboard serve --port 8470          and the API on 127.0.0.1; 0 chooses a port
  callboard serve --host 0.0.0.0 --port 8470
  callboard serve --port 8470 --public-url https://callboard.example.com
  callboard serve --print-unit         a unit for systemd
  callboard serve --json               one JSON object a line, for a log collector

exit codes: 0 stopped by a signal, 1 the database or the port cannot be opened, 2 nothing to do, or a public
address without a token, 5 the secret store needs its passphrase
"""
LOOPBACK = "127.0.0.1"


class _Health(Protocol):
    """Probes everything from `start` to `aclose`."""

    async def start(self) -> object: ...
    async def aclose(self) -> object: ...


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="run the schedule, the health checks and the HTTP API without a screen",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", help="serve the HTTP API on this port; 0 chooses one"
    )
    parser.add_argument("--host", metavar="HOST", help=f"the address it listens on (default {LOOPBACK})")
    parser.add_argument(
        "--public-url",
        type=_public_url,
        metavar="URL",
        help="the address that a reverse proxy on this machine gives it; webhooks are checked against it",
    )
    parser.add_argument("--new-token", action="store_true", help="make a token for the API, print it, end")
    parser.add_argument("--print-unit", action="store_true", help="print a unit for systemd, end")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: Namespace) -> int:
    if args.print_unit:
        return _print_unit()
    if args.port is None and (args.host or args.public_url):
        raise UsageError(
            "--host and --public-url are about the HTTP API, which --port turns on",
            advice="Add --port, for example --port 8470",
            code="no_port",
        )
    if args.new_token:
        return with_services(args, lambda services: _new_token(services, args))
    return with_services(args, lambda services: _serve(services, args, os.environ), vendors=True)


async def _serve(services: Services, args: Namespace, environ: Mapping[str, str]) -> int:
    health = _health_of(services)
    if not (services.schedule.upcoming() or health or args.port is not None):
        raise UsageError(
            "Every schedule and the health checks are switched off, there is nothing to run",
            advice="set hourly_sync = true, health = true or a time for daily_sync; "
            "callboard config show lists them",
            code="nothing_scheduled",
        )
    from app.api.systemd import Notifier

    stop = asyncio.Event()
    with on_first_signal(lambda _: stop.set(), "SIGINT", "SIGTERM", "SIGHUP"):
        connected = bool(await services.companies.connections())
        if connected:
            await unlocked(services)
        reporter = Reporter(services, stop, as_json=args.json)
        async with AsyncExitStack() as running:
            api = await _listening(services, args, environ, running) if args.port is not None else None
            if not connected:
                say("No company has a connection yet: each sync finds nothing to do until one is added.")
            reporter.started()
            running.enter_context(reporter.listening())
            running.push_async_callback(services.schedule.aclose)
            if health is not None:
                running.push_async_callback(health.aclose)
            if api is not None:
                server, has_token = api
                running.push_async_callback(server.aclose)
                await server.start()
                reporter.listens(server.urls, token=has_token)
            if health is not None:
                await health.start()
            if messages := getattr(services, "messages", None):
                await messages.start()  # closed with the services
            if care := getattr(services, "order_care", None):
                care.start()
            await services.schedule.start()
            reporter.changed()
            notifier = Notifier(environ)
            running.push_async_callback(notifier.aclose)
            await notifier.ready(", ".join(api[0].urls) if api else "the schedule")
            await stop.wait()
        reporter.stopped()
    if reporter.reader_gone:
        raise BrokenPipeError
    return ExitCode.DONE


def _health_of(services: Services) -> _Health | None:
    """The health checks, where they are switched on."""
    return getattr(services, "health", None) if services.options.health else None


async def _listening(
    services: Services, args: Namespace, environ: Mapping[str, str], running: AsyncExitStack
) -> tuple[Any, bool]:
    """The server on its bound sockets, not answering yet, and whether there is a token."""
    from app.api import ApiOptions, ApiServer, create_app
    from app.api.server import listen
    from app.api.token import addresses_of, needs_token, refuse_public

    host = args.host or LOOPBACK
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]  # an IPv6 address as it stands in a URL
    addresses = await addresses_of(host, args.port)
    token = await _token(services, environ)
    if needs_token(addresses) and not token:
        raise refuse_public(host)
    sockets: list[socket.socket] = listen(addresses, args.port)
    for each in sockets:
        running.callback(each.close)
    hosts = None if token else frozenset({"localhost", host.lower(), *(address for _, address in addresses)})
    options = ApiOptions(
        token=token, public_url=args.public_url or "", hosts=hosts, health=_health_of(services) is not None
    )
    return ApiServer(create_app(services, options), sockets), bool(token)


async def _token(services: Services, environ: Mapping[str, str]) -> Secret | None:
    """The token in force; one in a locked secret store is asked for only where there can be one."""
    from app.api import find_token
    from app.api.token import token_of

    found = token_of(environ)
    if found:
        return found
    store: SecretStore = await services.open_secrets()
    if store.locked:
        if getattr(store, "is_new", False):
            return None
        store = await unlocked(services)
    return await find_token(environ, store)


async def _new_token(services: Services, args: Namespace) -> int:
    from app.api import make_token
    from app.settings import IN_FILE, TOKEN_VARIABLE

    if services.demo is not None:
        raise UsageError(
            "The demo keeps no token: its keys are forgotten at its end",
            advice=f"Give it one in {TOKEN_VARIABLE}",
            code="demo",
        )
    store = await unlocked(services)
    token = await make_token(services, store, "operator")
    if args.json:
        emit_json("api-token", {"token": token.reveal()})
    else:
        write_line(token.reveal())
    say(f"Kept in the {store.label}; it is not shown again. A server that runs takes it at its next start.")
    for name in (TOKEN_VARIABLE, TOKEN_VARIABLE + IN_FILE):
        if os.environ.get(name):
            say(f"{name} is set here, and goes before it.")
    return ExitCode.DONE


def _print_unit() -> int:
    """The unit, with the command that is running in it."""
    import shutil
    from importlib import resources
    from pathlib import Path

    given = shutil.which(sys.argv[0]) if Path(sys.argv[0]).name == "callboard" else None
    command = str(Path(given).absolute()) if given else f"{sys.executable} -P -m app"
    text = (resources.files("app.api") / "callboard.service").read_text(encoding="utf-8")
    write_line(text.replace("@CALLBOARD@", command).rstrip("\n"))
    if any(Path(place).parts[1:2] in (("home",), ("root",)) for place in (command, sys.prefix)):
        say(f"{command} is in somebody's home, where the service may not look.")
        say("Install Callboard for the machine first, for example below /opt/callboard.")
    return ExitCode.DONE


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise ArgumentTypeError(f"{text!r} is no port; allowed is 0 to 65535")
    return port


def _public_url(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username:
        raise ArgumentTypeError("it must be an address such as https://callboard.example.com")
    return text.rstrip("/")
