"""Web pages: what a reader reads of them, in sections below their headings. Blocking: use a thread."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from selectolax.lexbor import LexborHTMLParser

from services.errors import ServiceError
from services.integrations.knowledge.chunking import Section
from services.integrations.knowledge.extract import HTML, Document, heading_path
from services.integrations.knowledge.words import tidy
from services.text import clean_line

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

DEEPEST: Final = 512
"""Levels of nesting; browsers stop there too, and parsers take quadratic time beyond."""
MOST_ELEMENTS: Final = 500_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER: Final = _words(
    "script style noscript template svg canvas iframe object audio video select textarea button head "
    "-comment math dialog "
)
_AROUND: Final = _words("nav footer aside form menu ")
"""What stands around the text of a page."""
_BLOCKS: Final = _words(
    "address article blockquote body dd details div dl dt fieldset figcaption figure header hr html li "
    "main ol p pre section summary table tbody tfoot thead tr ul caption center "
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_TAG: Final = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)|<!--")
_NO_DEPTH: Final = _words(
    "area base br col embed hr img input link meta source track wbr p li dt dd tr td th tbody thead tfoot "
    "option optgroup colgroup html head body a "
)
"""Elements that are empty, or that end by themselves where the next of their kind begins."""
_RAW: Final = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style")}
_SPACE: Final = re.compile(r"[^\S\n]+")
_GAPS: Final = re.compile(r"\n{3,}")


def read_html(text: str, name: str) -> Document:
    """The page's text. Scripts, navigation and forms are left out, unless nothing else is there."""
    deepest, elements = _measure(text)
    if deepest > DEEPEST:
        raise ServiceError(
            f"{name} nests its elements deeper than {DEEPEST} levels",
            advice="No page for people does; check what the address serves",
            code="too_deep",
        )
    if elements > MOST_ELEMENTS:
        raise ServiceError(
            f"{name} has more than {MOST_ELEMENTS:,} elements",
            advice="Add the part that matters, as a file of its own",
            code="too_large",
        )
    page = LexborHTMLParser(text)
    title_node = page.css_first("title")
    title = clean_line(title_node.text()) if title_node is not None else ""
    root = page.css_first("main") or page.body or page.root
    for start, left_out in ((root, _NEVER | _AROUND), (page.body or page.root, _NEVER)):
        if start is None:
            continue
        reading = _Reading()
        reading.walk(start, left_out)
        sections = reading.sections()
        if any(section.text.strip() for section in sections):
            return Document(title or reading.first_heading or name, HTML, sections)
    return Document(title or name, HTML, ())


class _Reading:
    """One walk over a page, without recursion: pages may nest as deep as they like."""

    def __init__(self) -> None:
        self._path: list[tuple[int, str]] = []
        self._sections: list[Section] = []
        self._parts: list[str] = []
        self._words: list[str] | None = None
        """The words of the heading that is open."""
        self._kept = 0
        """How many elements are open that keep their white space."""
        self.first_heading = ""

    def sections(self) -> tuple[Section, ...]:
        self._close()
        return tuple(self._sections)

    def walk(self, root: LexborNode, left_out: frozenset[str]) -> None:
        node: LexborNode | None = root
        while node is not None:
            tag = node.tag or ""
            hidden = tag in left_out or (node.is_element_node and "hidden" in node.attributes)
            if not hidden:
                self._enter(node, tag)
                if node.child is not None:
                    node = node.child
                    continue
                self._leave(tag)
            while node is not None and node.next is None:
                if node.mem_id == root.mem_id:
                    return
                node = node.parent
                if node is not None:
                    self._leave(node.tag or "")
            if node is None or node.mem_id == root.mem_id:
                return
            node = node.next

    def _enter(self, node: LexborNode, tag: str) -> None:
        if tag == "-text":
            text = node.text_content or ""
            into = self._parts if self._words is None else self._words
            into.append(text if self._kept else re.sub(r"\s+", " ", text))
        elif tag in _HEADINGS:
            self._words = []
        elif tag == "br":
            self._parts.append("\n")
        elif tag == "li":
            self._parts.append("\n- ")
        elif tag in ("td", "th"):
            self._parts.append(" | ")
        elif tag in _BLOCKS:
            self._parts.append("\n" if tag in ("tr", "dd") else "\n\n")
        self._kept += tag == "pre"

    def _leave(self, tag: str) -> None:
        self._kept -= tag == "pre"
        if tag in _HEADINGS and self._words is not None:
            words, self._words = clean_line(tidy("".join(self._words))), None
            if words:
                self._close()
                level = _HEADINGS[tag]
                self._path = [*(above for above in self._path if above[0] < level), (level, words)]
                self.first_heading = self.first_heading or words
        elif tag in _BLOCKS and tag not in ("tr", "li", "dt"):
            self._parts.append("\n\n")

    def _close(self) -> None:
        lines = (
            _SPACE.sub(" ", line).strip().removeprefix("| ")
            for line in tidy("".join(self._parts)).replace("\r", "\n").split("\n")
        )
        text = _GAPS.sub("\n\n", "\n".join("" if line == "-" else line for line in lines)).strip("\n")
        self._sections.append(Section(heading_path([words for _, words in self._path]), text))
        self._parts.clear()


def _measure(text: str) -> tuple[int, int]:
    """How deep the elements nest, and how many there are; roughly and in linear time."""
    deepest = depth = count = at = 0
    while found := _TAG.search(text, at):
        at = found.end()
        count += 1
        if found[0] == "<!--":
            end = text.find("-->", at)
            at = len(text) if end < 0 else end + 3
        elif (name := found[2].lower()) in _RAW and not found[1]:
            closing = _RAW[name].search(text, at)
            at = closing.end() if closing else len(text)
        elif name not in _NO_DEPTH and name not in _RAW:
            depth = max(0, depth - 1) if found[1] else depth + 1
            deepest = max(deepest, depth)
    return deepest, count
