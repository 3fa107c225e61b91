"""The contracts of integrations, bookings and customer relations."""

from __future__ import annotations

from app.schemas.shapes import COUNT, ERROR, FLAG, TEXT, TIME, Schema, list_of, object_of, one_of, or_null
from services.integrations.bookings.model import BookingKind, BookingState, Route
from services.integrations.crm.model import RecordKind
from services.integrations.model import EffectState, Kind, Origin

TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
ANY: Schema = {"type": "object"}
INTEGRATION = object_of(
    {
        "id": or_null({**COUNT, "description": "null for one of the environment or a simulation"}),
        "company": {**TEXT, "description": "empty for one that serves every company"},
        "kind": one_of(Kind),
        "adapter": TEXT,
        "name": TEXT,
        "base_url": TEXT,
        "config": ANY,
        "enabled": FLAG,
        "origin": one_of(Origin),
        "simulated": {**FLAG, "description": "what it does is only pretended"},
        "before": or_null({**TEXT, "description": "the one of the same company that is taken instead"}),
        "created_at": or_null(TIME),
    }
)
CHECK = object_of(
    {
        "id": or_null(COUNT),
        "name": TEXT,
        "kind": one_of(Kind),
        "ok": or_null({**FLAG, "description": "null for one that cannot be asked"}),
        "simulated": FLAG,
        "code": TEXT,
        "detail": TEXT,
        "took_ms": COUNT,
        "error": or_null(ERROR),
    }
)
OPTION = object_of({"name": TEXT, "required": FLAG, "text": TEXT})
ADAPTER = object_of(
    {
        "name": TEXT,
        "kind": one_of(Kind),
        "title": TEXT,
        "secret": {**TEXT, "description": "what its secret is called; empty if it has none"},
        "secret_required": FLAG,
        "more_secrets": TEXTS,
        "default_url": TEXT,
        "needs_url": FLAG,
        "options": list_of(OPTION),
    }
)
PARTNER = object_of(
    {
        "partner": TEXT,
        "title": TEXT,
        "file": {**TEXT, "description": "empty for one that comes with the program"},
        "operations": list_of(TEXT),
        "base_url": TEXT,
        "documented": TEXT,
        "assumed": TEXT,
        "settings": list_of(OPTION),
    }
)
SLOT = object_of(
    {
        "starts_at": TIME,
        "ends_at": or_null(TIME),
        "local": {**TEXT, "description": "the start in the partner's time zone, with its offset"},
        "timezone": TEXT,
        "slot": {**TEXT, "description": "what booking it needs; empty for none"},
        "seats": or_null(COUNT),
        "simulated": FLAG,
    }
)
BOOKING = object_of(
    {
        "id": TEXT,
        "kind": one_of(BookingKind),
        "partner": TEXT,
        "state": one_of(BookingState),
        "route": one_of(Route),
        "simulated": {**FLAG, "description": "nothing was booked"},
        "provider_id": TEXT,
        "who": {**TEXT, "description": "empty once it is deleted for its age"},
        "starts_at": or_null(TIME),
        "integration": {**TEXT, "description": "by which it was made; empty for none that is stored"},
        "timezone": TEXT,
        "request": ANY,
        "result": ANY,
        "error": or_null(ERROR),
        "created_at": TIME,
        "updated_at": TIME,
        "fresh": {**FLAG, "description": "false for one that was there before, by its key"},
    }
)
EXECUTION = object_of(
    {
        "id": {**TEXT, "description": "empty for a question, which leaves no row"},
        "partner": TEXT,
        "action": TEXT,
        "state": one_of(EffectState),
        "route": one_of(Route),
        "simulated": FLAG,
        "provider_id": TEXT,
        "result": ANY,
        "error": or_null(ERROR),
        "fresh": FLAG,
    }
)
ACTION = object_of(
    {
        "id": TEXT,
        "company": TEXT,
        "partner": TEXT,
        "action": {**TEXT, "description": "cancel, or whatever the partner or the gateway knows"},
        "state": one_of(EffectState),
        "simulated": {**FLAG, "description": "nothing was ordered"},
        "provider_id": TEXT,
        "integration": {**TEXT, "description": "by which it was ordered; empty for none that is stored"},
        "result": ANY,
        "error": or_null(ERROR),
        "created_at": TIME,
        "updated_at": TIME,
    }
)
WRITTEN = object_of(
    {
        "kind": one_of(RecordKind),
        "id": {**TEXT, "description": "the system's; empty while it is not known"},
        "state": one_of(EffectState),
        "existed": {**FLAG, "description": "it was there before, and nothing was changed"},
        "simulated": FLAG,
        "system": TEXT,
        "url": TEXT,
        "effect": TEXT,
        "fresh": FLAG,
    }
)
CHANGE = object_of(
    {
        "id": TEXT,
        "company": TEXT,
        "what": one_of(("create", "update")),
        "kind": one_of(RecordKind),
        "target": {**TEXT, "description": "whom or what it is about"},
        "state": one_of(EffectState),
        "record": {**TEXT, "description": "the system's id of it; empty while it is not known"},
        "system": TEXT,
        "simulated": FLAG,
        "error": or_null(ERROR),
        "created_at": TIME,
        "updated_at": TIME,
    }
)
RECORD = object_of(
    {
        "kind": one_of(RecordKind),
        "id": TEXT,
        "fields": TEXTS,
        "properties": TEXTS,
        "url": TEXT,
        "created_at": or_null(TIME),
        "updated_at": or_null(TIME),
    }
)

SUMMARIES: dict[str, str] = {
    "integration": "callboard integration add, rotate, enable, disable, prefer, remove",
    "integrations": "callboard integration list",
    "integration-test": "callboard integration test",
    "adapters": "callboard integration adapters",
    "partners": "callboard integration partners",
    "availability": "callboard booking availability",
    "booking": "callboard booking reserve, appointment, cancel, settle",
    "bookings": "callboard booking list",
    "execution": "callboard booking execute",
    "booking-action": "callboard booking settle, of an order that is no booking",
    "booking-actions": "callboard booking list --actions",
    "crm-record": "callboard crm contact, deal, note",
    "crm-records": "callboard crm search",
    "crm-change": "callboard crm settle",
    "crm-changes": "callboard crm list",
}
EARLIER: dict[str, Schema] = {
    "degraded": {**TEXT, "description": "why it is an earlier answer, and from when; empty when it is not"},
    "age_seconds": or_null({**COUNT, "description": "of an earlier answer; null when it was just asked for"}),
}
SCHEMAS: dict[str, Schema] = {
    "integration": object_of({"integration": INTEGRATION}),
    "integrations": object_of({"integrations": list_of(INTEGRATION)}),
    "integration-test": object_of({"checks": list_of(CHECK)}),
    "adapters": object_of({"adapters": list_of(ADAPTER)}),
    "partners": object_of(
        {"partners": list_of(PARTNER), "problems": list_of(object_of({"message": TEXT, "advice": TEXT}))}
    ),
    "availability": object_of({"company": TEXT, "partner": TEXT, **EARLIER, "slots": list_of(SLOT)}),
    "booking": object_of({"booking": BOOKING}),
    "bookings": object_of({"bookings": list_of(BOOKING)}),
    "execution": object_of({"execution": EXECUTION}),
    "booking-action": object_of({"action": ACTION}),
    "booking-actions": object_of({"actions": list_of(ACTION)}),
    "crm-record": object_of({"record": WRITTEN}),
    "crm-records": object_of(
        {
            "system": TEXT,
            "simulated": FLAG,
            "total": or_null(COUNT),
            "after": {**TEXT, "description": "give it as --after for the next page; empty at the end"},
            **EARLIER,
            "records": list_of(RECORD),
        }
    ),
    "crm-change": object_of({"change": CHANGE}),
    "crm-changes": object_of({"changes": list_of(CHANGE)}),
}
