"""The console in a test: opened on fake services, its text read line by line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from textual.pilot import Pilot

from app.console import Callboard
from screens.agents import AgentsScreen
from tests.support.fake_services import FakeServices


async def until(pilot: Pilot[str], condition: Callable[[], object], what: str = "") -> None:
    """Wait for something to become true."""
    for _ in range(400):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.01)
    raise AssertionError(f"waited in vain for {what or condition}\n{screen_text(pilot)}")


@asynccontextmanager
async def opened(services: FakeServices, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[str]]:
    """The console after its start: cards read, everything warm. Remote pieces are fakes."""
    app = Callboard(services)
    async with app.run_test(size=size, notifications=True, tooltips=True) as pilot:
        await until(pilot, lambda: services.started, "the start")
        await until(pilot, lambda: app.live.board.loaded and app.live.secret_label, "the cards")
        await settled(pilot)
        yield pilot


async def settled(pilot: Pilot[str]) -> None:
    """Wait until nothing waits to be flushed and no worker works."""
    app = console(pilot)
    await until(
        pilot,
        lambda: not app._pulse._waiting and (app._pulse._flushing is None or app._pulse._flushing.done()),
    )
    await app.workers.wait_for_complete()
    await pilot.pause()


def console(pilot: Pilot[str]) -> Callboard:
    assert isinstance(pilot.app, Callboard)
    return pilot.app


def home(pilot: Pilot[str]) -> AgentsScreen:
    """The agents screen, whatever is on top of it."""
    screen = console(pilot).screen_stack[0]
    assert isinstance(screen, AgentsScreen)
    return screen


def screen_lines(pilot: Pilot[str]) -> list[str]:
    """What is on screen, as text."""
    lines = pilot.app.screen._compositor.render_strips()
    return [strip.text.rstrip() for strip in lines]


def screen_text(pilot: Pilot[str]) -> str:
    return "\n".join(screen_lines(pilot))
