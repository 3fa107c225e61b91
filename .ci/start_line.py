"""Runs the README's start line in a fresh copy of the checkout until the demo is on screen."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.environment import child_environment  # noqa: E402
from tests.support.terminal import Terminal  # noqa: E402

PATIENCE = 300.0
"""Seconds for installing and opening, on a slow network."""


def main(line: str) -> int:
    with tempfile.TemporaryDirectory(prefix="callboard-start-") as folder:
        place = Path(folder)
        copy, home = place / "checkout", place / "home"
        home.mkdir()
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
        for name in listed.decode().split("\0"):
            source = ROOT / name
            if name and source.is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes(source.read_bytes())
        environment = child_environment(home, HOME=str(home), CALLBOARD_HOME="", PYTHON_KEYRING_BACKEND="")
        for name in ("VIRTUAL_ENV", "PYTHONPATH", *(name for name in os.environ if name.startswith("XDG_"))):
            environment.pop(name, None)
        with Terminal(["bash", "-c", line], environment, folder=copy) as terminal:
            terminal.wait_for("DEMO", PATIENCE)
            terminal.wait_for("24 agents", PATIENCE)
            print(terminal.text())
            terminal.send("\x11")
            code = terminal.wait_exit()
    print(f"ended with {code}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
