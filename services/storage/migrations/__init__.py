"""Schema versions, run by Alembic without an ini file."""

from __future__ import annotations

from pathlib import Path

from services.storage.location import DatabaseLocation


def upgrade(where: DatabaseLocation, revision: str = "head") -> None:
    """Bring the database to `revision`. Blocking.

    Two processes may start at once: the first takes the write lock, the second finds the work done.
    """
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    from services.storage.database import make_engine

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    engine = make_engine(where)
    try:
        with engine.connect().execution_options(callboard_write=True) as connection:
            if not where.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(4276163)"))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()
    finally:
        engine.dispose()
