"""Decisions as stored, and how they went lately."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import delete
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from services.integrations.llm.model import DecisionRow, DecisionSource
from services.model import ErrorInfo
from services.storage.tables import Agent, Company, LlmDecision

DAY_MS: Final = 86_400_000
KEPT_MS: Final = 180 * DAY_MS
"""Decisions older than this are deleted when a new one is written."""
_MOST_COUNTED: Final = 50_000


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers of the decisions of one day back and of today."""

    decisions: int
    by_model: int
    by_rules: int
    p95_ms: int | None
    tokens_today: int
    cost_today: dict[str, float]
    cost_unknown_today: int


def add(session: Session, row: LlmDecision) -> None:
    """Store one, and let go of very old ones."""
    session.execute(delete(LlmDecision).where(col(LlmDecision.at) < row.at - KEPT_MS))
    session.add(row)


def latest(session: Session, company_id: int | None, limit: int) -> list[DecisionRow]:
    """Newest first; `company_id` None for every company."""
    query = (
        select(LlmDecision, Company.name, Agent.remote_id)
        .join(Company, col(Company.id) == col(LlmDecision.company_id), isouter=True)
        .join(Agent, col(Agent.id) == col(LlmDecision.agent_row), isouter=True)
        .order_by(col(LlmDecision.at).desc(), col(LlmDecision.id))
        .limit(limit)
    )
    if company_id is not None:
        query = query.where(LlmDecision.company_id == company_id)
    return [as_row(row, company or "", agent_id or "") for row, company, agent_id in session.execute(query)]


def as_row(row: LlmDecision, company: str, agent_id: str) -> DecisionRow:
    """A row for those outside."""
    error = None
    if row.error_message is not None:
        error = ErrorInfo(row.error_category or "permanent", row.error_message, row.error_advice or "")
    return DecisionRow(
        id=row.id,
        company=company,
        at=row.at,
        actor=row.actor,
        request=row.request,
        agent_row=row.agent_row,
        agent_name=row.agent_name,
        agent_id=agent_id,
        reason=row.reason,
        confidence=row.confidence,
        source=DecisionSource(row.source),
        model=row.model,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        cost=row.cost,
        currency=row.currency,
        took_ms=row.took_ms,
        simulated=row.simulated,
        error=error,
    )


def tally(session: Session, company_id: int | None, now: int, timezone: str) -> Tally:
    """The decisions of the last 24 hours, and what was spent since midnight in the time zone."""
    today = midnight(now, timezone)
    query = (
        select_columns(
            col(LlmDecision.at),
            col(LlmDecision.source),
            col(LlmDecision.took_ms),
            col(LlmDecision.tokens_in),
            col(LlmDecision.tokens_out),
            col(LlmDecision.cost),
            col(LlmDecision.currency),
            col(LlmDecision.model),
        )
        .where(col(LlmDecision.at) > now - DAY_MS)
        .order_by(col(LlmDecision.at).desc())
        .limit(_MOST_COUNTED)
    )
    if company_id is not None:
        query = query.where(col(LlmDecision.company_id) == company_id)
    counts = dict.fromkeys(DecisionSource, 0)
    took: list[int] = []
    tokens = unknown = 0
    cost: dict[str, float] = {}
    for at, source, took_ms, tokens_in, tokens_out, spent, currency, model in session.execute(query).all():
        counts[DecisionSource(source)] += 1
        took.append(took_ms)
        if at >= today:
            tokens += (tokens_in or 0) + (tokens_out or 0)
            if spent is not None:
                cost[currency] = cost.get(currency, 0.0) + spent
            elif model:
                unknown += 1
    return Tally(
        sum(counts.values()),
        counts[DecisionSource.MODEL],
        counts[DecisionSource.RULES],
        percentile(took, 95),
        tokens,
        {name: round(value, 9) for name, value in sorted(cost.items())},
        unknown,
    )


def midnight(now: int, timezone: str) -> int:
    """When the day of `now` began in a time zone, both in epoch milliseconds."""
    moment = datetime.fromtimestamp(now / 1000, tz=ZoneInfo(timezone))
    return int(moment.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)


def percentile(values: Iterable[int], percent: int) -> int | None:
    """The smallest value that this share of all does not exceed; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
