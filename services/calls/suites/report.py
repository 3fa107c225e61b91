"""What came of suites: rows for a table, JSON, JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from services.calls.live import percentile
from services.calls.suites.runner import RunResult, Status, TestResult

# Characters XML 1.0 cannot hold.
_UNSPEAKABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A test as one line of a table."""

    suite: str
    name: str
    agent: str
    transport: str
    status: str
    runs: str
    """`1`, or `4/5` for a repeated test."""
    p50_ms: int | None
    took_ms: int
    problem: str
    """The first thing that did not hold."""


def rows(results: Iterable[TestResult]) -> list[ReportRow]:
    found = []
    for result in results:
        plan = result.plan
        runs = f"{result.passed}/{len(result.runs)}" if len(result.runs) > 1 else "1"
        problem = ""
        if result.status is not Status.PASSED:
            problem = next((run.problems[0] for run in result.runs if run.problems), "")
        found.append(
            ReportRow(
                plan.suite,
                plan.name,
                plan.agent or "scripted",
                plan.transport,
                result.status.value,
                runs,
                percentile(result.latencies, 0.5),
                result.took_ms,
                problem,
            )
        )
    return found


def counts(results: Iterable[TestResult]) -> dict[str, int]:
    """How many tests of each status, and `total`."""
    found = {status.value: 0 for status in Status}
    for result in results:
        found[result.status.value] += 1
    return {**found, "total": sum(found.values())}


def as_json(results: Sequence[TestResult], judge: str) -> dict[str, Any]:
    """The report as JSON data. `judge` names what compared meanings."""
    return {
        "counts": counts(results),
        "judge": judge,
        "tests": [
            {
                "suite": result.plan.suite,
                "file": result.plan.file,
                "name": result.plan.name,
                "agent": result.plan.agent,
                "transport": result.plan.transport,
                "status": result.status.value,
                "hold": result.plan.hold,
                "took_ms": result.took_ms,
                "p50_ms": percentile(result.latencies, 0.5),
                "p95_ms": percentile(result.latencies, 0.95),
                "runs": [_run(run) for run in result.runs],
            }
            for result in results
        ],
    }


def _run(run: RunResult) -> dict[str, Any]:
    return {
        "number": run.number,
        "status": run.status.value,
        "took_ms": run.took_ms,
        "end": run.end,
        "problems": list(run.problems),
        "advice": run.advice,
        "steps": [
            {
                "said": step.said,
                "replies": list(step.replies),
                "latency_ms": step.latency_ms,
                "checks": [
                    {"what": check.what, "ok": check.ok, "detail": check.detail} for check in step.checks
                ],
            }
            for step in run.steps
        ],
        "transcript": list(run.transcript),
    }


def junit(results: Sequence[TestResult], judge: str, *, at: str = "") -> str:
    """JUnit XML: a test suite for each file, a case for each test. `at` is the beginning, ISO 8601."""
    whole = counts(results)
    root = ElementTree.Element("testsuites", _totals(results, whole))
    root.set("name", "callboard scenarios")
    by_file: dict[tuple[str, str], list[TestResult]] = {}
    for result in results:
        by_file.setdefault((result.plan.suite, result.plan.file), []).append(result)
    for (suite, file), members in by_file.items():
        element = ElementTree.SubElement(root, "testsuite", _totals(members, counts(members)))
        element.set("name", _clean(suite))
        if at:
            element.set("timestamp", at)
        properties = ElementTree.SubElement(element, "properties")
        for name, value in (("file", file), ("judge", judge)):
            ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value)})
        for result in members:
            _case(element, suite, result)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _totals(results: Sequence[TestResult], counted: dict[str, int]) -> dict[str, str]:
    return {
        "tests": str(counted["total"]),
        "failures": str(counted[Status.FAILED.value]),
        "errors": str(counted[Status.ERROR.value]),
        "skipped": "0",
        "time": f"{sum(result.took_ms for result in results) / 1000:.3f}",
    }


def _case(suite: ElementTree.Element, name: str, result: TestResult) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": _clean(name),
            "name": _clean(result.plan.name),
            "time": f"{result.took_ms / 1000:.3f}",
        },
    )
    if result.status is not Status.PASSED:
        problems = [problem for run in result.runs for problem in run.problems]
        kind = "failure" if result.status is Status.FAILED else "error"
        message = problems[0] if problems else "it did not hold"
        if len(result.runs) > 1:
            message = f"{result.passed} of {len(result.runs)} held, {result.plan.hold} must: {message}"
        element = ElementTree.SubElement(
            case, kind, {"message": _clean(message), "type": f"scenario.{result.status.value}"}
        )
        element.text = _clean("\n".join(problems))
    said = "\n\n".join(
        "\n".join([f"conversation {run.number}: {run.status.value}", *run.transcript]) for run in result.runs
    )
    ElementTree.SubElement(case, "system-out").text = _clean(said)


def _clean(text: str) -> str:
    return _UNSPEAKABLE.sub("\ufffd", text)
