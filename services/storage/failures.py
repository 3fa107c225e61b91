"""What the database's own errors mean to an operator."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from services.errors import Category, ServiceError
from services.storage.location import DatabaseLocation

_PREFIX = re.compile(r".*\bfailed: (?:FATAL:\s*)?(?=\S)")
"""What PostgreSQL's client says before the reason: where it wanted to connect, which is told anyway."""
_DRIVERS = ("sqlite3", "psycopg", "psycopg_pool", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class _Meaning:
    """One kind of failure: the words drivers use for it, and what to say. `{place}` is the database."""

    code: str
    words: tuple[str, ...]
    message: str
    advice: str
    category: Category = Category.PERMANENT


# The first whose words occur in the driver's text decides, so the order counts.
_MEANINGS = (
    _Meaning(
        "disk_full",
        ("disk is full", "no space left", "disk full"),
        "The disk that holds {place} is full; what was being written is not stored",
        "Free some space, then sync again: nothing older was lost",
        Category.TRANSIENT,
    ),
    _Meaning(
        "read_only",
        ("readonly", "read-only", "permission denied", "attempt to write"),
        "{place} cannot be written: the file or its disk is read-only",
        "Give your user write access to the file and its folder, or set CALLBOARD_HOME elsewhere",
    ),
    _Meaning(
        "disk_failed",
        ("disk i/o error",),
        "The disk that holds {place} is full or fails; it could not be used",
        "Free some space and try again; with enough space, look for disk errors in the system log",
        Category.TRANSIENT,
    ),
    _Meaning(
        "cannot_open",
        ("unable to open",),
        "{place} cannot be opened",
        "Check that the folder exists and that your user may write there",
    ),
    _Meaning(
        "corrupt",
        ("malformed", "not a database", "corrupt"),
        "{place} is damaged or is not a database",
        "Move the file away and start again: a sync fills a new one from the vendors",
    ),
    _Meaning(
        "locked",
        ("locked", "busy"),
        "{place} was locked by another program for too long",
        "Close other programs that hold the file, then try again",
        Category.TRANSIENT,
    ),
    _Meaning(
        "database_credentials",
        ("password authentication failed", "no password supplied", 'role "'),
        "{place} refused the user or the password",
        "Correct CALLBOARD_DATABASE_URL (or database_url in config.toml)",
        Category.AUTHENTICATION,
    ),
)
_BY_CODE = {meaning.code: meaning for meaning in _MEANINGS}
_NO_DATABASE = _Meaning(
    "no_database",
    (),
    "The server has no database of that name: {place}",
    "Create it with createdb, or correct database_url",
)
_UNREACHABLE = _Meaning(
    "database_unreachable",
    (),
    "{place} cannot be reached: {said}",
    "Check that the server runs and that the address in database_url is right",
    Category.TRANSIENT,
)
_OTHER = _Meaning(
    "database",
    (),
    "The database {place} answered: {said}",
    "run callboard doctor; it checks the database and says what to do",
)


def explain(error: Exception, where: DatabaseLocation) -> Exception:
    """The driver's error as a ServiceError, cause in words and advice; any other exception unchanged."""
    original = getattr(error, "orig", None) or error
    if not isinstance(original, OSError) and type(original).__module__.partition(".")[0] not in _DRIVERS:
        return error
    meaning = _meaning(original, where)
    said = _PREFIX.sub("", (str(original).strip().splitlines() or ["no answer"])[0])
    return ServiceError(
        meaning.message.format(place=where.label, said=said),
        category=meaning.category,
        advice=meaning.advice,
        code=meaning.code,
    )


def _meaning(original: BaseException, where: DatabaseLocation) -> _Meaning:
    text = str(original).lower()
    for meaning in _MEANINGS:
        if any(word in text for word in meaning.words):
            if meaning.code == "cannot_open" and on_read_only_disk(where):
                return _BY_CODE["read_only"]
            return meaning
    if not where.is_sqlite:
        if "database" in text and "does not exist" in text:
            return _NO_DATABASE
        if type(original).__name__ in ("OperationalError", "ConnectionTimeout"):
            return _UNREACHABLE
    return _OTHER


def on_read_only_disk(where: DatabaseLocation) -> bool:
    """Whether there is an SQLite file in a folder that cannot be written, by root neither."""
    file = where.path
    return file is not None and file.exists() and not os.access(file.parent, os.W_OK)
