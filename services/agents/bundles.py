"""Bundles: the parts of an agent as the vendor sent them, their digest, and what a card reads in them.

The wire JSON of a part is stored as text, byte for byte. Whether two bundles are the same is decided
on a canonical form, leaving out what a vendor changes without anybody changing the agent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.http import digest
from services.model import Provider
from services.text import clean_line

# Modification times repeat what the content says; usage statistics and the caller's own access rights
# change without an edit. (Fields: shared vendor schemas, see the provider clients.)
_VOLATILE: Mapping[tuple[Provider, str], tuple[tuple[str, ...], ...]] = {
    (Provider.RETELL, "agent"): (("last_modification_timestamp",), ("user_modified_timestamp",)),
    (Provider.RETELL, "engine"): (("last_modification_timestamp",),),
    (Provider.ELEVENLABS, "agent"): (("metadata", "updated_at_unix_secs"), ("access_info",)),
    (Provider.ELEVENLABS, "tool"): (("usage_stats",), ("access_info",)),
}


@dataclass(frozen=True, slots=True)
class BundlePart:
    """One JSON document of a bundle."""

    kind: str
    """`agent`, `engine` (Retell LLM or conversation flow) or `tool`."""
    id: str
    """The vendor's id of the document."""
    text: str
    """The wire JSON exactly as received."""


@dataclass(frozen=True, slots=True)
class BundleView:
    """A stored bundle, for reading."""

    parts: tuple[BundlePart, ...]
    digest: str
    stored_at: int
    facts: tuple[tuple[str, str], ...] = ()
    """Voice settings and other fields worth a line, as label and value."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a card shows of a bundle."""

    name: str
    release: str
    voice: str
    language: str
    model: str
    function_count: int | None


def bundle_digest(provider: Provider, parts: Iterable[BundlePart]) -> str:
    """The identity of a bundle's content: equal for every spelling of the same configuration."""
    total = hashlib.sha256()
    for part in sorted(parts, key=lambda part: (part.kind, part.id)):
        ignored = _VOLATILE.get((provider, part.kind), ())
        total.update(f"{part.kind}\0{part.id}\0{digest(part.text, ignored)}\n".encode())
    return total.hexdigest()


def texts_digest(parts: Iterable[BundlePart]) -> str:
    """The identity of the parts as they were received: equal for equal texts only, and quickly found."""
    total = hashlib.sha256()
    for part in parts:
        text = part.text.encode("utf-8", "surrogatepass")
        total.update(f"{part.kind}\0{part.id}\0{len(text)}\n".encode("utf-8", "surrogatepass"))
        total.update(text)
    return total.hexdigest()


def encode_parts(parts: Iterable[BundlePart]) -> str:
    """The parts as one storable text; `decode_parts` gives back the same bytes."""
    return json.dumps([{"kind": part.kind, "id": part.id, "text": part.text} for part in parts])


def decode_parts(content: str) -> tuple[BundlePart, ...]:
    return tuple(BundlePart(part["kind"], part["id"], part["text"]) for part in json.loads(content))


def read_features(provider: Provider, parts: Iterable[BundlePart]) -> Features:
    """What the card shows. Fields of an unexpected type read as absent, never as an error."""
    documents = _documents(parts)
    return _retell(documents) if provider is Provider.RETELL else _elevenlabs(documents)


def read_facts(provider: Provider, parts: Iterable[BundlePart]) -> tuple[tuple[str, str], ...]:
    """Voice settings and limits as label and value, in the order a reader expects them."""
    agent = _mapping(_documents(parts).get("agent"))
    found: list[tuple[str, str]] = []
    for label, path in _FACTS[provider]:
        value = _at(agent, path)
        if value is not None and not isinstance(value, dict):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else _plain(value)
            if shown:
                found.append((label, clean_line(shown)))
    return tuple(found)


_FACTS: Mapping[Provider, tuple[tuple[str, tuple[str, ...]], ...]] = {
    Provider.RETELL: (
        ("voice", ("voice_id",)),
        ("voice model", ("voice_model",)),
        ("fallback voices", ("fallback_voice_ids",)),
        ("voice temperature", ("voice_temperature",)),
        ("voice speed", ("voice_speed",)),
        ("volume", ("volume",)),
        ("language", ("language",)),
        ("responsiveness", ("responsiveness",)),
        ("interruption sensitivity", ("interruption_sensitivity",)),
        ("ambient sound", ("ambient_sound",)),
        ("max call, ms", ("max_call_duration_ms",)),
        ("webhook", ("webhook_url",)),
    ),
    Provider.ELEVENLABS: (
        ("voice", ("conversation_config", "tts", "voice_id")),
        ("voice model", ("conversation_config", "tts", "model_id")),
        ("stability", ("conversation_config", "tts", "stability")),
        ("similarity boost", ("conversation_config", "tts", "similarity_boost")),
        ("voice speed", ("conversation_config", "tts", "speed")),
        ("output format", ("conversation_config", "tts", "agent_output_audio_format")),
        ("language", ("conversation_config", "agent", "language")),
        ("turn time-out, s", ("conversation_config", "turn", "turn_timeout")),
        ("max call, s", ("conversation_config", "conversation", "max_duration_seconds")),
        ("tags", ("tags",)),
    ),
}


def _retell(documents: Mapping[str, Any]) -> Features:
    agent, engine = _mapping(documents.get("agent")), documents.get("engine")
    flow_or_llm = _mapping(engine)
    version = agent.get("version")
    release = ""
    if isinstance(version, int) and not isinstance(version, bool):
        release = f"v{version} {'published' if agent.get('is_published') is True else 'draft'}"
    language = agent.get("language")
    engine_kind = _text(_at(agent, ("response_engine", "type")))
    model = (
        _text(flow_or_llm.get("model"))
        or _text(flow_or_llm.get("s2s_model"))
        or _text(_at(flow_or_llm, ("model_choice", "model")))
        or _text(_at(flow_or_llm, ("model_config", "primary", "model")))
        or ("own LLM" if engine_kind == "custom-llm" else "")
    )
    functions: int | None = None
    if engine is not None:
        states = [state for state in _sequence(flow_or_llm.get("states")) if isinstance(state, dict)]
        functions = sum(
            len(_sequence(tools))
            for tools in (
                flow_or_llm.get("general_tools"),
                flow_or_llm.get("tools"),
                *(state.get("tools") for state in states),
            )
        )
    return Features(
        name=_text(agent.get("agent_name")),
        release=release,
        voice=_text(agent.get("voice_id")).partition("-")[2] or _text(agent.get("voice_id")),
        language=", ".join(map(str, language)) if isinstance(language, list) else _text(language),
        model=model,
        function_count=functions,
    )


def _elevenlabs(documents: Mapping[str, Any]) -> Features:
    agent = _mapping(documents.get("agent"))
    settings = _mapping(agent.get("conversation_config"))
    prompt = _mapping(_at(settings, ("agent", "prompt")))
    built_in = _mapping(prompt.get("built_in_tools"))
    by_id = _sequence(prompt.get("tool_ids"))
    inline = [tool for tool in _sequence(prompt.get("tools")) if _mapping(tool).get("type") != "system"]
    functions = (len(by_id) or len(inline)) + sum(tool is not None for tool in built_in.values())
    branch, main = agent.get("branch_id"), agent.get("main_branch_id")
    release = ""
    if agent.get("version_id"):
        release = "main branch" if branch == main or not branch else f"branch {_text(branch)}"
    return Features(
        name=_text(agent.get("name")),
        release=release,
        voice=_text(_at(settings, ("tts", "voice_id"))),
        language=_text(_at(settings, ("agent", "language"))),
        model=_text(prompt.get("llm")),
        function_count=functions,
    )


def _documents(parts: Iterable[BundlePart]) -> dict[str, Any]:
    """The parsed agent and engine; tools are not needed for a card."""
    return {part.kind: json.loads(part.text) for part in parts if part.kind in ("agent", "engine")}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return clean_line(value) if isinstance(value, str) else ""


def _at(value: object, path: tuple[str, ...]) -> Any:
    for key in path:
        value = _mapping(value).get(key)
    return value


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
