"""`callboard calls`: what was recorded is listed, shown, exported and deleted, without a network."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.headless import Run, database, headless, long_ago

DESK = """\
name: desk
think: 0
word_ms: 0
fallback: ["Once more?"]
answers:
  - when: "slot"
    steps:
      - tool: find_slot
        result: {day: Monday}
      - agent: "On Monday."
  - when: "bye"
    steps: [{agent: "Goodbye."}, {end: agent}]
steps:
  - agent: "Hello, how can I help?"
  - listen: true
"""


@pytest.fixture
def home(own_environment: Path) -> Path:
    return own_environment


@pytest.fixture
def run(home: Path, monkeypatch, capsys) -> Run:
    return headless(home, monkeypatch, capsys)


@pytest.fixture
def call(run: Run, tmp_path: Path):
    """Make a call by these lines; returns its id."""
    script = tmp_path / "desk.yaml"
    script.write_text(DESK)

    def make(*lines: str) -> str:
        words = ("call", "--scenario", str(script), "--json")
        told = run(*words, stdin="".join(f"{line}\n" for line in lines))
        assert told.code == 0, told.err
        made: str = told.summary["call"]
        return made

    return make


def listed(run: Run, *words: str) -> list[dict[str, Any]]:
    told = run("calls", "list", *words, "--json")
    assert told.code == 0, told.err
    found: list[dict[str, Any]] = told.json["calls"]
    return found


def test_no_call_yet(run, home):
    assert listed(run) == []
    assert "callboard call AGENT" in run("calls", "list").err
    assert run("calls", "show", "abc").code == 2
    assert run("calls", "list", "--search", "x").err.strip() == "No call matches."


def test_calls_are_listed_newest_first_and_found(run, call):
    first = call("I want a slot at 100%", "bye")
    second = call("hello there")
    assert [row["id"] for row in listed(run)] == [second, first]
    assert [row["id"] for row in listed(run, "--limit", "1")] == [second]
    assert [row["id"] for row in listed(run, "--search", "AT 100%")] == [first]
    assert [row["id"] for row in listed(run, "--end", "agent_ended")] == [first]
    assert listed(run, "--transport", "phone") == []
    assert listed(run, "--search", "%") == listed(run, "--search", "100%")
    row = listed(run)[1]
    assert (row["state"], row["reason"], row["turns"], row["simulated"]) == ("ended", "agent_ended", 3, True)
    table = run("calls", "list").out
    assert table.splitlines()[0].split()[:3] == ["CALL", "STARTED", "AGENT"]
    assert first[:8] in table
    assert "the agent ended the call" in table


@pytest.mark.parametrize(
    "words", [("--limit", "0"), ("--limit", "-3"), ("--agent", "nobody"), ("--company", "nobody")]
)
def test_a_wrong_filter_is_told(words, run, call):
    told = run("calls", "list", *words)
    assert told.code == 2
    assert told.err.count("error:") == 1


def test_a_call_is_shown_with_its_transcript(run, call):
    made = call("A slot, please", "bye")
    shown = run("calls", "show", made[:6])
    assert shown.code == 0
    words = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert f"call {made}" in words
    for line in ("agent Hello, how can I help?", "you A slot, please", "agent On Monday.", "agent Goodbye."):
        assert any(line in word for word in words), line
    assert any("tool find_slot()" in word and "Monday" in word for word in words)

    document = run("calls", "show", made, "--json").json["call"]
    assert document["id"] == made
    assert document["reason"] == "agent_ended"
    assert [line["who"] for line in document["transcript"]].count("you") == 2
    kinds = [event["kind"] for event in document["events"]]
    assert kinds[-1] == "ended"
    assert kinds.count("ended") == 1


def test_an_id_that_fits_several_or_none(run, call, home):
    one, two = call("hello"), call("hello")
    with contextlib.closing(database(home)) as connection, connection:
        for number, made in enumerate((one, two)):
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("UPDATE call_record SET id = ? WHERE id = ?", (f"abc{number}", made))
    assert "several" in run("calls", "show", "abc").err
    for word in ("abc", "abd", "", "%", "a_c"):
        assert run("calls", "show", word).code == 2, word
        assert run("calls", "export", word).code == 2, word
        assert run("calls", "delete", word, "--yes").code == 2, word
    assert len(listed(run)) == 2
    assert run("calls", "show", "ABC1").code == 0


def test_the_forms_of_an_export_and_what_is_there_already(run, call, tmp_path):
    made = call("A slot, please", "bye")
    target = tmp_path / "out"
    target.mkdir()
    read = {
        "folder": lambda place: json.loads((place / "call.json").read_text())["id"] == made,
        "json": lambda place: json.loads(place.read_text())["id"] == made,
        "text": lambda place: "A slot, please" in place.read_text(),
        "csv": lambda place: "A slot, please" in [row["text"] for row in csv.DictReader(place.open())],
    }
    for form, holds in read.items():
        words = ("calls", "export", made, "--form", form, "--to", str(target))
        told = run(*words)
        assert told.code == 0, told.err
        place = Path(told.out.strip())
        assert holds(place), form
        before = place.stat().st_mtime_ns
        again = run(*words)
        assert again.code == 2
        assert "there already" in again.err
        assert place.stat().st_mtime_ns == before
    nowhere = run("calls", "export", made, "--form", "json", "--to", str(tmp_path / "no" / "such" / "file"))
    assert nowhere.code == 1
    assert nowhere.err.count("error:") == 1


def test_deleting_asks_and_without_a_terminal_needs_a_yes(run, call, home):
    made, other = call("hello"), call("hello")
    (folder,) = [Path(row["folder"]) for row in listed(run) if row["id"] == made]
    told = run("calls", "delete", made, stdin="yes\n")
    assert told.code == 2
    assert "--yes" in told.err
    assert folder.is_dir()
    assert run("calls", "delete", "--yes").code == 2
    assert run("calls", "delete", made, "--older-than", "3", "--yes").code == 2
    assert run("calls", "delete", made, "--yes").code == 0
    assert not folder.exists()
    assert [row["id"] for row in listed(run)] == [other]
    assert run("calls", "delete", made, "--yes").code == 2


def test_deleting_by_age(run, call, home):
    old, young = call("hello"), call("hello")
    with contextlib.closing(database(home)) as connection, connection:
        day = 86_400_000
        connection.execute("UPDATE call_record SET started_at = started_at - ? WHERE id = ?", (31 * day, old))
    assert run("calls", "delete", "--older-than", "-1", "--yes").code == 2
    assert run("calls", "delete", "--older-than", "30", "--yes").code == 0
    assert [row["id"] for row in listed(run)] == [young]
    assert "No finished call" in run("calls", "delete", "--older-than", "30", "--yes").err


def test_a_recording_that_is_gone_or_damaged_is_still_listed(run, call):
    gone, damaged = call("A slot, please"), call("A slot, please")
    folders = {row["id"]: Path(row["folder"]) for row in listed(run)}
    for file in folders[gone].iterdir():
        file.unlink()
    folders[gone].rmdir()
    events = folders[damaged] / "events.jsonl"
    whole = events.read_bytes().splitlines(keepends=True)
    rubbish = [
        b"\xff\xfe\n",
        b"{}\n",
        b"[1]\n",
        b'{"kind": "agent"}\n',
        b'{"kind": "ended", "reason": "?"}\n',
    ]
    types = [b'{"t": "x", "kind": "agent", "text": 5}\n', b'{"t": null, "kind": "cost"}\n', b"null\n"]
    events.write_bytes(b"".join([*rubbish, *whole[:-1], *types, whole[-1][:10]]))
    for made in folders:
        assert run("calls", "show", made).code == 0
        assert run("calls", "show", made, "--json").json["call"]["id"] == made
    assert "gone" in run("calls", "show", gone).out
    assert "A slot, please" in run("calls", "show", damaged).out
    assert run("calls", "export", gone).code == 1
    assert run("calls", "delete", gone, damaged, "--yes").code == 0
    assert listed(run) == []


def test_what_was_said_cannot_disturb_the_terminal(run, call):
    made = call("A\x1b[2Jslot\u202e\x07")
    for words in (("list",), ("show", made)):
        out = run("calls", *words).out
        assert not set(out) & set("\x1b\u202e\x07")
    raw = run("calls", "show", made, "--json").out
    assert not set(raw) & set("\x1b\u202e\x07")


def test_a_call_that_still_runs_is_not_deleted(run, call, home):
    made = call("hello")
    with contextlib.closing(database(home)) as connection, connection:
        connection.execute("UPDATE call_record SET state = 'live', ended_at = NULL, reason = NULL")
    assert listed(run)[0]["state"] == "live"
    assert run("calls", "delete", made, "--yes").code == 0
    assert [row["id"] for row in listed(run)] == [made]
    long_ago(home)
    assert listed(run)[0]["reason"] == "completed"  # what its recording says
    assert run("calls", "delete", made, "--yes").code == 0
    assert listed(run) == []
