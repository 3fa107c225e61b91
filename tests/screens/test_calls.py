"""The calls: history, filter, delete, export; live ones on top."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from screens.call import CallScreen
from screens.call_filter import parse_call_filter
from screens.calls import CallsScreen
from services.calls.model import EndReason, TransportKind
from services.errors import ServiceError, UsageError
from tests.support.calling import services_of
from tests.support.console import console, opened, screen_lines, screen_text, until
from tests.support.fake_calls import with_history
from tests.support.fake_services import FakeServices


def with_calls() -> FakeServices:
    services = FakeServices()
    with_history(services.calls)
    return services


async def test_the_history() -> None:
    async with opened(with_calls(), (140, 40)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        text = screen_text(pilot)
        assert "3 calls" in text
        assert "12:30:00" in text
        assert "760 / 1,240" in text
        assert "0.21 €" in text
        assert "0.0034 $" in text
        assert "· the agent ended the call" in text
        assert "✗ the connection was lost" in text
        assert "Outbound Surveys +49 30" in text
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "company" not in screen_text(pilot))
        assert "the agent ended the call" in screen_text(pilot)
        assert all(len(line) <= 80 for line in screen_lines(pilot))


async def test_live_calls_stand_on_top_and_open_their_screen() -> None:
    services = with_calls()
    async with opened(services, (140, 40)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        session = services.calls.call()
        session.begin()
        session.at = 134_000
        await until(pilot, lambda: "● 1 live" in screen_text(pilot))
        assert "now" in screen_lines(pilot)[4]
        assert "02:14" in screen_lines(pilot)[4]
        await pilot.press("up", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, CallScreen))
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, CallsScreen)
        session.hang_up(EndReason.AGENT_ENDED)
        await until(pilot, lambda: "live" not in screen_lines(pilot)[1])


async def test_a_call_of_another_process_appears() -> None:
    services = with_calls()
    async with opened(services, (140, 40)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "3 calls" in screen_text(pilot))
        services.calls.past.insert(0, replace(services.calls.past[0], id="new1", agent_name="Night Desk"))
        services.agents.elsewhere = True
        await until(pilot, lambda: "Night Desk" in screen_text(pilot))
        assert "4 calls" in screen_text(pilot)


async def test_filtering_as_one_types() -> None:
    async with opened(with_calls(), (140, 40)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        await pilot.press("slash", *"end:badly transport:phone")
        await until(pilot, lambda: "1 call " in screen_text(pilot))
        assert "Outbound Surveys" in screen_text(pilot)
        await pilot.press(*" company:web")
        await until(pilot, lambda: "No call matches" in screen_text(pilot))
        await pilot.press("enter", "escape")
        await until(pilot, lambda: "3 calls" in screen_text(pilot))
        assert isinstance(pilot.app.screen, CallsScreen)
        await pilot.press("slash", *"transport:zzz")
        await until(pilot, lambda: "Transport: knows no 'zzz'" in screen_text(pilot))
        await pilot.press("escape", "escape")
        assert len(pilot.app.screen_stack) == 1


async def test_deleting_asks_first() -> None:
    services = with_calls()
    async with opened(services) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        await pilot.press("d")
        await until(pilot, lambda: "Delete the call with Reception DE, 12:30:00?" in screen_text(pilot))
        await pilot.press("escape")
        assert len(services.calls.past) == 3
        await pilot.press("d", "y")
        await until(pilot, lambda: "2 calls" in screen_text(pilot))
        assert [row.id for row in services.calls.past] == ["old2", "old3"]


async def test_exporting_asks_for_a_folder(tmp_path: Path) -> None:
    services = with_calls()
    async with opened(services, (140, 40)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        await pilot.press("w")
        await until(pilot, lambda: "Export the call with Reception DE" in screen_text(pilot))
        await pilot.press("ctrl+u", *str(tmp_path / "call"), "enter")
        await until(pilot, lambda: services.calls.exported)
        assert services.calls.exported == [("old1", tmp_path / "call")]
        await until(pilot, lambda: "Written" in screen_text(pilot))


async def test_copying_the_id() -> None:
    async with opened(with_calls()) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        await pilot.press("down", "y")
        assert console(pilot).copied == "old2"


async def test_nothing_yet_and_a_failure() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "No call yet" in screen_text(pilot))
        assert "1, then c on an agent calls it" in screen_text(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, CallsScreen)
        assert not screen.is_available("delete")
        await pilot.press("1")
        services.calls.failure = ServiceError("The database is from a newer version", advice="Update")
        await pilot.press("2")
        await until(pilot, lambda: "The calls could not be read" in screen_text(pilot))
        assert "The database is from a newer version. Update" in screen_text(pilot)


async def test_tabs_leave_no_stack_behind() -> None:
    async with opened(with_calls()) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 3)
        await pilot.press("5")
        assert len(pilot.app.screen_stack) == 2
        await pilot.press("escape")
        assert len(pilot.app.screen_stack) == 1
        assert services_of(pilot).calls.past


def test_the_language_of_the_filter() -> None:
    found = parse_call_filter("weber transport:pho end:lost agent:book company:acme x:y")
    assert (found.text, found.transport, found.agent, found.company) == (
        "weber x:y",
        TransportKind.PHONE,
        "book",
        "acme",
    )
    assert EndReason.CONNECTION_LOST in found.reasons
    assert EndReason.BUSY in parse_call_filter("end:badly").reasons
    assert all(reason.well for reason in parse_call_filter("end:well").reasons)
    assert parse_call_filter("end:").reasons == ()
    assert not parse_call_filter("  ")
    with pytest.raises(UsageError):
        parse_call_filter("end:nonsense")
