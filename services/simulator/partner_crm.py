"""A simulated service that speaks the contract of `CRM_API_URL`, below `/crm`."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from services.clock import Clock, SystemClock
from services.simulator.partner_bookings import Answers
from services.simulator.partners import Partner, Partners
from services.simulator.wire import Json, Reply, Request, answer

PREFIX: Final = "/crm"
_FIELDS: Final = {
    "contact": ("email", "first_name", "last_name", "phone", "company"),
    "deal": ("name", "amount", "stage", "pipeline", "closes_at", "contact_id"),
    "note": ("body", "at", "contact_id", "deal_id"),
}


@dataclass(slots=True)
class Held:
    """One record of the service."""

    id: str
    kind: str
    fields: dict[str, str]
    at: str
    properties: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> Json:
        return {
            "id": self.id,
            "fields": self.fields,
            "properties": self.properties,
            "created_at": self.at,
            "updated_at": self.at,
        }


class CrmGateway:
    """The records of one service."""

    def __init__(self, partners: Partners, clock: Clock) -> None:
        self.records: dict[str, Held] = {}
        self._answers = Answers()
        self._count = itertools.count(1)
        self._clock = clock
        partners.add(Partner(PREFIX, lambda status: _refused(status, f"simulated failure {status}")))
        add = partners.router.add
        add("GET", f"{PREFIX}/me", "account", lambda request: answer({"name": "Simulated CRM service"}))
        for kind in _FIELDS:
            add("POST", f"{PREFIX}/{kind}s", "write", self._creator(kind))
        add("PATCH", f"{PREFIX}/contacts/*", "write", self._update)
        add("POST", f"{PREFIX}/search", "list", self._search)

    def _creator(self, kind: str) -> Callable[[Request], Reply]:
        def create(request: Request) -> Reply:
            key = request.headers.get(b"idempotency-key", b"").decode("latin-1")
            reused = _refused(422, "the key was used for another request")
            return self._answers.once(key, request, lambda: self._create(kind, request), reused)

        return create

    def _create(self, kind: str, request: Request) -> Reply:
        body = request.json_object()
        if not body:
            return _refused(400, f"a {kind} is expected")
        given = {name: str(body[name]) for name in _FIELDS[kind] if name in body}
        email = given.get("email", "").casefold()
        known = next(
            (held for held in self._of("contact") if email and held.fields.get("email") == email), None
        )
        if kind == "contact" and known is not None:
            return answer({"id": known.id, "existed": True})
        linked = given.get("contact_id")
        if linked and linked not in self.records:
            return _refused(422, f"there is no contact {linked}")
        now = dt.datetime.fromtimestamp(self._clock.now() / 1000, dt.UTC).isoformat(timespec="milliseconds")
        held = Held(f"{kind}-{next(self._count)}", kind, given, now, body.get("properties") or {})
        if email:
            held.fields["email"] = email
        self.records[held.id] = held
        return answer({"id": held.id, "url": f"https://crm.example/{held.id}"}, 201)

    def _update(self, request: Request, contact: str) -> Reply:
        wanted = unquote(contact)
        held = next(
            (each for each in self._of("contact") if wanted in (each.id, each.fields.get("email"))), None
        )
        if held is None:
            return _refused(404, f"there is no contact {wanted}")
        body = request.json_object() or {}
        held.fields |= {name: str(body[name]) for name in _FIELDS["contact"] if name in body}
        held.properties |= body.get("properties") or {}
        return answer({"id": held.id})

    def _search(self, request: Request) -> Reply:
        body = request.json_object() or {}
        words = str(body.get("query") or "").casefold().split()
        filters = body.get("filters") or {}
        found = [
            held
            for held in self._of(str(body.get("kind")))
            if all({**held.properties, **held.fields}.get(name) == value for name, value in filters.items())
            and all(word in " ".join(held.fields.values()).casefold() for word in words)
        ]
        limit, begin = int(body.get("limit") or 20), int(body.get("after") or 0)
        page: Json = {
            "records": [held.as_dict() for held in found[begin : begin + limit]],
            "total": len(found),
        }
        if len(found) > begin + limit:
            page["after"] = str(begin + limit)
        return answer(page)

    def _of(self, kind: str) -> list[Held]:
        return [held for held in self.records.values() if held.kind == kind]


def mount(partners: Partners, clock: Clock | None = None) -> CrmGateway:
    """Add it to the simulator's partner services."""
    return CrmGateway(partners, clock or SystemClock())


def _refused(status: int, message: str) -> Reply:
    return answer({"error": {"code": f"http_{status}", "message": message}}, status)
