"""Conversations with simulated ElevenLabs agents over a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from services.model import Provider
from services.simulator import Simulator, SimulatorOptions, speech
from services.simulator.conversation import Script
from services.simulator.elevenlabs import ElevenLabsVendor
from tests.services.simulator.test_contract import ELEVENLABS, check
from tests.support.talker import Frame, Talker, frame_schema, talking, wrong_with

QUICK = {"pace": 20, "think_ms": 0}
JOIN = "/v1/convai/conversation"
EVERYTHING = [
    "audio", "interruption", "user_transcript", "tentative_user_transcript", "agent_response",
    "agent_response_correction", "agent_chat_response_part", "agent_tool_request", "agent_tool_response",
    "agent_tool_response_full_payload", "mcp_tool_call", "mcp_connection_status", "vad_score", "ping",
    "context_usage", "asr_initiation_metadata", "internal_tentative_agent_response", "client_tool_call",
]  # fmt: skip


class World:
    """A simulator with twelve agents of ElevenLabs, in this loop."""

    def __init__(self) -> None:
        self.simulator = Simulator(SimulatorOptions(agents=24))
        vendor = self.simulator._vendors[Provider.ELEVENLABS]
        assert isinstance(vendor, ElevenLabsVendor)
        self.vendor = vendor
        self.ids = [agent_id for agent_id, _ in vendor.names()]

    def script(self, agent: int | None = None, **script: Any) -> None:
        parsed = Script.parse({**QUICK, **script})
        self.simulator.conversations.set_script(parsed, () if agent is None else (self.ids[agent],))

    def url(self, agent: int | str = 1) -> str:
        base = self.simulator.elevenlabs_url.replace("http", "ws", 1)
        return f"{base}{JOIN}?agent_id={self.ids[agent] if isinstance(agent, int) else agent}"

    def configure(self, agent: int, /, **config: Any) -> None:
        """Change an agent's `conversation_config`."""
        self.vendor.store.patch(self.vendor.store.agents[self.ids[agent]], {"conversation_config": config})

    @property
    def last(self) -> dict[str, Any]:
        return self.simulator.conversations.as_list()[-1]

    async def said(self, milliseconds: int) -> None:
        """Wait until the agent has said so much in all, and has been heard to the end."""
        await eventually(lambda: self.last["agent_audio_ms"] == milliseconds and not self.last["speaking"])


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for something at the server that no frame tells."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.simulator.start()
    yield made
    await made.simulator.stop()


@pytest.fixture
async def rest(world: World) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"xi-api-key": world.simulator.options.key}
    url = world.simulator.elevenlabs_url
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        yield client


def responses(talker: Talker) -> list[str]:
    return [frame["agent_response_event"]["agent_response"] for frame in talker.of("agent_response")]


def sound(talker: Talker, fmt: str) -> np.ndarray[Any, Any]:
    """All of the agent's audio."""
    data = b"".join(base64.b64decode(f["audio_event"]["audio_base_64"]) for f in talker.of("audio"))
    return np.frombuffer(speech.decode(data, fmt), dtype="<i2").astype(float)


def error_of(talker: Talker) -> dict[str, Any]:
    found: dict[str, Any] = talker.of("error")[0]["error_event"]
    return found


# The check itself


@pytest.mark.skipif(frame_schema() is None, reason="the vendor's message schema is not at hand")
def test_the_check_sees_what_is_wrong() -> None:
    assert wrong_with({"type": "ping", "ping_event": {"event_id": 1, "ping_ms": None}}) == []
    assert "event_id" in wrong_with({"type": "ping", "ping_event": {"ping_ms": 3}})[0]
    assert wrong_with({"type": "news"}) == ["unknown type news"]


# A conversation


async def test_a_whole_spoken_conversation(world: World) -> None:
    world.configure(1, conversation={"client_events": EVERYTHING})
    world.script(
        greeting="Hello {{customer_name}}.",
        turns=[
            {
                "heard": "When are you open today?",
                "tool": {"name": "hours", "arguments": {"day": "today"}, "result": {"from": 8}, "took_ms": 5},
                "say": "From eight: {result}.",
            },
            {"heard": "Goodbye", "say": "Bye.", "end": True},
        ],
    )
    async with talking(world.url(), initiation={"dynamic_variables": {"customer_name": "Zoë"}}) as talker:
        meta = (await talker.until("conversation_initiation_metadata"))[
            "conversation_initiation_metadata_event"
        ]
        assert meta["agent_output_audio_format"] == meta["user_input_audio_format"] == "pcm_16000"
        await talker.until("agent_response")
        await world.said(2 * 240)
        await talker.say(speech.tones("one two three four", 16_000) + speech.silence(600, 16_000))
        await talker.until("agent_response", 2)
        await world.said(2 * 240 + 4 * 240)
        await talker.say(speech.tones("bye", 16_000) + speech.silence(600, 16_000))
        assert await talker.closed() == (1000, "")
    assert responses(talker) == ["Hello Zoë.", 'From eight: {"from": 8}.', "Bye."]
    assert [f["user_transcription_event"]["user_transcript"] for f in talker.of("user_transcript")] == [
        "When are you open today?",
        "Goodbye",
    ]
    guesses = [
        frame["tentative_user_transcription_event"] for frame in talker.of("tentative_user_transcript")
    ]
    assert [guess["user_transcript"] for guess in guesses][:2] == ["When", "When are"]
    assert guesses[0]["event_id"] == talker.of("user_transcript")[0]["user_transcription_event"]["event_id"]
    full = [f["agent_tool_response_full_payload"] for f in talker.of("agent_tool_response_full_payload")]
    assert [(item["tool_name"], item["full_tool_result"], item["tool_type"]) for item in full] == [
        ("hours", '{"from": 8}', "webhook"),
        ("end_call", "", "system"),
    ]
    assert max(frame["vad_score_event"]["vad_score"] for frame in talker.of("vad_score")) > 0.5
    assert {"asr_initiation_metadata", "internal_tentative_agent_response", "context_usage"} <= set(
        talker.kinds()
    )
    assert "interruption" not in talker.kinds()
    ids = [frame["audio_event"]["event_id"] for frame in talker.of("audio")]
    assert ids == sorted(set(ids))
    assert world.last["state"] in ("processing", "done")
    assert world.last["frames"]["user_audio_chunk"] > 60
    assert abs(world.last["audio_ms"] - (4 * 240 + 240 + 1200)) <= 1


@pytest.mark.parametrize(
    ("agent", "heard", "spoken"),
    [
        (4, "pcm_16000", "pcm_24000"),
        (7, "pcm_16000", "pcm_44100"),
        (8, "ulaw_8000", "ulaw_8000"),
        (10, "pcm_48000", "pcm_48000"),
    ],
)
async def test_audio_is_in_the_announced_formats(world: World, agent: int, heard: str, spoken: str) -> None:
    world.script(greeting="Hello there", silence_ms=200, turns=[{"heard": "I am here", "end": True}])
    async with talking(world.url(agent)) as talker:
        meta = (await talker.until("conversation_initiation_metadata"))[
            "conversation_initiation_metadata_event"
        ]
        assert (meta["user_input_audio_format"], meta["agent_output_audio_format"]) == (heard, spoken)
        await world.said(480)
        pcm = speech.tones("hey", 16_000) + speech.silence(300, 16_000)
        await talker.say(speech.encode(pcm, 16_000, heard))
        assert (await talker.closed())[0] == 1000
    rate = speech.rate_of(spoken)
    samples = sound(talker, spoken)
    assert len(samples) == rate * 480 // 1000
    for word, part in zip(("Hello", "there"), np.split(samples, 2), strict=True):
        peak = int(np.abs(np.fft.rfft(part)).argmax()) * rate / len(part)
        assert abs(peak - speech.pitch(word)) < 10
    assert talker.of("user_transcript")[0]["user_transcription_event"]["user_transcript"] == "I am here"


async def test_chunks_have_20_to_250_ms_and_their_letters(world: World) -> None:
    text = "One two three four five six seven eight nine ten"
    world.script(greeting=text, chunk_ms=200)
    async with talking(world.url()) as talker:
        await world.said(2400)
    lengths, letters = [], ""
    for frame in talker.of("audio"):
        event = frame["audio_event"]
        ms = len(base64.b64decode(event["audio_base_64"])) / 32
        lengths.append(ms)
        assert all(0 <= start <= ms for start in event["alignment"]["char_start_times_ms"])
        letters += "".join(event["alignment"]["chars"])
    assert letters == text
    assert all(20 <= length <= 250 for length in lengths[:-1])
    assert len(set(lengths)) > 2


async def test_speaking_over_the_agent_interrupts_and_corrects_it(world: World) -> None:
    text = " ".join(f"word{number}" for number in range(20))
    world.script(greeting=text, pace=2, turns=[{"heard": "Stop!", "say": "Sorry."}])
    async with talking(world.url()) as talker:
        await talker.until("audio", 6)
        await talker.say(speech.tones("stop now", 16_000) + speech.silence(600, 16_000))
        await talker.until("agent_response", 2)
        await talker.until(lambda: talker.kinds()[-1] == "audio")
    last = talker.kinds().index("interruption")
    cut = talker.frames[last]["interruption_event"]["event_id"]
    audio = [f["audio_event"]["event_id"] for f in talker.of("audio")]
    before = [f["audio_event"]["event_id"] for f in talker.frames[:last] if f["type"] == "audio"]
    assert cut == before[-1]
    assert all(event_id > cut for event_id in audio[len(before) :])
    correction = talker.of("agent_response_correction")[0]["agent_response_correction_event"]
    assert correction["original_agent_response"] == text
    assert text.startswith(correction["corrected_agent_response"].rstrip("…"))
    assert correction["event_id"] == talker.of("agent_response")[0]["agent_response_event"]["event_id"]
    first = world.last["transcript"][0]
    assert first["interrupted"]
    assert first["text"] == correction["corrected_agent_response"]


@pytest.mark.parametrize("how", ["script", "agent"])
async def test_some_words_cannot_be_interrupted(world: World, how: str) -> None:
    if how == "agent":
        world.configure(1, agent={"disable_first_message_interruptions": True})
    world.script(greeting="Please listen to me", pace=4, interruptible=how == "agent")
    async with talking(world.url()) as talker:
        await talker.until("audio")
        await talker.say(speech.tones("no no", 16_000) + speech.silence(600, 16_000))
        await talker.until("agent_response", 2)
    assert "interruption" not in talker.kinds()
    assert len(sound(talker, "pcm_16000")) >= 4 * 240 * 16


async def test_a_muted_client_has_finished_its_turn_too(world: World) -> None:
    world.script(greeting="", silence_ms=100, turns=[{"heard": "Hello", "say": "Yes?"}])
    async with talking(world.url()) as talker:
        await talker.until("asr_initiation_metadata")
        await talker.say(speech.tones("hello you", 16_000)[: 16_000 * 2 * 400 // 1000])
        await talker.until("agent_response")
    assert responses(talker) == ["Yes?"]


async def test_pings_are_null_first_and_measured_then(world: World) -> None:
    world.script(greeting="", ping_every_ms=30)
    async with talking(world.url()) as talker:
        await talker.until("ping", 3)
    first, second, *_ = (frame["ping_event"] for frame in talker.of("ping"))
    assert first["ping_ms"] is None
    assert second["ping_ms"] >= 1
    async with talking(world.url(), pongs=False) as talker:
        await talker.until("ping", 3)
    assert {frame["ping_event"]["ping_ms"] for frame in talker.of("ping")} == {None}


async def test_only_the_agents_events_are_sent(world: World) -> None:
    world.configure(1, conversation={"client_events": ["user_transcript"]})
    world.script(greeting="Hi", turns=[{"tool": {"name": "x", "where": "client"}, "say": "So", "end": True}])
    async with talking(world.url()) as talker:
        await talker.until("ping")
        await talker.send(type="user_message", text="go")
        call = (await talker.until("client_tool_call"))["client_tool_call"]
        await talker.send(
            type="client_tool_result", tool_call_id=call["tool_call_id"], result="1", is_error=False
        )
        assert (await talker.closed())[0] == 1000
    assert set(talker.kinds()) == {"conversation_initiation_metadata", "ping", "client_tool_call"}


async def test_the_generated_agents_differ_in_what_they_permit(world: World) -> None:
    agents = [world.vendor.store.render(agent).data for agent in world.vendor.store.agents.values()]
    formats = {agent["conversation_config"]["tts"]["agent_output_audio_format"] for agent in agents}
    assert formats == {"pcm_16000", "pcm_24000", "pcm_44100", "pcm_48000", "ulaw_8000"}
    settings = [agent["platform_settings"] for agent in agents]
    assert {item["auth"]["enable_auth"] for item in settings} == {True, False}
    permitted = [item["overrides"].get("conversation_config_override") for item in settings]
    voices = {None if item is None else item["tts"]["voice_id"] for item in permitted}
    assert voices == {None, True, False}


# Text


async def test_text_only_has_no_sound_in_either_direction(world: World) -> None:
    world.script(greeting="Hello there, my friend.", turns=[{"hear": "bye", "say": "Bye then.", "end": True}])
    override = {"conversation_config_override": {"conversation": {"text_only": True}}}
    async with talking(world.url(), initiation=override) as talker:
        await talker.until("agent_response")
        await talker.say(speech.tones("loud words", 16_000) + speech.silence(600, 16_000))
        await talker.send(type="user_message", text="Bye")
        assert (await talker.closed())[0] == 1000
    parts = [frame["text_response_part"] for frame in talker.of("agent_chat_response_part")]
    assert [part["type"] for part in parts].count("start") == 2
    assert "".join(part["text"] for part in parts) == "Hello there, my friend.Bye then."
    assert responses(talker) == ["Hello there, my friend.", "Bye then."]
    assert not {"audio", "asr_initiation_metadata", "user_transcript", "vad_score"} & set(talker.kinds())
    assert world.last["text_only"]
    assert world.last["audio_ms"] == world.last["agent_audio_ms"] == 0


async def test_what_the_client_sends_beside_words_is_kept(world: World) -> None:
    world.script(greeting="Hi")
    async with talking(world.url()) as talker:
        event_id = (await talker.until("agent_response"))["agent_response_event"]["event_id"]
        await talker.send(type="contextual_update", text="The caller is on page 3.")
        await talker.send(type="feedback", event_id=event_id, score="like")
        await talker.send(type="user_activity")
        await talker.send(type="from_the_future", x=1)
        await talker.send(type="multimodal_message", text={"type": "user_message", "text": "Look"})
        await talker.until("agent_response", 2)
    assert world.last["context"] == ["The caller is on page 3."]
    assert world.last["feedback"] == [{"event_id": event_id, "score": "like"}]
    assert world.last["frames"]["from_the_future"] == 1
    assert world.last["transcript"][1]["text"] == "Look"


# Tools


def client_tool(**more: Any) -> dict[str, Any]:
    tool = {
        "name": "open_page",
        "where": "client",
        "arguments": {"page": 3},
        "on_error": "It failed.",
        **more,
    }
    return {"tool": tool, "say": "It says {result}."}


@pytest.mark.parametrize(
    ("result", "is_error", "said"), [("yes", False, "It says yes."), ("boom", True, "It failed.")]
)
async def test_a_client_tool_makes_its_round(world: World, result: str, is_error: bool, said: str) -> None:
    world.script(greeting="", turns=[client_tool()])
    async with talking(world.url()) as talker:
        await talker.until("ping")
        await talker.send(type="user_message", text="go")
        call = (await talker.until("client_tool_call"))["client_tool_call"]
        assert (call["tool_name"], call["parameters"]) == ("open_page", {"page": 3})
        answer = {"type": "client_tool_result", "result": result, "is_error": is_error}
        await talker.send(**answer, tool_call_id="somebody else's")
        await talker.send(**answer, tool_call_id=call["tool_call_id"])
        await talker.until("agent_response")
    assert responses(talker) == [said]
    response = talker.of("agent_tool_response")[0]["agent_tool_response"]
    assert (response["is_error"], response["tool_type"]) == (is_error, "client")
    used = world.last["transcript"][1]
    assert used["tool_results"][0]["result"] == result


async def test_a_client_that_does_not_answer_fails_the_tool(world: World) -> None:
    world.script(greeting="", turns=[client_tool(timeout_ms=30), {"say": "Going on."}])
    async with talking(world.url()) as talker:
        await talker.until("ping")
        await talker.send(type="user_message", text="go")
        call = (await talker.until("client_tool_call"))["client_tool_call"]
        await talker.until("agent_response")
        late = {"tool_call_id": call["tool_call_id"], "result": "late", "is_error": False}
        await talker.send(type="client_tool_result", **late)
        await talker.send(type="user_message", text="and?")
        await talker.until("agent_response", 2)
    assert responses(talker) == ["It failed.", "Going on."]


@pytest.mark.parametrize(
    ("approve", "states", "said"),
    [
        (True, ["awaiting_approval", "loading", "success"], "It says 42."),
        (False, ["awaiting_approval", "failure"], "No."),
        (None, ["awaiting_approval", "failure"], "No."),
    ],
)
async def test_mcp_tools_wait_for_approval(
    world: World, approve: bool | None, states: list[str], said: str
) -> None:
    tool = {"name": "lookup", "where": "mcp", "needs_approval": True, "took_ms": 1, "result": 42}
    world.script(
        greeting="",
        mcp=[{"id": "srv_1", "tools": 4}, {"id": "srv_2", "connected": False}],
        approval_timeout_ms=5000 if approve is not None else 30,
        turns=[{"tool": {**tool, "on_error": "No."}, "say": "It says {result}."}],
    )
    async with talking(world.url()) as talker:
        status = (await talker.until("mcp_connection_status"))["mcp_connection_status"]["integrations"]
        assert [(item["integration_id"], item["is_connected"]) for item in status] == [
            ("srv_1", True),
            ("srv_2", False),
        ]
        await talker.send(type="user_message", text="go")
        call = (await talker.until("mcp_tool_call"))["mcp_tool_call"]
        assert call["service_id"] == "srv_1"
        if approve is not None:
            await talker.send(
                type="mcp_tool_approval_result", tool_call_id=call["tool_call_id"], is_approved=approve
            )
        await talker.until("agent_response")
    assert [frame["mcp_tool_call"]["state"] for frame in talker.of("mcp_tool_call")] == states
    assert responses(talker) == [said]


# What an agent permits


@pytest.mark.parametrize(
    ("agent", "override", "field"),
    [
        (2, {"tts": {"voice_id": "x"}}, "voice_id"),
        (5, {"agent": {"first_message": "Hi"}}, "first_message"),
        (5, {"agent": {"prompt": {"prompt": "Be brief"}}}, "prompt"),
        (4, {"conversation": {"text_only": True}, "asr": {"keywords": ["a"]}}, "keywords"),
    ],
)
async def test_an_override_that_is_not_switched_on_ends_the_conversation(
    world: World, agent: int, override: Frame, field: str
) -> None:
    async with talking(world.url(agent), initiation={"conversation_config_override": override}) as talker:
        code, reason = await talker.closed()
    assert code == 1008
    assert reason == f"Override for field '{field}' is not allowed by config."
    assert talker.kinds() == ["error"]
    assert (error_of(talker)["error_type"], error_of(talker)["message"]) == ("override_error", reason)
    assert world.last["state"] == "failed"


async def test_overrides_that_are_switched_on_are_used_and_empty_ones_are_safe(world: World) -> None:
    override = {"agent": {"first_message": "Moin!", "language": "", "prompt": {}}, "tts": {"speed": 1.1}}
    async with talking(world.url(1), initiation={"conversation_config_override": override}) as talker:
        await talker.until("agent_response")
    assert responses(talker) == ["Moin!"]
    # The vendor's own client sets this one level too high; it has no meaning there.
    empty = {"text_only": True, "tts": {"voice_id": ""}, "agent": {"first_message": None}}
    initiation = {"conversation_config_override": empty, "custom_llm_extra_body": {}}
    async with talking(world.url(5), initiation=initiation) as talker:
        await talker.until("ping")
    assert talker.of("error") == []


async def test_extra_body_needs_permission(world: World) -> None:
    async with talking(world.url(1), initiation={"custom_llm_extra_body": {"a": 1}}) as talker:
        assert (await talker.closed())[0] == 1008
    assert error_of(talker)["error_type"] == "override_error"


async def test_a_missing_variable_ends_the_conversation(world: World) -> None:
    first = "Hello {{visitor}}, it is {{system__time_utc}}."
    world.configure(1, agent={"first_message": first})
    async with talking(world.url(1)) as talker:
        code, reason = await talker.closed()
    assert (code, error_of(talker)["error_type"]) == (1008, "missing_dynamic_variable")
    assert "visitor" in (reason or "")
    assert "system__" not in (reason or "")
    async with talking(world.url(1), initiation={"dynamic_variables": {"visitor": "Ann"}}) as talker:
        await talker.until("agent_response")
    assert responses(talker)[0].startswith("Hello Ann, it is ")


async def test_who_may_talk(world: World, rest: httpx.AsyncClient) -> None:
    refused = [world.url(0), world.url("agent_unknown"), f"{world.url(0)}&conversation_signature=cvtkn_1.x.y"]
    signed = (await rest.get(f"{JOIN}/get-signed-url?agent_id={world.ids[0]}")).json()["signed_url"]
    refused.append(signed.replace(world.ids[0], world.ids[3]))
    for url in refused:
        async with talking(url, begin=False) as talker:
            code, reason = await talker.closed()
            assert code == 3000
            assert reason
    for spelling in ("get-signed-url", "get_signed_url"):
        response = await rest.get(f"{JOIN}/{spelling}?agent_id={world.ids[0]}&include_conversation_id=true")
        signed = check(ELEVENLABS, response, f"{JOIN}/{spelling}")["signed_url"]
        async with talking(signed) as talker:
            meta = (await talker.until("conversation_initiation_metadata"))[
                "conversation_initiation_metadata_event"
            ]
            assert meta["conversation_id"] in signed
    async with talking(
        world.url(0), additional_headers={"xi-api-key": world.simulator.options.key}
    ) as talker:
        await talker.until("ping")
    async with talking(world.url(1), subprotocols=["convai"]) as talker:  # as the JavaScript client does
        assert talker.socket.subprotocol == "convai"


async def test_signed_urls_expire(world: World, rest: httpx.AsyncClient, monkeypatch: Any) -> None:
    signed = (await rest.get(f"{JOIN}/get-signed-url?agent_id={world.ids[0]}")).json()["signed_url"]
    clock = world.vendor.calls._clock
    later = clock.now() + 15 * 60_000
    monkeypatch.setattr(type(clock), "now", lambda _: later)
    async with talking(signed) as talker:
        assert await talker.closed() == (3000, "The signed URL is invalid or has expired.")


async def test_tokens(world: World, rest: httpx.AsyncClient) -> None:
    path = f"{JOIN}/token"
    found = check(ELEVENLABS, await rest.get(f"{path}?agent_id={world.ids[0]}&participant_name=Ann"), path)
    admitted = world.vendor.calls.admitted(found["token"])
    assert admitted is not None
    assert admitted["conversation_id"] == found["conversation_id"]
    assert (admitted["agent_id"], admitted["identity"]) == (world.ids[0], "Ann")
    assert found["conversation_id"] in admitted["room"]
    assert world.vendor.calls.admitted(found["token"][:-2] + "xx") is None
    assert world.vendor.calls.admitted("nonsense") is None
    without_key = {"xi-api-key": ""}
    answers = [
        (await rest.get(f"{path}?agent_id={world.ids[agent]}", headers=without_key)).status_code
        for agent in (0, 1)
    ]
    assert answers == [401, 200]
    assert (await rest.get(path)).status_code == 422
    assert (await rest.get(f"{path}?agent_id=agent_unknown")).status_code == 404
    assert (await rest.get(f"{JOIN}/get-signed-url?agent_id=x", headers=without_key)).status_code == 401


# Afterwards


async def test_the_conversation_object(world: World, rest: httpx.AsyncClient) -> None:
    path = "/v1/convai/conversations"
    tool = {"name": "hours", "where": "client", "arguments": {"day": "today"}}
    world.script(greeting="Hello there", turns=[{"tool": tool, "say": "Fine.", "end": True}])
    async with talking(
        world.url(1), initiation={"user_id": "u-7", "source_info": {"source": "python_sdk"}}
    ) as talker:
        await world.said(480)
        listed = check(ELEVENLABS, await rest.get(path), path)
        assert [item["status"] for item in listed["conversations"]] == ["in-progress"]
        await talker.send(type="user_message", text="hm")
        call = (await talker.until("client_tool_call"))["client_tool_call"]
        await talker.send(
            type="client_tool_result", tool_call_id=call["tool_call_id"], result="8", is_error=False
        )
        await talker.closed()
    talk_id = world.last["id"]
    detail = check(ELEVENLABS, await rest.get(f"{path}/{talk_id}"), f"{path}/{{conversation_id}}")
    assert detail["status"] == "processing"
    assert detail["analysis"] is None
    await eventually(lambda: world.last["state"] == "done")
    detail = check(ELEVENLABS, await rest.get(f"{path}/{talk_id}"), f"{path}/{{conversation_id}}")
    assert [(turn["role"], turn["message"]) for turn in detail["transcript"]] == [
        ("agent", "Hello there"),
        ("user", "hm"),
        ("agent", None),
        ("agent", "Fine."),
    ]
    assert detail["transcript"][2]["tool_calls"][0]["params_as_json"] == '{"day": "today"}'
    assert detail["transcript"][2]["tool_results"][0]["result_value"] == "8"
    assert detail["analysis"]["call_successful"] == "success"
    assert detail["metadata"]["termination_reason"] == "end_call tool was called."
    assert detail["metadata"]["conversation_initiation_source"] == "python_sdk"
    assert (detail["user_id"], detail["has_response_audio"], detail["has_user_audio"]) == ("u-7", True, False)
    audio = await rest.get(f"{path}/{talk_id}/audio")
    assert audio.headers["content-type"] in ("audio/mpeg", "audio/wav")
    assert len(audio.content) > 1000
    listed = check(ELEVENLABS, await rest.get(f"{path}?agent_id={world.ids[1]}&page_size=1"), path)
    assert [item["conversation_id"] for item in listed["conversations"]] == [talk_id]
    assert (await rest.get(f"{path}?agent_id={world.ids[2]}")).json()["conversations"] == []
    assert (await rest.get(f"{path}?call_start_after_unix=99999999999")).json()["conversations"] == []
    assert (await rest.delete(f"{path}/{talk_id}")).status_code == 200
    assert (await rest.get(f"{path}/{talk_id}")).status_code == 404


# All the others: frames that no simulated agent sends by itself, a script can

OTHERS: list[Frame] = [
    {"type": "agent_reasoning_response_part",
     "reasoning_response_part": {"text": "Hm", "type": "delta", "event_id": "7"}},
    {"type": "rich_content",
     "rich_content": {"rich_content_id": "r", "component": "card", "props": {"a": 1}, "event_id": 7}},
    {"type": "guardrail_triggered"},
    {"type": "internal_turn_probability", "turn_probability_internal_event": {"turn_probability": 0.4}},
    {"type": "agent_typing", "agent_typing_event": {"is_typing": True, "duration_ms": 300}},
    {"type": "external_agent_connected"},
    {"type": "external_agent_disconnected"},
]  # fmt: skip


@pytest.mark.skipif(frame_schema() is None, reason="the vendor's message schema is not at hand")
async def test_every_frame_of_the_schema_can_be_sent(world: World) -> None:
    schema = frame_schema()
    assert schema is not None
    names = [item["$ref"].rpartition("/")[2] for item in schema["server_to_client"]["anyOf"]]
    known = {schema["$defs"][name]["properties"]["type"]["const"] for name in names}
    own = {*EVERYTHING, "conversation_initiation_metadata", "error"}  # the tests above see these
    world.script(greeting="", frames=OTHERS)
    async with talking(world.url()) as talker:
        await talker.until("external_agent_disconnected")
    assert known - own == {frame["type"] for frame in OTHERS}
    assert [frame for frame in talker.frames if frame in OTHERS] == OTHERS


# What goes wrong


async def begin(world: World, hang: Frame, **more: Any) -> Talker:
    world.script(greeting="", turns=[{"say": "One two three four five six", "hang": hang}], **more)
    async with talking(world.url()) as talker:
        await talker.until("ping")
        await talker.send(type="user_message", text="go")
        with contextlib.suppress(AssertionError):
            await talker.until("agent_response")
        await talker.closed()
    return talker


async def test_a_server_that_crashes_in_mid_word(world: World) -> None:
    talker = await begin(world, {"how": "crash", "at_ms": 500}, pace=1)
    assert talker.socket.close_code == 1006
    assert 500 <= len(sound(talker, "pcm_16000")) / 16 < 6 * 240
    assert (world.last["state"], world.last["end_code"]) == ("failed", 1006)


async def test_a_server_that_closes_with_its_own_code(world: World) -> None:
    talker = await begin(world, {"how": "close", "code": 1011, "reason": "LLM cascade failed: ä"})
    assert (talker.socket.close_code, talker.socket.close_reason) == (1011, "LLM cascade failed: ä")
    assert world.last["state"] == "failed"


async def test_malformed_json_and_a_frame_of_16_mib(world: World) -> None:
    for hang in ({"how": "garbage"}, {"how": "huge"}):
        world.script(greeting="One two", hang=hang, turns=[{"say": "Still here."}])
        async with talking(world.url()) as talker:
            await talker.until(lambda: talker.garbage or len(talker.of("agent_response")) == 2)
            await talker.send(type="user_message", text="and?")
            await talker.until(lambda: responses(talker)[-1] == "Still here.")
        if hang["how"] == "garbage":
            assert talker.garbage[0].startswith('{"type":"audio"')
        else:
            assert len(responses(talker)[1]) > 16 * 1024 * 1024


async def test_a_stall_in_mid_word_sends_nothing_and_loses_nothing(world: World) -> None:
    stall = {"how": "stall", "ms": 300, "at_ms": 480}
    world.script(greeting="One two three four five six", hang=stall, pace=4, ping_every_ms=20)
    async with talking(world.url()) as talker:
        await world.said(6 * 240)
    assert len(sound(talker, "pcm_16000")) == 6 * 240 * 16
    gaps = [after - before for before, after in zip(talker.times, talker.times[1:], strict=False)]
    assert max(gaps) > 0.25  # not even a ping came


async def test_the_wrong_format(world: World) -> None:
    world.script(
        greeting="One two", turns=[{"say": "Three four"}], hang={"how": "wrong_format", "at_ms": 240}
    )
    async with talking(world.url()) as talker:
        await world.said(480)
    # Half of it has two bytes for each sample, the rest one byte for two.
    size = sum(len(base64.b64decode(f["audio_event"]["audio_base_64"])) for f in talker.of("audio"))
    assert size < 480 * 32 * 0.9


async def test_frames_of_a_type_that_nobody_knows(world: World) -> None:
    world.script(greeting="Hi", frames=[{"type": "news", "news_event": {"x": [1]}}])
    async with talking(world.url()) as talker:
        assert await talker.until("news") == {"type": "news", "news_event": {"x": [1]}}


@pytest.mark.parametrize("message", ["{", "[]", '{"user_audio_chunk":"%%%"}'])
async def test_a_malformed_frame_of_the_client(world: World, message: str) -> None:
    world.script(greeting="One two three four five six seven", pace=1)
    async with talking(world.url()) as talker:
        await talker.until("audio")
        await talker.socket.send(message)
        assert (await talker.closed())[0] == 1008
    assert error_of(talker)["error_type"] == "invalid_message"


async def test_the_longest_duration(world: World) -> None:
    world.script(greeting="One two three four five six seven", pace=1, max_duration_ms=300)
    async with talking(world.url()) as talker:
        code, reason = await talker.closed()
    assert code == 1000
    assert "maximum duration" in (reason or "")
    assert error_of(talker)["error_type"] == "max_duration_exceeded"


@pytest.mark.parametrize("how", ["close", "vanish"])
async def test_a_client_that_goes_leaves_no_task(world: World, how: str) -> None:
    before = len(asyncio.all_tasks())
    world.script(greeting="One two three four five six seven", pace=1)
    async with talking(world.url()) as talker:
        await talker.until("audio")
        if how == "vanish":
            talker.socket.transport.abort()
    await eventually(lambda: world.last["end_code"] is not None and len(asyncio.all_tasks()) == before)
    assert world.last["end_code"] == (1000 if how == "close" else 1005)


async def test_stopping_the_simulator_in_mid_word() -> None:
    world = World()
    before = asyncio.all_tasks()
    await world.simulator.start()
    world.script(greeting="One two three four five six seven", pace=1)
    async with talking(world.url()) as talker:
        await talker.until("audio")
        await world.simulator.stop()
        assert (await talker.closed())[0] == 1012
    assert world.last["end_code"] == 1012
    assert asyncio.all_tasks() == before
