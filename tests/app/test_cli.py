"""The command line as a whole: what it imports, its exit codes, and how it ends when things go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from app.cli import COMMANDS, main
from services.errors import Category, ServiceError, UsageError, VaultLocked

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "alembic", "apscheduler", "cryptography", "elevenlabs", "httpx", "keyring", "pydantic", "rich",
    "sqlalchemy", "sqlmodel", "stamina", "starlette", "textual", "uvicorn",
}  # fmt: skip
MODULES = """
import sys
from app.cli import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
raise SystemExit(code)
"""


def python(*words: str, **options) -> subprocess.CompletedProcess[str]:
    options.setdefault("cwd", ROOT)
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, **options)


def loaded_by(*words: str) -> set[str]:
    done = python("-c", MODULES, *words)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",), ("--version",)])
def test_help_and_version_load_nothing(words):
    loaded = loaded_by(*words)
    assert not loaded & (HEAVY | {"asyncio", "argparse", "json", "sqlite3", "email", "importlib_metadata"})


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_the_help_of_a_command_stays_light(name):
    if not (ROOT / "app" / "commands" / f"{name}.py").is_file():
        pytest.skip("not there")
    assert not loaded_by(name, "--help") & HEAVY


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown and summary in shown for name, _, summary in COMMANDS)
    assert max(map(len, shown.splitlines())) <= 100


def test_version_is_the_distributions(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"callboard {__version__}\n"
    assert version("callboard") == __version__


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["snyc"], "callboard sync"),
        (["--nonsense"], "no option"),
        (["agents"], "ACTION"),
        (["agents", "lst"], "lst"),
        (["sync", "--company"], "--company"),
        (["sync", "--all", "--company", "x"], "not allowed with"),
        (["sync", "--comp", "x"], "does not know"),
        (["runs", "--limit", "0"], "whole number"),
        (["agents", "show", "x", "--raw", "--json"], "not allowed with"),
        (["connection", "add", "acme", "retel"], "retell"),
        ([], "terminal"),
    ],
)
def test_wrong_usage_is_2_and_says_why(words, said, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "--json" in words or captured.out == ""


def test_an_error_is_json_where_json_was_asked_for(callboard):
    result = callboard("agents", "list", "--json", "--nonsense")
    assert result.code == result.json["exit_code"] == 2
    assert result.json["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServiceError("a"), 1),
        (UsageError("a"), 2),
        (ServiceError("a", code="conflict"), 4),
        (ServiceError("a", category=Category.AUTHENTICATION), 5),
        (VaultLocked("a"), 5),
        (OSError(28, "No space left on device"), 1),
        (RuntimeError("inside"), 1),
    ],
)
def test_exit_codes_of_errors(error, code, callboard, services, monkeypatch, tmp_path):
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path))

    async def fail():
        raise error

    monkeypatch.setattr(services.agents, "cards", fail)
    result = callboard("agents", "list")
    assert result.code == code
    assert result.err.startswith("error: ")
    assert result.out == ""
    assert services.closed == 1


def test_a_crash_leaves_a_report_without_secrets_or_values(callboard, services, monkeypatch, tmp_path):
    from services.security import remember_secret

    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path))
    remember_secret("hunter2-hunter2")

    async def fail():
        local_value = "a value nobody should read"
        raise RuntimeError(f"with hunter2-hunter2 {len(local_value)}")

    monkeypatch.setattr(services.agents, "cards", fail)
    result = callboard("agents", "list")
    (report,) = (tmp_path / "logs").glob("crash-*.txt")
    text = report.read_text()
    assert str(report) in result.err
    assert "RuntimeError" in text
    assert "RuntimeError" not in result.err
    assert "hunter2" not in text
    assert report.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_is_130(callboard, services, monkeypatch):
    async def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(services.agents, "cards", stop)
    assert callboard("agents", "list").code == 130


@pytest.mark.parametrize(
    "words", [["--demo", "agents", "list"], ["agents", "--demo", "list"], ["agents", "list", "--demo"]]
)
def test_demo_may_stand_anywhere(words, services, monkeypatch):
    seen = []
    monkeypatch.setattr("app.commands._run.open_services", lambda *, demo: seen.append(demo) or services)
    assert main(words) == 0
    assert seen == [True]


@pytest.mark.parametrize("name", ["services", "screens"])
def test_a_foreign_package_is_told(name, tmp_path):
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = python("-m", "app", "--version", cwd=tmp_path, env=environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"`{name}`" in done.stderr
    assert str(package) in done.stderr
    assert python("-P", "-m", "app", "--version", cwd=tmp_path, env=environ).returncode == 0


def test_a_reader_that_went_away_is_no_noise():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "app", "schema", "--all"],
            cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_message():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "app", "schema", "--all"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left")
    assert done.stderr.count("\n") == 2


def test_output_survives_a_terminal_without_unicode():
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = python("-m", "app", "connection", "test", "--help", env=environ)
    assert done.returncode == 0
