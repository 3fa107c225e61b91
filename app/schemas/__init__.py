"""The contracts of `--json`: JSON Schemas (2020-12) as data, by kind; one module for each area.

Adding a member keeps a contract's number; taking one away or changing its meaning raises it.
"""

from __future__ import annotations

from app.schemas import api, core, health, integrations, knowledge, messages
from app.schemas.shapes import Schema

_AREAS = (core, api, knowledge, messages, health, integrations)

SUMMARIES: dict[str, str] = {kind: text for area in _AREAS for kind, text in area.SUMMARIES.items()}
"""Which command prints each kind."""

SCHEMAS: dict[str, Schema] = {kind: shape for area in _AREAS for kind, shape in area.SCHEMAS.items()}


def document(kind: str) -> Schema:
    """The whole schema of one kind, its version among the required members. Raises KeyError."""
    schema = SCHEMAS[kind]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"callboard.{kind}/1",
        "description": f"printed by: {SUMMARIES[kind]}",
        "type": "object",
        "properties": {"schema": {"const": f"callboard.{kind}/1"}, **schema["properties"]},
        "required": ["schema", *schema["required"]],
    }
