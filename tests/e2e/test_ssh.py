"""The console over a real SSH connection: keys and sizes reach it, and it goes when the client is killed."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.environment import scrubbed
from tests.support.program import CALLBOARD
from tests.support.sshd import Sshd, running_sshd
from tests.support.terminal import Terminal, alive, wait_all_gone

AGENTS = 24


@pytest.fixture(scope="module")
def sshd(tmp_path_factory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def open_over_ssh(sshd: Sshd, home: Path, columns: int = 100, rows: int = 30) -> Terminal:
    """An ssh client in a terminal of its own, with the console at its other end."""
    assert sys.executable
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in scrubbed(home).items())
    remote = f"env {variables} {shlex.join(CALLBOARD)}"
    environment = {"TERM": "xterm-256color", "PATH": "/usr/bin:/bin", "HOME": str(home)}
    return Terminal(sshd.command(remote), environment, columns=columns, rows=rows)


def remote_processes(home: Path) -> list[psutil.Process]:
    """The console and its simulator: not children of ours, known by the data folder in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if command[:1] == [sys.executable] and process.environ().get("CALLBOARD_HOME") == str(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if alive(process)]


def wait_for_remote(home: Path, count: int) -> list[psutil.Process]:
    end = time.monotonic() + 30
    while len(found := remote_processes(home)) < count:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def test_keys_and_sizes(sshd, own_environment):
    with open_over_ssh(sshd, own_environment) as terminal:
        terminal.wait_for("DEMO")
        terminal.wait_for(f"{AGENTS} agents")
        terminal.send("/")
        terminal.wait_for("enter keep")
        terminal.send("vendor:retell")
        terminal.wait_gone("elevenlabs ╮")
        terminal.send("\x1b")
        terminal.wait_for("elevenlabs ╮")
        for columns, rows in ((80, 24), (140, 40)):
            terminal.resize(columns, rows)
            terminal.wait_for(
                lambda text, columns=columns: (
                    columns - 12 <= max(map(len, text.splitlines()[2:-2])) <= columns and "╮" in text
                )
            )
        terminal.send("\x11")
        assert terminal.wait_exit() == 0
        assert not terminal.modes.get(1049)
        assert terminal.modes[25]
    wait_all_gone(remote_processes(own_environment))


def test_killed_client(sshd, own_environment):
    """The link is gone: so are the console and its simulator, whatever it was doing."""
    with open_over_ssh(sshd, own_environment) as terminal:
        terminal.wait_for(f"{AGENTS} agents")
        remote = wait_for_remote(own_environment, 2)
        terminal.send("F")
        terminal.process.kill()
        terminal.process.wait()
        wait_all_gone(remote)


def test_fewer_frames_over_a_link(sshd, own_environment):
    """Over SSH the console paints at most 15 times a second."""
    with open_over_ssh(sshd, own_environment) as terminal:
        terminal.wait_for(f"{AGENTS} agents")
        environment = {}
        for process in wait_for_remote(own_environment, 2):
            if "simulator" in process.cmdline():  # inherits what the console set for itself
                environment = process.environ()
        assert environment["SSH_CONNECTION"]
        assert environment["TEXTUAL_FPS"] == "15"
