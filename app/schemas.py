"""The contracts of `--json`: JSON Schemas (2020-12) as data, by kind.

Adding a member keeps a contract's number; taking one away or changing its meaning raises it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.calls.model import CallState, EndReason, TransportKind
from services.errors import Category
from services.model import Drift, Outcome, Provider, RunStatus, SyncStatus

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
    "description": "ISO 8601, UTC, with milliseconds",
}


def _one_of(values: Iterable[str]) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def _object(members: dict[str, Schema], *, description: str = "") -> Schema:
    """An object that has all these members. Others are allowed: contracts grow."""
    schema: Schema = {"type": "object", "properties": members, "required": list(members)}
    return {**schema, "description": description} if description else schema


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


PROVIDER = _one_of(Provider)
ERROR = _object(
    {"category": _one_of(Category), "message": TEXT, "advice": TEXT},
    description="what happened and why, and what to do about it",
)
COUNTS = _object({outcome.value: COUNT for outcome in Outcome}, description="how many agents by outcome")
OUTCOME = _object(
    {
        "company": TEXT,
        "provider": PROVIDER,
        "agent_id": TEXT,
        "name": TEXT,
        "outcome": _one_of(Outcome),
        "error": _or_null(ERROR),
    }
)
AGENT = _object(
    {
        "id": {"type": "integer", "description": "the mirror's own id"},
        "company": TEXT,
        "provider": PROVIDER,
        "agent_id": {**TEXT, "description": "the vendor's id"},
        "name": TEXT,
        "status": _one_of(SyncStatus),
        "drift": _one_of(Drift),
        "release": TEXT,
        "voice": TEXT,
        "language": TEXT,
        "model": TEXT,
        "function_count": _or_null(COUNT),
        "checked_at": _or_null(TIME),
        "changed_at": _or_null(TIME),
        "gone_at": _or_null(TIME),
        "stale": {**FLAG, "description": "not checked for longer than the setting stale_after, or never"},
        "error": _or_null(ERROR),
    }
)
BUNDLE = _object(
    {
        "digest": TEXT,
        "stored_at": _or_null(TIME),
        "parts": _list(_object({"kind": TEXT, "id": TEXT, "bytes": COUNT})),
    }
)
EVENT = _object(
    {
        "at": TIME,
        "outcome": _one_of(Outcome),
        "cause": TEXT,
        "detail": TEXT,
        "run_id": TEXT,
        "error": _or_null(ERROR),
    }
)
COMPANY = _object(
    {
        "name": TEXT,
        "created_at": TIME,
        "connections": COUNT,
        "agents": COUNT,
        "keep_audio": {**FLAG, "description": "recordings of its calls keep the audio"},
        "keep_transcript": {**FLAG, "description": "recordings of its calls keep what was said"},
    }
)
CONNECTION = _object(
    {
        "company": TEXT,
        "provider": PROVIDER,
        "base_url": TEXT,
        "residency": TEXT,
        "created_at": TIME,
        "last_sync_at": _or_null(TIME),
        "agents": COUNT,
    }
)
CHECK = _object(
    {
        "company": TEXT,
        "provider": PROVIDER,
        "ok": FLAG,
        "code": {**TEXT, "description": "ok, wrong_key, missing_permission, unreachable, …"},
        "account": TEXT,
        "took_ms": COUNT,
        "error": _or_null(ERROR),
    }
)
RUN = _object(
    {
        "run_id": TEXT,
        "scope": TEXT,
        "cause": TEXT,
        "actor": TEXT,
        "forced": FLAG,
        "status": _one_of(RunStatus),
        "started_at": TIME,
        "ended_at": _or_null(TIME),
        "counts": {"type": "object", "additionalProperties": COUNT},
        "requests": COUNT,
        "message": TEXT,
    }
)
AUDIT = _object({"at": TIME, "actor": TEXT, "action": TEXT, "subject": TEXT, "detail": TEXT})
CALL = _object(
    {
        "id": TEXT,
        "company": TEXT,
        "provider": TEXT,
        "agent_id": {**TEXT, "description": "the vendor's id"},
        "agent": TEXT,
        "transport": _one_of(TransportKind),
        "state": _one_of(CallState),
        "started_at": TIME,
        "ended_at": _or_null(TIME),
        "duration_ms": _or_null(
            {**COUNT, "description": "from the moment it was live; null when it never was"}
        ),
        "reason": _or_null(_one_of(EndReason)),
        "detail": TEXT,
        "turns": {**COUNT, "description": "answers of the agent"},
        "p50_ms": _or_null({**COUNT, "description": "from the end of the user's turn to the answer, median"}),
        "p95_ms": _or_null(COUNT),
        "cost": _or_null({"type": "number"}),
        "currency": TEXT,
        "conversation_id": TEXT,
        "number": TEXT,
        "simulated": FLAG,
        "folder": {**TEXT, "description": "the recording"},
    }
)
PHONE = _object(
    {
        "company": TEXT,
        "account_sid": _or_null({**TEXT, "description": "Twilio's; null without an account"}),
        "base_url": _or_null(TEXT),
        "allowed": {
            **_list(TEXT),
            "description": "numbers, or beginnings with a *; empty: every call is asked about",
        },
    }
)
LINE = _object({"t": COUNT, "who": TEXT, "text": TEXT}, description="a line of a transcript; t in ms")
MIRROR_AGE = _or_null(
    {**COUNT, "description": "milliseconds since the last sync ended; null when there was none"}
)

SERVE_EVENT: Schema = {
    **_object({"event": _one_of(("started", "role", "run", "problem", "stopped")), "at": TIME}),
    "description": "what else it has depends on `event`",
    "oneOf": [
        _object(
            {
                "event": {"const": "started"},
                "log": {**TEXT, "description": "the file that has the detail of every failure"},
                "schedules": _list(_object({"cause": TEXT, "forced": FLAG, "next_at": TIME})),
            }
        ),
        _object(
            {"event": {"const": "role"}, "active": {**FLAG, "description": "this process runs the schedule"}}
        ),
        _object(
            {
                "event": {"const": "run"},
                "cause": TEXT,
                "due_at": TIME,
                "status": {"anyOf": [_one_of(RunStatus), {"type": "null"}]},
                "run_id": _or_null(TEXT),
                "counts": _or_null(COUNTS),
                "requests": _or_null(COUNT),
                "duration_ms": _or_null(COUNT),
                "result": {**TEXT, "description": "how it ended, in words"},
                "next_at": _or_null(TIME),
            }
        ),
        _object({"event": {"const": "problem"}, "error": _or_null(ERROR)}),
        _object({"event": {"const": "stopped"}}),
    ],
}
SCENARIO_STATUS = _one_of(("passed", "failed", "error"))
SCENARIO_TEST = _object(
    {
        "suite": TEXT,
        "file": TEXT,
        "name": TEXT,
        "agent": TEXT,
        "transport": _one_of((TransportKind.MOCK, TransportKind.TEXT)),
        "status": SCENARIO_STATUS,
        "hold": {**COUNT, "description": "how many of its conversations must hold"},
        "took_ms": COUNT,
        "p50_ms": _or_null(COUNT),
        "p95_ms": _or_null(COUNT),
        "runs": _list(
            _object(
                {
                    "number": COUNT,
                    "status": SCENARIO_STATUS,
                    "took_ms": COUNT,
                    "end": TEXT,
                    "problems": _list(TEXT),
                    "advice": TEXT,
                    "steps": _list(
                        _object(
                            {
                                "said": TEXT,
                                "replies": _list(TEXT),
                                "latency_ms": _or_null(COUNT),
                                "checks": _list(_object({"what": TEXT, "ok": FLAG, "detail": TEXT})),
                            }
                        )
                    ),
                    "transcript": _list(TEXT),
                }
            )
        ),
    }
)
SUMMARIES: dict[str, str] = {
    "sync": "callboard sync",
    "agents": "callboard agents list",
    "agent": "callboard agents show AGENT",
    "company": "callboard company add, callboard company remove",
    "companies": "callboard company list",
    "connection": "callboard connection add, rotate, remove",
    "connections": "callboard connection list",
    "connection-test": "callboard connection test",
    "phone": "callboard phone set, show, remove, allow, disallow",
    "phone-test": "callboard phone test",
    "phone-numbers": "callboard phone numbers",
    "calls": "callboard calls list",
    "call": "callboard calls show CALL",
    "call-event": "callboard call --json, one object a line",
    "call-check": "callboard call --check --json",
    "devices": "callboard call --list-devices --json",
    "scenarios": "callboard scenarios run",
    "scenario-check": "callboard scenarios check",
    "runs": "callboard runs",
    "run": "callboard runs RUN",
    "audit": "callboard audit",
    "doctor": "callboard doctor",
    "serve-event": "callboard serve, one object a line",
    "config": "callboard config show, callboard config validate",
    "error": "any command that could not do its work",
}
SCHEMAS: dict[str, Schema] = {
    "sync": _object(
        {
            "run_id": TEXT,
            "status": _one_of(RunStatus),
            "agents": _list(OUTCOME),
            "counts": COUNTS,
            "requests": COUNT,
            "duration_ms": COUNT,
            "dry_run": FLAG,
            "connections_failed": _list(
                _object({"company": TEXT, "provider": PROVIDER, "error": _or_null(ERROR)})
            ),
        }
    ),
    "agents": _object({"mirror_age_ms": MIRROR_AGE, "agents": _list(AGENT)}),
    "agent": _object(
        {"mirror_age_ms": MIRROR_AGE, "agent": AGENT, "bundle": _or_null(BUNDLE), "history": _list(EVENT)}
    ),
    "company": _object({"company": COMPANY}),
    "companies": _object({"companies": _list(COMPANY)}),
    "connection": _object({"connection": CONNECTION}),
    "connections": _object({"connections": _list(CONNECTION)}),
    "connection-test": _object({"checks": _list(CHECK)}),
    "phone": _object({"phone": PHONE}),
    "phone-test": _object({"company": TEXT, "account": TEXT, "status": TEXT}),
    "phone-numbers": _object({"company": TEXT, "numbers": _list(TEXT)}),
    "calls": _object({"calls": _list(CALL)}),
    "call": _object(
        {
            "call": _object(
                {
                    **CALL["properties"],
                    "brief": {"type": "object"},
                    "transcript": _list(LINE),
                    "latencies": _list(_object({"turn": COUNT, "t": COUNT, "ms": COUNT})),
                    "events": _list(_object({"t": COUNT, "kind": TEXT})),
                }
            )
        }
    ),
    "call-event": _object(
        {
            "call": {**TEXT, "description": "the call's id"},
            "t": {"type": ["integer", "null"], "description": "milliseconds since the call's start"},
            "kind": {**TEXT, "description": "call first, summary last, between them what happens"},
        }
    ),
    "call-check": _object(
        {
            "parts": _list(
                _object(
                    {"name": TEXT, "size": COUNT, "use": _one_of(("used", "ignored", "refused")), "why": TEXT}
                )
            ),
            "refused": FLAG,
            "warnings": _list(TEXT),
        }
    ),
    "devices": _object(
        {
            "devices": _list(
                _object({"id": TEXT, "name": TEXT, "inputs": COUNT, "outputs": COUNT, "rate": COUNT})
            )
        }
    ),
    "scenarios": _object(
        {
            "counts": _object({"passed": COUNT, "failed": COUNT, "error": COUNT, "total": COUNT}),
            "judge": {**TEXT, "description": "what compared meanings"},
            "tests": _list(SCENARIO_TEST),
        }
    ),
    "scenario-check": _object(
        {
            "files": _list(
                _object(
                    {
                        "file": TEXT,
                        "kind": _one_of(("suite", "scenario", "")),
                        "tests": COUNT,
                        "problem": {**TEXT, "description": "empty when the file is right"},
                    }
                )
            )
        }
    ),
    "runs": _object({"runs": _list(RUN)}),
    "run": _object({"run": RUN, "agents": _list(OUTCOME)}),
    "audit": _object({"entries": _list(AUDIT)}),
    "doctor": _object(
        {
            "status": TEXT,
            "findings": _list(_object({"name": TEXT, "status": TEXT, "found": TEXT, "advice": TEXT})),
        }
    ),
    "serve-event": SERVE_EVENT,
    "config": _object({"file": TEXT, "problems": _list(_object({"message": TEXT, "advice": TEXT}))}),
    "error": _object(
        {
            "error": _object({**ERROR["properties"], "code": TEXT}),
            "exit_code": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
        }
    ),
}


def document(kind: str) -> Schema:
    """The whole schema of one kind, its version among the required members. Raises KeyError."""
    schema = SCHEMAS[kind]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"callboard.{kind}/1",
        "description": f"printed by: {SUMMARIES[kind]}",
        "type": "object",
        "properties": {"schema": {"const": f"callboard.{kind}/1"}, **schema["properties"]},
        "required": ["schema", *schema["required"]],
    }
