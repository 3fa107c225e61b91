"""Calls of the real command that are stopped, killed, or have no room: what was recorded is kept."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine

from services.calls.wave_file import read_track
from services.simulator.speech import tones
from services.storage.migrations import upgrade
from tests.support.headless import (
    Run,
    Town,
    complete,
    event,
    finish,
    headless,
    is_kind,
    long_ago,
    only_call,
    recorded,
    start,
    town,
    until,
)
from tests.support.mounts import fill, read_only, small_disk
from tests.support.sounds import write_wav

SEED = 20261121
RATE = 16_000
STORY = " ".join(f"word{number}" for number in range(60))
"""What the agent says: longer than any of these calls lives."""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town")) as made:
        yield made


@pytest.fixture
def vendors(simulated: Town) -> Town:
    simulated.clear()
    return simulated


@pytest.fixture
def run(vendors: Town, monkeypatch, capsys) -> Run:
    return headless(vendors.home, monkeypatch, capsys)


def hissing(seconds: float) -> bytes:
    """Noise without a single silent sample, so that what a recording filled in can be told from it."""
    sound = np.random.default_rng(SEED).integers(-4000, 4000, int(RATE * seconds), dtype=np.int16)
    sound[sound == 0] = 1
    return sound.tobytes()


def sounding(pcm: bytes) -> np.ndarray[Any, Any]:
    """The samples that are not silence."""
    samples = np.frombuffer(pcm, "<i2")
    return samples[samples != 0]


def is_beginning(part: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> bool:
    return len(part) <= len(whole) and bool(np.array_equal(part, whole[: len(part)]))


# Stopped


def test_a_signal_hangs_up_and_the_recording_is_complete(run, vendors, tmp_path):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting=STORY, pace=1)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    words = ("call", agent, "--transport", "microphone", "--no-audio", "--json")
    calls = [start(vendors.home, *words) for _ in signals]
    for process, number in zip(calls, signals, strict=True):
        folder = Path(event(process, is_kind("call"))["folder"])
        event(process, is_kind("agent_speaking", on=True))
        until(lambda track=folder / "agent.wav": track.stat().st_size > 44, "the agent to be recorded")
        process.send_signal(number)
        told = finish(process)
        assert told.code == 0, (number, told)
        assert told.summary["reason"] == "operator_ended"
        assert complete(folder)
        pcm, _ = read_track(folder / "agent.wav")
        assert is_beginning(sounding(pcm), sounding(tones(STORY, RATE)))
        assert len(sounding(pcm))
    rows = run("calls", "list", "--json").json["calls"]
    assert {row["reason"] for row in rows} == {"operator_ended"}
    assert {talk["state"] for talk in vendors.conversations()} <= {"done", "processing"}


def test_a_second_ctrl_c_ends_the_program_at_once(run, vendors):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="Hello.")
    process = start(vendors.home, "call", agent, "--transport", "text", "--json")
    event(process, is_kind("agent"))
    vendors.fault("hang:elevenlabs:detail")  # what is asked after a call takes its time
    process.send_signal(signal.SIGINT)
    event(process, is_kind("ended"))
    row = only_call(vendors.home)
    # What is told is written by a thread of its own, a moment later.
    events = Path(row["folder"]) / "events.jsonl"
    until(lambda: '"kind": "ended"' in events.read_text("utf-8"), "the end to be recorded")

    def again() -> bool:  # one that comes right after the first is taken for the same
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    until(again, "the end of the program")
    told = finish(process)
    assert told.code == -signal.SIGINT
    assert "Traceback" not in told.err
    assert [each["kind"] for each in recorded(Path(row["folder"]))][-1] == "ended"
    long_ago(vendors.home)
    assert run("calls", "list", "--json").json["calls"][0]["reason"] == "operator_ended"


def test_a_closed_output_hangs_up(vendors):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="Hello.", ping_every_ms=200, turns=[{"say": "Well."}])
    process = start(vendors.home, "call", agent, "--transport", "text", "--json")
    event(process, is_kind("agent"))
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.close()
    process.stdin.write("Anybody there?\n")
    process.stdin.flush()
    assert process.wait(30) == 141
    assert process.stderr is not None
    err = process.stderr.read()
    process.stdin.close()
    process.stderr.close()
    assert "Traceback" not in err
    row = only_call(vendors.home)
    assert (row["reason"], row["detail"]) == ("operator_ended", "nobody reads the output")
    complete(Path(row["folder"]))


def test_input_is_not_read_faster_than_it_is_said(vendors):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="Hello.")
    process = start(vendors.home, "call", agent, "--transport", "text", "--json")
    event(process, is_kind("agent"))
    assert process.stdin is not None
    process.stdin.write("Hello?\n")
    process.stdin.flush()
    event(process, is_kind("typed"))  # it reads by now
    endless = process.stdin.fileno()
    os.set_blocking(endless, False)
    line, taken = b"x" * 4_000 + b"\n", 0
    quiet_until = time.monotonic() + 0.5
    while time.monotonic() < quiet_until and taken < 50_000_000:
        with contextlib.suppress(BlockingIOError):
            taken += os.write(endless, line)
            quiet_until = time.monotonic() + 0.5
    assert taken < 20_000_000, "all of the input is kept in memory"
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 0


# Killed


def test_killed_at_random_moments_of_a_call(run, vendors, tmp_path):
    """Spoken and typed calls at the same time, each killed somewhere."""
    chance = random.Random(SEED)
    voice, text = vendors.elevenlabs[0], vendors.elevenlabs[1]
    vendors.script(voice, greeting=STORY, pace=1, interruptible=False)
    vendors.script(text, greeting="Hello.", fallback=[f"Answer {n}." for n in range(200)])
    sound = hissing(20)
    write_wav(tmp_path / "voice.wav", sound, RATE)
    spoken = ("call", voice, "--transport", "microphone", "--play", str(tmp_path / "voice.wav"), "--json")
    typed = ("call", text, "--transport", "text", "--json")
    calls = [start(vendors.home, *words) for words in (spoken, spoken, spoken, typed)]
    assert calls[-1].stdin is not None
    calls[-1].stdin.write("".join(f"Question {n}\n" for n in range(200)))
    calls[-1].stdin.flush()
    before: dict[str, list[dict[str, Any]]] = {}
    printed: dict[str, list[str]] = {}
    for process in calls:
        first = event(process, is_kind("call"))
        event(process, is_kind("agent" if process is calls[-1] else "agent_speaking"))
        # Not a wait for anything: it spreads the kills over the call.
        time.sleep(chance.random() * 1.2)
        before[first["call"]] = recorded_whole(Path(first["folder"]))
        process.kill()
        out, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        printed[first["call"]] = out.splitlines()

    states = {row["id"]: row["state"] for row in run("calls", "list", "--json").json["calls"]}
    assert set(states.values()) == {"live"}, "its program may still be there"
    long_ago(vendors.home)
    rows = {row["id"]: row for row in run("calls", "list", "--json").json["calls"]}
    assert rows.keys() == before.keys()
    lengths = []
    for call, row in rows.items():
        assert (row["state"], row["reason"]) == ("ended", "interrupted")
        folder = Path(row["folder"])
        kept = recorded_whole(folder)
        assert kept[: len(before[call])] == before[call], "what was written is gone"
        assert before[call]
        for name in ("transcript.txt", "latency.csv", "tools.json", "call.json"):
            assert (folder / name).is_file(), name
        shown = run("calls", "show", call, "--json").json["call"]
        assert [line["t"] for line in shown["events"]] == sorted(line["t"] for line in shown["events"])
        if row["transport"] == "text":
            assert "Hello." in [line["text"] for line in shown["transcript"]]
            continue
        you, agent = (read_track(folder / name)[0] for name in ("you.wav", "agent.wav"))
        assert is_beginning(sounding(you), sounding(sound))
        assert is_beginning(sounding(agent), sounding(tones(STORY, RATE)))
        lengths.append(len(sounding(agent)))
    assert len(lengths) == 3
    assert max(lengths) > 0, "no kill fell into the middle of a recording: the moments prove nothing"
    assert [talk["state"] for talk in vendors.conversations() if talk["state"] == "in-progress"] == []


def recorded_whole(folder: Path) -> list[dict[str, Any]]:
    """The events that are on the disk; the last one may be cut off."""
    lines = (folder / "events.jsonl").read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


# No room


def test_a_full_disk_stops_the_recording_and_not_the_call(run, vendors, tmp_path):
    agent = vendors.elevenlabs[0]
    bye = {"say": "Bye.", "end": True}
    vendors.script(agent, greeting="one two three four five six", pace=1, turns=[bye])
    write_wav(tmp_path / "voice.wav", bytes(RATE * 2 * 2) + tones("bye bye", RATE), RATE)
    words = ("call", agent, "--transport", "microphone", "--play", str(tmp_path / "voice.wav"), "--json")
    with small_disk(vendors.home / "data" / "calls", "1m") as disk:
        fill(disk, leave=64 * 1024)
        told = run(*words)
        assert (told.code, told.summary["reason"]) == (0, "agent_ended"), told
        notices = [line["text"] for line in told.lines if line["kind"] == "notice"]
        assert [text for text in notices if "recording stopped: No space left" in text] != []
        row = only_call(vendors.home)
        assert (row["state"], row["reason"]) == ("ended", "agent_ended")
        assert recorded_whole(Path(row["folder"]))
        export = run("calls", "export", row["id"], "--form", "json", "--to", str(disk))
        assert export.code == 1
        assert export.err.count("error:") == 1
        assert run("calls", "delete", row["id"], "--yes").code == 0


def test_a_folder_that_cannot_be_written_stops_the_recording_and_not_the_call(run, vendors):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="Hello.")
    folder = vendors.home / "data" / "calls"
    folder.mkdir()
    with read_only(folder):
        told = run("call", agent, "--transport", "text", "--json", stdin="Hello\n")
        assert told.code == 0, told
        assert [line for line in told.lines if "recording stopped" in line.get("text", "")] != []
    row = only_call(vendors.home)
    assert (row["state"], row["reason"]) == ("ended", "completed")
    assert run("calls", "show", row["id"]).code == 0


def test_a_data_folder_that_cannot_be_written_dials_nobody(run, vendors):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="Hello.")
    assert run("call", agent, "--transport", "text", stdin="Hello\n").code == 0
    before = len(vendors.conversations())
    with read_only(vendors.home / "data"):
        told = run("call", agent, "--transport", "text", stdin="Hello\n")
        assert told.code == 1, told
        assert told.err.count("error:") == 1
        listed = run("calls", "list", "--json")
        assert listed.code == 0, listed.err
        assert len(listed.json["calls"]) == 1
        removed = run("calls", "delete", listed.json["calls"][0]["id"], "--yes")
        assert removed.code == 1
        assert removed.err.count("error:") == 1
    assert len(vendors.conversations()) == before


# An older database


def test_a_database_from_before_there_were_calls(run, vendors):
    """What an older version stored is there, and calls can be made."""
    file = vendors.home / "data" / "callboard.db"
    older = vendors.home / "data" / "older.db"
    engine = create_engine(f"sqlite:///{older}")
    upgrade(engine, "0001")
    engine.dispose()
    with contextlib.closing(sqlite3.connect(older)) as connection, connection:
        known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "call_record" not in known
        names = sorted(known - {"alembic_version", "sqlite_sequence"})
        connection.commit()
        connection.execute("ATTACH ? AS newer", (str(file),))
        for name in names:
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({name})"))
            connection.execute(f"DELETE FROM main.{name}")
            connection.execute(f"INSERT INTO main.{name} ({columns}) SELECT {columns} FROM newer.{name}")
    before = rows_of(older, names)
    assert sum(map(len, before.values())) > 30
    for rest in file.parent.glob("callboard.db*"):
        rest.unlink()
    older.rename(file)
    assert run("calls", "list", "--json").json["calls"] == []
    vendors.script(vendors.elevenlabs[0], greeting="Hello.")
    told = run("call", vendors.elevenlabs[0], "--transport", "text", stdin="Hello\n")
    assert told.code == 0, told.err
    after = rows_of(file, names)
    for name, rows in before.items():
        assert [row[: len(rows[0])] for row in after[name]][: len(rows)] == rows, name
    assert only_call(vendors.home)["turns"] == 2


def rows_of(file: Path, names: list[str]) -> dict[str, list[Any]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
