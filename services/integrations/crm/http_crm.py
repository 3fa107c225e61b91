"""Any customer-relations system behind a small HTTP service: `CRM_API_URL`, or an integration `http-crm`.

The contract of the service, all of it JSON, the key as a bearer token:

    GET   /me               {"name": "…"}: whose account it is; asked to see whether the service works
    POST  /contacts         {"email", "first_name", "last_name", "phone", "company", "properties": {…}}
                            201 {"id", "url"?}, or 200 {"id", "existed": true} for one that is there
    PATCH /contacts/{id}    the same members; {id} may be an e-mail address
                            200 {"id", "url"?}
    POST  /deals            {"name", "amount", "stage", "pipeline", "closes_at", "contact_id", "properties"}
                            201 {"id", "url"?}
    POST  /notes            {"body", "at", "contact_id", "deal_id", "properties"}
                            201 {"id", "url"?}
    POST  /search           {"kind": "contact" | "deal" | "note", "query", "filters": {…}, "limit", "after"}
                            200 {"records": [{"id", "fields", "properties"?, "url"?, "created_at"?,
                            "updated_at"?}], "total"?, "after"?}
    4xx                     {"error": {"code": "…", "message": "…"}}

What changes something carries Idempotency-Key; a second request with the same key gets the first one's
answer. Members that are empty are left out. Times are ISO 8601 with an offset.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from services.clock import Clock
from services.errors import ServiceError
from services.http.client import Call, HttpOptions, segment
from services.http.wire import parse, wrong_shape
from services.integrations.credentials import Caller, Credentials, FixedToken
from services.integrations.crm.model import (
    ContactData,
    CrmPage,
    CrmRecord,
    DealData,
    NoteData,
    RecordKind,
    Stored,
)
from services.integrations.model import Resolved
from services.resilience import Policy, Subject
from services.text import clean_line


class HttpCrm:
    """One such service. Belongs to one event loop; `aclose` ends it."""

    id_field = ""

    def __init__(
        self,
        resolved: Resolved,
        policy: Policy,
        clock: Clock,
        *,
        credentials: Credentials | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.name = resolved.info.name[:1].upper() + resolved.info.name[1:]
        options = HttpOptions(
            vendor=self.name,
            base_url=resolved.info.base_url,
            key=None,
            clock=clock,
            timeout=timeout,
            user_agent="callboard",
            policy=policy,
            explain=self._explain,
        )
        self._caller = Caller(options, credentials or FixedToken(resolved.secret))

    async def create_contact(self, contact: ContactData, *, key: str, subject: Subject) -> Stored:
        return await self._write("POST", "/contacts", contact.fields(), contact.properties, key, subject)

    async def update_contact(
        self, contact_id: str, contact: ContactData, *, key: str, subject: Subject
    ) -> Stored:
        path = f"/contacts/{segment(contact_id, 'a contact')}"
        return await self._write("PATCH", path, contact.fields(), contact.properties, key, subject)

    async def find_contact(self, email: str, *, subject: Subject) -> str:
        page = await self.search(RecordKind.CONTACT, "", {"email": email}, limit=1, after="", subject=subject)
        return page.records[0].id if page.records else ""

    async def create_deal(self, deal: DealData, *, key: str, subject: Subject) -> Stored:
        given = {**deal.fields(), "contact_id": deal.contact_id, "closes_at": _time(deal.closes_at)}
        return await self._write("POST", "/deals", given, deal.properties, key, subject)

    async def create_note(self, note: NoteData, *, now: int, key: str, subject: Subject) -> Stored:
        given = {
            "body": note.body,
            "at": _time(now if note.at is None else note.at),
            "contact_id": note.contact_id,
            "deal_id": note.deal_id,
        }
        return await self._write("POST", "/notes", given, note.properties, key, subject)

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
        body = _told(
            {"kind": kind.value, "query": query, "filters": dict(filters), "limit": limit, "after": after}
        )
        answer = await self._caller.read(Call("POST", "/search", body=body), _object, subject=subject)
        records = answer.get("records")
        if not isinstance(records, list):
            raise wrong_shape("a list of records", records)
        total = answer.get("total")
        return CrmPage(
            tuple(_record(kind, item) for item in records),
            total if isinstance(total, int) else None,
            str(answer.get("after") or ""),
            system=self.name,
        )

    def moment(self, at: int) -> str:
        return _time(at)

    async def probe(self) -> str:
        """Who the service says that we are: free by its contract."""
        name = (await self._caller.read(Call("GET", "/me"), _object)).get("name")
        return clean_line(name) if isinstance(name, str) and name.strip() else "Answers"

    async def aclose(self) -> None:
        await self._caller.aclose()

    async def _write(
        self,
        method: str,
        path: str,
        given: Mapping[str, str],
        properties: Mapping[str, str],
        key: str,
        subject: Subject,
    ) -> Stored:
        body = _told({**given, "properties": dict(properties)})
        answer = await self._caller.read(
            Call(method, path, body=body), _object, write=True, idempotency_key=key, subject=subject
        )
        found = answer.get("id")
        if not isinstance(found, str | int) or not str(found):
            raise wrong_shape("an object with its id", found)
        return Stored(str(found), answer.get("existed") is True, str(answer.get("url") or ""))

    def _explain(self, status: int, data: object) -> ServiceError | None:
        error = data.get("error") if isinstance(data, dict) else None
        if not 400 <= status < 500 or status in (401, 403, 404, 408, 429) or not isinstance(error, dict):
            return None
        message = clean_line(str(error.get("message") or error.get("code") or status))[:240].rstrip(".")
        code = "conflict" if status == 409 else "refused"
        return ServiceError(f"{self.name} refused it: {message}", advice="Correct what it names", code=code)


def _told(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value not in ("", None, {})}


def _object(text: str) -> dict[str, Any]:
    data = parse(text).data
    if not isinstance(data, dict):
        raise wrong_shape("an object", data)
    return data


def _record(kind: RecordKind, item: Any) -> CrmRecord:
    if not isinstance(item, dict) or not isinstance(item.get("fields"), dict):
        raise wrong_shape("a record with fields", item)
    fields = {str(name): str(value) for name, value in item["fields"].items() if value not in (None, "")}
    more = item.get("properties")
    properties = {str(name): str(value) for name, value in more.items()} if isinstance(more, dict) else {}
    return CrmRecord(
        kind,
        str(item.get("id") or ""),
        fields,
        properties or fields,
        str(item.get("url") or ""),
        _moment(item.get("created_at")),
        _moment(item.get("updated_at")),
    )


def _time(at: int | None) -> str:
    if at is None:
        return ""
    return dt.datetime.fromtimestamp(at / 1000, dt.UTC).isoformat(timespec="milliseconds")


def _moment(value: object) -> int | None:
    try:
        return round(dt.datetime.fromisoformat(str(value)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
