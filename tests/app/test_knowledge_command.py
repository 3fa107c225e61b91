"""`callboard knowledge` on the real services, a new process's worth for each command."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import jsonschema
import pytest

from app.cli import main
from app.commands import _secrets
from app.schemas import document
from services.container import ServiceOptions, Services
from services.security import MemoryStore
from services.storage import DatabaseLocation


@pytest.fixture
def run(own_environment, monkeypatch, capsys, tmp_path):
    """Run the command line on one database; the answer's `json` is checked against its contract."""
    secrets = MemoryStore()

    def open_services(*, demo: bool) -> Services:
        options = ServiceOptions(
            database=DatabaseLocation(path=tmp_path / "callboard.db"), secrets_file=tmp_path / "secrets.json"
        )
        return Services(options, secrets=secrets)

    monkeypatch.setattr("app.commands._run.open_services", open_services)

    def call(*words: str) -> SimpleNamespace:
        code = main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        found = None
        if "--json" in words:
            found = json.loads(captured.out)
            kind = found["schema"].removeprefix("callboard.").removesuffix("/1")
            jsonschema.Draft202012Validator(document(kind)).validate(found)
        return SimpleNamespace(code=code, out=captured.out, err=captured.err, json=found)

    call.secrets = secrets
    assert call("company", "add", "acme").code == 0
    return call


@pytest.fixture
def piped(monkeypatch):
    def give(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return give


@pytest.fixture
def house(tmp_path):
    file = tmp_path / "house.md"
    file.write_text("# House rules\n\n## Pets\nDogs are welcome.\n\n## Parking\nIn the yard.\n")
    return file


def test_add_list_search_remove(run, house):
    added = run("knowledge", "add", "ACME", str(house))
    assert (added.code, added.out) == (0, "House rules: 2 pieces\n")
    listed = run("knowledge", "list", "acme")
    assert "House rules" in listed.out
    assert "file:///" in listed.out
    assert listed.err == "Searched by words.\n"
    found = run("knowledge", "search", "acme", "may I bring a dog?")
    assert found.code == 0
    assert found.out.splitlines()[0] == "1. House rules > Pets"
    assert "   Dogs are welcome." in found.out.splitlines()
    assert "Searched by text." in found.err
    refused = run("knowledge", "remove", "acme", "House rules")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert run("knowledge", "remove", "acme", "house rules", "--yes").out == "Removed House rules.\n"
    empty = run("knowledge", "list", "acme")
    assert (empty.code, empty.out) == (0, "")
    assert "callboard knowledge add acme FILE" in empty.err


def test_json_keeps_its_contracts(run, house):
    added = run("knowledge", "add", "acme", str(house), "--json").json
    [result] = added["results"]
    assert (result["changed"], result["degraded"], result["error"]) == (True, "", None)
    assert result["source"]["chunks"] == 2
    again = run("knowledge", "add", "acme", str(house), "--json").json["results"][0]
    assert again["changed"] is False
    listed = run("knowledge", "list", "acme", "--json").json
    assert listed["status"] == {
        "sources": 1,
        "chunks": 2,
        "embedded": 0,
        "model": "",
        "ranking": "",
        "remote": "",
    }
    found = run("knowledge", "search", "acme", "yard", "--limit", "1", "--json").json
    assert (found["mode"], found["origin"]) == ("text", "local")
    assert [hit["heading"] for hit in found["hits"]] == ["House rules > Parking"]
    assert run("knowledge", "search", "acme", "zebra", "--json").json["hits"] == []
    gone = run("knowledge", "remove", "acme", result["source"]["id"], "--yes", "--json").json
    assert gone["source"]["title"] == "House rules"


def test_some_fail_and_the_rest_is_taken_in(run, house, tmp_path):
    garbage = tmp_path / "garbage.txt"
    garbage.write_bytes(bytes(range(256)))
    mixed = run("knowledge", "add", "acme", str(house), str(garbage), str(tmp_path / "missing.txt"))
    assert mixed.code == 3
    assert "House rules: 2 pieces" in mixed.out
    assert "garbage.txt is not a text file" in mixed.err
    assert "There is no file" in mixed.err
    assert run("knowledge", "add", "acme", str(garbage)).code == 1
    assert run("knowledge", "add", "acme", str(tmp_path / "missing.txt")).code == 2
    results = run("knowledge", "add", "acme", str(house), str(garbage), "--json").json["results"]
    assert [bool(result["error"]) for result in results] == [False, True]


def test_a_page_inside_is_not_read(run):
    refused = run("knowledge", "add", "acme", "http://127.0.0.1:9/secret")
    assert refused.code == 1
    assert "--allow-private" in refused.err
    assert run("knowledge", "add", "acme", "http://ann:pw@x.example/").code == 2


def test_standard_input(run, piped):
    piped("# Handbook\n\nÜber uns: since 1900.".encode())
    assert run("knowledge", "add", "acme", "-").code == 2
    assert (
        run("knowledge", "add", "acme", "-", "--title", "Handbook", "--markdown").out == "Handbook: 1 piece\n"
    )
    assert "Über uns" in run("knowledge", "search", "acme", "uber").out
    piped(b"\x00\x01\x02" * 100)
    refused = run("knowledge", "add", "acme", "-", "--title", "x")
    assert (refused.code, "Standard input is not a text file" in refused.err) == (1, True)
    assert run("knowledge", "add", "acme", "-", "-", "--title", "x").code == 2


def test_refresh(run, house):
    assert "There is nothing to refresh yet" in run("knowledge", "refresh", "acme").err
    run("knowledge", "add", "acme", str(house))
    assert run("knowledge", "refresh", "acme").out == "House rules: 2 pieces, unchanged\n"
    house.write_text("# House rules\n\nNo dogs any more.")
    assert run("knowledge", "refresh", "acme", "House rules").out == "House rules: 1 piece\n"
    house.unlink()
    gone = run("knowledge", "refresh", "acme", "--json")
    assert gone.code == 2
    assert gone.json["results"][0]["error"]["message"].startswith("There is no file")
    assert run("knowledge", "refresh", "acme", "nonsense").code == 2


def test_a_name_typed_at_a_terminal_removes(run, house, monkeypatch):
    run("knowledge", "add", "acme", str(house))
    monkeypatch.setattr(_secrets, "can_ask", lambda: True)
    monkeypatch.setattr(_secrets, "ask", lambda question: "no")
    assert run("knowledge", "remove", "acme", "House rules").code == 1
    monkeypatch.setattr(_secrets, "ask", lambda question: "House rules")
    assert run("knowledge", "remove", "acme", "House rules").code == 0


def test_unknown_names(run):
    for words in (("list", "acne"), ("search", "acne", "x"), ("remove", "acme", "x", "--yes")):
        result = run("knowledge", *words)
        assert result.code == 2
        assert "  try:" in result.err


def test_what_a_page_says_cannot_disturb_a_terminal(run, piped):
    piped("Evil \x1b[2J\x1b]0;title\x07 text \u202egnp.exe".encode())
    run("knowledge", "add", "acme", "-", "--title", "a\x1b[31mb")
    for words in (("list", "acme"), ("search", "acme", "evil")):
        result = run("knowledge", *words)
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out
