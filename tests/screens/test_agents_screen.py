"""The agents screen, driven by keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.widget import Widget

from app.console import LEAVE_DEMO
from screens.glyphs import State
from screens.theme import LIGHT, PLAIN
from services.errors import ServiceError
from services.events import AgentsChanged, ScheduleChanged
from services.model import ErrorInfo, Outcome, OutcomeRow, Provider, RunStatus, SyncStatus
from tests.support.console import console, home, opened, screen_lines, screen_text, settled, until
from tests.support.fake_services import HOUR, MINUTE, NOON, FakeServices, seeded_cards


async def test_the_frame_at_80_by_24() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        services.bus.publish(ScheduleChanged(NOON + HOUR))
        await settled(pilot)
        lines = screen_lines(pilot)
        assert len(lines) == 24
        assert "1 Agents 2 Calls 3 Companies 4 Health 5 Activity" in lines[0]
        assert lines[0].endswith("acme  keyring  next 14:00")
        assert lines[1].startswith(" 42 agents   ● 26 in sync")
        assert lines[1].endswith("by name")
        assert [line.count("╭") + line.count("┏") for line in lines[2:22:5]] == [2, 2, 2, 2]
        assert "last sync 4 min ago" in lines[22]
        assert lines[23].startswith(" s sync  S all  c call  enter open  / filter")
        assert lines[23].endswith("? keys")


@pytest.mark.parametrize(("width", "columns"), [(60, 1), (80, 2), (120, 3), (140, 3), (160, 4)])
async def test_columns_follow_the_width(width: int, columns: int) -> None:
    async with opened(FakeServices(), (width, 30)) as pilot:
        assert home(pilot).grid.columns == columns


async def test_moving_the_cursor() -> None:
    async with opened(FakeServices()) as pilot:
        grid = home(pilot).grid
        for keys, place in (
            (("right",), 1),
            (("down",), 3),
            (("h",), 2),
            (("k",), 0),
            (("up", "left"), 0),
            (("pagedown",), 8),
            (("end",), 41),
            (("right", "down"), 41),
            (("pageup",), 33),
            (("home",), 0),
            (("G",), 41),
            (("g",), 0),
        ):
            await pilot.press(*keys)
            assert grid.cursor == place, keys
        await pilot.press("end")
        assert grid.scroll_offset.y > 0
        assert "┏" in screen_text(pilot)


async def test_s_syncs_the_card_under_the_cursor_and_the_marked_ones() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        first = home(pilot).board.shown[0]
        await pilot.press("s")
        await until(pilot, lambda: services.sync.requests)
        assert services.sync.requests[0].agent_ids == (first.id,)
        assert not services.sync.requests[0].force
        services.sync.settle()
        services.sync.finish()
        await settled(pilot)
        await pilot.press("space", "space", "f")
        await until(pilot, lambda: len(services.sync.requests) == 2)
        assert len(services.sync.requests[1].agent_ids) == 2
        assert services.sync.requests[1].force


async def test_a_running_sync_shows_and_esc_cancels_and_r_resumes() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await pilot.press("S")
        await until(pilot, lambda: home(pilot).live.syncing)
        services.sync.settle(12)
        services.sync.settle(5, Outcome.UPDATED)
        await settled(pilot)
        assert "◐ syncing 17/42" in screen_lines(pilot)[22]
        assert "12 unchanged  5 updated" in screen_lines(pilot)[22]
        assert screen_lines(pilot)[22].endswith("esc cancels")
        assert screen_lines(pilot)[23].startswith(" esc cancel")
        await pilot.press("S")
        assert len(services.sync.requests) == 1, "no second sync beside the first"
        await pilot.press("escape")
        await settled(pilot)
        assert "cancelled at 17/" in screen_lines(pilot)[22]
        assert screen_lines(pilot)[22].endswith("r resumes")
        run = services.sync.active
        assert run is not None
        await pilot.press("r")
        await until(pilot, lambda: len(services.sync.requests) == 2)
        assert services.sync.requests[1].resume == run.run_id


async def test_reading_cards_say_so_and_settle_one_by_one() -> None:
    services = FakeServices(cards=seeded_cards(4))
    async with opened(services) as pilot:
        await pilot.press("S")
        await until(pilot, lambda: home(pilot).live.syncing)
        assert screen_text(pilot).count("◐ syncing") == 5  # four cards and the bar
        services.sync.settle(1)
        await settled(pilot)
        assert home(pilot).board.syncing == {2, 3, 4}


async def test_a_broken_agent_says_why_on_its_card_and_in_full_below() -> None:
    services = FakeServices(demo=object(), cards=seeded_cards(2))
    async with opened(services) as pilot:
        await pilot.press("B", "s")
        await until(pilot, lambda: home(pilot).live.syncing)
        services.sync.settle()
        services.sync.finish()
        await settled(pilot)
        lines = screen_lines(pilot)
        assert "✗ error" in lines[3]
        assert "Retell answered 500 for this agent" in lines[4]
        assert "Try again in a minute" in lines[5]
        assert "partly synced" in lines[22]
        await pilot.press("right", "left")
        assert "✗ Retell answered 500 for this agent  → Try again in a minute" in screen_lines(pilot)[22]
        await pilot.press("y")
        assert "Retell answered 500 for this agent. Try again in a minute" in console(pilot).copied
        await pilot.press("B")
        await settled(pilot)
        assert not services.sync.broken
        await pilot.press("E")
        await settled(pilot)
        assert services.demo_control.edited == [home(pilot).board.shown[0].id]


async def test_the_demo_keys_exist_only_in_the_demo() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await pilot.press("B", "E")
        await settled(pilot)
        assert not services.sync.broken
        assert "DEMO" not in screen_text(pilot)


async def test_filtering_as_one_types() -> None:
    async with opened(FakeServices()) as pilot:
        board = home(pilot).board
        await pilot.press("slash", *"vendor:r")
        assert {card.provider for card in board.shown} == {Provider.RETELL}
        await pilot.press(*"x")
        assert "vendor: knows no 'rx'" in screen_lines(pilot)[1]
        assert {card.provider for card in board.shown} == {Provider.RETELL}, "the last good filter stays"
        await pilot.press("backspace", "enter")
        assert "/ vendor:r" in screen_lines(pilot)[1]
        assert f"{len(board.shown)} of 42 agents" in screen_lines(pilot)[1]
        await pilot.press("escape")
        assert len(board.shown) == 42


async def test_a_filter_that_hides_everything_says_how_to_get_out() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("slash", *"nobody", "enter")
        assert "No agent matches nobody" in screen_text(pilot)
        assert "esc drops the filter" in screen_text(pilot)


async def test_the_cursor_stays_on_its_agent_when_the_order_changes() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("down", "down")
        agent = home(pilot).grid.current
        await pilot.press("o", "o")
        assert "by age" in screen_lines(pilot)[1]
        assert home(pilot).grid.current is agent


async def test_marks() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("space", "space")
        assert "✓ 2 marked" in screen_lines(pilot)[1]
        assert screen_text(pilot).count("✓ ") == 3
        await pilot.press("a")
        assert "✓ 42 marked" in screen_lines(pilot)[1]
        await pilot.press("a")
        assert "marked" not in screen_lines(pilot)[1]
        await pilot.press("space", "escape")
        assert "marked" not in screen_lines(pilot)[1]


async def test_several_companies_stand_on_the_cards() -> None:
    services = FakeServices(cards=seeded_cards(8, companies=("acme", "Zahnarzt Weber")))
    async with opened(services) as pilot:
        assert " Zahnarzt Weber ─╯" in screen_text(pilot)
        assert "2 companies" in screen_lines(pilot)[0]


async def test_a_card_changed_elsewhere_is_repainted_alone() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        card = home(pilot).board.shown[3]
        services.agents.rows[card.id] = replace(card, voice="Newvoice")
        services.agents.elsewhere = True
        console(pilot)._pulse._poll()
        await until(pilot, lambda: "Newvoice" in screen_text(pilot))
        services.agents.rows[card.id] = replace(card, voice="Othervoice")
        services.bus.publish(AgentsChanged((card.id,)))
        await until(pilot, lambda: "Othervoice" in screen_text(pilot))


async def test_the_counts_tell_of_cards_that_the_filter_hides() -> None:
    services = FakeServices()
    async with opened(services, size=(120, 30)) as pilot:
        screen = home(pilot)
        hidden = next(card for card in screen.board.shown if screen.board.state(card) is State.IN_SYNC)
        before = screen.board.counts[State.IN_SYNC]
        screen.filter_typed(f"!{hidden.name}")
        assert screen.board.index_of(hidden.id) is None
        services.agents.rows[hidden.id] = replace(hidden, gone_at=services.clock.now())
        services.bus.publish(AgentsChanged((hidden.id,)))
        await until(pilot, lambda: f"{before - 1} in sync" in screen_lines(pilot)[1])


@pytest.mark.parametrize("no_color", [False, True])
async def test_the_kept_lines_are_those_textual_would_draw(
    no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid keeps its lines and draws refreshed ones only: never others than a full drawing gives."""
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    services = FakeServices()
    async with opened(services, size=(100, 24)) as pilot:
        grid, app = home(pilot).grid, console(pilot)

        async def check(what: str) -> None:
            await settled(pilot)
            crop = grid.size.region
            kept = grid.render_lines(crop)
            grid._styles_cache.clear()
            grid._row = None
            whole = Widget.render_lines(grid, crop)
            # The last column lies below the scrollbar.
            shown = [[list(strip.crop(0, crop.width - 1)) for strip in strips] for strips in (kept, whole)]
            assert shown[0] == shown[1], what
            assert {strip.cell_length for strip in kept} == {crop.width}, what

        await check("at first")
        card = home(pilot).board.shown[1]
        services.agents.rows[card.id] = replace(card, voice="Newvoice")
        services.bus.publish(AgentsChanged((card.id,)))
        await until(pilot, lambda: "Newvoice" in screen_text(pilot))
        await check("one card changed")
        await pilot.press(*["down"] * 7, "space")
        await check("scrolled and marked")
        await pilot.resize_terminal(140, 40)
        await check("larger")
        await pilot.resize_terminal(60, 20)
        await check("smaller")
        await pilot.press("enter", "escape", "slash", *"vendor:retell", "enter", "o")
        await check("the detail closed, filtered, in another order")
        if not no_color:
            app.action_switch_theme()
            await check("another theme")
        services.clock.at += HOUR
        grid.tick()
        await check("later")


async def test_ages_go_on() -> None:
    services = FakeServices(cards=[replace(seeded_cards(1)[0], checked_at=NOON - 4 * MINUTE)])
    async with opened(services) as pilot:
        assert " 4 min " in screen_lines(pilot)[3]
        services.clock.at += 3 * MINUTE
        home(pilot)._tick()
        await pilot.pause()
        assert " 7 min " in screen_lines(pilot)[3]
        services.clock.at += HOUR
        home(pilot)._tick()
        await pilot.pause()
        assert "stale · 1 h" in screen_lines(pilot)[3]


async def test_the_mouse_chooses_opens_and_tells_the_exact_time() -> None:
    async with opened(FakeServices()) as pilot:
        grid = home(pilot).grid
        await pilot.click(grid, offset=(45, 7))
        assert grid.cursor == 3
        await pilot.hover(grid, offset=(5, 2))
        assert "checked  2026-03-01" in str(grid.tooltip)
        assert "CET" in str(grid.tooltip)
        await pilot.click(grid, offset=(45, 7), times=2)
        await until(pilot, lambda: home(pilot).pane)


async def test_the_first_start_leads_to_a_company() -> None:
    async with opened(FakeServices(cards=[], company_names=())) as pilot:
        assert "Enter sets up a company" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "Add a company" in screen_text(pilot))


async def test_no_agents_yet() -> None:
    services = FakeServices(cards=[])
    services.agents.connections = 1
    async with opened(services) as pilot:
        assert "No agents yet" in screen_text(pilot)
        assert "S asks the vendors for them" in screen_text(pilot)


async def test_setting_up_in_the_demo_leaves_it() -> None:
    async with opened(FakeServices(demo=object())) as pilot:
        assert " DEMO " in screen_lines(pilot)[0]
        await pilot.press("3")
        await until(pilot, lambda: "retell.example" in screen_text(pilot))
        await pilot.press("a")
        await pilot.pause()
    assert pilot.app.return_value == LEAVE_DEMO


async def test_an_unreadable_database_is_said_where_the_cards_would_be() -> None:
    services = FakeServices()
    services.agents.failure = ServiceError("the database is from a newer version", advice="Update Callboard")
    app_ready = services.start_background

    async def started() -> None:
        await app_ready()
        services.started = True

    services.start_background = started  # type: ignore[method-assign]
    from app.console import Callboard

    app = Callboard(services)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "The database is from a newer version" in screen_text(pilot))
        services.agents.failure = None
        services.bus.publish(AgentsChanged())
        await until(pilot, lambda: "42 agents" in screen_text(pilot))


async def test_offline_is_marked() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await pilot.press("S")
        await until(pilot, lambda: home(pilot).live.syncing)
        error = ErrorInfo("transient", "api.retellai.com could not be reached", "Check the network")
        row = OutcomeRow("acme", Provider.RETELL, "", "", Outcome.FAILED, error)
        services.sync.rows.clear()
        services.sync.finish(RunStatus.FAILED, (row,))
        await settled(pilot)
        assert "✗ offline" in screen_lines(pilot)[0]
        assert "could not be reached" in screen_lines(pilot)[22]


async def test_a_light_theme() -> None:
    services = FakeServices()
    services.settings.theme = "light"
    async with opened(services) as pilot:
        assert pilot.app.theme == LIGHT
        assert not pilot.app.current_theme.dark
        await pilot.press("ctrl+t")
        assert pilot.app.current_theme.dark


async def test_no_color_means_no_colour_and_still_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened(FakeServices()) as pilot:
        assert pilot.app.theme == PLAIN
        strips = pilot.app.screen._compositor.render_strips()
        for strip in strips:
            for segment in strip:
                style = segment.style
                assert style is None or style.color is None or style.color.is_default
                assert style is None or style.bgcolor is None or style.bgcolor.is_default
        assert "┏" in screen_text(pilot)


async def test_sixteen_colours_use_the_terminals_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM")
    async with opened(FakeServices()) as pilot:
        assert pilot.app.theme == PLAIN
        colours = {
            segment.style.color.name
            for strip in pilot.app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None and segment.style.color is not None
        }
        assert all(name == "default" or name.startswith("color(") for name in colours)
        assert len(colours) > 3


async def test_a_dumb_terminal_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    async with opened(FakeServices(cards=[card for card in seeded_cards(8) if card.name.isascii()])) as pilot:
        text = screen_text(pilot).replace("▁", "")
        assert text.isascii(), [line for line in text.splitlines() if not line.isascii()]


async def test_five_thousand_agents() -> None:
    services = FakeServices(cards=seeded_cards(5_000))
    async with opened(services) as pilot:
        assert "5,000 agents" in screen_lines(pilot)[1]
        await pilot.press("end")
        assert home(pilot).grid.cursor == 4_999
        await pilot.press("slash", *"clinic !status:error", "enter")
        assert 0 < len(home(pilot).board.shown) < 5_000
        assert len(home(pilot).grid._drawn) < 200, "only what is on screen is drawn"
        assert len(list(pilot.app.screen.walk_children())) < 50


async def test_a_sync_that_ends_puts_cards_where_they_belong() -> None:
    services = FakeServices(cards=seeded_cards(20))
    async with opened(services) as pilot:
        await pilot.press("slash", *"status:error", "enter")
        failed = len(home(pilot).board.shown)
        assert failed
        await pilot.press("a", "s")
        await until(pilot, lambda: home(pilot).live.syncing)
        services.sync.settle(failed)
        await settled(pilot)
        assert len(home(pilot).board.shown) == failed, "nothing jumps while a sync runs"
        services.sync.finish()
        await settled(pilot)
        assert not home(pilot).board.shown
        assert all(card.status is not SyncStatus.ERROR for card in home(pilot).board.cards.values())
