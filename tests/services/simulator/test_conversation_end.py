"""A conversation ends at whatever moment it is told to, on any wire."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.clock import SystemClock
from services.simulator.conversation import Script
from services.simulator.elevenlabs import ElevenLabsVendor
from services.simulator.elevenlabs_conversation import ElevenLabsConversation


class Wire:
    """Carries audio beside the frames, as LiveKit does."""

    carries_audio = False

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.played = 0
        self.hushed = 0
        self.closed: list[tuple[int, str]] = []

    async def send(self, text: str) -> None:
        self.frames.append(json.loads(text))

    async def play(self, pcm: bytes, rate: int) -> None:
        assert rate == 48_000
        self.played += len(pcm)

    async def hush(self) -> None:
        self.hushed += 1

    async def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    def abort(self) -> None:
        self.closed.append((1006, ""))


def talk(wire: Wire, **script: Any) -> ElevenLabsConversation:
    vendor = ElevenLabsVendor(12, 1, "key", "limited", SystemClock())
    vendor.conversations.set_script(Script.parse({"pace": 20, "think_ms": 0, **script}))
    return vendor.calls.open(vendor.names()[1][0], wire, "livekit")


@pytest.mark.parametrize("turns_of_the_loop", range(12))
async def test_it_ends_however_soon_after_its_beginning(turns_of_the_loop: int) -> None:
    before = asyncio.all_tasks()
    conversation = talk(Wire(), greeting="One two three")
    conversation.start()
    await asyncio.sleep(0)
    await conversation.feed({"type": "conversation_initiation_client_data"})
    for _ in range(turns_of_the_loop):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await conversation.aclose(1000)
        await conversation.aclose(1000)
    assert asyncio.all_tasks() == before
    assert conversation.record.end_code == 1000


async def test_it_ends_before_it_has_begun() -> None:
    conversation = talk(Wire())
    await conversation.aclose(1001)
    await talk(Wire()).wait()
    assert (conversation.record.state, conversation.record.end_code) == ("failed", 1001)


async def test_audio_goes_beside_the_frames_where_the_wire_wants_it() -> None:
    wire = Wire()
    conversation = talk(wire, greeting="One two", turns=[{"say": "Bye.", "end": True}])
    conversation.start()
    await conversation.feed({"type": "conversation_initiation_client_data"})
    await conversation.feed({"type": "user_message", "text": "hello"})
    async with asyncio.timeout(5):
        await conversation.wait()
    await conversation.aclose()
    audio = [frame["audio_event"] for frame in wire.frames if frame["type"] == "audio"]
    assert {event["audio_base_64"] for event in audio} == {""}
    letters = "".join("".join(event["alignment"]["chars"]) for event in audio)
    assert letters.endswith("Bye.")
    assert wire.played == round(conversation.record.agent_audio_ms) * 48 * 2
    assert wire.closed == [(1000, "")]
    metadata = wire.frames[0]["conversation_initiation_metadata_event"]
    assert metadata["agent_output_audio_format"] == metadata["user_input_audio_format"] == "pcm_48000"
