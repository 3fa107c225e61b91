"""What headers say of the other side's limits."""

from __future__ import annotations

import httpx
import pytest

from services.http.rates import read_rates


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, ()),
        ({"X-RateLimit-Remaining": "54", "X-RateLimit-Limit": "60"}, (("requests left", "54 of 60"),)),
        ({"RateLimit-Remaining": "7"}, (("requests left", "7"),)),
        ({"RateLimit-Limit": "60, 60;w=60", "RateLimit-Remaining": "59"}, (("requests left", "59 of 60"),)),
        (
            {
                "X-HubSpot-RateLimit-Remaining": "99",
                "X-HubSpot-RateLimit-Max": "100",
                "X-HubSpot-RateLimit-Daily-Remaining": "249000",
                "X-HubSpot-RateLimit-Daily": "250000",
            },
            (("requests left", "99 of 100"), ("requests left today", "249,000 of 250,000")),
        ),
        (
            {"current-concurrent-requests": "3", "maximum-concurrent-requests": "10"},
            (("requests at once", "3 of 10"),),
        ),
        ({"Sforce-Limit-Info": "api-usage=123/15000"}, (("requests used today", "123 of 15,000"),)),
        ({"X-RateLimit-Remaining": "soon", "RateLimit-Limit": "60"}, ()),
        ({"X-RateLimit-Remaining": "9" * 400}, (("requests left", "999,999,999,999"),)),
    ],
)
def test_what_is_left(headers: dict[str, str], found: tuple[tuple[str, str], ...]) -> None:
    assert read_rates(httpx.Headers(headers)) == found
