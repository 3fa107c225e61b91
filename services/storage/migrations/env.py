"""Alembic's entry point: runs on the connection, and in the transaction, that `upgrade` opened."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import services.storage.tables.partial  # noqa: F401  # fills the metadata, with all tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
context.run_migrations()
