"""Made-up ElevenLabs objects: agents, tools, knowledge-base documents, the user.

Shapes follow the vendor's public specification (2026-08). A few agents carry fields and enum values that it
does not know (`FUTURE_VALUES`), as a vendor's new release would, so that clients show they keep them.
"""

from __future__ import annotations

import random

from services.simulator import words
from services.simulator.wire import Json

FUTURE_VALUES = frozenset({"eleven_v4_conversational", "claude-opus-6"})
"""Enum values outside of the published schema."""

ACCESS: Json = {
    "is_creator": True,
    "creator_name": "Dana Demo",
    "creator_email": "dana@example.com",
    "role": "admin",
    "access_source": "creator",
}

_VOICE_NAMES = {
    "cjVigY5qzO86Huf0OWal": "Eric", "21m00Tcm4TlvDq8ikWAM": "Rachel", "EXAVITQu4vr4xnSDxMaL": "Sarah",
    "pNInz6obpgDQGcFmaJgB": "Adam",
}  # fmt: skip
_VOICES = tuple(_VOICE_NAMES)
_LLMS = ("gemini-2.5-flash", "gpt-4.1-mini", "gpt-5-mini", "claude-sonnet-4-5", "claude-haiku-4-5", "gpt-4o")
_EVENTS = ["audio", "interruption", "user_transcript", "agent_response"]
_MORE_EVENTS = [
    *_EVENTS, "agent_response_correction", "agent_chat_response_part", "tentative_user_transcript",
    "client_tool_call", "agent_tool_request", "agent_tool_response", "mcp_tool_call",
    "mcp_connection_status", "vad_score", "context_usage", "asr_initiation_metadata",
]  # fmt: skip
_FORMATS = {
    4: ("pcm_16000", "pcm_24000"), 7: ("pcm_16000", "pcm_44100"), 8: ("ulaw_8000", "ulaw_8000"),
    10: ("pcm_48000", "pcm_48000"),
}  # fmt: skip
"""Input and output of every twelfth agent; all others have pcm_16000."""
_TTS_MODELS = ("eleven_flash_v2", "eleven_flash_v2_5", "eleven_turbo_v2_5", "eleven_v3_conversational")


def _tool_common(name: str, description: str, timeout: int = 20) -> Json:
    return {
        "name": name,
        "description": description,
        "response_timeout_secs": timeout,
        "disable_interruptions": False,
        "interruption_mode": "allow",
        "force_pre_tool_speech": False,
        "pre_tool_speech": "auto",
        "assignments": [],
        "tool_call_sound": None,
        "tool_call_sound_behavior": "auto",
        "tool_error_handling_mode": "auto",
    }


def _parameters(function: words.Function) -> Json:
    return {
        "type": "object",
        "description": function.purpose,
        "required": [function.parameters[0][0]],
        "properties": {
            name: {"type": "string", "description": text, "dynamic_variable": "", "constant_value": ""}
            for name, text in function.parameters
        },
    }


def tool(index: int, tool_id: str, rng: random.Random) -> Json:
    """A workspace tool: mostly webhooks, every fourth one a client tool."""
    function = words.FUNCTIONS[index % len(words.FUNCTIONS)]
    series = index // len(words.FUNCTIONS)
    name = function.name if not series else f"{function.name}_{series + 1}"
    config: Json = {"type": "client" if index % 4 == 3 else "webhook", **_tool_common(name, function.purpose)}
    config["dynamic_variables"] = {"dynamic_variable_placeholders": {}}
    config["execution_mode"] = "immediate"
    if config["type"] == "client":
        config |= {"parameters": _parameters(function), "expects_response": True}
    else:
        config["api_schema"] = {
            "url": f"https://api.example.com/tools/{name}",
            "method": "POST",
            "path_params_schema": {},
            "query_params_schema": None,
            "request_body_schema": _parameters(function),
            "request_headers": {"X-Branch": "zürich"},
            "content_type": "application/json",
        }
    return {
        "id": tool_id,
        "tool_config": config,
        "access_info": ACCESS,
        "usage_stats": {"total_calls": rng.randrange(5000), "avg_latency_secs": rng.choice((0.5, 1.0, 2.25))},
        "response_mocks": None,
    }


def document(doc_id: str, name: str, html: str, created: int, updated: int) -> Json:
    """A text document of the knowledge base; times in seconds."""
    return {
        "id": doc_id,
        "name": name,
        "type": "text",
        "metadata": {
            "created_at_unix_secs": created,
            "last_updated_at_unix_secs": updated,
            "size_bytes": len(html.encode()),
        },
        "supported_usages": ["prompt", "auto"],
        "access_info": ACCESS,
        "folder_parent_id": None,
        "folder_path": [],
        "extracted_inner_html": html,
        "content_format": "html",
    }


def _system_tool(name: str, params: Json) -> Json:
    return {"type": "system", **_tool_common(name, ""), "params": {"system_tool_type": name, **params}}


def _built_in(rng: random.Random) -> Json:
    tools: Json = dict.fromkeys(
        ("end_call", "language_detection", "transfer_to_agent", "transfer_to_number", "skip_turn",
         "play_keypad_touch_tone", "voicemail_detection")
    )  # fmt: skip
    if rng.random() < 0.8:
        tools["end_call"] = _system_tool("end_call", {})
    if rng.random() < 0.3:
        tools["language_detection"] = _system_tool(
            "language_detection", {"only_at_conversation_start": False}
        )
    if rng.random() < 0.2:
        tools["skip_turn"] = _system_tool("skip_turn", {})
    return tools


def _prompt(
    rng: random.Random, index: int, name: str, language: str, tool_ids: list[str], documents: list[Json]
) -> Json:
    llm = "claude-opus-6" if index % 13 == 6 else rng.choice(_LLMS)
    prompt: Json = {
        "prompt": words.prompt(rng, name, language),
        "llm": "custom-llm" if index % 10 == 9 else llm,
        "reasoning_effort": None,
        "thinking_budget": None,
        "temperature": rng.choice((0.0, 0, 0.3, 1.0)),
        "max_tokens": -1,
        "tool_ids": tool_ids,
        "built_in_tools": _built_in(rng),
        "mcp_server_ids": [],
        "native_mcp_server_ids": [],
        "knowledge_base": [
            {"type": "text", "name": doc["name"], "id": doc["id"], "usage_mode": "auto"} for doc in documents
        ],
        "custom_llm": None,
        "ignore_default_personality": False,
        "rag": {
            "enabled": bool(documents),
            "embedding_model": "e5_mistral_7b_instruct",
            "max_vector_distance": 0.6,
            "max_documents_length": 50000,
            "max_retrieved_rag_chunks_count": 20,
        },
        "timezone": None,
        "backup_llm_config": {"preference": "default"},
        "cascade_timeout_seconds": 8.0,
    }
    if prompt["llm"] == "custom-llm":
        prompt["custom_llm"] = {
            "url": "https://llm.example.com/v1",
            "model_id": "house-model",
            "request_headers": {},
        }
    return prompt


def conversation_config(
    rng: random.Random, index: int, name: str, language: str, tool_ids: list[str], documents: list[Json]
) -> Json:
    """How an agent talks: `conversation_config` of the agent object."""
    prompt = _prompt(rng, index, name, language, tool_ids, documents)
    heard, spoken = _FORMATS.get(index % 12, ("pcm_16000", "pcm_16000"))
    config: Json = {
        "asr": {
            "quality": "high",
            "provider": "scribe_realtime",
            "user_input_audio_format": heard,
            "keywords": ["Zoë", "Olé"] if index % 4 == 2 else [],
        },
        "turn": {
            "turn_timeout": rng.choice((7.0, 5.0, 10.0, 7)),
            "silence_end_call_timeout": -1.0,
            "mode": "turn",
            "turn_eagerness": rng.choice(("normal", "patient", "eager")),
            "soft_timeout_config": {"timeout_seconds": -1.0, "message": "Hhmmmm...yeah."},
        },
        "tts": {
            "model_id": "eleven_v4_conversational" if index % 11 == 5 else rng.choice(_TTS_MODELS),
            "voice_id": rng.choice(_VOICES),
            "supported_voices": [],
            "expressive_mode": True,
            "agent_output_audio_format": spoken,
            "optimize_streaming_latency": 3,
            "stability": rng.choice((0.5, 0.65, 1.0)),
            "speed": rng.choice((1.0, 0.95, 1.1, 1)),
            "similarity_boost": 0.8,
            "pronunciation_dictionary_locators": [],
        },
        "conversation": {
            "text_only": False,
            "max_duration_seconds": rng.choice((300, 600, 900)),
            "client_events": _EVENTS if index % 4 == 3 else _MORE_EVENTS,
            "monitoring_enabled": False,
            "monitoring_events": [],
        },
        "language_presets": {},
        "vad": {"background_voice_detection": False},
        "agent": {
            "first_message": rng.choice((f"Hi, {name} speaking. What can I do for you?", "", "Grüß Gott!")),
            "language": language,
            "hinglish_mode": False,
            "dynamic_variables": {"dynamic_variable_placeholders": {"customer_name": "there", "visits": 1.0}},
            "disable_first_message_interruptions": False,
            "prompt": prompt,
        },
    }
    if index % 5 == 3:  # documented by the vendor, absent from its specification
        config["realtime_model"] = {"model": "eleven_realtime_v1_mini", "temperature": 1.0}
    return config


def platform_settings(rng: random.Random, index: int) -> Json:
    """Everything around the conversation: `platform_settings` of the agent object."""
    criteria = [
        {
            "id": "solved",
            "name": "Solved",
            "type": "prompt",
            "conversation_goal_prompt": "The caller's need was met.",
            "use_knowledge_base": False,
        }
    ]
    settings: Json = {
        "auth": {"enable_auth": index % 3 == 0, "allowlist": [], "shareable_token": None},
        "evaluation": {"criteria": criteria if rng.random() < 0.6 else []},
        "data_collection": {},
        "overrides": {
            **_permitted(index),
            "custom_llm_extra_body": False,
            "enable_conversation_initiation_client_data_from_webhook": False,
        },
        "call_limits": {"agent_concurrency_limit": -1, "daily_limit": 100000, "bursting_enabled": True},
        "privacy": {
            "record_voice": True,
            "retention_days": rng.choice((-1, 30, 90)),
            "delete_transcript_and_pii": False,
            "delete_audio": False,
            "zero_retention_mode": False,
        },
        "testing": {"attached_tests": []},
        "archived": False,
        "safety": {"is_blocked_ivc": False, "is_blocked_non_ivc": False, "ignore_safety_evaluation": False},
    }
    if index % 6 == 1:
        settings["x_compliance_profile"] = {"name": "eu-médical", "level": 2.0, "flags": [None, True]}
    return settings


def _permitted(index: int) -> Json:
    """Which overrides a client may send: of six agents two permit all, three some, one none."""
    kind = index % 6
    if kind == 3:
        return {}
    every = kind in (0, 1)
    config = {
        "agent": {
            "first_message": every or kind == 2,
            "language": every,
            "prompt": dict.fromkeys(("prompt", "llm", "tool_ids", "knowledge_base"), every),
        },
        "tts": dict.fromkeys(("voice_id", "stability", "speed", "similarity_boost"), every),
        "conversation": {"text_only": True, "max_duration_seconds": kind == 4},
        "asr": {"keywords": every},
    }
    return {"conversation_config_override": config}


def _plan() -> Json:
    return {
        "tier": "business",
        "character_count": 17231,
        "character_limit": 11000000,
        "max_character_limit_extension": None,
        "max_credit_limit_extension": 0,
        "can_extend_character_limit": True,
        "allowed_to_extend_character_limit": True,
        "next_character_count_reset_unix": words.EPOCH_MS // 1000,
        "voice_slots_used": 3,
        "professional_voice_slots_used": 0,
        "professional_voice_slots_used_in_workspace": 0,
        "voice_limit": 660,
        "voice_add_edit_counter": 12,
        "professional_voice_limit": 3,
        "can_extend_voice_limit": True,
        "can_use_instant_voice_cloning": True,
        "can_use_professional_voice_cloning": True,
        "currency": "usd",
        "current_overage": {"amount": "0", "currency": "usd"},
        "status": "active",
        "billing_period": "monthly_period",
        "character_refresh_period": "monthly_period",
    }


def subscription() -> Json:
    """What `GET /v1/user/subscription` answers."""
    return {**_plan(), "next_invoice": None, "open_invoices": [], "has_open_invoices": False}


def voices() -> list[Json]:
    """Every voice of the workspace, as `GET /v2/voices` lists it."""
    return [
        {
            "voice_id": voice_id,
            "name": name,
            "category": "premade",
            "labels": {"accent": "american", "use_case": "conversational"},
            "description": None,
            "preview_url": f"https://voices.example.com/{name.lower()}.mp3",
            "available_for_tiers": [],
            "high_quality_base_model_ids": ["eleven_flash_v2_5"],
            "collection_ids": [],
            "is_owner": False,
        }
        for voice_id, name in _VOICE_NAMES.items()
    ]


def user() -> Json:
    """What `GET /v1/user` answers."""
    return {
        "user_id": "user_simulated",
        "subscription": _plan(),
        "is_new_user": False,
        "can_use_delayed_payment_methods": False,
        "is_onboarding_completed": True,
        "is_onboarding_checklist_completed": True,
        "first_name": "Dana",
        "created_at": words.EPOCH_MS // 1000 - 30_000_000,
        "seat_type": "workspace_admin",
    }
