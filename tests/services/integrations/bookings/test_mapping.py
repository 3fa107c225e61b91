"""Mapping files: every mistake is one clear message with its line, garbage never a traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import UsageError
from services.integrations.bookings.catalogue import PartnerCatalogue
from services.integrations.bookings.mapping import Partner, explain, parse_partner

BISTRO = """\
partner: bistro
title: Bistro
documented: its own page
assumed: nothing
base_url: https://bistro.example/api
timezone: "{settings.zone|default:Europe/Berlin}"
settings:
  house*: which house
  zone: its time zone
secret: key
auth: {style: header, header: X-Key}
operations:
  reserve:
    params: {children: how many children, terrace*: inside or outside}
    steps:
      - method: POST
        path: "/houses/{settings.house}/tables"
        body:
          at: "{at|iso}"
          party: "{party_size|int}"
          out: "{params.terrace}"
          kids: "{params.children|optional}"
    result: {id: id}
"""


def problem(text: str, name: str = "bistro.yaml") -> str:
    with pytest.raises(UsageError) as caught:
        parse_partner(text, name)
    return caught.value.message


def edited(old: str, new: str) -> str:
    assert old in BISTRO
    return BISTRO.replace(old, new)


def test_a_file_becomes_a_partner() -> None:
    partner = parse_partner(BISTRO, "bistro.yaml")
    assert partner.needed_settings == ["house"]
    assert partner.zone({}).key == "Europe/Berlin"
    assert partner.zone({"zone": "America/New_York"}).key == "America/New_York"
    assert partner.needs("reserve") == {"at", "party_size", "params.terrace"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title: Bistro", "titel: Bistro", "line 2: there is no titel here; did you mean title?"),
        ("title: Bistro\n", "", "title: it is missing"),
        ("partner: bistro", "partner: The Bistro", "line 1: partner"),
        ("https://bistro.example/api", "http://bistro.example", "line 5: base_url"),
        ("style: header,", "style: heather,", "line 11: auth.style"),
        (", header: X-Key", "", "auth.header: the style header needs it"),
        ("secret: key\n", "", "secret: a secret has a name exactly if auth uses one"),
        ("{at|iso}", "{at|iso8601}", "line 19: operations.reserve.steps[1].body.at: there is no filter"),
        ("{at|iso}", "{when|iso}", "nothing fills {when}; there is at, email"),
        ("{settings.house}", "{settings.huose}", "line 17"),
        ("{params.terrace}", "{params.terasse}", "nothing fills {params.terasse}"),
        (
            "{settings.zone|default:Europe/Berlin}",
            "Europe/Berlinn",
            "line 6: timezone: 'Europe/Berlinn' is no",
        ),
        ("method: POST", "method: BREW", "line 16"),
        ("/houses/", "houses/", "it begins with /"),
        ("result: {id: id}", "result: {}", "operations.reserve.result.id: where the booking's id is"),
        ("result: {id: id}", "result: {id: '..'}", "a path such as data.0.id is expected"),
        ("    params:", "    read: true\n    params:", "operations.reserve.read: reserve changes something"),
        ("  reserve:", "  availability:", "availability"),
        ("  reserve:", "  Reserve Table:", "a word of small letters"),
        ("documented: its own page", "documented: *page", "aliases"),
        ("documented: its own page", "documented: !!python/object:os.system x", "the tag"),
        ("title: Bistro", "title: Bistro\ntitle: Other", "title stands here twice"),
        ("title: Bistro", "title: [Bistro", "not valid YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place(old: str, new: str, told: str) -> None:
    message = problem(edited(old, new))
    assert told in message
    assert message.startswith("bistro.yaml")


def test_every_mistake_is_told_at_once() -> None:
    text = edited("{at|iso}", "{when|isoo}").replace("{params.terrace}", "{}")
    assert problem(text).count("bistro.yaml, line") == 2


SECRETS = """\
auth:
  style: token
  token: {path: /t, body: {secret: "{secret}"}}
"""


def test_the_secret_has_one_place() -> None:
    whole = edited("auth: {style: header, header: X-Key}\n", SECRETS)
    assert parse_partner(whole, "bistro.yaml").auth.token is not None
    assert "nothing fills {secret}" in problem(whole.replace("{at|iso}", "{secret}"))
    assert "nothing fills {secret}" in problem(whole.replace("path: /t", 'path: "/t/{secret}"'))


def test_a_get_carries_no_body_and_a_step_one() -> None:
    assert "a GET carries no body" in problem(edited("method: POST", "method: GET"))
    assert "there is a body already" in problem(
        edited("        body:", "        form: {a: b}\n        body:")
    )


def test_a_later_step_knows_what_was_kept() -> None:
    first = "      - {method: POST, path: /hold, keep: {token: data.token}}\n"
    text = edited("    steps:\n", f"    steps:\n{first}").replace("{at|iso}", "{kept.token}")
    assert parse_partner(text, "bistro.yaml")
    assert "nothing fills {kept.tokn}" in problem(text.replace("{kept.token}", "{kept.tokn}"))


@settings(max_examples=150)
@given(st.text())
def test_garbage_is_one_clear_message(text: str) -> None:
    message = problem(text)
    assert message
    assert "\n" not in message
    assert not re.search(r"Error|Traceback|pydantic", message)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["", "{", "{x}", "a", "reserve", "POST"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*Partner.model_fields, "steps", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(Partner.model_fields)), PLAIN)
def test_any_member_may_be_anything(member: str, value: Any) -> None:
    document = {**yaml.safe_load(BISTRO), member: value}
    text = yaml.safe_dump(document, allow_unicode=True)
    try:
        parse_partner(text, "bistro.yaml")
    except UsageError as error:
        message = error.message
    else:
        return
    assert message.startswith("bistro.yaml")
    assert "\n" not in message


def test_the_programs_own_files_say_what_is_known() -> None:
    entries = PartnerCatalogue().entries()
    assert [entry.partner.partner for entry in entries] == ["doctolib", "opentable", "toast"]
    for entry in entries:
        assert "tried with" in entry.partner.assumed
        assert "probe" in entry.partner.operations
    offered = {entry.partner.partner: set(entry.partner.operations) for entry in entries}
    assert offered["toast"] == {"probe", "reserve"}
    assert {"availability", "reserve", "cancel"} <= offered["opentable"]
    assert {"availability", "appoint", "cancel"} <= offered["doctolib"]


def test_an_operators_files_add_replace_and_are_told_when_wrong(tmp_path: Path) -> None:
    (tmp_path / "bistro.yaml").write_text(BISTRO)
    (tmp_path / "toast.yaml").write_text("partner: toast\n")
    (tmp_path / "cafe.yaml").write_text(BISTRO)
    (tmp_path / "bar.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "notes.txt").write_text("no mapping")
    catalogue = PartnerCatalogue(tmp_path)
    found = {entry.partner.partner: entry.file for entry in catalogue.entries()}
    assert found == {"bistro": str(tmp_path / "bistro.yaml"), "doctolib": "", "opentable": ""}
    told = " ".join(error.message for error in catalogue.problems())
    assert "toast.yaml" in told
    assert "cafe.yaml: partner is 'bistro', not the file's name" in told
    assert "bar.yaml is not UTF-8" in told
    with pytest.raises(UsageError, match=r"toast\.yaml"):
        catalogue.require("toast")
    with pytest.raises(UsageError, match="no partner 'bistrot'") as caught:
        catalogue.require("bistrot")
    assert caught.value.advice == "Did you mean bistro?"
    adapters = {info.name: info for info in catalogue.adapters()}
    assert adapters["bistro"].options() == {"house": ("which house", True), "zone": ("its time zone", False)}
    assert PartnerCatalogue(tmp_path / "nowhere").problems() == []


def test_the_description_names_every_key() -> None:
    text = explain()
    for word in ("idempotency", "availability", "{at|local}", "span_minutes", "access_token", "or:NAME"):
        assert word in text
