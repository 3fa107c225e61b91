"""What the database's own errors mean to an operator."""

from __future__ import annotations

import os

from services.errors import Category, ServiceError
from services.storage.location import DatabaseLocation


def explain(error: Exception, where: DatabaseLocation) -> Exception:
    """The driver's error as a ServiceError, cause in words and advice; any other exception unchanged."""
    original = getattr(error, "orig", None) or error
    source = type(original).__module__.partition(".")[0]
    if not isinstance(original, OSError) and source not in (
        "sqlite3",
        "psycopg",
        "psycopg_pool",
        "sqlalchemy",
    ):
        return error
    text = str(original).lower()
    place = where.label
    if "disk is full" in text or "no space left" in text or "disk full" in text:
        return ServiceError(
            f"The disk that holds {place} is full; what was being written is not stored",
            category=Category.TRANSIENT,
            advice="free some space, then sync again: nothing older was lost",
            code="disk_full",
        )
    forbidden = ("readonly", "read-only", "permission denied", "attempt to write")
    if any(word in text for word in forbidden) or ("unable to open" in text and on_read_only_disk(where)):
        return ServiceError(
            f"{place} cannot be written: the file or its disk is read-only",
            advice="give your user write access to the file and its folder, or set CALLBOARD_HOME elsewhere",
            code="read_only",
        )
    if "disk i/o error" in text:
        return ServiceError(
            f"the disk that holds {place} is full or fails; it could not be used",
            category=Category.TRANSIENT,
            advice="Free some space and try again; with enough space, look for disk errors in the system log",
            code="disk_failed",
        )
    if "unable to open" in text:
        return ServiceError(
            f"{place} cannot be opened",
            advice="check that the folder exists and that your user may write there",
            code="cannot_open",
        )
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return ServiceError(
            f"{place} is damaged or is not a database",
            advice="move the file away and start again: a sync fills a new one from the vendors",
            code="corrupt",
        )
    if "locked" in text or "busy" in text:
        return ServiceError(
            f"{place} was locked by another program for too long",
            category=Category.TRANSIENT,
            advice="close other programs that hold the file, then try again",
            code="locked",
        )
    if "password authentication failed" in text or "no password supplied" in text or "role" in text:
        return ServiceError(
            f"{place} refused the user or the password",
            category=Category.AUTHENTICATION,
            advice="correct CALLBOARD_DATABASE_URL (or database_url in config.toml)",
            code="database_credentials",
        )
    if not where.is_sqlite and "database" in text and "does not exist" in text:
        return ServiceError(
            f"The server has no database of that name: {place}",
            advice="Create it with createdb, or correct database_url",
            code="no_database",
        )
    if not where.is_sqlite and type(original).__name__ in ("OperationalError", "ConnectionTimeout"):
        return ServiceError(
            f"{place} cannot be reached: {(str(original).strip() or 'no answer').splitlines()[0]}",
            category=Category.TRANSIENT,
            advice="check that the server runs and that the address in database_url is right",
            code="database_unreachable",
        )
    first_line = (str(original).strip().splitlines() or [type(original).__name__])[0]
    return ServiceError(
        f"The database {place} answered: {first_line}",
        advice="run callboard doctor; it checks the database and says what to do",
        code="database",
    )


def on_read_only_disk(where: DatabaseLocation) -> bool:
    """Whether there is an SQLite file in a folder that cannot be written, by root neither."""
    file = where.path
    return file is not None and file.exists() and not os.access(file.parent, os.W_OK)
