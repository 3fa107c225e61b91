"""What `callboard serve` tells of its work: lines for people, or JSON lines for a log collector."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from app.output import iso, plural, safe_json, say, say_error, seconds, write_line
from services.errors import Category, ServiceError
from services.events import ScheduleChanged, ScheduleRan
from services.text import clean_line

if TYPE_CHECKING:
    from services.container import Services
    from services.model import ErrorInfo


class Reporter:
    """Tells what the schedule does: lines for people, or JSON lines.

    When the reader of standard output has gone away, `stop` is set and `reader_gone` says why.
    """

    def __init__(self, services: Services, stop: asyncio.Event, *, as_json: bool) -> None:
        self._services = services
        self._schedule = services.schedule
        self._stop = stop
        self._json = as_json
        self._active: bool | None = None
        self._problem: ErrorInfo | None = None
        self.reader_gone = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Report every event of the schedule until the block is left."""
        subscriptions = (
            self._services.bus.subscribe(ScheduleRan, self._ran),
            self._services.bus.subscribe(ScheduleChanged, lambda _: self.changed()),
        )
        try:
            yield
        finally:
            for unsubscribe in subscriptions:
                unsubscribe()

    def started(self) -> None:
        """Where the log is, and what comes next."""
        upcoming = self._schedule.upcoming()
        if self._json:
            schedules = [
                {"cause": each.cause, "forced": each.forced, "next_at": iso(each.at)} for each in upcoming
            ]
            self._emit("started", log=_log_file(), schedules=schedules)
            return
        say(f"The log with every failure's detail: {_log_file()}")
        for each in upcoming:
            what = "every agent is read again" if each.forced else "what is stale is read"
            say(f"{each.cause.capitalize()}, next: {self._local(each.at)} ({what})")
        say("Ctrl-C stops it.")

    def listens(self, urls: Sequence[str], *, token: bool) -> None:
        """Where the HTTP API is."""
        if self._json:
            self._emit("listening", urls=list(urls), token=token)
            return
        say(f"The HTTP API listens on {' and '.join(urls)}")
        if not token:
            say("It tells up or down only: no token is set (callboard serve --new-token makes one).")

    def changed(self) -> None:
        """Whether this process or another runs the schedule, and what keeps it from doing so."""
        if self._schedule.problem != self._problem:
            self._problem = problem = self._schedule.problem
            if self._json:
                self._emit("problem", error=problem.as_dict() if problem else None)
            elif problem:
                category = Category(problem.category)
                say_error(ServiceError(problem.message, category=category, advice=problem.advice))
            else:
                say("The database answers again.")
        if self._schedule.problem is None and self._schedule.holder != self._active:
            self._active = self._schedule.holder
            if self._json:
                self._emit("role", active=self._active)
            elif self._active:
                say("This process runs the schedule.")
            else:
                say("Another Callboard on this database runs the schedule; this one takes over if it ends.")

    def stopped(self) -> None:
        """The last word."""
        if self._json:
            self._emit("stopped")
        else:
            say("Stopped.")

    def _ran(self, event: ScheduleRan) -> None:
        report = event.report
        if self._json:
            self._emit(
                "run",
                cause=event.cause,
                due_at=iso(event.due_at),
                status=report.status.value if report else None,
                run_id=report.run_id if report else None,
                counts=report.counts() if report else None,
                requests=report.requests if report else None,
                duration_ms=report.duration_ms if report else None,
                result=event.result,
                next_at=iso(self._schedule.next_at),
            )
            return
        parts = [self._local(event.finished_at), event.cause, event.result]
        if report:
            parts += [plural(report.requests, "request"), seconds(report.duration_ms)]
        self._write("  ".join(parts))

    def _emit(self, event: str, **members: Any) -> None:
        at = iso(self._services.clock.now())
        document = {"schema": "callboard.serve-event/1", "event": event, "at": at, **members}
        self._write(safe_json(json.dumps(document)))

    def _write(self, line: str) -> None:
        if self.reader_gone:
            return
        try:
            write_line(line if self._json else clean_line(line))
            sys.stdout.flush()
        except BrokenPipeError:
            self.reader_gone = True
            self._stop.set()

    def _local(self, at: int) -> str:
        from datetime import datetime

        moment = datetime.fromtimestamp(at / 1000, tz=self._schedule.zone)
        return f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _log_file() -> str:
    from app.logs import SYNC_LOG
    from app.paths import paths_from

    return str(paths_from(os.environ).log_dir / SYNC_LOG)
