"""What an ElevenLabs agent permits a client, read from the agent's own configuration.

From the vendor's specification: an override must be switched on, field by field, in
`platform_settings.overrides.conversation_config_override`, or the conversation is closed; empty overrides
are safe; a variable that a text uses must have a value or a placeholder. Assumed: fields that cannot be
overridden at all are ignored (the vendor's own Python client sends `text_only` one level too high).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.simulator.conversation import variables_in
from services.simulator.elevenlabs_frames import ALWAYS
from services.simulator.wire import Json

OVERRIDABLE = frozenset(
    {
        "agent.first_message", "agent.language", "agent.max_conversation_duration_message",
        "agent.prompt.prompt", "agent.prompt.llm", "agent.prompt.reasoning_effort", "agent.prompt.tool_ids",
        "agent.prompt.native_mcp_server_ids", "agent.prompt.knowledge_base", "tts.model_id", "tts.voice_id",
        "tts.stability", "tts.speed", "tts.similarity_boost", "tts.pronunciation_dictionary_locators",
        "conversation.text_only", "conversation.max_duration_seconds", "asr.keywords",
    }
)  # fmt: skip

_GIVEN_BY_VENDOR = "system__"


class Refusal(Exception):
    """The conversation may not begin. `code` is the close code, `error_type` the error frame's."""

    def __init__(self, error_type: str, message: str, code: int = 1008) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Terms:
    """How this conversation goes, after the client's overrides."""

    first_message: str
    """Empty: the agent waits for the user."""
    overridden: frozenset[str]
    """Dotted paths of what the client did override."""
    language: str
    llm: str
    input_format: str
    output_format: str
    events: frozenset[str]
    text_only: bool
    most_seconds: int
    greeting_interruptible: bool
    variables: dict[str, Any]
    client_tools: frozenset[str]

    def sends(self, kind: str) -> bool:
        return kind in self.events or kind in ALWAYS


def requires_auth(agent: Json) -> bool:
    """Whether only a signed URL or a token opens a conversation."""
    return bool(_at(agent, "platform_settings", "auth", "enable_auth"))


def client_tools(agent: Json) -> frozenset[str]:
    """Names of the tools that the agent runs at the client."""
    tools = _at(agent, "conversation_config", "agent", "prompt", "tools") or []
    return frozenset(str(tool.get("name")) for tool in tools if tool.get("type") == "client")


def language(agent: Json) -> str:
    return str(_at(agent, "conversation_config", "agent", "language") or "en")


def admit(agent: Json, initiation: Json) -> Terms:
    """What `conversation_initiation_client_data` makes of the agent. Raises `Refusal`."""
    config = agent.get("conversation_config") or {}
    override = initiation.get("conversation_config_override") or {}
    allowed = _at(agent, "platform_settings", "overrides", "conversation_config_override") or {}
    given = dict(_leaves(override))
    for path in sorted(OVERRIDABLE & given.keys()):
        if _at(allowed, *path.split(".")) is not True:
            name = path.rpartition(".")[2]
            raise Refusal("override_error", f"Override for field '{name}' is not allowed by config.")
    extra = initiation.get("custom_llm_extra_body")
    if extra and not _at(agent, "platform_settings", "overrides", "custom_llm_extra_body"):
        message = "Override for field 'custom_llm_extra_body' is not allowed by config."
        raise Refusal("override_error", message)

    def value(path: str, default: Any) -> Any:
        found = given.get(path) if path in given else _at(config, *path.split("."))
        return default if found is None else found

    first = str(value("agent.first_message", ""))
    placeholders = _at(config, "agent", "dynamic_variables", "dynamic_variable_placeholders") or {}
    variables = {**placeholders, **(initiation.get("dynamic_variables") or {})}
    for where, text in (("first message", first), ("prompt", str(value("agent.prompt.prompt", "")))):
        missing = [
            name
            for name in variables_in(text)
            if name not in variables and not name.startswith(_GIVEN_BY_VENDOR)
        ]
        if missing:
            message = f"Missing required dynamic variables in {where}: {', '.join(missing)}"
            raise Refusal("missing_dynamic_variable", message)
    events = value("conversation.client_events", [])
    return Terms(
        first_message=first,
        overridden=OVERRIDABLE & given.keys(),
        language=str(value("agent.language", "en")),
        llm=str(value("agent.prompt.llm", "")),
        input_format=str(_at(config, "asr", "user_input_audio_format") or "pcm_16000"),
        output_format=str(_at(config, "tts", "agent_output_audio_format") or "pcm_16000"),
        events=frozenset(map(str, events)),
        text_only=bool(value("conversation.text_only", False)),
        most_seconds=_seconds(value("conversation.max_duration_seconds", 600)),
        greeting_interruptible=not _at(config, "agent", "disable_first_message_interruptions"),
        variables=variables,
        client_tools=client_tools(agent),
    )


def _at(data: Any, *path: str) -> Any:
    """The value at a path of members, or None."""
    for name in path:
        if not isinstance(data, dict):
            return None
        data = data.get(name)
    return data


def _leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is set, with its dotted path; a list is a value."""
    for name, value in data.items() if isinstance(data, dict) else ():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        elif value not in (None, "", []):
            yield path, value


def _seconds(value: object) -> int:
    """A duration; one that is no number counts as the vendor's default."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 600
