"""The contracts of what `callboard serve` prints about its HTTP API."""

from __future__ import annotations

from app.schemas.shapes import TEXT, Schema, object_of

SUMMARIES: dict[str, str] = {"api-token": "callboard serve --new-token --json"}
SCHEMAS: dict[str, Schema] = {"api-token": object_of({"token": TEXT})}
