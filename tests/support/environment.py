"""What the environment of a test holds: nothing of the developer's that the program would listen to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PREFIXES = ("CALLBOARD_", "TEXTUAL_")
LEAKING = (
    "NO_COLOR",
    "FORCE_COLOR",
    "COLORTERM",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SSH_CLIENT",
    "LINES",
    "COLUMNS",
)
OURS = ("CALLBOARD_TEST_", "CALLBOARD_OPENAPI_DIR", "TEXTUAL_SNAPSHOT_")
"""Variables of the test run itself start so; the last is the snapshot plug-in's own."""


def keep(name: str) -> bool:
    """Whether a test may see the developer's variable of this name."""
    return name.startswith(OURS) or not (name.startswith(PREFIXES) or name in LEAKING)


def scrubbed(home: Path) -> dict[str, str]:
    """The variables that are set for every test."""
    return {
        "CALLBOARD_HOME": str(home),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }


def child_environment(home: Path, **more: str) -> dict[str, str]:
    """The whole environment for a program that a test starts. An empty value removes the variable."""
    kept: Mapping[str, str] = {name: value for name, value in os.environ.items() if keep(name)}
    both = {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", **scrubbed(home), **more}
    return {name: value for name, value in both.items() if value}
