from __future__ import annotations

import json

import pytest

from app.masking import MASK
from services.agents import AgentEvent, AuditRow, BundlePart, BundleView
from services.model import Drift, Outcome, Provider, RunStatus, SyncRunInfo, SyncStatus
from tests.app.fakes import DOWN, MINUTE, NOW, card, outcome

WIRE = '{"z": 1.50, "name":"Ana\u202e", "headers": {"Authorization": "Bearer abc"}}'


@pytest.fixture
def agents(services):
    services.agents.items = [
        card(1, name="Front desk"),
        card(2, name="Front office", provider=Provider.ELEVENLABS, status=SyncStatus.ERROR, error=DOWN),
        card(
            3,
            name="Night\x1b[2J line",
            company="beta",
            checked_at=NOW - 90 * MINUTE,
            drift=Drift.REMOTE_AHEAD,
        ),
        card(4, name="Gone one", company="beta", gone_at=NOW - MINUTE, checked_at=None),
    ]
    part = BundlePart("agent", "agent_0001", WIRE)
    services.agents.bundles[1] = BundleView((part,), "d1", NOW)
    services.agents.events = [AgentEvent(NOW, Outcome.FAILED, "hourly", "", DOWN, "run1")]
    return services.agents


def test_list_shows_the_mirror_and_its_age(callboard, agents):
    result = callboard("agents", "list")
    assert result.code == 0
    assert result.err == "mirror 4 min old · 4 agents\n"
    lines = result.out.splitlines()
    assert lines[0].split() == ["COMPANY", "VENDOR", "AGENT", "NAME", "STATUS", "DRIFT", "RELEASE", "CHECKED"]
    assert "synced" in lines[1]
    assert "error" in lines[2]
    assert lines[3].endswith("1 h (stale)")
    assert "\x1b" not in result.out
    assert "gone" in lines[4]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], [1, 2, 3, 4]),
        (["--company", "ACME"], [1, 2]),
        (["--filter", "front !vendor:elevenlabs"], [1]),
        (["--filter", "status:error,gone"], [2, 4]),
        (["--filter", "nothing like it"], []),
    ],
)
def test_list_json(words, ids, callboard, agents):
    result = callboard("agents", "list", "--json", *words)
    assert [agent["id"] for agent in result.json["agents"]] == ids
    assert result.json["mirror_age_ms"] == 4 * MINUTE
    assert result.err == ""


def test_list_json_tells_stale_errors_and_times(callboard, agents):
    found = {agent["id"]: agent for agent in callboard("agents", "list", "--json").json["agents"]}
    assert [found[number]["stale"] for number in (1, 2, 3, 4)] == [False, False, True, False]
    assert found[2]["error"] == DOWN.as_dict()
    assert found[1]["checked_at"] == "2025-10-09T08:49:20.000Z"
    assert found[3]["name"] == "Night\x1b[2J line"


def test_an_empty_mirror_says_so(callboard, services):
    services.agents.synced_at = None
    result = callboard("agents", "list")
    assert (result.code, result.out) == (0, "")
    assert "callboard sync" in result.err
    assert callboard("agents", "list", "--json").json["mirror_age_ms"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--company", "acne"], "Did you mean acme?"), (["--filter", "statsu:error"], "Did you mean status")],
)
def test_wrong_names_are_2(words, said, callboard, agents):
    result = callboard("agents", "list", *words)
    assert result.code == 2
    assert said in result.err


@pytest.mark.parametrize("wanted", ["agent_0001", "1", "front DESK", "desk"])
def test_show_finds_one_agent(wanted, callboard, agents):
    assert callboard("agents", "show", wanted, "--json").json["agent"]["id"] == 1


def test_show_lists_the_candidates(callboard, agents):
    result = callboard("agents", "show", "front")
    assert result.code == 2
    assert "Front desk (agent_0001, acme)" in result.err
    assert "Front office (agent_0002, acme)" in result.err
    assert "Did you mean Front desk?" in callboard("agents", "show", "Frnt dsk").err


def test_show_says_the_error_and_what_to_do(callboard, agents):
    result = callboard("agents", "show", "Front office")
    assert result.code == 0
    assert DOWN.message in result.out
    assert DOWN.advice in result.out
    assert "hourly" in result.out
    assert "mirror 4 min old" in result.err


def test_show_json(callboard, agents):
    shown = callboard("agents", "show", "1", "--json").json
    assert shown["bundle"]["parts"] == [{"kind": "agent", "id": "agent_0001", "bytes": len(WIRE.encode())}]
    assert shown["history"][0]["error"] == DOWN.as_dict()
    assert callboard("agents", "show", "2", "--json").json["bundle"] is None


def test_raw_is_the_wire_with_its_secrets_masked(callboard, agents):
    result = callboard("agents", "show", "1", "--raw")
    assert result.out == WIRE.replace("Bearer abc", MASK) + "\n"
    assert "1 value masked" in result.err


def test_raw_moves_no_cursor_on_a_terminal(callboard, agents, monkeypatch):
    monkeypatch.setattr("app.commands.agents.is_terminal", lambda stream: True)
    out = callboard("agents", "show", "1", "--raw").out
    assert "\u202e" not in out
    assert json.loads(out)["name"] == "Ana\u202e"


def test_raw_of_an_agent_never_read(callboard, agents):
    result = callboard("agents", "show", "4", "--raw")
    assert (result.code, result.out) == (1, "")


@pytest.fixture
def past(services):
    services.agents.past = [
        SyncRunInfo(
            "ab12", "all", "operator", "ana", True, RunStatus.PARTIAL, NOW, NOW + 900, {"failed": 1}, 7
        ),
        SyncRunInfo("ac34", "acme", "hourly", "", False, RunStatus.RUNNING, NOW, None),
    ]
    services.agents.outcomes = [outcome(1, Outcome.FAILED, DOWN)]


def test_runs(callboard, past):
    assert "all (forced)" in callboard("runs").out
    assert [run["run_id"] for run in callboard("runs", "--json").json["runs"]] == ["ab12", "ac34"]
    assert DOWN.message in callboard("runs", "ab").out
    assert callboard("runs", "ab", "--json").json["agents"][0]["error"] == DOWN.as_dict()
    assert callboard("runs", "a").code == 2
    assert callboard("runs", "zz").code == 2


def test_audit(callboard, services):
    services.agents.entries = [AuditRow(NOW, "ana", "company.add", "acme", "")]
    assert "company.add" in callboard("audit").out
    assert callboard("audit", "--json").json["entries"][0]["actor"] == "ana"
