"""ElevenLabs' own client holds whole conversations with the simulator, unchanged.

It is slow to import and warns; so there are few of these.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.simulator import speech
from tests.support.simulator import RunningSimulator, running_simulator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from elevenlabs.client import ElevenLabs
    from elevenlabs.conversational_ai.conversation import (
        AsyncAudioInterface,
        AsyncConversation,
        AudioInterface,
        ClientTools,
        Conversation,
        ConversationInitiationData,
        DisconnectionDetails,
    )

RATE = 16_000
GREETING = "Hello {{who}}, what can I do for you today, please tell me"
TOOL = {"name": "open_page", "where": "client", "arguments": {"page": 3}}
SCRIPT = {
    "pace": 4,
    "think_ms": 0,
    "ping_every_ms": 50,
    "greeting": GREETING,
    "turns": [
        {"heard": "Open page three", "tool": TOOL, "say": "It is {result}."},
        {"hear": "bye", "say": "Goodbye.", "end": True},
    ],
}


class Heard:
    """What the client's callbacks and audio interface got."""

    def __init__(self) -> None:
        self.audio = bytearray()
        self.interruptions = 0
        self.responses: list[str] = []
        self.corrections: list[tuple[str, str]] = []
        self.transcripts: list[str] = []
        self.latencies: list[int] = []
        self.characters = ""
        self.ended: list[DisconnectionDetails] = []
        self.tool: dict[str, Any] = {}


def question() -> bytes:
    return speech.tones("open page three", RATE) + speech.silence(700, RATE)


class Microphone(AsyncAudioInterface):
    """Says the question once the agent has said some words."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.send: Callable[[bytes], Awaitable[None]] | None = None
        self.asking: asyncio.Task[None] | None = None

    async def start(self, input_callback: Callable[[bytes], Awaitable[None]]) -> None:
        self.send = input_callback

    async def stop(self) -> None:
        self.send = None

    async def output(self, audio: bytes) -> None:
        self.heard.audio += audio
        if self.asking is None and len(self.heard.audio) > RATE:
            self.asking = asyncio.create_task(self.ask())

    async def interrupt(self) -> None:
        self.heard.interruptions += 1

    async def ask(self) -> None:
        pcm = question()
        for at in range(0, len(pcm), 8000):
            if self.send is not None:
                await self.send(pcm[at : at + 8000])


class ThreadedMicrophone(AudioInterface):
    """The same for the client that uses threads."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.asking: threading.Thread | None = None
        self.send: Callable[[bytes], None] | None = None

    def start(self, input_callback: Callable[[bytes], None]) -> None:
        self.send = input_callback

    def stop(self) -> None:
        if self.asking is not None:
            self.asking.join(5)

    def output(self, audio: bytes) -> None:
        self.heard.audio += audio
        if self.asking is None and len(self.heard.audio) > RATE:
            self.asking = threading.Thread(target=self.ask)
            self.asking.start()

    def interrupt(self) -> None:
        self.heard.interruptions += 1

    def ask(self) -> None:
        assert self.send is not None
        pcm = question()
        for at in range(0, len(pcm), 8000):
            self.send(pcm[at : at + 8000])


def check(heard: Heard, conversation: dict[str, Any]) -> None:
    """Both sides of a whole conversation."""
    greeting = GREETING.replace("{{who}}", "Zoë")
    assert heard.responses == [greeting, "It is open.", "Goodbye."]
    assert heard.transcripts == ["Open page three"]
    # The greeting was interrupted; whether the next answer was too depends on how fast “bye” is.
    assert [original for original, _ in heard.corrections][:1] == [greeting]
    assert heard.interruptions == len(heard.corrections) <= 2
    assert {**heard.tool, "tool_call_id": ""} == {"page": 3, "tool_call_id": ""}
    assert heard.latencies
    assert heard.characters.startswith("Hello Zoë")
    assert [(end.reason, end.close_code) for end in heard.ended] == [("agent", 1000)]
    assert len(heard.audio) > RATE
    assert (conversation["end_code"], conversation["frames"]["client_tool_result"]) == (1000, 1)
    assert conversation["frames"]["user_audio_chunk"] == len(range(0, len(question()), 8000))
    assert conversation["initiation"]["source_info"]["source"] == "python_sdk"


async def agents(simulator: RunningSimulator) -> list[str]:
    return [agent["agent_id"] for agent in await simulator.agents("elevenlabs")]


async def test_the_async_client_with_a_signed_url() -> None:
    heard = Heard()
    tools = ClientTools(loop=asyncio.get_running_loop())

    async def open_page(parameters: dict[str, Any]) -> str:
        heard.tool = parameters
        return "open"

    async def keep(kept: Callable[..., object], *values: Any) -> None:
        kept(values[0] if len(values) == 1 else values)

    async def responded(text: str) -> None:
        heard.responses.append(text)
        if text == "It is open.":
            await conversation.send_user_message("bye")

    async def aligned(alignment: Any) -> None:
        heard.characters += "".join(alignment.chars)

    tools.register("open_page", open_page, is_async=True)
    async with running_simulator(agents=24) as simulator:
        private = (await agents(simulator))[0]
        await simulator.script(SCRIPT)
        conversation = AsyncConversation(
            ElevenLabs(api_key=simulator.key, base_url=simulator.elevenlabs_url),
            private,
            requires_auth=True,
            audio_interface=Microphone(heard),
            config=ConversationInitiationData(dynamic_variables={"who": "Zoë"}),
            client_tools=tools,
            callback_agent_response=responded,
            callback_agent_response_correction=lambda *pair: keep(heard.corrections.append, *pair),
            callback_user_transcript=lambda text: keep(heard.transcripts.append, text),
            callback_latency_measurement=lambda ms: keep(heard.latencies.append, ms),
            callback_audio_alignment=aligned,
            callback_disconnect=lambda details: keep(heard.ended.append, details),
        )
        await conversation.start_session()
        async with asyncio.timeout(20):
            conversation_id = await conversation.wait_for_session_end()
        talked = (await simulator.conversations())[-1]
    assert talked["id"] == conversation_id
    assert talked["agent_id"] == private
    check(heard, talked)


async def test_the_threaded_client_with_a_public_agent() -> None:
    heard = Heard()
    tools = ClientTools()

    def open_page(parameters: dict[str, Any]) -> str:
        heard.tool = parameters
        return "open"

    def responded(text: str) -> None:
        heard.responses.append(text)
        if text == "It is open.":
            conversation.send_user_message("bye")

    def aligned(alignment: Any) -> None:
        heard.characters += "".join(alignment.chars)

    tools.register("open_page", open_page)
    async with running_simulator(agents=24) as simulator:
        public = (await agents(simulator))[1]
        await simulator.script(SCRIPT)
        conversation = Conversation(
            ElevenLabs(base_url=simulator.elevenlabs_url),
            public,
            requires_auth=False,
            audio_interface=ThreadedMicrophone(heard),
            config=ConversationInitiationData(dynamic_variables={"who": "Zoë"}),
            client_tools=tools,
            callback_agent_response=responded,
            callback_agent_response_correction=lambda *pair: heard.corrections.append(pair),
            callback_user_transcript=heard.transcripts.append,
            callback_latency_measurement=heard.latencies.append,
            callback_audio_alignment=aligned,
            callback_disconnect=heard.ended.append,
        )
        conversation.start_session()
        async with asyncio.timeout(20):
            conversation_id = await asyncio.to_thread(conversation.wait_for_session_end)
        talked = (await simulator.conversations())[-1]
    assert (talked["id"], talked["agent_id"]) == (conversation_id, public)
    check(heard, talked)


async def test_the_clients_rest_side_reads_the_conversation() -> None:
    async with running_simulator(agents=24) as simulator:
        client = ElevenLabs(api_key=simulator.key, base_url=simulator.elevenlabs_url)
        public = (await agents(simulator))[1]
        await simulator.script({"greeting": "", "turns": [{"say": "Bye.", "end": True}]})
        parts: list[str] = []

        async def part(text: str, _: Any) -> None:
            parts.append(text)

        conversation = AsyncConversation(
            client,
            public,
            requires_auth=False,
            config=ConversationInitiationData(
                conversation_config_override={"conversation": {"text_only": True}}
            ),
            callback_agent_chat_response_part=part,
        )
        await conversation.start_session()
        async with asyncio.timeout(20):
            while not any(talk["frames"] for talk in await simulator.conversations()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # its socket is set when its first frame has come
            await conversation.send_user_message("hello")
            conversation_id = await conversation.wait_for_session_end()
        assert conversation_id
        assert "".join(parts) == "Bye."
        api = client.conversational_ai.conversations
        listed = await asyncio.to_thread(api.list, agent_id=public)
        assert [item.conversation_id for item in listed.conversations] == [conversation_id]
        found = await asyncio.to_thread(api.get, conversation_id)
        assert [(turn.role, turn.message) for turn in found.transcript] == [
            ("user", "hello"),
            ("agent", "Bye."),
        ]
        assert found.metadata.text_only


@pytest.mark.parametrize("hang", ["garbage", "crash"])
async def test_the_client_notices_faults(hang: str) -> None:
    ended: list[DisconnectionDetails] = []

    async def disconnected(details: DisconnectionDetails) -> None:
        ended.append(details)

    async with running_simulator(agents=24) as simulator:
        public = (await agents(simulator))[1]
        script = {"greeting": "One two three", "hang": {"how": hang, "at_ms": 240}}
        await simulator.script(script)
        heard = Heard()
        conversation = AsyncConversation(
            ElevenLabs(base_url=simulator.elevenlabs_url),
            public,
            requires_auth=False,
            audio_interface=Microphone(heard),
            callback_disconnect=disconnected,
        )
        await conversation.start_session()
        async with asyncio.timeout(20):
            await conversation.wait_for_session_end()
    assert heard.audio
    assert [details.reason for details in ended] == ["error"]
    assert ended[0].close_code == (1006 if hang == "crash" else None)
