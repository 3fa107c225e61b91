"""The schedule: which syncs are due when, and that each happens exactly once on one database.

Lazy, because the timer and the database libraries behind it are heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.schedule.due import Schedule, schedules, soonest_due
    from services.schedule.scheduler import Scheduler, SchedulerOptions, Upcoming

__all__ = ["Schedule", "Scheduler", "SchedulerOptions", "Upcoming", "schedules", "soonest_due"]


def __getattr__(name: str) -> Any:
    if name in ("Schedule", "schedules", "soonest_due"):
        from services.schedule import due

        return getattr(due, name)
    if name in ("Scheduler", "SchedulerOptions", "Upcoming"):
        from services.schedule import scheduler

        return getattr(scheduler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
