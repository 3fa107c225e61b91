"""Every address of the OpenAPI document with generated requests, right and wrong ones (schemathesis)."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.api import access
from services.security import remember_secret
from tests.app.api.api_world import BEARER, TOKEN, ApiServices, api_of
from tests.support.fake_health import healthy, outage

CANARY = "canary-key-5f2a9c"
NAMES = ("Booking EN", "agent:1", "Retell", "provider:acme", "HubSpot", "orchestrator:acme")
CHECKS = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)
# Parameters that nobody asked for are ignored, as monitors and caches add their own.
CONFIG = {
    "generation": {"mode": "all", "allow-extra-parameters": False, "with-security-parameters": False},
}


def built(view, token=TOKEN):
    services = ApiServices(view)
    app = api_of(services, token=token)
    return services, app


@pytest.fixture(scope="module", autouse=True)
def many_guesses():
    """Generated Authorization headers would soon be refused by address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "GUESSES", access.Limits(minute=0, hour=0, day=0, burst=0))
        yield


@pytest.fixture(scope="module", params=["healthy", "unhealthy"])
def api(request):
    remember_secret(CANARY)
    _, app = built(healthy() if request.param == "healthy" else outage())
    config = schemathesis.Config.from_dict(CONFIG)
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


schema = schemathesis.pytest.from_fixture("api")
FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def judged(response, case, *, token):
    """No failure of ours, the documented shape, and no word of detail without the token."""
    if response.status_code >= 500:
        assert response.status_code == 503
        assert case.path in ("/health/", "/readyz"), case.path
    text = response.content.decode("utf-8", "replace")
    assert TOKEN not in text
    assert TOKEN not in str(response.headers)
    assert CANARY not in text
    if not token:
        for name in NAMES:
            assert name not in text, text


@schema.parametrize()
@FUZZ
def test_with_the_token(case):
    response = case.call(headers={**(case.headers or {}), **BEARER})
    judged(response, case, token=True)
    case.validate_response(response, checks=[*CHECKS, positive_data_acceptance, negative_data_rejection])


@schema.parametrize()
@FUZZ
def test_without_the_token(case):
    response = case.call()
    judged(response, case, token=False)
    case.validate_response(response, checks=list(CHECKS))
    if case.path not in ("/livez", "/readyz", "/health/") and not case.path.startswith("/webhooks/"):
        assert response.status_code in (401, 404, 405), response.status_code
