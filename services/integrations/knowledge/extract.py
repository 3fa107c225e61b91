"""Documents read: what kind a file is, and its text in sections with their headings. Blocking: use a thread.

What a file is, its bytes decide first, then its name, then what a server called it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from services.errors import ServiceError
from services.integrations.knowledge.chunking import Section
from services.integrations.knowledge.words import tidy
from services.text import clean_line

TEXT: Final = "text/plain"
MARKDOWN: Final = "text/markdown"
HTML: Final = "text/html"
PDF: Final = "application/pdf"

MOST_BYTES: Final = 50 * 1024 * 1024
MOST_TEXT: Final = 20_000_000
"""Characters of one document."""
LONGEST_HEADING: Final = 300
LONGEST_TITLE: Final = 200

_SUFFIXES: Final = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".mdown": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".pdf": PDF,
}
_FOREIGN: Final = (
    (b"PK\x03\x04", "a ZIP archive (Word, Excel and OpenDocument files are ones)"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"{\\rtf", "a rich text document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"RIFF", "a sound, a film or a picture"),
    (b"ID3", "a sound"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "a database"),
)
_HTML_START: Final = re.compile(
    rb"\s*(?:<!--.{0,4000}?-->\s*|<\?xml[^>]{0,200}\?>\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_META_CHARSET: Final = re.compile(
    rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]{2,40})", re.IGNORECASE
)
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
"""What Python knows as encodings of text and no document is written in."""
_HEADING: Final = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_UNDERLINE: Final = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_FRONT_TITLE: Final = re.compile(r"title:[ \t]*(.+)")


@dataclass(frozen=True, slots=True)
class Document:
    """What was read. `title` is the document's own, or made from its name."""

    title: str
    media_type: str
    sections: tuple[Section, ...]

    @property
    def text(self) -> str:
        """Everything it says: what decides whether it changed."""
        return "\n\n".join(f"{section.heading}\n{section.text}" for section in self.sections)


def read_document(
    data: bytes, name: str, *, declared: str = "", stopped: Callable[[], bool] = lambda: False
) -> Document:
    """The text of a file. `declared`: the Content-Type a server gave it, empty for none.

    `stopped` is asked now and then whether to give up. Raises ServiceError for what cannot be read, is empty
    or too large.
    """
    shown = clean_line(name)[:LONGEST_TITLE] or "The document"
    if len(data) > MOST_BYTES:
        raise ServiceError(
            f"{shown} has {len(data) // 1048576} MB; {MOST_BYTES // 1048576} MB is the most that is read",
            advice="Split it, or add only the part that matters",
            code="too_large",
        )
    media = media_type(data, shown, declared)
    if media == PDF:
        from services.integrations.knowledge.pdf import read_pdf

        document = read_pdf(data, shown, stopped)
    elif media == HTML:
        from services.integrations.knowledge.html import read_html

        document = read_html(decode(data, shown, declared, html=True), shown)
    else:
        text = tidy(decode(data, shown, declared))
        document = read_markdown(text, shown) if media == MARKDOWN else read_text(text, shown)
    sections = tuple(section for section in document.sections if section.text.strip())
    if not sections:
        raise ServiceError(f"{shown} holds no text", advice="Check the file", code="no_text")
    if sum(len(section.text) for section in sections) > MOST_TEXT:
        raise ServiceError(
            f"{shown} has more than {MOST_TEXT // 1_000_000} million characters of text",
            advice="Split it, or add only the part that matters",
            code="too_large",
        )
    return Document(document.title[:LONGEST_TITLE] or shown, document.media_type, sections)


def media_type(data: bytes, name: str, declared: str = "") -> str:
    """One of the four kinds. Raises ServiceError for anything else, saying what it seems to be."""
    if b"%PDF-" in data[:1024]:
        return PDF
    for start, what in _FOREIGN:
        if data.startswith(start):
            raise _unsupported(name, what)
    if _HTML_START.match(data[:8192].removeprefix(codecs.BOM_UTF8)):
        return HTML
    said = declared.partition(";")[0].strip().lower()
    kind = _SUFFIXES.get(PurePosixPath(name.lower()).suffix, "")
    if kind == PDF or said == PDF:
        raise ServiceError(
            f"{name} is called a PDF and is none", advice="Check that the file is whole", code="bad_document"
        )
    if said in ("text/html", "application/xhtml+xml") or (kind == HTML and not said.startswith("text/")):
        return HTML
    if said.startswith(("image/", "audio/", "video/", "font/")):
        raise _unsupported(name, f"of the type {said}")
    return MARKDOWN if MARKDOWN in (kind, said) or said == "text/x-markdown" else TEXT


def decode(data: bytes, name: str, declared: str = "", *, html: bool = False) -> str:
    """Bytes as text: by byte order mark, then by what the server or the page says, then UTF-8, then Windows.

    Raises ServiceError for what is no text.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _decoded(data, encoding, name)
    said = re.search(r"charset\s*=\s*[\"']?([\w.:-]{2,40})", declared, re.IGNORECASE)
    names = [said[1]] if said else []
    if html and (meta := _META_CHARSET.search(data[:4096])):
        names.append(meta[1].decode("ascii"))
    for encoding in [*names, "utf-8"]:
        try:
            if codecs.lookup(encoding).name.replace("-", "_") not in _NO_CHARSETS:
                return _checked(data.decode(encoding), name)
        except (LookupError, UnicodeError):
            continue
    return _checked(data.decode("cp1252", "replace"), name)


def _decoded(data: bytes, encoding: str, name: str) -> str:
    try:
        return _checked(data.decode(encoding), name)
    except UnicodeError:
        raise _no_text(name) from None


def _checked(text: str, name: str) -> str:
    """Control characters are how binary files give themselves away."""
    sample = text[:65536]
    odd = sum(1 for character in sample if (character < " " and character not in "\t\n\r\f\v\x1b"))
    if "\x00" in sample or odd * 50 > len(sample):
        raise _no_text(name)
    return text


def _no_text(name: str) -> ServiceError:
    return ServiceError(
        f"{name} is not a text file",
        advice="Text, Markdown, HTML and PDF can be read; save it as one of these, text as UTF-8",
        code="not_text",
    )


def _unsupported(name: str, what: str) -> ServiceError:
    return ServiceError(
        f"{name} is {what}, which cannot be read",
        advice="Text, Markdown, HTML and PDF can be; export it as one of these",
        code="unsupported_media",
    )


def read_text(text: str, name: str) -> Document:
    """Plain text: one section without a heading."""
    return Document(name, TEXT, (Section("", _lines(text)),))


def read_markdown(text: str, name: str) -> Document:
    """Markdown: a section for each heading, below the headings above it. Code blocks hold no headings."""
    text, title = _front_matter(_lines(text))
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    lines: list[str] = []
    fence = ""

    def close() -> None:
        sections.append(Section(heading_path([words for _, words in path]), "\n".join(lines).strip("\n")))
        lines.clear()

    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
            lines.append(line)
            continue
        if mark:
            fence = mark[1]
            lines.append(line)
            continue
        level, words = _heading(line, lines)
        if not level:
            lines.append(line)
            continue
        close()
        path = [*(above for above in path if above[0] < level), (level, words)]
        if not title and level == 1:
            title = words
    close()
    return Document(clean_line(title) or name, MARKDOWN, tuple(sections))


def _heading(line: str, before: list[str]) -> tuple[int, str]:
    """The level (0 for none) and the words of a heading; one that is underlined takes its line back."""
    if found := _HEADING.fullmatch(line):
        return len(found[1]), clean_line(found[2] or "")
    under = _UNDERLINE.fullmatch(line)
    if (
        under
        and before
        and before[-1].strip()
        and not before[-1].lstrip().startswith(("-", "|", ">", "*", "+"))
    ):
        above = before[-2].strip() if len(before) > 1 else ""
        if not above:  # a single line; below a paragraph it is a rule
            return 1 if under[1][0] == "=" else 2, clean_line(before.pop())
    return 0, ""


def _front_matter(text: str) -> tuple[str, str]:
    """The text without its YAML head, and the title that stands there."""
    if not text.startswith("---\n"):
        return text, ""
    end = text.find("\n---\n", 3)
    if end < 0 or end > 20_000:
        return text, ""
    found = _FRONT_TITLE.search(text[4:end])
    return text[end + 5 :], clean_line(found[1]).strip("\"'") if found else ""


def heading_path(headings: list[str]) -> str:
    """All headings above a text in one line, the nearest last."""
    return " > ".join(heading for heading in headings if heading)[-LONGEST_HEADING:]


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
