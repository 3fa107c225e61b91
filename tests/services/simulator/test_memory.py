"""What a simulator knows of its last run."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from services.simulator import Simulator, SimulatorOptions
from services.simulator.options import ACCOUNT_SID, DEFAULT_KEY

BEARER = {"authorization": f"Bearer {DEFAULT_KEY}"}


async def contact(simulator: Simulator, client: httpx.AsyncClient, email: str) -> httpx.Response:
    url = f"{simulator.partners_url}/hubspot/crm/v3/objects/contacts"
    return await client.post(url, json={"properties": {"email": email}}, headers=BEARER)


async def text(simulator: Simulator, client: httpx.AsyncClient) -> dict[str, object]:
    url = f"{simulator.twilio_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"
    form = {"To": "+493012345678", "From": "+15005550006", "Body": "Hello"}
    made: dict[str, object] = (await client.post(url, data=form, auth=(ACCOUNT_SID, DEFAULT_KEY))).json()
    return made


async def whatsapp(simulator: Simulator, client: httpx.AsyncClient) -> str:
    url = f"{simulator.partners_url}/whatsapp/v23.0/106540352242922/messages"
    body = {"messaging_product": "whatsapp", "to": "+493012345678", "type": "text", "text": {"body": "Hi"}}
    return str((await client.post(url, json=body, headers=BEARER)).json()["messages"][0]["id"])


async def test_the_next_run_knows_what_the_last_one_was_told(tmp_path: Path) -> None:
    options = SimulatorOptions(agents=2, memory=tmp_path / "demo" / "partners.json")
    async with httpx.AsyncClient() as client:
        first = Simulator(options)
        await first.start()
        made = (await contact(first, client, "ann@example.com")).json()
        sms, wamid = await text(first, client), await whatsapp(first, client)
        assert sms["status"] == "queued"
        await first.stop()

        second = Simulator(options)
        await second.start()
        again = await contact(second, client, "ann@example.com")
        assert again.status_code == 409
        assert made["id"] in again.json()["message"]
        assert (await contact(second, client, "ben@example.com")).json()["id"] > made["id"]
        other = await text(second, client)
        assert other["sid"] != sms["sid"]
        assert await whatsapp(second, client) != wamid
        second.telephone.clock.advance(10_000)
        url = f"{second.twilio_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sms['sid']}.json"
        found = (await client.get(url, auth=(ACCOUNT_SID, DEFAULT_KEY))).json()
        assert (found["status"], found["body"]) == ("delivered", "Hello")
        await second.stop()


@pytest.mark.parametrize("left", ["", "{", "[]", '{"hubspot": [{"id": "x"}], "twilio": [], "whatsapp": 0}'])
async def test_what_cannot_be_read_is_forgotten(tmp_path: Path, left: str) -> None:
    file = tmp_path / "partners.json"
    file.write_text(left, encoding="utf-8")
    simulator = Simulator(SimulatorOptions(agents=2, memory=file))
    await simulator.start()
    async with httpx.AsyncClient() as client:
        assert (await contact(simulator, client, "ann@example.com")).status_code == 201
    await simulator.stop()
    assert "ann@example.com" in file.read_text(encoding="utf-8")
