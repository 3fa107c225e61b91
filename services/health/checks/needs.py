"""What an agent needs besides its vendor, read in its mirrored bundle: URLs, tools, documents, voices.

Fields: the vendors' shared schemas (Retell SDK types 6.2, ElevenLabs specification of 2026-08-22).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from services.agents.bundles import BundlePart
from services.model import Provider


@dataclass(frozen=True, slots=True)
class Needs:
    """What one bundle refers to. `gone_tools`: tools it names and the vendor's list does not have."""

    webhooks: frozenset[str] = frozenset()
    tool_urls: frozenset[str] = frozenset()
    gone_tools: tuple[str, ...] = ()
    documents: frozenset[str] = frozenset()
    voices: frozenset[str] = frozenset()
    tools: int = 0


def read_needs(provider: Provider, parts: Iterable[BundlePart]) -> Needs:
    """What a bundle refers to. Fields of an unexpected type read as absent."""
    documents = [(part.kind, part.id, json.loads(part.text)) for part in parts]
    return _retell(documents) if provider is Provider.RETELL else _elevenlabs(documents)


def _retell(documents: list[tuple[str, str, Any]]) -> Needs:
    agent, engine = _first(documents, "agent"), _first(documents, "engine")
    tools = list(_retell_tools(engine))
    webhooks = {_text(agent, "webhook_url")}
    own = agent.get("response_engine") if isinstance(agent, dict) else None
    urls = {_text(tool, "url") for tool in tools if _text(tool, "type") in ("custom", "mcp", "")}
    urls.add(_text(own, "llm_websocket_url"))
    voices = {_text(agent, "voice_id"), *_texts(agent, "fallback_voice_ids")}
    return Needs(
        webhooks=_some(webhooks),
        tool_urls=_some(urls),
        documents=_some(set(_texts(engine, "knowledge_base_ids"))),
        voices=_some(voices),
        tools=len(tools),
    )


def _retell_tools(engine: Any) -> Iterator[Any]:
    if not isinstance(engine, dict):
        return
    states = [state for state in _list(engine, "states") if isinstance(state, dict)]
    yield from _list(engine, "general_tools")
    yield from _list(engine, "tools")
    for state in states:
        yield from _list(state, "tools")


def _elevenlabs(documents: list[tuple[str, str, Any]]) -> Needs:
    agent = _first(documents, "agent")
    tools = {part_id: data for kind, part_id, data in documents if kind == "tool"}
    prompt = _at(agent, "conversation_config", "agent", "prompt")
    named = _texts(prompt, "tool_ids")
    configs = [_at(tool, "tool_config") for tool in tools.values()] + _list(prompt, "tools")
    urls = {_text(_at(config, "api_schema"), "url") for config in configs}
    urls.add(_text(_at(prompt, "custom_llm"), "url"))
    overrides = _at(agent, "platform_settings", "workspace_overrides")
    hook = _at(overrides, "conversation_initiation_client_data_webhook")
    references = [entry for entry in _list(prompt, "knowledge_base") if _text(entry, "type") != "folder"]
    return Needs(
        webhooks=_some({_text(hook, "url")}),
        tool_urls=_some(urls),
        gone_tools=tuple(sorted(set(named) - set(tools))),
        documents=_some({_text(entry, "id") for entry in references}),
        voices=_some({_text(_at(agent, "conversation_config", "tts"), "voice_id")}),
        tools=len(named) or len(_list(prompt, "tools")),
    )


def _first(documents: list[tuple[str, str, Any]], wanted: str) -> Any:
    return next((data for kind, _, data in documents if kind == wanted), {})


def _some(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value for value in values if value)


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found.strip() if isinstance(found, str) else ""


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _texts(value: Any, key: str) -> list[str]:
    return [one for one in _list(value, key) if isinstance(one, str) and one]
