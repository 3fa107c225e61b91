"""Indexes over a part of the rows. Only the migrations and what compares the schema with them need these.

They are not declared with their tables because SQLAlchemy imports all it has for PostgreSQL, six drivers'
dialects included, to understand `postgresql_where`: 2.6 MB that no program on SQLite needs.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, text

from services.storage.tables.health import HealthIncident
from services.storage.tables.integrations import Effect, Integration


def _unique(name: str, *columns: Any, where: str) -> Index:
    """A unique index, which belongs to its columns' table from then on."""
    condition = text(where)
    return Index(name, *columns, unique=True, sqlite_where=condition, postgresql_where=condition)


# A check has one open incident at a time, whatever two processes believe.
_unique("ix_health_incident_open", HealthIncident.check_id, where="ended_at IS NULL")

# Where a unique constraint holds nothing back: for it, no NULL equals another.
_unique("ix_integration_shared_name", Integration.kind, Integration.name, where="company_id IS NULL")
_unique("ix_effect_shared_key", Effect.key, where="company_id IS NULL")
