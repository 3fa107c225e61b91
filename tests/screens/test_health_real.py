"""The health screen on the real service: this machine is watched, without any company."""

from __future__ import annotations

from app.console import Callboard
from app.runtime import open_services
from screens.health import HealthScreen
from screens.health_dialogs import EndMaintenanceDialog, MaintenanceDialog
from services.health.model import HealthState
from tests.support.console import screen_lines, screen_text, settled, until


async def test_this_machine_is_watched_from_the_first_key_on() -> None:
    services = open_services()
    app = Callboard(services)
    try:
        async with app.run_test(size=(120, 34), notifications=True) as pilot:
            await pilot.press("4")
            await until(pilot, lambda: isinstance(app.screen, HealthScreen))
            await until(pilot, lambda: "GB free" in screen_text(pilot), "the disk")
            await until(pilot, lambda: "checked" in screen_lines(pilot)[1], "the first probes")
            screen = app.screen
            assert isinstance(screen, HealthScreen)
            screen.panels.move_to("system:database")
            await pilot.press("r")
            await until(pilot, lambda: not screen.asking, "the probe")
            await pilot.press("w")
            await until(pilot, lambda: isinstance(app.screen, MaintenanceDialog))
            await pilot.press("tab", *"a move", "enter")
            await until(pilot, lambda: "maintenance until" in screen_text(pilot), "the window")
            assert screen.current is not None
            assert screen.current.state is HealthState.MAINTENANCE
            await pilot.press("w")
            await until(pilot, lambda: isinstance(app.screen, EndMaintenanceDialog))
            assert "Reason: a move." in screen_text(pilot)
            await pilot.press("y")
            await until(pilot, lambda: "maintenance until" not in screen_text(pilot), "its end")
            await pilot.press("enter", "tab")
            await until(pilot, lambda: "uptime" in screen_text(pilot), "the history")
            await settled(pilot)
            assert "100 %  of" in screen_text(pilot)
    finally:
        await services.aclose()
