"""The frames of an ElevenLabs conversation, the same on its WebSocket and in LiveKit's data packets.

`FrameReader` turns what the vendor sends into messages, audio and replies; what a client sends is built by
`services.calls.elevenlabs_sending`. Source: the vendor's published message types (0.23). No input or output.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from services.calls.audio.formats import AudioFormat, parse_format
from services.calls.elevenlabs_failures import Failure, from_error_frame
from services.calls.elevenlabs_fields import (
    MOST_TEXT,
    REMEMBERED,
    Broken,
    FormatDoubt,
    Frame,
    Utterances,
    cleaned,
    event_id_of,
    given,
    is_number,
    is_words,
    mcp_result,
    object_of,
    remember,
    words,
)
from services.calls.elevenlabs_sending import pong
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    ApprovalWanted,
    Connected,
    Interrupted,
    Message,
    Notice,
    Quality,
    ToolEnded,
    ToolStarted,
    UserSpeech,
)
from services.calls.transport import AgentAudio
from services.errors import ServiceError
from services.text import clean_line

MOST_BROKEN: Final = 50
"""Frames in a row that could not be understood before the conversation is given up."""
_TOLD_BROKEN: Final = 3
_CONTEXT_FULL: Final = 0.9
_QUIET: Final = frozenset(
    {
        "agent_reasoning_response_part",
        "asr_initiation_metadata",
        "internal_turn_probability",
        # Speculative: what the agent might say if the user's turn ended now. Most of it is never said.
        "internal_tentative_agent_response",
        "agent_typing",
        "vad_score",
    }
)
"""Known frames that tell an operator nothing."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A frame to be sent back at once."""

    frame: Frame


Reading: TypeAlias = Message | AgentAudio | Reply


class FrameReader:
    """Reads one conversation's frames in order.

    After a call of `read`, `failure` says why the vendor is about to end the conversation, if it said so;
    whatever is said or heard after that takes it back.
    """

    def __init__(self, *, audio: bool = True, tools: Collection[str] | None = None) -> None:
        """`audio`: whether audio is taken from `audio` frames. `tools`: the client tools there are here."""
        self._audio = audio
        self._tools = None if tools is None else frozenset(tools)
        self.connected: Connected | None = None
        self.input_format: AudioFormat | None = None
        self.output_format: AudioFormat | None = None
        self.failure: Failure | None = None
        self.unknown: Counter[str] = Counter()
        """Frames of types this version does not know, by type."""
        self.pings = 0
        self.broken = 0
        """Frames that could not be understood."""
        self._broken_in_a_row = 0
        self._utterances = Utterances()
        self._streaming: dict[int, str] = {}
        self._said: dict[int, str] = {}
        self._begun: dict[str, str] = {}
        self._ended: set[str] = set()
        self._told: set[str] = set()
        self._doubt = FormatDoubt()

    def read_text(self, text: str | bytes) -> list[Reading]:
        """Like `read`, from JSON text."""
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            return self._not_understood("is not JSON")
        return self.read(frame)

    def read(self, frame: object) -> list[Reading]:
        """What one frame means: messages to publish, audio to play, replies to send; often nothing.

        Unknown types are counted and passed over. Raises `ServiceError` when the conversation cannot be
        carried: an unknown audio format (`unknown_format`), or too many broken frames (`protocol_error`).
        """
        if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
            return self._not_understood("has no type")
        kind: str = frame["type"]
        handler = _HANDLERS.get(kind)
        if handler is None:
            name = clean_line(kind)[:60]
            if kind not in _QUIET and (name in self.unknown or len(self.unknown) < REMEMBERED):
                self.unknown[name] += 1
            self._broken_in_a_row = 0
            return []
        try:
            found = handler(self, frame)
        except Broken as error:
            return self._not_understood(f"({kind}) {error}")
        self._broken_in_a_row = 0
        if self.failure is not None and any(isinstance(item, _LIFE) for item in found):
            self.failure = None
        return found

    @property
    def utterance(self) -> int | None:
        """The event that sound heard now belongs to, where sound does not travel in frames."""
        return self._utterances.current

    def _not_understood(self, what: str) -> list[Reading]:
        self.broken += 1
        self._broken_in_a_row += 1
        if self._broken_in_a_row >= MOST_BROKEN:
            raise ServiceError(
                f"ElevenLabs sent {MOST_BROKEN} frames in a row that could not be understood",
                advice="Check that the base URL is this vendor's API and that the program is up to date",
                code="protocol_error",
            )
        if self.broken > _TOLD_BROKEN:
            return []
        more = "; more of them are passed over in silence" if self.broken == _TOLD_BROKEN else ""
        return [Notice(f"A frame of ElevenLabs {what} and was passed over{more}", "look")]

    # -- beginning, line --------------------------------------------------------------------------

    def _metadata(self, frame: Frame) -> list[Reading]:
        if self.connected is not None:
            return []
        try:
            self.connected = self._announced(object_of(frame, "conversation_initiation_metadata_event"))
        except Broken as error:
            raise ServiceError(
                f"What ElevenLabs told at the beginning of the conversation {error}",
                advice="Check that the base URL is this vendor's API and that the program is up to date",
                code="protocol_error",
            ) from None
        return [self.connected]

    def _announced(self, event: Frame) -> Connected:
        named = event.get("conversation_id")
        conversation_id = clean_line(named)[:200] if isinstance(named, str) else ""
        if not self._audio:
            return Connected(conversation_id)
        self.input_format = parse_format(given(event, "user_input_audio_format"))
        self.output_format = parse_format(given(event, "agent_output_audio_format"))
        spoken, heard = self.input_format, self.output_format
        return Connected(conversation_id, spoken.rate, heard.rate, spoken.name, heard.name)

    def _ping(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "ping_event")
        self.pings += 1
        found: list[Reading] = [Reply(pong(event_id_of(event)))]
        measured = event.get("ping_ms")
        if is_number(measured) and measured >= 0:
            found.append(Quality(round_trip_ms=float(measured)))
        return found

    def _error(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "error_event")
        code = event.get("code")
        said = next(
            (event[name] for name in ("message", "reason", "debug_message") if is_words(event.get(name))), ""
        )
        kind = event.get("error_type")
        self.failure = from_error_frame(
            kind if isinstance(kind, str) else "", said, code if isinstance(code, int) else None
        )
        return [Notice(self.failure.message, "act", self.failure.advice)]

    # -- what is said -----------------------------------------------------------------------------

    def _audio_event(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "audio_event")
        utterance = self._utterances.sound(event_id_of(event))
        if utterance is None or self.output_format is None:
            return []
        encoded = event.get("audio_base_64")
        if encoded is None or encoded == "":
            return []  # in LiveKit's packets audio frames carry the alignment only
        if not isinstance(encoded, str):
            raise Broken("holds no audio")
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise Broken("holds audio that is not base64") from None
        found: list[Reading] = [AgentAudio(self.output_format.decode(data), utterance)]
        if self._doubt.grows(self.output_format, data, event.get("alignment")):
            found += self._once(
                "format",
                Notice(
                    f"The agent's audio does not look like the announced {self.output_format.name}",
                    "act",
                    "If the voice sounds wrong, check the agent's output format at ElevenLabs",
                ),
            )
        return found

    def _user(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "user_transcription_event")
        text = words(event, "user_transcript")
        self._utterances.turn()
        return [UserSpeech(text, True, event_id_of(event, None))] if text.strip() else []

    def _user_tentative(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "tentative_user_transcription_event")
        text = words(event, "user_transcript")
        return [UserSpeech(text, False, event_id_of(event, None))] if text.strip() else []

    def _agent(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "agent_response_event")
        text = words(event, "agent_response")
        event_id = event_id_of(event, None)
        found: list[Reading] = []
        streamed = self._said.get(event_id) if event_id is not None else None
        if text.strip() and (streamed is None or streamed.strip() != text.strip()):
            found.append(AgentSpeech(text, True, self._spoken(event_id)))
        if event_id is not None:
            self._streaming.pop(event_id, None)
            remember(self._said, event_id, text)
        attached = event.get("attachments")
        for item in attached[:20] if isinstance(attached, list) else []:
            if isinstance(item, dict) and is_words(item.get("url")):
                name = clean_line(str(item.get("name") or "a file"))[:200]
                found.append(Notice(f"The agent attached {name}: {clean_line(item['url'])[:500]}"))
        return found

    def _agent_part(self, frame: Frame) -> list[Reading]:
        part = object_of(frame, "text_response_part")
        event_id = event_id_of(part)
        state = part.get("type")
        if state not in ("start", "delta", "stop"):
            raise Broken("is no start, delta or stop")
        text = ("" if state == "start" else self._streaming.get(event_id, "")) + words(part, "text")
        whole = self._said.get(event_id)
        repeats = whole is not None and whole.startswith(text)  # the whole answer came before its parts
        if state == "stop":
            self._streaming.pop(event_id, None)
            if repeats or not text.strip():
                return []
            remember(self._said, event_id, text)
            return [AgentSpeech(text, True, self._spoken(event_id))]
        remember(self._streaming, event_id, text[:MOST_TEXT])
        return [] if repeats or not text.strip() else [AgentSpeech(text, False, self._spoken(event_id))]

    def _corrected(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "agent_response_correction_event")
        original, corrected = (
            words(event, "original_agent_response"),
            words(event, "corrected_agent_response"),
        )
        return [AgentCorrected(original, corrected, self._utterances.known(event_id_of(event, None)))]

    def _interrupted(self, frame: Frame) -> list[Reading]:
        event_id = event_id_of(object_of(frame, "interruption_event"))
        return [Interrupted(self._utterances.interrupted(event_id))]

    def _spoken(self, event_id: int | None) -> int | None:
        return None if event_id is None else self._utterances.text(event_id)

    # -- tools ------------------------------------------------------------------------------------

    def _client_tool(self, frame: Frame) -> list[Reading]:
        call = object_of(frame, "client_tool_call")
        tool_id, name = given(call, "tool_call_id"), words(call, "tool_name")
        if self._begun.get(tool_id) == "client":
            return []  # repeated: a client tool runs once
        remember(self._begun, tool_id, "client")
        arguments = call.get("parameters")
        found: list[Reading] = [
            ToolStarted(tool_id, clean_line(name), arguments if isinstance(arguments, dict) else {}, "client")
        ]
        if self._tools is not None and name not in self._tools:
            found += self._once(
                f"tool {name}",
                Notice(
                    f"The agent calls the client tool “{clean_line(name)}”, which does not exist here",
                    "look",
                    "Register it in this program, or take it from the agent",
                ),
            )
        return found

    def _tool_request(self, frame: Frame) -> list[Reading]:
        call = object_of(frame, "agent_tool_request")
        tool_id, name = given(call, "tool_call_id"), clean_line(words(call, "tool_name"))
        kind = str(call.get("tool_type") or "")
        if kind == "client" or tool_id in self._begun:
            return []  # a client tool is told with its arguments by a frame of its own
        where = "mcp" if "mcp" in kind else "server"
        remember(self._begun, tool_id, where)
        return [ToolStarted(tool_id, name, {}, where)]

    def _tool_response(self, frame: Frame) -> list[Reading]:
        return self._tool_answer(object_of(frame, "agent_tool_response"), "")

    def _tool_full(self, frame: Frame) -> list[Reading]:
        call = object_of(frame, "agent_tool_response_full_payload")
        result = call.get("full_tool_result")
        text = cleaned(result) if isinstance(result, str) else ""
        return self._tool_answer(call, text + (" …" if call.get("truncated") is True else ""))

    def _tool_answer(self, call: Frame, result: str) -> list[Reading]:
        tool_id, name = given(call, "tool_call_id"), clean_line(words(call, "tool_name"))
        kind = str(call.get("tool_type") or "")
        if kind == "client" or self._begun.get(tool_id) == "client":
            return []  # our own answer
        if tool_id in self._ended and not result:
            return []
        found: list[Reading] = []
        if tool_id not in self._begun:
            where = "mcp" if "mcp" in kind else "server"
            remember(self._begun, tool_id, where)
            found.append(ToolStarted(tool_id, name, {}, where))
        if call.get("is_blocked") is True:
            result = result or "blocked by a guardrail"
        elif call.get("is_called") is False:
            result = result or "not called"
        ok = call.get("is_error") is not True and call.get("is_blocked") is not True
        return [*found, self._end_of_tool(tool_id, result, ok and call.get("is_called") is not False)]

    def _end_of_tool(self, tool_id: str, result: str, ok: bool) -> ToolEnded:
        if len(self._ended) >= REMEMBERED:
            self._ended.clear()
        self._ended.add(tool_id)
        return ToolEnded(tool_id, result, ok)

    def _mcp(self, frame: Frame) -> list[Reading]:
        call = object_of(frame, "mcp_tool_call")
        tool_id, name = given(call, "tool_call_id"), clean_line(words(call, "tool_name"))
        parameters = call.get("parameters")
        arguments: Mapping[str, Any] = parameters if isinstance(parameters, dict) else {}
        state = call.get("state")
        if state == "success":
            return [self._end_of_tool(tool_id, mcp_result(call.get("result")), True)]
        if state == "failure":
            reason = call.get("error_message")
            return [self._end_of_tool(tool_id, cleaned(reason) if isinstance(reason, str) else "", False)]
        if state == "awaiting_approval":
            seconds = call.get("approval_timeout_secs")
            timeout = round(seconds * 1000) if is_number(seconds) and 0 < seconds < 1e6 else None
            remember(self._begun, tool_id, "mcp")
            return [ApprovalWanted(tool_id, name, arguments, timeout)]
        if state != "loading":
            raise Broken("is in an unknown state")
        remember(self._begun, tool_id, "mcp")
        return [ToolStarted(tool_id, name, arguments, "mcp")]

    def _mcp_status(self, frame: Frame) -> list[Reading]:
        found: list[Reading] = []
        integrations = object_of(frame, "mcp_connection_status").get("integrations")
        for item in integrations[:50] if isinstance(integrations, list) else []:
            if isinstance(item, dict) and item.get("is_connected") is False:
                name = clean_line(str(item.get("integration_id") or "?"))[:100]
                found += self._once(
                    f"mcp {name}",
                    Notice(f"The agent has no connection to the MCP server {name}", "look"),
                )
        return found

    # -- remarks ----------------------------------------------------------------------------------

    def _context(self, frame: Frame) -> list[Reading]:
        event = object_of(frame, "context_usage_event")
        used, limit = event.get("context_tokens"), event.get("context_limit_tokens")
        if not is_number(used) or not is_number(limit) or limit <= 0 or used / limit < _CONTEXT_FULL:
            return []
        share = f"{used / limit:.0%}"
        return self._once("context", Notice(f"The agent's model has used {share} of its context", "look"))

    def _guardrail(self, frame: Frame) -> list[Reading]:
        return [Notice("A guardrail of the agent stepped in", "look")]

    def _person(self, frame: Frame) -> list[Reading]:
        joined = frame["type"] == "external_agent_connected"
        return [Notice("A person joined in place of the agent" if joined else "The person has left again")]

    def _rich(self, frame: Frame) -> list[Reading]:
        component = clean_line(words(object_of(frame, "rich_content"), "component"))[:100]
        return [Notice(f"The agent shows something a terminal cannot: {component}")]

    def _once(self, what: str, notice: Notice) -> list[Reading]:
        if what in self._told or len(self._told) >= REMEMBERED:
            return []
        self._told.add(what)
        return [notice]


_LIFE = (AgentAudio, AgentSpeech, UserSpeech)
"""What shows that a conversation goes on."""
_HANDLERS: Mapping[str, Callable[[FrameReader, Frame], list[Reading]]] = {
    "conversation_initiation_metadata": FrameReader._metadata,
    "ping": FrameReader._ping,
    "error": FrameReader._error,
    "audio": FrameReader._audio_event,
    "user_transcript": FrameReader._user,
    "tentative_user_transcript": FrameReader._user_tentative,
    "agent_response": FrameReader._agent,
    "agent_chat_response_part": FrameReader._agent_part,
    "agent_response_correction": FrameReader._corrected,
    "interruption": FrameReader._interrupted,
    "client_tool_call": FrameReader._client_tool,
    "agent_tool_request": FrameReader._tool_request,
    "agent_tool_response": FrameReader._tool_response,
    "agent_tool_response_full_payload": FrameReader._tool_full,
    "mcp_tool_call": FrameReader._mcp,
    "mcp_connection_status": FrameReader._mcp_status,
    "context_usage": FrameReader._context,
    "guardrail_triggered": FrameReader._guardrail,
    "external_agent_connected": FrameReader._person,
    "external_agent_disconnected": FrameReader._person,
    "rich_content": FrameReader._rich,
}
