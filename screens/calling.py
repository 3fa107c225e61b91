"""From one screen of calls to the next: the dialog, the live screen, the replay. Loaded when first used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from screens.call_ports import Session
from screens.frame import Frame
from services.calls.model import TransportKind

END_SECONDS = 3.0
"""How long leaving the program waits for calls to hang up; the services go on after it."""


def begin_call(frame: Frame, agent_row: int, name: str, kind: TransportKind | None = None) -> None:
    """Ask how to call this agent, then call it and show the call."""

    async def ask() -> None:
        from screens.call_dialogs import CallDialog

        await frame.console_app.ready()
        if kind is not None:
            wanted = kind
        else:
            wanted = await frame.services.calls.default_transport(agent_row)
        dialog = CallDialog(frame.console_app, agent_row, name, wanted)
        if frame.app.screen is frame:
            frame.app.push_screen(dialog, started)

    def started(session: Session | None) -> None:
        if session is not None:
            open_call(frame, session)

    frame.console_app.perform(ask, group="ask call")


def open_call(frame: Frame, session: Session) -> None:
    """Show a live call, in place of another call or a replay."""
    from screens.call import CallScreen

    _show(frame, CallScreen(frame.console_app, session))


def begin_replay(frame: Frame, call_id: str) -> None:
    """Read a recording and show it."""

    async def read() -> None:
        from screens.replay import ReplayScreen

        await frame.console_app.ready()
        replay = await frame.services.calls.replay(call_id)
        if frame.app.screen is frame:
            _show(frame, ReplayScreen(frame.console_app, replay))
        else:
            await replay.aclose()

    frame.console_app.perform(read, group="replay")


def _show(frame: Frame, screen: Frame) -> None:
    from screens.call_keys import TalkFrame

    app = frame.app
    if isinstance(app.screen, TalkFrame):
        app.switch_screen(screen)
    else:
        app.push_screen(screen)


def tell_end(frame: Frame, session: Session) -> None:
    """Say that a call is over, unless the operator looks at it."""
    from screens.call import CallScreen
    from screens.call_words import end_lines

    if isinstance(frame, CallScreen) and frame.session is session:
        return
    words, advice = end_lines(session.live)
    ended = session.live.ended
    failed = ended is not None and not ended.reason.well
    frame.console_app.tell(f"{session.target.name}: {words or 'the call is over'}", advice, failed=failed)


async def end_all(sessions: Sequence[Session]) -> None:
    """Hang up every call, as leaving the program does."""
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await asyncio.gather(*(session.end() for session in sessions), return_exceptions=True)
