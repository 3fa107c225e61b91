"""Log files, rotated and redacted: the program's own, the sync log with the detail of every failure, and the
requests that the API answered."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from app.paths import ensure
from services.security import RedactingFilter

SYNC_LOG = "sync.log"
ACCESS_LOG = "access.log"
PROGRAM_LOG = "callboard.log"
LARGEST = 2_000_000
KEPT = 5


def set_up(folder: Path, level: str) -> None:
    """Send logging to files in `folder`; a folder that cannot be written means no log, never a failure.

    Nothing is ever logged to the terminal: it belongs to the screen, or to the command's output.
    """
    root = logging.getLogger()
    if any(isinstance(handler, RotatingFileHandler) for handler in root.handlers):
        return
    root.setLevel(level.upper())
    for name in ("httpx", "httpcore", "alembic", "apscheduler", "stamina", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        ensure(folder)
        root.addHandler(_handler(folder / PROGRAM_LOG))
        logging.getLogger("callboard.sync").addHandler(_handler(folder / SYNC_LOG))
        # Alone in its file: a scraper every second would push everything else out of the program's log.
        access = logging.getLogger("callboard.access")
        access.addHandler(_handler(folder / ACCESS_LOG))
        access.propagate = False
    except OSError:
        root.addHandler(logging.NullHandler())


class _LogFile(RotatingFileHandler):
    """A log file on a disk that may become full or read-only: which costs lines, never a word on screen."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


def _handler(path: Path) -> RotatingFileHandler:
    handler = _LogFile(path, maxBytes=LARGEST, backupCount=KEPT, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RedactingFilter())
    return handler
