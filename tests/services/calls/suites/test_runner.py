from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from services.calls.model import Brief
from services.calls.scenario import parse_scenario
from services.calls.suites import report
from services.calls.suites.checks import ToolCall, TurnFacts, check, includes
from services.calls.suites.judge import Judgement, LexicalJudge
from services.calls.suites.model import Latency, Means, NoTool, Plan, Reply, ReplyNot, Tool, load_suite
from services.calls.suites.runner import RunResult, Status, TestResult, run_suites
from services.calls.transport import Transport
from services.calls.transports.mock import MockTransport
from services.clock import SystemClock
from services.errors import ServiceError, UsageError
from tests.services.calls.transports.contract import nothing_left

DESK = """
word_ms: 1
think: 5
connecting: 0
steps: [{agent: "Good morning, this is the desk"}]
answers:
  - {when: bye, steps: [{agent: Goodbye}, {end: agent}]}
  - when: open
    steps:
      - {tool: hours, arguments: {day: Monday, n: 2}, took: 20, result: {from: 8}}
      - {agent: "We open at {result.from} in the morning"}
  - when: book
    steps:
      - {tool: book, where: client, arguments: {name: "{{customer}}"}, failed: "That did not work"}
      - {agent: "Booked: {result.reference}"}
  - when: pay
    steps:
      - {tool: pay, where: mcp, approval: true, failed: Not paid, took: 5}
      - {agent: Paid}
  - {when: crash, steps: [{fail: connection_lost, detail: gone}]}
  - {when: silence, steps: [{pause: 1}]}
  - when: long
    steps: [{agent: one two three four secret, interrupted: {word: 2, user: enough}}]
"""
QUICK = "quiet_ms: 40\nanswer_ms: 3000\n"


def suite(tmp_path: Path, text: str, name: str = "suite.yaml") -> list[Plan]:
    (tmp_path / name).write_text(QUICK + text, encoding="utf-8")
    return load_suite(tmp_path / name)


class Starts:
    """Opens mocks, and remembers."""

    def __init__(self, text: str = DESK, failure: ServiceError | None = None) -> None:
        self.text = text
        self.failure = failure
        self.asked: list[tuple[str, Brief, int]] = []
        self.opened: list[Transport] = []
        self.first = asyncio.Event()

    async def __call__(self, plan: Plan, brief: Brief, seed: int) -> Transport:
        self.asked.append((plan.name, brief, seed))
        if self.failure is not None:
            raise self.failure
        transport = MockTransport(parse_scenario(self.text, "desk.yaml"), clock=SystemClock(), seed=seed)
        self.opened.append(transport)
        self.first.set()
        return transport


async def run(
    plans: list[Plan], starts: Callable[..., Any] | None = None, **options: Any
) -> list[TestResult]:
    before = asyncio.all_tasks()
    starts = starts or Starts()
    results = await run_suites(plans, starts, clock=SystemClock(), **options)
    await nothing_left(before)
    if isinstance(starts, Starts):
        assert all(transport.over for transport in starts.opened)
    return results


# -- running ----------------------------------------------------------------------------------------------


async def test_everything_holds(tmp_path: Path) -> None:
    plans = suite(
        tmp_path,
        """
variables: {customer: Ana}
tools: {book: {reference: A1}}
tests:
  - name: whole
    steps:
      - expect: [{reply: ^good morning}]
      - say: When do you open?
        expect:
          - {reply: "at 8"}
          - {reply_not: "sorry"}
          - {means: "The desk opens at 8 in the morning"}
          - {tool: hours, arguments: {day: "^mon", n: 2}, ok: true}
          - {no_tool: book}
          - {latency_ms: {max: 2500}}
      - say: Please book
        expect: [{tool: book, arguments: {name: Ana}}, {reply: "Booked: A1"}]
      - say: I pay
        expect: [{reply: ^paid$}, {tool: pay, ok: true}]
      - say: bye
    end: agent_ended
""",
    )
    (result,) = await run(plans)
    assert result.runs[0].problems == ()
    assert result.status is Status.PASSED
    (only,) = result.runs
    assert only.end == "agent_ended"
    assert [step.said for step in only.steps] == ["", "When do you open?", "Please book", "I pay", "bye"]
    assert only.steps[1].latency_ms is not None
    text = "\n".join(only.transcript)
    assert "user   When do you open?" in text
    assert 'tool   hours {"day": "Monday", "n": 2} → {"from": 8}' in text


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ("[{say: open, expect: [{reply: nine}]}]", r"step 1 \(“open”\): reply matches /nine/: it said 'We "),
        ("[{say: open, expect: [{reply_not: morning}]}]", "no reply matches /morning/: it said"),
        ("[{say: open, expect: [{means: Cats like fish}]}]", r"'Cats like fish': 0\.00 of 0\.50 by the lex"),
        ("[{say: open, expect: [{tool: other}]}]", "tool other is called: called were: .*hours"),
        ("[{say: bye, expect: [{tool: other}]}]", "no tool was called"),
        ("[{say: open, expect: [{tool: hours, arguments: {day: Sunday}}]}]", "called were: .*Monday"),
        ("[{say: open, expect: [{tool: hours, ok: false}]}]", "and fails: called were"),
        ("[{say: open, expect: [{no_tool: '*'}]}]", "it called hours"),
        ("[{say: silence}, {say: open}]", r"step 1 \(“silence”\): no answer within 0\.5 s"),
        ("[{say: bye}, {say: again}]", "the call was over before “again”: the agent ended the call"),
        ("[{say: crash}]", "the call ended badly, the connection was lost: gone"),
        ("[{say: book, expect: [{reply: did not work}, {reply: never}]}]", "/never/: it said 'That did not"),
    ],
)  # fmt: skip
async def test_what_does_not_hold_says_what_there_was(tmp_path: Path, steps: str, problem: str) -> None:
    plans = suite(tmp_path, f"tests: [{{name: t, answer_ms: 500, steps: {steps}}}]")
    (result,) = await run(plans)
    assert result.status is Status.FAILED
    assert len(result.runs[0].problems) == 1
    assert re.search(problem, result.runs[0].problems[0]), result.runs[0].problems
    assert result.runs[0].transcript


@pytest.mark.parametrize(
    ("say", "end", "problem"),
    [
        ("bye", "agent_ended", ""),
        ("open", "agent_ended", "the call goes on; expected was its end: agent_ended"),
        ("bye", "busy", "the call ended with agent_ended, expected: busy"),
        ("crash", "connection_lost", ""),
    ],
)
async def test_the_end(tmp_path: Path, say: str, end: str, problem: str) -> None:
    plans = suite(tmp_path, f"tests: [{{name: t, answer_ms: 500, steps: [{{say: {say}}}], end: {end}}}]")
    (result,) = await run(plans)
    assert list(result.runs[0].problems) == ([problem] if problem else [])


async def test_a_refused_approval_and_a_tool_the_test_does_not_know(tmp_path: Path) -> None:
    plans = suite(
        tmp_path,
        """
approve: false
tests:
  - {name: pay, steps: [{say: pay, expect: [{reply: ^not paid}, {tool: pay, ok: false}]}]}
  - {name: book, steps: [{say: book, expect: [{tool: book, ok: false}]}]}
""",
    )
    results = await run(plans)
    assert [result.status for result in results] == [Status.PASSED, Status.PASSED]
    assert any("no answer for the client tool book" in line for line in results[1].runs[0].transcript)


async def test_words_that_were_cut_off_were_not_said(tmp_path: Path) -> None:
    expect = "[{reply: ^one two$}, {reply_not: secret}]"
    plans = suite(tmp_path, f"tests: [{{name: t, steps: [{{say: something long, expect: {expect}}}]}}]")
    (result,) = await run(plans)
    assert result.status is Status.PASSED, result.runs[0].problems
    assert any("[cut off after: one two]" in line for line in result.runs[0].transcript)


async def test_what_cannot_be_begun_is_an_error(tmp_path: Path) -> None:
    plans = suite(tmp_path, "tests: [{name: t, steps: [{say: hi}]}]")
    failure = ServiceError("The key is wrong", advice="Enter another", code="wrong_key")
    (result,) = await run(plans, Starts(failure=failure))
    assert result.status is Status.ERROR
    assert (result.runs[0].problems, result.runs[0].advice) == (("The key is wrong",), "Enter another")
    refusing = DESK + "refuse: {message: No credit left}\n"
    (result,) = await run(plans, Starts(refusing))
    assert result.status is Status.ERROR
    assert result.runs[0].problems == ("No credit left",)
    assert any("No credit left" in line for line in result.runs[0].transcript)


async def test_our_own_fault_is_an_error_too(tmp_path: Path) -> None:
    class Broken(Starts):
        async def __call__(self, plan: Plan, brief: Brief, seed: int) -> Transport:
            raise ZeroDivisionError("oops")

    (result,) = await run(suite(tmp_path, "tests: [{name: t, steps: [{say: hi}]}]"), Broken())
    assert result.status is Status.ERROR
    assert "ZeroDivisionError" in result.runs[0].problems[0]


async def test_a_conversation_that_does_not_end_is_ended(tmp_path: Path) -> None:
    steps = "[{say: silence, expect: [{reply: x}]}]"
    plans = suite(tmp_path, f"tests: [{{name: t, timeout: 200, answer_ms: 60000, steps: {steps}}}]")
    (result,) = await run(plans)
    assert result.status is Status.FAILED
    assert result.runs[0].problems == ("it was not over after 0.2 s",)


async def test_repeats_have_seeds_of_their_own_and_may_hold_in_part(tmp_path: Path) -> None:
    plans = suite(tmp_path, "tests: [{name: t, seed: 7, repeat: 3, hold: 2, steps: [{say: open}]}]")

    class Sometimes(Starts):
        async def __call__(self, plan: Plan, brief: Brief, seed: int) -> Transport:
            transport = await super().__call__(plan, brief, seed)
            if seed == 8:
                raise ServiceError("once")
            return transport

    starts = Sometimes()
    results = await run_suites(plans, starts, clock=SystemClock())
    for transport in starts.opened:
        await transport.close()
    assert sorted(seed for *_, seed in starts.asked) == [7, 8, 9]
    assert [each.status for each in results[0].runs] == [Status.PASSED, Status.ERROR, Status.PASSED]
    assert results[0].status is Status.PASSED


async def test_no_more_conversations_at_once_than_jobs(tmp_path: Path) -> None:
    tests = ", ".join(f"{{name: t{n}, steps: [{{say: open}}]}}" for n in range(6))
    plans = suite(tmp_path, f"tests: [{tests}]")
    most = open_now = 0

    class Counting(Starts):
        async def __call__(self, plan: Plan, brief: Brief, seed: int) -> Transport:
            nonlocal most, open_now
            open_now = sum(not transport.over for transport in self.opened) + 1
            most = max(most, open_now)
            return await super().__call__(plan, brief, seed)

    done: list[str] = []
    results = await run(plans, Counting(), jobs=2, on_done=lambda result: done.append(result.plan.name))
    assert most == 2
    assert [result.plan.name for result in results] == [f"t{n}" for n in range(6)]
    assert sorted(done) == [f"t{n}" for n in range(6)]


async def test_cancelling_hangs_up(tmp_path: Path) -> None:
    plans = suite(
        tmp_path, "tests: [{name: t, steps: [{say: silence, expect: [{reply: x}], within: 60000}]}]"
    )
    before = asyncio.all_tasks()
    starts = Starts()
    task = asyncio.create_task(run_suites(plans, starts, clock=SystemClock()))
    async with asyncio.timeout(10):
        await starts.first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert starts.opened[0].over
    await nothing_left(before)


async def test_a_brief_and_its_row(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("variables: {customer: '{{ name }}'}\ndata: p.csv\n")
    (tmp_path / "p.csv").write_text("name\nAna\nBo\n")
    plans = suite(
        tmp_path,
        """
brief: b.yaml
row: 1
tools: {book: {reference: Z}}
tests:
  - {name: one, steps: [{say: book, expect: [{tool: book, arguments: {name: Ana}}]}]}
  - {name: two, row: name=Bo, variables: {extra: 1}, steps: [{say: book, expect: [{tool: book, arguments: {name: Bo}}]}]}
  - {name: three, row: 9, steps: [{say: book}]}
""",  # noqa: E501
    )
    starts = Starts()
    results = await run(plans, starts, jobs=1)
    assert [result.status for result in results] == [Status.PASSED, Status.PASSED, Status.ERROR]
    assert starts.asked[1][1].variables == {"customer": "Bo", "extra": 1}
    assert "no row 9" in results[2].runs[0].problems[0]


async def test_another_judge(tmp_path: Path) -> None:
    class Generous:
        label = "a generous judge"

        async def judge(self, said: str, meant: str) -> Judgement:
            return Judgement(1.0)

    plans = suite(tmp_path, "tests: [{name: t, steps: [{say: open, expect: [{means: Cats like fish}]}]}]")
    (result,) = await run(plans, judge=Generous())
    assert result.status is Status.PASSED
    assert "generous" in result.runs[0].steps[0].checks[0].detail


# -- the judge and the checks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "meant", "holds"),
    [
        ("We are open Monday to Friday from eight to six.", "open from Monday to Friday", True),
        ("Wir haben montags bis freitags geöffnet.", "Geöffnet Montag bis Freitag", True),
        ("Hello! What a day. We open at eight. Anything else?", "we open at eight", True),
        ("We are not open on Monday.", "We are open on Monday", False),
        ("We don't open on Monday.", "We open on Monday", False),
        ("We don’t open on Monday.", "We do not open on Monday", True),
        ("The weather is fine.", "We open at eight", False),
        ("", "We open at eight", False),
        ("anything", "…", False),
    ],
)
async def test_the_lexical_judge(said: str, meant: str, holds: bool) -> None:
    judgement = await LexicalJudge().judge(said, meant)
    assert 0 <= judgement.score <= 1
    assert (judgement.score >= 0.6) is holds, judgement
    assert "not meaning" in LexicalJudge().label


@pytest.mark.parametrize(
    ("given", "wanted", "holds"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": {"b": "Ana Weber", "c": 3}}, {"a": {"b": "weber"}}, True),
        ({"a": [1, {"b": 2}]}, {"a": [1, {}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": 12}, {"a": "^1"}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": None}, {"a": None}, True),
        ({"a": "x("}, {"a": "x("}, True),
        ({"a": "y"}, {"a": "x("}, False),
        ("text", {"a": 1}, False),
    ],
)
def test_partial_arguments(given: Any, wanted: Any, holds: bool) -> None:
    assert includes(given, wanted) is holds


async def test_each_expectation_of_a_silent_turn() -> None:
    nothing = TurnFacts((), (), None)
    judge = LexicalJudge()
    expected = [
        (Reply(reply="x"), False),
        (ReplyNot(reply_not="x"), True),
        (Means(means="x"), False),
        (Tool(tool="x"), False),
        (NoTool(no_tool="x"), True),
        (Latency.model_validate({"latency_ms": {"max": 5}}), False),
    ]
    for expectation, holds in expected:
        found = await check(expectation, nothing, judge)
        assert found.ok is holds, found
        assert found.ok or found.detail
    late = TurnFacts(("hi",), (ToolCall("x", {}),), 6)
    assert not (await check(expected[-1][0], late, judge)).ok
    # A pattern may reach over two replies.
    assert (await check(Reply(reply="hello.*world"), TurnFacts(("hello", "world"), (), 1), judge)).ok


# -- the file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests: []", r"tests: "),
        ("tests: [{name: t, steps: []}]", r"tests\[1\]\.steps"),
        ("tests: [{name: t, steps: [{}]}]", "say, inform or expect is expected"),
        ("tests:\n  - name: t\n    stps: []", r"there is no stps here; did you mean steps\?"),
        (
            "tests: [{name: t, steps: [{say: x, expect: [{replay: y}]}]}]",
            "an expectation has one of the keys",
        ),
        ("tests: [{name: t, steps: [{say: x, expect: [{reply: '('}]}]}]", "not a regular expression"),
        ("tests: [{name: t, steps: [{say: x}], end: agent_end}]", "did you mean agent_ended"),
        ("tests: [{name: t, steps: [{say: x}]}, {name: t, steps: [{say: x}]}]", "two tests are named 't'"),
        ("tests: [{name: t, repeat: 2, hold: 3, steps: [{say: x}]}]", "3 of 2 cannot hold"),
        ("transport: phone\ntests: [{name: t, steps: [{say: x}]}]", "mock or text is expected"),
        ("scenario: none.yaml\ntests: [{name: t, steps: [{say: x}]}]", r"none\.yaml, which is not there"),
        ("row: [1]\ntests: [{name: t, steps: [{say: x}]}]", "row's number or key=value"),
    ],
)
def test_a_mistake_in_a_suite(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        suite(tmp_path, text)
    assert "suite.yaml" in caught.value.message


def test_what_a_test_leaves_out_comes_from_its_suite(tmp_path: Path) -> None:
    one, two = suite(
        tmp_path,
        """
agent: Desk
seed: 5
variables: {a: 1, b: 2}
approve: false
tests:
  - {name: one, steps: [{say: x}]}
  - {name: two, agent: Other, transport: mock, seed: 0, variables: {b: 3}, approve: true, steps: [{say: x}]}
""",
    )
    assert (one.agent, one.transport, one.seed, one.approve) == ("Desk", "text", 5, False)
    assert (two.agent, two.transport, two.seed, two.approve) == ("Other", "mock", 0, True)
    assert two.variables == {"a": 1, "b": 3}
    again = load_suite(tmp_path / "suite.yaml", agent="Third", transport="mock")
    assert {plan.agent for plan in again} == {"Third"}
    assert {plan.transport for plan in again} == {"mock"}


# -- reports ------------------------------------------------------------------------------------------------

# The parts of the JUnit schema that readers agree on: element, its attributes, its children.
JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"tests", "failures", "errors"}, {"name", "time", "skipped"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "timestamp", "skipped", "hostname", "id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "testcase": (
        {"name", "classname"},
        {"time"},
        {"failure", "error", "skipped", "system-out", "system-err"},
    ),
    "failure": (set(), {"message", "type"}, set()),
    "error": (set(), {"message", "type"}, set()),
    "system-out": (set(), set(), set()),
}  # fmt: skip


def valid_junit(element: ElementTree.Element) -> None:
    must, may, children = JUNIT[element.tag]
    assert must <= set(element.attrib) <= must | may, element.attrib
    for name in ("tests", "failures", "errors", "skipped"):
        assert element.get(name, "0").isdecimal()
    assert float(element.get("time", "0")) >= 0
    for child in element:
        assert child.tag in children, (element.tag, child.tag)
        valid_junit(child)


async def test_junit_is_valid_and_tells_everything(tmp_path: Path) -> None:
    plans = suite(
        tmp_path,
        """
name: Desk <&> "more"
tests:
  - {name: good, steps: [{say: open}]}
  - {name: bad, repeat: 2, answer_ms: 200, steps: [{say: "open \\e[2J", expect: [{reply: nine}]}]}
""",
    )
    plans += suite(tmp_path, "tests: [{name: broken, row: 1, steps: [{say: x}]}]", "other.yaml")
    plans[2] = plans[2].model_copy(update={"brief": tmp_path / "none.yaml"})
    results = await run(plans)
    text = report.junit(results, "a judge", at="2026-01-01T00:00:00.000")
    root = ElementTree.fromstring(text.encode())
    valid_junit(root)
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    first, second = root.findall("testsuite")
    assert first.get("name") == 'Desk <&> "more"'
    assert second.get("name") == "other"
    failure = first.find("testcase[@name='bad']/failure")
    assert failure is not None
    assert "0 of 2 held, 2 must: " in failure.get("message", "")
    out = first.findtext("testcase[@name='bad']/system-out") or ""
    assert "conversation 2: failed" in out
    assert "\x1b" not in out
    assert second.find("testcase/error") is not None


async def test_rows_and_json(tmp_path: Path) -> None:
    plans = suite(
        tmp_path,
        """
tests:
  - {name: a, steps: [{say: open}]}
  - {name: b, answer_ms: 200, steps: [{say: open, expect: [{reply: zz}]}]}
""",
    )
    results = await run(plans)
    one, two = report.rows(results)
    assert (one.status, one.problem, one.agent) == ("passed", "", "scripted")
    assert one.p50_ms is not None
    assert two.status == "failed"
    assert "/zz/" in two.problem
    data = report.as_json(results, "j")
    assert data["counts"] == {"passed": 1, "failed": 1, "error": 0, "total": 2}
    assert data["tests"][1]["runs"][0]["steps"][0]["checks"][0]["ok"] is False
    assert data["tests"][1]["runs"][0]["transcript"]


def test_a_test_that_could_not_be_held_often_enough_is_an_error(tmp_path: Path) -> None:
    (plan,) = suite(tmp_path, "tests: [{name: a, repeat: 3, hold: 2, steps: [{say: x}]}]")

    def status(*states: Status) -> Status:
        return TestResult(plan, tuple(RunResult(n, state, 1) for n, state in enumerate(states))).status

    ok, bad, broken = Status.PASSED, Status.FAILED, Status.ERROR
    assert status(ok, ok, bad) is ok
    assert status(ok, broken, bad) is broken
    assert status(bad, bad, broken) is bad
