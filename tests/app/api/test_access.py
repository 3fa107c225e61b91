"""Who gets more than up or down, and what a wrong request is answered."""

from __future__ import annotations

import logging

import pytest
from fastapi.routing import APIRoute

from app.api import access, models
from app.api.access import GUESSES, Access
from app.api.app import PUBLIC, SIGNED
from app.api.guard import client_of as caller_of
from services.errors import ServiceError
from services.security import Secret
from tests.app.api.api_world import BEARER, TOKEN, ApiServices, api_of, client_of
from tests.support.fake_time import FakeTime

PRIVATE = (
    "/health/agents",
    "/health/agents/Front desk",
    "/health/orchestrator",
    "/health/dependencies",
    "/metrics",
)


@pytest.fixture
def services():
    return ApiServices()


def routes_of(routes):
    """Every route, those of included routers too, however the framework nests them."""
    for route in routes:
        nested = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        )
        if nested:
            yield from routes_of(nested)
        else:
            yield route


def test_every_route_is_public_by_name_signed_or_needs_the_token(services):
    app = api_of(services)
    found = list(routes_of(app.routes))
    assert {route.path for route in found} >= {
        *PUBLIC,
        "/health/agents",
        "/metrics",
        "/health/agents/{name:path}",
    }
    for route in found:
        if route.path in PUBLIC or route.path.startswith(SIGNED):
            continue
        assert isinstance(route, APIRoute), route.path
        calls = [dependency.call for dependency in route.dependant.dependencies]
        assert any(getattr(call, "needs_token", False) for call in calls), route.path


def test_openapi_says_which_need_the_token(services):
    document = api_of(services).openapi()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in ("/livez", "/readyz") or path.startswith(SIGNED):
                assert "security" not in operation, path
            else:
                wanted = [{}, {"bearer": []}] if path == "/health/" else [{"bearer": []}]
                assert operation["security"] == wanted, path
    assert TOKEN not in str(document)


@pytest.mark.parametrize("path", PRIVATE)
async def test_no_token(services, path):
    async with client_of(api_of(services)) as ask:
        answer = await ask.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="callboard"'
    error = models.Error.model_validate_json(answer.content).error
    assert (error.category, error.code) == ("authentication", "no_token")


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer ", "", f"Basic {TOKEN}", TOKEN,
        f"Bearer {TOKEN} {TOKEN}", "Bearer " + "x" * 5000, "Bearer \xff\xfe",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [*PRIVATE, "/health/"])
async def test_a_wrong_token(services, path, header):
    async with client_of(api_of(services)) as ask:
        answer = await ask.get(path, headers=[(b"authorization", header.encode("latin-1"))])
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "wrong_token"
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
async def test_the_scheme_in_any_case(services, header):
    async with client_of(api_of(services)) as ask:
        assert (await ask.get("/metrics", headers={"Authorization": header})).status_code == 200


async def test_two_tokens_are_none(services):
    async with client_of(api_of(services)) as ask:
        answer = await ask.get("/metrics", headers=[*BEARER.items(), *BEARER.items()])
    assert answer.status_code == 401


async def test_where_no_token_is_set_none_is_right(services):
    async with client_of(api_of(services, token=None)) as ask:
        assert (await ask.get("/health/")).json() == {"status": "up"}
        for headers in ({}, BEARER, {"Authorization": "Bearer "}):
            answer = await ask.get("/metrics", headers=headers)
            assert answer.status_code == 401
            assert "none is set here" in answer.text or "No token is set here" in answer.text


async def test_guessing_is_slowed_down_for_each_address(services):
    app = api_of(services)
    wrong = {"Authorization": "Bearer wrong"}
    async with client_of(app) as ask, client_of(app, client="192.0.2.8") as other:
        for _ in range(GUESSES.minute):
            assert (await ask.get("/metrics", headers=wrong)).status_code == 401
        answer = await ask.get("/metrics", headers=BEARER)
        assert (answer.status_code, answer.json()["error"]["category"]) == (429, "rate_limit")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert (await ask.get("/health/", headers=wrong)).status_code == 429
        assert (await ask.get("/health/")).status_code == 200  # up or down is for everybody
        assert (await other.get("/metrics", headers=BEARER)).status_code == 200
        services.time.seconds += 61
        assert (await ask.get("/metrics", headers=BEARER)).status_code == 200


async def test_requests_without_a_token_are_no_guesses(services):
    async with client_of(api_of(services)) as ask:
        for _ in range(5 * GUESSES.minute):
            await ask.get("/metrics")
        assert (await ask.get("/metrics", headers=BEARER)).status_code == 200


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("fe80::1%eth0", "fe80::2", "fe80:0:0:1::2"),
    ],
)
def test_who_counts_as_one_guesser(one, same, other):
    assert access._group(one) == access._group(same) != access._group(other)


async def test_guesses_of_very_many_addresses_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(access, "MOST_ADDRESSES", 50)
    guard = Access(Secret(TOKEN), FakeTime())
    for number in range(500):
        with pytest.raises(Exception, match="wrong"):
            await guard.allows([(b"authorization", b"Bearer no")], f"10.0.{number // 250}.{number % 250}")
        assert len(guard._addresses) <= 50


async def test_host_names_where_there_is_no_token(services):
    app = api_of(services, token=None, hosts=frozenset({"localhost", "127.0.0.1", "::1"}))
    async with client_of(app) as ask:
        for host in ("localhost:8470", "127.0.0.1", "[::1]:8470", "LOCALHOST."):
            assert (await ask.get("/livez", headers={"Host": host})).status_code == 200
        for host in ("evil.example", "127.0.0.1.evil.example:8470", "localhost@evil.example", "", "[::2]"):
            answer = await ask.get("/livez", headers={"Host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")


async def test_the_public_name_is_a_known_one(services):
    options = {"hosts": frozenset({"localhost"}), "public_url": "https://callboard.example.com/x"}
    async with client_of(api_of(services, token=None, **options)) as ask:
        assert (await ask.get("/livez", headers={"Host": "callboard.example.com"})).status_code == 200


@pytest.mark.parametrize(
    ("peer", "told", "behind", "found"),
    [
        ("127.0.0.1", "203.0.113.9", True, "203.0.113.9"),
        ("127.0.0.1", "10.0.0.1, 203.0.113.9", True, "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9", False, "127.0.0.1"),
        ("198.51.100.1", "203.0.113.9", True, "198.51.100.1"),
        ("127.0.0.1", "nonsense", True, "127.0.0.1"),
        ("::1", "2001:db8::1", True, "2001:db8::1"),
    ],
)
def test_whose_word_is_taken_for_the_callers_address(peer, told, behind, found):
    scope = {"client": (peer, 1), "headers": [(b"x-forwarded-for", told.encode())]}
    assert caller_of(scope, behind) == found


async def test_errors_have_one_shape(services):
    async with client_of(api_of(services)) as ask:
        answers = {
            404: await ask.get("/nothing/here"),
            405: await ask.post("/livez"),
            422: await ask.get("/health/agents?limit=0", headers=BEARER),
        }
        assert (await ask.get("/health/agents?limit=0")).status_code == 401  # before anything is looked at
    for status, answer in answers.items():
        assert answer.status_code == status
        models.Error.model_validate_json(answer.content)
        assert answer.headers["content-type"] == "application/json"
    assert answers[405].headers["allow"] == "GET, HEAD"
    assert "limit in the query" in answers[422].json()["error"]["message"]


async def test_a_fault_of_ours_tells_nothing(services, caplog):
    services.health.failure = RuntimeError("canary-inside")
    async with client_of(api_of(services)) as ask:
        answer = await ask.get("/health/", headers={"X-Request-ID": "from-proxy.1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "canary-inside" not in answer.text
    assert answer.headers["x-request-id"] == "from-proxy.1"
    assert "from-proxy.1" in caplog.text


async def test_the_words_of_a_failing_service_are_for_the_log(services, caplog):
    services.health.failure = failure = ServiceError("The database at canary-host does not answer")

    async def broken() -> bool:
        raise failure

    services.health.ready = broken
    async with client_of(api_of(services)) as ask:
        ready, health = await ask.get("/readyz"), await ask.get("/health/")
    assert (ready.status_code, ready.json()) == (503, {"status": "not_ready"})
    assert (health.status_code, health.json()["error"]["code"]) == (503, "unavailable")
    assert "canary-host" not in health.text
    assert caplog.text.count("canary-host") == 2


async def test_headers_of_every_answer(services):
    async with client_of(api_of(services)) as ask:
        answers = [await ask.get(path) for path in ("/livez", "/health/agents", "/nothing", "/openapi.json")]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
        assert answer.headers["date"]
    assert [answer.headers["x-request-id"] for answer in answers] == ["r1", "r2", "r3", "r4"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é"])
async def test_a_request_id_that_is_none_is_replaced(services, given):
    async with client_of(api_of(services)) as ask:
        answer = await ask.get("/livez", headers=[(b"x-request-id", given.encode())])
    assert answer.headers["x-request-id"] == "r1"


async def test_the_access_log_has_no_query_and_no_token(services, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "callboard.access")
    monkeypatch.setattr(logging.getLogger("callboard.access"), "propagate", True)
    async with client_of(api_of(services)) as ask:
        await ask.get("/health/agents?company=canary-query", headers=BEARER)
        await ask.get("/nothing%0d%0aforged line", headers={"Authorization": "Bearer canary-wrong"})
    lines = [record.getMessage() for record in caplog.records if record.name == "callboard.access"]
    assert lines[0].startswith("192.0.2.7 GET /health/agents 200 ")
    assert "\\r\\nforged" in lines[1]
    assert all("\n" not in line for line in lines)
    for secret in ("canary", TOKEN):
        assert secret not in caplog.text
