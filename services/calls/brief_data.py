"""The subject of a call: one row of a JSON, YAML or CSV file, by its number or by a value in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from services import yaml_files
from services.errors import UsageError
from services.text import clean_line

MOST_BYTES = 32 << 20
MOST_ROWS = 100_000
MOST_LISTED = 6
_SUFFIXES = ".json, .jsonl, .yaml, .yml, .csv or .tsv"


def read_row(path: Path, row: str | int | None) -> dict[str, Any]:
    """The chosen row. `row` is its number from 1 on, or `key=value`; a file of one row needs none.

    Blocking. Raises UsageError where the file, its form or the choice is wrong.
    """
    return choose(read_rows(path), row, clean_line(path.name))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every row of the file; an object is one row. CSV values are text, the first line names them."""
    name, suffix = clean_line(path.name), path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _csv(yaml_files.read_text(path, MOST_BYTES), name, "\t" if suffix == ".tsv" else "")
    if suffix in (".yaml", ".yml"):
        return _rows(yaml_files.parse(yaml_files.read_text(path, MOST_BYTES), name)[0], name)
    if suffix == ".json":
        return _rows(_json(yaml_files.read_text(path, MOST_BYTES), name), name)
    if suffix == ".jsonl":
        lines = [line for line in yaml_files.read_text(path, MOST_BYTES).splitlines() if line.strip()]
        return _rows([_json(line, f"{name}, row {number}") for number, line in enumerate(lines, 1)], name)
    raise UsageError(f"{name} is not a file of subjects", advice=f"Give a file {_SUFFIXES}", code="bad_file")


def choose(rows: Sequence[Mapping[str, Any]], row: str | int | None, name: str) -> dict[str, Any]:
    """The one row that is meant. Raises UsageError naming what there is."""
    if not rows:
        raise UsageError(f"{name} holds no row", code="no_row")
    if row is None or row == "":
        if len(rows) == 1:
            return dict(rows[0])
        raise UsageError(
            f"{name} holds {len(rows)} rows", advice="Choose one: --row 1, or --row key=value", code="no_row"
        )
    text = str(row).strip()
    if text.lstrip("+-").isdecimal():
        number = int(text)
        if not 1 <= number <= len(rows):
            raise UsageError(f"{name} has no row {number}: it holds {len(rows)}", code="no_row")
        return dict(rows[number - 1])
    key, sign, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not sign:
        raise UsageError(
            f"{clean_line(text)} names no row", advice="Use a number from 1 on, or key=value", code="no_row"
        )
    known = list(dict.fromkeys(str(field) for each in rows for field in each))
    if key not in known:
        near = get_close_matches(key, known, n=1)
        advice = f"Did you mean {near[0]}?" if near else "There are " + ", ".join(known[:12])
        raise UsageError(f"{name} has no field {clean_line(key)}", advice=clean_line(advice), code="no_row")
    found = [number for number, each in enumerate(rows, 1) if _same(each.get(key), value)]
    if len(found) == 1:
        return dict(rows[found[0] - 1])
    shown = clean_line(f"{key}={value}")
    if not found:
        raise UsageError(f"No row of {name} has {shown}", code="no_row")
    numbers = ", ".join(map(str, found[:MOST_LISTED])) + (", …" if len(found) > MOST_LISTED else "")
    raise UsageError(
        f"{len(found)} rows of {name} have {shown}", advice=f"Choose one by number: {numbers}", code="no_row"
    )


def _same(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == ("true" if value else "false")
    return value is not None and not isinstance(value, list | dict) and str(value).strip() == wanted


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{name}, line {error.lineno}: not valid JSON: {error.msg.lower()}", code="bad_file"
        ) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{name}: not valid JSON", code="bad_file") from None


def _rows(data: Any, name: str) -> list[dict[str, Any]]:
    items = [data] if isinstance(data, Mapping) else data
    if not isinstance(items, list):
        raise UsageError(f"{name} is neither an object nor a list of objects", code="bad_file")
    for number, item in enumerate(items, 1):
        if not isinstance(item, Mapping):
            raise UsageError(f"{name}: row {number} is not an object", code="bad_file")
    if len(items) > MOST_ROWS:
        raise UsageError(f"{name} holds more than {MOST_ROWS} rows", code="bad_file")
    return [dict(item) for item in items]


def _csv(text: str, name: str, delimiter: str) -> list[dict[str, Any]]:
    first = text.partition("\n")[0]
    if not delimiter:
        # A spreadsheet in German or French writes semicolons.
        delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [field.strip() for field in next(reader, [])]
        if not any(header):
            raise UsageError(f"{name}: the first line must name the fields", code="bad_file")
        twice = next((field for field in header if header.count(field) > 1), None)
        if twice is not None:
            raise UsageError(
                f"{name}: the field {clean_line(twice) or '(no name)'} stands twice", code="bad_file"
            )
        rows: list[dict[str, Any]] = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise UsageError(
                    f"{name}, line {reader.line_num}: {len(cells)} values where the first line names "
                    f"{len(header)} fields",
                    code="bad_file",
                )
            rows.append(dict(zip(header, cells, strict=True)))
            if len(rows) > MOST_ROWS:
                raise UsageError(f"{name} holds more than {MOST_ROWS} rows", code="bad_file")
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num}: not valid CSV: {error}", code="bad_file") from None
    return rows
