"""The simulated Twilio account, through its port and by its vendor's specification."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from services.simulator import ACCOUNT_SID
from tests.services.simulator.test_contract import specification
from tests.support.simulator import RunningSimulator, running_simulator

TWILIO = "twilio_api_v2010.json"
ROOT = "/2010-04-01/Accounts/{AccountSid}"
PATH = f"/2010-04-01/Accounts/{ACCOUNT_SID}"
FROM, TWIML = "+15005550006", "<Response><Say>Hello</Say></Response>"


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2) as running:
        await running.phone(speed=0)
        yield running


@pytest.fixture
async def twilio(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    auth = (ACCOUNT_SID, simulator.key)
    async with httpx.AsyncClient(base_url=simulator.twilio_url, auth=auth, trust_env=False) as client:
        yield client


def as_json_schema(schema: Any) -> Any:
    """OpenAPI 3.0's `nullable` as JSON Schema says it."""
    if isinstance(schema, list):
        return [as_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: as_json_schema(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


def check(response: httpx.Response, path: str) -> Any:
    """Check an answer against the specification's route; returns its JSON."""
    document = specification(TWILIO)
    method = response.request.method.lower()
    schema = document["paths"][ROOT + path][method]["responses"][str(response.status_code)]["content"][
        "application/json"
    ]["schema"]
    whole = {**as_json_schema(schema), "components": as_json_schema(document["components"])}
    data = response.json()
    wrong = [
        f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(whole).iter_errors(data)
    ]
    assert not wrong, "\n".join(wrong[:10])
    return data


async def place(twilio: httpx.AsyncClient, to: str, **form: str) -> httpx.Response:
    return await twilio.post(f"{PATH}/Calls.json", data={"To": to, "From": FROM, "Twiml": TWIML, **form})


async def test_a_call_from_queued_to_completed_is_true_to_the_specification(
    simulator: RunningSimulator, twilio: httpx.AsyncClient
) -> None:
    made = check(await place(twilio, "+4930901820"), "/Calls.json")
    assert (made["status"], made["start_time"], made["duration"]) == ("queued", None, None)
    url = f"{PATH}/Calls/{made['sid']}.json"
    statuses = []
    for advance in (300, 1500, 6000):
        await simulator.phone(advance_ms=advance)
        statuses.append(check(await twilio.get(url), "/Calls/{Sid}.json"))
    assert [call["status"] for call in statuses] == ["ringing", "in-progress", "completed"]
    done = statuses[-1]
    assert (done["duration"], done["price_unit"]) == ("6", "USD")
    assert float(done["price"]) < 0
    begun, ended = (parsedate_to_datetime(done[name]) for name in ("start_time", "end_time"))
    assert dt.timedelta(seconds=6) <= ended - begun <= dt.timedelta(seconds=9)


@pytest.mark.parametrize(
    ("to", "status"), [("+15005550007", "busy"), ("+15005550008", "no-answer"), ("+15005550009", "failed")]
)
async def test_calls_that_come_to_nothing(
    simulator: RunningSimulator, twilio: httpx.AsyncClient, to: str, status: str
) -> None:
    sid = (await place(twilio, to)).json()["sid"]
    await simulator.phone(advance_ms=61_800)
    call = check(await twilio.get(f"{PATH}/Calls/{sid}.json"), "/Calls/{Sid}.json")
    assert (call["status"], call["duration"], call["price"]) == (status, "0", None)


async def test_a_timeout_ends_the_ringing(simulator: RunningSimulator, twilio: httpx.AsyncClient) -> None:
    sid = (await place(twilio, "+4930901820", Timeout="1")).json()["sid"]
    await simulator.phone(advance_ms=1300)
    assert (await twilio.get(f"{PATH}/Calls/{sid}.json")).json()["status"] == "no-answer"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"To": ""}, 21201),
        ({"From": ""}, 21213),
        ({"From": "+4930111111"}, 21210),
        ({"Twiml": ""}, 21205),
        ({"Timeout": "0"}, 21218),
        ({"To": "+15005550001"}, 21211),
        ({"To": "030 12345"}, 21211),
        ({"To": "+15005550002"}, 21214),
        ({"To": "+15005550003"}, 21215),
        ({"To": "+15005550004"}, 21216),
    ],
)
async def test_refusals_have_twilios_shape(
    twilio: httpx.AsyncClient, form: dict[str, str], code: int
) -> None:
    response = await twilio.post(
        f"{PATH}/Calls.json", data={"To": "+4930901820", "From": FROM, "Twiml": TWIML, **form}
    )
    assert response.status_code == 400
    error = response.json()
    assert set(error) == {"code", "message", "more_info", "status"}
    assert (error["code"], error["status"]) == (code, 400)
    assert error["more_info"].endswith(str(code))


async def test_hanging_up(simulator: RunningSimulator, twilio: httpx.AsyncClient) -> None:
    ringing = (await place(twilio, "+4930901820")).json()["sid"]
    await simulator.phone(advance_ms=300)
    done = check(
        await twilio.post(f"{PATH}/Calls/{ringing}.json", data={"Status": "completed"}), "/Calls/{Sid}.json"
    )
    assert done["status"] == "canceled"
    talking = (await place(twilio, "+4930901820")).json()["sid"]
    await simulator.phone(advance_ms=2000)
    kept = await twilio.post(f"{PATH}/Calls/{talking}.json", data={"Status": "canceled"})
    assert kept.json()["status"] == "in-progress", "canceled leaves a talk alone"
    done = (await twilio.post(f"{PATH}/Calls/{talking}.json", data={"Status": "completed"})).json()
    assert done["status"] == "completed"
    again = await twilio.post(f"{PATH}/Calls/{talking}.json", data={"Status": "completed"})
    assert (again.status_code, again.json()["code"]) == (400, 21220)
    wrong = await twilio.post(f"{PATH}/Calls/{talking}.json", data={"Status": "busy"})
    assert wrong.json()["code"] == 21218


async def test_the_list_of_calls_is_newest_first_filtered_and_paged(
    simulator: RunningSimulator, twilio: httpx.AsyncClient
) -> None:
    sids = []
    for number in ("+4930901820", "+4930901821", "+4930901820"):
        sids.append((await place(twilio, number)).json()["sid"])
        await simulator.phone(advance_ms=2000)
    page = check(await twilio.get(f"{PATH}/Calls.json", params={"PageSize": 2}), "/Calls.json")
    assert [call["sid"] for call in page["calls"]] == [sids[2], sids[1]]
    rest = check(await twilio.get(page["next_page_uri"]), "/Calls.json")
    assert [call["sid"] for call in rest["calls"]] == [sids[0]]
    assert rest["next_page_uri"] is None
    found = (await twilio.get(f"{PATH}/Calls.json", params={"To": "+4930901820"})).json()["calls"]
    assert [call["sid"] for call in found] == [sids[2], sids[0]]
    later = parsedate_to_datetime(found[1]["start_time"]) + dt.timedelta(seconds=1)
    since = {"To": "+4930901820", "StartTime>": later.isoformat()}
    found = (await twilio.get(f"{PATH}/Calls.json", params=since)).json()["calls"]
    assert [call["sid"] for call in found] == [sids[2]]


async def test_numbers_and_the_account(twilio: httpx.AsyncClient) -> None:
    page = check(await twilio.get(f"{PATH}/IncomingPhoneNumbers.json"), "/IncomingPhoneNumbers.json")
    assert FROM in [number["phone_number"] for number in page["incoming_phone_numbers"]]
    account = (await twilio.get(f"{PATH}.json")).json()
    assert (account["sid"], account["status"]) == (ACCOUNT_SID, "active")


async def test_credentials(simulator: RunningSimulator, twilio: httpx.AsyncClient) -> None:
    wrong = await twilio.get(f"{PATH}.json", auth=(ACCOUNT_SID, "other"))
    assert (wrong.status_code, wrong.json()["code"]) == (401, 20003)
    limited = await twilio.get(f"{PATH}.json", auth=(ACCOUNT_SID, simulator.limited_key))
    assert (limited.status_code, limited.json()["code"]) == (403, 70051)
    other = f"/2010-04-01/Accounts/AC{'0' * 32}"
    for path in (".json", "/Calls.json", "/IncomingPhoneNumbers.json", f"/Calls/CA{'0' * 32}.json"):
        foreign = await twilio.get(other + path)
        assert (foreign.status_code, foreign.json()["code"]) == (404, 20404)
    unknown = await twilio.get(f"{PATH}/Calls/CA{'0' * 32}.json")
    assert unknown.status_code == 404


async def test_faults_strike_twilio_alone(simulator: RunningSimulator, twilio: httpx.AsyncClient) -> None:
    await simulator.fault("503:twilio:x1")
    response = await twilio.get(f"{PATH}.json")
    assert (response.status_code, response.json()["status"]) == (503, 503)
    assert (await twilio.get(f"{PATH}.json")).status_code == 200
    await simulator.fault("drop:write:at=body")
    with pytest.raises(httpx.HTTPError):
        await place(twilio, "+4930901820")
    assert len((await simulator.phone())["calls"]) == 1, "placed, though the answer was lost"
    counted = (await simulator.stats())["twilio"]
    assert (counted["requests"], counted["faults"]) == (3, 2)


async def test_a_wrong_control_request(simulator: RunningSimulator) -> None:
    with pytest.raises(ValueError, match="outcome is one of"):
        await simulator.phone(number="+4930901820", outcome="explode")
