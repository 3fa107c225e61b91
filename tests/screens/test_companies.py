"""Companies and connections: from nothing to a tested key, and back."""

from __future__ import annotations

import pytest

from screens.dialogs import KeyDialog
from services.model import Provider
from tests.support.console import console, opened, screen_text, settled, until
from tests.support.fake_services import FakeSecrets, FakeServices


async def test_a_real_key_from_the_first_start() -> None:
    services = FakeServices(cards=[], company_names=())
    async with opened(services) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: "Add a company" in screen_text(pilot))
        await pilot.press(*"Praxis", "enter")
        await until(pilot, lambda: "Connect Praxis" in screen_text(pilot))
        await pilot.press("right", "enter", "right", "right", "enter", "enter", *"good", "enter")
        await until(pilot, lambda: services.companies.links)
        link = services.companies.links["Praxis", Provider.ELEVENLABS]
        assert link.residency == "eu"
        assert services.companies.keys["Praxis", Provider.ELEVENLABS] == "good"
        await until(pilot, lambda: "Praxis is connected" in screen_text(pilot))


@pytest.mark.parametrize(
    ("key", "heading", "storable"),
    [("nope", "Wrong key", False), ("weak", "lacks a permission", True), ("far", "cannot be reached", True)],
)
async def test_what_is_wrong_with_a_key_is_told_apart(key: str, heading: str, storable: bool) -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "retell.example" in screen_text(pilot))
        await pilot.press("down", "k")
        await until(pilot, lambda: "New key for acme at retell" in screen_text(pilot))
        await pilot.press(*key, "enter")
        await until(pilot, lambda: heading in screen_text(pilot))
        assert services.companies.keys["acme", Provider.RETELL] == "good"
        assert key not in screen_text(pilot).replace("Wrong", "")
        await pilot.press("ctrl+s")
        await settled(pilot)
        await pilot.pause()
        assert (services.companies.keys["acme", Provider.RETELL] == key) is storable


async def test_testing_a_connection() -> None:
    services = FakeServices()
    services.companies.keys["acme", Provider.ELEVENLABS] = "weak"
    async with opened(services) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "retell.example" in screen_text(pilot))
        await pilot.press("down", "t")
        await until(pilot, lambda: "● works" in screen_text(pilot))
        await pilot.press("down", "t")
        await until(pilot, lambda: "✗ lacks permission" in screen_text(pilot))


async def test_removing_asks_and_a_company_wants_its_name() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "retell.example" in screen_text(pilot))
        await pilot.press("down", "d")
        await until(pilot, lambda: "Remove retell of acme?" in screen_text(pilot))
        await pilot.press("escape")
        assert len(services.companies.links) == 2
        await pilot.press("d", "y")
        await until(pilot, lambda: len(services.companies.links) == 1)
        await settled(pilot)
        await pilot.press("up", "up", "d")
        await until(pilot, lambda: "type acme" in screen_text(pilot))
        await pilot.press("y", "enter")
        assert "acme" in services.companies.rows
        await pilot.press("backspace", *"acme", "enter")
        await until(pilot, lambda: not services.companies.rows)


async def test_a_name_that_is_taken_stays_in_the_dialog() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("3", "a")
        await until(pilot, lambda: "Add a company" in screen_text(pilot))
        await pilot.press(*"acme", "enter")
        await until(pilot, lambda: "There is a company acme already" in screen_text(pilot))


async def test_a_locked_store_asks_for_its_passphrase_first() -> None:
    services = FakeServices(secrets=FakeSecrets("encrypted file", locked=True))
    async with opened(services) as pilot:
        assert "encrypted file, locked" in screen_text(pilot)
        await pilot.press("S")
        await until(pilot, lambda: "Unlock the keys" in screen_text(pilot))
        await pilot.press(*"wrong", "enter")
        await until(pilot, lambda: "The passphrase is wrong" in screen_text(pilot))
        assert not services.sync.requests
        await pilot.press(*"open", "space", *"sesame", "enter")
        await until(pilot, lambda: services.sync.requests)
        assert "locked" not in screen_text(pilot)


async def test_the_passphrase_of_a_new_store_is_typed_twice() -> None:
    services = FakeServices(secrets=FakeSecrets("encrypted file", locked=True, is_new=True))
    async with opened(services) as pilot:
        await pilot.press("ctrl+u")
        await until(pilot, lambda: "Choose a passphrase" in screen_text(pilot))
        await pilot.press(*"moon", "enter", *"mood", "enter")
        await until(pilot, lambda: "The two are not the same" in screen_text(pilot))
        assert services.secrets.locked
        await pilot.press("backspace", "n", "enter")
        await until(pilot, lambda: not services.secrets.locked)
        assert services.secrets.passphrase == "moon"


async def test_the_base_url_offered_follows_vendor_and_region() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "retell.example" in screen_text(pilot))
        await pilot.press("c")
        await until(pilot, lambda: isinstance(console(pilot).screen, KeyDialog))
        assert "https://api.retellai.com" in screen_text(pilot)
        await pilot.press("right")
        assert "elevenlabs.io" in screen_text(pilot)


async def test_a_long_name_has_the_whole_line() -> None:
    services = FakeServices()
    name = "Zahnarztpraxis am Marktplatz Dr. Weber & 東京本社 GmbH"
    await services.companies.add(name)
    async with opened(services, (80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: f"{name} · c connects" in screen_text(pilot))
        await pilot.press("end", "d")
        await until(pilot, lambda: f"Remove {name}?" in " ".join(screen_text(pilot).split()))
        await pilot.press("escape", "home", "d")
        await until(pilot, lambda: "Remove acme?" in screen_text(pilot))
