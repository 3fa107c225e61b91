"""Checks of the machine itself: versions, bytecode, audio devices, terminal, colours, locale."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.blocking import in_daemon_thread
from services.health.doctor import Finding, Level

# The oldest SQLite with RETURNING, which the mirror's statements use.
SQLITE_NEEDED = (3, 35)
LEAST_COLUMNS, LEAST_LINES = 80, 24
_AUDIO_LIMIT = 4.0

# Runs in a process of its own: a sound driver may hang, crash or write to the terminal.
_ASK_AUDIO = """
import json
try:
    import sounddevice
    devices = [(d["max_input_channels"], d["max_output_channels"]) for d in sounddevice.query_devices()]
    print(json.dumps({"in": sum(i > 0 for i, _ in devices), "out": sum(o > 0 for _, o in devices)}))
except ImportError:
    print(json.dumps({"missing": "sounddevice"}))
except OSError as error:
    print(json.dumps({"missing": "PortAudio" if "PortAudio" in str(error) else "", "error": str(error)}))
except Exception as error:
    print(json.dumps({"error": str(error)}))
"""
_BY_TEXT = "calls will be by text"


@dataclass(frozen=True, slots=True)
class TerminalFacts:
    """What the process knows of its terminal; sizes are None where there is none."""

    input_is_terminal: bool
    output_is_terminal: bool
    columns: int | None
    lines: int | None
    encoding: str


async def versions(program: str, sqlite_version: str = sqlite3.sqlite_version) -> Sequence[Finding]:
    """Program, Python and SQLite."""
    python = ".".join(map(str, sys.version_info[:3]))
    parts = tuple(int(part) for part in sqlite_version.split(".")[:2])
    needed = ".".join(map(str, SQLITE_NEEDED))
    return [
        Finding("program", Level.OK, f"Callboard {program}, Python {python} ({sys.platform})"),
        Finding("sqlite", Level.OK, f"SQLite {sqlite_version}")
        if parts >= SQLITE_NEEDED
        else Finding(
            "sqlite",
            Level.FAIL,
            f"SQLite {sqlite_version}, {needed} or newer is needed",
            "Use a newer Python, or PostgreSQL by CALLBOARD_DATABASE_URL",
        ),
    ]


async def bytecode(package: Path, environ: Mapping[str, str], writes: bool) -> Sequence[Finding]:
    """Whether compiled modules are kept: without them every start takes about twice as long.

    `package` is a folder of our code, `writes` whether the interpreter writes bytecode at all.
    """
    if not writes:
        cause = (
            "PYTHONDONTWRITEBYTECODE is set"
            if environ.get("PYTHONDONTWRITEBYTECODE")
            else "python runs with -B"
        )
        advice = "Unset it, so that each start does not compile everything again (about twice as slow)"
        return [Finding("bytecode", Level.WARN, f"not kept: {cause}", advice)]
    elsewhere = environ.get("PYTHONPYCACHEPREFIX")
    folder = Path(elsewhere) if elsewhere else package / "__pycache__"
    there = await asyncio.to_thread(lambda: folder.is_dir() and any(folder.iterdir()))
    if there:
        return [Finding("bytecode", Level.OK, "kept")]
    parent = folder if await asyncio.to_thread(folder.is_dir) else folder.parent
    if os.access(parent, os.W_OK):
        return [Finding("bytecode", Level.OK, "will be kept")]
    advice = f"Compile once as the installing user: python -m compileall {package.parent}"
    return [Finding("bytecode", Level.WARN, f"not kept: {parent} is not writable", advice)]


async def audio(ask: Callable[[], str] | None = None) -> Sequence[Finding]:
    """Whether voice calls can be made here; `ask` returns the JSON of the question asked of PortAudio."""
    try:
        answer = json.loads(await in_daemon_thread(ask or _ask_audio, _AUDIO_LIMIT + 0.5))
    except (TimeoutError, subprocess.TimeoutExpired):
        silent = f"the sound system does not answer; {_BY_TEXT}"
        return [Finding("audio", Level.WARN, silent, "Restart the sound system, then run doctor again")]
    except (ValueError, OSError):
        crashed = f"the sound system could not be asked; {_BY_TEXT}"
        return [Finding("audio", Level.WARN, crashed, "Check the sound drivers of this machine")]
    missing, error = answer.get("missing"), str(answer.get("error", "")).strip()
    if missing == "PortAudio":
        advice = (
            "Install PortAudio (Debian, Ubuntu: apt install libportaudio2; macOS: brew install portaudio)"
        )
        return [Finding("audio", Level.WARN, f"PortAudio is not installed; {_BY_TEXT}", advice)]
    if missing:
        advice = "Install Callboard again with all its dependencies"
        return [
            Finding("audio", Level.WARN, f"the Python package {missing} is not installed; {_BY_TEXT}", advice)
        ]
    if error:
        advice = "Check the sound drivers of this machine"
        return [
            Finding("audio", Level.WARN, f"PortAudio failed ({error.splitlines()[0]}); {_BY_TEXT}", advice)
        ]
    inputs, outputs = int(answer["in"]), int(answer["out"])
    found = f"{inputs} {_devices(inputs)} in, {outputs} {_devices(outputs)} out"
    if inputs and outputs:
        return [Finding("audio", Level.OK, found)]
    advice = "Connect a microphone and a loudspeaker, or call from a machine that has them (not over SSH)"
    return [Finding("audio", Level.WARN, f"{found}; {_BY_TEXT}", advice)]


def _devices(count: int) -> str:
    return "device" if count == 1 else "devices"


async def webrtc() -> Sequence[Finding]:
    """Whether calls over WebRTC and echo cancellation are installed; looks without loading them."""
    from services.calls.webrtc import INSTALL, webrtc_problem
    from services.model import Provider

    problems = {provider: webrtc_problem(provider) for provider in Provider}
    if not any(problems.values()):
        return [Finding("webrtc", Level.OK, "calls over WebRTC and echo cancellation are installed")]
    missing = " and ".join(str(provider) for provider, problem in problems.items() if problem)
    found = f"not installed for {missing}; without it the microphone is silenced while the agent speaks"
    return [Finding("webrtc", Level.OK, found, f"If you want it: {INSTALL}")]


def _ask_audio() -> str:
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-P", "-c", _ASK_AUDIO],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=_AUDIO_LIMIT,
        check=False,
    )
    return done.stdout


async def terminal(facts: TerminalFacts, environ: Mapping[str, str]) -> Sequence[Finding]:
    """Whether the console can be opened here."""
    term = environ.get("TERM", "")
    around = [
        word
        for word, seen in (("tmux", "TMUX"), ("screen", "STY"), ("SSH", "SSH_CONNECTION"))
        if environ.get(seen)
    ]
    described = f"TERM={term or '(not set)'}" + (f", in {' over '.join(around)}" if around else "")
    if not (facts.input_is_terminal and facts.output_is_terminal):
        advice = "Nothing to do for commands; open the console in a terminal (over SSH: ssh -t)"
        return [Finding("terminal", Level.WARN, f"not a terminal, {described}", advice)]
    size = f"{facts.columns or 0}×{facts.lines or 0}"
    if term in ("", "dumb", "unknown"):
        advice = "Set TERM to what the terminal is, for example TERM=xterm-256color"
        return [Finding("terminal", Level.WARN, f"{size}, {described}", advice)]
    if (facts.columns or 0) < LEAST_COLUMNS or (facts.lines or 0) < LEAST_LINES:
        advice = f"Make the window {LEAST_COLUMNS}×{LEAST_LINES} or larger"
        return [Finding("terminal", Level.WARN, f"{size} is small, {described}", advice)]
    advice = "On a slow line, compression helps: ssh -C" if "SSH" in around else ""
    return [Finding("terminal", Level.OK, f"{size}, {described}", advice)]


async def colours(environ: Mapping[str, str]) -> Sequence[Finding]:
    """How many colours the console will use, and why not more."""
    term, forced = environ.get("TERM", ""), environ.get("TEXTUAL_COLOR_SYSTEM", "")
    if environ.get("NO_COLOR"):
        return [Finding("colours", Level.OK, "none: NO_COLOR is set")]
    if forced and forced != "auto":
        return [Finding("colours", Level.OK, f"{forced}, as TEXTUAL_COLOR_SYSTEM says")]
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return [Finding("colours", Level.OK, "16 million")]
    found = "256" if "256" in term else "16"
    if environ.get("SSH_CONNECTION"):
        advice = (
            "COLORTERM does not cross SSH: if this terminal shows 16 million colours, "
            "set TEXTUAL_COLOR_SYSTEM=truecolor"
        )
        return [Finding("colours", Level.OK, f"{found}, over SSH", advice)]
    return [Finding("colours", Level.OK, found)]


async def locale(facts: TerminalFacts, environ: Mapping[str, str]) -> Sequence[Finding]:
    """Whether text beyond ASCII can be shown."""
    names = [environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)]
    shown = f"{names[0] if names else 'no locale set'}, output in {facts.encoding or 'unknown'}"
    if facts.encoding.lower().replace("-", "").replace("_", "") == "utf8":
        return [Finding("locale", Level.OK, shown)]
    advice = "Set a UTF-8 locale, for example LC_ALL=C.UTF-8, or CALLBOARD_ASCII=1 for plain characters"
    return [Finding("locale", Level.WARN, shown, advice)]
