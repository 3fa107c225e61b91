"""The Twilio client against the simulated account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.calls.telephony import TwilioClient
from services.clock import SystemClock
from services.errors import Category, ServiceError, UsageError
from services.security import Secret
from services.simulator import ACCOUNT_SID
from tests.support.simulator import RunningSimulator, running_simulator

FROM, TO = "+15005550006", "+4930901820"


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2) as running:
        await running.phone(speed=0)
        yield running


async def soon(seconds: float) -> None:
    await asyncio.sleep(0)


def client_of(simulator: RunningSimulator, token: str = "") -> TwilioClient:
    return TwilioClient(
        ACCOUNT_SID,
        Secret(token or simulator.key),
        clock=SystemClock(),
        base_url=simulator.twilio_url,
        sleep=soon,
    )


@pytest.fixture
async def twilio(simulator: RunningSimulator) -> AsyncIterator[TwilioClient]:
    client = client_of(simulator)
    yield client
    await client.aclose()


async def place(simulator: RunningSimulator, to: str = TO) -> str:
    url = f"{simulator.twilio_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json"
    async with httpx.AsyncClient(auth=(ACCOUNT_SID, simulator.key), trust_env=False) as client:
        made: dict[str, Any] = (
            await client.post(url, data={"To": to, "From": FROM, "Twiml": "<Response/>"})
        ).json()
    return str(made["sid"])


async def test_account_and_numbers(twilio: TwilioClient) -> None:
    account = await twilio.check()
    assert (account.name, account.status) == ("Simulated account", "active")
    assert FROM in await twilio.numbers()


async def test_a_call_is_followed(simulator: RunningSimulator, twilio: TwilioClient) -> None:
    sid = await place(simulator)
    seen = []
    for advance in (0, 300, 1500, 6000):
        await simulator.phone(advance_ms=advance)
        seen.append(await twilio.call(sid))
    assert [call.status for call in seen] == ["queued", "ringing", "in-progress", "completed"]
    assert [call.over for call in seen] == [False, False, False, True]
    done = seen[-1]
    assert (done.seconds, done.price, done.currency) == (6, 0.014, "USD")
    assert (done.from_number, done.to_number) == (FROM, TO)
    assert done.created_at == seen[0].created_at


async def test_hanging_up(simulator: RunningSimulator, twilio: TwilioClient) -> None:
    sid = await place(simulator)
    await simulator.phone(advance_ms=300)
    assert (await twilio.hang_up(sid)).status == "canceled"
    assert (await twilio.hang_up(sid)).status == "canceled", "one that is over stays as it is"
    with pytest.raises(ServiceError) as caught:
        await twilio.hang_up("CA" + "0" * 32)
    assert caught.value.code == "not_found"


async def test_the_newest_calls_include_one_that_is_queued(
    simulator: RunningSimulator, twilio: TwilioClient
) -> None:
    first = await place(simulator)
    await place(simulator, "+4930901821")
    await simulator.phone(advance_ms=60_000)
    second = await place(simulator)
    found = await twilio.newest_calls(to=TO, from_number=FROM)
    assert [call.sid for call in found] == [second, first]
    assert found[0].created_at is not None
    assert found[1].created_at is not None
    assert found[0].created_at > found[1].created_at


@pytest.mark.parametrize(("token", "code"), [("wrong", "wrong_key"), ("limited", "missing_permission")])
async def test_refusals(simulator: RunningSimulator, token: str, code: str) -> None:
    client = client_of(simulator, simulator.limited_key if token == "limited" else token)
    with pytest.raises(ServiceError) as caught:
        await client.check()
    await client.aclose()
    assert (caught.value.code, caught.value.category) == (code, Category.AUTHENTICATION)
    if code == "wrong_key":
        assert "phone set" in caught.value.advice


async def test_the_token_shows_nowhere(simulator: RunningSimulator) -> None:
    token = "canary7f2d91"
    client = client_of(simulator, token)
    with pytest.raises(ServiceError) as caught:
        await client.check()
    await client.aclose()
    assert token not in f"{client!r} {caught.value.message} {caught.value.advice}"


async def test_an_account_that_is_none(simulator: RunningSimulator) -> None:
    with pytest.raises(UsageError, match="account SID"):
        TwilioClient("AC123", Secret("x"), clock=SystemClock(), base_url=simulator.twilio_url)


async def test_a_look_is_one_attempt_and_other_reads_are_repeated(
    simulator: RunningSimulator, twilio: TwilioClient
) -> None:
    sid = await place(simulator)
    await simulator.fault("503:twilio:x1")
    with pytest.raises(ServiceError):
        await twilio.call(sid)
    await simulator.fault("503:twilio:x1")
    assert await twilio.numbers()
