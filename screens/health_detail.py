"""One check: everything that is known of it now, and how it was in the last day, week and month."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events, on
from textual.app import ComposeResult

from screens.actions import CHECK, bindings_of
from screens.frame import Console
from screens.glyphs import Tone
from screens.health_history import HistoryLines
from screens.health_words import (
    Standing,
    breaker_words,
    budget_words,
    check_sign,
    countdown,
    figure,
    percent,
    standing_of,
)
from screens.pane import Pane
from screens.textfit import display, fit, sentence, wrap
from screens.when import exact, moment, took
from screens.widgets.below import Below
from screens.widgets.document import Document
from screens.widgets.line import Line, Piece
from screens.widgets.panels import Panels
from screens.widgets.table import Column, LineTable, Row
from services.errors import ServiceError
from services.health.model import CheckView, HealthState, HistoryPoint, Incident
from services.resilience import Level
from services.text import age

TABS = (("now", 0), ("24 h", 24), ("7 d", 7 * 24), ("30 d", 30 * 24))
"""The tabs with the hours they look back."""
INCIDENTS = 50
LIMITS = {Level.ACCOUNT: "account's limit", Level.AGENT: "busiest agent", Level.USER: "busiest user"}
NAMED = 8
"""Names that are listed one by one."""
INCIDENT_COLUMNS = (Column("began", 12), Column("lasted", 9, right=True), Column("what happened"))
INCIDENT_LINES = 4
LEAST_LABEL = 14


class HeadingLine(Line):
    """The name of the check with its state."""

    def __init__(self, console: Console) -> None:
        super().__init__(ident="check-name")
        self._glyphs = console.glyphs
        self.check: CheckView | None = None

    def pieces(self, width: int) -> tuple[Sequence[Piece], Sequence[Piece]]:
        check = self.check
        if check is None:
            return [], []
        sign, tone = check_sign(check, self._glyphs)
        simulated: list[Piece] = [("simulated  ", Tone.LOOK)] if check.simulated else []
        return [(f" {display(check.name)}", "strong")], [
            *simulated,
            (f"{sign} {state_words(check)} ", tone),
        ]


def _lasted(incident: Incident) -> str:
    if incident.ended_at is None:
        return "goes on"
    length = incident.ended_at - incident.started_at
    return age(incident.started_at, incident.ended_at) if length >= 60_000 else took(length)


def state_words(check: CheckView) -> str:
    standing = standing_of(check)
    return "up" if standing is Standing.FINE else standing.value


class CheckPane(Pane):
    """Everything of the check under the cursor."""

    BINDINGS = bindings_of(CHECK)

    def __init__(self, console: Console, panels: Panels, close: Callable[[], None]) -> None:
        super().__init__(console, [title for title, _ in TABS], close, ident="check")
        self._panels = panels
        self.check: CheckView | None = None
        self._read: tuple[str, int, int | None] | None = None
        """Of which check, hours and probe the history is that is shown."""
        self._lines: list[str] = []
        """What `now` shows."""
        self.heading = HeadingLine(console)
        self.now = Document(console.glyphs, ident="check-now")
        self.history = HistoryLines(console.glyphs, self._zone)
        self.incidents = LineTable(INCIDENT_COLUMNS, console.glyphs, ident="incidents")
        self.incident = Below(self._incident, console.glyphs, height=INCIDENT_LINES, ident="incident")
        self._incidents: dict[int, Incident] = {}

    def compose(self) -> ComposeResult:
        yield self.heading
        yield self.tabs
        yield self.now
        yield self.history
        yield self.incidents
        yield self.incident

    def on_resize(self, event: events.Resize) -> None:
        self._fill()

    # -- what is shown ----------------------------------------------------------------------------

    @property
    def hours(self) -> int:
        """How far the open tab looks back; 0 for now."""
        return TABS[self.tabs.tab][1]

    def show_check(self, check: CheckView) -> None:
        """Show this check; what is read of its past is read again when it was probed since."""
        another = self.check is None or self.check.id != check.id
        self.check = self.heading.check = check
        if another:
            self._read = None
        self.heading.redraw()
        self._fill(at_top=another)

    def tick(self) -> None:
        """A second went by: the breaker's countdown."""
        if not self.hours:
            self._fill()

    def _fill(self, *, at_top: bool = False) -> None:
        if self.check is None or not self.is_mounted:
            return
        if not self.hours:
            self._host.perform(lambda: self._show_now(at_top), group="check")
        else:
            self._host.perform(self._show_past, group="check")

    async def _show_now(self, at_top: bool) -> None:
        check = self.check
        if check is None:
            return
        pairs = self._pairs(check)
        width = max(LEAST_LABEL, *(len(name) for name, _ in pairs)) + 2
        lines = list[str]()
        for name, value in pairs:
            # Broken here, so that what goes on stands below the value and not below its label.
            first, *more = wrap(display(value), max(20, self.size.width - width - 4)) or ["-" if name else ""]
            lines += [f"{fit(name, width)}{first}", *(" " * width + rest for rest in more)]
        if lines == self._lines:
            return
        self._lines = lines
        self.now.label_width = width
        place = 0 if at_top else self.now.scroll_offset.y
        await self.now.set_lines(lines)
        if place:
            self.now.scroll_to(y=place, animate=False)

    def _pairs(self, check: CheckView) -> list[tuple[str, str]]:
        """Everything of it as label and value; a label of nothing leaves a line free."""
        zone, now, glyphs = self._zone, self._services.clock.now(), self._host.glyphs
        elapsed = max(0.0, self._services.clock.monotonic() - self._host.live.health_at)
        pairs: list[tuple[str, str]] = []
        standing = standing_of(check)
        if standing is Standing.HELD:
            pairs += [("waits for", f"{check.held_by}; its own alerts are held back meanwhile"), ("", "")]
        elif standing in (Standing.DOWN, Standing.DEGRADED, Standing.FAILING):
            pairs += [("what happened", check.message), ("what to do", check.advice), ("", "")]
        lasted = (
            f", {age(check.since, now)}" if check.since is not None and now - check.since >= 60_000 else ""
        )
        pairs += [
            ("state", state_words(check)),
            ("since", f"{exact(check.since, zone)}{lasted}"),
            ("checked", exact(check.checked_at, zone)),
            ("next check", exact(check.next_at, zone) if check.next_at is not None else "not planned"),
            ("every", countdown(check.interval)),
            ("counts as down", f"after {check.failure_threshold} failures in a row, now {check.failures}"),
        ]
        if check.maintenance_until is not None:
            pairs.append(("maintenance", f"until {exact(check.maintenance_until, zone)}"))
        pairs += [("", ""), ("response time", figure(check.took_ms, glyphs))]
        pairs.append(("24 hours", f"p50 {figure(check.p50_ms, glyphs)}, p95 {figure(check.p95_ms, glyphs)}"))
        pairs.append(("uptime", self._uptime(check)))
        if check.breaker is not None:
            words = breaker_words(check.breaker, elapsed)[0]
            shared = ", shared with other processes" if check.breaker.shared else ""
            lost = (
                ", counted by this process alone: the shared store is lost" if check.breaker.degraded else ""
            )
            pairs += [("", ""), ("breaker", f"{words}{shared}{lost}")]
            pairs.append(("failures", f"{check.breaker.failures} in a row through the breaker"))
        for budget in check.budgets:
            pairs.append((LIMITS[budget.level], budget_words(budget, whose=False)[0]))
        weight = "everything counts as unhealthy" if check.critical else "everything counts as degraded"
        pairs += [("", ""), ("kind", check.kind.value), ("company", check.company or "of all")]
        pairs += [("when down", weight), *self._around(check), ("id", check.id)]
        if check.facts:
            pairs += [("", ""), *check.facts]
        if check.message and standing in (Standing.FINE, Standing.MAINTENANCE):
            pairs.append(("found", check.message))
        if check.last_error:
            pairs += [("", ""), ("last error", check.last_error)]
            pairs.append(("at", exact(check.last_error_at, zone)))
            if check.last_error_advice:
                pairs.append(("what to do", check.last_error_advice))
        return pairs

    def _around(self, check: CheckView) -> list[tuple[str, str]]:
        """What it hangs on, and what hangs on it."""
        view = self._host.live.health
        checks = view.checks if view is not None else ()
        below = [each.name for each in checks if each.id in check.depends_on]
        above = [each.name for each in checks if check.id in each.depends_on]
        count = max(check.dependents, len(above))
        names = ", ".join(above[:NAMED])
        if names and count > len(above[:NAMED]):
            names += f" and {count - len(above[:NAMED]):,} more"
        pairs = [("depends on", ", ".join(below))] if below else []
        if count:
            pairs.append(
                (f"{count:,} hang on it" if count > 1 else "hangs on it", names or f"{count:,} checks")
            )
        return pairs

    def _uptime(self, check: CheckView) -> str:
        day, month = (percent(share, self._host.glyphs) for share in (check.uptime_24h, check.uptime_30d))
        return f"{day} in 24 hours, {month} in 30 days"

    # -- the past ---------------------------------------------------------------------------------

    async def _show_past(self) -> None:
        """Read the past of the check once for each probe, and show it if it is still wanted."""
        check, hours = self.check, self.hours
        if check is None or not hours:
            return
        wanted = (check.id, hours, check.checked_at)
        if wanted == self._read:
            return
        if self._read is None or self._read[:2] != wanted[:2]:
            self.tabs.say("reading")
        self._read = wanted
        try:
            points = await self._services.health.history(check.id, hours)
            rows = await self._services.health.incidents(INCIDENTS, check.id)
        except ServiceError as error:
            self._read = None
            self.tabs.say(error.message, Tone.ACT)
            return
        if self._read == wanted and self.is_mounted:
            self.tabs.say("")
            self._show_points(points, hours)
            self._show_incidents(rows, hours)

    def _show_points(self, points: Sequence[HistoryPoint], hours: int) -> None:
        self.history.set_points(points, self._services.clock.now(), hours)

    def _show_incidents(self, incidents: Sequence[Incident], hours: int) -> None:
        now = self._services.clock.now()
        first = now - hours * 3_600_000
        rows = []
        for each in incidents:
            if each.ended_at is not None and each.ended_at < first:
                continue
            tone = Tone.ACT if each.state is HealthState.DOWN else Tone.LOOK
            lasted = _lasted(each)
            what = f"{each.state.value}: {each.message}" if each.message else each.state.value
            if each.cause:
                what = f"waited for {each.cause}"
            rows.append(
                Row(
                    each.id,
                    (
                        (moment(each.started_at, now, self._zone), Tone.PLAIN),
                        (lasted, tone if each.ended_at is None else Tone.MUTED),
                        (what, tone if each.ended_at is None else Tone.PLAIN),
                    ),
                )
            )
        self.incidents.empty = [self._no_incident()]
        self._incidents = {each.id: each for each in incidents}
        self.incidents.set_rows(rows)
        self.incident.redraw()

    def _no_incident(self) -> tuple[str, Tone]:
        """Why nothing is listed: a failure that was over at once is in the figures and is no incident."""
        whole, check = self.history.whole, self.check
        if check is None or not whole.probes:
            return "No incident in this time", Tone.MUTED
        if not whole.down and not whole.degraded:
            return "No trouble in this time", Tone.OK
        if check.failures:
            failed = f"{check.failures} of {check.failure_threshold}"
            return f"No incident yet: {failed} failures in a row", Tone.LOOK
        if whole.down and check.failure_threshold > 1:
            return f"No incident: never {check.failure_threshold} failures in a row", Tone.MUTED
        return "No incident was kept of it", Tone.MUTED

    @on(LineTable.Moved)
    def _moved(self, event: LineTable.Moved) -> None:
        event.stop()
        self.incident.redraw()

    def _incident(self) -> list[Piece]:
        """What happened in full, what to do about it, from when to when, and whether anybody was told."""
        row = self.incidents.current
        incident = self._incidents.get(row.key) if row is not None else None
        if incident is None:
            return []
        end = "goes on" if incident.ended_at is None else f"to {exact(incident.ended_at, self._zone)}"
        at = incident.alerted_at
        told = "nobody was alerted" if at is None else f"alerted {exact(at, self._zone)}"
        if incident.repeats is not None:
            told = f"a repetition of what was alerted {exact(incident.repeats, self._zone)}"
        waited = f"It waited for {incident.cause}" if incident.cause else ""
        return [
            (sentence(incident.message or waited, incident.advice), Tone.PLAIN),
            (f"{exact(incident.started_at, self._zone)} {end}, {told}", Tone.MUTED),
        ]

    @property
    def scrolled(self) -> Document | LineTable:
        return self.incidents if self.hours else self.now

    def show_tab(self) -> None:
        self.now.display = not self.hours
        for part in (self.history, self.incidents, self.incident):
            part.display = bool(self.hours)
        self.tabs.say("")
        self._fill()

    # -- keys -------------------------------------------------------------------------------------

    def action_next_check(self) -> None:
        self._step(1)

    def action_previous_check(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        """To the next line that stands for one check."""
        begin = before = self._panels.current
        self._panels.move(by)
        while not isinstance(self._panels.current, str) and self._panels.current != before:
            before = self._panels.current
            self._panels.move(by)
        if not isinstance(self._panels.current, str):
            self._panels.move_to(begin)
