from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services.errors import ServiceError
from services.health import (
    Check,
    DatabaseCheck,
    Finding,
    Host,
    Level,
    Network,
    SecretsCheck,
    TerminalFacts,
    audio,
    bytecode,
    colours,
    examine,
    locale,
    terminal,
    versions,
    worst,
)
from services.security import FileStore, MemoryStore, SecretStore, remember_secret, vault
from services.storage import DatabaseLocation
from tests.support.servers import free_port, running_postgres

NOW = 1_790_000_000_000


class FixedClock:
    def now(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def level_of(findings: Sequence[Finding], name: str) -> Level:
    return next(finding.level for finding in findings if finding.name == name)


# -- running --------------------------------------------------------------------------------------


async def test_each_check_stands_alone_and_the_order_is_kept() -> None:
    remember_secret("canary-in-a-finding")

    async def fine() -> list[Finding]:
        return [Finding("one", Level.OK, "canary-in-a-finding"), Finding("two", Level.WARN, "hm")]

    async def broken() -> list[Finding]:
        raise ZeroDivisionError("nobody expected this")

    async def refused() -> list[Finding]:
        raise ServiceError("it is closed", advice="Open it")

    async def silent() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    checks = [
        Check("silent", silent, "Wake it"),
        Check("fine", fine),
        Check("broken", broken),
        Check("refused", refused),
    ]
    findings = await examine(checks, time_limit=0.05)
    assert [finding.name for finding in findings] == ["silent", "one", "two", "broken", "refused"]
    assert findings[0].advice == "Wake it"
    assert findings[1].found == "****"
    assert "nobody expected this" in findings[3].found
    assert (findings[4].found, findings[4].advice) == ("it is closed", "Open it")
    assert worst(findings) is Level.FAIL
    assert worst(findings[1:3]) is Level.WARN
    assert worst([]) is Level.OK


# -- machine --------------------------------------------------------------------------------------


async def test_versions() -> None:
    assert worst(await versions("0.1.0")) is Level.OK
    assert level_of(await versions("0.1.0", "3.7.17"), "sqlite") is Level.FAIL


async def test_bytecode(tmp_path: Path) -> None:
    [finding] = await bytecode(tmp_path, {"PYTHONDONTWRITEBYTECODE": "1"}, writes=False)
    assert finding.level is Level.WARN
    assert "PYTHONDONTWRITEBYTECODE" in finding.found
    [finding] = await bytecode(tmp_path, {}, writes=True)
    assert (finding.level, finding.found) == (Level.OK, "will be kept")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").touch()
    [finding] = await bytecode(tmp_path, {}, writes=True)
    assert finding.found == "kept"


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        ({"in": 2, "out": 1}, Level.OK, "2 devices in, 1 device out"),
        ({"in": 0, "out": 1}, Level.WARN, "calls will be by text"),
        ({"missing": "PortAudio", "error": "PortAudio library not found"}, Level.WARN, "PortAudio is not"),
        ({"missing": "sounddevice"}, Level.WARN, "sounddevice is not installed"),
        ({"missing": "", "error": "Error initializing PortAudio\nmore"}, Level.WARN, "calls will be by text"),
    ],
)
async def test_audio(answer: dict[str, object], level: Level, words: str) -> None:
    [finding] = await audio(lambda: json.dumps(answer))
    assert finding.level is level
    assert words in finding.found
    assert bool(finding.advice) == (level is not Level.OK)


async def test_a_sound_system_that_crashes_or_hangs_is_a_warning() -> None:
    def hang() -> str:
        raise subprocess.TimeoutExpired("python", 4)

    for ask in (lambda: "", hang):
        [finding] = await audio(ask)
        assert finding.level is Level.WARN
    [finding] = await audio()
    assert finding.level in (Level.OK, Level.WARN), "whatever this machine has, it is no failure"


@pytest.mark.parametrize(
    ("facts", "environ", "level", "words"),
    [
        (TerminalFacts(True, True, 120, 40, "utf-8"), {"TERM": "xterm-256color"}, Level.OK, "120×40"),
        (TerminalFacts(True, True, 79, 24, "utf-8"), {"TERM": "xterm"}, Level.WARN, "small"),
        (TerminalFacts(True, True, 80, 24, "utf-8"), {"TERM": "dumb"}, Level.WARN, "TERM=dumb"),
        (TerminalFacts(True, True, 80, 24, "utf-8"), {}, Level.WARN, "TERM=(not set)"),
        (TerminalFacts(False, True, 80, 24, "utf-8"), {"TERM": "xterm"}, Level.WARN, "not a terminal"),
        (
            TerminalFacts(True, True, 80, 24, "utf-8"),
            {"TERM": "tmux-256color", "TMUX": "x", "SSH_CONNECTION": "y"},
            Level.OK,
            "tmux over SSH",
        ),
    ],
)
async def test_terminal(facts: TerminalFacts, environ: dict[str, str], level: Level, words: str) -> None:
    [finding] = await terminal(facts, environ)
    assert finding.level is level
    assert words in finding.found
    assert finding.advice or level is Level.OK


@pytest.mark.parametrize(
    ("environ", "found", "advised"),
    [
        ({"NO_COLOR": "1", "COLORTERM": "truecolor"}, "none: NO_COLOR is set", False),
        ({"COLORTERM": "truecolor"}, "16 million", False),
        ({"TERM": "xterm-256color"}, "256", False),
        ({"TERM": "linux"}, "16", False),
        ({"TERM": "xterm-256color", "SSH_CONNECTION": "x"}, "256, over SSH", True),
        ({"TEXTUAL_COLOR_SYSTEM": "truecolor", "SSH_CONNECTION": "x"}, "truecolor, as TEXTUAL", False),
    ],
)
async def test_colours(environ: dict[str, str], found: str, advised: bool) -> None:
    [finding] = await colours(environ)
    assert finding.found.startswith(found)
    assert ("COLORTERM does not cross SSH" in finding.advice) == advised


async def test_locale() -> None:
    [fine] = await locale(TerminalFacts(True, True, 80, 24, "UTF-8"), {"LANG": "de_DE.UTF-8"})
    assert fine.level is Level.OK
    [plain] = await locale(TerminalFacts(True, True, 80, 24, "ascii"), {"LC_ALL": "C"})
    assert (plain.level, "CALLBOARD_ASCII" in plain.advice) == (Level.WARN, True)


# -- secrets --------------------------------------------------------------------------------------


def giving(store: SecretStore | ServiceError) -> Callable[[], object]:
    async def give() -> SecretStore:
        if isinstance(store, ServiceError):
            raise store
        return store

    return give


async def secrets_finding(store: SecretStore | ServiceError, file: Path) -> list[Finding]:
    return list(await SecretsCheck(giving(store), file)())  # type: ignore[arg-type]


async def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "_N", 2**10)
    file = tmp_path / "secrets.json"
    [finding] = await secrets_finding(MemoryStore(), file)
    assert finding.level is Level.OK
    [finding] = await secrets_finding(FileStore(file), file)
    assert (finding.level, file.exists()) == (Level.OK, False)
    store = FileStore(file)
    await store.unlock("a long phrase")
    [finding] = await secrets_finding(store, file)
    assert finding.level is Level.OK
    assert str(file) in finding.found
    file.chmod(0o644)
    findings = await secrets_finding(FileStore(file), file)
    assert [finding.level for finding in findings] == [Level.WARN, Level.WARN]
    assert "CALLBOARD_PASSPHRASE" in findings[0].advice
    assert findings[1].advice == f"chmod 600 {file}"
    [finding] = await secrets_finding(ServiceError("no keyring", advice="Start one"), tmp_path / "none")
    assert (finding.level, finding.advice) == (Level.FAIL, "Start one")


# -- database -------------------------------------------------------------------------------------


def database_at(file: Path, version: str | None) -> None:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE agent (id INTEGER PRIMARY KEY, name TEXT)")
    connection.executemany("INSERT INTO agent (name) VALUES (?)", [(f"agent {i}" * 50,) for i in range(2000)])
    if version is not None:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (version,))
    connection.commit()
    connection.close()


async def database_findings(file: Path, free: int = 10**12) -> list[Finding]:
    return list(await DatabaseCheck(DatabaseLocation(path=file), free_space=lambda _: free)())


async def test_a_sqlite_database(tmp_path: Path) -> None:
    file = tmp_path / "data" / "callboard.db"
    findings = await database_findings(file)
    assert [finding.level for finding in findings] == [Level.OK, Level.OK]
    assert "made at the first start" in findings[0].found
    assert not file.parent.exists()
    file.parent.mkdir()
    database_at(file, "0001")
    findings = await database_findings(file)
    assert [finding.name for finding in findings] == ["database", "integrity", "disk"]
    assert worst(findings) is Level.OK
    assert "schema 0001" in findings[0].found


async def test_a_newer_schema_fails_with_advice(tmp_path: Path) -> None:
    database_at(tmp_path / "x.db", "9999")
    findings = await database_findings(tmp_path / "x.db")
    assert level_of(findings, "database") is Level.FAIL
    assert "newer version" in findings[0].found
    assert "Update" in findings[0].advice


async def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this was never a database " * 500)
    assert worst(await database_findings(tmp_path / "x.db")) is Level.FAIL
    file = tmp_path / "y.db"
    database_at(file, "0001")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 8192] = b"\xff" * 8192
    file.write_bytes(raw)
    findings = await database_findings(file)
    assert level_of(findings, "integrity") is Level.FAIL


async def test_a_database_that_is_being_written_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    database_at(file, "0001")
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert worst(await database_findings(file)) is Level.OK
    finally:
        writer.close()


async def test_a_place_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database_at(tmp_path / "x.db", "0001")
    monkeypatch.setattr("os.access", lambda *_: False)  # permissions do not bind the superuser
    for file in (tmp_path / "x.db", tmp_path / "none" / "y.db"):
        findings = await database_findings(file)
        failed = [finding for finding in findings if finding.level is Level.FAIL]
        assert len(failed) == 1
        assert "CALLBOARD_HOME" in failed[0].advice


async def test_little_space_warns_and_none_fails(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    assert level_of(await database_findings(file, 50 * 2**20), "disk") is Level.WARN
    assert level_of(await database_findings(file, 2**20), "disk") is Level.FAIL


async def test_a_real_postgresql() -> None:
    with running_postgres() as server:
        findings = list(await DatabaseCheck(DatabaseLocation.from_url(server.url))())
        assert [finding.name for finding in findings] == ["database", "server"]
        assert worst(findings) is Level.OK
        assert "empty" in findings[0].found
        wrong = server.url.replace(server.password, "another-canary-one")
        [finding] = await DatabaseCheck(DatabaseLocation.from_url(wrong))()
        assert finding.level is Level.FAIL
        assert "password" in finding.found
        assert "canary" not in finding.found


async def test_a_postgresql_that_is_not_there() -> None:
    url = f"postgresql://op:secret-canary@127.0.0.1:{free_port()}/x"
    [finding] = await DatabaseCheck(DatabaseLocation.from_url(url))()
    assert finding.level is Level.FAIL
    assert "canary" not in finding.found + finding.advice
    assert "database_url" in finding.advice


# -- network and clock ----------------------------------------------------------------------------


@pytest.fixture
def vendor() -> Iterator[Callable[[int], str]]:
    """`vendor(seconds)` is the address of a host whose clock is that much ahead of `NOW`."""
    servers: list[HTTPServer] = []

    def start(ahead: int) -> str:
        stamp = format_datetime(
            datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(seconds=ahead), usegmt=True
        )

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response_only(401)
                self.send_header("Date", stamp)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


async def network_of(*hosts: Host, environ: dict[str, str] | None = None) -> tuple[list[Finding], Finding]:
    network = Network(hosts, environ or {}, FixedClock(), time_limit=5)
    try:
        reached, clock = await asyncio.gather(network.hosts(), network.clock())
    finally:
        await network.aclose()
    return list(reached), clock[0]


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [(0, Level.OK, "right"), (95, Level.WARN, "slow"), (-95, Level.WARN, "fast"), (4000, Level.FAIL, "slow")],
)
async def test_the_clock_is_compared_with_the_vendor(
    vendor: Callable[[int], str], ahead: int, level: Level, words: str
) -> None:
    reached, clock = await network_of(Host("Vendor", vendor(ahead), used=True))
    assert [finding.level for finding in reached] == [Level.OK], "any answer counts as reached"
    assert clock.level is level
    assert words in clock.found


async def test_an_unreachable_host_fails_only_when_it_is_used(vendor: Callable[[int], str]) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    reached, clock = await network_of(Host("A", gone, used=True), Host("B", gone))
    assert [finding.level for finding in reached] == [Level.FAIL, Level.WARN]
    assert all("refused" in finding.found and finding.advice for finding in reached)
    assert (clock.level, "unknown" in clock.found) == (Level.WARN, True)


async def test_tls_that_fails_is_told_apart(vendor: Callable[[int], str]) -> None:
    plain = vendor(0).replace("http://", "https://")
    [finding], _ = await network_of(Host("A", plain, used=True))
    assert "TLS" in finding.found


async def test_proxies_are_named_without_their_password() -> None:
    findings, _ = await network_of(environ={"https_proxy": "http://op:canary@proxy:3128", "NO_PROXY": "x"})
    assert [finding.name for finding in findings] == ["proxy"]
    assert "HTTPS_PROXY=http://proxy:3128, NO_PROXY=x" in findings[0].found


async def test_zone() -> None:
    network = Network([], {}, FixedClock())
    [known] = await network.zone("America/New_York")
    assert known.level is Level.OK
    [unknown] = await network.zone("Mars/Olympus")
    assert unknown.level is Level.FAIL


# -- the command ----------------------------------------------------------------------------------


def doctor(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "app", "doctor", *words],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            "CALLBOARD_HOME": str(home),
            "HTTPS_PROXY": "http://127.0.0.1:9",  # nothing leaves this machine
            "LC_ALL": "C.UTF-8",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_in_a_pipe(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    words = {line.split()[0] for line in lines if not line.startswith(" ")}
    assert words <= {"ok", "warn"}
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"


def test_the_command_as_json_with_wrong_settings(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json", CALLBOARD_STALE_AFTER="soon", CALLBOARD_PASSPHRASE="canary phrase")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["schema"] == "callboard.doctor/1"
    assert document["status"] == "fail"
    failed = [finding for finding in document["findings"] if finding["status"] == "fail"]
    assert [finding["name"] for finding in failed] == ["settings"]
    assert "CALLBOARD_STALE_AFTER" in failed[0]["found"]
    assert all(set(finding) == {"name", "status", "found", "advice"} for finding in document["findings"])
    assert "canary" not in done.stdout + done.stderr
