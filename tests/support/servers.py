"""Real programs that some tests need: absent, they skip a test on a laptop and fail it in CI."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

REQUIRE_VARIABLE = "CALLBOARD_TEST_REQUIRE_SERVERS"


def unavailable(reason: str) -> NoReturn:
    """Skip the test for this reason, or fail it where every server has to be there."""
    if os.environ.get(REQUIRE_VARIABLE, "") not in ("", "0"):
        pytest.fail(f"{reason} ({REQUIRE_VARIABLE} is set)", pytrace=False)
    pytest.skip(reason)


def need(*programs: str, folders: Iterable[str | Path] = ()) -> list[str]:
    """The paths of all these programs, looked for on PATH and in `folders`; `unavailable` without one."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders)])
    found = []
    for program in programs:
        path = shutil.which(program, path=search)
        if path is None:
            unavailable(f"{program} is not installed")
        found.append(path)
    return found


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL of our own on loopback; `url` holds its password."""

    url: str
    port: int
    password: str


@contextmanager
def running_postgres(*, with_pgvector: bool = False) -> Iterator[PostgresServer]:
    """A new PostgreSQL server in a temporary folder, removed at the end. `unavailable` without one.

    `with_pgvector` takes the one in the package pgserver, which has that extension.
    """
    place = Path(tempfile.mkdtemp(prefix="cb-pg-"))
    if with_pgvector:
        initdb, postgres = _pgserver(place)
    else:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        initdb, postgres = need("initdb", "postgres", folders=folders)
    password = "postgres-canary-password"
    account: dict[str, Any] = {}
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # the server refuses to run as root
        try:
            shutil.chown(place, "postgres", "postgres")
        except LookupError:
            unavailable("PostgreSQL cannot run as root, and there is no user postgres")
        account = {"user": "postgres", "group": "postgres", "extra_groups": []}
    secret = place / "password"
    secret.write_text(password)
    secret.chmod(0o644)
    options: dict[str, Any] = {"cwd": place, "env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, **account}
    data = str(place / "data")
    try:
        subprocess.run(
            [initdb, "-D", data, "-U", "op", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"],
            check=True,
            capture_output=True,
            timeout=120,
            **options,
        )
        port = free_port()
        tuning = ["-c", "fsync=off", "-c", f"unix_socket_directories={place}"]
        with (place / "log").open("wb") as log:
            server = subprocess.Popen(
                [postgres, "-D", data, "-h", "127.0.0.1", "-p", str(port), *tuning],
                stdout=log,
                stderr=log,
                **options,
            )
        try:
            wait_for_port(port, server)
            url = f"postgresql://op:{password}@127.0.0.1:{port}/postgres"
            wait_until_ready(url)
            yield PostgresServer(url, port, password)
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: open connections are ended
            server.wait(timeout=60)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _pgserver(place: Path) -> tuple[str, str]:
    """A copy of that package's programs: the server's own user may not read the environment they came in."""
    found = importlib.util.find_spec("pgserver")
    if found is None or not found.submodule_search_locations:
        unavailable("no PostgreSQL with pgvector: the package pgserver is not installed")
    package = Path(found.submodule_search_locations[0])
    programs = place / package.name / "pginstall"
    shutil.copytree(package / "pginstall", programs, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # looked for beside the package
    if libraries.is_dir():
        shutil.copytree(libraries, place / libraries.name)
    return str(programs / "bin" / "initdb"), str(programs / "bin" / "postgres")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, server: subprocess.Popen[bytes], limit: float = 60.0) -> None:
    """Return once something accepts connections on this port; fail when the server ended instead."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"the server ended with code {server.returncode}", pytrace=False)
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"nothing listens on port {port}", pytrace=False)


def wait_until_ready(url: str, limit: float = 30.0) -> None:
    """A server that accepts connections may still be starting up, and says so in its refusals."""
    import psycopg

    deadline = time.monotonic() + limit
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
