"""Activity: runs, their outcomes, the audit log."""

from __future__ import annotations

from services.agents import AuditRow
from services.model import ErrorInfo, Outcome, OutcomeRow, Provider, RunStatus, SyncRunInfo
from tests.support.console import console, opened, screen_text, settled, until
from tests.support.fake_services import HOUR, NOON, FakeServices


def with_history() -> FakeServices:
    services = FakeServices()
    counts = {"unchanged": 30, "failed": 1}
    services.agents.run_rows = [
        SyncRunInfo("r2", "all", "schedule", "", True, RunStatus.PARTIAL, NOON, NOON + 4200, counts, 44),
        SyncRunInfo(
            "r1", "all", "operator", "", False, RunStatus.FAILED, NOON - HOUR, NOON, {}, 1, "Retell is down"
        ),
    ]
    error = ErrorInfo("timeout", "Retell did not answer", "Try again")
    services.agents.outcome_rows["r2"] = [
        OutcomeRow("acme", Provider.RETELL, "agent_1", "Reception", Outcome.UNCHANGED, detail="nothing new"),
        OutcomeRow("acme", Provider.RETELL, "agent_2", "Booking", Outcome.FAILED, error),
    ]
    services.agents.audit_rows = [AuditRow(NOON, "maria", "connection.rotate", "acme, retell", "new key")]
    return services


async def test_runs_outcomes_and_back() -> None:
    async with opened(with_history(), (120, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: "◆ partial" in screen_text(pilot))
        text = screen_text(pilot)
        assert "all, forced" in text
        assert "1 failed, 30 unchanged" in text
        assert "4.2 s" in text
        assert "Retell is down" in text
        await pilot.press("enter")
        await until(pilot, lambda: "Retell did not answer. Try again" in screen_text(pilot))
        await pilot.press("down", "y")
        assert "Booking" in console(pilot).copied
        await pilot.press("escape")
        await until(pilot, lambda: "◆ partial" in screen_text(pilot))
        await pilot.press("escape")
        assert len(pilot.app.screen_stack) == 1


async def test_the_audit_log() -> None:
    async with opened(with_history(), (120, 24)) as pilot:
        await pilot.press("5", "tab")
        await until(pilot, lambda: "connection.rotate" in screen_text(pilot))
        assert "maria" in screen_text(pilot)


async def test_nothing_has_happened_yet() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("5")
        await settled(pilot)
        await until(pilot, lambda: "No sync has run yet" in screen_text(pilot))
        await pilot.press("1")
        assert len(pilot.app.screen_stack) == 1


LONG = (
    "Retell answered 500 to the second page of agents, three times in a row, and then said no more than this"
)


async def test_what_a_row_has_no_room_for_stands_below_and_opens() -> None:
    services = with_history()
    error = ErrorInfo("server", LONG, "Wait for the next sync, and write to its support if it stays")
    row = OutcomeRow("acme", Provider.RETELL, "agent_2", "Booking", Outcome.FAILED, error)
    services.agents.outcome_rows["r2"] = [row]
    async with opened(services, (80, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: "took 4.2 s · requests 44" in " ".join(screen_text(pilot).split()))
        await pilot.press("enter")
        await until(
            pilot, lambda: "more than this. Wait for the next" in " ".join(screen_text(pilot).split())
        )
        height = pilot.app.screen.query_one("#below").size.height
        await pilot.press("enter")
        await until(pilot, lambda: "One line of the sync run" in screen_text(pilot))
        assert "if it stays" in " ".join(screen_text(pilot).split())
        await pilot.press("escape", "escape", "down")
        await until(pilot, lambda: "Retell is down" in screen_text(pilot).splitlines()[-4])
        assert pilot.app.screen.query_one("#below").size.height == height


async def test_the_audit_log_at_80_columns_says_who_did_what_to_what() -> None:
    services = with_history()
    more = [
        AuditRow(NOON, "root", "agent.updated", f"acme, Reception {number} (agent_{number})", "sync 439c")
        for number in range(3)
    ]
    services.agents.audit_rows += more
    async with opened(services, (80, 24)) as pilot:
        await pilot.press("5", "tab")
        await until(pilot, lambda: "agent.updated" in screen_text(pilot))
        lines = [line for line in screen_text(pilot).splitlines() if "agent.updated" in line]
        assert [f"Reception {number}" in line and "root" in line for number, line in enumerate(lines)] == [
            True
        ] * 3
