"""What Prometheus reads: the figures, and that no label grows without bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api import exposition
from app.api import metrics as module
from services.errors import Category, ServiceError
from services.events import SyncFinished
from services.health.model import Beat, CheckKind, HealthState
from services.resilience import BreakerOptions, RetryOptions
from tests.app.api.api_world import BEARER, ApiServices, api_of, client_of, of_checks
from tests.app.fakes import report
from tests.support.fake_health import agents, check, outage


@pytest.fixture
def services():
    return ApiServices(outage())


async def scraped(ask, services):
    """Every sample as (name, labels) to value; a second look has to wait for a second."""
    services.time.seconds += 1
    answer = await ask.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


async def test_checks_providers_and_budgets(services):
    async with client_of(api_of(services)) as ask:
        found = await scraped(ask, services)
    assert found[("callboard_health",)] == 2
    assert found["callboard_checks", ("kind", "provider"), ("state", "down")] == 1
    retell = ("check", "provider:acme/retell")
    state = ("callboard_check_state", retell, ("company", "acme"), ("kind", "provider"), ("name", "Retell"))
    assert found[state] == 3
    assert found["callboard_check_failures", retell] == 16
    assert found["callboard_check_uptime_ratio", retell, ("window", "24h")] == 0.987
    assert found["callboard_rate_limit_remaining", retell, ("level", "account"), ("window", "minute")] == 54
    assert found[("callboard_checks_left_out",)] == 0


async def test_policies(services):
    policy = services.policies.of(
        "Retell (acme)", breaker=BreakerOptions(failure_threshold=1), retry_options=RetryOptions(attempts=1)
    )

    async def fails(_: object) -> None:
        raise ServiceError("Gone", category=Category.TRANSIENT)

    for _ in range(2):
        with pytest.raises(ServiceError):
            await policy.run(fails)
    async with client_of(api_of(services)) as ask:
        found = await scraped(ask, services)
    named = ("policy", "Retell (acme)")
    assert found["callboard_breaker_state", named] == 2
    assert found["callboard_policy_calls_total", named] == 2
    assert found["callboard_policy_failures_total", named] == 1
    assert found["callboard_policy_refused_total", ("by", "breaker"), named] == 1


async def test_each_probe_is_counted_once(services):
    start = services.clock.now()
    before = Beat(start - 1, HealthState.UP, 100.0)
    beats = (before, *(Beat(start + 1000 * number, HealthState.UP, 100.0) for number in (1, 2, 3)))
    watched = check("system:disk", CheckKind.SYSTEM, "disk", beats=beats)
    services.health.shown = of_checks(watched)
    counted = ("callboard_probe_seconds_count", ("kind", "system"))
    async with client_of(api_of(services)) as ask:
        assert (await scraped(ask, services))[counted] == 3
        assert (await scraped(ask, services))[counted] == 3
        more = (*beats[1:], Beat(start + 9000, HealthState.DOWN), Beat(start + 9999, HealthState.UP, 50.0))
        services.health.shown = of_checks(replace(watched, beats=more))
        assert (await scraped(ask, services))[counted] == 4


async def test_requests_by_route_and_syncs_by_their_end(services):
    app = api_of(services)
    async with app.router.lifespan_context(app), client_of(app) as ask:
        for path in ("/livez", "/nothing/1", "/nothing/2", "/health/agents/1"):
            await ask.get(path, headers=BEARER)
        await ask.request("BREW", "/livez")
        services.bus.publish(SyncFinished("run1", report()))
        found = await scraped(ask, services)
    requests = {key[1:]: value for key, value in found.items() if key[0] == "callboard_http_requests_total"}
    assert requests == {
        (("method", "GET"), ("route", "/livez"), ("status", "200")): 1,
        (("method", "GET"), ("route", "other"), ("status", "404")): 2,
        (("method", "GET"), ("route", "/health/agents/{name:path}"), ("status", "200")): 1,
        (("method", "other"), ("route", "/livez"), ("status", "405")): 1,
    }
    assert found["callboard_sync_runs_total", ("status", "done")] == 1
    assert found[("process_open_fds",)] > 0


async def test_labels_are_bounded(services, monkeypatch):
    monkeypatch.setattr(exposition, "MOST_CHECKS", 10)
    many = agents(30)
    many[25] = replace(many[25], state=HealthState.DOWN, name="x" * 10_000, company="a\nb\u202e")
    twins = [check("agent:" + "y" * 200 + end, CheckKind.AGENT, "z", HealthState.DOWN) for end in "ab"]
    services.health.shown = of_checks(*many, *twins)
    async with client_of(api_of(services)) as ask:
        found = await scraped(ask, services)
    states = [dict(key[1:]) for key in found if key[0] == "callboard_check_state"]
    assert len(states) == 10
    assert {"agent:26"} < {labels["check"] for labels in states}
    assert found[("callboard_checks_left_out",)] == 22
    assert all(len(value) <= 120 and value.isprintable() for labels in states for value in labels.values())


async def test_a_scrape_is_made_once_a_second(services):
    async with client_of(api_of(services)) as ask:
        first = await ask.get("/metrics", headers=BEARER)
        assert (await ask.get("/metrics", headers=BEARER)).content == first.content
        services.time.seconds += 1
        assert (await ask.get("/metrics", headers=BEARER)).content != first.content


async def test_closing_twice_and_without_a_start():
    services = ApiServices()
    watched = module.Metrics(services.bus, None, services.clock)
    await watched.aclose()
    await watched.start()
    await watched.aclose()
    await watched.aclose()
