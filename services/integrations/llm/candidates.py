"""The agents a request may go to, as the mirror knows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlmodel import Session, col, select

from services.integrations.llm.model import Candidate
from services.storage.tables import Agent, Bundle, Connection
from services.text import clean, clean_line

MOST_AGENTS: Final = 200
"""Agents that are offered at most, the longest known first."""
_LONGEST_PURPOSE: Final = 600
_LONGEST_FUNCTIONS: Final = 12


def candidates_of(session: Session, company_id: int) -> list[Candidate]:
    """The company's agents that are not gone, by name. Ids are short: `a17` is the mirror's row 17."""
    query = (
        select(Agent, Bundle.content)
        .join(Connection, col(Connection.id) == col(Agent.connection_id))
        .join(Bundle, col(Bundle.id) == col(Agent.remote_bundle_id), isouter=True)
        .where(Connection.company_id == company_id, col(Agent.gone_at).is_(None))
        .order_by(col(Agent.id))
        .limit(MOST_AGENTS)
    )
    found = [_candidate(agent, content) for agent, content in session.execute(query)]
    return sorted(found, key=lambda candidate: (candidate.name.casefold(), candidate.agent_row))


def _candidate(agent: Agent, content: str | None) -> Candidate:
    documents = _documents(content or "[]")
    return Candidate(
        id=f"a{agent.id}",
        agent_row=agent.id or 0,
        agent_id=agent.remote_id,
        name=clean_line(agent.name) or agent.remote_id,
        purpose=_purpose(documents),
        language=clean_line(agent.language),
        functions=_functions(documents),
    )


def _documents(content: str) -> dict[str, list[Any]]:
    """The bundle's parts by kind; what cannot be read is left out."""
    found: dict[str, list[Any]] = {}
    for part in json.loads(content):
        try:
            found.setdefault(part["kind"], []).append(json.loads(part["text"]))
        except (ValueError, RecursionError):
            continue
    return found


def _purpose(documents: Mapping[str, list[Any]]) -> str:
    """The beginning of the prompt: ElevenLabs' in the agent, Retell's in its LLM or conversation flow."""
    agent = next(iter(documents.get("agent", [])), None)
    engine = next(iter(documents.get("engine", [])), None)
    texts = (
        _at(agent, "conversation_config", "agent", "prompt", "prompt"),
        _at(engine, "general_prompt"),
        _at(engine, "global_prompt"),
        _at(agent, "conversation_config", "agent", "first_message"),
        _at(engine, "begin_message"),
    )
    text = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    return clean_line(clean(text[: 4 * _LONGEST_PURPOSE]))[:_LONGEST_PURPOSE]


def _functions(documents: Mapping[str, list[Any]]) -> tuple[str, ...]:
    """Names of what it can do besides talking."""
    agent = next(iter(documents.get("agent", [])), None)
    engine = next(iter(documents.get("engine", [])), None)
    named: list[Any] = [
        _at(tool, "tool_config", "name") or _at(tool, "name") for tool in documents.get("tool", [])
    ]
    for tools in (
        _at(engine, "general_tools"),
        _at(engine, "tools"),
        _at(agent, "conversation_config", "agent", "prompt", "tools"),
    ):
        named += [_at(tool, "name") for tool in tools] if isinstance(tools, list) else []
    names = [clean_line(name) for name in named if isinstance(name, str)]
    return tuple(dict.fromkeys(name for name in names if name))[:_LONGEST_FUNCTIONS]


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
