"""The application: which addresses there are, who may read them, and what they answer.

Without a token only up or down is told: `/livez`, `/readyz` and the short form of `/health/`. Webhooks are
authenticated by their vendors' signatures. Everything else needs the bearer token.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as PathParameter

from app.api import documents, errors, models, webhooks
from app.api.access import Access
from app.api.answers import Answers
from app.api.errors import JSON, Refused
from app.api.guard import MOST_REQUESTS, PATIENCE, Guard, host_name
from app.api.metrics import CONTENT_TYPE, Metrics
from services.health.model import CheckKind, CheckView, HealthState, HealthView, Overall
from services.security import Secret

if TYPE_CHECKING:
    from services.container import Services

PUBLIC: Final = frozenset({"/livez", "/readyz", "/health", "/health/", "/openapi.json"})
"""Addresses that answer without a token; `/health/` then with less."""
SIGNED: Final = "/webhooks/"
"""Below it the vendor's signature is the authentication."""
BEARER: Final = "bearer"
MOST_NAMESAKES: Final = 20

_NO_TELEMETRY: Final[Any] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""The framework would hand whole addresses to whatever exporter the environment names."""

Offset = Annotated[int, Query(ge=0, le=1_000_000, description="how many to leave out at the beginning")]
Limit = Annotated[int, Query(ge=1, le=documents.MOST_PAGE, description="how many at most")]
Company = Annotated[str, Query(max_length=200, description="only those of this company")]
State = Annotated[HealthState | None, Query(description="only those in this state")]
Name = Annotated[
    str,
    PathParameter(min_length=1, description="an agent's name, its number here, or its id at the vendor"),
]


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """How the API is served."""

    token: Secret | None = None
    public_url: str = ""
    """How a reverse proxy on this machine makes it known; its word about the caller's address is taken."""
    hosts: frozenset[str] | None = None
    """Names that a Host header may have; None for any."""
    health: bool = True
    """Whether the health checks run."""
    new_id: Callable[[], str] = field(default=lambda: os.urandom(8).hex())
    most_requests: int = MOST_REQUESTS
    patience: float = PATIENCE


def create_app(services: Services, options: ApiOptions) -> FastAPI:
    """The API over these services. What is not built yet (health, messages) is left out."""
    metrics = Metrics(services.bus, getattr(services, "policies", None), services.clock)
    answers = Answers(getattr(services, "health", None) if options.health else None, services.clock)
    access = Access(options.token, services.clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await metrics.start()
        try:
            yield
        finally:
            await metrics.aclose()

    app = FastAPI(
        title="Callboard",
        version="1",
        summary="Whether the agents, and what they depend on, are well.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        lifespan=lifespan,
    )
    errors.install(app)
    app.include_router(_public(answers, access))
    app.include_router(_private(services, answers, metrics, access))
    messages = getattr(services, "messages", None)
    if messages is not None:
        app.include_router(webhooks.router(messages, options.public_url))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(
        Guard,
        new_id=options.new_id,
        hosts=None if options.hosts is None else options.hosts | _named(options.public_url),
        behind_proxy=bool(options.public_url),
        on_end=metrics.answered,
        most_requests=options.most_requests,
        patience=options.patience,
    )
    return app


def _named(public_url: str) -> frozenset[str]:
    name = host_name(public_url.partition("://")[2].partition("/")[0])
    return frozenset({name} if name else ())


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the token it asks for and where."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        made.setdefault("components", {})["securitySchemes"] = {
            BEARER: {"type": "http", "scheme": "bearer", "description": "callboard serve --new-token"}
        }
        # The framework describes its own error shape; ours is in the answers.
        for name in ("HTTPValidationError", "ValidationError"):
            made["components"].get("schemas", {}).pop(name, None)
        app.openapi_schema = made
    return app.openapi_schema


def _shape(model: Any, description: str) -> dict[str, Any]:
    return {"model": model, "description": description}


_OVERLOAD: Final[dict[int | str, dict[str, Any]]] = {
    503: _shape(models.Error, "too many requests at once, or too slow")
}
_TOKEN: Final[dict[int | str, dict[str, Any]]] = {
    401: _shape(models.Error, "no token, or a wrong one"),
    429: _shape(models.Error, "too many wrong tokens from this address"),
    **_OVERLOAD,
}
_ASKED: Final[dict[int | str, dict[str, Any]]] = {422: _shape(models.Error, "a parameter is not valid")}


def _public(answers: Answers, access: Access) -> APIRouter:
    routes = APIRouter(tags=["up or down"])

    @routes.get("/livez", response_model=models.Alive, responses=_OVERLOAD)
    async def livez() -> Response:
        """Whether the process answers at all."""
        return Response(b'{"status":"alive"}', media_type=JSON)

    @routes.get(
        "/readyz",
        response_model=models.Ready,
        responses={503: _shape(models.Ready | models.Error, "it cannot do its work, or is too busy")},
    )
    async def readyz() -> Response:
        """Whether it can do its work: the database answers and the checks have begun."""
        if await answers.ready():
            return Response(b'{"status":"ready"}', media_type=JSON)
        return Response(b'{"status":"not_ready"}', 503, media_type=JSON)

    either = models.Health | models.UpOrDown

    @routes.get("/health", include_in_schema=False)
    @routes.get(
        "/health/",
        response_model=either,
        responses={**_TOKEN, 503: _shape(either | models.Error, "unhealthy, or too busy")},
        openapi_extra={"security": [{}, {BEARER: []}]},
    )
    async def health(request: Request) -> Response:
        """The verdict: 200 when healthy or degraded, 503 when unhealthy. With a token also why, and what."""
        full = await access.allows(request.scope["headers"], request.state.client)
        make = documents.health if full else _short
        body, view = answers.body(("health", full), make)
        return Response(body, 503 if view.overall is Overall.UNHEALTHY else 200, media_type=JSON)

    return routes


def _short(view: HealthView) -> dict[str, Any]:
    return {"status": documents.up_or_down(view)}


def _private(services: Services, answers: Answers, metrics: Metrics, access: Access) -> APIRouter:
    async def token(request: Request) -> None:
        await access.require(request.scope["headers"], request.state.client)

    token.needs_token = True  # type: ignore[attr-defined]  # what a test looks for on every route
    secured: dict[str, Any] = {"security": [{BEARER: []}]}
    routes = APIRouter(tags=["detail"], dependencies=[Depends(token)], responses=_TOKEN)

    @routes.get("/health/agents/", include_in_schema=False)
    @routes.get("/health/agents", response_model=models.Agents, responses=_ASKED, openapi_extra=secured)
    async def agents(
        company: Company = "", state: State = None, offset: Offset = 0, limit: Limit = documents.PAGE
    ) -> Response:
        """Every agent's check, page by page."""

        def found(view: HealthView) -> list[CheckView]:
            return documents.select_agents(view, company=company, state=state)

        body = await answers.page(
            ("agents", company, state, offset, limit),
            lambda view: documents.agents_head(view, found(view), offset),
            "agents",
            lambda view: found(view)[offset : offset + limit],
        )
        return Response(body, media_type=JSON)

    @routes.get(
        "/health/agents/{name:path}",
        response_model=models.Agent,
        responses={**_ASKED, 404: _shape(models.Error, "no agent of that name is watched")},
        openapi_extra=secured,
    )
    async def agent(name: Name, company: Company = "") -> Response:
        """One agent, or all of that name, with facts and the latest probes."""
        found = await _find_agents(services, answers.view(), name, company)
        if not found:
            raise _no_agent(name, company)

        def make(view: HealthView) -> dict[str, Any]:
            return documents.agent(view, [check for check in view.checks if check.id in found])

        body, _ = answers.body(("agent", *sorted(found)), make)
        return Response(body, media_type=JSON)

    @routes.get(
        "/health/orchestrator",
        response_model=models.Orchestrator,
        openapi_extra=secured,
    )
    async def orchestrator() -> Response:
        """What routes requests to agents."""
        body, _ = answers.body("orchestrator", documents.orchestrator)
        return Response(body, media_type=JSON)

    @routes.get(
        "/health/dependencies", response_model=models.Dependencies, responses=_ASKED, openapi_extra=secured
    )
    async def dependencies(offset: Offset = 0, limit: Limit = documents.PAGE) -> Response:
        """Providers, integrations and the system: what the agents and this program hang on."""
        found = documents.select_dependencies
        body = await answers.page(
            ("dependencies", offset, limit),
            lambda view: documents.dependencies_head(view, found(view), offset),
            "dependencies",
            lambda view: found(view)[offset : offset + limit],
        )
        return Response(body, media_type=JSON)

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "Prometheus' text format", "content": {"text/plain": {}}}},
        openapi_extra=secured,
    )
    async def prometheus() -> Response:
        """Figures for Prometheus."""
        return Response(await metrics.text(answers.view()), headers={"content-type": CONTENT_TYPE})

    return routes


async def _find_agents(services: Services, view: HealthView, name: str, company: str) -> set[str]:
    """The ids of the checks of agents that go by this name, number or vendor's id; exact spelling first."""
    among = [
        check
        for check in view.checks
        if check.kind is CheckKind.AGENT and company.casefold() in ("", check.company.casefold())
    ]
    wanted = name.casefold()
    tests: tuple[Callable[[CheckView], bool], ...] = (
        lambda check: check.id in (name, f"agent:{name}"),
        lambda check: check.name == name,
        lambda check: check.name.casefold() == wanted,
    )
    for test in tests:
        found = [check.id for check in among if test(check)]
        if found:
            return set(found[:MOST_NAMESAKES])
    if not among:
        return set()
    ids = {f"agent:{card.id}" for card in await services.agents.cards() if card.agent_id == name}
    return ids & {check.id for check in among}


def _no_agent(name: str, company: str) -> Refused:
    shown = name if len(name) <= errors.LONGEST else name[: errors.LONGEST - 1] + "…"
    return Refused(
        404,
        f"No agent named {shown!r} is watched" + (" in this company" if company else ""),
        code="no_agent",
        advice="/health/agents lists them",
    )
