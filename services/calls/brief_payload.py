"""What a brief becomes on the wire: ElevenLabs' initiation data, Retell's override and variables.

Shapes: `conversation_initiation_client_data` of ElevenLabs' conversation protocol, `agent_override` and
`retell_llm_dynamic_variables` of Retell's create-web-call and create-phone-call.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from services.calls.model import Brief, Value

PROMPT = ("agent", "prompt", "prompt")
FIRST_MESSAGE = ("agent", "first_message")
LANGUAGE = ("agent", "language")
TEXT_ONLY = ("conversation", "text_only")
EXTRA_BODY = "custom_llm_extra_body"
"""Travels beside the overrides, not in them; in a brief it stands among them."""

RETELL_FIRST_MESSAGE = ("retell_llm", "begin_message")
RETELL_LANGUAGE = ("agent", "language")


def prompt_text(brief: Brief) -> str:
    """The system prompt with the phases that are there from the start, each under its name.

    Empty without a system prompt: a phase alone must not replace what the agent knows.
    """
    base = brief.system_prompt.strip()
    if not base:
        return ""
    parts = [f"# {phase.name}\n{phase.text.strip()}" for phase in brief.phases if phase.at_start]
    return "\n\n".join([base, *parts])


def conversation_config(brief: Brief, *, text_only: bool = False) -> dict[str, Any]:
    """The members of ElevenLabs' `conversation_initiation_client_data`, only those that say something.

    `conversation_config_override`, `dynamic_variables`, `user_id`, `custom_llm_extra_body`. The brief's own
    fields win over the same path in its overrides.
    """
    override: dict[str, Any] = copy.deepcopy(dict(brief.overrides))
    extra = override.pop(EXTRA_BODY, None)
    for path, value in (
        (PROMPT, prompt_text(brief)),
        (FIRST_MESSAGE, brief.first_message),
        (LANGUAGE, brief.language),
        (TEXT_ONLY, text_only),
    ):
        if value:
            put(override, path, value)
    found = {
        "conversation_config_override": _pruned(override),
        "dynamic_variables": dict(brief.variables),
        "user_id": brief.user_id,
        EXTRA_BODY: extra,
    }
    return {name: value for name, value in found.items() if value}


def retell_override(brief: Brief) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Retell's `agent_override` (None when nothing is overridden) and its dynamic variables, all strings.

    Retell lets no call replace a prompt, so the system prompt is not in it.
    """
    override: dict[str, Any] = copy.deepcopy(dict(brief.overrides))
    if brief.first_message:
        put(override, RETELL_FIRST_MESSAGE, brief.first_message)
    if brief.language:
        put(override, RETELL_LANGUAGE, brief.language)
    variables = {name: as_string(value) for name, value in brief.variables.items()}
    return _pruned(override) or None, variables


def as_string(value: Value) -> str:
    """A variable as Retell takes it: `true`, `3`, `2.5`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def put(target: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set a value at a path of members, making the objects on the way."""
    for name in path[:-1]:
        inner = target.get(name)
        if not isinstance(inner, dict):
            inner = target[name] = {}
        target = inner
    target[path[-1]] = value


def at(source: object, path: tuple[str, ...]) -> Any:
    """The value at a path of members; None where there is none."""
    for name in path:
        if not isinstance(source, Mapping):
            return None
        source = source.get(name)
    return source


def leaves(source: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every value that is not an object with members, and its path; a list is a value."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in source.items():
        path = (*prefix, str(name))
        if isinstance(value, Mapping) and value:
            found += leaves(value, path)
        else:
            found.append((path, value))
    return found


def is_empty(value: object) -> bool:
    """Whether an override of this value changes nothing."""
    return value is None or value == "" or value == [] or value == {}


def _pruned(source: Mapping[str, Any]) -> dict[str, Any]:
    """Without values that change nothing."""
    found: dict[str, Any] = {}
    for name, value in source.items():
        kept = _pruned(value) if isinstance(value, Mapping) else value
        if not is_empty(kept):
            found[str(name)] = kept
    return found
