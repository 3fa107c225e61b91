"""The LiveKit stand-in, with the vendor's real `livekit` client: sound and packets both ways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from livekit import rtc
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.simulator import Simulator, SimulatorOptions, speech, webrtc
from services.simulator.livekit_wire import decode
from tests.support.simulator import RunningSimulator
from tests.support.webrtc_caller import level, pitches, until

QUICK = {"think_ms": 20, "silence_ms": 200}
RATE = 48_000
LONG = "One two three four five six seven eight nine ten eleven twelve"


class Client:
    """A client of the room: what it hears, and the frames it gets."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.heard = bytearray()
        self.frames: list[dict[str, Any]] = []
        self.left: list[str] = []
        self.speakers: list[list[str]] = []
        self._source = rtc.AudioSource(RATE, 1)
        self._tasks: list[asyncio.Task[None]] = []
        self.room.on("data_received", self._packet)
        self.room.on("track_subscribed", self._track)
        self.room.on("participant_disconnected", lambda who: self.left.append(who.identity))
        self.room.on(
            "active_speakers_changed", lambda found: self.speakers.append([who.identity for who in found])
        )

    async def join(self, url: str, token: str) -> None:
        await self.room.connect(url.replace("http", "ws"), token, rtc.RoomOptions(connect_timeout=5))
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self.room.local_participant.publish_track(track, options)

    async def begin(self, **fields: Any) -> None:
        await self.send({"type": "conversation_initiation_client_data", **fields})

    async def send(self, frame: dict[str, Any]) -> None:
        await self.room.local_participant.publish_data(json.dumps(frame).encode(), reliable=True)

    async def say(self, pcm: bytes) -> None:
        """Speak in real time."""
        for at in range(0, len(pcm), 960):
            piece = pcm[at : at + 960].ljust(960, b"\0")
            await self._source.capture_frame(rtc.AudioFrame(piece, RATE, 1, 480))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind]

    async def gets(self, kind: str, count: int = 1) -> dict[str, Any]:
        await until(lambda: len(self.of(kind)) >= count, f"{kind} no. {count}")
        return self.of(kind)[count - 1]

    async def close(self) -> None:
        await self.room.disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.aclose()

    def _packet(self, packet: rtc.DataPacket) -> None:
        assert packet.participant is not None
        assert packet.participant.identity == "agent-1"
        assert not packet.topic
        self.frames.append(json.loads(packet.data))

    def _track(self, track: rtc.Track, *_: Any) -> None:
        self._tasks.append(asyncio.create_task(self._listen(track)))

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1)
        try:
            async for event in stream:
                self.heard += bytes(event.frame.data.cast("B"))
        finally:
            await stream.aclose()


@contextlib.asynccontextmanager
async def conversation(
    simulator: RunningSimulator, http: httpx.AsyncClient, script: dict[str, Any], **begin: Any
) -> AsyncIterator[tuple[Client, str]]:
    """A client in the room of a conversation that has begun, and the conversation's id."""
    reply = await http.post("/__script", json={"script": {**QUICK, **script}})
    assert reply.status_code == 201, reply.text
    agent = (await simulator.agents("elevenlabs"))[0]["agent_id"]
    given = (await http.get("/v1/convai/conversation/token", params={"agent_id": agent})).json()
    client = Client()
    try:
        await client.join(simulator.elevenlabs_url, given["token"])
        assert given["conversation_id"] in client.room.name
        assert [who.identity for who in client.room.remote_participants.values()] == ["agent-1"]
        await client.begin(**begin)
        yield client, given["conversation_id"]
    finally:
        await client.close()


async def record(http: httpx.AsyncClient, conversation_id: str) -> dict[str, Any]:
    found = (await http.get("/__conversations")).json()["conversations"]
    return next(item for item in found if item["id"] == conversation_id)


async def test_a_whole_turn_with_sound_and_packets(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    script = {
        "greeting": "Hello there friend",
        "turns": [{"heard": "Book me in", "say": "Booked {result}",
                   "tool": {"name": "book_appointment", "where": "client", "arguments": {"slot": 3}}}],
    }  # fmt: skip
    async with conversation(simulator, elevenlabs, script) as (client, conversation_id):
        metadata = (await client.gets("conversation_initiation_metadata"))[
            "conversation_initiation_metadata_event"
        ]
        assert metadata == {
            "conversation_id": conversation_id,
            "agent_output_audio_format": "pcm_48000",
            "user_input_audio_format": "pcm_48000",
        }
        assert client.frames[0]["type"] == "conversation_initiation_metadata"
        greeting = [speech.pitch(word) for word in ("Hello", "there", "friend")]
        await until(lambda: len(pitches(bytes(client.heard))) >= 3, "the greeting")
        assert pitches(bytes(client.heard))[:3] == pytest.approx(greeting, abs=6)
        spoken = [frame["audio_event"] for frame in client.of("audio")]
        assert spoken
        assert not any(event["audio_base_64"] for event in spoken)
        assert (
            "".join(char for event in spoken for char in event["alignment"]["chars"]) == "Hello there friend"
        )

        await client.say(speech.tones("book me in", RATE) + speech.silence(600, RATE))
        heard = (await client.gets("user_transcript"))["user_transcription_event"]
        assert heard["user_transcript"] == "Book me in"
        call = (await client.gets("client_tool_call"))["client_tool_call"]
        assert (call["tool_name"], call["parameters"]) == ("book_appointment", {"slot": 3})
        result = {"tool_call_id": call["tool_call_id"], "result": "B-7", "is_error": False}
        await client.send({"type": "client_tool_result", **result})
        said = (await client.gets("agent_response", 2))["agent_response_event"]
        assert said["agent_response"] == "Booked B-7"
        await until(lambda: ["agent-1"] in client.speakers, "the agent shows as speaking")
        await client.close()
        log = await record(elevenlabs, conversation_id)
        assert (log["transport"], log["frames"]["client_tool_result"]) == ("livekit", 1)
        assert log["audio_ms"] > 700


async def test_nothing_begins_before_the_first_frame(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    agent = (await simulator.agents("elevenlabs"))[0]["agent_id"]
    given = (await elevenlabs.get("/v1/convai/conversation/token", params={"agent_id": agent})).json()
    client = Client()
    await client.join(simulator.elevenlabs_url, given["token"])
    assert (await record(elevenlabs, given["conversation_id"]))["state"] == "initiated"
    assert client.frames == []
    await client.begin()
    await client.gets("conversation_initiation_metadata")
    await client.close()


async def test_interruption_and_correction(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    script = {"greeting": LONG, "turns": [{"heard": "Stop", "say": "Yes"}]}
    async with conversation(simulator, elevenlabs, script) as (client, conversation_id):
        await until(lambda: len(pitches(bytes(client.heard))) >= 2, "two words")
        await client.say(speech.tones("stop please", RATE))
        cut = (await client.gets("interruption"))["interruption_event"]
        assert cut["event_id"] == max(frame["audio_event"]["event_id"] for frame in client.of("audio"))
        correction = (await client.gets("agent_response_correction"))["agent_response_correction_event"]
        assert correction["original_agent_response"] == LONG
        said = correction["corrected_agent_response"]
        assert LONG.startswith(said.rstrip("…"))
        assert len(said) < len(LONG)
        await client.say(speech.silence(500, RATE))
        await client.gets("agent_response", 2)
        assert len(pitches(bytes(client.heard))) < 9  # of twelve words
        assert (await record(elevenlabs, conversation_id))["transcript"][0]["interrupted"]


async def test_the_agent_leaves_at_the_end(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    script = {"greeting": "Hi", "turns": [{"hear": "bye", "say": "Bye", "end": True}]}
    async with conversation(simulator, elevenlabs, script) as (client, conversation_id):
        await client.gets("agent_response")
        await client.send({"type": "user_message", "text": "bye"})
        await until(lambda: client.left == ["agent-1"], "the agent leaves")
        await until(lambda: not client.room.isconnected(), "the room is closed")
        assert level(bytes(client.heard)) > 0
        assert (await record(elevenlabs, conversation_id))["end_code"] == 1000


async def test_a_refused_override_is_told_and_ends_it(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    extra = {"temperature": 2}  # no agent permits that
    async with conversation(simulator, elevenlabs, {"greeting": "Hi"}, custom_llm_extra_body=extra) as (
        client,
        conversation_id,
    ):
        error = (await client.gets("error"))["error_event"]
        assert error["error_type"] == "override_error"
        await until(lambda: client.left == ["agent-1"], "the agent leaves")
        assert (await record(elevenlabs, conversation_id))["end_code"] == 1008


async def test_a_client_that_just_goes_ends_the_conversation(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    async with conversation(simulator, elevenlabs, {"greeting": LONG}) as (client, conversation_id):
        await client.gets("agent_response")
        await client.room.disconnect()
        ended = {"state": "in-progress"}
        async with asyncio.timeout(5):
            while ended["state"] == "in-progress":
                ended = await record(elevenlabs, conversation_id)
        # Its word of leaving and the end of its connection race each other.
        assert ended["end_code"] in (1000, 1006)


async def test_a_token_opens_one_conversation_and_only_a_real_one_does(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    client = Client()
    with pytest.raises(rtc.ConnectError):
        await client.join(simulator.elevenlabs_url, "head.body.signature")
    await client.close()
    agent = (await simulator.agents("elevenlabs"))[0]["agent_id"]
    given = (await elevenlabs.get("/v1/convai/conversation/token", params={"agent_id": agent})).json()
    query = {"access_token": given["token"]}
    assert (await elevenlabs.get("/rtc/validate", params=query)).status_code == 200
    early, first, second = Client(), Client(), Client()
    await early.join(simulator.elevenlabs_url, given["token"])
    await early.close()
    await first.join(simulator.elevenlabs_url, given["token"])
    await first.begin()
    await first.gets("conversation_initiation_metadata")
    assert (await elevenlabs.get("/rtc/validate", params=query)).status_code == 401
    with pytest.raises(rtc.ConnectError):
        await second.join(simulator.elevenlabs_url, given["token"])
    await first.close()
    await second.close()
    assert (await elevenlabs.get("/rtc/validate?access_token=x")).status_code == 401


async def test_malformed_signalling_closes_the_room(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient
) -> None:
    agent = (await simulator.agents("elevenlabs"))[0]["agent_id"]
    given = (await elevenlabs.get("/v1/convai/conversation/token", params={"agent_id": agent})).json()
    url = simulator.elevenlabs_url.replace("http", "ws")
    async with connect(f"{url}/rtc?access_token={given['token']}", proxy=None) as socket:
        assert decode("SignalResponse", bytes(await socket.recv()))["join"]["room"]["sid"]
        await socket.send(b"\xff\xff\xff")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1003


async def test_the_simulator_stops_in_mid_sentence() -> None:
    served = Simulator(SimulatorOptions(agents=4))
    await served.start()
    running = RunningSimulator(served.retell_url, served.elevenlabs_url, "", served.options.key)
    headers = {"xi-api-key": running.key}
    async with (
        httpx.AsyncClient(base_url=running.elevenlabs_url, headers=headers, trust_env=False) as http,
        conversation(running, http, {"greeting": LONG}) as (client, conversation_id),
    ):
        await client.gets("agent_response")
        await served.stop()
        found = served.conversations.get(conversation_id)
        assert found is not None
        assert found.ended_ms is not None
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_without_aiortc_the_room_says_so(
    simulator: RunningSimulator, elevenlabs: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webrtc, "installed", lambda: False)
    url = simulator.elevenlabs_url.replace("http", "ws")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{url}/rtc", proxy=None)
    assert refused.value.response.status_code == 501
    assert b"webrtc" in (refused.value.response.body or b"")


def test_the_client_is_there_where_it_has_to_be() -> None:
    """Kept from being skipped silently: these tests need the extra."""
    assert webrtc.installed() or not os.environ.get("CALLBOARD_TEST_REQUIRE_SERVERS")
