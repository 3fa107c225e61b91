"""What is sent to HubSpot, and what the simulator answers, fits HubSpot's own documents."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from services.integrations.crm import ContactData, DealData, NoteData, RecordKind
from services.integrations.crm.hubspot import HubSpot
from services.integrations.model import IntegrationInfo, Kind, Resolved
from services.resilience import Policies, Subject
from services.security import Secret
from tests.support.rawserver import Reply, Seen, raw_server, reply
from tests.support.simulator import RunningSimulator
from tests.support.world import FakeClock

SPECS = {"v3": "hubspot_crm_objects_v3.json", "2026-09": "hubspot_crm_objects_2026-09.json"}


def load_spec(name: str) -> dict[str, Any]:
    root = Path(__file__).resolve().parents[4]
    folders = [os.environ.get("CALLBOARD_OPENAPI_DIR", ""), root.parent / "shared" / "openapi"]
    for folder in filter(None, folders):
        path = Path(folder) / name
        if path.is_file():
            loaded: dict[str, Any] = json.loads(path.read_text())
            return loaded
    pytest.skip(f"{name} not found: set CALLBOARD_OPENAPI_DIR to the folder of the vendor specs")


def check(document: dict[str, Any], schema: Any, data: Any) -> None:
    whole = {**without_examples(schema), "components": without_examples(document["components"])}
    wrong = [
        f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(whole).iter_errors(data)
    ]
    assert not wrong, "\n".join(wrong)


def without_examples(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_examples(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_examples(value) for key, value in schema.items() if key != "example"}


def operation(document: dict[str, Any], method: str, path: str) -> tuple[dict[str, Any], str]:
    """The operation of the document that a request belongs to; fixed words before variables."""
    for template in sorted(document["paths"], key=lambda each: each.count("{")):
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
        found = document["paths"][template].get(method.lower())
        if found is not None and re.fullmatch(pattern, path):
            return found, template
    raise AssertionError(f"{method} {path} is not in the document")


def account(base_url: str, version: str) -> HubSpot:
    info = IntegrationInfo(1, 1, "acme", Kind.CRM, "hubspot", "hubspot", base_url, {"api": version})
    clock = FakeClock()
    return HubSpot(Resolved(info, Secret("pat-eu1-token")), Policies(clock).of("hubspot"), clock)


async def everything(system: HubSpot) -> None:
    subject = Subject()
    contact = await system.create_contact(
        ContactData(email="ann@example.com", first_name="Ann", properties={"jobtitle": "boss"}),
        key="k",
        subject=subject,
    )
    await system.update_contact("ann@example.com", ContactData(phone="1"), key="k", subject=subject)
    await system.update_contact(contact.id, ContactData(phone="2"), key="k", subject=subject)
    await system.find_contact("ann@example.com", subject=subject)
    deal = await system.create_deal(
        DealData("Renewal", "10", "appointmentscheduled", "default", 1_803_925_800_000, contact.id),
        key="k",
        subject=subject,
    )
    await system.create_note(
        NoteData("Hello", contact_id=contact.id, deal_id=deal.id),
        now=1_803_925_800_000,
        key="k",
        subject=subject,
    )
    for kind in RecordKind:
        await system.search(kind, "ann", {"email": "x"}, limit=20, after="", subject=subject)
    await system.probe()


def answering(seen: Seen) -> Reply:
    stored = {"id": "1", "properties": {}, "createdAt": "2026-01-01T00:00:00Z"}
    return reply({**stored, "results": [], "total": 0})


@pytest.mark.parametrize("version", SPECS)
async def test_every_request_fits_the_document(version: str) -> None:
    document = load_spec(SPECS[version])
    async with raw_server(answering) as server:
        system = account(server.url, version)
        await everything(system)
        await system.aclose()
    assert len(server.seen) == 10
    for seen in server.seen:
        found, template = operation(document, seen.method, seen.path)
        known = {each["name"] for each in found.get("parameters", []) if each["in"] == "query"}
        assert set(seen.query) <= known, (template, seen.query)
        if "requestBody" in found:
            schema = found["requestBody"]["content"]["application/json"]["schema"]
            check(document, schema, json.loads(seen.body))
        assert "idempotency-key" not in seen.headers


@pytest.mark.parametrize("version", SPECS)
async def test_every_answer_of_the_simulator_fits_the_document(
    simulator: RunningSimulator, version: str
) -> None:
    document = load_spec(SPECS[version])
    root = "/crm/v3/objects" if version == "v3" else f"/crm/objects/{version}"
    headers = {"authorization": f"Bearer {simulator.key}"}
    base = f"{simulator.partners_url}/hubspot"
    async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as client:
        ann = {"properties": {"email": "ann@example.com"}, "associations": []}
        search = {"filterGroups": [], "sorts": [], "properties": [], "limit": 1, "after": "0"}
        calls = [
            ("POST", "/contacts", ann, 201),
            ("POST", "/contacts", ann, 409),
            ("POST", "/contacts", {"properties": {"email": "ben@example.com"}, "associations": []}, 201),
            ("GET", "/contacts?limit=1", None, 200),
            ("GET", "/contacts/ann@example.com?idProperty=email", None, 200),
            ("GET", "/contacts/999", None, 404),
            ("PATCH", "/contacts/ann@example.com?idProperty=email", {"properties": {"phone": "1"}}, 200),
            ("POST", "/contacts/search", search, 200),
            ("POST", "/notes", {"properties": {}, "associations": []}, 400),
        ]
        for method, path, body, status in calls:
            response = await client.request(method, root + path, json=body)
            assert response.status_code == status, (method, path, response.text)
            found, _ = operation(document, method, root + path.partition("?")[0])
            told = found["responses"].get(str(status)) or found["responses"]["default"]
            schema = next(iter(told["content"].values()))["schema"] if "content" in told else told
            if "$ref" in told:
                schema = document["components"]["responses"][told["$ref"].rsplit("/", 1)[1]]
                schema = next(iter(schema["content"].values()))["schema"]
            check(document, schema, response.json())
            counted = "x-hubspot-ratelimit-remaining" in response.headers
            assert counted == (status < 400 and not path.endswith("/search"))
