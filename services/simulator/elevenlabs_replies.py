"""Answers in ElevenLabs' shapes: domain errors, validation errors, pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.simulator.wire import BadCursor, Document, Reply, Request, answer, cut_page, page_reply

_STATUSES = {
    400: ("bad_request", "The request could not be understood."),
    402: ("payment_required", "A paid subscription is needed for this."),
    403: ("forbidden", "You do not have access to this resource."),
    404: ("document_not_found", "Document not found."),
    429: ("too_many_concurrent_requests", "Too many concurrent requests. Your subscription limits them."),
    500: ("internal_server_error", "An internal error occurred."),
    503: ("system_busy", "The system is busy, please try again later."),
}


def failure(status: int, code: str = "", message: str = "") -> Reply:
    """A domain error: `{detail: {status, message}}`."""
    known, text = _STATUSES.get(status, ("error", f"The request failed with status {status}."))
    return answer({"detail": {"status": code or known, "message": message or text}}, status)


def invalid(kind: str, message: str, *place: str, given: object = None) -> Reply:
    """A validation error as FastAPI writes it."""
    return answer({"detail": [{"type": kind, "loc": list(place), "msg": message, "input": given}]}, 422)


def missing(noun: str, key: str) -> Reply:
    """There is no such object."""
    return failure(404, message=f"{noun} with id {key} not found.")


def page(request: Request, name: bytes, rows: Iterable[tuple[list[Any], Document]]) -> Reply:
    """A page of `rows` as the query asks for it, or what is wrong with the query."""
    query = request.query
    size = query.get("page_size", "30")
    if not size.isdecimal():
        message = "Input should be a valid integer, unable to parse string as an integer"
        return invalid("int_parsing", message, "query", "page_size", given=size)
    if int(size) > 100:
        message = "Input should be less than or equal to 100"
        return invalid("less_than_equal", message, "query", "page_size", given=size)
    if int(size) < 1:
        message = "Input should be greater than or equal to 1"
        return invalid("greater_than_equal", message, "query", "page_size", given=size)
    descending = query.get("sort_direction", "desc") == "desc"
    cursor = query.get("cursor", "")
    try:
        items, after = cut_page(list(rows), size=int(size), cursor=cursor, descending=descending)
    except BadCursor:
        return failure(400, "invalid_cursor", "The cursor is not valid.")
    return page_reply(name, items, {"next_cursor": after, "has_more": after is not None})
