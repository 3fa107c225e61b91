"""Conversations as ElevenLabs' REST API shows them: list items, whole objects, the recording.

Shapes: the vendor's specification of 2026-08. The recording is MP3 where PyAV is installed (it comes with
the optional extra of WebRTC), else WAV, and says which.
"""

from __future__ import annotations

import io
import json
import wave
from typing import Any

from services.simulator.conversations import Conversation, Line
from services.simulator.wire import Json

_RATE = 16_000
_CREDITS_A_MINUTE = 667
_DOLLARS_A_MINUTE = 0.10


def summary(talk: Conversation) -> Json:
    """An item of `GET conversations`."""
    done = talk.state == "done"
    return {
        "agent_id": talk.agent_id,
        "branch_id": talk.details.get("branch_id"),
        "version_id": talk.details.get("version_id"),
        "agent_name": talk.agent_name,
        "conversation_id": talk.id,
        "start_time_unix_secs": _started(talk),
        "call_duration_secs": talk.duration_ms // 1000,
        "message_count": sum(line.text is not None for line in talk.lines),
        "status": talk.state,
        "termination_reason": _termination(talk),
        "call_successful": _success(talk),
        "transcript_summary": _summary(talk) if done else None,
        "call_summary_title": _title(talk) if done else None,
        "main_language": talk.details.get("language"),
        "conversation_initiation_source": _source(talk),
        "tool_names": sorted({call["name"] for line in talk.lines for call in line.tool_calls}),
        "direction": (talk.details.get("phone_call") or {}).get("direction"),
        "rating": None,
        "tag_ids": [],
    }


def detail(talk: Conversation) -> Json:
    """`GET conversations/{id}`. The analysis comes a moment after the end."""
    return {
        "agent_id": talk.agent_id,
        "agent_name": talk.agent_name,
        "status": talk.state,
        "user_id": talk.initiation.get("user_id"),
        "branch_id": talk.details.get("branch_id"),
        "version_id": talk.details.get("version_id"),
        "metadata": _metadata(talk),
        "analysis": _analysis(talk) if talk.state == "done" else None,
        "conversation_initiation_client_data": _initiation(talk),
        "environment": "production",
        "conversation_id": talk.id,
        "has_audio": bool(talk.heard_audio or talk.spoken_audio),
        "has_user_audio": bool(talk.heard_audio),
        "has_response_audio": bool(talk.spoken_audio),
        "has_auxiliary_audio": False,
        "transcript": [_line(talk, line) for line in talk.lines],
        "tag_ids": [],
    }


def recording(talk: Conversation) -> tuple[bytes, bytes]:
    """Both voices in one track, and its content type. Slow: to be called in a thread."""
    pcm = _mixed(talk)
    try:
        return _mp3(pcm), b"audio/mpeg"
    except ImportError:
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(_RATE)
            out.writeframes(pcm)
        return file.getvalue(), b"audio/wav"


def _metadata(talk: Conversation) -> Json:
    minutes = talk.duration_ms / 60_000
    cost = 0 if talk.text_only else round(minutes * _CREDITS_A_MINUTE)
    dollars = round(minutes * _DOLLARS_A_MINUTE, 6)
    likes = sum(item.get("score") == "like" for item in talk.feedback)
    dislikes = sum(item.get("score") == "dislike" for item in talk.feedback)
    return {
        "start_time_unix_secs": _started(talk),
        "accepted_time_unix_secs": None if talk.started_ms is None else talk.started_ms // 1000,
        "call_duration_secs": talk.duration_ms // 1000,
        "cost": cost if talk.ended_ms is not None else None,
        "cost_fiat": dollars if talk.ended_ms is not None else None,
        "feedback": {"overall_score": None, "likes": likes, "dislikes": dislikes},
        "authorization_method": talk.details.get("authorization", "public"),
        "phone_call": talk.details.get("phone_call"),
        "batch_call": None,
        "termination_reason": _termination(talk),
        "error": {"code": talk.end_code or 1011, "reason": talk.end_reason} if talk.failed else None,
        "warnings": [],
        "main_language": talk.details.get("language"),
        "text_only": talk.text_only,
        "conversation_initiation_source": _source(talk),
        "conversation_initiation_source_version": _info(talk).get("version"),
        "timezone": None,
    }


def _line(talk: Conversation, line: Line) -> Json:
    calls = [
        {
            "type": call["type"],
            "request_id": call["id"],
            "tool_name": call["name"],
            "params_as_json": json.dumps(call.get("arguments") or {}, ensure_ascii=False),
            "tool_has_been_called": bool(call.get("called", True)),
        }
        for call in line.tool_calls
    ]
    results = [
        {
            "type": result["type"],
            "request_id": result["id"],
            "tool_name": result["name"],
            "result_value": _as_text(result.get("result")),
            "is_error": bool(result.get("is_error")),
            "tool_has_been_called": True,
            "tool_latency_secs": result.get("took_ms", 0) / 1000,
        }
        for result in line.tool_results
    ]
    return {
        "role": line.role,
        "agent_metadata": {"agent_id": talk.agent_id} if line.role == "agent" else None,
        "message": line.text,
        "tool_calls": calls,
        "tool_results": results,
        "time_in_call_secs": line.at_ms // 1000,
        "interrupted": line.interrupted,
        "original_message": line.original,
        "source_medium": line.medium,
    }


def _analysis(talk: Conversation) -> Json:
    return {
        "evaluation_criteria_results": {},
        "data_collection_results": {},
        "evaluation_criteria_results_list": [],
        "data_collection_results_list": [],
        "call_successful": _success(talk),
        "transcript_summary": _summary(talk),
        "call_summary_title": _title(talk),
    }


def _initiation(talk: Conversation) -> Json:
    override = talk.initiation.get("conversation_config_override")
    return {
        "conversation_config_override": override if isinstance(override, dict) else {},
        "custom_llm_extra_body": talk.initiation.get("custom_llm_extra_body") or {},
        "user_id": talk.initiation.get("user_id"),
        "source_info": {"source": _source(talk), "version": _info(talk).get("version")},
        "dynamic_variables": talk.initiation.get("dynamic_variables") or {},
    }


def _info(talk: Conversation) -> Json:
    info = talk.initiation.get("source_info")
    return info if isinstance(info, dict) else {}


def _source(talk: Conversation) -> str:
    if "phone_call" in talk.details:
        return str(talk.details["phone_call"].get("type", "twilio"))
    known = ("python_sdk", "js_sdk", "react_sdk", "widget")
    return source if (source := str(_info(talk).get("source"))) in known else "unknown"


def _started(talk: Conversation) -> int:
    return (talk.created_ms if talk.started_ms is None else talk.started_ms) // 1000


def _termination(talk: Conversation) -> str:
    return str(talk.details.get("termination") or talk.end_reason)


def _success(talk: Conversation) -> str:
    if talk.failed:
        return "failure"
    heard = any(line.role == "user" for line in talk.lines)
    return "success" if heard and talk.state == "done" else "unknown"


def _summary(talk: Conversation) -> str:
    said = sum(line.role == "user" for line in talk.lines)
    times = "once" if said == 1 else f"{said} times"
    return f"The caller spoke {times} with {talk.agent_name}." if said else "The caller said nothing."


def _title(talk: Conversation) -> str:
    first = next((line.text for line in talk.lines if line.role == "user" and line.text), None)
    return "Silent call" if first is None else first[:40]


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _mixed(talk: Conversation) -> bytes:
    import numpy as np

    pieces = [*talk.heard_audio, *talk.spoken_audio]
    samples = max((at_ms * _RATE // 1000 + len(pcm) // 2 for at_ms, pcm in pieces), default=0)
    track = np.zeros(samples, dtype=np.int32)
    for voice in (talk.heard_audio, talk.spoken_audio):
        free = 0  # pieces of one voice never overlap, however they were timed
        for at_ms, pcm in voice:
            start = max(free, at_ms * _RATE // 1000)
            data = np.frombuffer(pcm, dtype="<i2")[: max(0, samples - start)]
            track[start : start + len(data)] += data
            free = start + len(data)
    return bytes(np.clip(track, -32768, 32767).astype("<i2").tobytes())


def _mp3(pcm: bytes) -> bytes:
    """Raises ImportError without PyAV."""
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream: Any = container.add_stream("libmp3lame", rate=_RATE)
        stream.layout = "mono"
        samples = np.frombuffer(pcm or bytes(3200), dtype="<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = _RATE
        for resampled in av.AudioResampler("s16p", "mono", _RATE, 1152).resample(frame):
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return file.getvalue()
