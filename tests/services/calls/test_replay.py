"""Replays: the same picture as the call had at any moment, on a clock that a test moves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.calls.archive import Recording
from services.calls.live import Area
from services.calls.messages import (
    AgentSpeech,
    Connected,
    Ended,
    Interrupted,
    Marked,
    Notice,
    ToolStarted,
    Typed,
)
from services.calls.model import CallRow, CallState, EndReason, TransportKind
from services.calls.replay import MarkKind, Replay
from services.calls.wave_file import WaveWriter
from services.errors import ServiceError
from tests.support.world import FakeClock

MESSAGES = (
    (0, Connected("conv")),
    (100, AgentSpeech("Good day", event_id=1)),
    (900, Typed("Hello")),
    (1500, AgentSpeech("One two three", event_id=2)),
    (1600, Interrupted(2)),
    (1700, ToolStarted("t", "check", {"day": "thu"})),
    (1800, Marked("here")),
    (1900, Notice("it broke", "act")),
    (2000, Ended(EndReason.AGENT_ENDED)),
)


def recording(you=None, agent=None):
    row = CallRow("c1", "acme", "retell", "a1", "Desk", TransportKind.TEXT, CallState.ENDED, 0)
    return Recording(row, {}, MESSAGES, you, agent, None)


class FakeSpeaker:
    def __init__(self):
        self.pcm = b""
        self.drops = 0
        self.closed = False

    def play(self, pcm, event_id=0):
        self.pcm += pcm

    def drop(self, up_to_event_id=None):
        self.drops += 1

    async def aclose(self):
        self.closed = True


@pytest.fixture
async def replay():
    made = Replay(recording(), FakeClock(), length_ms=2000)
    yield made
    await made.aclose()


@given(st.integers(-100, 3000))
async def test_a_jump_shows_what_the_call_was_at_that_moment(ms):
    replay = Replay(recording(), FakeClock(), length_ms=2000)
    replay.seek(ms)
    texts = [entry.text for entry in replay.live.entries]
    expected = [entry.text for entry in recording().fold(max(0, min(ms, 2000))).entries]
    assert texts == expected
    assert replay.position_ms == max(0, min(ms, 2000))


async def test_it_plays_to_the_end_and_stops(replay):
    seen = []
    done = asyncio.Event()

    def told(areas):
        seen.append(areas)
        if not replay.playing:
            done.set()

    replay.subscribe(told)
    replay.set_speed(4.0)
    done.clear()
    replay.play()
    async with asyncio.timeout(10):
        await done.wait()
    assert replay.position_ms == 2000
    assert [entry.text for entry in replay.live.entries] == [
        entry.text for entry in recording().fold().entries
    ]
    assert any(Area.TRANSCRIPT in areas for areas in seen)
    replay.play()
    assert replay.position_ms < 2000


async def test_a_pause_stands_still(replay):
    replay.seek(1000)
    replay.play()
    replay.pause()
    assert not replay.playing
    assert replay.position_ms == 1000


def test_the_timeline_names_what_is_worth_a_jump():
    marks = Replay(recording(), FakeClock(), length_ms=2000).events
    assert [(mark.t, mark.kind) for mark in marks] == [
        (100, MarkKind.AGENT),
        (900, MarkKind.USER),
        (1500, MarkKind.INTERRUPTION),
        (1700, MarkKind.TOOL),
        (1800, MarkKind.MARK),
        (1900, MarkKind.ERROR),
    ]


def track(path, rate, value):
    writer = WaveWriter(path, rate)
    writer.write(value.to_bytes(2, "little", signed=True) * (rate * 2), 0)
    writer.close()
    return path


async def test_both_tracks_are_heard_mixed(tmp_path):
    speaker = FakeSpeaker()

    async def open_speaker(rate):
        assert rate == 16000
        return speaker

    made = Replay(
        recording(track(tmp_path / "you.wav", 16000, 100), track(tmp_path / "agent.wav", 8000, 1000)),
        FakeClock(),
        length_ms=2000,
        open_speaker=open_speaker,
    )
    ended = asyncio.Event()
    made.subscribe(lambda areas: None if made.playing else ended.set())
    made.play()
    async with asyncio.timeout(10):
        await ended.wait()
    await made.aclose()
    middle = int.from_bytes(speaker.pcm[6400:6402], "little", signed=True)
    assert abs(middle - 1100) <= 20
    assert len(speaker.pcm) == 2 * 16000 * 2
    assert speaker.closed


async def test_without_a_loudspeaker_it_plays_silently_and_says_why(tmp_path):
    async def open_speaker(rate):
        raise ServiceError("There is no loudspeaker", code="no_device")

    made = Replay(
        recording(track(tmp_path / "you.wav", 8000, 5)), FakeClock(), length_ms=300, open_speaker=open_speaker
    )
    ended = asyncio.Event()
    made.subscribe(lambda areas: None if made.playing else ended.set())
    made.play()
    async with asyncio.timeout(10):
        await ended.wait()
    await made.aclose()
    assert made.problem == "There is no loudspeaker"


async def test_a_waveform_has_the_shape_of_the_track(tmp_path):
    writer = WaveWriter(tmp_path / "you.wav", 8000)
    writer.write(bytes(16000) + b"\x00\x40" * 8000, 0)
    writer.close()
    made = Replay(recording(tmp_path / "you.wav"), FakeClock(), length_ms=2000)
    assert await made.waveform("you", 4) == [0.0, 0.0, 1.0, 1.0]
    assert await made.waveform("agent", 4) == []
