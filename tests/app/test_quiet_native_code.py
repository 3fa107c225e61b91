"""What native code writes to standard error stays off the screen, and only off the screen."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os
from app.terminal import quiet_native_code
with quiet_native_code():
    os.write(2, b"from a sound driver\\n")
os.write(2, b"afterwards\\n")
"""


def run(stderr) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=stderr, check=True)


def test_a_terminal_shows_only_what_comes_afterwards():
    master, slave = pty.openpty()
    run(slave)
    os.close(slave)
    shown = os.read(master, 4096)
    os.close(master)
    assert shown.strip() == b"afterwards"


def test_a_file_gets_everything(tmp_path):
    with open(tmp_path / "log", "wb") as file:
        run(file)
    assert (tmp_path / "log").read_bytes() == b"from a sound driver\nafterwards\n"
