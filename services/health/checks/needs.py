"""What an agent needs besides its vendor, read in its mirrored bundle, and what in it leads nowhere.

Everything that a bundle refers to by an address or an id: hosts, tools, documents, voices, other agents. What
it refers to within itself (a flow's node, function, component) is looked up here; what its vendor keeps
elsewhere is for `references` and `releases` to ask after. Fields: the vendors' shared schemas (Retell
SDK types 6.2, ElevenLabs specification of 2026-08-22).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from services.agents.bundles import BundlePart
from services.model import Provider

Version = int | str | None
"""Of a Retell agent: its number, a tag, or None for the newest one."""

_NEWEST: Final = ("", "latest")


@dataclass(frozen=True, slots=True)
class Target:
    """Another agent that it hands conversations over to."""

    agent_id: str
    version: Version = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What one bundle refers to, by the vendor's ids.

    `missing`: what it names and does not hold, as a word for it and its name. `tool_ids`: tools of the
    workspace that are no part of the bundle.
    """

    webhooks: frozenset[str] = frozenset()
    tool_urls: frozenset[str] = frozenset()
    missing: tuple[tuple[str, str], ...] = ()
    documents: frozenset[str] = frozenset()
    voices: frozenset[str] = frozenset()
    components: frozenset[str] = frozenset()
    tool_ids: frozenset[str] = frozenset()
    mcp_servers: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    logins: frozenset[str] = frozenset()
    hooks: frozenset[str] = frozenset()
    """Webhooks that the workspace keeps."""
    targets: frozenset[Target] = frozenset()
    tools: int = 0
    version: int | None = None
    """The number of the version that was mirrored, the newest one; None where there are no numbers."""
    published: bool | None = None
    """Whether that version is published; None where the vendor does not say."""


def read_needs(provider: Provider, parts: Iterable[BundlePart]) -> Needs:
    """What a bundle refers to. Fields of an unexpected type read as absent."""
    documents = [(part.kind, part.id, json.loads(part.text)) for part in parts]
    return _retell(documents) if provider is Provider.RETELL else _elevenlabs(documents)


# -- Retell -----------------------------------------------------------------------------------------


def _retell(documents: list[tuple[str, str, Any]]) -> Needs:
    agent, engine = _first(documents, "agent"), _first(documents, "engine")
    own = _at(agent, "response_engine")
    tools = list(_retell_tools(engine))
    scopes = [engine, *_mappings(engine, "components")]
    nodes = [node for scope in scopes for node in _mappings(scope, "nodes")]
    every = [
        *tools,
        *(tool for scope in scopes[1:] for tool in _mappings(scope, "tools")),
        *(tool for node in nodes for tool in _mappings(node, "tools")),
        *_mappings(agent, "pre_session_tools"),
        *_mappings(agent, "post_session_tools"),
    ]
    urls = {_text(tool, "url") for tool in every if _text(tool, "type") in ("custom", "mcp", "")}
    urls |= {_text(mcp, "url") for scope in scopes for mcp in _mappings(scope, "mcps")}
    urls.add(_text(own, "llm_websocket_url"))
    bases = {one for each in (engine, *nodes) for one in _texts(each, "knowledge_base_ids")}
    targets = (_handed_over(each) for each in (*every, *nodes))
    shared = (node for node in nodes if _text(node, "component_type") == "shared")
    version, published = _at(agent, "version"), _at(agent, "is_published")
    return Needs(
        webhooks=_some({_text(agent, "webhook_url")}),
        tool_urls=_some(urls),
        missing=tuple(sorted({*_missing_in_flow(scopes, every), *_missing_states(engine)})),
        documents=_some(bases),
        voices=_some({_text(agent, "voice_id"), *_texts(agent, "fallback_voice_ids")}),
        components=_ids(_text(node, "component_id") for node in shared),
        targets=frozenset(target for target in targets if target is not None),
        tools=len(tools),
        version=version if isinstance(version, int) and not isinstance(version, bool) else None,
        published=published if isinstance(published, bool) else None,
    )


def _retell_tools(engine: Any) -> Iterator[Any]:
    yield from _list(engine, "general_tools")
    yield from _list(engine, "tools")
    for state in _mappings(engine, "states"):
        yield from _list(state, "tools")


def _handed_over(what: Any) -> Target | None:
    """To which agent a tool or a node leads: it swaps to it, or lets it mediate a transfer."""
    found = None
    if _text(what, "type") == "agent_swap":
        found = what
    elif _at(what, "transfer_option", "type") == "agentic_warm_transfer":
        found = _at(what, "transfer_option", "agentic_transfer_config", "transfer_agent")
    name = _text(found, "agent_id")
    return Target(name, version_of(found)) if name and "{{" not in name else None


def version_of(data: Any) -> Version:
    """Which version a reference to a Retell agent names: a number, a tag, or None for the newest."""
    value = data.get("agent_version") if isinstance(data, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value in _NEWEST:
        return None
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _missing_in_flow(scopes: list[Any], tools: list[Any]) -> Iterator[tuple[str, str]]:
    """What the nodes of a flow and of its components name, and neither holds.

    Local components and MCP servers have no id of their own in the vendor's schema: a node that names one
    leads nowhere for certain only where there are none at all.
    """
    functions = {_text(tool, "tool_id") for scope in scopes for tool in _mappings(scope, "tools")}
    components, servers = len(scopes) > 1, any(_list(scope, "mcps") for scope in scopes)
    for scope in scopes:
        nodes = _mappings(scope, "nodes")
        here = {_text(node, "id") for node in nodes}
        leads = [_text(edge, "destination_node_id") for node in nodes for edge in _edges(node)]
        if here:
            leads.append(_text(scope, "start_node_id"))
        yield from (("node", one) for one in leads if one and one not in here)
        for node in nodes:
            kind = _text(node, "type")
            named = _texts(node, "tool_ids")
            if kind == "function" and _text(node, "tool_type") != "shared":
                named.append(_text(node, "tool_id"))
            yield from (("function", one) for one in named if one and one not in functions)
            local = kind == "component" and _text(node, "component_type") == "local"
            if local and not components:
                yield "local component", _text(node, "component_id")
    users = [*tools, *(node for scope in scopes for node in _mappings(scope, "nodes"))]
    if not servers:
        yield from (("local MCP server", one) for each in users if (one := _text(each, "mcp_id")))


def _edges(node: Any) -> Iterator[Any]:
    yield from _mappings(node, "edges")
    for name in ("edge", "else_edge", "always_edge", "skip_response_edge"):
        yield _at(node, name)


def _missing_states(engine: Any) -> Iterator[tuple[str, str]]:
    states = _mappings(engine, "states")
    here = {_text(state, "name") for state in states}
    leads = [_text(edge, "destination_state_name") for state in states for edge in _mappings(state, "edges")]
    if states:
        leads.append(_text(engine, "starting_state"))
    yield from (("state", one) for one in leads if one and one not in here)


# -- ElevenLabs -------------------------------------------------------------------------------------


def _elevenlabs(documents: list[tuple[str, str, Any]]) -> Needs:
    agent = _first(documents, "agent")
    tools = {part_id: data for kind, part_id, data in documents if kind == "tool"}
    config = _at(agent, "conversation_config")
    prompt = _at(config, "agent", "prompt")
    named = _texts(prompt, "tool_ids")
    nodes = [node for node in _values(_at(agent, "workflow", "nodes")) if isinstance(node, dict)]
    # What a workflow's node or a language changes is a part of the same shape.
    parts = [config, *(_at(node, "conversation_config") for node in nodes)]
    parts += [_at(preset, "overrides") for preset in _values(_at(config, "language_presets"))]
    prompts = [_at(part, "agent", "prompt") for part in parts]
    configs = [_at(tool, "tool_config") for tool in tools.values()]
    configs += [tool for each in prompts for tool in _list(each, "tools")]
    urls = {_text(_at(tool, "api_schema"), "url") for tool in configs}
    urls |= {_text(_at(each, "custom_llm"), "url") for each in prompts}
    overrides = _at(agent, "platform_settings", "workspace_overrides")
    hook = _at(overrides, "conversation_initiation_client_data_webhook")
    entries = [entry for each in prompts for entry in _list(each, "knowledge_base")]
    entries += [entry for node in nodes for entry in _list(node, "additional_knowledge_base")]
    servers = {one for each in prompts for one in _texts(each, "mcp_server_ids")}
    everything = (agent, *tools.values())
    return Needs(
        webhooks=_some({_text(hook, "url")}),
        tool_urls=_some(urls),
        missing=tuple(sorted(("tool", one) for one in set(named) - set(tools))),
        documents=_ids(_text(entry, "id") for entry in entries if _text(entry, "type") != "folder"),
        voices=_ids(_voices(parts)),
        tool_ids=_ids(_tools_elsewhere(prompts, nodes)) - set(named),
        mcp_servers=_ids({*servers, *(_text(tool, "mcp_server_id") for tool in configs)}),
        secrets=_ids(_named(everything, "secret_id")),
        logins=_ids(_named(everything, "auth_connection_id")),
        hooks=_ids([_text(_at(overrides, "webhooks"), "post_call_webhook_id")]),
        targets=frozenset(Target(one) for one in _ids(_transfers(prompts, configs, nodes))),
        tools=len(named) or len(_list(prompt, "tools")),
    )


def _voices(parts: Iterable[Any]) -> Iterator[str]:
    for part in parts:
        speech = _at(part, "tts")
        yield _text(speech, "voice_id")
        yield from (_text(voice, "voice_id") for voice in _mappings(speech, "supported_voices"))


def _tools_elsewhere(prompts: Iterable[Any], nodes: Iterable[Any]) -> Iterator[str]:
    for prompt in prompts:
        yield from _texts(prompt, "tool_ids")
    for node in nodes:
        yield from _texts(node, "additional_tool_ids")
        yield from (_text(tool, "tool_id") for tool in _mappings(node, "tools"))


def _transfers(prompts: Iterable[Any], tools: Iterable[Any], nodes: Iterable[Any]) -> Iterator[str]:
    built_in = (_at(prompt, "built_in_tools", "transfer_to_agent") for prompt in prompts)
    for tool in (*built_in, *tools):
        for transfer in _mappings(_at(tool, "params"), "transfers"):
            yield _text(transfer, "agent_id")
    for node in nodes:
        if _text(node, "type") == "standalone_agent":
            yield _text(node, "agent_id")


# -- JSON -------------------------------------------------------------------------------------------


def _first(documents: list[tuple[str, str, Any]], wanted: str) -> Any:
    return next((data for kind, _, data in documents if kind == wanted), {})


def _some(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value for value in values if value)


def _ids(values: Iterable[str]) -> frozenset[str]:
    """Those that name something: not empty, and no variable that a conversation fills in."""
    return frozenset(value for value in values if value and "{{" not in value)


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


def _mappings(value: Any, key: str) -> list[Any]:
    return [one for one in _list(value, key) if isinstance(one, dict)]


def _texts(value: Any, key: str) -> list[str]:
    return [one for one in _list(value, key) if isinstance(one, str) and one]


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _named(values: Iterable[Any], key: str) -> Iterator[str]:
    """Every text under this key, however deep."""
    ahead = list(values)
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict):
            yield _text(value, key)
            ahead += value.values()
        elif isinstance(value, list):
            ahead += value
