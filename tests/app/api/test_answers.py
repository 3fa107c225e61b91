"""What each address tells, to whom, in which shape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.api import models
from app.api.answers import LEAST_AGE
from services.health.model import CheckKind, HealthState, HealthView, Overall
from services.security import remember_secret
from tests.app.api.api_world import BEARER, ApiServices, api_of, client_of, of_checks
from tests.app.fakes import card
from tests.support.fake_health import agents, check, healthy, outage

DETAIL = {
    "/health/": models.Health,
    "/health/agents": models.Agents,
    "/health/agents/Booking EN": models.Agent,
    "/health/orchestrator": models.Orchestrator,
    "/health/dependencies": models.Dependencies,
}


@pytest.fixture
def services():
    return ApiServices()


@pytest.fixture
async def ask(services):
    async with client_of(api_of(services)) as client:
        yield client


async def test_without_a_token_only_up_or_down(services, ask):
    assert (await ask.get("/health/")).json() == {"status": "up"}
    services.health.shown = outage()
    services.time.seconds += LEAST_AGE
    answer = await ask.get("/health/")
    assert (answer.status_code, answer.json()) == (503, {"status": "down"})


@pytest.mark.parametrize(
    ("overall", "status"),
    [(Overall.HEALTHY, 200), (Overall.DEGRADED, 200), (Overall.UNHEALTHY, 503)],
)
async def test_the_code_is_the_verdict(services, ask, overall, status):
    services.health.shown = HealthView(overall, "Because", (), None)
    for headers in ({}, BEARER):
        assert (await ask.get("/health/", headers=headers)).status_code == status
        assert (await ask.get("/health", headers=headers)).status_code == status


@pytest.mark.parametrize("view", [healthy(), outage(), HealthView(Overall.HEALTHY, "", (), None)])
@pytest.mark.parametrize("path", DETAIL)
async def test_every_document_has_its_shape(services, ask, view, path):
    services.health.shown = view
    answer = await ask.get(path, headers=BEARER)
    if path.startswith("/health/agents/") and not view.checks:
        assert answer.status_code == 404
        models.Error.model_validate_json(answer.content)
        return
    DETAIL[path].model_validate_json(answer.content)
    assert answer.headers["content-type"] == "application/json"


async def test_the_whole_in_one_look(services, ask):
    services.health.shown = outage()
    told = (await ask.get("/health/", headers=BEARER)).json()
    assert told["overall"] == "unhealthy"
    assert "Retell is down" in told["reason"]
    assert told["counts"]["down"] == 1
    nothing = {"pending": 0, "degraded": 0, "maintenance": 0, "waits": 0}
    assert told["kinds"]["provider"] == {**nothing, "up": 1, "down": 1}
    assert told["kinds"]["agent"]["waits"] == told["counts"]["waits"] == 31
    first = [(problem["id"], problem["state"], problem["held_by"]) for problem in told["problems"][:3]]
    assert first == [
        ("provider:acme/retell", "down", ""),
        ("agent:42", "degraded", ""),
        ("agent:1", "waits", "Retell"),
    ]
    assert told["problems_total"] == 33


async def test_agents_that_wait_are_asked_for_by_that(services, ask):
    services.health.shown = outage()
    told = (await ask.get("/health/agents?state=waits&limit=1", headers=BEARER)).json()
    assert (told["total"], told["counts"]["waits"]) == (31, 31)
    assert (told["agents"][0]["state"], told["agents"][0]["held_by"]) == ("waits", "Retell")


async def test_a_cause_comes_before_what_it_holds(services, ask):
    held = agents(150, held_by="Retell")
    cause = check("provider:acme/retell", CheckKind.PROVIDER, "Retell", HealthState.DEGRADED, dependents=150)
    services.health.shown = of_checks(*held, cause, overall=Overall.UNHEALTHY)
    told = (await ask.get("/health/", headers=BEARER)).json()
    assert told["problems"][0]["name"] == "Retell"
    assert (len(told["problems"]), told["problems_total"]) == (100, 151)


async def test_agents_page_by_page(services, ask):
    async def page(query: str) -> tuple[int, list[str]]:
        told = (await ask.get(f"/health/agents?{query}", headers=BEARER)).json()
        return told["total"], [agent["id"] for agent in told["agents"]]

    assert await page("limit=2") == (42, ["agent:1", "agent:2"])
    assert await page("limit=2&offset=41") == (42, ["agent:42"])
    assert await page("company=ACME&limit=1") == (42, ["agent:1"])
    assert await page("company=other") == (0, [])
    assert await page("state=down") == (0, [])


@pytest.mark.parametrize("name", ["Booking EN", "booking en", "1", "agent:1", "agent_0001"])
async def test_an_agent_by_name_number_and_vendor_id(services, ask, name):
    services.agents.items = [card(1), card(2)]
    told = (await ask.get(f"/health/agents/{name}", headers=BEARER)).json()
    assert [agent["id"] for agent in told["agents"]] == ["agent:1"]
    assert told["agents"][0]["facts"][0] == {"label": "vendor", "value": "retell"}
    assert len(told["agents"][0]["beats"]) == 60


async def test_a_name_that_two_companies_use(services, ask):
    twins = [
        check(f"agent:{number}", CheckKind.AGENT, "Sales / EU", company=company)
        for number, company in ((1, "acme"), (2, "beta"))
    ]
    services.health.shown = of_checks(*twins)
    both = (await ask.get("/health/agents/Sales%20%2F%20EU", headers=BEARER)).json()
    assert [agent["company"] for agent in both["agents"]] == ["acme", "beta"]
    one = (await ask.get("/health/agents/Sales%20%2F%20EU?company=beta", headers=BEARER)).json()
    assert [agent["company"] for agent in one["agents"]] == ["beta"]
    none = await ask.get("/health/agents/Sales%20%2F%20EU?company=gamma", headers=BEARER)
    assert (none.status_code, none.json()["error"]["code"]) == (404, "no_agent")


async def test_two_addresses_for_one_document(ask):
    for path in ("/health/agents", "/health"):
        plain = await ask.get(path, headers=BEARER)
        slash = await ask.get(f"{path}/", headers=BEARER)
        assert plain.content == slash.content


async def test_the_orchestrator_may_be_absent(services, ask):
    assert (await ask.get("/health/orchestrator", headers=BEARER)).json()["configured"] is True
    services.health.shown = of_checks()
    services.time.seconds += 1
    assert (await ask.get("/health/orchestrator", headers=BEARER)).json()["configured"] is False


async def test_alive_and_ready(services, ask):
    assert (await ask.get("/livez")).json() == {"status": "alive"}
    assert (await ask.get("/readyz")).json() == {"status": "ready"}
    services.health.is_ready = False
    answer = await ask.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not_ready"})
    assert (await ask.get("/livez")).status_code == 200


async def test_head_is_get_without_a_body(ask):
    for path in ("/livez", "/health/"):
        full, head = await ask.get(path), await ask.head(path)
        assert (head.status_code, head.content) == (full.status_code, b"")
        assert head.headers["content-length"] == str(len(full.content))


async def test_a_view_is_made_into_bytes_once(services, ask):
    for _ in range(20):
        await ask.get("/health/", headers=BEARER)
    assert services.health.views == 1
    first = (await ask.get("/health/", headers=BEARER)).content
    services.time.seconds += LEAST_AGE
    assert (await ask.get("/health/", headers=BEARER)).content == first
    services.health.shown = outage()
    services.time.seconds += LEAST_AGE
    assert (await ask.get("/health/", headers=BEARER)).content != first


async def test_a_secret_in_a_message_is_masked_everywhere(services, ask):
    canary = "canary-9f3b7c21"
    remember_secret(canary)
    ill = check(
        "agent:1", CheckKind.AGENT, "Front desk", HealthState.DOWN,
        message=f"wrong key {canary}", advice=f"replace {canary}", facts=(("url", f"https://x/?k={canary}"),),
        last_error=f"wrong key {canary}", last_error_advice=f"replace {canary}",
    )  # fmt: skip
    provider = replace(ill, id="provider:acme/retell", kind=CheckKind.PROVIDER)
    services.health.shown = of_checks(ill, provider, overall=Overall.UNHEALTHY, reason=f"It said {canary}")
    paths = ("/health/", "/health/agents", "/health/agents/1", "/health/dependencies", "/metrics")
    for path in paths:
        answer = await ask.get(path, headers=BEARER)
        assert canary not in answer.text
        assert "Front desk" in answer.text


async def test_without_a_health_service_it_says_that_nothing_is_watched(services):
    del services.health
    async with client_of(api_of(services)) as ask:
        told = (await ask.get("/health/", headers=BEARER)).json()
    assert (told["watching"], told["reason"]) == (False, "Nothing is watched in this process")
