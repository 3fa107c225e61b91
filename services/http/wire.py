"""Wire JSON: a vendor's document exactly as received, its parsed form, and its digest.

The text is what is stored and compared; the parsed form is for reading values out of it. Nothing
here needs a third-party package, so the mirror can use it without loading the clients.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from services.errors import Category, ServiceError

T = TypeVar("T")

MAX_DEPTH: Final = 200
"""Deeper nesting than this is refused: no vendor document comes near, and recursion stays safe."""

_INT_DIGITS: Final = 4000
# Python refuses to convert longer ones (sys.int_info), and the work grows with the square.
_SPACE: Final = " \t\n\r"
_LONGEST_ESCAPE: Final = len("\\ud800\\udc00")
# What may be left where a text was cut: white space, the start of a word, the start of a number.
_HALF_TOKEN: Final = re.compile(r"\s*|t(ru?)?|f(a(ls?)?)?|n(ul?)?|-|\.|(\.\d+)?[eE][+-]?")


@dataclass(frozen=True, slots=True, repr=False)
class Wire:
    """One JSON document: `text` exactly as received, `data` parsed (read it, never change it)."""

    text: str
    data: Any

    def __repr__(self) -> str:
        # Never the content: it may be megabytes, and tools carry headers with secrets.
        return f"Wire({len(self.text)} characters)"


@dataclass(frozen=True, slots=True)
class Page:
    """A list answer: its items byte-true, and the other members of the envelope."""

    items: list[Wire]
    envelope: dict[str, Any]


class NotJson(ServiceError):
    """The text is not JSON. `truncated` tells an answer cut off in the middle from any other fault."""

    def __init__(self, message: str, *, truncated: bool = False) -> None:
        super().__init__(
            message,
            category=Category.TRANSIENT if truncated else Category.PERMANENT,
            advice="Try again" if truncated else "Check that the base URL is the vendor's API",
            code="truncated" if truncated else "not_json",
        )
        self.truncated = truncated


def parse(text: str) -> Wire:
    """The document of a JSON text. Raises `ServiceError` (`not_json`, `truncated`, `too_deep`)."""
    data = _parsed(text, _READING)
    _refuse_depth(data)
    return Wire(text, data)


def parse_page(text: str, key: str) -> Page:
    """A list answer `{key: [item, …], …}`, each item cut out of the text as it stands.

    Raises `ServiceError`: as `parse`, and `wrong_shape` when it is no object, has no such list, or an
    item is no object.
    """
    return _guarded(text, lambda: _page(text, key))


def digest(text: str, ignore: Collection[tuple[str, ...]] = ()) -> str:
    """SHA-256 (hex) of a JSON text's canonical form.

    Two texts have the same digest exactly when they hold the same values: the order of keys, white
    space, escapes and the spelling of numbers (1, 1.0, 1e0; -0) never count, and numbers of any
    precision are compared exactly. Of a repeated key the last counts. Members under an `ignore` path
    are left out; `*` in a path stands for any key or index.

    Takes up to 0.1 s per MB of small members, so large texts belong in a thread. Raises
    `ServiceError` as `parse`.
    """
    data = _parsed(text, _EXACT)
    _refuse_depth(data)
    out: list[bytes] = []
    _canonical(data, out, tuple(path for path in ignore if path))
    return hashlib.sha256(b"".join(out)).hexdigest()


# Canonical form


class _Number:
    """A JSON number by its value: normalised digits and exponent."""

    __slots__ = ("form",)

    def __init__(self, literal: str) -> None:
        self.form = canonical_number(literal)


def canonical_number(literal: str) -> str:
    """One spelling for every number of the same value: `0`, or sign, digits without outer zeros, exponent."""
    mantissa, _, exponent = literal.lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    if not stripped:
        return "0"
    shift = len(digits) - len(stripped) - len(fraction)
    return f"{sign}{stripped}e{_added(exponent or '0', shift)}"


def _added(exponent: str, shift: int) -> str:
    if len(exponent) <= _INT_DIGITS:
        return str(int(exponent) + shift)
    # An exponent longer than any sane number: Decimal adds it exactly, in linear time.
    from decimal import Context, Decimal

    context = Context(prec=len(exponent) + 32)
    return format(context.add(Decimal(exponent), Decimal(shift)).to_integral_value(context=context), "f")


def _canonical(node: Any, out: list[bytes], paths: tuple[tuple[str, ...], ...]) -> None:
    """Appends the node, every part with its type and length in front so that no two values collide."""
    if isinstance(node, str):
        raw = node.encode("utf-8", "surrogatepass")
        out.append(b"s%d:" % len(raw))
        out.append(raw)
    elif isinstance(node, _Number):
        out.append(f"n{node.form};".encode("ascii"))
    elif isinstance(node, dict):
        out.append(b"{")
        for key in sorted(node):
            below = _below(paths, key)
            if below is not None:
                _canonical(key, out, ())
                _canonical(node[key], out, below)
        out.append(b"}")
    elif isinstance(node, list):
        out.append(b"[")
        for index, item in enumerate(node):
            below = _below(paths, str(index)) if paths else ()
            if below is not None:
                _canonical(item, out, below)
        out.append(b"]")
    else:
        out.append(b"z" if node is None else b"t" if node else b"f")


def _below(paths: tuple[tuple[str, ...], ...], key: str) -> tuple[tuple[str, ...], ...] | None:
    """The ignored paths that go on below a key; None when the key itself is ignored."""
    if not paths:
        return ()
    matching = [path[1:] for path in paths if path[0] in (key, "*")]
    return None if () in matching else tuple(matching)


# Parsing


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"It holds {name}, which JSON does not have")


def _read_int(literal: str) -> int | float:
    # A longer one becomes an infinite float in `data`; the text and the digest stay exact.
    return int(literal) if len(literal) <= _INT_DIGITS else float(literal)


_READING: Final = json.JSONDecoder(parse_int=_read_int, parse_constant=_refuse_constant)
_EXACT: Final = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant)


def _parsed(text: str, decoder: json.JSONDecoder) -> Any:
    return _guarded(text, lambda: decoder.decode(text))


def _guarded(text: str, read: Callable[[], T]) -> T:
    failure: ServiceError
    try:
        return read()
    except json.JSONDecodeError as exc:
        failure = _not_json(text, exc)
    except RecursionError:
        failure = _too_deep()
    raise failure


def _not_json(text: str, exc: json.JSONDecodeError) -> NotJson:
    if not text.strip(_SPACE):
        return NotJson("The answer is empty where JSON was expected")
    rest = text[exc.pos :]
    half_escape = "escape" in exc.msg and len(rest) < _LONGEST_ESCAPE
    # A cut-off string is reported where it begins, everything else where the text ends.
    if exc.msg.startswith("Unterminated string") or half_escape or _HALF_TOKEN.fullmatch(rest):
        return NotJson("The JSON breaks off in the middle", truncated=True)
    return NotJson(f"It is not JSON (line {exc.lineno}, column {exc.colno})")


def _too_deep() -> ServiceError:
    return ServiceError(
        f"The JSON is nested deeper than {MAX_DEPTH} levels",
        advice="Check the configuration at the vendor; no agent needs this",
        code="too_deep",
    )


def _refuse_depth(data: Any) -> None:
    """Walks level by level, so that the check itself cannot recurse."""
    level = [data] if isinstance(data, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
    if level:
        raise _too_deep()


def wrong_shape(expected: str, got: Any) -> ServiceError:
    """The error for valid JSON that is not what an endpoint promises."""
    return ServiceError(
        f"Expected {expected}, got {_kind(got)}",
        advice="Check that the base URL is this vendor's API; if it is, the vendor changed its answers",
        code="wrong_shape",
    )


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        keys = ", ".join(sorted(key[:30] for key in value)[:5])
        return f"an object with {keys}" if keys else "an empty object"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return "a number"
    return "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else "null"


def _page(text: str, key: str) -> Page:
    """Walks the outer object by hand and lets the C scanner read each value."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise wrong_shape(f"an object with a list {key!r}", parse(text).data)
    envelope: dict[str, Any] = {}
    items: list[Wire] | None = None
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        name, at = _key(text, at)
        if name == key and text[at : at + 1] == "[":
            items, at = _items(text, at, key)
            envelope.pop(key, None)
        else:
            envelope[name], at = _value(text, at)
            items = None if name == key else items
        at = _separator(text, at, "}")
    if _skip(text, at + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)
    _refuse_depth(envelope)
    if items is None:
        raise wrong_shape(f"an object with a list {key!r}", envelope)
    return Page(items, envelope)


def _items(text: str, at: int, key: str) -> tuple[list[Wire], int]:
    items: list[Wire] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        data, end = _value(text, at)
        if not isinstance(data, dict):
            raise wrong_shape(f"a list of objects in {key!r}", data)
        _refuse_depth(data)
        items.append(Wire(text[at:end], data))
        at = _separator(text, end, "]")
    return items, at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    return _READING.raw_decode(text, at)


def _key(text: str, at: int) -> tuple[Any, int]:
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    name, end = _value(text, at)
    end = _skip(text, end)
    if text[end : end + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, end)
    return name, _skip(text, end + 1)


def _separator(text: str, at: int, closing: str) -> int:
    """The position of the next member, or of the closing bracket."""
    at = _skip(text, at)
    if text[at : at + 1] == closing:
        return at
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    at = _skip(text, at + 1)
    if text[at : at + 1] == closing:
        raise json.JSONDecodeError("Illegal trailing comma", text, at)
    return at


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
