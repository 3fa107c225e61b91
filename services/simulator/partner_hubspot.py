"""A simulated HubSpot account: contacts, deals, notes, their associations and searches.

Answers in the shapes of HubSpot's OpenAPI documents, under the paths of v3 and of dated versions. A second
contact with an e-mail address is refused (409, CONFLICT, "Contact already exists. Existing ID: …"); the rate
headers count down within ten seconds; a search finds at once what the real one finds after a while.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from services.clock import Clock, SystemClock
from services.simulator.partners import Partner, Partners
from services.simulator.wire import Json, Reply, Request, answer

PREFIX: Final = "/hubspot"
DATED: Final = ("2026-03", "2026-09")
TYPES: Final = {"contacts": "contacts", "deals": "deals", "notes": "notes", "0-1": "contacts", "0-3": "deals"}
LINKS: Final = {("notes", "contacts"): 202, ("notes", "deals"): 214, ("deals", "contacts"): 3}
"""HUBSPOT_DEFINED association types, by what they lead from and to."""
REQUIRED: Final = {"notes": "hs_timestamp"}
BURST: Final = 190
_WINDOW_MS: Final = 10_000
_CATEGORIES: Final = {
    400: "VALIDATION_ERROR",
    401: "INVALID_AUTHENTICATION",
    403: "MISSING_SCOPES",
    404: "OBJECT_NOT_FOUND",
    409: "CONFLICT",
    429: "RATE_LIMITS",
}


@dataclass(slots=True)
class Record:
    """One object of the account."""

    id: str
    kind: str
    properties: dict[str, str]
    created_at: int
    updated_at: int
    links: set[tuple[str, str, int]] = field(default_factory=set)
    """What it leads to: kind, id, association type."""

    def as_dict(self) -> Json:
        return {
            "id": self.id,
            "properties": {**self.properties, "hs_object_id": self.id},
            "createdAt": _iso(self.created_at),
            "updatedAt": _iso(self.updated_at),
            "archived": False,
            "url": f"https://app.hubspot.example/{self.kind}/{self.id}",
        }


class HubSpotAccount:
    """The objects of one account."""

    def __init__(self, partners: Partners, clock: Clock) -> None:
        self.records: dict[str, Record] = {}
        self._clock = clock
        self._count = itertools.count(101)
        self._recent: list[int] = []
        partners.add(Partner(PREFIX, failure))
        for root in ("/crm/v3/objects", *(f"/crm/objects/{version}" for version in DATED)):
            add = partners.router.add
            add("GET", f"{PREFIX}{root}/*", "list", self._list)
            add("POST", f"{PREFIX}{root}/*", "write", self._create)
            add("POST", f"{PREFIX}{root}/*/search", "list", self._search)
            add("GET", f"{PREFIX}{root}/*/*", "detail", self._get)
            add("PATCH", f"{PREFIX}{root}/*/*", "write", self._update)
            add("DELETE", f"{PREFIX}{root}/*/*", "write", self._archive)
        link = f"{PREFIX}/crm/v4/objects/*/*/associations/default/*/*"
        partners.router.add("PUT", link, "write", self._associate)

    def recall(self, rows: list[Json]) -> None:
        """Have these records, as they were before."""
        for row in rows:
            record = Record(
                **{**row, "links": {(str(kind), str(to), int(by)) for kind, to, by in row["links"]}}
            )
            self.records[record.id] = record
        self._count = itertools.count(max([100, *(int(each) for each in self.records)]) + 1)

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records.values() if record.kind == kind]

    def _list(self, request: Request, name: str) -> Reply:
        kind = TYPES.get(name)
        if kind is None:
            return failure(400, f"Unable to infer object type from: {name}")
        limit = request.query.get("limit", "10")
        if not limit.isdecimal() or not 1 <= int(limit) <= 100:
            return failure(400, "limit is not from 1 to 100")
        return self._page(self.of(kind), int(limit), request.query.get("after", ""), total=False)

    def _create(self, request: Request, name: str) -> Reply:
        kind = TYPES.get(name)
        body = request.json_object() or {}
        properties = body.get("properties")
        if kind is None or not isinstance(properties, dict):
            return failure(400, "Invalid input JSON")
        wrong = self._wrong(kind, properties, "")
        if wrong is not None:
            return wrong
        needed = REQUIRED.get(kind)
        if needed and not properties.get(needed):
            return failure(400, f"Property values were not valid: {needed} is required")
        links = set()
        for link in body.get("associations") or []:
            found = self._link(kind, link)
            if isinstance(found, Reply):
                return found
            links.add(found)
        now = self._clock.now()
        record = Record(str(next(self._count)), kind, _texts(properties), now, now, links)
        self.records[record.id] = record
        return self._counted(answer(record.as_dict(), 201))

    def _link(self, kind: str, link: Json) -> tuple[str, str, int] | Reply:
        target = self.records.get(str((link.get("to") or {}).get("id")))
        if target is None:
            return failure(400, "One or more associations are not valid: the object does not exist")
        types = [spec.get("associationTypeId") for spec in link.get("types") or []]
        wanted = LINKS.get((kind, target.kind))
        if types != [wanted]:
            return failure(400, f"{types} is not a valid association type between {kind} and {target.kind}")
        return target.kind, target.id, types[0]

    def _get(self, request: Request, name: str, record_id: str) -> Reply:
        record = self._found(request, name, record_id)
        return self._counted(answer(record.as_dict())) if record else failure(404, "resource not found")

    def _update(self, request: Request, name: str, record_id: str) -> Reply:
        record = self._found(request, name, record_id)
        if record is None:
            return failure(404, "resource not found")
        properties = (request.json_object() or {}).get("properties")
        if not isinstance(properties, dict):
            return failure(400, "Invalid input JSON")
        wrong = self._wrong(record.kind, properties, record.id)
        if wrong is not None:
            return wrong
        record.properties |= _texts(properties)
        record.updated_at = self._clock.now()
        return self._counted(answer(record.as_dict()))

    def _archive(self, request: Request, name: str, record_id: str) -> Reply:
        record = self._found(request, name, record_id)
        if record is not None:
            del self.records[record.id]
        return Reply(204)

    def _associate(self, request: Request, name: str, record_id: str, other: str, other_id: str) -> Reply:
        record = self._found(request, name, record_id)
        target = self.records.get(other_id)
        association = LINKS.get((TYPES.get(name, ""), TYPES.get(other, "")))
        if record is None or target is None or association is None:
            return failure(404, "resource not found")
        record.links.add((target.kind, target.id, association))
        ids = {"fromObjectTypeId": name, "fromObjectId": record_id, "toObjectTypeId": other}
        return answer({"status": "COMPLETE", "results": [{**ids, "toObjectId": other_id}]})

    def _search(self, request: Request, name: str) -> Reply:
        """No rate headers: HubSpot's search has none."""
        kind = TYPES.get(name)
        body = request.json_object() or {}
        limit = body.get("limit", 10)
        if kind is None or not isinstance(limit, int) or not 1 <= limit <= 200:
            return failure(400, "Invalid input JSON: limit is at most 200")
        words = str(body.get("query") or "").casefold().split()
        groups = body.get("filterGroups") or []
        found = [
            record
            for record in self.of(kind)
            if (not groups or any(_fits(record, group) for group in groups)) and _holds(record, words)
        ]
        return self._page(found, limit, str(body.get("after") or ""), total=True)

    def _page(self, found: list[Record], limit: int, after: str, *, total: bool) -> Reply:
        begin = int(after) if after.isdecimal() else 0
        page: Json = {"results": [record.as_dict() for record in found[begin : begin + limit]]}
        if len(found) > begin + limit:
            page["paging"] = {"next": {"after": str(begin + limit)}}
        if total:
            return answer({"total": len(found), **page})
        return self._counted(answer(page))

    def _wrong(self, kind: str, properties: Json, own_id: str) -> Reply | None:
        email = str(properties.get("email") or "").casefold()
        if kind != "contacts" or not email:
            return None
        if "@" not in email:
            return failure(400, f"Property values were not valid: Email address {email} is invalid")
        for other in self.of("contacts"):
            if other.id != own_id and other.properties.get("email", "").casefold() == email:
                return failure(409, f"Contact already exists. Existing ID: {other.id}")
        return None

    def _found(self, request: Request, name: str, record_id: str) -> Record | None:
        kind = TYPES.get(name)
        by = request.query.get("idProperty", "")
        if by:
            wanted = unquote(record_id).casefold()
            matching = (
                each for each in self.of(kind or "") if each.properties.get(by, "").casefold() == wanted
            )
            return next(matching, None)
        record = self.records.get(record_id)
        return record if record is not None and record.kind == kind else None

    def _counted(self, reply: Reply) -> Reply:
        now = self._clock.now()
        self._recent = [*(at for at in self._recent if at > now - _WINDOW_MS), now]
        left = max(0, BURST - len(self._recent))
        reply.headers = (
            (b"x-hubspot-ratelimit-daily", b"250000"),
            (b"x-hubspot-ratelimit-daily-remaining", b"%d" % (250_000 - len(self.records))),
            (b"x-hubspot-ratelimit-interval-milliseconds", b"%d" % _WINDOW_MS),
            (b"x-hubspot-ratelimit-max", b"%d" % BURST),
            (b"x-hubspot-ratelimit-remaining", b"%d" % left),
        )
        return reply


def failure(status: int, message: str = "") -> Reply:
    """HubSpot's error body."""
    body: Json = {
        "status": "error",
        "message": message or f"simulated failure {status}",
        "correlationId": f"00000000-0000-4000-8000-{status:012d}",
        "category": _CATEGORIES.get(status, "INTERNAL_ERROR" if status >= 500 else "VALIDATION_ERROR"),
    }
    if status == 429:
        body |= {"errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}
    return answer(body, status)


def mount(partners: Partners, clock: Clock | None = None) -> HubSpotAccount:
    """Add it to the simulator's partner services."""
    return HubSpotAccount(partners, clock or SystemClock())


def _fits(record: Record, group: Json) -> bool:
    def fits(condition: Json) -> bool:
        name = str(condition.get("propertyName"))
        value = {**record.properties, "hs_object_id": record.id}.get(name)
        wanted = condition.get("value")
        if name == "hs_timestamp" and value is not None:
            # Times are compared as milliseconds, however they were written.
            value = str(round(dt.datetime.fromisoformat(value).timestamp() * 1000))
        match condition.get("operator"):
            case "EQ":
                return value is not None and str(wanted).casefold() == value.casefold()
            case "NEQ":
                return value != wanted
            case "HAS_PROPERTY":
                return value is not None
            case "CONTAINS_TOKEN":
                return value is not None and str(wanted).strip("*").casefold() in value.casefold()
        return False

    return all(fits(condition) for condition in group.get("filters") or [])


def _holds(record: Record, words: list[str]) -> bool:
    text = json.dumps(record.properties, ensure_ascii=False).casefold()
    return all(word in text for word in words)


def _texts(properties: Json) -> dict[str, str]:
    return {str(name): str(value) for name, value in properties.items() if value is not None}


def _iso(at: int) -> str:
    moment = dt.datetime.fromtimestamp(at / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
