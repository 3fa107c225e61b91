"""What a sync run reports: planned and predicted outcomes, the status, the failure inside groups."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from services.agents.plan import Action, Step
from services.errors import ServiceError
from services.model import ConnectionInfo, Outcome, OutcomeRow, RunStatus

log = logging.getLogger("callboard.sync")


def planned(connection: ConnectionInfo, step: Step, outcome: Outcome) -> OutcomeRow:
    return OutcomeRow(
        company=connection.company,
        provider=connection.provider,
        agent_id=step.remote_id,
        name=step.name,
        outcome=outcome,
        agent_row=step.mirrored.id if step.mirrored else None,
        detail=step.reason,
    )


def predicted(connection: ConnectionInfo, step: Step) -> OutcomeRow:
    """What a dry run says: the outcome the list already decides; a read may still find nothing new."""
    if step.action is Action.GONE:
        outcome = Outcome.GONE
    elif step.mirrored is None:
        outcome = Outcome.CREATED
    elif step.reason == "changed at the vendor":
        outcome = Outcome.UPDATED
    else:
        outcome = Outcome.UNCHANGED
    detail = f"would be read: {step.reason}" if step.action is Action.READ else step.reason
    row = planned(connection, step, outcome)
    return OutcomeRow(
        row.company, row.provider, row.agent_id, row.name, outcome, agent_row=row.agent_row, detail=detail
    )


def status_of(
    outcomes: Sequence[OutcomeRow], errors: Sequence[OutcomeRow], *, cancelled: bool, failed: bool
) -> RunStatus:
    if cancelled:
        return RunStatus.CANCELLED
    if failed:
        return RunStatus.FAILED
    bad = sum(row.outcome is Outcome.FAILED for row in outcomes)
    if not bad and not errors:
        return RunStatus.DONE
    return RunStatus.FAILED if bad == len(outcomes) else RunStatus.PARTIAL


def first_failure(found: BaseException | None) -> Exception | None:
    """The failure inside the groups that task groups wrap it in; one with a cause in words first."""
    if isinstance(found, BaseExceptionGroup):
        inner = [one for one in map(first_failure, found.exceptions) if one is not None]
        return next((one for one in inner if isinstance(one, ServiceError)), inner[0] if inner else None)
    return found if isinstance(found, Exception) else None


def log_failure(run_id: str, connection: ConnectionInfo, remote_id: str, error: ServiceError) -> None:
    log.warning(
        "run %s: %s, %s%s: %s (%s%s). %s",
        run_id,
        connection.company,
        connection.provider,
        f", agent {remote_id}" if remote_id else "",
        error.message,
        error.category.value,
        f", {error.code}" if error.code else "",
        error.advice,
    )
