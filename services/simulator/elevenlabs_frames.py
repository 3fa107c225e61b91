"""The frames of an ElevenLabs conversation, server to client. Shapes: npm `@elevenlabs/types` 0.23.0."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from services.simulator.wire import Json

ALWAYS = frozenset({"conversation_initiation_metadata", "ping", "error", "client_tool_call"})
"""Sent whatever the agent's `client_events` say: no conversation works without them (assumed)."""


def metadata(conversation_id: str, output_format: str, input_format: str) -> Json:
    return _frame(
        "conversation_initiation_metadata",
        "conversation_initiation_metadata_event",
        conversation_id=conversation_id,
        agent_output_audio_format=output_format,
        user_input_audio_format=input_format,
    )


def ping(event_id: int, ping_ms: int | None) -> Json:
    return _frame("ping", "ping_event", event_id=event_id, ping_ms=ping_ms)


def audio(event_id: int, data: bytes, chars: Iterable[tuple[str, int, int]]) -> Json:
    """`chars` are those that begin in this chunk: character, start in it, length, both in milliseconds."""
    found = list(chars)
    return _frame(
        "audio",
        "audio_event",
        audio_base_64=base64.b64encode(data).decode(),
        event_id=event_id,
        alignment={
            "chars": [char for char, _, _ in found],
            "char_start_times_ms": [start for _, start, _ in found],
            "char_durations_ms": [length for _, _, length in found],
        },
    )


def user_transcript(event_id: int, text: str) -> Json:
    return _frame("user_transcript", "user_transcription_event", user_transcript=text, event_id=event_id)


def tentative_user_transcript(event_id: int, text: str) -> Json:
    return _frame(
        "tentative_user_transcript",
        "tentative_user_transcription_event",
        user_transcript=text,
        event_id=event_id,
    )


def agent_response(event_id: int, text: str) -> Json:
    return _frame("agent_response", "agent_response_event", agent_response=text, event_id=event_id)


def tentative_agent_response(text: str) -> Json:
    return _frame(
        "internal_tentative_agent_response",
        "tentative_agent_response_internal_event",
        tentative_agent_response=text,
    )


def correction(event_id: int, original: str, corrected: str) -> Json:
    return _frame(
        "agent_response_correction",
        "agent_response_correction_event",
        original_agent_response=original,
        corrected_agent_response=corrected,
        event_id=event_id,
    )


def chat_part(event_id: int, kind: str, text: str = "") -> Json:
    """`kind` is start, delta or stop."""
    return _frame("agent_chat_response_part", "text_response_part", text=text, type=kind, event_id=event_id)


def interruption(event_id: int) -> Json:
    return _frame("interruption", "interruption_event", event_id=event_id)


def vad_score(score: float) -> Json:
    return _frame("vad_score", "vad_score_event", vad_score=score)


def asr_metadata() -> Json:
    return _frame("asr_initiation_metadata", "asr_initiation_metadata_event")


def context_usage(event_id: int, model: str, tokens: int, limit: int) -> Json:
    return _frame(
        "context_usage",
        "context_usage_event",
        event_id=event_id,
        model=model,
        context_tokens=tokens,
        context_limit_tokens=limit,
    )


def client_tool_call(event_id: int, call_id: str, name: str, parameters: Mapping[str, Any]) -> Json:
    return _frame(
        "client_tool_call",
        "client_tool_call",
        tool_name=name,
        tool_call_id=call_id,
        parameters=dict(parameters),
        event_id=event_id,
    )


def tool_request(event_id: int, call_id: str, name: str, tool_type: str) -> Json:
    return _frame(
        "agent_tool_request",
        "agent_tool_request",
        tool_name=name,
        tool_call_id=call_id,
        tool_type=tool_type,
        event_id=event_id,
    )


def tool_response(event_id: int, call_id: str, name: str, tool_type: str, is_error: bool) -> Json:
    return _frame(
        "agent_tool_response",
        "agent_tool_response",
        tool_name=name,
        tool_call_id=call_id,
        tool_type=tool_type,
        is_error=is_error,
        is_called=True,
        event_id=event_id,
    )


def tool_response_in_full(response: Json, result: str) -> Json:
    """The same as `response`, with the result."""
    kind = "agent_tool_response_full_payload"
    payload = {"is_blocked": False, "full_tool_result": result, "truncated": False}
    return _frame(kind, kind, **response["agent_tool_response"], **payload)


def mcp_call(
    service_id: str, call_id: str, name: str, parameters: Mapping[str, Any], when: str, **state: Any
) -> Json:
    """`state` is loading, awaiting_approval, success or failure, with the members that go with it."""
    return _frame(
        "mcp_tool_call",
        "mcp_tool_call",
        service_id=service_id,
        tool_call_id=call_id,
        tool_name=name,
        parameters=dict(parameters),
        timestamp=when,
        **state,
    )


def mcp_status(servers: Iterable[Mapping[str, Any]]) -> Json:
    """`servers` as scripts have them: `{"id", "connected", "tools"}`."""
    integrations = [
        {
            "integration_id": str(server.get("id", "mcp_1")),
            "integration_type": "mcp_server",
            "is_connected": bool(server.get("connected", True)),
            "tool_count": int(server.get("tools", 1)),
        }
        for server in servers
    ]
    return _frame("mcp_connection_status", "mcp_connection_status", integrations=integrations)


def error(code: int, error_type: str, message: str) -> Json:
    return _frame("error", "error_event", code=code, error_type=error_type, message=message, reason=message)


def _frame(kind: str, member: str, /, **payload: Any) -> Json:
    return {"type": kind, member: payload}
