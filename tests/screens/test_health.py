"""The health screen, driven by keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from app.alerts import notification
from screens.health import HealthScreen
from screens.health_board import Fold
from screens.health_detail import CheckPane
from screens.health_dialogs import BreakerDialog, EndMaintenanceDialog, MaintenanceDialog
from services.errors import ServiceError
from services.events import AlertRaised, CallsChanged, HealthChanged
from services.health.model import CheckView, HealthView, HistoryPoint, Overall, Window
from services.resilience import BreakerState, BreakerView
from tests.support.console import console, home, opened, screen_lines, screen_text, settled, until
from tests.support.fake_health import (
    DOWN,
    HOUR,
    MINUTE,
    NOON,
    agents,
    healthy,
    never_probed,
    outage,
    providers,
)
from tests.support.fake_services import FakeServices

RETELL, ELEVEN = "provider:acme/retell", "provider:acme/elevenlabs"


def watching(view: HealthView) -> FakeServices:
    services = FakeServices()
    services.health.shown = view
    return services


async def on_health(pilot: Pilot[str]) -> HealthScreen:
    await pilot.press("4")
    await until(pilot, lambda: isinstance(pilot.app.screen, HealthScreen))
    await settled(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, HealthScreen)
    return screen


def health(pilot: Pilot[str]) -> HealthScreen:
    screen = next(each for each in pilot.app.screen_stack if isinstance(each, HealthScreen))
    assert isinstance(screen, HealthScreen)
    return screen


@contextmanager
def painted(pilot: Pilot[str]) -> Iterator[list[object]]:
    """What goes to the terminal meanwhile."""
    app, updates = console(pilot), list[object]()
    display = app._display

    def noting(screen: Any, update: Any) -> None:
        if update is not None:
            updates.append(update)
        display(screen, update)

    app._display = noting  # type: ignore[method-assign]
    try:
        yield updates
    finally:
        app._display = display  # type: ignore[method-assign]


# -- the picture ----------------------------------------------------------------------------------


async def test_an_outage_at_80_by_24() -> None:
    async with opened(watching(outage())) as pilot:
        await on_health(pilot)
        lines = screen_lines(pilot)
        assert len(lines) == 24
        assert "4 ✗ Unhealthy 5 Activity" in lines[0]
        assert lines[1].startswith(" ✗ unhealthy  1 down, 1 degraded")
        assert lines[1].endswith("checked just now")
        assert lines[2].strip() == "Retell is down; 31 agents and 2 workflows hang on it"
        assert lines[3].startswith("─ providers  1 down, 1 fine ─")
        assert lines[4].startswith("▸ ✗ Retell ")
        assert lines[4].endswith("98.7 %  down · breaker open 12 s")
        assert "✗✗✗✗✗✗✗✗✗✗" in lines[4]
        assert "54/60 left" in lines[5]
        assert any(line.startswith("  + · 31 held back by Retell   ") for line in lines)
        assert any("Twilio SMS" in line and "maintenance" in line for line in lines)
        assert any("Doctolib" in line and "simulated" in line for line in lines)
        assert lines[22].startswith(" ✗ Retell answers 503 since 12:52  → Nothing to do here")
        assert lines[23].startswith(" enter detail  r check now  b breaker  w maintenance")
        assert lines[23].endswith("? keys")
        assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("width", [80, 100, 120, 140, 200])
async def test_lines_fit_and_end_in_whole_words(width: int) -> None:
    async with opened(watching(outage()), (width, 40)) as pilot:
        await on_health(pilot)
        text = screen_text(pilot)
        assert all(len(line) <= width for line in text.splitlines())
        framed = width >= 100
        assert ("╭─ providers" in text) is framed
        beside = [line for line in text.splitlines() if "agents" in line and "integrations" in line]
        assert bool(beside) is (width >= 120)
        for line in text.splitlines():
            if "HubSpot" in line and width < 120:
                assert line.rstrip("│ ").endswith("the token is valid")


async def test_columns_have_titles_above_them() -> None:
    async with opened(watching(outage()), (140, 40)) as pilot:
        await on_health(pilot)
        title, retell = screen_lines(pilot)[2], screen_lines(pilot)[3]
        assert title.index("breaker") == retell.index("open 12 s")
        assert title.index("24 h") + 4 == retell.index("98.7 %") + 6
        assert "latency" in title
        assert "p95" in title


async def test_everything_is_well() -> None:
    async with opened(watching(healthy()), (120, 34)) as pilot:
        await on_health(pilot)
        lines = screen_lines(pilot)
        assert "● healthy" in lines[0]
        assert lines[1].startswith(" ● healthy")
        assert "providers  all 2 fine" in lines[2]
        assert "+ ● 42 fine" in screen_text(pilot)


async def test_several_companies_are_told_apart() -> None:
    view = healthy()
    checks = (*view.checks, replace(view.checks[0], id="provider:weber/retell", company="weber"))
    async with opened(watching(replace(view, checks=checks)), (140, 40)) as pilot:
        await on_health(pilot)
        assert "Retell · weber" in screen_text(pilot)
        assert "Retell · acme" in screen_text(pilot)


async def test_vendors_of_several_companies_are_told_apart_where_it_is_narrow() -> None:
    zenith = [replace(each, id=f"{each.id}2", company="Zenith Clinics") for each in providers()]
    view = HealthView(Overall.HEALTHY, "", (*providers(), *zenith), NOON)
    async with opened(watching(view), (80, 24)) as pilot:
        await on_health(pilot)
        names = [line[4:20] for line in screen_lines(pilot) if "●" in line[2:3]]
        assert len(set(names)) == len(names) == 4
        await pilot.press("end")
        await until(pilot, lambda: "Retell · Zenith Clinics" in screen_lines(pilot)[-2])


async def test_the_help_says_what_the_signs_stand_for() -> None:
    async with opened(watching(outage()), (120, 50)) as pilot:
        await on_health(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys of health" in screen_text(pilot))
        text = screen_text(pilot)
        assert [
            text.count(f"│   {group}  ") for group in ("Health", "Find", "Signs", "Everywhere", "Move")
        ] == [1] * 5
        for sign, meaning in (("‖", "In maintenance"), ("▲", "Degraded"), ("·", "Waits for another check")):
            assert any(f"   {sign} " in line and meaning in line for line in text.splitlines())


async def test_ascii_has_nothing_but_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    services = watching(outage())
    services.settings.ascii = True
    for size in ((80, 24), (140, 40)):
        async with opened(services, size) as pilot:
            await on_health(pilot)
            assert screen_text(pilot).isascii()
            await pilot.press("enter", "tab")
            await until(pilot, lambda: "uptime" in screen_text(pilot))
            assert screen_text(pilot).isascii()
            await pilot.press("escape", "w")
            await until(pilot, lambda: "Begin maintenance" in screen_text(pilot))
            assert screen_text(pilot).isascii()
            await pilot.press("escape", "question_mark")
            await until(pilot, lambda: "Keys of health" in screen_text(pilot))
            assert screen_text(pilot).isascii()
            await pilot.press("escape", "slash", *"state:nothing")
            await until(pilot, lambda: "knows no" in screen_text(pilot))
            assert screen_text(pilot).isascii()


# -- states of the whole --------------------------------------------------------------------------


async def test_nothing_to_watch_yet() -> None:
    services = FakeServices(cards=[])
    async with opened(services) as pilot:
        screen = await on_health(pilot)
        assert "Nothing to watch yet" in screen_text(pilot)
        assert "3 connects a company" in screen_text(pilot)
        for method in ("open", "check", "check_all", "filter", "breaker", "maintain", "copy", "fold"):
            assert not screen.is_available(method), method
        await pilot.press("r", "R", "b", "w", "y", "slash", "space", "enter", "down", "end", "right")
        assert services.health.asked == []
        assert isinstance(pilot.app.screen, HealthScreen)


async def test_the_first_probes() -> None:
    view = healthy(3)
    checks = tuple(never_probed(each) for each in view.checks)
    async with opened(watching(replace(view, checks=checks, checked_at=None)), (100, 30)) as pilot:
        await on_health(pilot)
        assert "not checked yet" in screen_lines(pilot)[1]
        assert any("○ Retell" in line and "checking" in line for line in screen_lines(pilot))


async def test_another_process_probes_or_nobody() -> None:
    view = replace(healthy(), started=False, prober="another process (desk, 4711)")
    services = watching(view)
    async with opened(services, (120, 30)) as pilot:
        await on_health(pilot)
        assert "checked just now by another process (desk, 4711)" in screen_lines(pilot)[1]
        services.health.show(replace(view, checked_at=NOON - HOUR))
        await until(pilot, lambda: "checked 1 h ago, nobody checks by itself" in screen_lines(pilot)[1])


async def test_the_service_cannot_say_and_then_can() -> None:
    services = watching(healthy())

    def fails() -> HealthView:
        raise ServiceError("The database cannot be read", advice="See whether its disk is there")

    view, services.health.view = services.health.view, fails  # type: ignore[method-assign]
    async with opened(services) as pilot:
        await on_health(pilot)
        assert "The checks could not be read" in screen_text(pilot)
        assert "The database cannot be read. See whether its disk is there" in screen_text(pilot)
        await pilot.press("escape")
        services.health.view = view  # type: ignore[method-assign]
        await on_health(pilot)
        assert "ElevenLabs" in screen_text(pilot)


# -- moving ---------------------------------------------------------------------------------------


async def test_down_goes_through_all_lines() -> None:
    for size in ((80, 24), (140, 40)):
        async with opened(watching(outage()), size) as pilot:
            screen = await on_health(pilot)
            seen = [screen.panels.current]
            for _ in range(30):
                await pilot.press("down")
                if screen.panels.current == seen[-1]:
                    break
                seen.append(screen.panels.current)
            items = [item for panel in screen.panels.panels for item in panel.items]
            assert seen == items
            await pilot.press("home")
            assert screen.panels.current == items[0]
            await pilot.press("G")
            assert screen.panels.current == items[-1]
            await pilot.press("g", "k", "up")
            assert screen.panels.current == items[0]


async def test_left_and_right_between_columns() -> None:
    async with opened(watching(outage()), (140, 40)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("left", "right")
        assert screen.panels.current == RETELL
        await pilot.press("j", "j")
        assert screen.panels.current == "agent:42"
        await pilot.press("right")
        assert screen.panels.current == "integration:3"
        await pilot.press("up")
        assert screen.panels.current == ELEVEN
        await pilot.press("down", "l", "end", "h")
        assert isinstance(screen.panels.current, Fold)


async def test_pages_and_the_cursor_in_view() -> None:
    async with opened(watching(outage())) as pilot:
        screen = await on_health(pilot)
        await pilot.press("down", "down", "down", "space", "pagedown")
        assert screen.panels.scroll_offset.y > 0
        current = screen.current
        assert current is not None
        assert any(line.startswith("▸ ") and current.name in line for line in screen_lines(pilot))
        await pilot.press("pageup", "pageup", "pageup")
        assert screen.panels.current == RETELL
        assert "providers" in screen_text(pilot)


async def test_the_mouse() -> None:
    async with opened(watching(outage()), (140, 40)) as pilot:
        screen = await on_health(pilot)
        lines = screen_lines(pilot)
        row = next(n for n, line in enumerate(lines) if "HubSpot" in line)
        await pilot.click(offset=(lines[row].index("HubSpot"), row))
        assert screen.panels.current == "integration:1"
        row = next(n for n, line in enumerate(lines) if "31 held back by Retell  " in line)
        await pilot.click(offset=(6, row), times=2)
        await until(pilot, lambda: "waits for Retell" in screen_text(pilot))
        await pilot.click(offset=(4, 2))
        await pilot.click(offset=(4, 38))
        assert isinstance(screen.panels.current, Fold)


# -- folding --------------------------------------------------------------------------------------


async def test_folding() -> None:
    async with opened(watching(outage()), (120, 50)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("down", "down", "down")
        assert "enter unfold" in screen_lines(pilot)[-1]
        await pilot.press("enter")
        await until(pilot, lambda: "- · 31 held back by Retell" in screen_text(pilot))
        assert screen_text(pilot).count("waits for Retell") == 31
        await pilot.press("down")
        assert "space fold" in screen_lines(pilot)[-1]
        await pilot.press("space")
        assert "waits for Retell" not in screen_text(pilot)
        assert isinstance(screen.panels.current, Fold)


async def test_the_cursor_goes_with_a_check_into_its_fold_and_out() -> None:
    services = watching(healthy())
    async with opened(services, (100, 30)) as pilot:
        screen = await on_health(pilot)
        services.health.change("agent:7", state=DOWN, message="its mirror is a day old")
        await until(pilot, lambda: "its mirror is a day old" in screen_text(pilot))
        await pilot.press("down", "down")
        assert screen.panels.current == "agent:7"
        services.health.show(healthy())
        await until(pilot, lambda: "its mirror is a day old" not in screen_text(pilot))
        assert isinstance(screen.panels.current, Fold)


async def test_the_cursor_keeps_its_height_when_its_check_goes() -> None:
    services = watching(healthy())
    async with opened(services, (100, 30)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("down")
        view = services.health.shown
        services.health.show(replace(view, checks=tuple(c for c in view.checks if c.id != RETELL)))
        await until(pilot, lambda: "providers  fine" in screen_text(pilot))
        services.health.show(replace(view, checks=view.checks[2:]))
        await until(pilot, lambda: "providers" not in screen_text(pilot))
        assert screen.panels.current is not None
        services.health.show(replace(view, checks=()))
        await until(pilot, lambda: screen.panels.current is None)


# -- finding --------------------------------------------------------------------------------------


async def test_the_filter() -> None:
    async with opened(watching(outage()), (120, 34)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("slash")
        assert "state:down" in screen_lines(pilot)[-1]
        await pilot.press(*"kind:agent !state:held")
        await until(pilot, lambda: "11 of 52" in screen_text(pilot))
        assert "held back" not in screen_text(pilot).split("agents")[-1]
        await pilot.press("enter")
        await until(pilot, lambda: screen.entry is None)
        assert "/ kind:agent !state:held" in screen_lines(pilot)[1]
        assert "esc drop filter" in screen_lines(pilot)[-1]
        await pilot.press("escape")
        assert "providers" in screen_text(pilot)
        assert isinstance(pilot.app.screen, HealthScreen)


async def test_a_wrong_filter_says_what_is_allowed() -> None:
    async with opened(watching(outage()), (120, 34)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("slash", *"state:xyz")
        await until(pilot, lambda: "State: knows no 'xyz'" in screen_lines(pilot)[2])
        assert (
            "Allowed are down, degraded, failing, maintenance, held, pending, fine" in screen_lines(pilot)[2]
        )
        await pilot.press("escape")
        assert screen.head.problem == ""
        assert not screen.board.filter
        await pilot.press("slash", *"nonsense", "enter")
        await until(pilot, lambda: "No check matches  nonsense" in screen_text(pilot))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not isinstance(pilot.app.screen, HealthScreen))


# -- checking now ---------------------------------------------------------------------------------


async def test_check_now_shows_that_it_works_and_can_be_left() -> None:
    services = watching(outage())
    async with opened(services, (120, 34)) as pilot:
        await on_health(pilot)
        services.health.hold = asyncio.Event()
        await pilot.press("r")
        await until(pilot, lambda: "◐ Retell" in screen_text(pilot))
        assert "◐ checking" in screen_lines(pilot)[1]
        assert services.health.asked == [(RETELL,)]
        assert "esc stop waiting" in screen_lines(pilot)[-1]
        await pilot.press("r", "R")
        assert len(services.health.asked) == 1
        await pilot.press("escape")
        await until(pilot, lambda: services.health.cancelled == 1)
        assert "✗ Retell" in screen_text(pilot)
        await pilot.press("r")
        await until(pilot, lambda: "◐ Retell" in screen_text(pilot))
        services.health.hold.set()
        await until(pilot, lambda: "✗ Retell" in screen_text(pilot))
        assert not health(pilot).asking


async def test_checking_everything_and_a_fold() -> None:
    services = watching(outage())
    async with opened(services, (140, 40)) as pilot:
        await on_health(pilot)
        services.health.hold = asyncio.Event()
        await pilot.press("R")
        await until(pilot, lambda: "0 of 52 checked" in screen_text(pilot))
        services.health.change(ELEVEN, checked_at=NOON + 1)
        await until(pilot, lambda: "1 of 52 checked" in screen_text(pilot))
        services.health.hold.set()
        await until(pilot, lambda: not health(pilot).asking)
        assert services.health.asked == [None]
        await pilot.press("down", "down", "down", "r")
        await until(pilot, lambda: len(services.health.asked) == 2)
        asked = services.health.asked[1]
        assert asked is not None
        assert len(asked) == 31


async def test_a_check_that_cannot_be_made_is_told() -> None:
    services = watching(outage())
    services.health.failure = ServiceError("Another process probes", advice="Ask there")
    async with opened(services, (120, 34)) as pilot:
        await on_health(pilot)
        await pilot.press("r")
        await until(pilot, lambda: "Another process probes" in screen_text(pilot))
        assert not health(pilot).asking


# -- live -----------------------------------------------------------------------------------------


async def test_only_what_differs_is_painted() -> None:
    services = watching(outage())
    async with opened(services, (120, 34)) as pilot:
        screen = await on_health(pilot)
        with painted(pilot) as updates:
            read = services.health.views
            services.health.show(replace(services.health.shown))
            await until(pilot, lambda: services.health.views > read)
            await settled(pilot)
            screen._tick()
            await settled(pilot)
            assert updates == []
            services.health.change(ELEVEN, p95_ms=999)
            await until(pilot, lambda: "999 ms" in screen_text(pilot))
            (update,) = updates
            spans = update.spans  # type: ignore[attr-defined]
            assert sum(end - start for _, start, end in spans) <= 12


async def test_the_countdown_goes_by_the_clock() -> None:
    services = watching(outage())
    async with opened(services, (120, 34)) as pilot:
        screen = await on_health(pilot)
        assert "open 12 s" in screen_text(pilot)
        for seconds, words in ((3, "open 9 s"), (8, "open 1 s"), (5, "tries next")):
            services.clock.at += seconds * 1000
            with painted(pilot) as updates:
                screen._tick()
                await until(pilot, lambda words=words: words in screen_text(pilot))
                assert updates
        services.health.change(RETELL, breaker=BreakerView(BreakerState.HALF_OPEN))
        await until(pilot, lambda: "half open" in screen_text(pilot))


async def test_no_tick_where_nothing_counts() -> None:
    services = watching(healthy())
    async with opened(services, (120, 34)) as pilot:
        screen = await on_health(pilot)
        painted_lines: list[object] = []
        line = screen.painter.line
        screen.painter.line = lambda *given: (painted_lines.append(given), line(*given))[1]  # type: ignore[method-assign]
        services.clock.at += 1_000
        screen._tick()
        assert painted_lines == []
        services.clock.at += 20_000
        screen._tick()
        await until(pilot, lambda: "checked 20 s ago" in screen_lines(pilot)[1])
        assert painted_lines == []


async def test_health_waits_for_nothing_else_to_be_shown() -> None:
    """Probes end all the time: they are looked at a few times a second, and hold nothing else up."""
    services = watching(healthy())
    async with opened(services) as pilot:
        pulse = console(pilot)._pulse
        services.bus.publish(HealthChanged())
        slow = pulse._waiting
        assert slow is not None
        services.bus.publish(CallsChanged())
        soon = pulse._waiting
        assert soon is not None
        assert soon.when() < slow.when()
        assert slow.cancelled()
        services.bus.publish(HealthChanged())
        assert pulse._waiting is soon
        await until(pilot, lambda: console(pilot).live.health is not None)


async def test_thousands_of_agents() -> None:
    services = watching(outage(2_000))
    async with opened(services, (140, 40)) as pilot:
        screen = await on_health(pilot)
        assert "+ · 1,989 held back by Retell" in screen_text(pilot)
        drawn: list[object] = []
        line = screen.painter.line
        screen.painter.line = lambda *given: (drawn.append(given), line(*given))[1]  # type: ignore[method-assign]
        await pilot.press("down", "down", "down", "space")
        await until(pilot, lambda: "- · 1,989 held back by Retell" in screen_text(pilot))
        await pilot.press("end", "left", "pagedown")
        await settled(pilot)
        assert screen.panels.virtual_size.height > 1_990
        assert len(drawn) < 1_000
        assert len(list(screen.walk_children())) <= 300


# -- one check ------------------------------------------------------------------------------------


async def test_the_detail_beside_the_list() -> None:
    services = watching(outage())
    async with opened(services, (140, 44)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "what to do" in screen_text(pilot))
        text = screen_text(pilot)
        for expected in (
            "Retell answers 503",
            "2026-03-01 12:52:00 CET, 8 min",
            "after 2 failures in a row, now 16",
            "open 12 s",
            "910/1,000 left this hour",
            "everything counts as unhealthy",
            "33 hang on it",
            RETELL,
            "ElevenLabs",
        ):
            assert expected in text, expected
        await pilot.press("n")
        await until(pilot, lambda: "key valid, 61 % of the quota left" in screen_text(pilot))
        assert screen.panels.current == ELEVEN
        await pilot.press("n", "n")
        await until(pilot, lambda: isinstance(screen.panels.current, str) and screen.pane)
        await pilot.press("p", "p", "p", "p")
        assert screen.panels.current == RETELL
        await pilot.press("escape")
        assert screen.pane is None
        assert isinstance(pilot.app.screen, HealthScreen)


async def test_the_detail_over_the_list_at_80_by_24() -> None:
    async with opened(watching(outage())) as pilot:
        screen = await on_health(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: "counts as down" in screen_text(pilot))
        assert "▸" not in screen_text(pilot)
        assert isinstance(pilot.app.focused, CheckPane)
        await pilot.press("down", "pagedown", "end")
        pane = screen.pane
        assert pane is not None
        assert pane.now.scroll_offset.y > 0
        await pilot.press("home", "up", "pageup")
        assert pane.now.scroll_offset.y == 0
        assert screen_lines(pilot)[-1].startswith(" esc back  tab history  r check now  n next")
        await pilot.press("n")
        await pilot.press("q")
        await until(pilot, lambda: "▸ ▲ Outbound DE 42" in screen_text(pilot))


async def test_the_past() -> None:
    services = watching(outage())
    async with opened(services, (140, 44)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("enter", "tab")
        await until(pilot, lambda: "97.2 %  of 2,880 checks" in screen_text(pilot))
        text = screen_text(pilot)
        assert "Feb 28 13:00" in text
        assert "80 failed  42 degraded" in text
        assert "goes on  down: Retell answers 503" in text
        assert "The key lacks" not in text
        await pilot.press("tab")
        await until(pilot, lambda: "down: The key lacks" in screen_text(pilot))
        assert services.health.history_reads == [(RETELL, 24), (RETELL, 168)]
        await until(pilot, lambda: "2026-03-01 12:52:00 CET goes on, alerted" in screen_text(pilot))
        await pilot.press("down", "down", "up", "home", "end", "pageup", "pagedown")
        pane = screen.pane
        assert pane is not None
        assert pane.incidents.cursor == 2
        await until(pilot, lambda: "The key lacks a permission. Renew it" in screen_text(pilot))
        await pilot.press("tab")
        await until(pilot, lambda: services.health.history_reads[-1] == (RETELL, 720))
        await pilot.press("shift+tab", "shift+tab", "shift+tab")
        await until(pilot, lambda: "what happened" in screen_text(pilot))


async def test_a_key_that_follows_at_once_is_not_lost() -> None:
    async with opened(watching(outage()), (140, 44)) as pilot:
        await on_health(pilot)
        for key in ("enter", "tab"):
            pilot.app.post_message(events.Key(key, None))
        await until(pilot, lambda: "97.2 %  of 2,880 checks" in screen_text(pilot))


async def test_the_past_is_read_again_after_a_probe_and_says_why_it_cannot() -> None:
    services = watching(outage())
    async with opened(services, (140, 44)) as pilot:
        await on_health(pilot)
        await pilot.press("enter", "tab")
        await until(pilot, lambda: len(services.health.history_reads) == 1)
        services.health.change(RETELL, message="Retell answers 502")
        await until(pilot, lambda: "Retell answers 502" in screen_text(pilot))
        assert len(services.health.history_reads) == 1
        services.health.change(RETELL, checked_at=NOON + MINUTE)
        await until(pilot, lambda: len(services.health.history_reads) == 2)

        async def fails(check_id: str, hours: int, /) -> Any:
            raise ServiceError("The database is locked", advice="Try again")

        services.health.history = fails  # type: ignore[method-assign]
        await pilot.press("tab")
        await until(pilot, lambda: "The database is locked" in screen_text(pilot))


async def test_a_check_without_a_past() -> None:
    services = watching(outage())

    async def nothing(*given: Any, **more: Any) -> list[Any]:
        return []

    services.health.history = nothing  # type: ignore[method-assign]
    services.health.incidents = nothing  # type: ignore[method-assign]
    async with opened(services, (140, 44)) as pilot:
        await on_health(pilot)
        await pilot.press("enter", "tab")
        await until(pilot, lambda: "nothing was measured in this time" in screen_text(pilot))
        assert "No incident in this time" in screen_text(pilot)


@pytest.mark.parametrize(
    ("down", "failing", "told"),
    [
        (0, 0, "No trouble in this time"),
        (1, 0, "No incident: never 2 failures in a row"),
        (1, 1, "No incident yet: 1 of 2 failures in a row"),
    ],
)
async def test_a_failure_that_was_no_incident_is_told_as_that(down: int, failing: int, told: str) -> None:
    services = watching(healthy())
    for check in services.health.shown.checks:
        services.health.change(check.id, failures=failing)

    async def history(*given: Any) -> list[HistoryPoint]:
        return [HistoryPoint(NOON - 5 * MINUTE, 5 * MINUTE, 16, 0, down, 0, 100.0, 200.0)]

    async def nothing(*given: Any, **more: Any) -> list[Any]:
        return []

    services.health.history = history  # type: ignore[method-assign]
    services.health.incidents = nothing  # type: ignore[method-assign]
    async with opened(services, (140, 44)) as pilot:
        await on_health(pilot)
        await pilot.press("enter", "tab")
        await until(pilot, lambda: told in screen_text(pilot))


# -- breaker and maintenance ----------------------------------------------------------------------


async def test_closing_and_opening_a_breaker() -> None:
    services = watching(outage())
    async with opened(services, (120, 34)) as pilot:
        await on_health(pilot)
        await pilot.press("b")
        await until(pilot, lambda: isinstance(pilot.app.screen, BreakerDialog))
        assert "It is open: the next request passes in 12 s." in screen_text(pilot)
        assert "let through again at once" in screen_text(pilot)
        await pilot.press("escape")
        assert services.health.breakers == []
        await pilot.press("b", "enter")
        await until(pilot, lambda: services.health.breakers == [("reset", RETELL)])
        await until(pilot, lambda: "The breaker of Retell is closed" in screen_text(pilot))
        await pilot.press("b")
        await until(pilot, lambda: "is refused at once" in screen_text(pilot))
        assert "33 checks hang on it" in screen_text(pilot)
        await pilot.press("left")
        await until(pilot, lambda: "let through again at once" in screen_text(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: services.health.breakers[-1] == ("trip", RETELL))
        await until(pilot, lambda: "open 30 s" in screen_text(pilot))


async def test_a_breaker_that_cannot_be_switched_stays_in_the_dialog() -> None:
    services = watching(outage())
    services.health.failure = ServiceError("The breaker is gone", advice="Check first")
    async with opened(services, (120, 34)) as pilot:
        screen = await on_health(pilot)
        await pilot.press("b", "enter")
        await until(pilot, lambda: "The breaker is gone. Check first" in screen_text(pilot))
        await pilot.press("escape")
        await pilot.press("end")
        assert not screen.is_available("breaker")
        await pilot.press("b")
        assert isinstance(pilot.app.screen, HealthScreen)


async def test_maintenance_begins_and_ends() -> None:
    services = watching(outage())
    async with opened(services, (120, 34)) as pilot:
        await on_health(pilot)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(pilot.app.screen, MaintenanceDialog))
        await pilot.press("ctrl+u", *"soon", "enter")
        await until(pilot, lambda: "'soon' is no time" in screen_text(pilot))
        await pilot.press("ctrl+u", *"2 h", "tab", *"moving house", "enter")
        await until(pilot, lambda: services.health.windows)
        window = services.health.windows[0]
        assert (window.scope, window.minutes, window.reason) == (RETELL, 120, "moving house")
        await until(pilot, lambda: "Maintenance of Retell for 2 h" in screen_text(pilot))
        await until(pilot, lambda: "maintenance until 15:00" in screen_text(pilot))
        await pilot.press("home")
        assert "w end maintenance" in screen_lines(pilot)[-1]
        await pilot.press("w")
        await until(pilot, lambda: isinstance(pilot.app.screen, EndMaintenanceDialog))
        assert "It lasts until 2026-03-01 15:00:00 CET" in screen_text(pilot)
        assert "moving house" in screen_text(pilot)
        await pilot.press("n", "y")
        await until(pilot, lambda: services.health.ended == [1])
        await until(pilot, lambda: "The maintenance of Retell is over" in screen_text(pilot))


async def test_maintenance_of_a_whole_company() -> None:
    services = watching(outage())
    async with opened(services, (120, 34)) as pilot:
        await on_health(pilot)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(pilot.app.screen, MaintenanceDialog))
        await pilot.press("shift+tab", "right", "right", "right")
        assert "everything" in screen_text(pilot)
        await pilot.press("left", "left", "enter", "enter")
        await until(pilot, lambda: services.health.windows)
        assert services.health.windows[0].scope == "company:acme"
        assert services.health.windows[0].minutes == 60


async def test_ending_what_recurs_or_holds_for_more_says_so() -> None:
    services = watching(outage())
    services.health.windows = [
        Window(1, "company:ACME", "night", "UTC", cron="0 11 * * *", minutes=120),
        Window(2, "integration", "", starts_at=NOON - HOUR, ends_at=NOON + HOUR),
        Window(3, "system", "", starts_at=NOON - HOUR, ends_at=NOON + HOUR),
        Window(4, "*", "", starts_at=NOON - HOUR, ends_at=NOON - MINUTE),
    ]
    async with opened(services, (120, 34)) as pilot:
        screen = await on_health(pilot)
        screen.panels.move_to("integration:3")
        await pilot.press("w")
        await until(pilot, lambda: isinstance(pilot.app.screen, EndMaintenanceDialog))
        assert "It holds for all of ACME: night." in screen_text(pilot)
        assert "It recurs (0 11 * * *, UTC): ending it ends all of it." in screen_text(pilot)
        assert "It holds for all integrations." in screen_text(pilot)
        await pilot.press("escape")
        assert services.health.ended == []


async def test_copying_a_line() -> None:
    async with opened(watching(outage()), (120, 34)) as pilot:
        await on_health(pilot)
        await pilot.press("y")
        assert console(pilot).copied.startswith("Retell (acme): down since 12:52")
        assert "What to do: Nothing to do here" in console(pilot).copied
        await pilot.press("enter", "y")
        assert "Retell" in console(pilot).copied


# -- everywhere else ------------------------------------------------------------------------------


async def test_the_top_line_of_other_screens() -> None:
    services = watching(healthy())
    async with opened(services, (120, 30)) as pilot:
        assert "healthy" not in screen_lines(pilot)[0]
        services.health.show(outage())
        await until(pilot, lambda: "✗ unhealthy" in screen_lines(pilot)[0])
        services.health.show(replace(healthy(), overall=Overall.DEGRADED))
        await until(pilot, lambda: "▲ degraded" in screen_lines(pilot)[0])
        await pilot.press("2")
        assert "▲ degraded" in screen_lines(pilot)[0]
        line = screen_lines(pilot)[0]
        await pilot.click(offset=(line.index("degraded"), 0))
        await until(pilot, lambda: isinstance(pilot.app.screen, HealthScreen))


async def test_the_top_line_at_80_columns() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        assert "4 Health 5 Activity" in screen_lines(pilot)[0]
        for view, words in ((healthy(), "4 ● Health"), (outage(), "4 ✗ Unhealthy")):
            services.health.show(view)
            await until(pilot, lambda words=words: words in screen_lines(pilot)[0])
        console(pilot).live.secret_label = "encrypted file"
        console(pilot).live.secret_locked = True
        home(pilot).redraw_bars()
        await until(pilot, lambda: "locked" in screen_lines(pilot)[0])
        line = screen_lines(pilot)[0]
        assert len(line) <= 80
        await pilot.click(offset=(line.index("Unhealthy"), 0))
        await until(pilot, lambda: isinstance(pilot.app.screen, HealthScreen))


async def test_an_alert_is_told_and_rings() -> None:
    services = watching(outage())
    async with opened(services, (120, 30)) as pilot:
        app, rung, written = console(pilot), list[str](), list[str]()
        app.bell = lambda: rung.append("bell")  # type: ignore[method-assign]
        app._pulse._alerts.write = written.append  # type: ignore[method-assign]
        services.bus.publish(AlertRaised(RETELL, "Retell is down", bell=True, desktop=True))
        await until(pilot, lambda: "Retell is down" in screen_text(pilot))
        assert "4 shows why" in screen_text(pilot)
        assert rung == ["bell"]
        await until(pilot, lambda: len(written) == 1)  # this terminal never says whether anybody looks
        app.post_message(events.AppFocus())
        await until(pilot, lambda: app.looked_at)
        services.bus.publish(AlertRaised(RETELL, "Retell is slow", desktop=True))
        await until(pilot, lambda: "Retell is slow" in screen_text(pilot))
        assert "Retell is down" in written.pop()
        assert written == []
        app.post_message(events.AppBlur())
        await until(pilot, lambda: not app.looked_at)
        services.bus.publish(AlertRaised(RETELL, "Retell is up again", over=True, desktop=True))
        await until(pilot, lambda: "Retell is up again" in screen_text(pilot))
        assert rung == ["bell"]
        assert len(written) == 1
        assert "Retell is up again" in written[0]


def test_a_desktop_notification_is_one_sequence() -> None:
    text = "Retell\x1b]0;evil\x07 is\ndown; at 12:00"
    plain = notification(text, {})
    assert plain == "\x1b]9;Retell]0,evil is down, at 12:00\x07"
    assert notification("a" * 999, {}).count("a") == 200
    inside = notification("down", {"TMUX": "/tmp/tmux,1,0"})
    assert inside == "\x1bPtmux;\x1b\x1b]9;down\x07\x1b\\"


async def test_the_filter_line_has_the_focus() -> None:
    async with opened(watching(outage())) as pilot:
        await on_health(pilot)
        await pilot.press("slash", "r")
        assert isinstance(pilot.app.focused, Input)
        assert pilot.app.focused.value == "r"


async def test_agents_that_come_are_shown() -> None:
    services = watching(healthy(3))
    async with opened(services, (100, 30)) as pilot:
        await on_health(pilot)
        more: tuple[CheckView, ...] = (*services.health.shown.checks, *agents(2, first=90))
        services.health.show(replace(services.health.shown, checks=more))
        await until(pilot, lambda: "5 fine" in screen_text(pilot))
