"""The `callboard` command as a person has it: a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.environment import child_environment
from tests.support.simulator import RunningSimulator

CALLBOARD: tuple[str, ...] = (sys.executable, "-P", "-m", "app")
"""The same as the installed command; works wherever the tests run."""

PASSPHRASE = "correct horse"


class Ended:
    """How a command ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


def callboard(
    home: Path,
    *words: str,
    stdin: str = "",
    patience: float = 120,
    folder: Path | None = None,
    **environment: str,
) -> Ended:
    """Run the command on this data folder and wait for its end."""
    done = subprocess.run(
        [*CALLBOARD, *words],
        env=real_environment(home, **environment),
        input=stdin,
        text=True,
        encoding="utf-8",
        capture_output=True,
        timeout=patience,
        cwd=folder,
        check=False,
    )
    return Ended(done)


def real_environment(home: Path, **environment: str) -> dict[str, str]:
    """An environment with secrets in an encrypted file, opened by a passphrase from the environment."""
    defaults = {"CALLBOARD_SECRET_STORE": "file", "CALLBOARD_PASSPHRASE": PASSPHRASE}
    return child_environment(home, **{**defaults, **environment})


def connect(home: Path, simulator: RunningSimulator, company: str = "acme", **environment: str) -> None:
    """Set up a company whose two connections lead to the simulator, by the commands an operator would use."""
    steps: list[list[str]] = [["company", "add", company]]
    for vendor, url in (("retell", simulator.retell_url), ("elevenlabs", simulator.elevenlabs_url)):
        steps.append(["connection", "add", company, vendor, "--base-url", url, "--key-stdin"])
    for words in steps:
        ended = callboard(home, *words, stdin=f"{simulator.key}\n", **environment)
        assert ended.code == 0, ended
