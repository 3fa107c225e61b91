"""`callboard integration`, `booking` and `crm` as an operator has them, against the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.security import vault
from tests.support.office import Office, Said, simulator_in_a_thread
from tests.support.simulator import RunningSimulator

CANARY = "canary-4f1c9e77-in-the-mine"
TABLE = (
    "--at",
    "2099-03-02T19:30",
    "--party",
    "2",
    "--name",
    "Ann Smith",
    "--phone",
    "+49301",
    "--email",
    "a@b.de",
)
DAY = ("--day", "2099-03-02", "--party", "2")


BISTRO = """\
partner: bistro
title: Bistro
base_url: https://api.bistro.example
timezone: Europe/Berlin
documented: its own page
assumed: nothing
secret: key
auth: {style: header, header: X-Key, prefix: "Key "}
times: epoch
operations:
  reserve:
    steps:
      - {method: POST, path: /tables, body: {at: "{at|epoch}", for: "{name}"}}
    result: {id: table.id}
"""


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with simulator_in_a_thread() as running:
        yield running


@pytest.fixture
def office(
    tmp_path: Path,
    simulator: RunningSimulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Office]:
    monkeypatch.setattr(vault, "_N", 2**10)
    made = Office(tmp_path / "home", simulator, monkeypatch, capsys)
    assert made("company", "add", "acme").code == 0
    yield made
    made.mend()


def connect(office: Office, adapter: str, path: str, *more: str) -> Said:
    url = f"{office.simulator.partners_url}/{path}"
    words = ("integration", "add", adapter, "--company", "acme", "--url", url, "--key-stdin", *more)
    return office(*words, stdin=f"{office.simulator.key}\n")


def opentable(office: Office) -> Said:
    base = f"{office.simulator.partners_url}/opentable"
    options = ("rid=17", "client_id=cb", "timezone=Europe/Berlin", f"oauth_url={base}")
    return connect(office, "opentable", "opentable", *[word for each in options for word in ("--set", each)])


def test_one_is_added_tested_switched_and_removed(office: Office) -> None:
    added = connect(office, "hubspot", "hubspot", "--json")
    assert added.code == 0
    assert "It works: HubSpot answers" in added.err
    info = added.json["integration"]
    assert (info["company"], info["kind"], info["origin"]) == ("acme", "crm", "company")
    number = str(info["id"])
    assert office("integration", "test", number, "--json").json["checks"][0]["ok"]
    assert office("integration", "disable", number).out == "Switched off hubspot (crm).\n"
    states = {
        each["name"]: each["enabled"] for each in office("integration", "list", "--json").json["integrations"]
    }
    assert states["hubspot"] is False
    assert "off" in office("integration", "list", "--company", "acme").out
    assert office("integration", "enable", number).code == 0
    assert office("integration", "remove", number, "--yes", "--json").json["integration"]["name"] == "hubspot"
    assert office("integration", "remove", number, "--yes").code == 2
    listed = office("integration", "list", "--json").json["integrations"]
    assert {each["origin"] for each in listed} == {"simulation", "built_in"}
    actions = office("audit").out
    for action in ("integration.add", "integration.disable", "integration.enable", "integration.remove"):
        assert action in actions


def test_a_secret_comes_from_a_variable_and_is_shown_nowhere(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", CANARY)
    url = f"{office.simulator.partners_url}/hubspot"
    words = ("integration", "add", "hubspot", "--url", url, "--key-env", "HUBSPOT_TOKEN")
    refused = office(*words)
    assert refused.code == 5
    assert "refused the key" in refused.err
    assert "nothing was stored (--anyway stores it all the same)" in refused.err
    assert all(each["id"] is None for each in office("integration", "list", "--json").json["integrations"])
    added = office(*words, "--anyway")
    assert added.code == 0
    assert "refused the key" in added.err
    assert "Stored all the same; it does not work yet." in added.err
    said = [
        refused,
        added,
        office("integration", "list", "--json"),
        office("integration", "test"),
        office("audit", "--json"),
    ]
    assert all(CANARY not in each.out + each.err for each in said)
    for file in office.home.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes()
    rotated = office("integration", "rotate", "1", "--key-stdin", stdin=f"{office.simulator.key}\n")
    assert rotated.code == 0
    assert office("integration", "test").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "hubspto", "--key-stdin"), "Did you mean hubspot?"),
        (("add", "hubspot", "--company", "acne", "--key-stdin"), "acme"),
        (("add", "hubspot"), "no terminal to ask"),
        (("add", "hubspot", "--key-stdin", "--set", "pipeline"), "is not NAME=VALUE"),
        (("add", "hubspot", "--key-stdin", "--set", "pipelin=x"), "Did you mean pipeline?"),
        (("add", "http-crm", "--key-stdin"), "needs an address"),
        (("add", "opentable", "--key-stdin"), "needs the option rid"),
        (("add", "hubspot", "--key-stdin", "--url", "http://example.com"), "plain http"),
        (("rotate", "9", "--key-stdin"), "There is no integration 9"),
        (("test", "9"), "There is no integration 9"),
        (("remove", "x"), "There is no integration x"),
        (("enable", "x", "--company", "acne"), "acme"),
        (("add", "hubspot", "--key-stdin", "--no-test", "--anyway"), "not allowed with"),
        (("partners", "opentabel"), "Did you mean opentable?"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_stored(
    office: Office, words: tuple[str, ...], message: str
) -> None:
    said = office("integration", *words, stdin="some-secret-1\n")
    assert said.code == 2
    assert message in said.err
    assert all(each["id"] is None for each in office("integration", "list", "--json").json["integrations"])


def test_names_mean_what_numbers_mean(office: Office) -> None:
    assert office("company", "add", "other").code == 0
    assert connect(office, "hubspot", "hubspot", "--name", "Our CRM").code == 0
    url = f"{office.simulator.partners_url}/hubspot"
    words = ("integration", "add", "hubspot", "--company", "other", "--name", "Our CRM", "--key-stdin")
    assert office(*words, "--url", url, stdin=f"{office.simulator.key}\n").code == 0
    several = office("integration", "disable", "our crm")
    assert several.code == 2
    assert "2 integrations are called our crm" in several.err
    assert "Give the number of one: 1 (acme, crm), 2 (other, crm)" in several.err
    assert office("integration", "disable", "our crm", "--company", "other").code == 0
    assert office("integration", "test", "Our CRM (acme)").code == 0
    assert office("integration", "enable", "2").code == 0
    assert office("integration", "remove", "OUR CRM", "--company", "acme", "--yes").code == 0
    (left,) = [e for e in office("integration", "list", "--json").json["integrations"] if e["kind"] == "crm"]
    assert left["company"] == "other"


def test_what_cannot_be_asked_is_never_said_to_work(office: Office) -> None:
    url = f"{office.simulator.partners_url}/chat"
    words = ("integration", "add", "chat-webhook", "--company", "acme", "--url", url, "--key-stdin")
    added = office(*words, stdin="whsec_c2VjcmV0LW9mLXRoZS1jaGF0LXdlYmhvb2s=\n")
    assert added.code == 0
    assert "It works" not in added.err
    assert "Stored; this kind cannot be asked: A webhook cannot be asked" in added.err
    tested = office("integration", "test", "chat-webhook")
    assert tested.code == 0
    assert "cannot be asked" in tested.out
    (check,) = office("integration", "test", "chat-webhook", "--json").json["checks"]
    assert (check["ok"], check["code"]) == (None, "untestable")


def test_of_two_models_one_is_taken_and_shown_and_can_be_chosen(office: Office) -> None:
    refused = connect(office, "openai", "llm/v1", "--set", "model=gpt-17")
    assert refused.code == 1
    assert "none is called gpt-17" in refused.err
    assert "nothing was stored" in refused.err
    for name in ("First model", "Second model"):
        assert connect(office, "openai", "llm/v1", "--set", "model=sim-1", "--name", name).code == 0
    table = office("integration", "list").out
    assert "on (First model is taken instead)" in table
    preferred = office("integration", "prefer", "second model", "--json").json["integration"]
    assert preferred["config"] == {"model": "sim-1"}
    listed = {
        each["name"]: each["before"] for each in office("integration", "list", "--json").json["integrations"]
    }
    assert (listed["First model"], listed["Second model"]) == ("Second model", None)
    assert "integration.prefer" in office("audit").out


def test_a_partner_whose_file_is_gone_can_still_be_removed(office: Office) -> None:
    folder = office.home / "data" / "partners"
    folder.mkdir(parents=True)
    file = folder / "bistro.yaml"
    file.write_text(BISTRO)
    url = f"{office.simulator.partners_url}/bistro"
    words = ("integration", "add", "bistro", "--company", "acme", "--url", url, "--key-stdin")
    added = office(*words, stdin="some-secret-1\n")
    assert added.code == 0
    assert "this kind cannot be asked: Bistro offers no way to ask" in added.err
    file.unlink()
    assert "bistro" in office("integration", "list").out
    assert office("integration", "test", "bistro").code != 0
    assert office("integration", "remove", "bistro", "--yes").code == 0
    assert "bistro" not in office("integration", "list").out


def test_what_can_be_added_and_who_is_known(office: Office) -> None:
    adapters = {each["name"]: each for each in office("integration", "adapters", "--json").json["adapters"]}
    assert adapters["hubspot"]["secret"] == "private-app token"
    assert {"name": "rid", "required": True}.items() <= adapters["opentable"]["options"][0].items()
    text = office("integration", "adapters", "--kind", "bookings").out
    assert "--set rid=… (required)" in text
    assert "hubspot" not in text
    partners = office("integration", "partners", "--json").json["partners"]
    assert [each["partner"] for each in partners] == ["doctolib", "opentable", "toast"]
    assert "none of this was tried with OpenTable" in office("integration", "partners", "opentable").out
    assert "{at|local}" in office("integration", "partners", "--explain").out


def test_a_wrong_mapping_file_is_told_with_its_line(office: Office) -> None:
    folder = office.home / "data" / "partners"
    folder.mkdir(parents=True)
    (folder / "bistro.yaml").write_text("partner: bistro\ntitel: Bistro\n")
    said = office("integration", "partners", "--json")
    assert said.code == 3
    assert (
        "bistro.yaml, line 2: there is no titel here; did you mean title?"
        in said.json["problems"][0]["message"]
    )
    assert "bistro.yaml, line 2" in said.err
    assert office("booking", "availability", "acme", "bistro", *DAY).code == 2
    assert office("booking", "availability", "acme", "opentable", *DAY).code == 0


# Bookings


def test_a_table_is_found_booked_listed_and_cancelled(office: Office) -> None:
    assert opentable(office).code == 0
    # Of ends, seats and slots this partner says nothing.
    assert office("booking", "availability", "acme", "opentable", *DAY).out.splitlines()[0] == "TIME"
    slots = office("booking", "availability", "acme", "opentable", *DAY, "--json").json["slots"]
    assert len(slots) == 20
    assert slots[0]["local"] == "2099-03-02T17:00+01:00"
    assert slots[0]["simulated"]  # who answers stands on this machine
    booked = office("booking", "reserve", "acme", "opentable", *TABLE, "--key", "k-1", "--json")
    assert booked.code == 0
    booking = booked.json["booking"]
    assert (booking["state"], booking["route"], booking["fresh"]) == ("confirmed", "direct", True)
    again = office("booking", "reserve", "acme", "opentable", *TABLE, "--key", "k-1")
    assert again.code == 0
    assert "It was there before" in again.err
    assert "2099-03-02 19:30" in office("booking", "list", "acme").out
    cancelled = office("booking", "cancel", booking["id"][:8], "--json").json["booking"]
    assert cancelled["state"] == "cancelled"
    assert office("booking", "cancel", booking["id"][:8]).code == 2
    listed = office("booking", "list", "--state", "cancelled", "--json").json["bookings"]
    assert [each["id"] for each in listed] == [booking["id"]]


def test_a_lost_answer_has_to_be_settled(office: Office) -> None:
    options = ("restaurant=r", "client_id=c", "dining_option=d", "timezone=America/New_York")
    words = [word for each in options for word in ("--set", each)]
    assert connect(office, "toast", "toast", *words).code == 0
    office.fault("drop:at=body:toast:write")
    lost = office("booking", "reserve", "acme", "toast", *TABLE, "--key", "k-2", "--json")
    assert lost.code == 1
    assert lost.json["error"]["code"] == "unknown_outcome"
    office.mend()
    again = office("booking", "reserve", "acme", "toast", *TABLE, "--key", "k-2")
    assert again.code == 1
    assert "unknown" in again.out
    (unknown,) = office("booking", "list", "--state", "unknown", "--json").json["bookings"]
    settled = office("booking", "settle", unknown["id"][:8], "confirmed", "--provider-id", "T-1", "--json")
    assert settled.json["booking"]["provider_id"] == "T-1"
    assert office("booking", "reserve", "acme", "toast", *TABLE, "--key", "k-2").code == 0
    assert "booking.settle" in office("audit").out


def test_without_anything_it_is_simulated_and_says_so(office: Office) -> None:
    said = office("booking", "reserve", "acme", "opentable", *TABLE)
    assert said.code == 0
    assert "simulated: nothing was booked" in said.out
    assert "(simulated)" in office("booking", "availability", "acme", "opentable", *DAY).err
    assert office("booking", "list", "--json").json["bookings"][0]["simulated"]
    taken = office("booking", "reserve", "acme", "opentable", *TABLE)
    assert taken.code == 1
    assert "callboard booking availability" in taken.err
    past = (*TABLE, "--at", "2020-01-01T19:30")
    refused = office("booking", "reserve", "acme", "opentable", *past)
    assert refused.code == 2
    assert "2020-01-01 19:30 UTC is past: it is 20" in refused.err
    assert office("booking", "reserve", "acme", "opentable", *past, "--anyway").code == 0
    wrong = office("booking", "reserve", "acme", "opentable", *TABLE, "--at", "tonight")
    assert wrong.code == 2
    assert "is no time" in wrong.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("availability", "acme", "toast", *DAY), "Toast does not offer availability"),
        (("availability", "acme", "opentabel", *DAY), "Did you mean opentable?"),
        (("availability", "acme", "opentable", "--day", "monday"), "is no day"),
        (("reserve", "acme", "opentable", "--party", "0", *TABLE[:2]), "not a whole number from 1 on"),
        (("reserve", "nobody", "opentable", *TABLE), "no company"),
        (("cancel", "zzz"), "no booking that begins"),
        (("settle", "zzz", "confirmed"), "no booking that begins"),
        (("execute", "acme", "opentable", "menu", "--set", "x"), "is not NAME=VALUE"),
    ],
)
def test_wrong_words_of_bookings_are_told(office: Office, words: tuple[str, ...], message: str) -> None:
    said = office("booking", *words)
    assert said.code == 2
    assert message in said.err


def test_any_action_goes_through_the_gateway(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTEGRATION_API_URL", f"{office.simulator.partners_url}/bookings")
    monkeypatch.setenv("INTEGRATION_API_KEY", office.simulator.key)
    done = office("booking", "execute", "acme", "opentable", "send_menu", "--set", "count=2", "--json")
    assert done.code == 0
    execution = done.json["execution"]
    assert (execution["route"], execution["state"]) == ("gateway", "done")
    assert execution["result"]["action"] == "send_menu"
    assert "by gateway: done" in office("booking", "execute", "acme", "toast", "ping").out
    assert "environment" in office("integration", "list").out
    office.fault("drop:at=body:bookings:write")
    lost = office("booking", "execute", "acme", "opentable", "send_menu")
    office.mend()
    assert lost.code == 1
    (unknown,) = office("booking", "list", "--actions", "--state", "unknown", "--json").json["actions"]
    assert f"callboard booking settle {unknown['id'][:8]} done (or failed)" in lost.err
    listed = office("booking", "list", "--actions")
    assert "send_menu" in listed.out
    assert "callboard booking settle ORDER done" in listed.err
    assert office("booking", "settle", unknown["id"][:8], "cancelled").code == 2
    settled = office("booking", "settle", unknown["id"][:8], "done", "--json").json["action"]
    assert settled["state"] == "done"
    assert office("booking", "list", "--actions", "--state", "pending").code == 2


# CRM


def test_a_contact_a_deal_and_a_note(office: Office) -> None:
    assert connect(office, "hubspot", "hubspot").code == 0
    mail = "ann@example.com"
    made = office("crm", "contact", "acme", "--email", mail, "--first-name", "Ann", "--json").json["record"]
    assert (made["state"], made["existed"], made["system"]) == ("done", False, "HubSpot")
    again = office("crm", "contact", "acme", "--email", mail)
    assert again.out.startswith(f"There was already contact {made['id']}")
    changed = office(
        "crm", "contact", "acme", "--update", mail, "--phone", "+49301", "--set", "jobtitle=boss"
    )
    assert changed.out.startswith("Changed contact")
    assert (
        office("crm", "deal", "acme", "--name", "Renewal", "--amount", "12.50", "--contact", mail).code == 0
    )
    assert office("crm", "note", "acme", "--contact", mail, "--body", "Called").code == 0
    found = office("crm", "search", "acme", "contact", "ann", "--json").json
    assert found["records"][0]["fields"]["phone"] == "+49301"
    assert "Renewal" in office("crm", "search", "acme", "deal", "--where", "amount=12.50").out
    assert "Called" in office("crm", "search", "acme", "note").out


def test_a_change_whose_answer_was_lost_is_settled(office: Office) -> None:
    assert connect(office, "hubspot", "hubspot").code == 0
    office.fault("drop:at=body:hubspot:write")
    for mail in ("ann@example.com", "ben@example.com"):
        lost = office("crm", "contact", "acme", "--email", mail, "--key", mail)
        assert lost.code == 1
        assert "callboard crm settle" in lost.err
    office.mend()
    listed = office("crm", "list", "acme", "--state", "unknown")
    assert "create contact" in listed.out
    assert "callboard crm settle CHANGE" in listed.err
    ben, ann = office("crm", "list", "--state", "unknown", "--json").json["changes"]
    assert (ann["target"], ann["state"], ann["error"]["category"]) == (
        "ann@example.com",
        "unknown",
        "transient",
    )
    again = office("crm", "contact", "acme", "--email", "ann@example.com", "--key", "ann@example.com")
    assert again.code == 1
    assert f"callboard crm settle {ann['id'][:8]}" in again.err

    asked = office("crm", "settle", ann["id"][:6])
    assert asked.code == 0
    assert asked.out.startswith(f"{ann['id'][:8]}  done: it is contact 10")
    said = office("crm", "settle", ben["id"], "--not-done", "--cause", "asked Ben", "--json")
    assert said.json["change"]["state"] == "failed"
    both = office("crm", "settle", ben["id"], "--not-done", "--done", "7")
    assert (both.code, "not allowed with" in both.err) == (2, True)
    assert office("crm", "settle", ben["id"], "--done", "7").code == 2
    assert "asked Ben" in office("audit").out
    assert "No change matches" in office("crm", "list", "--state", "unknown").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("contact", "acme"), "Nothing is said about the contact"),
        (("contact", "acme", "--email", "ann"), "is no e-mail address"),
        (("deal", "acme", "--name", "x", "--amount", "1,5"), "is no amount"),
        (("deal", "acme", "--name", "x", "--closes", "soon"), "is no day"),
        (("deal", "acme", "--name", "x", "--contact", "no@example.com"), "has no contact"),
        (("note", "acme", "--body", "x"), "belongs to a contact or a deal"),
        (("search", "acme", "person"), "invalid choice"),
        (("search", "acme", "deal", "--where", "x"), "--where"),
    ],
)
def test_wrong_words_of_the_crm_are_told(office: Office, words: tuple[str, ...], message: str) -> None:
    said = office("crm", *words)
    assert said.code == 2
    assert message in said.err


def test_help_of_every_command_names_examples(office: Office) -> None:
    for command in ("integration", "booking", "crm"):
        said = office(command, "--help")
        assert said.code == 0
        assert "examples:" in said.out
