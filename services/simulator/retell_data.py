"""Made-up Retell objects: agents with their versions, Retell LLMs, conversation flows, voices.

Shapes follow the vendor's SDK types (6.2). A few objects carry fields and enum values that no published
schema knows (`FUTURE_VALUES`), as a vendor's new release would, so that clients show they keep them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from services.simulator import words
from services.simulator.wire import Json

if TYPE_CHECKING:
    from services.simulator.retell_store import Versioned

FUTURE_VALUES = frozenset({"eleven_v5_preview", "gpt-7-nova"})
"""Enum values outside of every published schema."""

VOICES: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("11labs-Adrian", "Adrian", "elevenlabs", "male", "American", "eleven_flash_v2_5"),
    ("11labs-Lily", "Lily", "elevenlabs", "female", "British", "eleven_multilingual_v2"),
    ("11labs-Anton", "Anton", "elevenlabs", "male", "German", "eleven_v3_conversational"),
    ("openai-Alloy", "Alloy", "openai", "female", "American", "gpt-4o-mini-tts"),
    ("openai-Onyx", "Onyx", "openai", "male", "American", "tts-1"),
    ("cartesia-Brooke", "Brooke", "cartesia", "female", "American", "sonic-3"),
    ("cartesia-Léa", "Léa", "cartesia", "female", "French", "sonic-3.5"),
    ("minimax-Hana", "Hana", "minimax", "female", "Japanese", "speech-2.8-turbo"),
    ("retell-Cimo", "Cimo", "platform", "female", "American", "s2-pro"),
)
"""id, name, provider, gender, accent, the model agents use with it."""

LLM_MODELS = (
    "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5.1", "gpt-5.4-mini", "claude-5-sonnet", "claude-4.5-haiku",
    "gemini-3.5-flash", "gpt-6-luna",
)  # fmt: skip


def voices() -> list[Json]:
    """What `GET /list-voices` answers."""
    return [
        {
            "voice_id": voice_id,
            "voice_name": name,
            "provider": provider,
            "gender": gender,
            "accent": accent,
            "age": "Middle Aged" if gender == "male" else "Young",
            "preview_audio_url": f"https://voices.example.com/{name.lower()}.mp3",
            "avatar_url": None,
        }
        for voice_id, name, provider, gender, accent, _ in VOICES
    ]


def knowledge_bases(llms: Iterable[Versioned]) -> list[Json]:
    """What `GET /list-knowledge-bases` answers: all that the LLMs refer to in the beginning."""
    wanted = {
        base_id: None
        for llm in llms
        for version in llm.versions.values()
        for base_id in version.data.get("knowledge_base_ids") or ()
    }
    return [
        {
            "knowledge_base_id": base_id,
            "knowledge_base_name": f"Opening hours {number}",
            "status": "complete",
            "knowledge_base_sources": [],
            "enable_auto_refresh": False,
        }
        for number, base_id in enumerate(wanted, 1)
    ]


def agent(
    rng: random.Random, index: int, agent_id: str, name: str, locale: str, engine: Json, modified: int
) -> Json:
    """The first version of an agent (unpublished, number 0)."""
    voice_id, _, _, _, _, voice_model = rng.choice(VOICES)
    data: Json = {
        "agent_id": agent_id,
        "channel": "voice",
        "agent_name": name,
        "version": 0,
        "is_published": False,
        "last_modification_timestamp": modified,
        "response_engine": engine,
        "language": locale if index % 9 else [locale, "en-US" if locale != "en-US" else "es-ES"],
        "voice_id": voice_id,
        "voice_model": voice_model if index % 11 != 7 else "eleven_v5_preview",
        "voice_temperature": rng.choice((1.0, 0.8, 1.2, 1)),
        "voice_speed": rng.choice((1.0, 0.95, 1.1, 1)),
        "volume": 1.0,
        "responsiveness": rng.choice((1.0, 0.9, 1)),
        "interruption_sensitivity": rng.choice((1.0, 0.8, 0.65)),
        "enable_backchannel": rng.random() < 0.5,
        "backchannel_frequency": 0.8,
        "reminder_trigger_ms": 10000.0,
        "reminder_max_count": 1,
        "end_call_after_silence_ms": 600000,
        "max_call_duration_ms": rng.choice((1800000, 3600000)),
        "begin_message_delay_ms": rng.choice((0, 400, 1000)),
        "ring_duration_ms": 30000,
        "stt_mode": rng.choice(("fast", "accurate")),
        "vocab_specialization": "medical" if "Zahnarzt" in name or "Clini" in name else "general",
        "denoising_mode": "noise-cancellation",
        "allow_user_dtmf": True,
        "data_storage_setting": "everything",
        "opt_in_signed_url": False,
        "post_call_analysis_model": "gpt-4.1-mini",
        "post_call_analysis_data": [
            {
                "type": "system-presets",
                "name": "call_summary",
                "description": "Two sentences about the call.",
            },
            {"type": "boolean", "name": "resolved", "description": "Was the caller's need met?"},
        ],
        "pii_config": {"mode": "post_call", "categories": []},
        "timezone": "Europe/Berlin" if locale.startswith("de") else "America/Los_Angeles",
    }
    if rng.random() < 0.4:
        data["webhook_url"] = f"https://hooks.example.com/retell/{index}"
        data["webhook_events"] = ["call_started", "call_ended", "call_analyzed"]
        data["webhook_timeout_ms"] = 10000
    if rng.random() < 0.3:
        data |= {"ambient_sound": "call-center", "ambient_sound_volume": 0.4}
    if index % 4 == 1:
        data["voicemail_option"] = {"action": {"type": "static_text", "text": "Bitte rufen Sie zurück."}}
        data["boosted_keywords"] = ["Zoë", "Köln", "Retell"]
        data["fallback_voice_ids"] = ["openai-Alloy"]
    if index % 5 == 2:  # left over from older API versions, still sent for older agents
        data["normalize_for_speech"] = True
        data["x_turn_detection_v2"] = {"mode": "semantic", "eagerness": 0.50, "labels": ["naïve", "beta"]}
    return data


def custom_tool(function: words.Function, host: str = "api.example.com") -> Json:
    """A `custom` function with the usual fields."""
    return {
        "type": "custom",
        "name": function.name,
        "description": function.purpose,
        "url": f"https://{host}/functions/{function.name}",
        "method": "POST",
        "speak_during_execution": True,
        "speak_after_execution": True,
        "timeout_ms": 120000,
        "parameters": {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": text} for name, text in function.parameters
            },
            "required": [function.parameters[0][0]],
        },
    }


def full_custom_tool() -> Json:
    """A function that uses every field a custom function has, and one nobody knows yet."""
    return {
        **custom_tool(words.FUNCTIONS[2]),
        "name": "book_appointment_plus",
        "method": "PUT",
        "parameter_type": "json",
        "args_at_root": True,
        "headers": {"X-Branch": "münchen-süd", "X-Trace": "{{call_id}}"},
        "query_params": {"tenant": "42", "dry_run": "false"},
        "response_variables": {"booking_id": "$.data.booking.id", "price": "$.data.price"},
        "max_retry": 2,
        "timeout_ms": 15000,
        "execution_message_type": "static_text",
        "execution_message_description": "Einen Moment, ich trage das ein …",
        "enable_typing_sound": True,
        "retry_backoff_factor": 1.50,
    }


def _call_tools(rng: random.Random, count: int) -> list[Json]:
    end_call: Json = {
        "type": "end_call",
        "name": "end_call",
        "description": "End the call when the caller says goodbye.",
    }
    transfer: Json = {
        "type": "transfer_call",
        "name": "transfer_to_team",
        "description": "Hand the call to a person.",
        "transfer_destination": {"type": "predefined", "number": "+14155550123"},
        "transfer_option": {"type": "cold_transfer", "show_transferee_as_caller": False},
    }
    tools: list[Json] = ([end_call, transfer] if count > 2 else [end_call])[:count]
    return tools + [custom_tool(function) for function in words.pick(rng, count - len(tools))]


def llm(rng: random.Random, index: int, llm_id: str, name: str, locale: str, modified: int) -> Json:
    """The first version of a Retell LLM with 0 to 9 functions."""
    tools = _call_tools(rng, rng.randint(0, 9))
    if index == 0:
        tools = [*_call_tools(rng, 5), full_custom_tool()]
    data: Json = {
        "llm_id": llm_id,
        "version": 0,
        "is_published": False,
        "last_modification_timestamp": modified,
        "model": rng.choice(LLM_MODELS) if index % 13 != 4 else "gpt-7-nova",
        "model_temperature": rng.choice((0.0, 0, 0.2, 0.7, 1.0)),
        "model_high_priority": rng.random() < 0.2,
        "tool_call_strict_mode": True,
        "start_speaker": "agent",
        "begin_message": rng.choice((None, "", f"Hello, this is {name}. How can I help?")),
        "general_prompt": words.prompt(rng, name, locale),
        "general_tools": tools,
        "knowledge_base_ids": [words.hex_id(rng, "knowledge_base_", 16)] if index % 3 == 0 else [],
        "kb_config": {"top_k": 3, "filter_score": 0.60},
        "default_dynamic_variables": {"customer_name": "the caller"},
    }
    if index % 8 == 5:
        data["starting_state"] = "greeting"
        data["states"] = [
            {
                "name": "greeting",
                "state_prompt": "Find out why the caller is calling.",
                "edges": [{"destination_state_name": "solve", "description": "The reason is known."}],
                "tools": [custom_tool(words.FUNCTIONS[0])],
            },
            {"name": "solve", "state_prompt": "Solve it or take a message.", "edges": [], "tools": []},
        ]
    return data


def flow(rng: random.Random, flow_id: str, name: str, locale: str, modified: int) -> Json:
    """The first version of a conversation flow: a short graph with 0 to 4 functions."""
    functions = words.pick(rng, rng.randint(0, 4))
    tools = [{**custom_tool(function), "tool_id": f"tool-{function.name}"} for function in functions]
    nodes: list[Json] = [
        _node("start", "conversation", 0, {
            "instruction": {"type": "prompt", "text": f"Greet the caller as {name} and ask what they need."},
            "edges": [_edge("to-solve", "step-0" if tools else "end", "The need is clear")],
        }),
    ]  # fmt: skip
    for index, tool in enumerate(tools):
        nodes.append(
            _node(f"step-{index}", "function", index + 1, {
                "tool_id": tool["tool_id"],
                "tool_type": "local",
                "wait_for_result": True,
                "speak_during_execution": False,
                "edges": [],
                "else_edge": {
                    "id": f"else-{index}",
                    "destination_node_id": f"step-{index + 1}" if index + 1 < len(tools) else "end",
                    "transition_condition": {"type": "prompt", "prompt": "Else"},
                },
            })
        )  # fmt: skip
    nodes.append(
        _node("end", "end", len(tools) + 1, {"instruction": {"type": "prompt", "text": "Say goodbye."}})
    )
    return {
        "conversation_flow_id": flow_id,
        "version": 0,
        "last_modification_timestamp": modified,
        "start_node_id": "start",
        "start_speaker": "agent",
        "global_prompt": words.prompt(rng, name, locale),
        "model_choice": {"type": "cascading", "model": rng.choice(LLM_MODELS), "high_priority": False},
        "model_temperature": rng.choice((0.0, 0.3, 1)),
        "tool_call_strict_mode": True,
        "flex_mode": False,
        "knowledge_base_ids": [],
        "default_dynamic_variables": {"customer_name": "the caller"},
        "nodes": nodes,
        "tools": tools,
        "begin_tag_display_position": {"x": 40.0, "y": 25.5},
    }


def _node(node_id: str, kind: str, column: int, more: Json) -> Json:
    position = {"x": 320.0 * column, "y": 180.0}
    return {"id": node_id, "type": kind, "name": node_id.title(), "display_position": position, **more}


def _edge(edge_id: str, destination: str, condition: str) -> Json:
    when: dict[str, Any] = {"type": "prompt", "prompt": condition}
    return {"id": edge_id, "destination_node_id": destination, "transition_condition": when}
