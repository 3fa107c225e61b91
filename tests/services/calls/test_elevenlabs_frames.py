"""Frames of ElevenLabs conversations: each against the vendor's schema, and what the reader makes of it."""

from __future__ import annotations

import base64
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.calls import elevenlabs_sending as sending
from services.calls.elevenlabs_frames import MOST_BROKEN, FrameReader, Reply
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    ApprovalWanted,
    Connected,
    Interrupted,
    Notice,
    Quality,
    ToolEnded,
    ToolStarted,
    UserSpeech,
)
from services.calls.model import EndReason
from services.calls.transport import AgentAudio
from services.errors import ServiceError

SCHEMA = "elevenlabs-ws-messages-types0.23.0.schema.json"


def load_schema() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[3]
    for folder in filter(None, [os.environ.get("CALLBOARD_OPENAPI_DIR", ""), root.parent / "shared/openapi"]):
        path = Path(folder) / SCHEMA
        if path.is_file():
            loaded: dict[str, Any] = json.loads(path.read_text())
            return loaded
    pytest.skip(f"{SCHEMA} not found: set CALLBOARD_OPENAPI_DIR to the folder of the vendor specs")


def event(kind: str, member: str, **payload: Any) -> dict[str, Any]:
    return {"type": kind, member: payload}


def metadata(output: str = "pcm_16000", spoken: str = "pcm_16000") -> dict[str, Any]:
    return event(
        "conversation_initiation_metadata",
        "conversation_initiation_metadata_event",
        conversation_id="conv_1",
        agent_output_audio_format=output,
        user_input_audio_format=spoken,
    )


def audio(event_id: int, data: bytes = b"\1\0" * 320, **more: Any) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    return event("audio", "audio_event", audio_base_64=encoded, event_id=event_id, **more)


def aligned(milliseconds: int) -> dict[str, Any]:
    return {
        "chars": ["a", "b"],
        "char_start_times_ms": [0, milliseconds // 2],
        "char_durations_ms": [milliseconds // 2, milliseconds - milliseconds // 2],
    }


def said(event_id: int, text: str, **more: Any) -> dict[str, Any]:
    return event("agent_response", "agent_response_event", agent_response=text, event_id=event_id, **more)


def part(event_id: int, state: str, text: str = "") -> dict[str, Any]:
    return event("agent_chat_response_part", "text_response_part", text=text, type=state, event_id=event_id)


def heard(event_id: int, text: str, *, final: bool = True) -> dict[str, Any]:
    if final:
        member, kind = "user_transcription_event", "user_transcript"
    else:
        member, kind = "tentative_user_transcription_event", "tentative_user_transcript"
    return event(kind, member, user_transcript=text, event_id=event_id)


def interruption(event_id: int) -> dict[str, Any]:
    return event("interruption", "interruption_event", event_id=event_id)


def tool(kind: str, **more: Any) -> dict[str, Any]:
    basis = {"tool_name": "book", "tool_call_id": "t1", "event_id": 9}
    return event(kind, kind, **basis, **more)


def answered(*, tool_type: str = "webhook", is_error: bool = False, **more: Any) -> dict[str, Any]:
    full = "full_tool_result" in more
    kind = "agent_tool_response_full_payload" if full else "agent_tool_response"
    return tool(kind, tool_type=tool_type, is_error=is_error, is_called=True, **more)


def mcp(state: str, **more: Any) -> dict[str, Any]:
    basis = {
        "service_id": "s",
        "tool_call_id": "t1",
        "tool_name": "book",
        "parameters": {"day": 1},
        "timestamp": "2026-05-28T10:00:00Z",
    }
    return event("mcp_tool_call", "mcp_tool_call", **basis, state=state, **more)


def error(error_type: str, message: str, code: int = 1008) -> dict[str, Any]:
    return event("error", "error_event", code=code, error_type=error_type, message=message)


EVERY: dict[str, dict[str, Any]] = {
    "metadata": metadata(),
    "audio": audio(4, alignment=aligned(20)),
    "user": heard(2, "hello"),
    "tentative": heard(2, "hel", final=False),
    "agent": said(3, "Hi!", attachments=[{"url": "https://x/y.pdf", "name": "y.pdf", "mime_type": None}]),
    "correction": event(
        "agent_response_correction",
        "agent_response_correction_event",
        original_agent_response="Hi there you!",
        corrected_agent_response="Hi…",
        event_id=3,
    ),
    "part": part(5, "delta", "He"),
    "reasoning": event(
        "agent_reasoning_response_part",
        "reasoning_response_part",
        text="hm",
        type="delta",
        event_id="5",
    ),
    "interruption": interruption(4),
    "client_tool": tool("client_tool_call", parameters={"day": 1}),
    "rich": event(
        "rich_content", "rich_content", rich_content_id="r", component="card", props={}, event_id=1
    ),
    "request": tool("agent_tool_request", tool_type="webhook"),
    "response": answered(),
    "full": answered(full_tool_result="yes", truncated=False, is_blocked=False),
    "loading": mcp("loading"),
    "approval": mcp("awaiting_approval", approval_timeout_secs=30),
    "success": mcp("success", result=[{"type": "text", "text": "done"}]),
    "failure": mcp("failure", error_message="no"),
    "mcp_status": event(
        "mcp_connection_status",
        "mcp_connection_status",
        integrations=[
            {
                "integration_id": "calendar",
                "integration_type": "mcp_server",
                "is_connected": False,
                "tool_count": 0,
            }
        ],
    ),
    "vad": event("vad_score", "vad_score_event", vad_score=0.4),
    "ping": event("ping", "ping_event", event_id=1, ping_ms=None),
    "context": event(
        "context_usage",
        "context_usage_event",
        event_id=1,
        model="m",
        context_tokens=95,
        context_limit_tokens=100,
    ),
    "asr": event("asr_initiation_metadata", "asr_initiation_metadata_event"),
    "guardrail": {"type": "guardrail_triggered"},
    "turn": event("internal_turn_probability", "turn_probability_internal_event", turn_probability=0.2),
    "maybe": event(
        "internal_tentative_agent_response",
        "tentative_agent_response_internal_event",
        tentative_agent_response="I might",
    ),
    "typing": event("agent_typing", "agent_typing_event", is_typing=True),
    "person": event("external_agent_connected", "external_agent_connected_event"),
    "person_gone": event("external_agent_disconnected", "external_agent_disconnected_event"),
    "error": error("llm_error", "the model is down", 1011),
}


def reader(**options: Any) -> FrameReader:
    made = FrameReader(**options)
    made.read(metadata())
    return made


def read(made: FrameReader, *frames: Any) -> list[Any]:
    return [item for frame in frames for item in made.read(frame)]


# -- the vendor's schema ------------------------------------------------------------------------------


def validator(direction: str) -> Any:
    import jsonschema

    schema = load_schema()
    return jsonschema.Draft202012Validator({"$ref": f"#/{direction}", **schema})


def test_every_server_frame_is_in_the_schema_and_known() -> None:
    schema = load_schema()
    check = validator("server_to_client")
    kinds = set()
    for name, frame in EVERY.items():
        problems = [problem.message for problem in check.iter_errors(frame)]
        assert not problems, (name, problems)
        kinds.add(frame["type"])
    listed = {
        schema["$defs"][ref["$ref"].rpartition("/")[2]]["properties"]["type"]["const"]
        for ref in schema["server_to_client"]["anyOf"]
    }
    assert kinds == listed
    assert not check.is_valid({"type": "audio"})
    made = FrameReader()
    read(made, *EVERY.values())
    assert not made.unknown
    assert made.broken == 0


def test_every_client_frame_is_in_the_schema() -> None:
    check = validator("client_to_server")
    override = {"agent": {"first_message": "Hi", "prompt": {"prompt": "Be kind"}, "language": "de"}}
    config = {
        "conversation_config_override": override,
        "dynamic_variables": {"name": "Ada", "age": 3, "vip": True},
        "user_id": "u1",
    }
    frames = [
        sending.initiation({}),
        sending.initiation(config, text_only=True, version="1.0"),
        json.loads(sending.user_audio(b"\1\2")),
        sending.pong(7),
        sending.user_message("hello"),
        sending.user_activity(),
        sending.contextual_update("it rains"),
        sending.feedback(3, True),
        sending.feedback(3, False),
        sending.feedback(3, None),
        sending.client_tool_result("t1", "0", ok=True),
        sending.mcp_approval("t1", False),
    ]
    for frame in frames:
        assert not [problem.message for problem in check.iter_errors(frame)], frame


def test_text_only_goes_where_the_protocol_has_it_and_nothing_given_is_changed() -> None:
    given_config = {"conversation_config_override": {"conversation": {"client_events": ["ping"]}}}
    before = copy.deepcopy(given_config)
    frame = sending.initiation(given_config, text_only=True)
    assert frame["conversation_config_override"] == {
        "conversation": {"client_events": ["ping"], "text_only": True}
    }
    assert given_config == before
    assert "conversation_config_override" not in sending.initiation({})
    assert sending.initiation({"user_id": "u1"})["user_id"] == "u1"


def test_audio_is_sent_as_base64_of_what_was_given() -> None:
    frame = json.loads(sending.user_audio(bytes(range(256))))
    assert list(frame) == ["user_audio_chunk"]
    assert base64.b64decode(frame["user_audio_chunk"]) == bytes(range(256))


# -- beginning ----------------------------------------------------------------------------------------


def test_the_announced_formats_are_told() -> None:
    made = FrameReader()
    assert made.read(metadata("ulaw_8000", "pcm_44100")) == [
        Connected("conv_1", 44100, 8000, "pcm_44100", "ulaw_8000")
    ]
    assert made.read(metadata()) == []  # once


def test_without_audio_no_format_is_asked_for() -> None:
    made = FrameReader(audio=False)
    frame = event(
        "conversation_initiation_metadata",
        "conversation_initiation_metadata_event",
        conversation_id="conv_1",
    )
    assert made.read(frame) == [Connected("conv_1")]
    assert made.read(audio(3)) == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (metadata("opus_48000"), "unknown_format"),
        (metadata("pcm_16000", ""), "protocol_error"),
        ({"type": "conversation_initiation_metadata"}, "protocol_error"),
    ],
)
def test_a_conversation_that_cannot_be_carried_is_refused(frame: dict[str, Any], code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        FrameReader().read(frame)
    assert caught.value.code == code


def test_a_ping_is_answered_and_measured() -> None:
    made = reader()
    assert made.read(EVERY["ping"]) == [Reply({"type": "pong", "event_id": 1})]
    assert made.read(event("ping", "ping_event", event_id=2.0, ping_ms=48)) == [
        Reply({"type": "pong", "event_id": 2}),
        Quality(round_trip_ms=48.0),
    ]


# -- audio and interruption ---------------------------------------------------------------------------


def test_audio_is_decoded_in_the_announced_format() -> None:
    made = FrameReader()
    made.read(metadata("ulaw_8000"))
    (piece,) = made.read(audio(3, b"\xff\x80"))
    assert piece == AgentAudio((0).to_bytes(2, "little") + (32124).to_bytes(2, "little"), 3)


def test_pieces_of_one_utterance_share_the_number_of_its_text() -> None:
    made = reader()
    found = read(made, said(3, "One moment."), audio(4), audio(5), said(9, "Done."), audio(10))
    assert [item.event_id for item in found] == [3, 3, 3, 9, 9]


def test_the_same_when_the_sound_comes_before_its_text() -> None:
    made = reader()
    found = read(
        made, audio(4), audio(5), said(6, "Hello."), audio(7), heard(8, "hi"), audio(9), said(10, "Yes")
    )
    numbers = [item.event_id for item in found if not isinstance(item, UserSpeech)]
    assert numbers == [4, 4, 4, 4, 9, 9]


def test_an_interruption_drops_that_event_and_earlier_ones() -> None:
    made = reader()
    read(made, said(3, "A long story."), audio(4), audio(5))
    assert made.read(interruption(5)) == [Interrupted(3)]
    assert read(made, audio(5), audio(4)) == []
    assert [item.event_id for item in read(made, said(7, "Yes?"), audio(8))] == [7, 7]


def test_a_late_text_of_what_was_cut_does_not_take_the_next_sound() -> None:
    made = reader()
    read(made, audio(4), interruption(6))
    (late,) = made.read(said(5, "A long story."))
    assert late.event_id == 5
    assert [item.event_id for item in read(made, audio(9), said(10, "Yes?"))] == [9, 9]


def test_an_interruption_after_the_users_words_names_the_utterance_that_is_cut() -> None:
    made = reader()
    read(made, said(3, "A long story."), audio(4), heard(6, "wait"))
    assert made.read(interruption(5)) == [Interrupted(3)]


def test_a_correction_carries_the_number_of_its_utterance() -> None:
    made = reader()
    read(made, audio(2), said(3, "Hi there you!"))
    assert made.read(EVERY["correction"]) == [AgentCorrected("Hi there you!", "Hi…", 2)]


def test_audio_of_another_format_is_noticed_once() -> None:
    made = reader()
    wrong = [audio(event_id, b"\xff" * 800, alignment=aligned(100)) for event_id in range(5, 12)]
    notices = [item for item in read(made, *wrong) if isinstance(item, Notice)]
    assert [notice.level for notice in notices] == ["act"]
    assert "pcm_16000" in notices[0].text


def test_audio_of_the_right_length_raises_no_doubt() -> None:
    made = reader()
    right = [audio(event_id, bytes(3200), alignment=aligned(100)) for event_id in range(5, 30)]
    trailing = [audio(event_id, bytes(3200), alignment=aligned(62)) for event_id in range(30, 60)]
    assert not [item for item in read(made, *right, *trailing) if isinstance(item, Notice)]


# -- what is said -------------------------------------------------------------------------------------


def test_tentative_and_final_words_of_the_user() -> None:
    made = reader()
    assert read(made, heard(2, "he", final=False), heard(2, "hello"), heard(3, " ")) == [
        UserSpeech("he", False, 2),
        UserSpeech("hello", True, 2),
    ]


def test_streamed_parts_grow_and_are_not_told_twice() -> None:
    made = FrameReader(audio=False)
    made.read(metadata())
    found = read(
        made,
        part(4, "start"),
        part(4, "delta", "Good "),
        part(4, "delta", "day"),
        part(4, "stop"),
        said(4, "Good day"),
    )
    assert found == [
        AgentSpeech("Good ", False, 4),
        AgentSpeech("Good day", False, 4),
        AgentSpeech("Good day", True, 4),
    ]


def test_parts_after_the_whole_answer_are_its_repetition() -> None:
    made = reader()
    found = read(
        made, said(4, "Good day"), part(4, "start"), part(4, "delta", "Good "), part(4, "stop", "day")
    )
    assert found == [AgentSpeech("Good day", True, 4)]


def test_a_different_whole_answer_is_told() -> None:
    made = reader()
    found = read(made, part(4, "start", "Goo"), part(4, "stop"), said(4, "Good day"))
    assert found[-1] == AgentSpeech("Good day", True, 4)


def test_text_of_the_vendor_is_cleaned_and_bounded() -> None:
    made = reader()
    (speech,) = made.read(said(4, "a\x1b[2J\u202eb" + "x" * 200_000))
    assert speech.text.startswith("a[2Jbxxx")
    assert len(speech.text) < 100_100
    (call, *_) = made.read(tool("client_tool_call", parameters={}))
    assert call.name == "book"


def test_an_attachment_is_shown() -> None:
    assert reader().read(EVERY["agent"]) == [
        AgentSpeech("Hi!", True, 3),
        Notice("The agent attached y.pdf: https://x/y.pdf"),
    ]


# -- tools --------------------------------------------------------------------------------------------


def test_a_client_tool_runs_once_and_its_echo_is_not_told() -> None:
    made = reader(tools=["book"])
    found = read(
        made,
        tool("agent_tool_request", tool_type="client"),
        EVERY["client_tool"],
        EVERY["client_tool"],
        answered(tool_type="client"),
        answered(tool_type="client", full_tool_result="yes"),
    )
    assert found == [ToolStarted("t1", "book", {"day": 1}, "client")]


def test_a_client_tool_that_does_not_exist_is_said_once() -> None:
    made = reader(tools=["other"])
    second = copy.deepcopy(EVERY["client_tool"])
    second["client_tool_call"]["tool_call_id"] = "t2"
    found = read(made, EVERY["client_tool"], second)
    assert [type(item) for item in found] == [ToolStarted, Notice, ToolStarted]
    assert "“book”" in found[1].text


def test_a_server_tool_with_and_without_its_result() -> None:
    made = reader()
    assert read(made, EVERY["request"], EVERY["response"], EVERY["full"], EVERY["response"]) == [
        ToolStarted("t1", "book", {}, "server"),
        ToolEnded("t1", "", True),
        ToolEnded("t1", "yes", True),
    ]


def test_a_tool_answer_without_its_request_is_not_lost() -> None:
    assert reader().read(answered(is_error=True)) == [
        ToolStarted("t1", "book", {}, "server"),
        ToolEnded("t1", "", False),
    ]


def test_blocked_and_not_called_tools_have_failed() -> None:
    made = reader()
    blocked = answered(full_tool_result="", is_blocked=True)
    not_called = answered()
    not_called["agent_tool_response"]["is_called"] = False
    not_called["agent_tool_response"]["tool_call_id"] = "t2"
    ends = [item for item in read(made, blocked, not_called) if isinstance(item, ToolEnded)]
    assert [(end.result, end.ok) for end in ends] == [
        ("blocked by a guardrail", False),
        ("not called", False),
    ]


def test_an_mcp_tool_through_all_its_states() -> None:
    made = reader()
    found = read(made, EVERY["approval"], EVERY["loading"], EVERY["success"], answered(tool_type="mcp"))
    assert found == [
        ApprovalWanted("t1", "book", {"day": 1}, 30_000),
        ToolStarted("t1", "book", {"day": 1}, "mcp"),
        ToolEnded("t1", "done", True),
    ]
    assert reader().read(EVERY["failure"]) == [ToolEnded("t1", "no", False)]


# -- remarks and errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mcp_status", "context", "guardrail", "person", "person_gone", "rich"])
def test_remarks(name: str) -> None:
    (notice,) = reader().read(EVERY[name])
    assert isinstance(notice, Notice)
    assert notice.text


def test_lasting_states_are_said_once() -> None:
    made = reader()
    read(made, EVERY["mcp_status"], EVERY["context"])
    assert read(made, EVERY["mcp_status"], EVERY["context"]) == []


@pytest.mark.parametrize(
    ("error_type", "message", "reason", "words"),
    [
        (
            "override_error",
            "Override for field 'voice_id' is not allowed by config.",
            EndReason.OVERRIDE_REFUSED,
            "“voice_id”",
        ),
        (
            "override_error",
            "Override for field 'text_only' is not allowed by config.",
            EndReason.OVERRIDE_REFUSED,
            "text only",
        ),
        ("override_error", "", EndReason.OVERRIDE_REFUSED, "override"),
        (
            "missing_dynamic_variable",
            "Missing required dynamic variables in prompt: {'plan', 'name'}",
            EndReason.MISSING_VARIABLE,
            "“plan”, “name”",
        ),
        (
            "missing_dynamic_variable",
            "Missing required dynamic variables in first message: customer_name",
            EndReason.MISSING_VARIABLE,
            "“customer_name”",
        ),
        ("max_duration_exceeded", "too long", EndReason.MAX_DURATION, "longest duration"),
        ("llm_timeout", "", EndReason.TIMEOUT, "in time"),
        ("safety_violation", "", EndReason.NOT_ALLOWED, "safety"),
        ("tts_cascade_error", "boom", EndReason.VENDOR_ERROR, "voice of the agent failed: boom"),
        ("unknown", "This request exceeds your quota limit.", EndReason.LIMIT, "quota"),
        ("brand_new_error", "who knows", EndReason.VENDOR_ERROR, "who knows"),
        ("", "", EndReason.VENDOR_ERROR, "error"),
    ],
)
def test_errors_in_words(error_type: str, message: str, reason: EndReason, words: str) -> None:
    made = reader()
    (notice,) = made.read(error(error_type, message))
    assert made.failure is not None
    assert made.failure.reason is reason
    assert words in made.failure.message
    assert (notice.text, notice.level) == (made.failure.message, "act")


def test_an_error_that_the_conversation_survives_is_taken_back() -> None:
    made = reader()
    read(made, error("mcp_tool_error", "no"), EVERY["ping"])
    assert made.failure is not None
    made.read(said(9, "Let me try again."))
    assert made.failure is None


# -- what is not understood ---------------------------------------------------------------------------


def test_unknown_types_are_counted_only() -> None:
    made = reader()
    assert read(made, {"type": "dtmf_request"}, {"type": "dtmf_request"}, {"type": "agent_dances"}) == []
    assert made.unknown == {"dtmf_request": 2, "agent_dances": 1}


def test_broken_frames_are_told_a_few_times_and_end_it_when_nothing_else_comes() -> None:
    made = reader()
    found = [item for _ in range(MOST_BROKEN - 1) for item in made.read_text('{"type":"audio","audio_ev')]
    assert [type(item) for item in found] == [Notice] * 3
    made.read(EVERY["ping"])
    for _ in range(MOST_BROKEN - 1):
        made.read_text("[1]")
    with pytest.raises(ServiceError) as caught:
        made.read_text(b"\xff\xfe")
    assert caught.value.code == "protocol_error"
    assert made.broken == 2 * MOST_BROKEN - 1


def test_audio_that_is_not_base64_is_passed_over() -> None:
    frame = audio(4)
    frame["audio_event"]["audio_base_64"] = "§$%"
    (notice,) = reader().read(frame)
    assert isinstance(notice, Notice)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A real frame with some of its members gone or replaced."""
    frame = copy.deepcopy(EVERY[draw(st.sampled_from(sorted(EVERY)))])
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = frame
        while isinstance(holder, dict) and holder:
            name = draw(st.sampled_from(sorted(holder)))
            if isinstance(holder[name], dict) and holder[name] and draw(st.booleans()):
                holder = holder[name]
                continue
            if draw(st.booleans()):
                del holder[name]
            else:
                holder[name] = draw(ANYTHING)
            break
    return frame


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(damaged() | ANYTHING, max_size=6))
def test_no_frame_breaks_the_reader(frames: list[Any]) -> None:
    made = reader()
    for frame in frames:
        try:
            found = made.read(frame)
        except ServiceError:
            return
        for item in found:
            if isinstance(item, AgentAudio):
                assert len(item.pcm) % 2 == 0


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary())
def test_no_text_breaks_the_reader(text: str | bytes) -> None:
    for item in reader().read_text(text):
        assert isinstance(item, Notice)
