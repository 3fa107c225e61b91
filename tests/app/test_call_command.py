"""`callboard call` without a screen: what it prints, what it sends, and the code it ends with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.headless import Run, Town, complete, headless, only_call, town


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town")) as made:
        yield made


@pytest.fixture
def vendors(simulated: Town) -> Town:
    simulated.clear()
    return simulated


@pytest.fixture
def run(vendors: Town, monkeypatch, capsys) -> Run:
    return headless(vendors.home, monkeypatch, capsys)


HOURS = {"hear": "open", "say": "We open at eight."}
BYE = {"hear": "bye", "say": "Goodbye.", "end": True}


def said(conversation) -> list[tuple[str, str]]:
    return [(line["role"], line["text"]) for line in conversation["transcript"] if line["text"]]


# Lines in, lines out


@pytest.mark.parametrize("vendor", ["elevenlabs", "retell"])
def test_lines_are_said_in_turn_and_the_end_of_the_input_ends_the_call(vendor, run, vendors):
    agent = getattr(vendors, vendor)[0]
    vendors.script(agent, greeting="Hello, Desk here.", turns=[HOURS], fallback=["Once more?"])
    told = run("call", agent, "--transport", "text", stdin="When are you open?\n\nMumble\n")
    assert told.code == 0, told.err
    spoken = [line.split("  ", 1)[1].split("  (")[0] for line in told.out.splitlines()]
    spoken = [line for line in spoken if not line.startswith("note")]
    # Three words stand in a line: agent and you in turn, although the input was there at once.
    assert [" ".join(line.split()).rsplit(" (", 1)[0] for line in spoken] == [
        "agent Hello, Desk here.",
        "you When are you open?",
        "agent We open at eight.",
        "you Mumble",
        "agent Once more?",
    ]
    assert "script is finished: everything was said" in told.err
    row = only_call(vendors.home)
    assert (row["reason"], row["transport"], row["turns"]) == ("completed", "text", 3)
    assert complete(Path(row["folder"]))
