"""The screens of calls on the real services: a scripted call in the demo, listed and played again."""

from __future__ import annotations

import asyncio

from app.console import Callboard
from app.runtime import open_services
from screens.call import CallScreen
from screens.call_dialogs import CallDialog
from screens.calls import CallsScreen
from screens.dialogs import Choice
from screens.replay import ReplayScreen
from services.calls.model import EndReason, TransportKind
from services.events import SyncFinished
from tests.support.console import screen_text, settled, until


async def test_a_scripted_call_from_the_key_to_its_replay() -> None:
    services = open_services(demo=True)
    synced = asyncio.Event()
    services.bus.subscribe(SyncFinished, lambda event: synced.set())
    app = Callboard(services)
    try:
        async with app.run_test(size=(120, 30), notifications=True) as pilot:
            await asyncio.wait_for(synced.wait(), 60)
            await settled(pilot)
            await pilot.press("c")
            await until(pilot, lambda: isinstance(app.screen, CallDialog))
            way = app.screen.query_one("#way", Choice)
            for _ in range(way.index):
                await pilot.press("left")
            await until(pilot, lambda: "a script on this machine" in screen_text(pilot))
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, CallScreen), "the live screen")
            screen = app.screen
            assert isinstance(screen, CallScreen)
            session = screen.session
            assert session.kind is TransportKind.MOCK
            await until(pilot, lambda: "SIMULATED" in screen_text(pilot) and "agent  " in screen_text(pilot))
            await pilot.press("x", "t", *"I need an appointment", "enter")
            await until(pilot, lambda: "I need an appointment  typed" in screen_text(pilot))
            await until(pilot, lambda: session.live.agent_turns >= 2, "an answer")
            await pilot.press("escape", "e")
            await until(pilot, lambda: "You ended the call" in screen_text(pilot))
            assert session.live.ended is not None
            assert session.live.ended.reason is EndReason.OPERATOR_ENDED
            assert not app.live.calls
            await pilot.press("o")
            await until(pilot, lambda: isinstance(app.screen, ReplayScreen), "the replay")
            await until(pilot, lambda: "I need an appointment  typed" in screen_text(pilot))
            await pilot.press("2")
            await until(pilot, lambda: isinstance(app.screen, CallsScreen))
            await until(pilot, lambda: "you ended the call" in screen_text(pilot))
            await pilot.press("d", "y")
            await until(pilot, lambda: "No call yet" in screen_text(pilot))
    finally:
        await services.aclose()
