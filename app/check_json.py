"""A check as JSON: the same on the command line and over HTTP. Times are ISO 8601 in UTC."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from app.output import iso
from services.health.model import CheckView
from services.security import redact

Document = dict[str, Any]


def check_document(check: CheckView) -> Document:
    """One check, without its history."""
    breaker = check.breaker
    return {
        "id": check.id,
        "kind": check.kind.value,
        "name": check.name,
        "company": check.company,
        "state": check.state.value,
        "since": iso(check.since),
        "checked_at": iso(check.checked_at),
        "next_at": iso(check.next_at),
        "message": masked(check.message),
        "advice": masked(check.advice),
        "category": check.category,
        "took_ms": _rounded(check.took_ms),
        "simulated": check.simulated,
        "failures": check.failures,
        "failure_threshold": check.failure_threshold,
        "held_by": check.held_by,
        "dependents": check.dependents,
        "critical": check.critical,
        "uptime_24h": check.uptime_24h,
        "uptime_30d": check.uptime_30d,
        "p50_ms": _rounded(check.p50_ms),
        "p95_ms": _rounded(check.p95_ms),
        "breaker": breaker
        and {
            "state": breaker.state.value,
            "failures": breaker.failures,
            "reopens_in": round(breaker.reopens_in, 1),
            "shared": breaker.shared,
            "degraded": breaker.degraded,
        },
        "budgets": [
            {
                "level": budget.level.value,
                "window": budget.window,
                "limit": budget.limit,
                "used": budget.used,
                "remaining": budget.remaining,
                "frees_in": round(budget.frees_in, 1),
            }
            for budget in check.budgets
        ],
        "maintenance_until": iso(check.maintenance_until),
        "last_error": {
            "message": masked(check.last_error),
            "advice": masked(check.last_error_advice),
            "at": iso(check.last_error_at),
        }
        if check.last_error
        else None,
    }


def facts(check: CheckView) -> list[Document]:
    """What was found out about it."""
    return [{"label": label, "value": masked(value)} for label, value in check.facts]


@lru_cache(maxsize=4096)
def masked(text: str) -> str:
    """What came from a vendor's answer may quote a key.

    Kept, as a thousand agents say the same few sentences: a key is known before a vendor can quote it.
    """
    return redact(text) if text else ""


def _rounded(value: float | None) -> float | None:
    """Milliseconds, to a tenth."""
    return None if value is None else round(value, 1)
