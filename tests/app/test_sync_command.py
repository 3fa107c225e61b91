from __future__ import annotations

import asyncio
import os
import signal

import pytest

from app.commands._progress import progress_text
from services.agents.progress import LiveSync
from services.model import Outcome, OutcomeRow, Provider, RunStatus
from tests.app.fakes import DOWN, WRONG_KEY, outcome, report

UNLISTED = OutcomeRow("acme", Provider.RETELL, "", "", Outcome.FAILED, WRONG_KEY)
UNREACHED = OutcomeRow("acme", Provider.ELEVENLABS, "", "", Outcome.FAILED, DOWN)
GOOD, BAD = outcome(1, Outcome.UNCHANGED), outcome(2, Outcome.FAILED, DOWN)
REFUSED = outcome(3, Outcome.FAILED, WRONG_KEY)


@pytest.fixture
def services(services):
    return services.with_company(Provider.RETELL, Provider.ELEVENLABS)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (report(), 0),
        (report(GOOD, outcome(4, Outcome.GONE)), 0),
        (report(GOOD, BAD), 3),
        (report(BAD), 1),
        (report(GOOD, REFUSED), 5),
        (report(REFUSED, BAD), 1),
        (report(errors=(UNLISTED,)), 5),
        (report(errors=(UNREACHED,)), 3),
        (report(errors=(UNREACHED, UNREACHED)), 1),
        (report(GOOD, errors=(UNREACHED,)), 3),
        (report(GOOD, errors=(UNLISTED,)), 5),
        (report(GOOD, outcome(5, Outcome.CANCELLED), status=RunStatus.CANCELLED), 1),
        (report(status=RunStatus.FAILED), 1),
    ],
)
def test_exit_codes(result, code, callboard, services):
    services.sync.result = result
    assert callboard("sync").code == code
    shown = callboard("sync", "--json")
    assert shown.code == code
    assert shown.json["counts"] == result.counts()


def test_json_is_exactly_the_contract(callboard, services):
    services.sync.result = report(GOOD, BAD, errors=(UNLISTED,), dry_run=True)
    shown = callboard("sync", "--json").json
    assert list(shown) == [
        "schema", "run_id", "status", "agents", "counts", "requests", "duration_ms", "dry_run",
        "connections_failed",
    ]  # fmt: skip
    assert shown["agents"][1] == {
        "company": "acme",
        "provider": "retell",
        "agent_id": "agent_0002",
        "name": "Agent 2",
        "outcome": "failed",
        "error": DOWN.as_dict(),
    }
    assert shown["connections_failed"] == [
        {"company": "acme", "provider": "retell", "error": WRONG_KEY.as_dict()}
    ]


def test_a_pipe_gets_a_line_for_each_agent_that_is_not_unchanged(callboard, services):
    services.sync.result = report(GOOD, BAD)
    result = callboard("sync")
    assert result.out.splitlines() == [
        f"failed     acme  retell  agent_0002  Agent 2  {DOWN.message}",
        "2 agents: 1 unchanged, 1 failed · 5 requests · 0.8 s",
    ]
    assert DOWN.advice in result.err
    assert "agent_0001" in callboard("sync", "-v").out


def test_a_terminal_gets_a_table(callboard, services, monkeypatch):
    services.sync.result = report(GOOD, BAD, outcome(6, Outcome.CREATED))
    monkeypatch.setattr("app.commands.sync.is_terminal", lambda stream: True)
    lines = callboard("sync").out.splitlines()
    assert [line.split()[0] for line in lines] == ["OUTCOME", "created", "failed", "3"]


def test_the_same_cause_is_said_once(callboard, services):
    services.sync.result = report(*(outcome(number, Outcome.FAILED, DOWN) for number in range(1, 9)))
    err = callboard("sync").err
    assert err.count(DOWN.message) == 1
    assert "and 3 more" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"company": None, "agent": None, "force": False, "dry_run": False, "resume": None}),
        (["--all", "--force"], {"company": None, "force": True}),
        (["--company", "ACME", "--agent", "desk"], {"company": "acme", "agent": "desk"}),
        (["--dry-run", "--resume"], {"dry_run": True, "resume": "last"}),
        (["--resume", "run7"], {"resume": "run7"}),
    ],
)
def test_what_is_asked_of_the_service(words, expected, callboard, services):
    assert callboard("sync", *words).code == 0
    (request,) = services.sync.requests
    assert {name: getattr(request, name) for name in expected} == expected
    assert request.cause == "operator"
    assert request.actor


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--company", "acne"], "Did you mean acme?"), (["--resume", "--agent", "x"], "--resume")],
)
def test_wrong_words_are_2_and_ask_nothing(words, said, callboard, services):
    result = callboard("sync", *words)
    assert result.code == 2
    assert said in result.err
    assert services.sync.requests == []


def test_nothing_to_sync_is_2_with_a_hint(callboard, services):
    services.companies.links.clear()
    assert "connection add acme retell" in callboard("sync", "--company", "acme").err
    services.companies.companies.clear()
    result = callboard("sync")
    assert result.code == 2
    assert "company add" in result.err
    assert "--demo" in result.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_the_handlers_go_back(number, callboard, services, monkeypatch):
    cancelled = []
    services.sync.result = report(GOOD, outcome(2, Outcome.CANCELLED), status=RunStatus.CANCELLED)
    plain_run = services.sync.run

    asked = asyncio.Event()
    monkeypatch.setattr(services.sync, "cancel", lambda: cancelled.append(1) or asked.set() or True)

    async def run(request):
        os.kill(os.getpid(), number)
        await asked.wait()
        return await plain_run(request)

    monkeypatch.setattr(services.sync, "run", run)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = callboard("sync")
    assert result.code == 1
    assert cancelled == [1]
    assert "--resume" in result.err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_progress_text():
    live = LiveSync("r", total=42, settled=17)
    live.counts.update(unchanged=12, updated=4, failed=1)
    assert progress_text(live, 0) == "◐ syncing 17/42 ▋▋▋▋▋▋·········· 12 unchanged 4 updated 1 failed"
    assert progress_text(None, 1) == "◓ listing"
    assert progress_text(live, 0, unicode=False).isascii()
