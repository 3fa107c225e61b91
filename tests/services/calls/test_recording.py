"""Recordings: complete at any moment, readable after a kill, silent about what is not to be kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.calls.archive import latency_csv, load, read_messages, transcript_csv, transcript_text
from services.calls.messages import (
    AgentSpeech,
    Connected,
    Ended,
    Interrupted,
    StateChanged,
    ToolStarted,
    Typed,
)
from services.calls.model import CallRow, CallState, EndReason, TransportKind
from services.calls.recording import Recorder
from services.calls.wave_file import HEADER, WaveWriter, mend, read_track
from tests.support.mounts import small_disk

ROOT = Path(__file__).resolve().parents[3]


def row(folder, **fields):
    return CallRow(
        "c1",
        "acme",
        "retell",
        "a1",
        "Desk",
        TransportKind.TEXT,
        CallState.ENDED,
        0,
        folder=str(folder),
        **fields,
    )


@given(st.lists(st.binary(max_size=400).map(lambda data: data[: len(data) // 2 * 2]), max_size=8))
def test_a_track_is_what_was_written(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("wave") / "track.wav"
    writer = WaveWriter(path, 8000)
    for piece in pieces:
        writer.write(piece, 0)
    writer.close()
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert file.readframes(file.getnframes()) == b"".join(pieces)


def test_a_gap_in_time_is_silence_in_the_track(tmp_path):
    writer = WaveWriter(tmp_path / "track.wav", 8000)
    writer.write(b"\x01\x00" * 160, 0)
    writer.write(b"\x02\x00" * 160, 1000)
    writer.close()
    pcm, rate = read_track(tmp_path / "track.wav")
    assert rate == 8000
    assert pcm[:320] == b"\x01\x00" * 160
    assert not any(pcm[320:16000])
    assert pcm[16000:] == b"\x02\x00" * 160


def test_a_little_lateness_is_no_gap(tmp_path):
    writer = WaveWriter(tmp_path / "track.wav", 8000)
    writer.write(bytes(320), 0)
    writer.write(bytes(320), 45)
    writer.close()
    assert mend(tmp_path / "track.wav").length_ms == 40


def test_a_torn_header_is_mended(tmp_path):
    path = tmp_path / "track.wav"
    writer = WaveWriter(path, 16000)
    writer.write(bytes(32000), 0)
    writer._file.flush()
    path.write_bytes(path.read_bytes() + b"\x01")  # killed in the middle of a sample
    assert mend(path).length_ms == 1000
    with wave.open(str(path)) as file:
        assert file.getnframes() == 16000
    writer._file.close()


@pytest.mark.parametrize("content", [b"", b"RIFF", b"x" * 200])
def test_what_is_no_track_is_left_alone(tmp_path, content):
    path = tmp_path / "track.wav"
    path.write_bytes(content)
    assert mend(path) is None
    assert path.read_bytes() == content
    assert read_track(path) == (b"", 0)


def test_a_part_of_a_track(tmp_path):
    writer = WaveWriter(tmp_path / "t.wav", 1000)
    writer.write(b"".join(bytes([n % 256, 0]) for n in range(1000)), 0)
    writer.close()
    pcm, _ = read_track(tmp_path / "t.wav", 500, 10)
    assert pcm == b"".join(bytes([n % 256, 0]) for n in range(500, 510))


async def test_the_folder_belongs_to_its_owner_alone(tmp_path):
    recorder = Recorder(tmp_path / "call")
    await recorder.open({"id": "c1"}, {"system_prompt": "be kind"})
    recorder.start_audio(16000, 16000)
    recorder.message(0, AgentSpeech("hello"))
    await recorder.close({"id": "c1", "reason": "agent_ended"})
    assert (tmp_path / "call").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "call").iterdir()} == {0o600}
    found = load(row(tmp_path / "call"))
    assert found.brief == {"system_prompt": "be kind"}
    assert [message for _, message in found.messages] == [AgentSpeech("hello")]


async def test_a_secret_never_reaches_the_log(tmp_path):
    from services.security import remember_secret

    remember_secret("sk-canary-5512")
    recorder = Recorder(tmp_path / "call")
    await recorder.open({}, {})
    recorder.message(0, StateChanged(CallState.CONNECTING, "with sk-canary-5512"))
    await recorder.close({})
    assert "canary" not in (tmp_path / "call" / "call.log").read_text()


KILLED = """
import asyncio, sys
from pathlib import Path
from services.calls.recording import Recorder
from services.calls.messages import AgentSpeech
async def main():
    recorder = Recorder(Path(sys.argv[1]))
    await recorder.open({"id": "c1"}, {})
    recorder.start_audio(8000, 8000)
    for n in range(100000):
        recorder.message(n * 20, AgentSpeech(f"line {n}"))
        recorder.audio("you", n * 20, bytes([n % 100 + 1, 0]) * 160)
        if n == 200:
            print("ready", flush=True)
        await asyncio.sleep(0.0005)
asyncio.run(main())
"""


def test_a_kill_leaves_a_complete_recording_of_what_was(tmp_path):
    folder = tmp_path / "call"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    messages = read_messages(folder)
    assert len(messages) >= 150
    assert [message.text for _, message in messages] == [f"line {n}" for n in range(len(messages))]
    info = mend(folder / "you.wav")
    pcm, rate = read_track(folder / "you.wav")
    assert info.length_ms == len(pcm) * 1000 // (rate * 2)
    whole = len(pcm) // 320
    assert all(pcm[n * 320 : n * 320 + 320] == bytes([n % 100 + 1, 0]) * 160 for n in range(whole))
    assert (folder / "you.wav").stat().st_size >= HEADER + 320


async def test_a_full_disk_is_told_once_and_the_call_goes_on(tmp_path):
    told = []
    with small_disk(tmp_path / "disk") as disk:
        recorder = Recorder(disk / "call")
        recorder.on_problem = told.append
        await recorder.open({"id": "c1"}, {})
        recorder.start_audio(16000, 16000)
        for n in range(400):
            recorder.audio("you", n * 20, b"\x01\x02" * 32000)
            recorder.message(n, AgentSpeech("still here"))
        await recorder.close({"id": "c1"})
        await asyncio.sleep(0)
    assert len(told) == 1
    assert "space" in told[0].lower()


STORY = (
    (0, Connected("conv")),
    (100, AgentSpeech("Good day", event_id=1)),
    (900, Typed("Hello, there")),
    (1500, AgentSpeech("Would Monday or Tuesday", event_id=2)),
    (1600, Interrupted(2)),
    (1700, ToolStarted("t", "check", {"day": "thu"})),
    (2000, Ended(EndReason.AGENT_ENDED)),
)


def test_what_is_derived_for_people_and_programs(tmp_path):
    from services.calls.archive import folded

    live = folded(STORY)
    text = transcript_text(live.entries)
    assert text.splitlines()[0] == "00:00  agent  Good day"
    assert "(cut off)" in text
    assert "check(day=thu)" in text
    assert latency_csv(live) == "turn,at_ms,latency_ms\n1,1500,600\n"
    assert '"Hello, there"' in transcript_csv(list(live.entries))


def test_a_folder_that_is_gone_reads_as_empty(tmp_path):
    found = load(row(tmp_path / "nowhere"))
    assert (found.messages, found.folder, found.length_ms) == ((), None, 0)


def test_a_torn_line_is_left_out(tmp_path):
    lines = [json.dumps({"t": 5, "kind": "agent", "text": "one"}), '{"t": 9, "kind": "age']
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    assert read_messages(tmp_path) == ((5, AgentSpeech("one")),)
