"""HubSpot's CRM objects: contacts, deals, notes and their associations.

Sources: the OpenAPI documents of HubSpot for crm/v3/objects and crm/objects/2026-09 (create, PATCH by
`idProperty=email`, search with its own schema), and its documentation of association types (looked up in
November 2026), whose numbers below are the HUBSPOT_DEFINED ones that every account has. A second contact
with an e-mail address is answered 409, category CONFLICT, with the sentence "Contact already exists.
Existing ID: 12345". There is no idempotency key: nothing is sent twice. Searches have a limit of their own of
about 5 requests a second, compare times as milliseconds, take no note by its text, and find a new record
after some seconds, a changed one after a minute.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.http.client import Call, HttpOptions, segment
from services.http.wire import parse, wrong_shape
from services.integrations.credentials import Caller, Credentials, FixedToken
from services.integrations.crm.model import (
    ContactData,
    CrmPage,
    CrmRecord,
    DealData,
    NoteData,
    Properties,
    RecordKind,
    Stored,
)
from services.integrations.model import Resolved
from services.resilience import Policy, Subject
from services.text import clean_line

FIELDS: Final[Mapping[RecordKind, Mapping[str, str]]] = {
    RecordKind.CONTACT: {
        "email": "email",
        "first_name": "firstname",
        "last_name": "lastname",
        "phone": "phone",
        "company": "company",
    },
    RecordKind.DEAL: {
        "name": "dealname",
        "amount": "amount",
        "stage": "dealstage",
        "pipeline": "pipeline",
        "closes_at": "closedate",
    },
    RecordKind.NOTE: {"body": "hs_note_body", "at": "hs_timestamp"},
}
"""Our names to HubSpot's."""

OBJECTS: Final = {RecordKind.CONTACT: "contacts", RecordKind.DEAL: "deals", RecordKind.NOTE: "notes"}
NOTE_TO_CONTACT: Final = 202
NOTE_TO_DEAL: Final = 214
DEAL_TO_CONTACT: Final = 3
SEARCHES_A_SECOND: Final = 5
MOST_FOUND: Final = 200
"""Records on one page of a search; HubSpot takes no more."""

_VERSION: Final = re.compile(r"v3|\d{4}-\d{2}")
_EXISTING: Final = re.compile(r"[Ee]xisting ID: ?(\d+)")


class Existing(ServiceError):
    """A contact with that e-mail address is there: its id."""

    def __init__(self, contact_id: str) -> None:
        super().__init__("HubSpot has a contact with that e-mail address", code="exists")
        self.contact_id = contact_id


class HubSpot:
    """One HubSpot account. Belongs to one event loop; `aclose` ends it."""

    name = "HubSpot"
    id_field = "hs_object_id"

    def __init__(
        self,
        resolved: Resolved,
        policy: Policy,
        clock: Clock,
        *,
        credentials: Credentials | None = None,
        timeout: float = 30.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Raises UsageError for a version of paths that cannot be one."""
        config = resolved.info.config
        version = str(config.get("api") or "v3")
        if not _VERSION.fullmatch(version):
            raise UsageError(
                f"HubSpot has no API version {clean_line(version)!r}",
                advice="Leave the option api out, or give v3 or a dated one such as 2026-09",
                code="bad_option",
            )
        self._root = "/crm/v3/objects" if version == "v3" else f"/crm/objects/{version}"
        self._pipeline = str(config.get("pipeline") or "")
        self._stage = str(config.get("stage") or "")
        options = HttpOptions(
            vendor=self.name,
            base_url=resolved.info.base_url,
            key=None,
            clock=clock,
            timeout=timeout,
            user_agent="callboard",
            policy=policy,
            dialect="hubspot",
            explain=_explain,
            sleep=sleep,
        )
        self._caller = Caller(options, credentials or FixedToken(resolved.secret))
        self._searches = Pace(SEARCHES_A_SECOND, clock, sleep)

    async def create_contact(self, contact: ContactData, *, key: str, subject: Subject) -> Stored:
        properties = _properties(RecordKind.CONTACT, contact.fields(), contact.properties)
        try:
            return await self._create(RecordKind.CONTACT, properties, [], subject)
        except Existing as found:
            return Stored(found.contact_id, existed=True)

    async def update_contact(
        self, contact_id: str, contact: ContactData, *, key: str, subject: Subject
    ) -> Stored:
        by_email = "@" in contact_id
        call = Call(
            "PATCH",
            f"{self._root}/contacts/{segment(contact_id, 'a contact')}",
            params={"idProperty": "email"} if by_email else None,
            body={"properties": _properties(RecordKind.CONTACT, contact.fields(), contact.properties)},
        )
        try:
            return _stored(await self._caller.read(call, _object, write=True, subject=subject))
        except Existing as found:
            raise ServiceError(
                f"HubSpot has another contact with the address {clean_line(contact.email)}",
                advice=f"Change contact {found.contact_id}, or merge the two in HubSpot",
                code="conflict",
            ) from None

    async def find_contact(self, email: str, *, subject: Subject) -> str:
        call = Call(
            "GET",
            f"{self._root}/contacts/{segment(email, 'a contact')}",
            params={"idProperty": "email", "properties": "email"},
        )
        try:
            return _stored(await self._caller.read(call, _object, subject=subject)).id
        except ServiceError as error:
            if error.code != "not_found":
                raise
            return ""

    async def create_deal(self, deal: DealData, *, key: str, subject: Subject) -> Stored:
        given = {"pipeline": self._pipeline, "stage": self._stage, **deal.fields()}
        if deal.closes_at is not None:
            given["closes_at"] = _time(deal.closes_at)
        links = [_link(deal.contact_id, DEAL_TO_CONTACT)] if deal.contact_id else []
        named = {name: value for name, value in given.items() if value}
        properties = _properties(RecordKind.DEAL, named, deal.properties)
        return await self._create(RecordKind.DEAL, properties, links, subject)

    async def create_note(self, note: NoteData, *, now: int, key: str, subject: Subject) -> Stored:
        links = [_link(note.contact_id, NOTE_TO_CONTACT)] if note.contact_id else []
        links += [_link(note.deal_id, NOTE_TO_DEAL)] if note.deal_id else []
        given = {"body": note.body, "at": _time(now if note.at is None else note.at)}
        properties = _properties(RecordKind.NOTE, given, note.properties)
        return await self._create(RecordKind.NOTE, properties, links, subject)

    async def search(
        self,
        kind: RecordKind,
        query: str,
        filters: Mapping[str, str],
        *,
        limit: int,
        after: str,
        subject: Subject,
    ) -> CrmPage:
        names = FIELDS[kind]
        conditions = [
            {"propertyName": names.get(name, name), "operator": "EQ", "value": value}
            for name, value in filters.items()
        ]
        body: dict[str, Any] = {
            "filterGroups": [{"filters": conditions}] if conditions else [],
            "sorts": [],
            "properties": [*names.values(), *(name for name in filters if name not in names)],
            "limit": min(limit, MOST_FOUND),
            "after": after or "0",
        }
        if query:
            body["query"] = query
        await self._searches.turn()
        answer = await self._caller.read(
            Call("POST", f"{self._root}/{OBJECTS[kind]}/search", body=body), _object, subject=subject
        )
        results = answer.get("results")
        if not isinstance(results, list):
            raise wrong_shape("a list of results", results)
        following = answer.get("paging")
        following = following.get("next") if isinstance(following, dict) else None
        return CrmPage(
            tuple(_record(kind, item) for item in results),
            answer.get("total") if isinstance(answer.get("total"), int) else None,
            str(following.get("after") or "") if isinstance(following, dict) else "",
            system=self.name,
        )

    def moment(self, at: int) -> str:
        """Searches compare times as epoch milliseconds."""
        return str(at)

    async def probe(self) -> str:
        """Reads one contact, which is free: it counts against HubSpot's own rates alone."""
        await self._caller.read(Call("GET", f"{self._root}/contacts", params={"limit": 1}), _object)
        return "HubSpot answers and shows contacts"

    async def aclose(self) -> None:
        await self._caller.aclose()

    async def _create(
        self, kind: RecordKind, properties: Properties, links: list[dict[str, Any]], subject: Subject
    ) -> Stored:
        body = {"properties": dict(properties), "associations": links}
        call = Call("POST", f"{self._root}/{OBJECTS[kind]}", body=body)
        return _stored(await self._caller.read(call, _object, write=True, subject=subject))


class Pace:
    """At most so many in any second: who comes too early waits. Belongs to one event loop."""

    def __init__(self, a_second: int, clock: Clock, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._turns = [-1.0] * a_second
        """When the latest may go, the earliest first."""

    async def turn(self) -> None:
        """Wait for one's turn."""
        now = self._clock.monotonic()
        at = max(now, self._turns[0] + 1.0)
        self._turns = [*self._turns[1:], at]
        if at > now:
            await self._sleep(at - now)


def _explain(status: int, data: object) -> ServiceError | None:
    message = data.get("message") if isinstance(data, dict) else None
    found = _EXISTING.search(message) if status == 409 and isinstance(message, str) else None
    return Existing(found[1]) if found else None


def _properties(kind: RecordKind, given: Mapping[str, str], more: Properties) -> dict[str, str]:
    names = FIELDS[kind]
    return {**{names[name]: value for name, value in given.items()}, **more}


def _link(to: str, association: int) -> dict[str, Any]:
    return {
        "to": {"id": to},
        "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": association}],
    }


def _object(text: str) -> dict[str, Any]:
    data = parse(text).data
    if not isinstance(data, dict):
        raise wrong_shape("an object", data)
    return data


def _stored(data: Mapping[str, Any]) -> Stored:
    found = data.get("id")
    if not isinstance(found, str) or not found:
        raise wrong_shape("an object with its id", found)
    return Stored(found, url=str(data.get("url") or ""))


def _record(kind: RecordKind, item: Any) -> CrmRecord:
    if not isinstance(item, dict) or not isinstance(item.get("properties"), dict):
        raise wrong_shape("an object with properties", item)
    properties = {name: str(value) for name, value in item["properties"].items() if value not in (None, "")}
    fields = {ours: properties[theirs] for ours, theirs in FIELDS[kind].items() if theirs in properties}
    return CrmRecord(
        kind,
        str(item.get("id") or ""),
        fields,
        properties,
        str(item.get("url") or ""),
        _moment(item.get("createdAt")),
        _moment(item.get("updatedAt")),
    )


def _time(at: int) -> str:
    moment = dt.datetime.fromtimestamp(at / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(value: object) -> int | None:
    try:
        return round(dt.datetime.fromisoformat(str(value)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
