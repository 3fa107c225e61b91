"""A brief file: templates that a subject's data turns into the `Brief` of one call.

    subject: "{{ name }}"
    system_prompt: |
      You call {{ name }}, a customer since {{ since }}.
    first_message: "Hello {{ name }}!"
    language: de
    phases:
      - {name: prices, text: "A visit is {{ price }} euros.", when: "price|cost", after_turns: 3}
    variables: {customer_name: "{{ name }}", visits: "{{ visits }}"}
    overrides: {tts: {stability: 0.4}}
    data: customers.csv

Every text is a Jinja template except names and `when`. `{{ x }}` is the subject's field; a vendor's own
placeholder is written `{{ '{{x}}' }}` or between `{% raw %}` and `{% endraw %}`. A variable that is one field
and nothing else keeps the field's type.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from services import yaml_files
from services.calls import brief_render
from services.calls.brief_data import read_row
from services.calls.model import Brief, Phase, Value
from services.errors import Category, ServiceError, UsageError
from services.text import clean_line

RENDER_SECONDS = 5.0
MOST_PHASES = 100
_ONE_FIELD = re.compile(r"^\s*\{\{\s*([A-Za-z_]\w*)\s*\}\}\s*$")
_TEMPLATE = re.compile(r"\{[{%#]")
_VARIABLE_NAME = re.compile(r"^[A-Za-z_][\w.-]{0,99}$")
_RESERVED = frozenset({"data"})


class PhaseFile(yaml_files.Strict):
    """A part of the knowledge, told at the start, after some turns, or when something is said."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    text: Annotated[str, Field(min_length=1)]
    after_turns: Annotated[int, Field(ge=0, le=1000)] = 0
    when: str = ""

    @field_validator("when")
    @classmethod
    def _is_regex(cls, value: str) -> str:
        return regex(value)


class BriefFile(yaml_files.Strict):
    """What the file may hold."""

    subject: str = ""
    system_prompt: str = ""
    system_prompt_file: str = ""
    """A file of the template instead, from the brief's folder."""
    first_message: str = ""
    language: str = ""
    phases: Annotated[list[PhaseFile], Field(max_length=MOST_PHASES, default_factory=list)]
    variables: dict[str, str | int | float | bool] = Field(default_factory=dict)
    overrides: dict[str, Any] = Field(default_factory=dict)
    user_id: str = ""
    data: str = ""
    """The file of subjects, from the brief's folder, when none is given with the call."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    file: BriefFile
    prompt: str
    row: dict[str, Any]
    lines: yaml_files.Lines


async def load_brief(
    path: Path,
    *,
    row: str | int | None = None,
    data: Path | None = None,
    variables: Mapping[str, Value] | None = None,
    templates: Path | None = None,
) -> Brief:
    """The brief of one call: the file's templates filled with a row of its data.

    `row` is a number from 1 on or `key=value`; `data` a file instead of the one the brief names; `variables`
    are added to the brief's and can be used in its templates; `templates` is the folder of `{% include %}`,
    by default the brief's. Raises UsageError that names the file, the line and the missing field.
    """
    given = dict(variables or {})
    for name in given:
        _check_variable(name, path)
    loaded = await asyncio.to_thread(_read, path, row, data)
    name = clean_line(path.name)
    texts = _texts(loaded.file, loaded.prompt)
    fields = {**_identifiers(loaded.row), **given, "data": loaded.row}
    rendered = await render_all(texts, fields, templates or path.parent)
    problems = [
        _problem(name, key, answer, fields, loaded.file)
        for key, answer in rendered.items()
        if "error" in answer
    ]
    if problems:
        raise UsageError(
            "; ".join(problems[: yaml_files.MOST_TOLD]),
            advice="The fields come from the chosen row and from --var",
            code="bad_brief",
        )
    found = {key: str(answer["text"]) for key, answer in rendered.items()}
    return _brief(loaded.file, found, fields, given)


async def render_all(
    texts: Mapping[str, str], fields: Mapping[str, Any], folder: Path | None
) -> dict[str, dict[str, Any]]:
    """`brief_render.render` in a process that is ended after five seconds; plain texts need none."""
    plain = {key: {"text": text} for key, text in texts.items() if not _TEMPLATE.search(text)}
    wanted = {key: text for key, text in texts.items() if key not in plain}
    if not wanted:
        return {key: dict(plain[key]) for key in texts}
    request = {"templates": wanted, "fields": _jsonable(fields), "folder": str(folder) if folder else ""}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", brief_render.__file__, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(RENDER_SECONDS):
            out, _ = await process.communicate(json.dumps(request).encode())
    except TimeoutError:
        raise UsageError(
            f"The templates were not rendered within {RENDER_SECONDS:g} s",
            advice="Look for a loop in them",
            code="bad_brief",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise ServiceError(
            "Rendering the templates failed: they take too much memory, or the process was ended",
            category=Category.PERMANENT,
            code="bad_brief",
        )
    answers: dict[str, dict[str, Any]] = json.loads(out)
    return {key: plain.get(key) or answers[key] for key in texts}


def regex(value: str) -> str:
    """A regular expression that compiles; for validators."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _check_variable(name: str, path: Path) -> None:
    if not _VARIABLE_NAME.match(name) or name in _RESERVED:
        raise UsageError(
            f"{clean_line(path.name)}: {clean_line(name) or '(nothing)'} cannot be a variable's name",
            advice="Letters, digits and _ . - beginning with a letter",
            code="bad_brief",
        )


def _read(path: Path, row: str | int | None, data: Path | None) -> _Loaded:
    name = clean_line(path.name)
    document, lines = yaml_files.parse(yaml_files.read_text(path), name)
    file = yaml_files.validate(BriefFile, {} if document is None else document, lines, name)
    for variable in file.variables:
        _check_variable(variable, path)
    if file.system_prompt and file.system_prompt_file:
        line = yaml_files.line_of(("system_prompt_file",), lines)
        raise UsageError(f"{name}, line {line}: either system_prompt or system_prompt_file", code="bad_brief")
    prompt = file.system_prompt
    if file.system_prompt_file:
        prompt = yaml_files.read_text(path.parent / file.system_prompt_file)
    source = data if data is not None else path.parent / file.data if file.data else None
    if source is None and row not in (None, ""):
        raise UsageError(
            f"{name} names no file of subjects to choose a row from",
            advice="Give one with --data, or write data: FILE into the brief",
            code="no_row",
        )
    return _Loaded(file, prompt, read_row(source, row) if source is not None else {}, lines)


def _texts(file: BriefFile, prompt: str) -> dict[str, str]:
    """Every template of the file by its path."""
    found = {
        "subject": file.subject,
        "system_prompt": prompt,
        "first_message": file.first_message,
        "language": file.language,
        "user_id": file.user_id,
    }
    found |= {f"phases[{index + 1}].text": phase.text for index, phase in enumerate(file.phases)}
    found |= {f"variables.{name}": value for name, value in file.variables.items() if isinstance(value, str)}
    found |= {"overrides" + key: text for key, text in _strings(file.overrides)}
    return {key: text for key, text in found.items() if text}


def _strings(value: object, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(prefix, value)]
    if isinstance(value, Mapping):
        return [pair for name, item in value.items() for pair in _strings(item, f"{prefix}.{name}")]
    if isinstance(value, list):
        return [pair for index, item in enumerate(value) for pair in _strings(item, f"{prefix}[{index + 1}]")]
    return []


def _filled(value: Any, texts: Mapping[str, str], prefix: str) -> Any:
    if isinstance(value, str):
        return texts.get(prefix, value)
    if isinstance(value, Mapping):
        return {name: _filled(item, texts, f"{prefix}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, texts, f"{prefix}[{index + 1}]") for index, item in enumerate(value)]
    return value


def _brief(
    file: BriefFile, texts: Mapping[str, str], fields: Mapping[str, Any], given: Mapping[str, Value]
) -> Brief:
    variables: dict[str, Value] = {}
    for name, value in file.variables.items():
        field = _ONE_FIELD.match(value) if isinstance(value, str) else None
        raw = fields.get(field[1]) if field is not None else None
        if isinstance(raw, bool | int | float) and not (isinstance(raw, float) and not math.isfinite(raw)):
            variables[name] = raw
        else:
            variables[name] = texts.get(f"variables.{name}", value) if isinstance(value, str) else value
    return Brief(
        subject=clean_line(texts.get("subject", "")),
        system_prompt=texts.get("system_prompt", "").strip(),
        first_message=texts.get("first_message", "").strip(),
        language=texts.get("language", "").strip(),
        phases=tuple(
            Phase(
                phase.name, texts.get(f"phases[{index + 1}].text", "").strip(), phase.after_turns, phase.when
            )
            for index, phase in enumerate(file.phases)
        ),
        variables={**variables, **given},
        overrides=_filled(file.overrides, texts, "overrides"),
        user_id=texts.get("user_id", "").strip(),
    )


def _problem(
    name: str, key: str, answer: Mapping[str, Any], fields: Mapping[str, Any], file: BriefFile
) -> str:
    line = f", line {answer['line']}" if answer.get("line") else ""
    if answer.get("file"):
        place = f"{answer['file']}{line}"
    elif key == "system_prompt" and file.system_prompt_file:
        place = f"{file.system_prompt_file}{line}"
    else:
        place = f"{name}: {key}{line + ' of the text' if line else ''}"
    if answer["error"] == "missing":
        field = str(answer.get("field", ""))
        near = get_close_matches(field, [str(each) for each in fields if each != "data"], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return clean_line(f"{place}: there is no field {field or '(unnamed)'}{hint}")
    return clean_line(f"{place}: {answer['message']}")


def _identifiers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields a template can name; every one, with any name, is in `data[…]`."""
    return {key: value for key, value in row.items() if str(key).isidentifier()}


def _jsonable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(fields), default=str))  # type: ignore[no-any-return]
