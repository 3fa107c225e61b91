"""`callboard doctor`: what this machine has and lacks for the program, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.output import ExitCode, emit_json, is_terminal, paint, terminal_width, write_line
from services.errors import ServiceError, UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from app.paths import Paths
    from app.settings import Loaded
    from services.health import Check, Configured, Finding, Host, Network, TerminalFacts
    from services.security import SecretStore
    from services.storage import DatabaseLocation

GLYPHS = {"ok": "●", "warn": "▲", "fail": "✗"}
STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
HOSTS_SECONDS = 1.5
EXAMPLES = """\
Checks versions, settings, secret store, database, Redis, integrations, audio, terminal, clock and network,
and says what to do about each problem. Nothing is changed, and no service is asked with a key (integration
test does that). Exit code 1 when something failed; warnings are 0.

examples:
  callboard doctor
  callboard doctor --json
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor", help="check this machine and say what to do about each problem", epilog=EXAMPLES
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    findings = asyncio.run(_examine())
    from services.health import Level, worst

    level = worst(findings)
    if args.json:
        emit_json("doctor", {"status": level.value, "findings": [finding.as_dict() for finding in findings]})
    else:
        _print(findings)
    return ExitCode.FAILED if level is Level.FAIL else ExitCode.DONE


def _print(findings: list[Finding]) -> None:
    """Aligned lines; the glyph is for eyes, the word is always there."""
    looked_at = is_terminal(sys.stdout)
    glyphs = GLYPHS if looked_at and (sys.stdout.encoding or "").lower().startswith("utf") else {}
    width = max(len(finding.name) for finding in findings)
    room = terminal_width(sys.stdout) if looked_at else None
    for finding in findings:
        word = finding.level.value
        mark = f"{glyphs[word]} {word:<4}" if glyphs else f"{word:<4}"
        indent = " " * (len(mark) + width + 4)
        first, *rest = _wrapped(finding.found, room, indent)
        write_line(f"{paint(mark, STYLES[word])}  {finding.name:<{width}}  {first}")
        for line in rest:
            write_line(indent + line)
        for line in _wrapped(finding.advice, room, indent) if finding.advice else ():
            write_line(indent + paint(line, "dim"))


def _wrapped(text: str, room: int | None, indent: str) -> list[str]:
    """The text in lines that fit beside the indent; one line where nobody looks."""
    from textwrap import wrap

    line = clean_line(text)
    if room is None:
        return [line]
    return wrap(line, max(room - len(indent), 30), break_long_words=False, break_on_hyphens=False) or [""]


async def _examine() -> list[Finding]:
    from app import paths as paths_module
    from app.settings import read_settings
    from services.blocking import in_daemon_thread
    from services.clock import SystemClock
    from services.health import Network, examine

    paths = paths_module.paths_from(os.environ)
    loaded = read_settings(paths, os.environ)
    database = await asyncio.to_thread(_location, paths, loaded)
    try:
        hosts, around = await in_daemon_thread(lambda: _stored(paths, database), HOSTS_SECONDS)
    except TimeoutError:  # a database that is silent is told by its own check
        hosts, around = _stored(paths, None)
    around += _environment(os.environ)
    hosts += [each.host for each in around if each.host is not None]
    network = Network(hosts, os.environ, SystemClock())
    try:
        return await examine(_checks(paths, loaded, database, network, around))
    finally:
        await network.aclose()


def _checks(
    paths: Paths,
    loaded: Loaded,
    database: DatabaseLocation | None,
    network: Network,
    around: list[Configured],
) -> list[Check]:
    from app import __version__
    from services import health
    from services.clock import SystemClock
    from services.health import Check

    facts = _terminal_facts()
    package = Path(__file__).resolve().parent.parent
    open_secrets = _Once(partial(_open_secrets, paths, loaded))
    secrets = health.SecretsCheck(open_secrets, paths.secrets_file)
    keyring_advice = 'Answer the window that asks for its password, or set secret_store = "file"'
    writes = not sys.dont_write_bytecode
    checks = [
        Check("program", partial(health.versions, __version__)),
        Check("bytecode", partial(health.bytecode, package, os.environ, writes)),
        Check("settings", partial(_settings, paths, loaded)),
        Check("secrets", secrets, keyring_advice),
    ]
    if database is not None:
        slow = "Check that the database server answers, or that the disk does"
        checks.append(Check("database", health.DatabaseCheck(database), slow))
    if loaded.settings.redis_url:
        checks.append(Check("redis", partial(health.redis, loaded.settings.redis_url, SystemClock())))
    return [
        *checks,
        Check("integrations", health.IntegrationsCheck(around, open_secrets), keyring_advice),
        Check("audio", health.audio),
        Check("webrtc", health.webrtc),
        Check("terminal", partial(health.terminal, facts, os.environ)),
        Check("colours", partial(health.colours, os.environ)),
        Check("locale", partial(health.locale, facts, os.environ)),
        Check("time zone", partial(network.zone, loaded.settings.timezone)),
        Check("clock", network.clock),
        Check("network", network.hosts),
    ]


async def _settings(paths: Paths, loaded: Loaded) -> list[Finding]:
    from services.health import Finding, Level

    if loaded.problems:
        return [Finding("settings", Level.FAIL, error.message, error.advice) for error in loaded.problems]
    there = await asyncio.to_thread(paths.config_file.is_file)
    changed = sum(origin != "default" for origin in loaded.origins.values())
    found = str(paths.config_file) if there else f"no file at {paths.config_file} (none is needed)"
    what = f"{changed} set, the others have their default" if changed else "the defaults are in force"
    return [Finding("settings", Level.OK, f"{found}; {what}")]


async def _open_secrets(paths: Paths, loaded: Loaded) -> SecretStore:
    from app.settings import PASSPHRASE_VARIABLE, secret_from, secret_service
    from services.security import open_store

    # Giving the passphrase to a file that is not there would make the file.
    there = await asyncio.to_thread(paths.secrets_file.exists)
    return await open_store(
        loaded.settings.secret_store,
        file=paths.secrets_file,
        passphrase=secret_from(os.environ, PASSPHRASE_VARIABLE) if there else None,
        service=secret_service(loaded.settings, paths),
    )


def _location(paths: Paths, loaded: Loaded) -> DatabaseLocation | None:
    """Where the database is; None when the address is wrong, which is among the settings' problems."""
    from services.storage import DatabaseLocation

    if any("database_url" in error.message.lower() for error in loaded.problems):
        return None
    try:
        url = loaded.settings.database_url
        return DatabaseLocation.from_url(url) if url else DatabaseLocation(path=paths.database_file)
    except ServiceError:
        return None


class _Once:
    """Opens the secret store for all checks: deriving its key takes its time, a keyring may ask."""

    def __init__(self, work: Callable[[], Awaitable[SecretStore]]) -> None:
        self._work = work
        self._task: asyncio.Task[SecretStore] | None = None

    async def __call__(self) -> SecretStore:
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())
        return await asyncio.shield(self._task)


def _stored(paths: Paths, database: DatabaseLocation | None) -> tuple[list[Host], list[Configured]]:
    """The addresses of connections and the integrations of the database; takes its time."""
    from services.health.integrated import QUERY, stored
    from services.integrations.adapters import adapters_of
    from services.storage import Reader

    connections: list[tuple[Any, ...]] = []
    integrations: list[tuple[Any, ...]] = []
    if database is not None:
        reader = Reader(database)
        try:
            query = "SELECT DISTINCT provider, base_url FROM connection WHERE base_url <> ''"
            connections, integrations = reader.rows(query), reader.rows(QUERY)
        except ServiceError:
            pass  # the database's own check says what is wrong with it
        finally:
            reader.close()
    adapters = adapters_of(partners=paths.data_dir / "partners") if integrations else dict
    hosts = _hosts([(str(provider), str(url)) for provider, url in connections])
    return hosts, stored(integrations, adapters())


def _hosts(rows: list[tuple[str, str]]) -> list[Host]:
    """The addresses of the connections, and each vendor's own."""
    from services.health import Host
    from services.providers import DEFAULT_BASE_URLS, VENDOR_NAMES

    names = {provider.value: name for provider, name in VENDOR_NAMES.items()}
    hosts = [Host(names.get(provider, provider), url, used=True) for provider, url in rows]
    for vendor, url in DEFAULT_BASE_URLS.items():
        if all(host.url.rstrip("/") != url for host in hosts):
            hosts.append(Host(VENDOR_NAMES[vendor], url))
    return hosts


def _environment(environ: Mapping[str, str]) -> list[Configured]:
    """The services that the environment names; one that is named wrongly is told as that."""
    from app.runtime import GATEWAYS, gateways
    from services.health import Configured

    found = []
    for kind, name in GATEWAYS.items():
        given = {key: environ.get(key, "") for key in (f"{name}_URL", f"{name}_KEY")}
        common = Configured(f"{name}_URL", kind, "the environment", key="key")
        try:
            for gateway in gateways(given).values():
                found.append(replace(common, url=gateway.url, given=bool(gateway.key)))
        except UsageError as error:
            found.append(replace(common, problem=error.message.removeprefix(f"{name}_URL: ")))
    return found


def _terminal_facts() -> TerminalFacts:
    from services.health import TerminalFacts

    shown = is_terminal(sys.stdout)
    size = shutil.get_terminal_size((0, 0)) if shown else None
    return TerminalFacts(
        input_is_terminal=is_terminal(sys.stdin),
        output_is_terminal=shown,
        columns=size.columns if size else None,
        lines=size.lines if size else None,
        encoding=(sys.stdout.encoding or "") if sys.stdout else "",
    )
