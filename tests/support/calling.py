"""Getting to the screens of calls in a test."""

from __future__ import annotations

from textual.pilot import Pilot

from screens.call import CallScreen
from screens.call_dialogs import CallDialog
from screens.replay import ReplayScreen
from tests.support.console import console, screen_text, settled, until
from tests.support.fake_calls import FakeSession, with_history
from tests.support.fake_services import FakeServices


def services_of(pilot: Pilot[str]) -> FakeServices:
    services = console(pilot).services
    assert isinstance(services, FakeServices)
    return services


async def in_dialog(pilot: Pilot[str]) -> CallDialog:
    """`c` on the first agent."""
    await pilot.press("c")
    await until(pilot, lambda: isinstance(pilot.app.screen, CallDialog))
    await settled(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, CallDialog)
    return screen


async def in_call(pilot: Pilot[str], session: FakeSession | None = None) -> FakeSession:
    """The live screen of a call."""
    made = services_of(pilot).calls.call(session)
    await until(pilot, lambda: console(pilot).live.calls)
    await pilot.press("0")
    await until(pilot, lambda: isinstance(pilot.app.screen, CallScreen))
    await settled(pilot)
    return made


async def drawn(pilot: Pilot[str]) -> None:
    """Wait until what happened is on the screen."""
    screen = pilot.app.screen
    if isinstance(screen, CallScreen | ReplayScreen):
        await until(pilot, lambda: not screen._dirty, "the next picture")
    await settled(pilot)


def call_screen(pilot: Pilot[str]) -> CallScreen:
    screen = next(each for each in pilot.app.screen_stack if isinstance(each, CallScreen))
    assert isinstance(screen, CallScreen)
    return screen


async def in_replay(pilot: Pilot[str]) -> ReplayScreen:
    """The replay of the newest past call."""
    with_history(services_of(pilot).calls)
    await pilot.press("2")
    await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, ReplayScreen))
    await drawn(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, ReplayScreen)
    return screen
