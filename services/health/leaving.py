"""What goes with a company that is removed: its maintenance windows, and the rules of its checks.

Both are kept by name and id, not by the company's row: another company of the same name would inherit them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlmodel import Session, col, select

from services.clock import Clock
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Agent, Company, Connection, HealthRule, Integration, MaintenanceWindow


async def forget_company(
    open_database: Callable[[], Awaitable[Database]], clock: Clock, name: str, actor: str
) -> tuple[int, int]:
    """Delete them while the company and its agents are still there; how many windows and rules it were."""
    now = clock.now()
    return await (await open_database()).write(lambda session: _forget(session, name, now, actor))


def _forget(session: Session, name: str, now: int, actor: str) -> tuple[int, int]:
    folded = name.strip().casefold()
    company = next((row for row in session.exec(select(Company)) if row.name.casefold() == folded), None)
    if company is None:
        return 0, 0
    checks = _checks(session, company)
    scope = f"company:{company.name}".casefold()
    windows = [
        row
        for row in session.exec(select(MaintenanceWindow))
        if row.scope in checks or row.scope.casefold() == scope
    ]
    rules = session.exec(select(HealthRule).where(col(HealthRule.check_id).in_(checks))).all()
    for row in (*windows, *rules):
        session.delete(row)
    if windows or rules:
        record(
            session,
            at=now,
            actor=actor,
            action="health.forget",
            subject=company.name,
            cause="the company is removed",
            after={"maintenance": len(windows), "rules": len(rules)},
        )
    return len(windows), len(rules)


def _checks(session: Session, company: Company) -> set[str]:
    """The ids of the checks of what is the company's own."""
    connections = session.exec(select(Connection).where(Connection.company_id == company.id)).all()
    agents = select(Agent.id).where(col(Agent.connection_id).in_([row.id for row in connections]))
    integrations = select(Integration.id).where(Integration.company_id == company.id)
    return {
        *(f"provider:{company.name}/{row.provider}" for row in connections),
        *(f"agent:{number}" for number in session.exec(agents)),
        *(f"integration:{number}" for number in session.exec(integrations)),
    }
