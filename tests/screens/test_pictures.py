"""Pictures of the screens that carry the look. Few on purpose: everything else asserts text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

from app.console import Callboard
from services.events import ScheduleChanged
from services.model import Outcome
from tests.support.console import home, settled, until
from tests.support.fake_services import HOUR, NOON, FakeServices, seeded_cards


def console_on(services: FakeServices, theme: str = "dark") -> Callboard:
    services.settings.theme = theme
    app = Callboard(services)
    app.animation_level = "none"
    return app


async def started(pilot: Pilot[Any]) -> FakeServices:
    app = pilot.app
    assert isinstance(app, Callboard)
    services = app.services
    assert isinstance(services, FakeServices)
    await until(pilot, lambda: services.started and app.live.secret_label)
    services.bus.publish(ScheduleChanged(NOON + HOUR))
    await settled(pilot)
    return services


async def in_a_sync(pilot: Pilot[Any]) -> None:
    services = await started(pilot)
    services.sync.broken.add(4)
    await pilot.press("S")
    await until(pilot, lambda: home(pilot).live.syncing)
    services.sync.settle(12)
    services.sync.settle(5, Outcome.UPDATED)
    await settled(pilot)


async def on_an_error(pilot: Pilot[Any]) -> None:
    await started(pilot)
    await pilot.press("slash", *"status:error", "enter")
    await settled(pilot)


async def in_the_configuration(pilot: Pilot[Any]) -> None:
    await started(pilot)
    await pilot.press("enter", "tab")
    await until(pilot, lambda: home(pilot).pane)
    await settled(pilot)


def test_agents_at_80_by_24(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(console_on(FakeServices()), terminal_size=(80, 24), run_before=started)


def test_a_sync_at_140_by_40(snap_compare: Callable[..., bool]) -> None:
    services = FakeServices(demo=object(), cards=seeded_cards(companies=("acme", "Zahnarzt Weber")))
    assert snap_compare(console_on(services), terminal_size=(140, 40), run_before=in_a_sync)


def test_errors_on_a_light_theme(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(console_on(FakeServices(), "light"), terminal_size=(80, 24), run_before=on_an_error)


def test_the_configuration_beside_the_cards(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(console_on(FakeServices()), terminal_size=(120, 30), run_before=in_the_configuration)
