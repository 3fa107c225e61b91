"""Real programs that some tests need: absent, they skip a test on a laptop and fail it in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

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
