"""How health looks on the command line: as JSON, as a table, as lines of what changed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from app.check_json import check_document, facts
from app.output import cell_width, is_terminal, iso, local, paint, plural, shorten, terminal_width
from services.text import clean_line

if TYPE_CHECKING:
    from services.health.model import Channel, CheckView, Incident, Overall, Rule, Window

GLYPHS = {"up": "●", "pending": "○", "degraded": "▲", "down": "✗", "maintenance": "‖", "waits": "·"}
STYLES = {
    "up": "green",
    "pending": "dim",
    "degraded": "yellow",
    "down": "red",
    "maintenance": "cyan",
    "waits": "dim",
}
OVERALL = {
    "healthy": ("●", "green"),
    "degraded": ("▲", "yellow"),
    "unhealthy": ("✗", "red"),
}
WIDEST_NAME, NARROW_NAME = 30, 26
WIDE = (0, 1, 2, 3, 4)
NAME = 2


def check_dict(check: CheckView) -> dict[str, Any]:
    """The documented JSON of a check, with what it depends on."""
    return {**check_document(check), "facts": facts(check), "depends_on": list(check.depends_on)}


def incident_dict(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "check": incident.check_id,
        "name": incident.name,
        "kind": incident.kind.value,
        "state": incident.state.value,
        "cause": incident.cause,
        "message": incident.message,
        "advice": incident.advice,
        "started_at": iso(incident.started_at),
        "ended_at": iso(incident.ended_at),
        "alerted_at": iso(incident.alerted_at),
        "repeats_alert_at": iso(incident.repeats),
    }


def window_dict(window: Window) -> dict[str, Any]:
    return {
        "id": window.id,
        "scope": window.scope,
        "reason": window.reason,
        "timezone": window.timezone,
        "starts_at": iso(window.starts_at),
        "ends_at": iso(window.ends_at),
        "cron": window.cron,
        "minutes": window.minutes,
        "actor": window.actor,
    }


def channel_dict(channel: Channel) -> dict[str, Any]:
    return {
        "id": channel.id,
        "kind": channel.kind,
        "target": channel.target,
        "company": channel.company,
        "least": channel.least.value,
        "enabled": channel.enabled,
        "sent_at": iso(channel.sent_at),
        "last_error": channel.last_error,
    }


def rule_dict(rule: Rule) -> dict[str, Any]:
    return {
        "check": rule.check_id,
        "enabled": rule.enabled,
        "interval_s": rule.interval,
        "failure_threshold": rule.failure_threshold,
        "slow_ms": rule.slow_ms,
    }


def panels(
    overall: Overall,
    reason: str,
    checks: Sequence[CheckView],
    *,
    every: bool,
    zone: str,
    height: int | None = None,
) -> list[str]:
    """The verdict, then one line for each check and its advice; agents that have no trouble of their own are
    only counted, by how they stand.

    With a `height` no more lines than that: what is well gives way first.
    """
    glyph, style = OVERALL[overall.value]
    verdict = f"{_glyph(glyph)}{overall.value}" + (f" — {clean_line(reason)}" if reason else "")
    lines = [paint(verdict, style)]
    shown = [check for check in checks if every or check.kind.value != "agent" or _notable(check)]
    counted = Counter(_standing(check) for check in checks) - Counter(_standing(check) for check in shown)
    folded = counted.total()
    room = None if height is None else max(1, height - len(lines) - len(counted) - 1)
    if room is not None and _lines_of(shown) > room:
        shown = sorted(shown, key=lambda check: not _notable(check))
        while shown and _lines_of(shown) > room - 1:
            shown.pop()
    lines += _table(shown, zone)
    more = " (--all lists them)"
    hidden = len(checks) - folded - len(shown)
    for (one, several), count in counted.items():
        lines.append(paint(f"  {plural(count, 'agent')} {one if count == 1 else several}{more}", "dim"))
        more = ""
    if hidden:
        lines.append(paint(f"  {hidden} more", "dim"))
    return lines


def _standing(check: CheckView) -> tuple[str, str]:
    """What is said of one check, and of several, that stand like this one."""
    if check.held_by:
        held_by = clean_line(check.held_by)
        return f"waits for {held_by}", f"wait for {held_by}"
    if check.state.value == "up":
        return "is fine", "are fine"
    if check.state.value == "pending":
        words = "failing" if check.failures else "not probed yet"
        return f"is {words}", f"are {words}"
    return f"is in {check.state.value}", f"are in {check.state.value}"


def _notable(check: CheckView) -> bool:
    return check.state.value in ("down", "degraded") and not check.held_by


def _lines_of(checks: Iterable[CheckView]) -> int:
    return sum(1 + bool(_advice(check)) for check in checks)


def _table(checks: Sequence[CheckView], zone: str) -> list[str]:
    total = terminal_width(sys.stdout) if is_terminal(sys.stdout) else None
    rows = [_cells(check, zone) for check in checks]
    columns = _columns(total)
    most = WIDEST_NAME if columns == WIDE else NARROW_NAME
    most = most if total is not None else 999  # in a pipe nothing is cut
    widths = {
        place: min(most if place == NAME else 99, max((cell_width(row[place]) for row in rows), default=0))
        for place in columns
    }
    lines = []
    for check, row in zip(checks, rows, strict=True):
        cells = [_padded(shorten(row[place], widths[place]), widths[place]) for place in columns]
        start = "  ".join(cells)
        left = None if total is None else max(1, total - cell_width(start) - 2)
        words = row[-1] if left is None else shorten(row[-1], left)
        state = row[0]
        lines.append((paint(state, STYLES[check.state.value]) + start[len(state) :] + "  " + words).rstrip())
        advice = _advice(check)
        if advice:
            indent = " " * (widths[0] + 2)
            cut = advice if total is None else shorten(advice, max(1, total - len(indent) - 5))
            lines.append(indent + paint(f"try: {cut}", "dim"))
    return lines


def _columns(total: int | None) -> tuple[int, ...]:
    """Which cells there is room for, besides the words at the end."""
    if total is None or total >= 110:
        return WIDE
    return (0, 1, 2, 3) if total >= 96 else (0, 2, 3)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_width(text))


def _advice(check: CheckView) -> str:
    return clean_line(check.advice) if _notable(check) else ""


def _cells(check: CheckView, zone: str) -> tuple[str, str, str, str, str, str]:
    state = f"{_glyph(GLYPHS[check.state.value])}{check.state.value}"
    name = clean_line(check.name) + (f" ({clean_line(check.company)})" if check.company else "")
    uptime = "-" if check.uptime_24h is None else _percent(check.uptime_24h)
    slow = "-" if check.p95_ms is None else f"p95 {check.p95_ms:,.0f} ms"
    return state, check.kind.value, name, uptime, slow, words_of(check, zone)


def words_of(check: CheckView, zone: str) -> str:
    """What there is to say of a check, in one line."""
    words = []
    if check.held_by:
        words.append(f"waits for {clean_line(check.held_by)}")
    elif check.state.value == "pending" and not check.message:
        words.append("not probed yet")
    else:
        words.append(clean_line(check.message))
    if check.failures and check.state.value == "pending":
        words.append(f"failed {check.failures} of {check.failure_threshold} times")
    if check.simulated and "simulated" not in words[0]:
        words.append("simulated")
    if check.breaker is not None and check.breaker.state.value != "closed":
        left = f" {check.breaker.reopens_in:.0f} s" if check.breaker.reopens_in else ""
        words.append(f"breaker {check.breaker.state.value.replace('_', ' ')}{left}")
    if check.maintenance_until is not None:
        words.append(f"maintenance until {local(check.maintenance_until, zone)}")
    return " · ".join(word for word in words if word)


def _percent(share: float) -> str:
    """Never rounded up to what it is not: 99.99 % is not 100 %."""
    percent = share * 100
    return "100 %" if percent == 100 else f"{min(99.9, int(percent * 10) / 10):.1f} %"


def _glyph(glyph: str) -> str:
    """A glyph for eyes; the word is always there."""
    seen = is_terminal(sys.stdout) and (sys.stdout.encoding or "").lower().startswith("utf")
    return f"{glyph} " if seen else ""


def changed_line(check: CheckView, at: int, zone: str) -> str:
    """What is printed of a check whose state changed."""
    name = clean_line(check.name) + (f" ({clean_line(check.company)})" if check.company else "")
    return f"{local(at, zone)}  {check.state.value:<11}  {name}  {words_of(check, zone)}".rstrip()
