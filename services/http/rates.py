"""What an answer's headers say of the vendor's own limits: what is left of what.

The names are those of the vendors' public pages as generally known, not checked against live answers: HubSpot
(`X-HubSpot-RateLimit-*`), ElevenLabs (`current-concurrent-requests`), Salesforce (`Sforce-Limit-Info`),
Anthropic (`anthropic-ratelimit-*`), OpenAI (`x-ratelimit-*-requests`), and what many others use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

Rates = tuple[tuple[str, str], ...]
"""Label and figure: `("requests left", "54 of 60")`."""

_LEFT: Final = (
    ("requests left", "x-hubspot-ratelimit-remaining", "x-hubspot-ratelimit-max"),
    ("requests left today", "x-hubspot-ratelimit-daily-remaining", "x-hubspot-ratelimit-daily"),
    ("requests left", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-limit"),
    ("tokens left", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-limit"),
    ("requests left", "x-ratelimit-remaining-requests", "x-ratelimit-limit-requests"),
    ("tokens left", "x-ratelimit-remaining-tokens", "x-ratelimit-limit-tokens"),
    ("requests left", "x-ratelimit-remaining", "x-ratelimit-limit"),
    ("requests left", "ratelimit-remaining", "ratelimit-limit"),
)
_USED: Final = (("requests at once", "current-concurrent-requests", "maximum-concurrent-requests"),)
_USAGE: Final = "sforce-limit-info"
_NAMES: Final = frozenset({_USAGE, *(name for _, *names in (*_LEFT, *_USED) for name in names)})
_SALESFORCE: Final = re.compile(r"api-usage=(\d{1,12})/(\d{1,12})")


def read_rates(headers: Mapping[str, str]) -> Rates:
    """What is left of the other side's limits; empty where it says nothing. Names in any case."""
    # Every answer is looked at, and a look-up in the client library's headers takes ten microseconds.
    told = {name: value for key, value in headers.items() if (name := key.lower()) in _NAMES}
    if not told:
        return ()
    found: dict[str, str] = {}
    for label, some, of in (*_LEFT, *_USED):
        some_value, of_value = _whole(told.get(some)), _whole(told.get(of))
        if some_value is not None and label not in found:
            found[label] = f"{some_value:,}" + (f" of {of_value:,}" if of_value is not None else "")
    usage = _SALESFORCE.search(told.get(_USAGE, ""))
    if usage is not None:
        found["requests used today"] = f"{int(usage[1]):,} of {int(usage[2]):,}"
    return tuple(found.items())


def _whole(value: str | None) -> int | None:
    """The first number: some write `60, 60;w=60`."""
    found = re.match(r"\s*(\d{1,12})", value or "")
    return int(found[1]) if found else None
