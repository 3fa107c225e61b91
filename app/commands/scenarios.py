"""`callboard scenarios run|check|example`: scripted conversations that test agents."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands._names import find_agent
from app.commands._run import with_services
from app.output import (
    ExitCode,
    emit_json,
    iso,
    paint,
    plural,
    print_table,
    say,
    seconds,
    write_line,
)
from app.parsing import positive
from services.calls.model import TransportKind
from services.errors import ServiceError, UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.calls.model import Brief
    from services.calls.suites.model import Plan
    from services.calls.suites.runner import TestResult
    from services.calls.transport import Transport
    from services.container import Services

JOBS = 4
TOLD_SECONDS = 2.0
"""A shorter wait for room in the limits is not worth a word."""
STYLES = {"passed": "green", "failed": "red", "error": "red"}
DESCRIPTION = """\
A suite says what the user says and what must hold of the agent: words or meaning of its answers, tools it
calls with which arguments, how fast it answers, how the call ends. It runs over typed conversations with a
real agent (text) or against a script (mock).
"""
RUN_EXAMPLES = """\
examples:
  callboard scenarios run reception.yaml --agent "Front desk"
  callboard scenarios run suites/*.yaml --jobs 8 --junit report.xml
  callboard scenarios run reception.yaml --transport mock --only "Opening hours"

exit codes: 0 all held, 1 none held or none could be run, 2 a file, a name or the command line is wrong,
3 some did not hold
"""
EXAMPLE_EXAMPLES = """\
examples:
  callboard scenarios example suite > suite.yaml       tests of an agent
  callboard scenarios example brief > brief.yaml       what a call is told beforehand
  callboard scenarios example reception > desk.yaml    what a mock plays: callboard call --scenario desk.yaml
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "scenarios", help="test agents with scripted conversations", description=DESCRIPTION
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run_them = actions.add_parser("run", help="run suites of tests", epilog=RUN_EXAMPLES)
    run_them.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a suite (YAML)")
    run_them.add_argument("--agent", metavar="AGENT", default="", help="whom to test, instead of the file's")
    run_them.add_argument("--transport", choices=("mock", "text"), default="", help="instead of the file's")
    run_them.add_argument("--only", metavar="NAME", action="append", default=[], help="only this test")
    run_them.add_argument("--jobs", metavar="N", type=positive, default=JOBS, help="conversations at once")
    run_them.add_argument("--junit", metavar="FILE", type=Path, help="write a JUnit XML report")
    run_them.add_argument("--json", action="store_true", help="print one JSON object")
    check = actions.add_parser("check", help="read suites and scenarios, and say what is wrong in them")
    check.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a suite or a scenario (YAML)")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    example = actions.add_parser("example", help="print an example to begin with", epilog=EXAMPLE_EXAMPLES)
    example.add_argument("name", nargs="?", metavar="NAME", help="without it: list them")


def run(args: Namespace) -> int:
    if args.action == "example":
        return _example(args)
    if args.action == "check":
        return _check(args)
    plans = _plans(args)
    if args.junit is not None and not args.junit.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {clean_line(str(args.junit.absolute().parent))}", code="no_folder"
        )
    real = any(plan.transport != TransportKind.MOCK for plan in plans)
    return with_services(args, lambda services: _run(services, args, plans), vendors=real)


# -- example and check --------------------------------------------------------------------------------


def _example(args: Namespace) -> int:
    from services.calls.scenario import EXAMPLES, OTHERS, example_text

    if args.name:
        sys.stdout.write(example_text(args.name))
        return ExitCode.DONE
    print_table(
        ("NAME", "WHAT"),
        [(name, _first_line(example_text(name))) for name in (*OTHERS, *EXAMPLES)],
    )
    return ExitCode.DONE


def _first_line(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ").strip()


def _check(args: Namespace) -> int:
    found = [_checked(path) for path in args.files]
    if args.json:
        emit_json(
            "scenario-check",
            {
                "files": [
                    {"file": name, "kind": kind, "tests": tests, "problem": problem}
                    for name, kind, tests, problem in found
                ]
            },
        )
    else:
        for name, kind, tests, problem in found:
            what = f"a suite of {plural(tests, 'test')}" if kind == "suite" else "a scenario for a mock"
            word = paint("wrong", "red") if problem else paint("right", "green")
            write_line(f"{word}  {clean_line(problem) if problem else f'{clean_line(name)}: {what}'}")
    return ExitCode.USAGE if any(problem for *_, problem in found) else ExitCode.DONE


def _checked(path: Path) -> tuple[str, str, int, str]:
    """File, what it is, how many tests it holds, and what is wrong with it."""
    from services import yaml_files
    from services.calls.scenario import load_scenario
    from services.calls.suites.model import load_suite

    kind = ""
    try:
        data, _ = yaml_files.parse(yaml_files.read_text(path), clean_line(path.name))
        kind = "suite" if isinstance(data, dict) and "tests" in data else "scenario"
        if kind == "suite":
            plans = load_suite(path)
            for scenario in {plan.scenario for plan in plans if plan.scenario is not None}:
                load_scenario(scenario)
            return str(path), kind, len(plans), ""
        load_scenario(path)
    except ServiceError as error:
        return str(path), kind, 0, error.message
    return str(path), kind, 0, ""


# -- run ----------------------------------------------------------------------------------------------


def _plans(args: Namespace) -> list[Plan]:
    """Every test that is to run. Raises UsageError."""
    from services.calls.scenario import load_scenario
    from services.calls.suites.model import load_suite

    every = [
        plan for path in args.files for plan in load_suite(path, agent=args.agent, transport=args.transport)
    ]
    plans = every
    if args.only:
        from app.commands._names import match_name

        names = list(dict.fromkeys(plan.name for plan in every))
        wanted = {match_name("test", name, names) for name in args.only}
        plans = [plan for plan in every if plan.name in wanted]
    for plan in plans:
        if plan.transport != TransportKind.MOCK and not plan.agent:
            raise UsageError(
                f"{plan.file}: which agent is {clean_line(plan.name)} to test?",
                advice="Write agent: NAME into the file, or add --agent NAME",
                code="no_agent",
            )
    for scenario in {plan.scenario for plan in plans if plan.scenario is not None}:
        load_scenario(scenario)
    return plans


async def _run(services: Services, args: Namespace, plans: list[Plan]) -> int:
    from services.calls.suites import report
    from services.calls.suites.judge import LexicalJudge
    from services.calls.suites.runner import run_suites

    agents = await _agents(services, plans)
    judge = LexicalJudge()

    async def start_call(plan: Plan, brief: Brief, seed: int) -> Transport:
        def waits(refusal: ServiceError) -> None:
            if not args.json and (refusal.retry_after or 0) >= TOLD_SECONDS:
                say(f"{'waits':<6}  {clean_line(f'{plan.suite} · {plan.name}: {refusal.message}')}")

        return await services.calls.open_transport(
            agents.get(plan.agent),
            TransportKind(plan.transport),
            brief,
            scenario=plan.scenario,
            seed=seed,
            turns=sum(bool(step.say) for step in plan.steps),
            on_wait=waits,
        )

    def tell(result: TestResult) -> None:
        if not args.json:
            word = paint(f"{result.status.value:<6}", STYLES[result.status.value], sys.stderr)
            name = clean_line(f"{result.plan.suite} · {result.plan.name}")
            say(f"{word}  {name} ({seconds(result.took_ms)})")

    began = services.clock.now()
    results = await run_suites(
        plans, start_call, clock=services.clock, jobs=args.jobs, judge=judge, on_done=tell
    )
    if args.junit is not None:
        text = report.junit(results, judge.label, at=(iso(began) or "").removesuffix("Z"))
        await asyncio.to_thread(_write, args.junit, text)
    if args.json:
        emit_json("scenarios", report.as_json(results, judge.label))
    else:
        _print(results, judge.label)
    counted = report.counts(results)
    if counted["passed"] == counted["total"]:
        return ExitCode.DONE
    return ExitCode.PARTIAL if counted["passed"] else ExitCode.FAILED


async def _agents(services: Services, plans: list[Plan]) -> dict[str, int]:
    """The mirror's id of every agent that is named. A mock needs none. Raises UsageError."""
    named = {plan.agent for plan in plans if plan.transport != TransportKind.MOCK}
    if not named:
        return {}
    from app.commands._secrets import unlocked

    await unlocked(services)
    cards = await services.agents.cards()
    return {name: find_agent(cards, name).id for name in sorted(named)}


def _print(results: list[TestResult], judge: str) -> None:
    """The table; then every test that did not hold, with what was said."""
    from services.calls.suites import report
    from services.calls.suites.model import Means

    write_line()
    print_table(
        ("STATUS", "SUITE", "TEST", "AGENT", "TRANSPORT", "HELD", "P50", "TOOK", "PROBLEM"),
        [
            (
                row.status,
                row.suite,
                row.name,
                row.agent,
                row.transport,
                row.runs,
                "" if row.p50_ms is None else f"{row.p50_ms} ms",
                seconds(row.took_ms),
                row.problem,
            )
            for row in report.rows(results)
        ],
        right=(6, 7),
        styles=STYLES,
    )
    for result in results:
        if result.status.value == "passed":
            continue
        for run in result.runs:
            if run.status.value == "passed":
                continue
            number = f", conversation {run.number}" if len(result.runs) > 1 else ""
            write_line()
            write_line(paint(clean_line(f"{result.plan.suite} · {result.plan.name}{number}"), "bold"))
            for problem in run.problems:
                write_line(f"  {paint('did not hold:', 'red')} {clean_line(problem)}")
            if run.advice:
                write_line(f"  {paint('try:', 'cyan')} {clean_line(run.advice)}")
            for line in run.transcript:
                write_line(f"    {line}")
    counted = report.counts(results)
    write_line()
    write_line(
        f"{counted['passed']} of {plural(counted['total'], 'test')} held"
        + (f", {counted['failed']} did not" if counted["failed"] else "")
        + (f", {counted['error']} could not be held" if counted["error"] else "")
    )
    steps = [step for result in results for step in result.plan.steps]
    if any(isinstance(each, Means) for step in steps for each in step.expect):
        say(f"meanings were compared by the {judge}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ServiceError(
            f"{clean_line(str(path))} could not be written: {(error.strerror or 'no access').lower()}"
        ) from None
