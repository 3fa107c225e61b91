"""The command line in this process on a data folder of its own, beside a simulator that runs for a module."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.cli import main
from app.schemas import document
from tests.support.program import real_environment
from tests.support.simulator import RunningSimulator, running_simulator


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object it printed, checked against the contract it names."""
        found: dict[str, Any] = json.loads(self.out)
        kind = found["schema"].removeprefix("callboard.").removesuffix("/1")
        jsonschema.Draft202012Validator(document(kind)).validate(found)
        return found


class Office:
    """Runs commands: `office("booking", "list")`."""

    def __init__(
        self,
        home: Path,
        simulator: RunningSimulator,
        patch: pytest.MonkeyPatch,
        capture: pytest.CaptureFixture[str],
    ) -> None:
        self.home = home
        self.simulator = simulator
        self._patch = patch
        self._capture = capture
        for name, value in real_environment(home).items():
            patch.setenv(name, value)
        patch.setattr("app.logs.set_up", lambda folder, level: None)

    def __call__(self, *words: str, stdin: str = "") -> Said:
        self._capture.readouterr()
        with self._patch.context() as inner:
            inner.setattr(sys, "stdin", io.StringIO(stdin))
            code = main(list(words))
        told = self._capture.readouterr()
        assert "Traceback" not in told.err
        return Said(code, told.out, told.err)

    def fault(self, spec: str) -> None:
        self.simulator._call("POST", "/__faults", {"fault": spec})

    def mend(self) -> None:
        self.simulator._call("DELETE", "/__faults", None)


@contextlib.contextmanager
def simulator_in_a_thread(**options: Any) -> Iterator[RunningSimulator]:
    """For tests that are not on an event loop."""
    loop = asyncio.new_event_loop()
    manager = running_simulator(**{"agents": 2, **options})
    running = loop.run_until_complete(manager.__aenter__())
    try:
        yield running
    finally:
        loop.run_until_complete(manager.__aexit__(None, None, None))
        loop.close()
