"""Whatever a partner answers: a value, or one error in words."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import ServiceError
from services.integrations.bookings.direct import DirectPartner
from services.integrations.bookings.mapping import parse_partner
from services.integrations.model import IntegrationInfo, Kind, Resolved
from services.resilience import Policies
from services.security import Secret
from services.storage import Database
from tests.services.integrations.bookings.conftest import connect
from tests.support.integrating import Bench
from tests.support.rawserver import raw_server, reply, scripted
from tests.support.simulator import RunningSimulator
from tests.support.world import FakeClock

BISTRO = """\
partner: bistro
title: Bistro
documented: x
assumed: x
base_url: https://bistro.example
timezone: Europe/Berlin
auth: {style: none}
times: TIMES
states: {ok: confirmed}
errors: {message: [error.message, "."], code: [code], taken: ["409", gone]}
operations:
  availability:
    read: true
    steps: [{method: GET, path: /free, query: {from: "{from|utc}"}}]
    slots: {each: slots.*, starts_at: at, ends_at: to, id: id, seats: n}
  reserve:
    steps: [{method: POST, path: /book, body: {at: "{at|utc}"}}]
    result: {id: id, id_format: "B-{result.id}", state: state, starts_at: at, fields: {note: note}}
"""


def partner(times: str) -> DirectPartner:
    clock = FakeClock()
    info = IntegrationInfo(1, 1, "acme", Kind.BOOKINGS, "bistro", "bistro", "https://bistro.example")
    mapping = parse_partner(BISTRO.replace("TIMES", times), "bistro.yaml")
    return DirectPartner(mapping, Resolved(info, Secret("")), Policies(clock).of("bistro"), clock)


PARTNERS = {times: partner(times) for times in ("offset", "local", "epoch")}
TIMES = st.sampled_from(
    [
        "2027-03-01T19:30:00+01:00",
        "2027-03-01T19:30",
        "2026-10-25T02:30",
        "2027-03-28T02:30",
        "0001-01-01T00:00",
        "9999-12-31T23:59:59",
        "9999-12-31T23:59:59-12:00",
        "2027-03-01T19:30:00+99:00",
        "x",
        "",
        1_803_925_800,
        -1,
        10**400,
        1e300,
        True,
        None,
    ]
)
VALUES = st.recursive(
    TIMES | st.text(max_size=4) | st.integers(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
SLOTS = st.lists(
    st.fixed_dictionaries({"at": TIMES}, optional={"to": VALUES, "id": VALUES, "n": VALUES}) | VALUES,
    max_size=3,
)
ANSWERS = VALUES | st.fixed_dictionaries(
    {}, optional={"slots": SLOTS | VALUES, "id": VALUES, "state": VALUES, "at": TIMES, "note": VALUES}
)


@given(st.sampled_from(sorted(PARTNERS)), ANSWERS)
def test_any_answer_is_read_or_refused_in_words(times: str, data: Any) -> None:
    client = PARTNERS[times]
    with contextlib.suppress(ServiceError):
        for slot in client._slots(client._operation("availability"), data):
            assert 0 < slot.starts_at < 10**14
    with contextlib.suppress(ServiceError):
        outcome = client._outcome("reserve", client._operation("reserve"), data, {})
        assert outcome.provider_id.startswith("B-")


@given(st.integers(100, 599), ANSWERS | st.fixed_dictionaries({"error": VALUES, "code": VALUES}))
def test_any_refusal_is_one_sentence(status: int, data: Any) -> None:
    error = PARTNERS["offset"]._explain(status, data)
    if error is not None:
        assert "\n" not in error.message
        assert len(error.message) < 600


def test_the_second_time_a_clock_shows_the_same_is_the_later_one() -> None:
    client = PARTNERS["local"]
    night = [{"at": f"2026-10-25T0{hour}:30"} for hour in (1, 2, 2, 3)]
    slots = client._slots(client._operation("availability"), {"slots": night})
    steps = [later.starts_at - slot.starts_at for slot, later in itertools.pairwise(slots)]
    assert steps == [3_600_000] * 3


async def test_an_echoed_secret_is_not_shown(database: Database, simulator: RunningSimulator) -> None:
    canary = "canary-4f1c9e77-echoed"
    echo = reply({"message": f"clientSecret {canary} is wrong"}, status=400)
    async with raw_server(scripted([echo])) as server:
        bench = Bench(database)
        await bench.add_company()
        await connect(bench, simulator, "toast")
        (info,) = [info for info in await bench.integrations.list() if info.adapter == "toast"]
        await bench.integrations.remove(info.id or 0)
        await bench.integrations.add(
            "toast", company="acme", base_url=server.url, config=info.config, secret=canary
        )
        with pytest.raises(ServiceError) as caught:
            await bench.bookings().create_reservation(
                "acme", "toast", party_size=2, at="2027-03-01T19:30", name="Ann Smith", phone="1"
            )
        assert canary.encode() in server.seen[0].body
        stored = await bench.bookings().list()
        assert canary not in repr(caught.value) + caught.value.advice + repr(stored)
        await bench.aclose()
