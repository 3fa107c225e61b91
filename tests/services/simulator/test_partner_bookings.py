"""The simulated partners of bookings: whose key opens them, what runs out, what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.simulator.partner_bookings import LOCK_MS, OpenTable
from services.simulator.partners import Partners
from services.simulator.wire import Reply, Request
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.world import FakeClock


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2) as running:
        yield running


@pytest.fixture
async def client(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {simulator.key}"}
    async with httpx.AsyncClient(base_url=simulator.partners_url, headers=headers, trust_env=False) as made:
        yield made


RESERVE = {
    "partner": "opentable",
    "action": "reserve",
    "params": {"at": "2027-03-01T19:30:00+01:00", "name": "Ann"},
}


async def test_the_gateway_honours_its_keys(client: httpx.AsyncClient) -> None:
    assert (await client.post("/bookings/execute", json=RESERVE)).status_code == 400
    key = {"idempotency-key": "k-1"}
    first = await client.post("/bookings/execute", json=RESERVE, headers=key)
    again = await client.post("/bookings/execute", json=RESERVE, headers=key)
    assert first.json() == again.json()
    other = {**RESERVE, "action": "appoint"}
    assert (await client.post("/bookings/execute", json=other, headers=key)).status_code == 422
    assert (
        await client.post("/bookings/execute", json=RESERVE, headers={"idempotency-key": "k-2"})
    ).is_success
    full = await client.post("/bookings/execute", json=RESERVE, headers={"idempotency-key": "k-3"})
    assert (full.status_code, full.json()["error"]["code"]) == (409, "taken")
    wrong = httpx.Headers({"authorization": "Bearer nobody"})
    assert (await client.get("/bookings/partners", headers=wrong)).status_code == 401


async def test_tokens_are_given_for_the_key_alone(
    client: httpx.AsyncClient, simulator: RunningSimulator
) -> None:
    path = "/opentable/api/v2/oauth/token?grant_type=client_credentials"
    assert (await client.post(path, auth=("cb", "wrong"))).status_code == 401
    token = (await client.post(path, auth=("cb", simulator.key))).json()["access_token"]
    opened = await client.get(
        "/opentable/v2/availability-metadata/1", headers={"authorization": f"Bearer {token}"}
    )
    assert opened.status_code == 200
    closed = await client.get("/opentable/v2/availability-metadata/1")
    assert (closed.status_code, closed.json()["errors"][0]["message"]) == (401, "invalid_token")
    login = {"clientId": "cb", "clientSecret": "wrong", "userAccessType": "TOAST_MACHINE_CLIENT"}
    path = "/toast/authentication/v1/authentication/login"
    assert (await client.post(path, json=login)).status_code == 401
    assert (await client.post(path, json={**login, "clientSecret": simulator.key})).json()[
        "status"
    ] == "SUCCESS"


async def test_an_order_of_toast_has_an_id_of_its_own(
    client: httpx.AsyncClient, simulator: RunningSimulator
) -> None:
    login = {"clientId": "cb", "clientSecret": simulator.key, "userAccessType": "TOAST_MACHINE_CLIENT"}
    answer = await client.post("/toast/authentication/v1/authentication/login", json=login)
    token = answer.json()["token"]["accessToken"]
    headers = {"authorization": f"Bearer {token}", "toast-restaurant-external-id": "r"}
    order = {"externalId": "x", "diningOption": {"guid": "d"}, "checks": [{}]}
    assert (await client.post("/toast/orders/v2/orders", json=order, headers=headers)).status_code == 200
    again = await client.post("/toast/orders/v2/orders", json=order, headers=headers)
    assert (again.status_code, "exists already" in again.json()["message"]) == (400, True)


def test_a_lock_holds_a_table_for_five_minutes() -> None:
    clock = FakeClock()
    opentable = OpenTable(Partners("key", "limited"), "key", clock)

    def lock(number: int) -> Reply:
        body: dict[str, Any] = {"party_size": 2, "date_time": "2027-03-01T19:30"}
        headers = {b"x-request-id": b"%d" % number}
        request = Request("POST", "/", headers=headers, body=json.dumps(body).encode())
        return opentable._lock(request, "17")

    assert [lock(number).status for number in (1, 2, 3)] == [200, 200, 409]
    assert lock(1).status == 200  # the same request again: the same lock
    clock.advance(seconds=LOCK_MS / 1000)
    assert lock(4).status == 200
