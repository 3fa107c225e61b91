from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest

from app.schemas import SCHEMAS, SUMMARIES, document

APP = Path(__file__).resolve().parents[2] / "app"


def test_every_kind_that_is_printed_has_a_contract():
    printed = set()
    for file in APP.rglob("*.py"):
        text = file.read_text()
        printed |= set(re.findall(r'emit_json\(\s*"([a-z-]+)"', text))
        printed |= (
            set(re.findall(r'"callboard\.([a-z-]+)/1"', text)) if file.parent.name == "commands" else set()
        )
    assert printed <= set(SCHEMAS)
    assert list(SUMMARIES) == list(SCHEMAS)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_contracts_are_json_schema(kind):
    jsonschema.Draft202012Validator.check_schema(document(kind))


def test_the_command_prints_them(callboard):
    assert callboard("schema").out.count("\n") == len(SCHEMAS)
    assert '"callboard.sync/1"' in callboard("schema", "sync").out
    assert callboard("schema", "nonsense").code == 2
