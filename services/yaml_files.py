"""YAML files that people write, read strictly: every mistake names its file, line, path and what is expected.

The YAML is the JSON-like part of YAML 1.2: `no`, `on`, `12:30`, `2026-01-01` and `0049` are text, not a
truth, a time or an octal number. Aliases are refused, and so is a key that stands twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from services.errors import UsageError
from services.text import clean_line

MOST_BYTES = 1 << 20
MOST_DEPTH = 40
MOST_TOLD = 8

Lines: TypeAlias = dict[tuple[str | int, ...], int]
M = TypeVar("M", bound=BaseModel)

_EXPECTED: Mapping[str, str] = {
    "string_type": "text is expected",
    "bool_type": "true or false is expected",
    "bool_parsing": "true or false is expected",
    "int_type": "a whole number is expected",
    "int_parsing": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number is expected",
    "float_parsing": "a number is expected",
    "list_type": "a list is expected",
    "tuple_type": "a list is expected",
    "dict_type": "an object with keys is expected",
    "mapping_type": "an object with keys is expected",
    "model_type": "an object with keys is expected",
    "model_attributes_type": "an object with keys is expected",
    "missing": "it is missing",
    "none_required": "nothing is expected here",
}


class Strict(BaseModel):
    """A model that refuses keys it does not know, naming the nearest, and guesses no types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    near = get_close_matches(str(key), known, n=1)
                    hint = f"did you mean {near[0]}?" if near else "there are " + ", ".join(known)
                    # The hint is the name's end: pydantic puts context into the message by itself.
                    raise PydanticCustomError(
                        "unknown_key", "{hint}", {"key": str(key), "hint": f"there is no {key} here; {hint}"}
                    )
        return data


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file of at most `most` bytes. Raises UsageError."""
    shown = clean_line(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(
            f"{shown} cannot be read: {(error.strerror or 'no access').lower()}", code="no_file"
        ) from None
    if len(data) > most:
        raise UsageError(f"{shown} is larger than {most >> 20} MiB", code="bad_file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown} is not UTF-8 text (at byte {error.start})", advice="Save it as UTF-8", code="bad_file"
        ) from None


def parse(text: str, name: str) -> tuple[Any, Lines]:
    """The YAML document, and the line of every value by its path. Raises UsageError naming the line."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {(): 1}
            lines: Lines = {}
            return _built(loader, node, (), lines, name), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = clean_line(error.problem or error.context or "it cannot be understood")
        # The library ends a plain text inside { } and [ ] at a question mark.
        advice = 'Put texts with ? : # or , in quotes: {say: "When are you open?"}'
        raise UsageError(
            f"{name}{where}: not valid YAML: {problem}", advice=advice, code="bad_file"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        problem = clean_line(str(error))[:200]
        raise UsageError(f"{name}: not valid YAML: {problem}", code="bad_file") from None
    except RecursionError:
        raise UsageError(f"{name}: nested too deeply", code="bad_file") from None


def validate(model: type[M], data: Any, lines: Lines, name: str, *, example: str = "") -> M:
    """The document as `model`. Raises UsageError with every mistake, each with its line and path."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        told = list(dict.fromkeys(_told(each, lines, name) for each in error.errors(include_url=False)))
        shown = "; ".join(told[:MOST_TOLD])
        if len(told) > MOST_TOLD:
            shown += f"; and {len(told) - MOST_TOLD} more"
        raise UsageError(shown, advice=example, code="bad_file") from None


def read_model(model: type[M], path: Path, *, example: str = "") -> M:
    """A file as `model`. Reads and parses: for a thread. Raises UsageError."""
    name = clean_line(path.name)
    data, lines = parse(read_text(path), name)
    return validate(model, data, lines, name, example=example)


def line_of(path: tuple[str | int, ...], lines: Lines) -> int | None:
    """The line of a value, or of the nearest thing around it."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def dotted(path: tuple[str | int, ...]) -> str:
    """`turns[2].say`."""
    found = ""
    for step in path:
        found += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if found else str(step)
    return found


def _told(error: Any, lines: Lines, name: str) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    shown = _real(tuple(error["loc"]), lines, keep_last=kind == "missing")
    line = line_of(shown, lines)
    if kind == "unknown_key":
        message = str(context["hint"])
        line = line_of((*shown, context["key"]), lines)
    elif kind == "literal_error":
        message = f"{str(context['expected']).replace(chr(39), '')} is expected"
    else:
        message = _EXPECTED.get(kind) or str(error["msg"]).removeprefix("Value error, ")
        if kind in _EXPECTED and kind != "missing":
            message += f", not {_described(error.get('input'))}"
    where = clean_line(dotted(shown))
    place = f"{name}, line {line}" if line is not None else name
    return f"{place}: {where}: {clean_line(message)}" if where else f"{place}: {clean_line(message)}"


def _real(path: tuple[str | int, ...], lines: Lines, *, keep_last: bool) -> tuple[str | int, ...]:
    """The path without what pydantic adds to it: the branch of a union, a validator."""
    found: tuple[str | int, ...] = ()
    for index, step in enumerate(path):
        if (*found, step) in lines or (keep_last and index == len(path) - 1):
            found = (*found, step)
    return found


def _described(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2's core schema, decimal only; no aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the library's own way

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not taken; write the value out", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]{0,17})$"), list("-0123456789")
)
# As long as programs write a float: 0.000123… with up to 17 digits behind the zeros, 5e-324.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,24})?(?:[eE][-+]?[0-9]{1,3})?$"),
    list("-0123456789"),
)

_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq")
)


def _built(loader: _Loader, node: yaml.Node, path: tuple[str | int, ...], lines: Lines, name: str) -> Any:
    if len(path) > MOST_DEPTH:
        raise UsageError(f"{name}, line {node.start_mark.line + 1}: nested too deeply", code="bad_file")
    lines[path] = node.start_mark.line + 1
    if node.tag not in _TAGS:
        raise yaml.constructor.ConstructorError(
            None, None, f"the tag {node.tag} is not taken", node.start_mark
        )
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a plain word", key_node.start_mark
                )
            if key in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} stands here twice", key_node.start_mark
                )
            found[key] = _built(loader, value_node, (*path, key), lines, name)
            lines[(*path, key)] = key_node.start_mark.line + 1
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_built(loader, item, (*path, index), lines, name) for index, item in enumerate(node.value)]
    value = loader.construct_object(node)
    if isinstance(value, float) and math.isinf(value):
        return node.value  # more than a number can be: text, as it was written
    return value
