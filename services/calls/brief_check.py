"""Which parts of a brief an agent will use, ignore, or refuse the call for, by its mirrored configuration.

ElevenLabs closes a conversation for an override that `platform_settings.overrides` does not permit, field by
field, and for a variable that its prompt or first message names and nobody gives. Retell takes overrides on
web and phone calls, none of them a prompt, and its variables are strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from services.calls.brief_payload import (
    EXTRA_BODY,
    FIRST_MESSAGE,
    LANGUAGE,
    PROMPT,
    RETELL_FIRST_MESSAGE,
    RETELL_LANGUAGE,
    TEXT_ONLY,
    as_string,
    at,
    is_empty,
    leaves,
    prompt_text,
    put,
)
from services.calls.model import Brief, TransportKind
from services.model import Provider

if TYPE_CHECKING:
    from services.agents import BundlePart

Use: TypeAlias = Literal["used", "ignored", "refused"]
Path: TypeAlias = tuple[str, ...]

PREVIEW = 240
CHARACTERS_A_TOKEN = 4

# Fields an ElevenLabs agent may permit a client to override (specification of 2026-08, SDK 2.78).
_OVERRIDABLE = {
    "agent": ("first_message", "language", "max_conversation_duration_message"),
    "agent.prompt": (
        "prompt", "llm", "reasoning_effort", "tool_ids", "tool_ids_strict", "native_mcp_server_ids",
        "knowledge_base",
    ),
    "tts": (
        "model_id", "voice_id", "supported_voices", "stability", "speed", "similarity_boost",
        "clone_strength", "pronunciation_dictionary_locators",
    ),
    "conversation": ("text_only", "max_duration_seconds"),
    "asr": ("keywords",),
    "turn": ("noisy_environment_message",),
    "turn.soft_timeout_config": ("message", "additional_soft_timeout_messages"),
}  # fmt: skip
_KNOWN = frozenset((*group.split("."), name) for group, names in _OVERRIDABLE.items() for name in names)

# Members of `agent_override` (Retell SDK 6.2).
_RETELL_ENGINE = (
    "backup_model", "begin_after_user_silence_ms", "kb_config", "knowledge_base_ids", "model_config",
    "model_temperature", "start_speaker", "tool_call_strict_mode",
)  # fmt: skip
_RETELL: Mapping[str, frozenset[str]] = {
    "retell_llm": frozenset(
        {*_RETELL_ENGINE, "begin_message", "model", "model_high_priority", "model_ultrafast", "s2s_model"}
    ),
    "conversation_flow": frozenset({*_RETELL_ENGINE, "model_choice"}),
}
_RETELL_AGENT_NEVER = frozenset(
    {"agent_id", "version", "is_published", "last_modification_timestamp", "channel"}
)
_RETELL_ENGINES = {"retell-llm": "retell_llm", "conversation-flow": "conversation_flow"}
_RETELL_BUILT_IN = re.compile(
    r"(current_|previous_|session_|call_|chat_|contact|user_number$|agent_number$|direction$|memory)"
)

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}")
_NAMED = re.compile(r'"dynamic_variable"\s*:\s*"([^"]+)"')
_UNNAMED = "nothing of the agent names it (it is sent all the same: the mirror may be old)"
_ENABLE = "permit it in the agent's security settings under overrides"


@dataclass(frozen=True, slots=True)
class BriefPart:
    """One part of a brief, and what the agent makes of it."""

    name: str
    size: int
    """Characters."""
    use: Use
    why: str
    preview: str
    """The beginning of its text."""
    key: Path = ()
    """Where it stands: `("system_prompt",)`, `("variable", name)`, `("override", *path)`, …"""

    @property
    def tokens(self) -> int:
        """A rough count, for judging the size of a prompt: four characters each."""
        return -(-self.size // CHARACTERS_A_TOKEN)


def check_brief(
    brief: Brief,
    provider: Provider | str | None,
    bundle_parts: Iterable[BundlePart],
    transport: TransportKind,
    *,
    context: bool | None = None,
) -> tuple[BriefPart, ...]:
    """Every part of the brief with its use. Without bundle parts the agent's settings are unknown, and what
    the vendor could take counts as used.

    A call whose brief has a `refused` part would be ended by the vendor. `context` says whether the transport
    takes contextual updates; by default what is known of the transport.
    """
    if context is None:
        context = _takes_context(provider, transport)
    if transport is TransportKind.MOCK or provider is None:
        return tuple(_mock(brief, context))
    documents = _Documents.read(bundle_parts)
    if provider == Provider.RETELL:
        return tuple(_retell(brief, documents, transport, context))
    return tuple(_elevenlabs(brief, documents, transport, context))


def usable(brief: Brief, parts: Iterable[BriefPart]) -> Brief:
    """The brief without the parts that are ignored: what goes on the wire is what was shown as used.

    Variables always go: one too many does no harm, one too few ends a call.
    """
    gone = {part.key for part in parts if part.use == "ignored"}
    overrides: dict[str, Any] = {}
    for path, value in leaves(brief.overrides):
        # A part may stand for a whole object.
        if not any(("override", *path[:length]) in gone for length in range(1, len(path) + 1)):
            put(overrides, path, value)
    return replace(
        brief,
        system_prompt="" if ("system_prompt",) in gone else brief.system_prompt,
        first_message="" if ("first_message",) in gone else brief.first_message,
        language="" if ("language",) in gone else brief.language,
        user_id="" if ("user_id",) in gone else brief.user_id,
        phases=tuple(phase for index, phase in enumerate(brief.phases) if ("phase", str(index)) not in gone),
        overrides=overrides,
    )


def placeholders(text: str) -> tuple[str, ...]:
    """Names of the dynamic variables a text uses, each once."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(text)))


def _part(name: str, value: object, use: Use, why: str, key: Path) -> BriefPart:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"
    return BriefPart(name, len(text), use, why, shown, key)


def _takes_context(provider: Provider | str | None, transport: TransportKind) -> bool:
    if transport is TransportKind.MOCK or provider is None:
        return True
    without = TransportKind.TEXT if provider == Provider.RETELL else TransportKind.PHONE
    return transport is not without


@dataclass(frozen=True, slots=True)
class _Documents:
    """The agent as it was mirrored."""

    agent: Mapping[str, Any]
    engine: Mapping[str, Any]
    text: str
    """Everything of it, for names that occur anywhere."""

    @classmethod
    def read(cls, parts: Iterable[BundlePart]) -> _Documents:
        found: dict[str, Mapping[str, Any]] = {}
        texts: list[str] = []
        for part in parts:
            texts.append(part.text)
            if part.kind in ("agent", "engine"):
                try:
                    document = json.loads(part.text)
                except ValueError:
                    continue
                if isinstance(document, dict):
                    found[part.kind] = document
        return cls(found.get("agent", {}), found.get("engine", {}), "\n".join(texts))

    @property
    def known(self) -> bool:
        return bool(self.agent)

    def names(self) -> frozenset[str]:
        """Variables that anything of the agent names."""
        return frozenset(_PLACEHOLDER.findall(self.text)) | frozenset(_NAMED.findall(self.text))


def _later_phases(brief: Brief, context: bool) -> list[BriefPart]:
    found = []
    for index, phase in enumerate(brief.phases):
        if phase.at_start:
            continue
        when = f"after turn {phase.after_turns}" if phase.after_turns > 0 else ""
        matched = f"when somebody says /{phase.when}/" if phase.when else ""
        told = " or ".join(filter(None, (when, matched)))
        why = f"told in the background {told}" if context else "this transport takes no contextual update"
        found.append(
            _part(
                f"phase {phase.name}",
                phase.text,
                "used" if context else "ignored",
                why,
                ("phase", str(index)),
            )
        )
    return found


def _first_phases(brief: Brief, use: Use, why: str) -> list[BriefPart]:
    return [
        _part(f"phase {phase.name}", phase.text, use, why, ("phase", str(index)))
        for index, phase in enumerate(brief.phases)
        if phase.at_start
    ]


# -- the mock -----------------------------------------------------------------------------------------


def _mock(brief: Brief, context: bool) -> list[BriefPart]:
    follows = "a mock follows its scenario"
    found: list[BriefPart] = []
    if brief.system_prompt:
        found.append(_part("system prompt", brief.system_prompt, "ignored", follows, ("system_prompt",)))
    found += _first_phases(brief, "ignored", follows)
    if brief.first_message:
        why = "the mock says it first"
        found.append(_part("first message", brief.first_message, "used", why, ("first_message",)))
    if brief.language:
        found.append(_part("language", brief.language, "ignored", follows, ("language",)))
    if brief.user_id:
        found.append(_part("user id", brief.user_id, "ignored", follows, ("user_id",)))
    found += _later_phases(brief, context)
    for name, value in brief.variables.items():
        why = "put where the scenario names it"
        found.append(_part(f"variable {name}", value, "used", why, ("variable", name)))
    found += [
        _part("override " + ".".join(path), value, "ignored", follows, ("override", *path))
        for path, value in leaves(brief.overrides)
    ]
    return found


# -- ElevenLabs ---------------------------------------------------------------------------------------


def _elevenlabs(
    brief: Brief, documents: _Documents, transport: TransportKind, context: bool
) -> list[BriefPart]:
    found: list[BriefPart] = []
    prompt = prompt_text(brief)
    if brief.system_prompt:
        use, why = _permission(documents, PROMPT)
        found.append(_part("system prompt", brief.system_prompt, use, why, ("system_prompt",)))
        found += _first_phases(brief, use, why if use == "refused" else "part of the system prompt")
    else:
        why = (
            "it belongs to the system prompt and the brief has none: give it after_turns: 1 to tell it later"
        )
        found += _first_phases(brief, "ignored", why)
    for name, value, path, key in (
        ("first message", brief.first_message, FIRST_MESSAGE, ("first_message",)),
        ("language", brief.language, LANGUAGE, ("language",)),
    ):
        if value:
            found.append(_part(name, value, *_permission(documents, path), key))
    if transport is TransportKind.TEXT:
        found.append(_text_only(documents))
    found += _later_phases(brief, context)
    if brief.user_id:
        found.append(_part("user id", brief.user_id, "used", "kept with the conversation", ("user_id",)))
    found += _elevenlabs_overrides(brief, documents, prompt, transport)
    found += _elevenlabs_variables(brief, documents, prompt)
    return found


def _permission(documents: _Documents, path: Path) -> tuple[Use, str]:
    if not documents.known:
        return "used", "the agent was never read, so it is not known whether it permits it: callboard sync"
    allowed = at(documents.agent, ("platform_settings", "overrides", "conversation_config_override"))
    for length in range(1, len(path) + 1):
        permitted = at(allowed, path[:length])
        if permitted is True:
            return "used", "the agent permits it"
    if path in _KNOWN or permitted is False:
        return "refused", f"the agent does not permit to override {'.'.join(path)}: {_ENABLE}"
    return "ignored", "ElevenLabs has no such override"


def _text_only(documents: _Documents) -> BriefPart:
    if at(documents.agent, ("conversation_config", *TEXT_ONLY)) is True:
        use, why = "used", "the agent is a text agent"
    else:
        use, why = _permission(documents, TEXT_ONLY)
    return BriefPart("text only", 0, "refused" if use == "refused" else "used", why, "", ("text_only",))


def _elevenlabs_overrides(
    brief: Brief, documents: _Documents, prompt: str, transport: TransportKind
) -> list[BriefPart]:
    own = {
        PROMPT: prompt,
        FIRST_MESSAGE: brief.first_message,
        LANGUAGE: brief.language,
        TEXT_ONLY: transport is TransportKind.TEXT,
    }
    found = []
    overrides = dict(brief.overrides)
    if EXTRA_BODY in overrides:
        body = overrides.pop(EXTRA_BODY)
        use: Use = "used"
        why = "the agent permits it"
        if is_empty(body):
            use, why = "ignored", "it is empty"
        elif (
            documents.known
            and at(documents.agent, ("platform_settings", "overrides", EXTRA_BODY)) is not True
        ):
            use, why = "refused", f"the agent does not permit {EXTRA_BODY}: {_ENABLE}"
        found.append(_part(EXTRA_BODY, body, use, why, ("override", EXTRA_BODY)))
    for path, value in leaves(overrides):
        if is_empty(value):
            use, why = "ignored", "it is empty"
        elif own.get(path):
            use, why = "ignored", "the brief's own field comes first"
        else:
            use, why = _permission(documents, path)
        found.append(_part("override " + ".".join(path), value, use, why, ("override", *path)))
    return found


def _elevenlabs_variables(brief: Brief, documents: _Documents, prompt: str) -> list[BriefPart]:
    settings = ("conversation_config", "agent")
    said = {
        "system prompt": prompt
        or _text(at(brief.overrides, PROMPT))
        or _text(at(documents.agent, (*settings, "prompt", "prompt"))),
        "first message": brief.first_message
        or _text(at(brief.overrides, FIRST_MESSAGE))
        or _text(at(documents.agent, (*settings, "first_message"))),
    }
    declared = at(documents.agent, (*settings, "dynamic_variables", "dynamic_variable_placeholders"))
    defaults = frozenset(declared) if isinstance(declared, Mapping) else frozenset()
    needed = frozenset(name for text in said.values() for name in placeholders(text))
    named = needed | defaults | documents.names()
    found = []
    for name, value in brief.variables.items():
        wanted = name in named or not documents.known
        why = "the agent names it" if name in named else "it is not known whether the agent names it"
        found.append(
            _part(
                f"variable {name}",
                value,
                "used" if wanted else "ignored",
                why if wanted else _UNNAMED,
                ("variable", name),
            )
        )
    for where, text in said.items():
        for name in placeholders(text):
            if name in brief.variables or name in defaults or name.startswith("system__"):
                continue
            if any(part.key == ("missing", name) for part in found):
                continue
            why = f"the {where} names {{{{{name}}}}} and nothing gives it"
            found.append(BriefPart(f"variable {name}", 0, "refused", why, "", ("missing", name)))
    return found


# -- Retell -------------------------------------------------------------------------------------------


def _retell(brief: Brief, documents: _Documents, transport: TransportKind, context: bool) -> list[BriefPart]:
    engine = at(documents.agent, ("response_engine", "type"))
    group = _RETELL_ENGINES.get(engine, "") if documents.known else "retell_llm"
    text = transport is TransportKind.TEXT
    no_override = "a text conversation at Retell takes no overrides"
    no_prompt = (
        "Retell lets no call replace a prompt: name a variable in the agent's prompt and give the text as it"
    )
    found: list[BriefPart] = []
    if brief.system_prompt:
        found.append(_part("system prompt", brief.system_prompt, "ignored", no_prompt, ("system_prompt",)))
    found += _first_phases(brief, "ignored", no_prompt)
    if brief.first_message:
        use, why = _retell_member(*RETELL_FIRST_MESSAGE, group)
        if text:
            use, why = "ignored", no_override
        found.append(_part("first message", brief.first_message, use, why, ("first_message",)))
    if brief.language:
        use, why = ("ignored", no_override) if text else ("used", "for this call")
        found.append(_part("language", brief.language, use, why, ("language",)))
    found += _later_phases(brief, context)
    if brief.user_id:
        why = "Retell knows no user id"
        found.append(_part("user id", brief.user_id, "ignored", why, ("user_id",)))
    for path, value in _retell_members(brief.overrides):
        use, why = _retell_member(path[0], path[1] if len(path) > 1 else "", group)
        if text:
            use, why = "ignored", no_override
        elif is_empty(value):
            use, why = "ignored", "it is empty"
        elif (path == RETELL_FIRST_MESSAGE and brief.first_message) or (
            path == RETELL_LANGUAGE and brief.language
        ):
            use, why = "ignored", "the brief's own field comes first"
        found.append(_part("override " + ".".join(path), value, use, why, ("override", *path)))
    found += _retell_variables(brief, documents)
    return found


def _retell_members(overrides: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    """Retell overrides whole members of the agent or its engine."""
    found: list[tuple[Path, Any]] = []
    for group, members in overrides.items():
        if isinstance(members, Mapping) and members:
            found += [((group, str(name)), value) for name, value in members.items()]
        else:
            found.append(((group,), members))
    return found


def _retell_member(group: str, name: str, engine: str) -> tuple[Use, str]:
    if group == "agent" and name:
        if name in _RETELL_AGENT_NEVER:
            return "ignored", f"Retell lets no call change {name}"
        return "used", "for this call"
    known = _RETELL.get(group)
    if known is None or not name:
        return "ignored", "Retell overrides agent, retell_llm and conversation_flow, by member"
    if group != engine:
        return "ignored", f"the agent is not driven by a {group}"
    if name not in known:
        return "ignored", f"Retell has no such override in {group}"
    return "used", "for this call"


def _retell_variables(brief: Brief, documents: _Documents) -> list[BriefPart]:
    declared = documents.engine.get("default_dynamic_variables")
    defaults = frozenset(declared) if isinstance(declared, Mapping) else frozenset()
    named = documents.names() | defaults
    found = []
    for name, value in brief.variables.items():
        wanted = name in named or not documents.known
        why = "the agent names it" if name in named else "it is not known whether the agent names it"
        if not isinstance(value, str):
            why += f"; sent as the text {as_string(value)!r}"
        found.append(
            _part(
                f"variable {name}",
                value if isinstance(value, str) else as_string(value),
                "used" if wanted else "ignored",
                why if wanted else _UNNAMED,
                ("variable", name),
            )
        )
    said = " ".join(
        _text(documents.engine.get(name)) for name in ("begin_message", "general_prompt", "global_prompt")
    )
    for name in placeholders(said):
        # A name that is a value elsewhere is one the agent finds out by itself during the call.
        own = f'"{name}"' in documents.text
        if name in brief.variables or name in defaults or own or _RETELL_BUILT_IN.match(name):
            continue
        why = f"nothing gives {{{{{name}}}}}: Retell leaves it as it is written"
        found.append(BriefPart(f"variable {name}", 0, "ignored", why, "", ("missing", name)))
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
