"""`callboard simulator` as a process: announcing, stopping, refusing, being steered."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

COMMAND = (sys.executable, "-P", "-m", "app", "simulator")
ROOT = Path(__file__).parents[3]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "CALLBOARD_HOME": str(home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def steer(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*COMMAND, *words), env=environment(home), capture_output=True, text=True, timeout=60, cwd=home
    )


@contextmanager
def started(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        (*COMMAND, *words),
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def announcement(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def stats(url: str) -> dict[str, Any]:
    with build_opener(ProxyHandler({})).open(f"{url}/__stats", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
        return found


def test_it_announces_itself_and_ends_with_its_parent(tmp_path: Path) -> None:
    with started(tmp_path, "--announce", "json", "--exit-with-parent", "--agents", "4") as process:
        found = announcement(process)
        assert set(found) == {"retell", "elevenlabs", "twilio", "partners", "key", "pid"}
        assert found["pid"] == process.pid
        assert stats(found["retell"]) == stats(found["elevenlabs"]) == stats(found["twilio"])
        out, err = process.communicate(timeout=30)  # closes its standard input
        assert (process.returncode, out, err) == (0, "", "")
    assert list(tmp_path.rglob("simulator.json")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_clean(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, "--announce", "json", "--agents", "4") as process:
        announcement(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_running_one_is_steered_without_its_address(tmp_path: Path) -> None:
    with started(tmp_path, "--fault", "429:x5") as process:
        assert process.stdout is not None
        text = "".join(process.stdout.readline() for _ in range(7))
        assert "sim-key" in text
        assert "429:x5" in text
        switched = steer(tmp_path, "fault", "500:Reception DE", "truncate:detail:x2")
        assert (switched.returncode, switched.stdout) == (0, "")
        shown = steer(tmp_path, "stats").stdout
        assert "500:Reception DE" in shown
        assert "429:x5  (struck 0, 5 left)" in shown
        assert "part engine" in steer(tmp_path, "edit", "Booking Bot").stderr
        assert "Concierge" in steer(tmp_path, "agents").stdout
        assert steer(tmp_path, "fault", "503:retell", "hang:partners").returncode == 0
        assert "1 fault\n" in steer(tmp_path, "clear", "retell").stderr
        assert "no object “retel”" in steer(tmp_path, "clear", "retel").stderr
        assert "4 faults" in steer(tmp_path, "clear").stderr
        refused = steer(tmp_path, "edit", "Bookin")
        assert (refused.returncode, "no agent “Bookin”" in refused.stderr) == (2, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    gone = steer(tmp_path, "stats")
    assert gone.returncode == 1
    assert "No simulator is running" in gone.stderr


def test_a_port_in_use_is_one_clear_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = steer(tmp_path, "--elevenlabs", str(port))
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == f"error: port {port} is in use by another program"
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--fault", "trunkate"), "did you mean truncate?"),
        (("--fault", "500:nobody"), "there is no object “nobody”"),
        (("fault", "429:retry-after=x", "--url", "http://127.0.0.1:9"), "retry-after is a number"),
        (("stats", "--url", "file:///etc/passwd"), "is not a URL"),
        (("--agents", "-3"), "whole number"),
        (("--retell", "70000"), "not a port"),
        (("--latency", "nan"), "milliseconds"),
        (("--retell", "7070", "--elevenlabs", "7070"), "was given twice"),
        (("fly",), "fly"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], reason: str) -> None:
    result = steer(tmp_path, *words)
    assert result.returncode == 2
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = steer(tmp_path, "stats", "--url", url)
    assert result.returncode == 1
    assert f"No simulator answers at {url}" in result.stderr


def test_a_stale_state_file_is_not_believed(tmp_path: Path) -> None:
    ended = subprocess.Popen((sys.executable, "-c", ""))
    ended.wait()
    (tmp_path / "data").mkdir()
    state = {"retell": "http://127.0.0.1:9", "pid": ended.pid}
    (tmp_path / "data" / "simulator.json").write_text(json.dumps(state))
    result = steer(tmp_path, "stats")
    assert "No simulator is running" in result.stderr


def test_the_module_imports_nothing_heavy() -> None:
    heavy = ("uvicorn", "starlette", "httpx", "asyncio", "urllib.request", "sqlmodel")
    code = f"import app.commands.simulator, sys; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run(
        (sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
