"""PDF files: their text page by page. Blocking: use a thread."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Final

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError

from services.errors import ServiceError
from services.integrations.knowledge.chunking import Section
from services.integrations.knowledge.extract import MOST_TEXT, PDF, Document
from services.integrations.knowledge.words import tidy
from services.text import clean_line

MOST_PAGES: Final = 5_000

# It reports every oddity of a file; what matters is in our own messages.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def read_pdf(data: bytes, name: str, stopped: Callable[[], bool]) -> Document:
    """A section for each page, `Page 3` as its heading. Raises ServiceError for what cannot be read."""
    try:
        return _read(data, name, stopped)
    except ServiceError:
        raise
    except (FileNotDecryptedError, DependencyError):
        raise _locked(name) from None
    except MemoryError:
        raise _damaged(name, "its content unpacks to more than fits into memory") from None
    except RecursionError:
        raise _damaged(name, "its parts are nested without end") from None
    except Exception:
        # A damaged file makes the parser fail in any way it likes; its words mean nothing to an operator.
        raise _damaged(name, "its structure cannot be followed") from None


def _read(data: bytes, name: str, stopped: Callable[[], bool]) -> Document:
    reader = PdfReader(io.BytesIO(data), strict=False)
    # Many files are encrypted with an empty password, only to carry restrictions.
    if reader.is_encrypted and not reader.decrypt(""):
        raise _locked(name)
    pages = len(reader.pages)
    if pages > MOST_PAGES:
        raise ServiceError(
            f"{name} has {pages} pages; {MOST_PAGES} is the most that is read",
            advice="Split it, or add only the part that matters",
            code="too_large",
        )
    sections: list[Section] = []
    size = 0
    for number in range(pages):
        if stopped():
            raise ServiceError("It was cancelled", code="cancelled")
        text = tidy(reader.pages[number].extract_text() or "")
        size += len(text)
        sections.append(Section(f"Page {number + 1}", text))
        if size > MOST_TEXT:
            break
    if pages and not any(section.text.strip() for section in sections):
        raise ServiceError(
            f"{name} has {pages} pages and no text: it is probably a scan",
            advice="Run it through text recognition (OCR) first, then add it again",
            code="no_text",
        )
    return Document(_title(reader) or name, PDF, tuple(sections))


def _title(reader: PdfReader) -> str:
    try:
        title = reader.metadata.title if reader.metadata else ""
    except Exception:
        return ""
    return clean_line(title) if isinstance(title, str) else ""


def _locked(name: str) -> ServiceError:
    return ServiceError(
        f"{name} is protected by a password",
        advice="Save a copy without the password, then add that",
        code="encrypted",
    )


def _damaged(name: str, why: str) -> ServiceError:
    return ServiceError(
        f"{name} is damaged: {why}",
        advice="Open it in a reader and print it to a new PDF, then add that",
        code="bad_document",
    )
