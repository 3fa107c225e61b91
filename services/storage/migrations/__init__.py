"""Schema versions, run by Alembic without an ini file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database to `revision`. Blocking.

    Two processes may start at once: the first takes the write lock, the second finds the work done.
    """
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with engine.connect().execution_options(callboard_write=True) as connection:
        # Before Alembic looks: else it commits after each version, and another process comes in between.
        connection.begin()
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(4276163)"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
