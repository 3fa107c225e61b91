"""What each way in may import: a subprocess with a clean slate is the only proof that a deferral defers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import child_environment

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "alembic",
    "apscheduler",
    "cryptography",
    "elevenlabs",
    "fastapi",
    "httpx",
    "keyring",
    "psycopg",
    "pydantic",
    "sounddevice",
    "sqlalchemy",
    "sqlmodel",
    "stamina",
    "starlette",
    "uvicorn",
)
TERMINAL = ("textual", "rich")


def modules_after(code: str, home: Path) -> set[str]:
    """The top-level modules of a fresh interpreter that ran this code."""
    # A name that stands for None is a module that was kept from being loaded.
    names = "sorted(name for name, module in sys.modules.items() if module is not None)"
    report = f"import json, sys\nprint('\\n' + json.dumps({names}), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\n{report}"],
        cwd=ROOT,
        env=child_environment(home, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], ["help"]])
def test_help_and_version(own_environment, words):
    code = f"from app.cli import main\nassert main({words!r}) == 0"
    loaded = modules_after(code, own_environment)
    assert not loaded & {*HEAVY, *TERMINAL, "argparse", "asyncio", "sqlite3", "platformdirs", "logging"}


@pytest.mark.parametrize(
    "command", ["sync", "agents", "company", "connection", "runs", "config", "simulator"]
)
def test_help_of_a_command(own_environment, command):
    code = f"from app.cli import main\nassert main([{command!r}, '--help']) == 0"
    loaded = modules_after(code, own_environment)
    assert not loaded & {*HEAVY, *TERMINAL}


def test_reading_the_mirror(own_environment):
    """Listing agents needs the standard library's SQLite and nothing of the sync."""
    code = "from app.cli import main\nassert main(['agents', 'list', '--json']) == 0"
    loaded = modules_after(code, own_environment)
    assert not loaded & {*HEAVY, *TERMINAL}


@pytest.mark.parametrize(
    "module", ["services.container", "services.agents", "services.security", "services.providers",
               "services.storage", "services.companies", "services.simulator", "services.schedule",
               "services.demo", "app.runtime", "app.settings"],
)  # fmt: skip
def test_public_faces_are_light(own_environment, module):
    assert not modules_after(f"import {module}", own_environment) & {*HEAVY, *TERMINAL}


def test_first_paint_of_the_console(own_environment):
    """Up to the first frame, the console loads Textual and its own screens, and nothing a sync needs."""
    code = """\
import asyncio, sys
from app.terminal import prepare_environment
import os
prepare_environment(os.environ)
from app.console import Callboard
from app.runtime import open_services
first = set()
async def main():
    services = open_services(demo=True)
    async def note():
        first.update(sys.modules)
    services.warm = note  # called once the first frame and the cards are drawn
    async with Callboard(services).run_test(size=(100, 30)) as pilot:
        for _ in range(500):
            await pilot.pause(0.02)
            if first:
                break
    await services.aclose()
asyncio.run(main())
assert first, "the console never got warm"
for name in set(sys.modules) - first:
    del sys.modules[name]
"""
    loaded = modules_after(code, own_environment)
    assert {"textual", "sqlite3"} <= loaded
    assert not loaded & set(HEAVY)
