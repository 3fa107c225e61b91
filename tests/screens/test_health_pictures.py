"""Pictures of the health screen; everything else asserts text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from app.console import Callboard
from services.health.model import HealthView
from tests.screens.test_pictures import console_on, started
from tests.support.console import screen_text, settled, until
from tests.support.fake_health import healthy, outage
from tests.support.fake_services import FakeServices


def watching(view: HealthView, theme: str = "dark", *, ascii_only: bool = False) -> Callboard:
    services = FakeServices()
    services.health.shown = view
    services.settings.ascii = ascii_only
    return console_on(services, theme)


async def on_health(pilot: Pilot[Any]) -> None:
    await started(pilot)
    await pilot.press("4")
    await until(pilot, lambda: "ElevenLabs" in screen_text(pilot))
    await settled(pilot)


async def in_the_past(pilot: Pilot[Any]) -> None:
    await on_health(pilot)
    await pilot.press("enter", "tab")
    await until(pilot, lambda: "uptime" in screen_text(pilot))
    await settled(pilot)


def test_all_is_well_on_a_light_theme(snap_compare: Callable[..., bool]) -> None:
    app = watching(healthy(), "light")
    assert snap_compare(app, terminal_size=(100, 30), run_before=on_health)


def test_an_outage_at_80_by_24(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(watching(outage()), terminal_size=(80, 24), run_before=on_health)


def test_an_outage_at_140_by_40(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(watching(outage()), terminal_size=(140, 40), run_before=on_health)


def test_an_outage_in_ascii_without_colours(
    snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = watching(outage(), ascii_only=True)
    assert snap_compare(app, terminal_size=(120, 30), run_before=on_health)


def test_the_past_of_a_vendor(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(watching(outage()), terminal_size=(140, 40), run_before=in_the_past)
