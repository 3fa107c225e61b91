"""Building blocks of the contracts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.errors import Category

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
    "description": "ISO 8601, UTC, with milliseconds",
}


def one_of(values: Iterable[str]) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def object_of(members: dict[str, Schema], *, description: str = "") -> Schema:
    """An object that has all these members. Others are allowed: contracts grow."""
    schema: Schema = {"type": "object", "properties": members, "required": list(members)}
    return {**schema, "description": description} if description else schema


def list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


ERROR = object_of(
    {"category": one_of(Category), "message": TEXT, "advice": TEXT},
    description="what happened and why, and what to do about it",
)
