from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.calls import brief_file, brief_render
from services.calls.brief import load_brief, prompt_text
from services.calls.brief_data import choose, read_row, read_rows
from services.calls.model import Brief, Phase
from services.errors import ServiceError, UsageError

BRIEF = """
subject: "{{ first }} {{ last }}"
system_prompt: |
  You call {{ first }}.
  Visits: {{ visits }}.
first_message: "Hallo {{ first }}!"
language: de
phases:
  - {name: opening, text: "Since {{ since }}"}
  - {name: prices, text: "{{ price }} euros", when: "preis|price", after_turns: 2}
variables: {customer_name: "{{ first }}", visits: "{{ visits }}", note: "no. {{ visits }}", vip: true}
overrides: {tts: {stability: 0.4, voice_id: "{{ data['voice id'] }}"}}
user_id: "u{{ visits }}"
data: people.json
"""
PEOPLE = [
    {"first": "Ana", "last": "Weber", "visits": 3, "since": "2020", "price": "5", "voice id": "v1"},
    {"first": "Zoë", "last": "Özil", "visits": 0, "since": "2021", "price": "6", "voice id": "v2"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "brief.yaml").write_text(BRIEF, encoding="utf-8")
    (tmp_path / "people.json").write_text(json.dumps(PEOPLE), encoding="utf-8")
    return tmp_path


def change(folder: Path, old: str, new: str) -> Path:
    path = folder / "brief.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


async def test_a_row_fills_every_text(folder: Path) -> None:
    brief = await load_brief(folder / "brief.yaml", row=2)
    assert brief == Brief(
        subject="Zoë Özil",
        system_prompt="You call Zoë.\nVisits: 0.",
        first_message="Hallo Zoë!",
        language="de",
        phases=(Phase("opening", "Since 2021"), Phase("prices", "6 euros", 2, "preis|price")),
        variables={"customer_name": "Zoë", "visits": 0, "note": "no. 0", "vip": True},
        overrides={"tts": {"stability": 0.4, "voice_id": "v2"}},
        user_id="u0",
    )


async def test_a_row_by_value_and_variables_of_the_command_line(folder: Path) -> None:
    path = folder / "brief.yaml"
    brief = await load_brief(path, row="first=Ana", variables={"since": "1999", "extra": 1, "vip": False})
    assert brief.phases[0].text == "Since 1999"
    assert brief.variables["extra"] == 1
    assert brief.variables["vip"] is False


async def test_other_data_and_a_prompt_in_a_file_with_includes(folder: Path) -> None:
    text = BRIEF.replace("system_prompt: |\n  You call {{ first }}.\n  Visits: {{ visits }}.\n", "")
    (folder / "brief.yaml").write_text(text + "system_prompt_file: prompt.md\n", encoding="utf-8")
    (folder / "prompt.md").write_text("{% include 'rules.md' %}\nYou call {{ first }}.", encoding="utf-8")
    (folder / "rules.md").write_text("Be kind to {{ last }}.", encoding="utf-8")
    (folder / "other.csv").write_text(
        "first;last;visits;since;price;voice id\nKim;Li;7;2022;8;v3\n", encoding="utf-8-sig"
    )
    brief = await load_brief(folder / "brief.yaml", data=folder / "other.csv")
    assert brief.system_prompt == "Be kind to Li.\nYou call Kim."
    assert brief.variables["visits"] == "7"  # a CSV file holds texts
    (folder / "rules.md").write_text("Be kind\nto {{ lasst }}.", encoding="utf-8")
    with pytest.raises(UsageError, match=r"rules\.md, line 2: there is no field lasst; did you mean last\?"):
        await load_brief(folder / "brief.yaml", data=folder / "other.csv")


async def test_the_vendors_own_placeholders_survive(folder: Path) -> None:
    path = change(folder, "You call {{ first }}.", "You call {% raw %}{{customer_name}}{% endraw %}.")
    brief = await load_brief(path, row=1)
    assert brief.system_prompt.startswith("You call {{customer_name}}.")


async def test_a_brief_without_templates_needs_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*arguments: object, **named: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    (tmp_path / "b.yaml").write_text("system_prompt: Be kind {to all}.\n", encoding="utf-8")
    assert (await load_brief(tmp_path / "b.yaml")).system_prompt == "Be kind {to all}."
    (tmp_path / "b.yaml").write_text("", encoding="utf-8")
    assert not await load_brief(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "Visits: {{ visits }}",
            "Visits: {{ vists }}",
            r"brief\.yaml: system_prompt, line 2 of the text: there is no field vists; did you mean visits\?",
        ),
        ("{{ price }} euros", "{{ price.cents.x }} euros", r"phases\[2\]\.text, line 1 of the text: .*cents"),
        ("{{ price }} euros", "{{ price euros", r"phases\[2\]\.text, line 1 of the text: expected token"),
        ("{{ data['voice id'] }}", "{{ data['voice'] }}", r"overrides\.tts\.voice_id.* no field voice; did"),
        ("Hallo {{ first }}!", "{{ ''.__class__ }}", "first_message.*unsafe"),
        ("Hallo {{ first }}!", "{{ data.update({}) }}", "first_message"),
        ("Hallo {{ first }}!", "{% include '../secret' %}", "first_message.*no template"),
        ("Hallo {{ first }}!", "{% for a in range(99999) %}0123456789{% endfor %}", "grows beyond"),
        ("language:", "langage:", r"brief\.yaml, line 7: there is no langage here; did you mean language\?"),
        ("after_turns: 2", "after_turns: two", r"line 10: phases\[2\]\.after_turns: a whole number .*'two'"),
        ('when: "preis|price"', 'when: "("', r"phases\[2\]\.when: not a regular expression"),
        ("vip: true", "vip: [1]", r"variables\.vip: "),
        ("vip: true", '"v i p": true', "v i p cannot be a variable's name"),
        ("language: de", "language: de\nsystem_prompt_file: x", "either system_prompt or system"),
        ("data: people.json", "data: nobody.json", r"nobody\.json cannot be read"),
    ],
)  # fmt: skip
async def test_a_mistake_names_its_place(folder: Path, old: str, new: str, message: str) -> None:
    path = change(folder, old, new)
    with pytest.raises(UsageError, match=message):
        await load_brief(path, row=1)


async def test_several_missing_fields_are_told_at_once(folder: Path) -> None:
    path = change(folder, "{{ last }}", "{{ lost }}")
    change(folder, "{{ since }}", "{{ sinse }}")
    with pytest.raises(UsageError) as caught:
        await load_brief(path, row=1)
    assert "lost" in caught.value.message
    assert "sinse" in caught.value.message
    assert "--var" in caught.value.advice


async def test_an_endless_template_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_file, "RENDER_SECONDS", 0.5)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    path = change(folder, "Since {{ since }}", loop)
    with pytest.raises(UsageError, match=r"not rendered within 0\.5 s"):
        await load_brief(path, row=1)


async def test_a_template_that_doubles_its_text_is_ended(folder: Path) -> None:
    doubling = (
        "{% set n = namespace(x='ab') %}"
        "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
    )
    path = change(folder, '"Since {{ since }}"', json.dumps(doubling))
    with pytest.raises(ServiceError, match=r"memory|grows"):
        await load_brief(path, row=1)


# -- data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.json", '{"n": 1}', [{"n": 1}]),
        ("a.jsonl", '{"n": 1}\n\n{"n": 2}\n', [{"n": 1}, {"n": 2}]),
        ("a.yaml", "- n: 1\n- n: no", [{"n": 1}, {"n": "no"}]),
        ("a.yml", "n: 0049", [{"n": "0049"}]),
        ("a.csv", "\ufeffn,m\n1,\"x, y\"\n\n2,\n", [{"n": "1", "m": "x, y"}, {"n": "2", "m": ""}]),
        ("a.csv", "n;m\n1;2,5\n", [{"n": "1", "m": "2,5"}]),
        ("a.tsv", "n\tm\n1\t2\n", [{"n": "1", "m": "2"}]),
        ("a.csv", 'n,m\n1,"two\nlines"\n', [{"n": "1", "m": "two\nlines"}]),
    ],
)  # fmt: skip
def test_rows_of_every_kind_of_file(tmp_path: Path, name: str, text: str, rows: list[Any]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_rows(tmp_path / name) == rows


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"n": ', r"a\.json, line 1: not valid JSON"),
        ("a.json", "[1]", r"a\.json: row 1 is not an object"),
        ("a.json", "3", "neither an object nor a list"),
        ("a.jsonl", '{"n": 1}\n{', r"a\.jsonl, row 2, line 1: not valid JSON"),
        ("a.csv", "n,m\n1\n", r"a\.csv, line 2: 1 values where the first line names 2 fields"),
        ("a.csv", "n,n\n1,2\n", "the field n stands twice"),
        ("a.csv", "", "the first line must name the fields"),
        ("a.csv", 'n\n"1', "not valid CSV"),
        ("a.txt", "x", "not a file of subjects"),
        ("a.json", "[]", "holds no row"),
    ],
)
def test_a_broken_file_of_subjects(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_row(tmp_path / name, None)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("n\nMüller\n".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        read_row(tmp_path / "a.csv", None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "holds 3 rows"),
        (0, "no row 0: it holds 3"),
        ("4", "no row 4"),
        ("-1", "no row -1"),
        ("name", "names no row"),
        ("nme=A", "no field nme"),
        ("name=C", "No row of x has name=C"),
        ("name=A", "2 rows of x have name=A"),
    ],
)
def test_a_row_that_is_not_there(row: Any, message: str) -> None:
    rows = [{"name": "A", "n": 1}, {"name": "B"}, {"name": "A", "ok": True}]
    with pytest.raises(UsageError, match=message):
        choose(rows, row, "x")


def test_a_row_by_number_or_value() -> None:
    rows = [{"name": "A", "n": 1}, {"name": "B"}, {"name": "A", "ok": True}]
    assert choose(rows, 2, "x") == {"name": "B"}
    assert choose(rows, " 3 ", "x")["ok"] is True
    assert choose(rows, "n=1", "x")["name"] == "A"
    assert choose(rows, "ok=true", "x") == rows[2]


async def test_a_row_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("system_prompt: Hi", encoding="utf-8")
    with pytest.raises(UsageError, match="names no file of subjects"):
        await load_brief(tmp_path / "b.yaml", row=1)


# -- properties -----------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z]{3,8}", fullmatch=True).filter(
    lambda name: name not in {"and", "not", "for", "data", "true", "false", "none", "else", "set", "block"}
)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}%#\n\r"), max_size=40)


@given(st.dictionaries(NAMES, PLAIN, min_size=1, max_size=6), PLAIN)
@settings(max_examples=120, deadline=None)
def test_every_field_lands_where_it_is_named(fields: dict[str, str], between: str) -> None:
    template = between + between.join(f"{{{{ {name} }}}}" for name in fields)
    answer = brief_render.render({"t": template}, fields)["t"]
    assert answer["text"] == between + between.join(fields.values())


@given(st.dictionaries(NAMES, PLAIN, max_size=4), NAMES, st.integers(0, 5))
@settings(max_examples=120, deadline=None)
def test_a_missing_field_is_named_with_its_line(fields: dict[str, str], name: str, above: int) -> None:
    fields.pop(name, None)
    answer = brief_render.render({"t": "text\n" * above + f"{{{{ {name} }}}}"}, fields)["t"]
    assert (answer["error"], answer["field"], answer["line"]) == ("missing", name, above + 1)


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_rendered_or_refused(text: str) -> None:
    answer = brief_render.render({"t": text}, {"name": "Ana"})["t"]
    assert ("text" in answer) is not ("error" in answer)


def test_only_what_is_there_from_the_start_is_in_the_prompt() -> None:
    phases = (Phase("rules", "Be kind."), Phase("prices", "5 euros", after_turns=1))
    assert prompt_text(Brief(system_prompt="You call.", phases=phases)) == "You call.\n\n# rules\nBe kind."
    assert prompt_text(Brief(phases=phases)) == ""
