"""The frames an ElevenLabs client sends. Source: the vendor's published message types (0.23)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from services.calls.elevenlabs_fields import Frame


def initiation(config: Mapping[str, Any], *, text_only: bool = False, version: str = "") -> Frame:
    """The first frame of a client.

    `config`: the members a brief gives (`conversation_config_override`, `dynamic_variables`, `user_id`, …).
    `text_only` goes where the protocol has it: under `conversation_config_override.conversation`.
    """
    frame: Frame = {"type": "conversation_initiation_client_data", **config}
    if text_only:
        override = dict(frame.get("conversation_config_override") or {})
        override["conversation"] = {**(override.get("conversation") or {}), "text_only": True}
        frame["conversation_config_override"] = override
    frame.setdefault("source_info", {"source": "callboard", **({"version": version} if version else {})})
    return frame


def user_audio(data: bytes) -> str:
    """Wire bytes of the microphone, as JSON text: the one frame without a type, and the most frequent."""
    return f'{{"user_audio_chunk":"{base64.b64encode(data).decode("ascii")}"}}'


def pong(event_id: int) -> Frame:
    return {"type": "pong", "event_id": event_id}


def user_message(text: str) -> Frame:
    return {"type": "user_message", "text": text}


def user_activity() -> Frame:
    return {"type": "user_activity"}


def contextual_update(text: str) -> Frame:
    return {"type": "contextual_update", "text": text}


def feedback(event_id: int, liked: bool | None) -> Frame:
    """`liked` None takes an earlier judgement back."""
    return {
        "type": "feedback",
        "event_id": event_id,
        "score": None if liked is None else "like" if liked else "dislike",
    }


def client_tool_result(tool_id: str, result: str, *, ok: bool) -> Frame:
    """`result` is text in this protocol, whatever it is the text of."""
    return {"type": "client_tool_result", "tool_call_id": tool_id, "result": result, "is_error": not ok}


def mcp_approval(tool_id: str, approved: bool) -> Frame:
    return {"type": "mcp_tool_approval_result", "tool_call_id": tool_id, "is_approved": approved}
