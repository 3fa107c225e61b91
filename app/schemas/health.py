"""The contracts of `callboard health`."""

from __future__ import annotations

from app.schemas.shapes import COUNT, FLAG, TEXT, TIME, Schema, list_of, object_of, one_of, or_null
from services.health.model import CheckKind, HealthState, Overall
from services.resilience import BreakerState, Level

STATE = one_of(HealthState)
MILLISECONDS: Schema = {"type": "number", "minimum": 0}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
SECONDS: Schema = {"type": "number", "minimum": 0, "description": "seconds"}
BREAKER = object_of(
    {
        "state": one_of(BreakerState),
        "failures": COUNT,
        "reopens_in": SECONDS,
        "shared": FLAG,
        "degraded": {**FLAG, "description": "shared, but the store is lost: this process counts alone"},
    }
)
BUDGET = object_of(
    {
        "level": one_of(Level),
        "window": TEXT,
        "limit": COUNT,
        "used": COUNT,
        "remaining": COUNT,
        "frees_in": SECONDS,
    }
)
LAST_ERROR = object_of({"message": TEXT, "advice": TEXT, "at": or_null(TIME)})
CHECK = object_of(
    {
        "id": {**TEXT, "description": "stable, made of words: provider:acme/retell, system:database"},
        "kind": one_of(CheckKind),
        "name": TEXT,
        "company": TEXT,
        "state": STATE,
        "since": or_null(TIME),
        "checked_at": or_null(TIME),
        "next_at": or_null(TIME),
        "message": TEXT,
        "advice": TEXT,
        "category": TEXT,
        "took_ms": or_null(MILLISECONDS),
        "facts": list_of(object_of({"label": TEXT, "value": TEXT})),
        "simulated": FLAG,
        "failures": {**COUNT, "description": "failed probes in a row"},
        "failure_threshold": COUNT,
        "critical": {**FLAG, "description": "the whole is unhealthy while it is down"},
        "held_by": {**TEXT, "description": "what it waits for; its own state alerts nobody meanwhile"},
        "depends_on": list_of(TEXT),
        "dependents": COUNT,
        "uptime_24h": or_null(SHARE),
        "uptime_30d": or_null(SHARE),
        "p50_ms": or_null(MILLISECONDS),
        "p95_ms": or_null(MILLISECONDS),
        "breaker": or_null(BREAKER),
        "budgets": list_of(BUDGET),
        "maintenance_until": or_null(TIME),
        "last_error": or_null(LAST_ERROR),
    }
)
INCIDENT = object_of(
    {
        "id": COUNT,
        "check": TEXT,
        "name": TEXT,
        "kind": one_of(CheckKind),
        "state": {**STATE, "description": "the worst that it was"},
        "cause": {**TEXT, "description": "what it was held by; empty when it was to blame itself"},
        "message": TEXT,
        "advice": TEXT,
        "started_at": TIME,
        "ended_at": or_null(TIME),
        "alerted_at": or_null(TIME),
        "repeats_alert_at": {
            **or_null(TIME),
            "description": "the alert that one of this would have repeated too soon: nobody was told again",
        },
    }
)
WINDOW = object_of(
    {
        "id": COUNT,
        "scope": {**TEXT, "description": "a check's id, a kind, company:NAME or *"},
        "reason": TEXT,
        "timezone": TEXT,
        "starts_at": or_null(TIME),
        "ends_at": or_null(TIME),
        "cron": TEXT,
        "minutes": COUNT,
        "actor": TEXT,
    }
)
CHANNEL = object_of(
    {
        "id": COUNT,
        "kind": TEXT,
        "target": {**TEXT, "description": "without what is secret of it"},
        "company": TEXT,
        "least": STATE,
        "enabled": FLAG,
        "sent_at": or_null(TIME),
        "last_error": TEXT,
    }
)
RULE = object_of(
    {
        "check": TEXT,
        "enabled": FLAG,
        "interval_s": or_null(MILLISECONDS),
        "failure_threshold": or_null(COUNT),
        "slow_ms": {**or_null(MILLISECONDS), "description": "degraded from this time on; 0: never"},
    }
)
SUMMARIES: dict[str, str] = {
    "health": "callboard health",
    "health-event": "callboard health --watch, one object a line",
    "health-incidents": "callboard health incidents",
    "health-maintenance": "callboard health maintenance add, list, end",
    "health-alerts": "callboard health alerts add, list, remove, test",
    "health-rules": "callboard health rules list, set",
}
SCHEMAS: dict[str, Schema] = {
    "health": object_of(
        {
            "overall": one_of(Overall),
            "reason": {**TEXT, "description": "one sentence; empty when healthy"},
            "checked_at": or_null(TIME),
            "prober": {**TEXT, "description": "who probes for all; empty for nobody"},
            "checks": list_of(CHECK),
        }
    ),
    "health-event": object_of({"at": TIME, "overall": one_of(Overall), "reason": TEXT, "check": CHECK}),
    "health-incidents": object_of({"incidents": list_of(INCIDENT)}),
    "health-maintenance": object_of({"windows": list_of(WINDOW)}),
    "health-alerts": object_of({"channels": list_of(CHANNEL)}),
    "health-rules": object_of({"rules": list_of(RULE)}),
}
