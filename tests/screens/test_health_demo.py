"""The demo's switch on the health screen: a vendor or a partner is let fail, and mended."""

from __future__ import annotations

import pytest

from screens.health_demo import BreakDialog, MendDialog
from services.errors import ServiceError
from services.health.model import HealthView
from tests.screens.test_health import ELEVEN, RETELL, on_health, watching
from tests.support.console import console, opened, screen_lines, screen_text, settled, until
from tests.support.fake_health import healthy, outage
from tests.support.fake_services import FakeServices


def demo(view: HealthView | None = None) -> FakeServices:
    services = watching(view or outage())
    services.demo = object()
    return services


async def test_a_vendor_fails_as_chosen_is_checked_at_once_and_is_mended() -> None:
    services = demo()
    async with opened(services, (80, 24)) as pilot:
        screen = await on_health(pilot)
        assert "B break/mend" in screen_lines(pilot)[-1]
        await pilot.press("B")
        await until(pilot, lambda: isinstance(pilot.app.screen, BreakDialog))
        assert "33 checks hang on it" in screen_text(pilot)
        await pilot.press("right")
        await until(pilot, lambda: "never answers" in screen_text(pilot))
        assert services.demo_control.faults == []
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        await settled(pilot)
        assert services.demo_control.faults == ["hang:retell"]
        assert services.health.asked == [(RETELL,)]
        assert "Retell hangs from now on; B mends it" in screen_text(pilot)
        await pilot.press("B")
        await until(pilot, lambda: isinstance(pilot.app.screen, MendDialog))
        assert "hang:retell" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        await settled(pilot)
        assert services.demo_control.faults == []
        assert services.health.asked == [(RETELL,), (RETELL,)]


async def test_escape_breaks_nothing() -> None:
    services = demo()
    async with opened(services) as pilot:
        screen = await on_health(pilot)
        await pilot.press("B")
        await until(pilot, lambda: isinstance(pilot.app.screen, BreakDialog))
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert (services.demo_control.faults, services.health.asked) == ([], [])


@pytest.mark.parametrize(
    ("ident", "fault"),
    [("integration:1", "503:hubspot"), ("agent:3", "503:elevenlabs"), ("agent:4", "503:retell")],
)
async def test_a_partner_fails_alone_and_an_agent_with_its_vendor(ident: str, fault: str) -> None:
    services = demo(healthy(4))
    async with opened(services, (120, 40)) as pilot:
        screen = await on_health(pilot)
        for fold in list(screen.board.folds):
            screen.board.toggle(fold)
        screen._fill()
        screen.panels.move_to(ident)
        await pilot.press("B", "enter")
        await until(pilot, lambda: services.demo_control.faults)
        assert services.demo_control.faults == [fault]


async def test_what_is_no_vendor_cannot_be_broken_and_outside_the_demo_nothing() -> None:
    services = demo()
    async with opened(services, (120, 40)) as pilot:
        screen = await on_health(pilot)
        for ident, there in ((ELEVEN, True), ("system:disk", False), ("orchestrator:acme", False)):
            screen.panels.move_to(ident)
            assert screen.is_available("break_vendor") is there
        services.demo = None
        screen.panels.move_to(ELEVEN)
        assert not screen.is_available("break_vendor")
        await pilot.press("B")
        await settled(pilot)
        assert pilot.app.screen is screen


async def test_a_simulator_that_is_gone_is_said() -> None:
    services = demo()

    async def gone(service: str, /) -> list[str]:
        raise ServiceError("The demo's simulator does not answer", advice="close and reopen the demo")

    services.demo_control.faults_of = gone  # type: ignore[method-assign]
    async with opened(services) as pilot:
        screen = await on_health(pilot)
        await pilot.press("B")
        await until(pilot, lambda: "simulator does not answer" in screen_text(pilot))
        assert console(pilot).screen is screen
