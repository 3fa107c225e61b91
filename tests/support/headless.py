"""Calls without a screen: the command in this process or its own, against a simulator on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.cli import main
from app.schemas import document
from tests.support.program import CALLBOARD, PASSPHRASE, real_environment
from tests.support.simulator import RunningSimulator, running_simulator

PATIENCE = 30.0
QUICK = {"think_ms": 0, "pace": 10, "silence_ms": 200}
"""Of a script: an agent that does not dawdle."""


@dataclass
class Town:
    """A simulator, and a data folder whose company `acme` is connected to it and synced."""

    simulator: RunningSimulator
    home: Path
    """Always the same path: the names of stored keys depend on it."""
    template: Path
    elevenlabs: tuple[str, ...]
    """Ids of the agents."""
    retell: tuple[str, ...]
    _past: int = 0

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.simulator._call(method, path, body)

    def script(self, agent: str, **script: Any) -> None:
        """What this agent's conversations play from now on."""
        self.control("POST", "/__script", {"agent": agent, "script": {**QUICK, **script}})

    def fault(self, spec: str) -> None:
        self.control("POST", "/__faults", {"fault": spec})

    def conversations(self, agent: str = "") -> list[dict[str, Any]]:
        found = self.control("GET", "/__conversations")["conversations"][self._past :]
        return [each for each in found if agent in ("", each["agent_id"])]

    def clear(self) -> None:
        """Nothing of one test is left to the next one: neither in the data folder nor at the simulator."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.template, self.home)
        for path in ("/__faults", "/__script", "/__phone"):
            self.control("DELETE", path)
        self._past = len(self.control("GET", "/__conversations")["conversations"])


@contextlib.contextmanager
def town(folder: Path, **options: Any) -> Iterator[Town]:
    """A simulator and a furnished data folder below `folder`, until the block ends."""
    loop = asyncio.new_event_loop()
    manager = running_simulator(**{"agents": 8, **options})
    simulator = loop.run_until_complete(manager.__aenter__())
    try:
        home, template = folder / "home", folder / "template"
        _connect(home, simulator)
        shutil.copytree(home, template)
        yield Town(simulator, home, template, *_agents(simulator))
    finally:
        loop.run_until_complete(manager.__aexit__(None, None, None))
        loop.close()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _agents(simulator: RunningSimulator) -> list[tuple[str, ...]]:
    agents = simulator._call("GET", "/__agents", None)["agents"]
    vendors = ("elevenlabs", "retell")
    return [tuple(each["agent_id"] for each in agents if each["provider"] == name) for name in vendors]


def _connect(home: Path, simulator: RunningSimulator) -> None:
    with pytest.MonkeyPatch.context() as patch, _silence():
        for name, value in real_environment(home).items():
            patch.setenv(name, value)
        steps = [["company", "add", "acme"]]
        for vendor, url in (("retell", simulator.retell_url), ("elevenlabs", simulator.elevenlabs_url)):
            steps.append(["connection", "add", "acme", vendor, "--base-url", url, "--key-stdin"])
        for words in [*steps, ["sync"]]:
            patch.setattr(sys, "stdin", io.StringIO(f"{simulator.key}\n"))
            assert main(words) == 0, words


# In this process


@dataclass(frozen=True)
class Told:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The events of `call --json`, each checked against its contract."""
        found = [json.loads(line) for line in self.out.splitlines()]
        for each in found:
            jsonschema.Draft202012Validator(document("call-event")).validate(each)
        return found

    @property
    def json(self) -> dict[str, Any]:
        """The one object a command prints, checked against the contract it names."""
        found: dict[str, Any] = json.loads(self.out)
        kind = found["schema"].removeprefix("callboard.").removesuffix("/1")
        jsonschema.Draft202012Validator(document(kind)).validate(found)
        return found

    @property
    def summary(self) -> dict[str, Any]:
        return self.lines[-1]


Run = Callable[..., Told]


def headless(home: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Run:
    """Runs commands on `home` here, with a pipe as standard input: `run("call", …, stdin="Hello\\n")`.

    Lines are sent without the pause that suits people.
    """
    secrets = {"CALLBOARD_SECRET_STORE": "file", "CALLBOARD_PASSPHRASE": PASSPHRASE}
    for name, value in {"CALLBOARD_HOME": str(home), **secrets}.items():
        patch.setenv(name, value)
    patch.setattr("app.logs.set_up", lambda folder, level: None)
    patch.setattr("app.commands.call.QUIET_SECONDS", 0.05)

    def run(*words: str, stdin: str = "") -> Told:
        reading, writing = os.pipe()
        os.write(writing, stdin.encode())
        os.close(writing)
        capture.readouterr()
        with open(reading, encoding="utf-8") as pipe, patch.context() as inner:
            inner.setattr(sys, "stdin", pipe)
            code = main(list(words))
        captured = capture.readouterr()
        assert "Traceback" not in captured.err
        return Told(code, captured.out, captured.err)

    return run


# In a process of its own


def start(home: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """A command in a process of its own, all of whose ends are pipes."""
    return subprocess.Popen(
        [*CALLBOARD, *words],
        env=real_environment(home, PYTHONUNBUFFERED="1", **environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def event(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Read events of `call --json` until one satisfies; it is returned."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if wanted(found):
            return found
        seen.append(found["kind"])
    assert process.stderr is not None
    raise AssertionError(f"the call ended before: {seen}\n{process.stderr.read()}")


def is_kind(kind: str, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found["kind"] == kind and all(found.get(key) == fields[key] for key in fields)


def finish(process: subprocess.Popen[str], limit: float = PATIENCE) -> Told:
    """Wait for the end of a process; what it printed that was not read yet."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    # Not by `communicate`: it goes past what the pipe's reader has read ahead, which would be lost.
    with process.stdout, process.stderr, ThreadPoolExecutor(2) as pool:
        out, err = pool.submit(process.stdout.read), pool.submit(process.stderr.read)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return Told(code, out.result(limit), err.result(limit))


# What is left


def database(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(home / "data" / "callboard.db")


def only_call(home: Path) -> dict[str, Any]:
    """The row of the one call that was made."""
    with contextlib.closing(database(home)) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = connection.execute("SELECT * FROM call_record").fetchall()
    return dict(row)


def long_ago(home: Path, ms: int = 3_600_000) -> None:
    """As if the last sign of life of every call that runs had been an hour earlier."""
    with contextlib.closing(database(home)) as connection, connection:
        connection.execute("UPDATE call_record SET heartbeat_at = heartbeat_at - ?", (ms,))


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The events of a recording, every line of which is whole."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]


AFTER_THE_END = frozenset({"cost", "latency", "notice"})


def complete(folder: Path) -> list[dict[str, Any]]:
    """The events of a call that is over: one end, and after it only what the vendor tells late."""
    events = recorded(folder)
    kinds = [each["kind"] for each in events]
    assert kinds.count("ended") == 1, kinds
    assert set(kinds[kinds.index("ended") + 1 :]) <= AFTER_THE_END, kinds
    assert json.loads((folder / "call.json").read_text("utf-8"))["reason"] == next(
        each["reason"] for each in events if each["kind"] == "ended"
    )
    for name in ("transcript.txt", "latency.csv", "tools.json", "call.log", "brief.json"):
        assert (folder / name).is_file(), name
    return events


def until(condition: Callable[[], Any], what: str = "", limit: float = PATIENCE) -> Any:
    """Wait for something another process does; returns what the condition gave."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        time.sleep(0.01)
    return found
