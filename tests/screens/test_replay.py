"""A replay: the timeline, moving on it, the transcript as it grew."""

from __future__ import annotations

from screens.calls import CallsScreen
from screens.widgets.timeline import Moment, Timeline
from services.calls.replay import MarkKind, TimelineMark
from tests.support.calling import drawn, in_replay
from tests.support.console import console, opened, screen_lines, screen_text, until
from tests.support.fake_services import FakeServices


class HeldClock:
    """Stands until it is moved, in seconds."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> int:
        return round(self.at * 1000)

    def monotonic(self) -> float:
        return self.at


def held() -> tuple[FakeServices, HeldClock]:
    services, clock = FakeServices(), HeldClock()
    services.calls.clock = clock
    return services, clock


async def test_the_whole_call_is_there_at_once() -> None:
    services, _ = held()
    async with opened(services, (140, 40)) as pilot:
        await in_replay(pilot)
        text = screen_text(pilot)
        assert "‖ paused 00:27 / 00:27" in text
        assert "2026-03-01 12:30:00 CET" in text
        assert "Auf Wiederhören!" in text
        assert "Ended: The agent ended the call" in text or "The agent ended the call" in text
        assert "silent: this recording has no audio" in text
        assert not [line for line in screen_lines(pilot) if line.startswith((" you ", " agent "))]
        assert "◆" in text
        assert "ƒ" in text


async def test_playing_shows_the_transcript_as_it_grew() -> None:
    services, clock = held()
    async with opened(services, (140, 40)) as pilot:
        screen = await in_replay(pilot)
        await pilot.press("space")
        await until(pilot, lambda: "plays 00:00 / 00:27" in screen_text(pilot))
        assert "Guten Tag" not in screen_text(pilot)
        clock.at += 4
        await until(pilot, lambda: "Guten Tag" in screen_text(pilot))
        assert "Termin" not in screen_text(pilot)
        assert "plays 00:04" in screen_text(pilot)
        await pilot.press("space")
        await until(pilot, lambda: not screen.replay.playing)
        clock.at += 60
        await drawn(pilot)
        assert "‖ paused 00:04" in screen_text(pilot)


async def test_seeking_by_seconds_turns_and_marks() -> None:
    services, _ = held()
    async with opened(services, (140, 40)) as pilot:
        screen = await in_replay(pilot)
        replay = screen.replay
        await pilot.press("left")
        assert replay.position_ms == replay.duration_ms - 5_000
        await pilot.press("right", "right")
        assert replay.position_ms == replay.duration_ms
        replay.seek(0)
        turns = [mark.t for mark in replay.events if mark.kind in (MarkKind.USER, MarkKind.AGENT)]
        await pilot.press("full_stop", "full_stop")
        assert replay.position_ms == turns[1]
        await pilot.press("comma")
        assert replay.position_ms == turns[0]
        await pilot.press("x")
        assert replay.position_ms == next(
            mark.t for mark in replay.events if mark.kind is MarkKind.INTERRUPTION
        )
        await drawn(pilot)
        assert "cut off" not in screen_text(pilot)  # the words are there, the cut comes later
        assert "am Dienstag" in screen_text(pilot)


async def test_speed() -> None:
    services, clock = held()
    async with opened(services, (140, 40)) as pilot:
        screen = await in_replay(pilot)
        await pilot.press("plus", "plus")
        await until(pilot, lambda: "2x" in screen_text(pilot))
        await pilot.press("space")
        await until(pilot, lambda: screen.replay.playing)
        clock.at += 4
        await until(pilot, lambda: screen.replay.position_ms == 8_000)
        await pilot.press("plus")
        assert not screen.is_available("faster")
        for _ in range(5):
            await pilot.press("minus")
        assert screen.replay.speed == 0.5
        assert not screen.is_available("slower")


async def test_from_a_line_to_its_moment() -> None:
    services, _ = held()
    async with opened(services, (140, 40)) as pilot:
        screen = await in_replay(pilot)
        assert not screen.is_available("jump_here")
        await pilot.press("home", "down")
        entry = screen.transcript.current
        assert entry is not None
        assert entry.text == "Ich bräuchte einen Termin"
        await pilot.press("enter")
        assert screen.replay.position_ms == entry.t
        assert screen.replay.playing


async def test_searching_and_leaving() -> None:
    services, _ = held()
    async with opened(services, (140, 40)) as pilot:
        screen = await in_replay(pilot)
        await pilot.press("slash", *"donnerstag", "enter")
        await drawn(pilot)
        assert "of 3 found" in screen_text(pilot)
        await pilot.press("y")
        assert "Donnerstag" in console(pilot).copied
        await pilot.press("escape", "escape")
        assert isinstance(pilot.app.screen, CallsScreen)
        assert screen.replay._task is None


async def test_a_call_of_which_nothing_was_kept() -> None:
    services, _ = held()
    async with opened(services) as pilot:
        from tests.support.fake_calls import with_history

        with_history(services.calls)
        services.calls.messages.clear()
        await pilot.press("2")
        await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "Nothing of this call was kept" in screen_text(pilot))
        await pilot.press("space", "left", "right", "comma", "full_stop", "x")


async def test_at_80_by_24() -> None:
    services, _ = held()
    async with opened(services) as pilot:
        screen = await in_replay(pilot)
        screen.replay.seek(15_000)
        await drawn(pilot)
        lines = screen_text(pilot).splitlines()
        assert all(len(line) <= 80 for line in lines)
        assert "00:15" in lines[-3]
        assert lines[-1].endswith("? keys")


async def test_a_click_on_the_timeline_jumps() -> None:
    services, _ = held()
    async with opened(services, (140, 40)) as pilot:
        screen = await in_replay(pilot)
        room = screen.timeline.room
        await pilot.click(screen.timeline, offset=(8 + room // 2, 1))
        assert abs(screen.replay.position_ms - screen.replay.duration_ms // 2) < 500


def test_the_more_important_mark_is_seen() -> None:
    from screens.glyphs import ASCII

    marks = [TimelineMark(5_000, kind, "") for kind in MarkKind]
    line = Timeline(lambda: Moment(0, 10_000), marks, ASCII)
    cells = line.rows(80)[0][0]
    assert "".join(text for text, _ in cells).strip() == "x"
