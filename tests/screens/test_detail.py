"""One agent: overview, configuration with search, history."""

from __future__ import annotations

from dataclasses import replace

from textual.pilot import Pilot

from screens.detail import DetailPane
from screens.widgets.document import Document
from services.events import AgentsChanged
from services.model import ErrorInfo, SyncStatus
from tests.support.console import console, home, opened, screen_lines, screen_text, settled, until
from tests.support.fake_services import FakeServices, seeded_cards


async def open_detail(pilot: Pilot[str]) -> DetailPane:
    await pilot.press("enter")
    await until(pilot, lambda: home(pilot).pane)
    await settled(pilot)
    pane = home(pilot).pane
    assert pane is not None
    return pane


async def test_over_the_cards_when_narrow_and_beside_them_when_wide() -> None:
    async with opened(FakeServices(), (80, 24)) as pilot:
        await open_detail(pilot)
        assert not home(pilot).grid.display
        await pilot.press("escape")
        await pilot.pause()
        assert home(pilot).grid.display
        assert home(pilot).pane is None
    async with opened(FakeServices(), (140, 40)) as pilot:
        pane = await open_detail(pilot)
        assert home(pilot).grid.display
        assert home(pilot).grid.columns == 2
        first = pane.card
        await pilot.press("right")
        await settled(pilot)
        assert pane.card is home(pilot).board.shown[1]
        assert pane.card is not first


async def test_the_overview_has_exact_times_and_the_cause() -> None:
    card = replace(
        seeded_cards(1)[0],
        status=SyncStatus.ERROR,
        error=ErrorInfo("transient", "Retell answered 500", "Wait a minute"),
    )
    async with opened(FakeServices(cards=[card])) as pilot:
        await open_detail(pilot)
        text = screen_text(pilot)
        assert "what happened     Retell answered 500" in text
        assert "what to do        Wait a minute" in text
        assert card.agent_id in text
        assert "CET" in text
        await pilot.press("y")
        assert "Retell answered 500. Wait a minute" in console(pilot).copied


async def test_the_configuration_hides_secrets_and_can_be_searched() -> None:
    async with opened(FakeServices(), (140, 40)) as pilot:
        pane = await open_detail(pilot)
        await pilot.press("tab")
        await settled(pilot)
        text = screen_text(pilot)
        assert '"Authorization": "••••••••"' in text
        assert "s3cr3t" not in text
        await pilot.press("slash")
        await until(pilot, lambda: pane.search_line)
        await pilot.press(*"agent", "enter")
        await settled(pilot)
        assert pane.configuration.found >= 3
        assert f"1 of {pane.configuration.found}" in text or "1 of" in screen_text(pilot)
        await pilot.press("n", "n", "N")
        assert "2 of" in screen_text(pilot)
        await pilot.press("y")
        await settled(pilot)
        assert "Marissa" in console(pilot).copied
        assert "s3cr3t" not in console(pilot).copied
        await pilot.press("slash", *"zebra", "enter")
        await settled(pilot)
        assert "no 'zebra' in here" in screen_text(pilot)


async def test_history() -> None:
    async with opened(FakeServices()) as pilot:
        await open_detail(pilot)
        await pilot.press("shift+tab")
        await settled(pilot)
        assert "unchanged" in screen_text(pilot)
        assert "nothing new in the list" in screen_text(pilot)


async def test_an_agent_that_was_never_read_says_so() -> None:
    card = next(card for card in seeded_cards(20) if card.function_count is None)
    async with opened(FakeServices(cards=[card])) as pilot:
        await open_detail(pilot)
        await pilot.press("tab")
        await settled(pilot)
        assert "Nothing has been read of this agent yet" in screen_text(pilot)


async def test_ten_megabytes_of_prompt() -> None:
    services = FakeServices(cards=seeded_cards(1))
    services.agents.prompt = (
        "Say something long and nice to the caller.\nThen wait. " * 190_000 + "needle in the end"
    )
    async with opened(services) as pilot:
        pane = await open_detail(pilot)
        await pilot.press("tab")
        await settled(pilot)
        assert pane.configuration.virtual_size.height > 100_000
        await pilot.press("end")
        assert "needle in the end" in screen_text(pilot)
        assert await pane.configuration.search("needle") == 1
        assert len(list(pilot.app.screen.walk_children())) < 60


async def test_what_is_shown_follows_a_sync() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await open_detail(pilot)
        card = home(pilot).board.shown[0]
        reads = services.agents.bundle_reads
        services.agents.rows[card.id] = replace(card, voice="Newvoice")
        services.bus.publish(AgentsChanged((card.id,)))
        await until(pilot, lambda: "Newvoice" in screen_text(pilot))
        assert services.agents.bundle_reads > reads
        await pilot.press("s")
        await until(pilot, lambda: services.sync.requests)
        assert services.sync.requests[0].agent_ids == (card.id,)
        assert screen_lines(pilot)[0]


async def test_a_document_wraps_again_when_it_gets_narrower() -> None:
    async with opened(FakeServices(cards=seeded_cards(1))) as pilot:
        pane = await open_detail(pilot)
        document: Document = pane.configuration
        await pilot.press("tab")
        await settled(pilot)
        await document.set_lines(["word " * 40])
        before = document.virtual_size.height
        await pilot.resize_terminal(60, 24)
        await until(pilot, lambda: document.virtual_size.height > before)
