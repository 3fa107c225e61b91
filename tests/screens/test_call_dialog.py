"""Asking how to call: transports and why not, the brief, the number."""

from __future__ import annotations

from pathlib import Path

from screens.call import CallScreen
from screens.call_dialogs import CallDialog, PlaceDialog, _data_and_row
from screens.dialogs import UnlockDialog
from services.calls.model import TransportKind
from services.errors import ServiceError
from tests.support.calling import in_dialog, services_of
from tests.support.console import home, opened, screen_text, settled, until
from tests.support.fake_calls import FakePart
from tests.support.fake_services import FakeSecrets, FakeServices


async def test_c_and_enter_call() -> None:
    async with opened(FakeServices()) as pilot:
        await in_dialog(pilot)
        assert "your microphone and speaker" in screen_text(pilot)
        assert "enter calls" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, CallScreen))
        request = services_of(pilot).calls.requests[0]
        assert request.agent_row == home(pilot).board.shown[0].id
        assert request.transport is TransportKind.MICROPHONE
        assert not request.brief


async def test_a_way_that_is_not_there_says_why_and_offers_another() -> None:
    services = FakeServices()
    services.calls.unavailable = {TransportKind.MICROPHONE: "no microphone was found"}
    async with opened(services) as pilot:
        await in_dialog(pilot)
        await until(pilot, lambda: "Not available: no microphone was found" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "Text works here" in screen_text(pilot))
        assert not services.calls.requests
        await pilot.press("left")
        await until(pilot, lambda: "you type, the agent answers" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: services.calls.requests)
        assert services.calls.requests[0].transport is TransportKind.TEXT


async def test_fields_belong_to_their_way() -> None:
    async with opened(FakeServices()) as pilot:
        await in_dialog(pilot)
        assert "Number" not in screen_text(pilot)
        assert "Scenario" not in screen_text(pilot)
        await pilot.press("right", "right")
        await until(pilot, lambda: "Number" in screen_text(pilot))
        await pilot.press("right")
        await until(pilot, lambda: "Scenario" in screen_text(pilot))
        await pilot.press("tab", *"demo.yaml", "enter")
        await until(pilot, lambda: services_of(pilot).calls.requests)
        request = services_of(pilot).calls.requests[0]
        assert (request.transport, request.scenario) == (TransportKind.MOCK, Path("demo.yaml"))


async def test_the_phone_asks_again_with_number_and_cost() -> None:
    services = FakeServices()
    services.calls.question = "+49301234567 will ring. It costs about 0.12 € a minute."
    async with opened(services) as pilot:
        await in_dialog(pilot)
        await pilot.press("right", "right", "tab", *"+49301234567", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, PlaceDialog))
        assert "It costs about 0.12 € a minute." in screen_text(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "Not called" in screen_text(pilot))
        assert not services.calls.requests
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, PlaceDialog))
        await pilot.press("y")
        await until(pilot, lambda: services.calls.requests)
        assert services.calls.requests[0].confirmed
        assert services.calls.requests[0].number == "+49301234567"


async def test_the_parts_of_a_brief_are_shown_before_the_call(tmp_path: Path) -> None:
    brief = tmp_path / "brief.json"
    brief.write_text('{"system_prompt": "Be brief.", "variables": {"name": "Eva"}}')
    services = FakeServices()
    services.calls.parts = (
        FakePart("variable name", 3, "used", "the agent names it"),
        FakePart("system prompt", 9, "refused", "the agent does not permit it: enable it"),
    )
    async with opened(services, (120, 40)) as pilot:
        await in_dialog(pilot)
        await pilot.press("tab", *str(brief))
        await until(
            pilot, lambda: "The call would be refused. The agent does not permit it" in screen_text(pilot)
        )
        words = " ".join(screen_text(pilot).split())
        assert "system prompt 9 refused" in words
        assert "variable name 3 used" in words
        await pilot.press("enter")
        await settled(pilot)
        assert not services.calls.requests
        services.calls.parts = services.calls.parts[:1]
        await pilot.press("enter")
        await until(pilot, lambda: services.calls.requests)
        assert services.calls.requests[0].brief.system_prompt == "Be brief."


async def test_a_brief_that_cannot_be_read_says_so() -> None:
    async with opened(FakeServices(), (120, 40)) as pilot:
        dialog = await in_dialog(pilot)
        await pilot.press("tab", *"/no/such/brief.yaml", "enter")
        await until(pilot, lambda: not dialog.busy and "brief.yaml" in _status(dialog))
        assert isinstance(pilot.app.screen, CallDialog)


def _status(dialog: CallDialog) -> str:
    from textual.widgets import Static

    return str(dialog.query_one(".status", Static).content)


async def test_a_warning_is_read_whole() -> None:
    """When there is room again stands at its end."""
    services = FakeServices()
    services.calls.warnings = (
        "Retell (acme) was not asked: this account has used up what it may ask within one minute; "
        "room again in 42 s",
    )
    async with opened(services) as pilot:
        await in_dialog(pilot)
        await until(pilot, lambda: "this account has used up" in screen_text(pilot))
        assert "room again in 42 s" in screen_text(pilot)


async def test_a_failure_stays_in_the_dialog() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await in_dialog(pilot)
        services.calls.failure = ServiceError("The database is busy", advice="Try again")
        await pilot.press("enter")
        await until(pilot, lambda: "The database is busy. Try again" in screen_text(pilot))
        services.calls.failure = None
        await pilot.press("enter")
        await until(pilot, lambda: services.calls.requests)


async def test_a_locked_store_is_opened_first_but_not_for_a_script() -> None:
    services = FakeServices(secrets=FakeSecrets("encrypted file", locked=True))
    async with opened(services) as pilot:
        await in_dialog(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, UnlockDialog))
        await pilot.press(*"open sesame", "enter")
        await until(pilot, lambda: services.calls.requests)
    services = FakeServices(secrets=FakeSecrets("encrypted file", locked=True))
    services.calls.default = TransportKind.MOCK
    async with opened(services) as pilot:
        await in_dialog(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: services.calls.requests)


async def test_escape_calls_nobody() -> None:
    async with opened(FakeServices()) as pilot:
        await in_dialog(pilot)
        await pilot.press("escape")
        await settled(pilot)
        assert pilot.app.screen is home(pilot)
        assert not services_of(pilot).calls.sessions


def test_a_file_of_data_and_its_row(tmp_path: Path) -> None:
    spaced = tmp_path / "my patients.csv"
    spaced.touch()
    assert _data_and_row("") == ("", "")
    assert _data_and_row(str(spaced)) == (str(spaced), "")
    assert _data_and_row(f"{spaced} 12") == (str(spaced), "12")
    assert _data_and_row("patients.csv Eva") == ("patients.csv", "Eva")
