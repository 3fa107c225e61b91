"""JSON over HTTP to the endpoints of integrations: one client each, kept while its address and key stay."""

from __future__ import annotations

import asyncio
import re
from difflib import get_close_matches
from typing import Any, Final

from services.clock import Clock
from services.errors import ServiceError
from services.http.client import Call, Http, HttpOptions
from services.http.wire import parse, wrong_shape
from services.integrations.model import UNLISTED, Resolved, untestable
from services.resilience import Policies, RateLimiter, RetryOptions
from services.resilience.retry import Sleep
from services.security import Secret
from services.text import clean_line

TIMEOUT: Final = 60.0
"""Seconds one attempt may take: models think."""
_KEPT: Final = 32


class Endpoints:
    """The HTTP clients of integrations, by integration. Belongs to one event loop."""

    def __init__(
        self,
        policies: Policies,
        clock: Clock,
        *,
        limiter: RateLimiter | None = None,
        timeout: float = TIMEOUT,
        retry_options: RetryOptions | None = None,
        user_agent: str = "callboard",
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._limiter = limiter
        self._timeout = timeout
        self._retry_options = retry_options
        self._user_agent = user_agent
        self._sleep = sleep
        self._open: dict[tuple[str, str, str], tuple[Secret, Http]] = {}

    async def of(
        self, where: Resolved, *, header: str = "authorization", prefix: str = "Bearer ", dialect: str = ""
    ) -> Http:
        """The client of an integration. Raises ServiceError for an address or a key that cannot be."""
        info = where.info
        key = (info.policy, info.base_url, header)
        kept = self._open.get(key)
        if kept is not None:
            if kept[0] == where.secret and kept[1].policy is self._policies.find(info.policy):
                return kept[1]
            await self._open.pop(key)[1].aclose()
        http = Http(
            HttpOptions(
                vendor=info.policy,
                base_url=info.base_url,
                key=where.secret or None,
                header=header,
                prefix=prefix,
                concurrency=8,
                clock=self._clock,
                timeout=self._timeout,
                user_agent=self._user_agent,
                sleep=self._sleep,
                policy=self._policies.of(
                    info.policy, limiter=self._limiter, retry_options=self._retry_options
                ),
                dialect=dialect,
            )
        )
        while len(self._open) >= _KEPT:
            await self._open.pop(next(iter(self._open)))[1].aclose()
        self._open[key] = (where.secret, http)
        return http

    async def aclose(self) -> None:
        clients, self._open = list(self._open.values()), {}
        for _, http in clients:
            await http.aclose()


def object_of(text: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises ServiceError."""
    data = parse(text).data
    if not isinstance(data, dict):
        raise wrong_shape("an object", data)
    return data


def models_told(found: Any, model: str) -> str:
    """What a list of models says of this one. Raises ServiceError, also where it is not in it."""
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list):
        raise wrong_shape("a list in 'data'", data)
    names = [str(item.get("id") or "") for item in data if isinstance(item, dict)]
    if any(_is_called(name, model) for name in names):
        return f"{len(names)} models, {clean_line(model)} among them"
    shown = ", ".join(clean_line(name) for name in sorted(names)[:6]) + (", …" if len(names) > 6 else "")
    near = get_close_matches(model, names, n=1, cutoff=0.6)
    advice = f"Did you mean {clean_line(near[0])}?" if near else f"It lists {shown or 'none'}"
    raise ServiceError(
        f"It answers, but of its {len(names)} models none is called {clean_line(model)}",
        advice=advice,
        code=UNLISTED,
    )


def _is_called(name: str, model: str) -> bool:
    """Whether a listed name is the model's: lists leave aliases out (`…-latest`), or give the day as well."""
    base = model.removesuffix("-latest")
    return name in (model, f"{model}:latest") or bool(
        re.fullmatch(rf"{re.escape(base)}-\d{{4}}-?\d{{2}}-?\d{{2}}", name)
    )


NO_LIST: Final = frozenset({
    "not_found", "model_not_found", "refused", "invalid_request", "not_supported", "wrong_shape", "not_json",
    "html",
})  # fmt: skip
"""Codes of an endpoint that has no list of its models, or gives it to nobody."""


async def models_of(http: Http, call: Call, model: str, who: str) -> str:
    """Ask which models there are: costs nothing, changes nothing, counts against nobody's limits.

    Raises ServiceError: `untestable` where that is not told, `model_not_listed` without this one.
    """
    try:
        return models_told((await http.json(call, attempts=2)).data, model)
    except ServiceError as error:
        if error.code not in NO_LIST:
            raise
    raise untestable(f"{who} does not tell which models it has, and nothing else is free to ask")


def member(data: dict[str, Any], name: str, kind: type, what: str) -> Any:
    """A member of an answer that has to be there and of this type. Raises ServiceError."""
    value = data.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise wrong_shape(f"{what} in {name!r}", value)
    return value


def number_of(config: object, what: str) -> float | None:
    """A number of a configuration, which may be text; None where it is not set. Raises ServiceError."""
    if config is None or config == "":
        return None
    try:
        value = float(str(config))
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < 1e12:
        raise ServiceError(
            f"The option {what} is no number from 0 on",
            advice="Remove the integration and add it with the right one",
            code="bad_option",
        )
    return value
