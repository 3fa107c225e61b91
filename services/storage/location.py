"""Where the database is: an SQLite file or a PostgreSQL server, from one URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.errors import UsageError


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """A database address, split into what the drivers need."""

    path: Path | None
    """The SQLite file; None for PostgreSQL."""
    dsn: str = ""
    """The libpq connection string; empty for SQLite. Holds the password: never show it."""

    def __repr__(self) -> str:
        return f"DatabaseLocation({self.label!r})"

    @classmethod
    def from_url(cls, url: str) -> DatabaseLocation:
        """Read `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user:password@host/name`.

        Raises UsageError for anything else, naming what is allowed but not the URL's password.
        """
        scheme, _, rest = url.partition("://")
        kind = scheme.split("+")[0]
        if kind == "sqlite" and rest.startswith("/") and len(rest) > 1:
            return cls(path=Path(unquote(rest[1:])).expanduser())
        if kind in ("postgresql", "postgres") and rest:
            return cls(path=None, dsn=f"postgresql://{rest}")
        raise UsageError(
            f"The database address starts with {scheme[:20]!r}, which is not known",
            advice="use sqlite:////absolute/path.db or postgresql://user:password@host/name",
        )

    @property
    def is_sqlite(self) -> bool:
        return self.path is not None

    @property
    def sqlalchemy_url(self) -> str:
        """The address in SQLAlchemy's spelling."""
        if self.path is not None:
            return f"sqlite:///{self.path}"
        return "postgresql+psycopg" + self.dsn.removeprefix("postgresql")

    @property
    def label(self) -> str:
        """The address for people, without a password."""
        if self.path is not None:
            return str(self.path)
        parts = urlsplit(self.dsn)
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{parts.hostname or 'localhost'}{port}{parts.path}"
