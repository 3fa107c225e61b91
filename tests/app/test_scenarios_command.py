from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from services.calls.model import Brief, TransportKind
from services.calls.scenario import EXAMPLES, OTHERS, parse_scenario
from services.calls.transports.mock import MockTransport
from services.clock import SystemClock
from services.errors import Category, ServiceError
from services.resilience import OnWait
from tests.app.fakes import card

DESK = """
word_ms: 1
think: 1
connecting: 0
steps: [{agent: Hello}]
answers: [{when: open, steps: [{agent: We open at eight}]}, {when: bye, steps: [{end: agent}]}]
"""
SUITE = """
name: Desk
quiet_ms: 40
answer_ms: 1500
tests:
  - name: Hours
    steps: [{say: "When do you open?", expect: [{reply: eight}, {means: We open at eight}]}]
  - name: Good-bye
    steps: [{say: bye}]
    end: agent_ended
"""
BAD = """
name: Bad
quiet_ms: 40
answer_ms: 200
tests:
  - name: Wrong
    steps: [{say: "When do you open?", expect: [{reply: nine}]}]
"""


@dataclass
class FakeCalls:
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    failure: ServiceError | None = None
    turns: list[int] = field(default_factory=list)
    waits: tuple[float, ...] = ()

    async def open_transport(
        self,
        agent_row: int | None,
        kind: TransportKind,
        brief: Brief,
        *,
        scenario: Path | None = None,
        seed: int = 0,
        turns: int = 0,
        on_wait: OnWait | None = None,
    ) -> MockTransport:
        self.asked.append((agent_row, kind, scenario, seed))
        self.turns.append(turns)
        for wait in self.waits:
            assert on_wait is not None
            on_wait(ServiceError(f"Room again in {wait} s", code="limited", retry_after=wait))
        if self.failure is not None:
            raise self.failure
        return MockTransport(parse_scenario(DESK, "desk.yaml"), clock=SystemClock(), seed=seed)


@pytest.fixture
def calls(services) -> FakeCalls:
    services.calls = FakeCalls()
    services.clock = SystemClock()
    services.agents.items = [card(3, name="Front desk"), card(4, name="Back office")]
    return services.calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(SUITE)
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "desk.yaml").write_text(DESK)
    return tmp_path


def test_a_suite_that_holds(callboard, calls, folder):
    result = callboard("scenarios", "run", str(folder / "good.yaml"))
    assert result.code == 0
    assert "2 of 2 tests held" in result.out
    assert "passed" in result.out
    assert "lexical" in result.err  # nobody takes it for an understanding of meaning
    assert [each[:2] for each in calls.asked] == [(None, TransportKind.MOCK)] * 2


def test_a_real_agent_is_found_by_its_name(callboard, calls, folder):
    result = callboard("scenarios", "run", str(folder / "good.yaml"), "--agent", "front", "--jobs", "1")
    assert result.code == 0
    assert [each[:2] for each in calls.asked] == [(3, TransportKind.TEXT)] * 2
    result = callboard("scenarios", "run", str(folder / "good.yaml"), "--agent", "fron desk")
    assert result.code == 2
    assert "Did you mean Front desk?" in result.err
    assert len(calls.asked) == 2


def test_some_that_do_not_hold(callboard, calls, folder):
    result = callboard("scenarios", "run", str(folder / "good.yaml"), str(folder / "bad.yaml"))
    assert result.code == 3
    assert "2 of 3 tests held, 1 did not" in result.out
    assert "did not hold: step 1 (“When do you open?”): reply matches /nine/" in result.out
    assert "user   When do you open?" in result.out
    assert callboard("scenarios", "run", str(folder / "bad.yaml")).code == 1


def test_what_cannot_be_run(callboard, calls, folder):
    calls.failure = ServiceError(
        "Retell refused the key", category=Category.AUTHENTICATION, advice="Enter the right one"
    )
    result = callboard("scenarios", "run", str(folder / "good.yaml"))
    assert result.code == 1
    assert "2 could not be held" in result.out
    assert "Enter the right one" in result.out


def test_what_a_suite_asks_is_counted_before_it_begins_and_a_wait_is_told(callboard, calls, folder):
    calls.waits = (0.4, 31.0)
    result = callboard("scenarios", "run", str(folder / "good.yaml"), "--agent", "front", "--jobs", "1")
    assert result.code == 0
    assert calls.turns == [1, 1]
    assert result.err.count("waits ") == 2
    assert "waits   Desk · Hours: Room again in 31.0 s" in result.err
    quiet = callboard("scenarios", "run", str(folder / "good.yaml"), "--agent", "front", "--json")
    assert quiet.err == ""


def test_json_and_junit(callboard, calls, folder):
    junit = folder / "report.xml"
    files = [str(folder / "good.yaml"), str(folder / "bad.yaml")]
    result = callboard("scenarios", "run", *files, "--json", "--junit", str(junit))
    assert result.code == 3
    assert result.err == ""
    assert result.json["counts"] == {"passed": 2, "failed": 1, "error": 0, "total": 3}
    root = ElementTree.parse(junit).getroot()
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    missing = callboard("scenarios", "run", *files, "--junit", str(folder / "no" / "x.xml"))
    assert missing.code == 2
    assert "There is no folder" in missing.err


def test_only_some(callboard, calls, folder):
    result = callboard("scenarios", "run", str(folder / "good.yaml"), "--only", "hours", "--json")
    assert [test["name"] for test in result.json["tests"]] == ["Hours"]
    result = callboard("scenarios", "run", str(folder / "good.yaml"), "--only", "Hourz")
    assert result.code == 2
    assert "Did you mean Hours?" in result.err


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (SUITE.replace("name: Desk", "nme: Desk"), [], "there is no nme here; did you mean name?"),
        (SUITE, ["--transport", "text"], "which agent is Hours to test?"),
        (SUITE, ["--transport", "phone"], "--transport"),
        (SUITE, ["--jobs", "0"], "--jobs"),
        (SUITE + "scenario: broken.yaml\n", [], "there is no stps here"),
        (SUITE.replace('"When do you open?"', "When?"), [], "in quotes"),
    ],
)
def test_a_wrong_file_or_line_runs_nothing(callboard, calls, tmp_path, text, words, message):
    (tmp_path / "s.yaml").write_text(text)
    (tmp_path / "broken.yaml").write_text("stps: []")
    result = callboard("scenarios", "run", str(tmp_path / "s.yaml"), *words)
    assert result.code == 2
    assert message in result.err
    assert not calls.asked
    assert callboard("scenarios", "run", str(tmp_path / "none.yaml")).code == 2


def test_check(callboard, folder):
    files = [str(folder / name) for name in ("good.yaml", "desk.yaml")]
    result = callboard("scenarios", "check", *files)
    assert result.code == 0
    assert "a suite of 2 tests" in result.out
    assert "a scenario" in result.out
    (folder / "wrong.yaml").write_text("steps:\n  - agent: Hi\n    dely: 2\n")
    result = callboard("scenarios", "check", *files, str(folder / "wrong.yaml"))
    assert result.code == 2
    assert "wrong.yaml, line 3: steps[1]: there is no dely here; did you mean delay?" in result.out
    found = callboard("scenarios", "check", *files, str(folder / "wrong.yaml"), "--json").json["files"]
    assert [each["kind"] for each in found] == ["suite", "scenario", "scenario"]
    assert [bool(each["problem"]) for each in found] == [False, False, True]


def test_examples_are_listed_printed_and_right(callboard, tmp_path):
    listed = callboard("scenarios", "example").out
    for name in (*OTHERS, *EXAMPLES):
        assert name in listed
        (tmp_path / f"{name}.yaml").write_text(callboard("scenarios", "example", name).out)
    (tmp_path / "brief.yaml").unlink()  # no scenario; a test of its own reads it
    result = callboard("scenarios", "check", *map(str, sorted(tmp_path.glob("*.yaml"))))
    assert result.code == 0
    assert callboard("scenarios", "example", "nonsense").code == 2


def test_the_example_suite_holds(callboard, calls, tmp_path, services, monkeypatch):
    """Against the built-in desk, as a first try of the program would."""
    from services.calls.scenario import default_scenario

    async def desk(*arguments: Any, **named: Any) -> MockTransport:
        quick = {"word_ms": 1, "latency": {}, "think": (1.0, 2.0)}
        scenario = default_scenario().model_copy(update=quick)
        return MockTransport(scenario, clock=SystemClock())

    monkeypatch.setattr(calls, "open_transport", desk)
    (tmp_path / "s.yaml").write_text(callboard("scenarios", "example", "suite").out)
    result = callboard("scenarios", "run", str(tmp_path / "s.yaml"))
    assert result.code == 0, result.out
