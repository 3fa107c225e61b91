"""Calls in a console that runs in a terminal: how to begin one, and what it left on the disk."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.terminal import PATIENCE, Terminal

ABOUT = {
    "scripted": "a script on this machine",
    "text": "you type, the agent answers",
    "microphone": "your microphone and speaker",
    "webrtc": "your microphone and speaker over WebRTC",
    "phone": "the vendor dials a number",
}
"""What the dialog says about each way, in their order."""
LEFT, RIGHT, DOWN = "\x1b[D", "\x1b[C", "\x1b[B"
ESCAPE = "\x1b"


def ask(terminal: Terminal, way: str = "text") -> str:
    """Open the dialog for the agent under the cursor and choose a way; the screen then."""
    terminal.send("c")
    terminal.wait_for("enter calls")
    ways = list(ABOUT)
    # The first one is chosen by going to the left until it is told about: reasons come a moment later.
    for _ in ways:
        if ABOUT["scripted"] in terminal.text():
            break
        before = terminal.text()
        terminal.send(LEFT)
        terminal.wait_for(lambda text, before=before: text != before)
        terminal.settle(0.15)
    for _ in range(ways.index(way)):
        terminal.send(RIGHT)
    return terminal.wait_for(lambda text: ABOUT[way] in text or "Not available" in text)


def begin(terminal: Terminal, way: str = "text", *, said: str = "agent  ") -> str:
    """Call the agent under the cursor; returns once it has greeted."""
    ask(terminal, way)
    terminal.send("\r")
    terminal.wait_gone("enter calls")
    return terminal.wait_for(lambda text: "● live" in text and said in text)


def say(terminal: Terminal, words: str) -> None:
    """Type something to the agent; the line is left afterwards."""
    terminal.send("t")
    terminal.wait_for("enter send")
    terminal.send(f"{words}\r")
    terminal.wait_for("typed")
    terminal.send(ESCAPE)
    terminal.wait_gone("enter send")


# -- the demo's simulator --------------------------------------------------------------------------


def set_script(home: Path, script: dict[str, Any]) -> None:
    """What every agent of the demo says from now on; the demo has to be open."""
    told = json.loads((home / "data" / "demo" / "simulator.json").read_text(encoding="utf-8"))
    for vendor in ("retell", "elevenlabs"):
        request = urllib.request.Request(
            f"{told[vendor]}/__script",
            json.dumps({"script": script}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as reply:
            assert reply.status in (200, 201)


# -- what is kept ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A call as the disk has it. `row` is its row in the database."""

    row: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    folder: Path

    @property
    def transcript(self) -> str:
        return (self.folder / "transcript.txt").read_text(encoding="utf-8")

    def whole(self) -> bool:
        """Nothing is missing of a call that is over."""
        kinds = [event["kind"] for event in self.events]
        meta = json.loads((self.folder / "call.json").read_text(encoding="utf-8"))
        return (
            self.row["state"] == "ended"
            and self.row["ended_at"] is not None
            and self.row["reason"] == meta["reason"]
            and kinds.count("ended") == 1
            and not {"agent", "user", "tool", "mark"} & set(kinds[kinds.index("ended") :])
            and (self.folder / "transcript.txt").exists()
        )


def database(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(home / "data" / "demo" / "callboard.db")


def kept_calls(home: Path) -> list[Kept]:
    """Every call, oldest first."""
    with database(home) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM call_record ORDER BY started_at")]
    kept = []
    for row in rows:
        folder = Path(row["folder"])
        lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        kept.append(Kept(row, tuple(json.loads(line) for line in lines), folder))
    return kept


def the_call(home: Path) -> Kept:
    """The only call."""
    (call,) = kept_calls(home)
    return call


def wait_for_event(home: Path, text: str, patience: float = PATIENCE) -> None:
    """Until the recording has these words: the picture may be faster than the disk."""
    end = time.monotonic() + patience
    while not any(text in path.read_text(errors="replace") for path in home.rglob("events.jsonl")):
        assert time.monotonic() < end, f"{text!r} was not recorded"
        time.sleep(0.05)
