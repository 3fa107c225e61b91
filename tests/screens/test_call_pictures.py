"""Pictures of the screens of calls that carry the look; everything else asserts text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.screens.test_pictures import console_on, started
from tests.support.calling import drawn, in_call, in_replay
from tests.support.fake_calls import FakeSession, conversation, refused, wants_approval
from tests.support.fake_services import FakeServices


class HeldClock:
    """Time stands still."""

    def now(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0


async def in_conversation(pilot: Pilot[Any]) -> FakeSession:
    await started(pilot)
    session = await in_call(pilot)
    conversation(session)
    await drawn(pilot)
    return session


async def before_a_decision(pilot: Pilot[Any]) -> None:
    wants_approval(await in_conversation(pilot))
    await drawn(pilot)


async def after_a_refusal(pilot: Pilot[Any]) -> None:
    await started(pilot)
    refused(await in_call(pilot))
    await drawn(pilot)


async def in_the_middle(pilot: Pilot[Any]) -> None:
    services = await started(pilot)
    services.calls.clock = HeldClock()
    screen = await in_replay(pilot)
    room = screen.timeline.room
    screen.timeline.waves = {
        "you": [abs((each * 7) % 11 - 5) / 5 if each // 12 % 2 else 0.0 for each in range(room)],
        "agent": [0.0 if each // 12 % 2 else abs((each * 5) % 13 - 6) / 6 for each in range(room)],
    }
    screen.replay.seek(15_000)
    await drawn(pilot)


def test_a_live_call(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(console_on(FakeServices()), terminal_size=(140, 40), run_before=in_conversation)


def test_a_tool_waits_at_80_by_24(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(console_on(FakeServices()), terminal_size=(80, 24), run_before=before_a_decision)


def test_a_refused_call_on_a_light_theme(snap_compare: Callable[..., bool]) -> None:
    app = console_on(FakeServices(), "light")
    assert snap_compare(app, terminal_size=(80, 24), run_before=after_a_refusal)


def test_a_live_call_in_ascii_without_colours(
    snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    services = FakeServices()
    services.settings.ascii = True
    assert snap_compare(console_on(services), terminal_size=(120, 30), run_before=in_conversation)


def test_a_replay(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(console_on(FakeServices()), terminal_size=(120, 30), run_before=in_the_middle)
