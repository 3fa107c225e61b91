"""The database: tables, migrations, transactions, and a quick reader for what the first frame shows.

`Reader` needs only the standard library's DB-API (or psycopg) so that a screen can be drawn before
SQLAlchemy is imported; `Database` and the tables load SQLModel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.storage.location import DatabaseLocation
from services.storage.reader import Reader, SchemaState

if TYPE_CHECKING:
    from services.storage.database import Database

__all__ = ["Database", "DatabaseLocation", "Reader", "SchemaState"]


def __getattr__(name: str) -> Any:
    if name == "Database":
        from services.storage.database import Database

        return Database
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
