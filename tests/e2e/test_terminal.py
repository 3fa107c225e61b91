"""The console as a person meets it: in a terminal, on the demo, with keys, window sizes and an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.environment import child_environment
from tests.support.program import CALLBOARD, callboard
from tests.support.terminal import SGR_COLOR, Terminal, wait_all_gone

AGENTS = 24
ENTERED = (1049, 1000, 1004, 2004)
"""Modes that the console switches on and has to switch off: alternate screen, mouse, focus, paste."""

Open = Callable[..., Terminal]


@pytest.fixture
def open_console(own_environment) -> Open:
    """Opens the demo's console; the test's end ends it."""
    opened: list[Terminal] = []

    def open_it(columns: int = 100, rows: int = 30, *words: str, **environment: str) -> Terminal:
        terminal = Terminal(
            [*CALLBOARD, *words],
            child_environment(own_environment, **environment),
            columns=columns,
            rows=rows,
        )
        opened.append(terminal)
        return terminal

    yield open_it
    for terminal in opened:
        terminal.__exit__()


def ready(terminal: Terminal) -> str:
    """Wait for the demo's agents, read by a first sync that nobody asked for or by `S`."""
    terminal.wait_for("DEMO")
    terminal.wait_for(f"{AGENTS} agents")
    terminal.settle()
    return terminal.text()


def simulator_of(terminal: Terminal) -> psutil.Process:
    """The demo's simulator, once it runs."""
    end = time.monotonic() + 30
    while not (children := [child for child in terminal.children() if "simulator" in child.cmdline()]):
        assert time.monotonic() < end, terminal.text()
        terminal.pump(0.1)
    return children[0]


def left_as_found(terminal: Terminal) -> None:
    assert not [mode for mode in ENTERED if terminal.modes.get(mode)]
    assert terminal.modes[25], "the cursor is still hidden"
    assert terminal.attributes() == terminal.attributes_before
    assert terminal.cooked


def test_a_day_with_the_demo(open_console):
    """Opens marked DEMO, shows agents, syncs, filters, helps, and leaves the terminal as it found it."""
    terminal = open_console()
    text = ready(terminal)
    assert "retell" in text
    assert "elevenlabs" in text
    assert all(terminal.modes[mode] for mode in ENTERED)
    assert not terminal.modes[25]

    terminal.send("S")
    terminal.wait_for(lambda text: "synced" in text.splitlines()[-2])

    terminal.send("/vendor:retell !Booking")  # all at once, as it comes over a slow link
    terminal.wait_for(lambda text: "elevenlabs ╮" not in text and "Booking" not in body(text))
    terminal.send("\x1b")
    terminal.wait_for("elevenlabs ╮")

    terminal.send("?")
    terminal.wait_for("Sync every agent")
    terminal.send("\x1b")
    terminal.wait_gone("Sync every agent")
    assert "by name" in terminal.text(), "a letter of the filter was taken for a command"

    terminal.send("\r")
    terminal.wait_for("overview  configuration")
    terminal.send("\x1b")
    terminal.wait_gone("overview  configuration")

    terminal.send("\x11")
    assert terminal.wait_exit() == 0
    left_as_found(terminal)
    assert not terminal.family()


def body(text: str) -> str:
    """The cards alone."""
    return "\n".join(text.splitlines()[3:-2])


@pytest.mark.parametrize("vendor", ["retell", "elevenlabs"])
def test_breaking_an_agent_tells_why(open_console, vendor):
    """The demo's own switch: the agent's card shows the error and what to do, the others stay well."""
    terminal = open_console(120, 40)
    ready(terminal)
    terminal.send(f"/vendor:{vendor}\r")
    terminal.wait_for(f"12 of {AGENTS} agents")
    terminal.wait_gone("enter keep")
    terminal.send("B")
    terminal.settle()
    terminal.send("f")
    terminal.wait_for("✗ error")
    terminal.send("B")
    terminal.settle()
    terminal.send("f")
    terminal.wait_gone("✗ error")


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (140, 40), (60, 15), (250, 70)])
def test_resize(open_console, columns, rows):
    terminal = open_console(100, 30)
    ready(terminal)
    terminal.resize(columns, rows)
    text = terminal.wait_for(lambda text: f"{AGENTS} agents" in text and whole_cards(text, columns))
    assert "DEMO" in text
    terminal.settle()
    assert len(terminal.text().splitlines()) == rows


def whole_cards(text: str, columns: int) -> bool:
    """Every card's top edge is closed, and the cards use the whole width."""
    tops = [line for line in text.splitlines() if "╭" in line or "┏" in line]
    closed = all(line.count("╭") + line.count("┏") == line.count("╮") + line.count("┓") for line in tops)
    return bool(tops) and closed and columns - 12 <= max(len(line) for line in tops) <= columns


def test_nothing_is_written_while_nothing_changes(open_console):
    terminal = open_console()
    ready(terminal)
    terminal.send("S")
    terminal.wait_for(lambda text: "synced" in text.splitlines()[-2])
    terminal.settle(1.0)
    assert terminal.listen(3) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_cleanly(open_console, number):
    terminal = open_console()
    ready(terminal)
    simulator = simulator_of(terminal)
    terminal.signal(number)
    assert terminal.wait_exit() == 128 + number
    left_as_found(terminal)
    wait_all_gone([simulator])


def test_signal_in_the_middle_of_a_sync(open_console):
    terminal = open_console()
    ready(terminal)
    simulator = simulator_of(terminal)
    terminal.send("F")
    terminal.signal(signal.SIGTERM)
    assert terminal.wait_exit() == 128 + signal.SIGTERM
    left_as_found(terminal)
    wait_all_gone([simulator])


def test_closed_window(open_console):
    """The terminal's other side goes away, as when a window is closed."""
    terminal = open_console()
    ready(terminal)
    family = [*terminal.family(), simulator_of(terminal)]
    terminal.hang_up()
    wait_all_gone(family)


def test_closed_window_without_a_hangup_signal(own_environment):
    """Under `nohup` and some supervisors no signal comes: end of file has to end it, without spinning."""
    script = "import os, sys, signal as s; s.signal(s.SIGHUP, s.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", script, *CALLBOARD]
    with Terminal(command, child_environment(own_environment)) as terminal:
        ready(terminal)
        family = [*terminal.family(), simulator_of(terminal)]
        terminal.hang_up()
        wait_all_gone(family)


def test_killed_console_leaves_no_simulator(open_console):
    terminal = open_console()
    ready(terminal)
    simulator = simulator_of(terminal)
    terminal.signal(signal.SIGKILL)
    terminal.process.wait()
    wait_all_gone([simulator])


@pytest.mark.parametrize("missing", ["stdin", "stdout"])
def test_not_a_terminal(own_environment, missing):
    """One clear message and exit code 2, wherever the console would have no terminal to work with."""
    pipes = {"stdin": subprocess.DEVNULL} if missing == "stdin" else {"stdout": subprocess.PIPE}
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            CALLBOARD,
            **{"stdin": slave, "stdout": slave, **pipes},
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(own_environment),
            timeout=60,
            check=False,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: The console needs a terminal")
    assert len(done.stderr.splitlines()) == 2
    assert not done.stdout


def test_no_color(open_console):
    terminal = open_console(NO_COLOR="1")
    ready(terminal)
    assert not SGR_COLOR.findall(terminal.raw())
    assert "✓" in terminal.text() or "●" in terminal.text()


def test_dumb_terminal(open_console):
    """No colours and plain characters, where the terminal says it can do nothing."""
    terminal = open_console(TERM="dumb", COLORTERM="")
    text = ready(terminal)
    assert not SGR_COLOR.findall(terminal.raw())
    assert not [glyph for glyph in "●╭╮╰╯━┏" if glyph in text]


def test_plain_characters(open_console):
    terminal = open_console(CALLBOARD_ASCII="true")
    text = ready(terminal)
    assert not [glyph for glyph in "●╭╮╰╯━┏" if glyph in text]
    assert SGR_COLOR.findall(terminal.raw())


def test_sixteen_colours(open_console):
    terminal = open_console(TERM="xterm", COLORTERM="")
    ready(terminal)
    assert b"38;2;" not in terminal.raw()
    assert b"38;5;" not in terminal.raw()


def test_crash_leaves_a_report_without_secrets(own_environment):
    """What nobody expected: the terminal is restored, a message says where the report is, no locals."""
    secret = "key_0123456789abcdef0123456789abcdef"
    script = f"""\
import sys
from app import cli, console
def broken(self, *_):
    api_key = {secret!r}
    raise RuntimeError("the unexpected happened with " + api_key)
console.Callboard.action_help = broken
sys.exit(cli.main([]))
"""
    with Terminal([sys.executable, "-P", "-c", script], crash_environment(own_environment)) as terminal:
        ready(terminal)
        terminal.send("?")
        code = terminal.wait_exit()
        left_as_found(terminal)
        said = terminal.text()
    assert code == 1, said
    assert "report" in said
    assert "Traceback" not in said
    assert secret not in terminal.raw().decode(errors="replace")
    (report,) = (own_environment / "logs").glob("crash-*.txt")
    content = report.read_text()
    assert "the unexpected happened" in content
    assert "api_key =" not in content.replace("api_key = '", "")
    assert report.stat().st_mode & 0o077 == 0


def crash_environment(home: Path) -> dict[str, str]:
    return child_environment(home, PYTHONPATH=str(Path(__file__).resolve().parents[2]))


FOCUS_IN, FOCUS_OUT = "\x1b[I", "\x1b[O"


@pytest.mark.parametrize("reports_focus", [False, True])
def test_a_vendor_breaks_in_the_demo_and_the_desktop_is_told_unless_somebody_looks(
    open_console, own_environment, reports_focus
):
    """The whole way of an outage that a newcomer can cause, seen at the end of the terminal's line."""
    added = callboard(own_environment, "--demo", "health", "alerts", "add", "desktop")
    assert added.code == 0, added
    terminal = open_console(100, 30, CALLBOARD_HEALTH_INTERVAL="1", TMUX="")
    ready(terminal)
    if reports_focus:
        terminal.send(FOCUS_IN)
    terminal.send("4")
    terminal.wait_for(lambda text: "all 2 fine" in text and "all 24 fine" in text)
    terminal.send("g")
    terminal.wait_for("▸ ● ElevenLabs")
    terminal.send("B")
    terminal.wait_for("Let ElevenLabs fail")
    terminal.send("\r")
    terminal.wait_for("12 held back by ElevenLabs")
    terminal.wait_for("ElevenLabs is down:")
    terminal.settle()
    told = b"\x1b]9;Callboard: ElevenLabs is down"
    assert (told in terminal.raw()) is not reports_focus
    if reports_focus:  # whoever does not look mends it elsewhere
        terminal.send(FOCUS_OUT)
        mended = callboard(own_environment, "--demo", "simulator", "clear", "elevenlabs")
        assert mended.code == 0, mended
    else:
        terminal.wait_for("B break/mend")
        terminal.send("B")
        terminal.wait_for("Mend ElevenLabs")
        terminal.send("\r")
    terminal.wait_for("ElevenLabs is up again")
    terminal.wait_for(lambda _: b"\x1b]9;Callboard: ElevenLabs is up again" in terminal.raw())
