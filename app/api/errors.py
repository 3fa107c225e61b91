"""One shape for everything that goes wrong: `{"error": {"category", "message", "advice", "code"}}`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from services.errors import Category, ServiceError
from services.security import redact

JSON: Final = "application/json"
LONGEST: Final = 200

log = logging.getLogger(__name__)


class Refused(Exception):
    """An answer that is an error. `headers` go with it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        category: Category = Category.PERMANENT,
        advice: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = ServiceError(message, category=category, advice=advice, code=code)
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        return error_body(self.error)


def error_body(error: ServiceError) -> bytes:
    """The JSON of an error, without secrets."""
    members = {key: redact(value) for key, value in error.as_dict().items()}
    return json.dumps({"error": {**members, "code": error.code or "error"}}).encode()


def broken() -> Refused:
    """What is told of a fault of ours: nothing but that there was one; the log has the rest."""
    return Refused(
        500,
        "The request could not be answered because of a fault in Callboard",
        code="internal",
        advice="The log has the detail, under the request id of this answer",
    )


_UNAVAILABLE: Final = Refused(
    503,
    "Something that the answer needs does not work now",
    code="unavailable",
    category=Category.TRANSIENT,
    advice="Try again; the log has the detail",
    headers={"Retry-After": "5"},
)


def install(app: FastAPI) -> None:
    """Have every error of the framework answered in our shape."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)  # noqa: S101 - registered for nothing else
        return Response(error.body, error.status, error.headers, JSON)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
        found = _of_framework(request, error)
        return Response(found.body, found.status, {**(error.headers or {}), **found.headers}, JSON)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
        found = _of_validation(error)
        return Response(found.body, found.status, None, JSON)

    async def service(_: Request, error: Exception) -> Response:
        # Its words may be about things that whoever asks must not learn: they are for the log.
        log.warning("a service failed while answering: %s", error)
        return Response(_UNAVAILABLE.body, 503, _UNAVAILABLE.headers, JSON)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ServiceError, service)


def _of_framework(request: Request, error: HTTPException) -> Refused:
    path = request.url.path
    shown = path if len(path) <= LONGEST else path[: LONGEST - 1] + "…"
    if error.status_code == 404:
        return Refused(
            404,
            f"There is nothing at {shown}",
            code="not_found",
            advice="/openapi.json lists every address",
        )
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        allowed = f"{allowed}, HEAD" if "GET" in allowed and "HEAD" not in allowed else allowed
        return Refused(
            405,
            f"{request.method} is not possible at {shown}",
            code="wrong_method",
            advice=f"Use {allowed}",
            headers={"Allow": allowed},
        )
    return Refused(error.status_code, str(error.detail), code="refused")


def _of_validation(error: RequestValidationError) -> Refused:
    """The first thing wrong, named; the value is never repeated."""
    first = (error.errors() or [{}])[0]
    place = [str(part) for part in first.get("loc", ())]
    where = " ".join((place[-1], f"in the {place[0]}")) if len(place) > 1 else "The request"
    what = str(first.get("msg", "is not valid"))
    return Refused(
        422,
        f"The parameter {where} is not valid: {what[:1].lower()}{what[1:]}"[:LONGEST],
        code="invalid",
        advice="/openapi.json says what is allowed",
    )
