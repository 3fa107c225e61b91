"""What operators decide about checks: rules and maintenance windows, each change in the audit log."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from services.clock import Clock
from services.companies.service import actor as user
from services.errors import UsageError
from services.health import maintenance as windows
from services.health import store
from services.health.model import CheckSpec, Rule, RuleChanges, Window
from services.storage.journal import record
from services.storage.tables import HealthRule, MaintenanceWindow

if TYPE_CHECKING:
    from sqlmodel import Session

    from services.storage import Database


class HealthSettings:
    """Reads and writes the rules and the maintenance windows."""

    def __init__(self, open_database: Callable[[], Awaitable[Database]], clock: Clock) -> None:
        self._open_database = open_database
        self._clock = clock

    async def rules(self) -> list[Rule]:
        """By check."""
        found = await (await self._open_database()).read(store.rules)
        return sorted(found.values(), key=lambda rule: rule.check_id)

    async def change_rule(self, check_id: str, changes: RuleChanges, actor: str) -> Rule:
        """Change some of a check's rule; one that says nothing any more is taken away. Raises UsageError."""
        _check_rule(replace(Rule(check_id), **changes))
        now = self._clock.now()

        def write(session: Session) -> Rule:
            row = session.get(HealthRule, check_id)
            before = store.rule(row) if row is not None else Rule(check_id)
            rule = replace(before, **changes)
            if rule == before:
                return rule
            if rule == Rule(check_id):
                session.delete(row)
            else:
                row = row or HealthRule(check_id=check_id)
                row.enabled, row.interval_seconds = rule.enabled, rule.interval
                row.failure_threshold, row.slow_ms = rule.failure_threshold, rule.slow_ms
                session.add(row)
            record(
                session,
                at=now,
                actor=actor or user(),
                action="health.rule",
                subject=check_id,
                before=_changed(before, rule),
                after=_changed(rule, before),
            )
            return rule

        return await (await self._open_database()).write(write)

    async def maintenance(self) -> list[Window]:
        """Every window, oldest first."""
        return await (await self._open_database()).read(store.windows)

    async def add_maintenance(self, window: Window, specs: Iterable[CheckSpec]) -> Window:
        """Store one. Without a beginning it begins now; without an end it lasts `minutes`."""
        now = self._clock.now()
        if not window.cron:
            start = now if window.starts_at is None else window.starts_at
            end = window.ends_at
            if end is None and window.minutes:
                end = start + window.minutes * windows.MINUTE_MS
            window = replace(window, starts_at=start, ends_at=end, minutes=0)
            if end is not None and end <= now:
                raise UsageError("That maintenance window is over already", advice="give a later end")
        windows.check_scope(window.scope, specs)
        # A week of a line that is due each minute is looked through.
        await asyncio.to_thread(windows.validate, window)

        def write(session: Session) -> Window:
            row = MaintenanceWindow(
                scope=window.scope,
                reason=window.reason,
                timezone=window.timezone,
                starts_at=window.starts_at,
                ends_at=window.ends_at,
                cron=window.cron,
                minutes=window.minutes,
                actor=window.actor or user(),
                created_at=now,
            )
            session.add(row)
            after = {"cron": window.cron, "minutes": window.minutes, "zone": window.timezone}
            if not window.cron:
                after = {"from": window.starts_at or 0, "until": window.ends_at or 0}
            record(
                session,
                at=now,
                actor=window.actor or user(),
                action="health.maintenance",
                subject=window.scope,
                cause=window.reason,
                after=after,
            )
            session.flush()
            return store.window(row)

        return await (await self._open_database()).write(write)

    async def end_maintenance(self, window_id: int, actor: str) -> Window:
        """End one that runs now; forget one that has not begun or recurs. Raises UsageError."""
        now = self._clock.now()

        def write(session: Session) -> Window:
            row = session.get(MaintenanceWindow, window_id)
            if row is None or (row.ends_at is not None and row.ends_at <= now):
                raise UsageError(
                    f"There is no maintenance window {window_id} to end",
                    advice="list them with: callboard health maintenance list",
                    code="unknown_window",
                )
            found = store.window(row)
            record(
                session,
                at=now,
                actor=actor or user(),
                action="health.maintenance.end",
                subject=found.scope,
                cause=found.reason,
            )
            if not found.cron and (found.starts_at or 0) <= now:
                row.ends_at = now
                session.add(row)
                return replace(found, ends_at=now)
            session.delete(row)
            return found

        return await (await self._open_database()).write(write)


def _check_rule(rule: Rule) -> None:
    if rule.interval is not None and not 1 <= rule.interval <= 86_400:
        raise UsageError("A check is probed every 1 to 86,400 seconds", code="bad_rule")
    if rule.failure_threshold is not None and not 1 <= rule.failure_threshold <= 100:
        raise UsageError("A threshold is 1 to 100 failed probes in a row", code="bad_rule")
    if rule.slow_ms is not None and not 0 <= rule.slow_ms < math.inf:
        raise UsageError("A limit for slowness is a number of milliseconds; 0 is for none", code="bad_rule")


def _changed(rule: Rule, other: Rule) -> dict[str, object]:
    """What of a rule is another way in the other one."""
    theirs = asdict(other)
    return {name: value for name, value in asdict(rule).items() if value != theirs[name]}
