"""HTTP as the simulated vendors see it: requests, replies, stored JSON documents, cursors."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Json = dict[str, Any]
JSON_TYPE = b"application/json"


def encode(data: Any) -> bytes:
    """Compact UTF-8 JSON; 1.0 stays 1.0; only half a surrogate pair has all non-ASCII text escaped."""
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(data, separators=(",", ":")).encode()


class Document:
    """One stored JSON object. Never changed in place, so that its bytes are made once."""

    __slots__ = ("_raw", "data")

    def __init__(self, data: Json) -> None:
        self.data = data
        self._raw: bytes | None = None

    @property
    def raw(self) -> bytes:
        if self._raw is None:
            self._raw = encode(self.data)
        return self._raw


@dataclass(slots=True)
class Reply:
    """A whole answer, before faults touch it."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer(data: Any, status: int = 200) -> Reply:
    """`data` as a JSON answer."""
    return Reply(status, encode(data))


def page_reply(prefix: bytes, items: Iterable[Document], tail: Json) -> Reply:
    """`{<prefix>: [items], **tail}` made from the stored bytes of the items."""
    rest = encode(tail)[1:]
    return Reply(200, b'{"' + prefix + b'":[' + b",".join(item.raw for item in items) + b"]," + rest)


@dataclass(slots=True)
class Request:
    """One request with its body read."""

    method: str
    path: str
    query_string: bytes = b""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def query(self) -> dict[str, str]:
        if not self.query_string:
            return {}
        return dict(parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True))

    def query_all(self, name: str) -> list[str]:
        """Every value of a repeated query parameter, comma-separated ones split."""
        pairs = parse_qsl(self.query_string.decode("latin-1"))
        return [part for key, value in pairs if key == name for part in value.split(",") if part]

    def json_object(self) -> Json | None:
        """The body as a JSON object; an empty body is `{}`, anything else is None."""
        if not self.body:
            return {}
        try:
            data = json.loads(self.body)
        except ValueError:
            return None
        return data if isinstance(data, dict) else None


Handler = Callable[..., Any]
"""Called with the request and the values of the template's variables. Returns a `Reply` or awaits one."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes; `kind` is the word the statistics and faults use for it.

    A `public` route is not refused for its key: its handler decides.
    """

    template: str
    kind: str
    handler: Handler
    public: bool = False


class Router:
    """Finds a route with one dictionary look-up for each place variables can stand at."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, tuple[str, ...]], Route] = {}
        self._shapes: dict[int, list[tuple[int, ...]]] = {}

    def add(self, method: str, template: str, kind: str, handler: Handler, *, public: bool = False) -> None:
        """`template` marks variables as `*`, e.g. `/get-agent/*`."""
        parts = tuple(template.strip("/").split("/"))
        shape = tuple(index for index, part in enumerate(parts) if part == "*")
        shapes = self._shapes.setdefault(len(parts), [])
        if shape not in shapes:
            shapes.append(shape)
            shapes.sort(key=len)  # fixed words win over variables
        self._routes[(method, parts)] = Route(template, kind, handler, public)

    def find(self, method: str, path: str) -> tuple[Route | None, list[str]]:
        """The route and the values of its variables."""
        parts = path.strip("/").split("/")
        for shape in self._shapes.get(len(parts), ()):
            key = list(parts)
            for index in shape:
                key[index] = "*"
            route = self._routes.get((method, tuple(key)))
            if route is not None:
                return route, [parts[index] for index in shape]
        return None, []


class BadCursor(Exception):
    """A paging key that this server never gave out."""


def cut_page(
    rows: Sequence[tuple[list[Any], Document]], *, size: int, cursor: str, descending: bool
) -> tuple[list[Document], str | None]:
    """One page of `rows` (sort key, document) after `cursor`, and the cursor of the next page or None.

    The cursor carries the sort key of the last row, so that rows added or removed meanwhile neither
    repeat nor hide others. Raises `BadCursor`.
    """
    ordered = sorted(rows, key=lambda row: row[0], reverse=descending)
    if cursor:
        try:
            after = json.loads(base64.urlsafe_b64decode(cursor.encode()))
            ordered = [row for row in ordered if (row[0] < after if descending else row[0] > after)]
        except (ValueError, TypeError) as error:
            raise BadCursor from error
    page = ordered[:size]
    if len(ordered) <= size:
        return [document for _, document in page], None
    return [document for _, document in page], base64.urlsafe_b64encode(encode(page[-1][0])).decode()


def deep_merge(base: Json, patch: Json) -> Json:
    """`patch` laid over `base`: objects merge, everything else (arrays too) replaces. Neither is changed."""
    merged = dict(base)
    for key, value in patch.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
