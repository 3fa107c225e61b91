"""Where documents come from: files, uploads, pages of the web."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.integrations.knowledge.extract import MOST_BYTES
from services.integrations.knowledge.model import SourceKind
from services.resilience.retry import Sleep
from services.text import clean_line


@dataclass(frozen=True, slots=True)
class Original:
    """A document as it came, before anything was read of it. `uri` names it within its company."""

    kind: SourceKind
    uri: str
    name: str
    data: bytes
    media_type: str = ""
    """What whoever gave it called it; empty for nothing."""
    title: str = ""


async def from_file(file: Path | str) -> Original:
    """A file of this machine by its path, or by the address it was stored under. Raises UsageError."""
    path = Path(os.fsdecode(unquote_to_bytes(urlsplit(file).path))) if isinstance(file, str) else file
    data, address = await asyncio.to_thread(_file, path)
    return Original(SourceKind.FILE, address, path.name, data)


def from_upload(name: str, data: bytes) -> Original:
    """Bytes that somebody sent."""
    shown = clean_line(name)
    if not shown:
        raise UsageError("The document needs a name", advice="Give one with --title", code="no_title")
    return Original(SourceKind.TEXT, f"upload:{shown}", shown, data)


async def from_url(url: str, *, clock: Clock, user_agent: str, private: bool, sleep: Sleep) -> Original:
    """A page of the web. Its address is the one that was asked for, wherever that redirects to."""
    from services.integrations.knowledge.fetch import FetchOptions, checked_url, fetch

    address = checked_url(url)
    page = await fetch(address, FetchOptions(clock, user_agent, private, sleep))
    return Original(SourceKind.URL, address, page.name, page.data, page.media_type)


def _file(path: Path) -> tuple[bytes, str]:
    name = clean_line(str(path))
    try:
        where = path.expanduser().resolve()
        facts = where.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise UsageError(f"{name} is a folder", advice="Name the files in it", code="not_a_file")
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{name} is not a file", advice="Pipe it in with - instead", code="not_a_file")
        if facts.st_size > MOST_BYTES:
            raise ServiceError(
                f"{name} has {facts.st_size >> 20} MB; {MOST_BYTES >> 20} MB is the most that is read",
                advice="Split it, or add only the part that matters",
                code="too_large",
            )
        return where.read_bytes(), where.as_uri()
    except FileNotFoundError:
        raise UsageError(f"There is no file {name}", advice="Check the path", code="no_file") from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "the path leads nowhere"
        raise UsageError(
            f"{name} cannot be read: {why}", advice="Check the path and its permissions", code="no_file"
        ) from None
