from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass, field, replace

import pytest

from app.commands._health_settings import duration, moment
from app.output import iso, local
from app.settings import Settings
from services.errors import UsageError
from services.health.model import (
    Channel,
    CheckKind,
    CheckView,
    HealthState,
    HealthView,
    Incident,
    Overall,
    Rule,
    Window,
)
from services.resilience import BreakerState, BreakerView
from tests.app.fakes import NOW
from tests.support.environment import child_environment
from tests.support.program import CALLBOARD

RETELL = CheckView(
    id="provider:acme/retell",
    kind=CheckKind.PROVIDER,
    name="Retell",
    company="acme",
    state=HealthState.UP,
    since=NOW,
    checked_at=NOW,
    next_at=NOW + 30_000,
    message="answers",
    took_ms=120.4,
    uptime_24h=0.99999,
    p95_ms=210.0,
    facts=(("lines", "3 of 20"),),
)
AGENT = replace(
    RETELL, id="agent:7", kind=CheckKind.AGENT, name="Front desk", message="mirror fresh", critical=False
)
DISK = replace(RETELL, id="system:disk", kind=CheckKind.SYSTEM, name="disk", company="", critical=False)
DOWN = {
    "state": HealthState.DOWN,
    "message": "503 since 13:52",
    "advice": "Wait for the vendor",
    "breaker": BreakerView(BreakerState.OPEN, reopens_in=12.0),
}


OVER = Incident(
    1, RETELL.id, "Retell", CheckKind.PROVIDER, HealthState.DOWN, "", "503", "", NOW, NOW + 90_000, NOW
)
GOES_ON = replace(OVER, id=2, name="Front desk", cause="Retell", ended_at=None, alerted_at=None)


@dataclass
class FakeHealth:
    past: list[Incident] = field(default_factory=lambda: [OVER, GOES_ON])
    checks: list[CheckView] = field(default_factory=lambda: [RETELL, AGENT, DISK])
    overall: Overall = Overall.HEALTHY
    reason: str = ""
    asked: list[list[str]] = field(default_factory=list)
    calls: list[tuple] = field(default_factory=list)

    def view(self) -> HealthView:
        return HealthView(self.overall, self.reason, tuple(self.checks), NOW, True, "this process")

    def judge(self, ids) -> tuple[Overall, str]:
        wanted = [check for check in self.checks if check.id in ids]
        causes = {check.held_by for check in wanted}
        among = [*wanted, *(check for check in self.checks if check.name in causes)]
        down = any(check.state is HealthState.DOWN for check in among)
        return (Overall.UNHEALTHY, "Retell is down") if down else (Overall.HEALTHY, "")

    async def check_now(self, ids=None, *, confirm=False) -> HealthView:
        self.asked.append(list(ids or ()))
        return self.view()

    async def incidents(self, limit=100, check_id=None) -> list[Incident]:
        self.calls.append(("incidents", limit, check_id))
        return self.past

    async def add_maintenance(self, scope, **given) -> Window:
        self.calls.append(("add", scope, given))
        return Window(3, scope, given["reason"], given["timezone"], given["starts_at"], given["ends_at"])

    async def maintenance(self) -> list[Window]:
        return [Window(1, "*", "patches", "Europe/Berlin", cron="0 3 * * sun", minutes=90, actor="maria")]

    async def end_maintenance(self, window_id) -> Window:
        return Window(window_id, "*", starts_at=NOW, ends_at=NOW)

    async def add_alert(self, kind, target, **given) -> Channel:
        self.calls.append((kind, target, given))
        return Channel(4, kind, "https://example.com/…")

    async def alerts(self) -> list[Channel]:
        return [Channel(4, "webhook", "https://example.com/…", last_error="it answered 500")]

    async def remove_alert(self, channel_id) -> Channel:
        return Channel(channel_id, "bell")

    async def test_alert(self, channel_id) -> Channel:
        return Channel(channel_id, "webhook", "https://example.com/…", sent_at=NOW)

    async def rules(self) -> list[Rule]:
        return [Rule(RETELL.id, failure_threshold=5)]

    async def set_rule(self, check_id, **given) -> Rule:
        self.calls.append((check_id, given))
        return replace(Rule(check_id), **given)


@pytest.fixture
def health(services) -> FakeHealth:
    services.health = FakeHealth()
    services.options = type("Options", (), {"timezone": "Europe/Berlin"})()
    services.with_company()
    return services.health


def test_healthy_is_zero_and_agents_that_are_fine_are_counted(callboard, health) -> None:
    result = callboard("health")
    assert result.code == 0
    first, retell, disk, fine = result.out.splitlines()
    assert first == "healthy"
    assert retell.split() == [
        "up",
        "provider",
        "Retell",
        "(acme)",
        "99.9",
        "%",
        "p95",
        "210",
        "ms",
        "answers",
    ]
    assert "disk" in disk
    assert fine.strip() == "1 agent is fine (--all lists them)"
    assert "Front desk" in callboard("health", "--all").out
    assert health.asked[1] == [RETELL.id, AGENT.id, DISK.id]


@pytest.mark.parametrize(("overall", "code"), [("healthy", 0), ("degraded", 3), ("unhealthy", 1)])
def test_the_exit_code_says_how_it_is(callboard, health, overall, code) -> None:
    health.overall, health.reason = Overall(overall), "Retell is down; 1 agent hangs on it"
    result = callboard("health", "--json")
    assert (result.code, result.json["overall"]) == (code, overall)


def test_what_is_down_comes_with_its_advice(callboard, health) -> None:
    health.checks = [replace(RETELL, **DOWN), replace(AGENT, state=HealthState.WAITS, held_by="Retell")]
    health.overall, health.reason = Overall.UNHEALTHY, "Retell is down; 1 agent hangs on it"
    out = callboard("health", "--all").out
    assert "unhealthy — Retell is down; 1 agent hangs on it" in out
    assert "503 since 13:52 · breaker open 12 s" in out
    assert "try: Wait for the vendor" in out
    assert "waits for Retell" in out


def test_a_part_is_judged_by_itself(callboard, health) -> None:
    health.checks = [replace(RETELL, **DOWN), DISK]
    health.overall = Overall.UNHEALTHY
    assert callboard("health", "--kind", "system").code == 0
    assert callboard("health", "--company", "ACME").code == 1
    assert health.asked[-1] == [RETELL.id]
    assert callboard("health", "--company", "acne").code == 2
    assert callboard("health", "--kind", "disk").code == 2


def test_agents_that_wait_are_neither_up_nor_fine(callboard, health) -> None:
    retell = replace(RETELL, depends_on=("system:secrets",), **DOWN)
    held = replace(AGENT, state=HealthState.WAITS, held_by="Retell", depends_on=(RETELL.id,))
    health.checks = [retell, held, replace(held, id="agent:8"), replace(AGENT, id="agent:9")]
    health.overall, health.reason = Overall.UNHEALTHY, "of everything"
    *_, waiting, fine = callboard("health").out.splitlines()
    assert waiting.strip() == "2 agents wait for Retell (--all lists them)"
    assert fine.strip() == "1 agent is fine"
    part = callboard("health", "--kind", "agent")
    first, *lines = part.out.splitlines()
    assert (part.code, first) == (1, "unhealthy — Retell is down")
    assert [line.split()[0] for line in lines] == ["waits", "waits", "up"]
    # What they hang on is probed, too.
    assert health.asked[-1] == ["agent:7", "agent:8", "agent:9", RETELL.id]
    told = callboard("health", "--kind", "agent", "--json").json
    assert [check["state"] for check in told["checks"]] == ["waits", "waits", "up"]
    assert (told["overall"], told["reason"]) == ("unhealthy", "Retell is down")


def test_json_has_everything(callboard, health) -> None:
    canary = "sk_live_51Hx8canaryCANARY0123456789"
    health.checks = [
        replace(RETELL, **{**DOWN, "message": f"wrong key {canary}", "last_error": f"no {canary}"})
    ]
    done = callboard("health", "--json")
    (check,) = done.json["checks"]
    assert canary not in done.out
    assert check["breaker"] == {
        "state": "open",
        "failures": 0,
        "reopens_in": 12.0,
        "shared": False,
        "degraded": False,
    }
    assert check["last_error"]["message"].startswith("no ")
    assert check["facts"] == [{"label": "lines", "value": "3 of 20"}]


def test_explaining_needs_no_company_and_fits_80_columns(callboard) -> None:
    out = callboard("health", "explain").out
    assert {"STATES", "BREAKERS", "LIMITS", "ALERTS"} <= set(out.splitlines())
    assert max(map(len, out.splitlines())) < 80
    named = set(re.findall(r"\b(?:breaker|limit|health)_[a-z]+\b", out))
    assert named
    assert named <= {field.name for field in dataclasses.fields(Settings)}


def test_incidents(callboard, health) -> None:
    out = callboard("health", "incidents", "--limit", "5", "--check", RETELL.id).out
    assert health.calls == [("incidents", 5, RETELL.id)]
    assert "1 min 30 s" in out
    assert local(NOW, "Europe/Berlin") in out
    assert "held back by Retell" in out
    assert len(callboard("health", "incidents", "--json").json["incidents"]) == 2
    assert "repetition" not in out


def test_an_incident_nobody_was_told_of_again_is_a_repetition(callboard, health) -> None:
    health.past = [replace(OVER, id=3, alerted_at=None, repeats=NOW - 60_000), OVER]
    result = callboard("health", "incidents")
    assert [line.split()[-1] for line in result.out.splitlines()] == ["ALERT", "repetition", "told"]
    assert "nobody is told again" in result.err
    told = callboard("health", "incidents", "--json").json["incidents"]
    assert [each["repeats_alert_at"] for each in told] == [iso(NOW - 60_000), None]


def test_incidents_of_a_check_that_there_is_not(callboard, health) -> None:
    health.past = []
    assert callboard("health", "incidents", "--check", RETELL.id).code == 0
    mistyped = callboard("health", "incidents", "--check", "system:dsik")
    assert mistyped.code == 2
    assert "There is no check system:dsik, and none had an incident" in mistyped.err
    assert "Did you mean system:disk?" in mistyped.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["incidents", "--limit", "0"], "'0' is not a whole number from 1 on"),
        (["--watch", "incidents"], "--watch is nothing for health incidents"),
        (["--watch", "--all", "rules", "list"], "--watch and --all are nothing for health rules"),
        (["--company", "acme", "maintenance", "list"], "--company is nothing for health maintenance"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words, told, callboard, health) -> None:
    done = callboard("health", *words)
    assert (done.code, told in done.err) == (2, True)
    assert not health.calls


def test_maintenance(callboard, health) -> None:
    added = callboard("health", "maintenance", "add", "provider", "--for", "2h30m", "--reason", "keys")
    assert added.code == 0
    _, scope, given = health.calls[-1]
    assert (scope, given["minutes"], given["timezone"]) == ("provider", 150, "Europe/Berlin")
    span = ("--from", "2026-12-01 03:00", "--until", "2026-12-01 05:00")
    (window,) = callboard("health", "maintenance", "add", "*", *span, "--json").json["windows"]
    assert window["starts_at"] == "2026-12-01T02:00:00.000Z"
    told = callboard("health", "maintenance", "add", "*", *span, "--timezone", "America/New_York").out
    assert told.strip() == "Maintenance 3 of *: 2026-12-01 03:00 to 05:00 EST (America/New_York)."
    assert callboard("health", "maintenance", "add", "*").code == 2
    assert "0 3 * * sun in Europe/Berlin, 90 min each time" in callboard("health", "maintenance", "list").out
    assert callboard("health", "maintenance", "end", "1").code == 0


def test_alerts(callboard, health) -> None:
    options = ("--least", "down", "--company", "acme", "--set", "a=b=c")
    added = callboard("health", "alerts", "add", "webhook", "https://example.com/s3cret", *options)
    assert added.code == 0
    assert "s3cret" not in added.out + added.err
    kind, target, given = health.calls[-1]
    assert (kind, target, given["company"]) == ("webhook", "https://example.com/s3cret", "acme")
    assert (given["least"], given["config"]) == (HealthState.DOWN, {"a": "b=c"})
    assert "it answered 500" in callboard("health", "alerts", "list").out
    assert callboard("health", "alerts", "test", "4", "--json").json["channels"][0]["last_error"] == ""
    assert callboard("health", "alerts", "remove", "4").code == 0
    assert callboard("health", "alerts", "add", "bell", "--set", "loud").code == 2


def test_rules(callboard, health) -> None:
    assert callboard("health", "rules", "list", "--json").json["rules"][0]["failure_threshold"] == 5


@pytest.mark.parametrize(
    ("kind", "sent", "told"),
    [
        ("bell", "\a", "The bell of this terminal was rung"),
        ("desktop", "\x1b]9;Callboard: this is a test", ""),
    ],
)
def test_a_test_rings_this_terminal_or_says_that_nothing_does(
    kind, sent, told, callboard, health, monkeypatch
) -> None:
    async def test_alert(channel_id) -> Channel:
        return Channel(channel_id, kind)

    health.test_alert = test_alert
    piped = callboard("health", "alerts", "test", "4", "--json")
    assert (piped.code, piped.json["error"]["code"], sent in piped.out) == (1, "no_terminal", False)
    assert "Nothing was tried" in callboard("health", "alerts", "test", "4").err
    monkeypatch.setattr("app.commands._health_settings.is_terminal", lambda stream: True)
    monkeypatch.delenv("TMUX", raising=False)
    rung = callboard("health", "alerts", "test", "4")
    assert (rung.code, sent in rung.err, told in rung.out) == (0, True, True)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--failures", "3"], {"failure_threshold": 3}),
        (["--slow", "0", "--on"], {"slow_ms": 0, "enabled": True}),
        (["--off"], {"enabled": False}),
        (["--default", "slow", "--interval", "5"], {"slow_ms": None, "interval": 5}),
        (
            ["--default", "all"],
            {"enabled": True, "interval": None, "failure_threshold": None, "slow_ms": None},
        ),
        (
            ["--default", "all", "--off"],
            {"enabled": False, "interval": None, "failure_threshold": None, "slow_ms": None},
        ),
    ],
)
def test_a_rule_is_changed_where_it_is_named_and_nowhere_else(words, changes, callboard, health) -> None:
    assert callboard("health", "rules", "set", RETELL.id, *words).code == 0
    assert health.calls == [(RETELL.id, changes)]


@pytest.mark.parametrize(
    "words",
    [[], ["--on", "--off"], ["--slow", "5", "--default", "slow"], ["--slow", "5", "--default", "all"]],
)
def test_a_rule_without_a_change_is_refused(words, callboard, health) -> None:
    assert callboard("health", "rules", "set", RETELL.id, *words).code == 2
    assert health.calls == []


@pytest.mark.parametrize(
    ("text", "minutes"), [("90m", 90), ("2h", 120), ("1d12h", 2160), ("1d 4h 30min", 1710), ("5 m", 5)]
)
def test_lengths_of_time(text, minutes) -> None:
    assert duration(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "90", "0m", "-5m", "2h5"])
def test_what_is_no_length_of_time(text) -> None:
    with pytest.raises(UsageError):
        duration(text)


def test_moments_are_meant_in_a_zone() -> None:
    assert moment("2026-07-01 12:00", "Europe/Berlin") == moment("2026-07-01T10:00:00+00:00", "Asia/Tokyo")
    with pytest.raises(UsageError):
        moment("tomorrow", "UTC")


def test_a_watch_prints_what_changed_and_ends_with_the_signal(callboard, health, monkeypatch) -> None:
    async def start() -> None:
        health.started = True

    async def aclose() -> None:
        health.closed = True

    views = iter(
        [
            [RETELL, AGENT, DISK],
            [RETELL, AGENT, DISK],
            [replace(RETELL, **DOWN), AGENT, DISK],
        ]
    )
    shown = health.view

    def view() -> HealthView:
        found = next(views, None)
        if found is None:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            health.checks = found
        return shown()

    monkeypatch.setattr("app.commands.health.REDRAW", 0.01)
    health.start, health.aclose, health.view = start, aclose, view
    result = callboard("health", "--watch")
    assert result.code == 0
    assert health.started
    assert health.closed
    (line,) = result.out.splitlines()
    assert "down         Retell (acme)  503 since 13:52" in line


def test_the_real_program_looks_at_an_empty_home(tmp_path) -> None:
    """No company, no network: what the program stands on is well, and the JSON keeps its contract."""
    done = subprocess.run(
        [*CALLBOARD, "health", "--json"], env=child_environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    states = {check["id"]: check["state"] for check in found["checks"]}
    assert states["system:database"] == "up"
    assert found["overall"] == "healthy"
