"""The contracts of agents, syncs, companies, calls and the program itself."""

from __future__ import annotations

from app.schemas.shapes import COUNT, ERROR, FLAG, TEXT, TIME, Schema, list_of, object_of, one_of, or_null
from services.calls.model import CallState, EndReason, TransportKind
from services.model import Drift, Outcome, Provider, RunStatus, SyncStatus

PROVIDER = one_of(Provider)
COUNTS = object_of({outcome.value: COUNT for outcome in Outcome}, description="how many agents by outcome")
OUTCOME = object_of(
    {
        "company": TEXT,
        "provider": PROVIDER,
        "agent_id": TEXT,
        "name": TEXT,
        "outcome": one_of(Outcome),
        "error": or_null(ERROR),
    }
)
AGENT = object_of(
    {
        "id": {"type": "integer", "description": "the mirror's own id"},
        "company": TEXT,
        "provider": PROVIDER,
        "agent_id": {**TEXT, "description": "the vendor's id"},
        "name": TEXT,
        "status": one_of(SyncStatus),
        "drift": one_of(Drift),
        "release": TEXT,
        "voice": TEXT,
        "language": TEXT,
        "model": TEXT,
        "function_count": or_null(COUNT),
        "checked_at": or_null(TIME),
        "changed_at": or_null(TIME),
        "gone_at": or_null(TIME),
        "stale": {**FLAG, "description": "not checked for longer than the setting stale_after, or never"},
        "error": or_null(ERROR),
    }
)
BUNDLE = object_of(
    {
        "digest": TEXT,
        "stored_at": or_null(TIME),
        "parts": list_of(object_of({"kind": TEXT, "id": TEXT, "bytes": COUNT})),
    }
)
EVENT = object_of(
    {
        "at": TIME,
        "outcome": one_of(Outcome),
        "cause": TEXT,
        "detail": TEXT,
        "run_id": TEXT,
        "error": or_null(ERROR),
    }
)
COMPANY = object_of(
    {
        "name": TEXT,
        "created_at": TIME,
        "connections": COUNT,
        "agents": COUNT,
        "keep_audio": {**FLAG, "description": "recordings of its calls keep the audio"},
        "keep_transcript": {**FLAG, "description": "recordings of its calls keep what was said"},
    }
)
CONNECTION = object_of(
    {
        "company": TEXT,
        "provider": PROVIDER,
        "base_url": TEXT,
        "residency": TEXT,
        "created_at": TIME,
        "last_sync_at": or_null(TIME),
        "agents": COUNT,
    }
)
CHECK = object_of(
    {
        "company": TEXT,
        "provider": PROVIDER,
        "ok": FLAG,
        "code": {**TEXT, "description": "ok, wrong_key, missing_permission, unreachable, …"},
        "account": TEXT,
        "took_ms": COUNT,
        "error": or_null(ERROR),
    }
)
RUN = object_of(
    {
        "run_id": TEXT,
        "scope": TEXT,
        "cause": TEXT,
        "actor": TEXT,
        "forced": FLAG,
        "status": one_of(RunStatus),
        "started_at": TIME,
        "ended_at": or_null(TIME),
        "counts": {"type": "object", "additionalProperties": COUNT},
        "requests": COUNT,
        "message": TEXT,
    }
)
AUDIT = object_of({"at": TIME, "actor": TEXT, "action": TEXT, "subject": TEXT, "detail": TEXT})
CALL = object_of(
    {
        "id": TEXT,
        "company": TEXT,
        "provider": TEXT,
        "agent_id": {**TEXT, "description": "the vendor's id"},
        "agent": TEXT,
        "transport": one_of(TransportKind),
        "state": one_of(CallState),
        "started_at": TIME,
        "ended_at": or_null(TIME),
        "duration_ms": or_null(
            {**COUNT, "description": "from the moment it was live; null when it never was"}
        ),
        "reason": or_null(one_of(EndReason)),
        "detail": TEXT,
        "turns": {**COUNT, "description": "answers of the agent"},
        "p50_ms": or_null({**COUNT, "description": "from the end of the user's turn to the answer, median"}),
        "p95_ms": or_null(COUNT),
        "cost": or_null({"type": "number"}),
        "currency": TEXT,
        "conversation_id": TEXT,
        "number": TEXT,
        "simulated": FLAG,
        "folder": {**TEXT, "description": "the recording"},
    }
)
PHONE = object_of(
    {
        "company": TEXT,
        "account_sid": or_null({**TEXT, "description": "Twilio's; null without an account"}),
        "base_url": or_null(TEXT),
        "allowed": {
            **list_of(TEXT),
            "description": "numbers, or beginnings with a *; empty: every call is asked about",
        },
    }
)
LINE = object_of({"t": COUNT, "who": TEXT, "text": TEXT}, description="a line of a transcript; t in ms")
MIRROR_AGE = or_null(
    {**COUNT, "description": "milliseconds since the last sync ended; null when there was none"}
)

SERVE_EVENT: Schema = {
    **object_of({"event": one_of(("started", "listening", "role", "run", "problem", "stopped")), "at": TIME}),
    "description": "what else it has depends on `event`",
    "oneOf": [
        object_of(
            {
                "event": {"const": "started"},
                "log": {**TEXT, "description": "the file that has the detail of every failure"},
                "schedules": list_of(object_of({"cause": TEXT, "forced": FLAG, "next_at": TIME})),
            }
        ),
        object_of(
            {
                "event": {"const": "listening"},
                "urls": list_of({**TEXT, "description": "where the HTTP API is, one for each address"}),
                "token": {**FLAG, "description": "a token is set; without one only up or down is told"},
            }
        ),
        object_of(
            {"event": {"const": "role"}, "active": {**FLAG, "description": "this process runs the schedule"}}
        ),
        object_of(
            {
                "event": {"const": "run"},
                "cause": TEXT,
                "due_at": TIME,
                "status": {"anyOf": [one_of(RunStatus), {"type": "null"}]},
                "run_id": or_null(TEXT),
                "counts": or_null(COUNTS),
                "requests": or_null(COUNT),
                "duration_ms": or_null(COUNT),
                "result": {**TEXT, "description": "how it ended, in words"},
                "next_at": or_null(TIME),
            }
        ),
        object_of({"event": {"const": "problem"}, "error": or_null(ERROR)}),
        object_of({"event": {"const": "stopped"}}),
    ],
}
SCENARIO_STATUS = one_of(("passed", "failed", "error"))
SCENARIO_TEST = object_of(
    {
        "suite": TEXT,
        "file": TEXT,
        "name": TEXT,
        "agent": TEXT,
        "transport": one_of((TransportKind.MOCK, TransportKind.TEXT)),
        "status": SCENARIO_STATUS,
        "hold": {**COUNT, "description": "how many of its conversations must hold"},
        "took_ms": COUNT,
        "p50_ms": or_null(COUNT),
        "p95_ms": or_null(COUNT),
        "runs": list_of(
            object_of(
                {
                    "number": COUNT,
                    "status": SCENARIO_STATUS,
                    "took_ms": COUNT,
                    "end": TEXT,
                    "problems": list_of(TEXT),
                    "advice": TEXT,
                    "steps": list_of(
                        object_of(
                            {
                                "said": TEXT,
                                "replies": list_of(TEXT),
                                "latency_ms": or_null(COUNT),
                                "checks": list_of(object_of({"what": TEXT, "ok": FLAG, "detail": TEXT})),
                            }
                        )
                    ),
                    "transcript": list_of(TEXT),
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
    "sync": object_of(
        {
            "run_id": TEXT,
            "status": one_of(RunStatus),
            "agents": list_of(OUTCOME),
            "counts": COUNTS,
            "requests": COUNT,
            "duration_ms": COUNT,
            "dry_run": FLAG,
            "connections_failed": list_of(
                object_of({"company": TEXT, "provider": PROVIDER, "error": or_null(ERROR)})
            ),
        }
    ),
    "agents": object_of({"mirror_age_ms": MIRROR_AGE, "agents": list_of(AGENT)}),
    "agent": object_of(
        {"mirror_age_ms": MIRROR_AGE, "agent": AGENT, "bundle": or_null(BUNDLE), "history": list_of(EVENT)}
    ),
    "company": object_of({"company": COMPANY}),
    "companies": object_of({"companies": list_of(COMPANY)}),
    "connection": object_of({"connection": CONNECTION}),
    "connections": object_of({"connections": list_of(CONNECTION)}),
    "connection-test": object_of({"checks": list_of(CHECK)}),
    "phone": object_of({"phone": PHONE}),
    "phone-test": object_of({"company": TEXT, "account": TEXT, "status": TEXT}),
    "phone-numbers": object_of({"company": TEXT, "numbers": list_of(TEXT)}),
    "calls": object_of({"calls": list_of(CALL)}),
    "call": object_of(
        {
            "call": object_of(
                {
                    **CALL["properties"],
                    "brief": {"type": "object"},
                    "transcript": list_of(LINE),
                    "latencies": list_of(object_of({"turn": COUNT, "t": COUNT, "ms": COUNT})),
                    "events": list_of(object_of({"t": COUNT, "kind": TEXT})),
                }
            )
        }
    ),
    "call-event": object_of(
        {
            "call": {**TEXT, "description": "the call's id"},
            "t": {"type": ["integer", "null"], "description": "milliseconds since the call's start"},
            "kind": {**TEXT, "description": "call first, summary last, between them what happens"},
        }
    ),
    "call-check": object_of(
        {
            "parts": list_of(
                object_of(
                    {"name": TEXT, "size": COUNT, "use": one_of(("used", "ignored", "refused")), "why": TEXT}
                )
            ),
            "refused": FLAG,
            "warnings": list_of(TEXT),
        }
    ),
    "devices": object_of(
        {
            "devices": list_of(
                object_of({"id": TEXT, "name": TEXT, "inputs": COUNT, "outputs": COUNT, "rate": COUNT})
            )
        }
    ),
    "scenarios": object_of(
        {
            "counts": object_of({"passed": COUNT, "failed": COUNT, "error": COUNT, "total": COUNT}),
            "judge": {**TEXT, "description": "what compared meanings"},
            "tests": list_of(SCENARIO_TEST),
        }
    ),
    "scenario-check": object_of(
        {
            "files": list_of(
                object_of(
                    {
                        "file": TEXT,
                        "kind": one_of(("suite", "scenario", "")),
                        "tests": COUNT,
                        "problem": {**TEXT, "description": "empty when the file is right"},
                    }
                )
            )
        }
    ),
    "runs": object_of({"runs": list_of(RUN)}),
    "run": object_of({"run": RUN, "agents": list_of(OUTCOME)}),
    "audit": object_of({"entries": list_of(AUDIT)}),
    "doctor": object_of(
        {
            "status": TEXT,
            "findings": list_of(object_of({"name": TEXT, "status": TEXT, "found": TEXT, "advice": TEXT})),
        }
    ),
    "serve-event": SERVE_EVENT,
    "config": object_of({"file": TEXT, "problems": list_of(object_of({"message": TEXT, "advice": TEXT}))}),
    "error": object_of(
        {
            "error": object_of({**ERROR["properties"], "code": TEXT}),
            "exit_code": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
        }
    ),
}
