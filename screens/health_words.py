"""What a check's state, breaker, budget and figures are called on screen, and the signs of them.

No widget in here. Times are epoch milliseconds; `elapsed` is seconds since the view was taken, by which its
countdowns are shortened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from screens.glyphs import Glyphs, State, Tone
from screens.textfit import display, width_of, wrap
from screens.when import clock_time
from screens.widgets.line import Piece
from services.health.model import Beat, CheckKind, CheckView, HealthState, HealthView
from services.resilience import BreakerState, BreakerView, Budget, Level

KIND_TITLES = {
    CheckKind.PROVIDER: "providers",
    CheckKind.AGENT: "agents",
    CheckKind.INTEGRATION: "integrations",
    CheckKind.ORCHESTRATOR: "orchestrator",
    CheckKind.SYSTEM: "system",
}
STATE_TONE = {
    HealthState.UP: Tone.OK,
    HealthState.PENDING: Tone.MUTED,
    HealthState.DEGRADED: Tone.LOOK,
    HealthState.DOWN: Tone.ACT,
    HealthState.MAINTENANCE: Tone.MUTED,
}
LITTLE_LEFT = 0.2
"""Share of a budget below which it is worth a look."""
_WHOSE = {Level.AGENT: "an agent", Level.USER: "a user"}
SIMULATED = "simulated"
NOBODY_SECONDS = 180
"""After so long without any probe nobody is probing."""


class Standing(StrEnum):
    """How a check stands for who looks at it, the most urgent first; `HELD` waits for another check."""

    DOWN = "down"
    DEGRADED = "degraded"
    FAILING = "failing"
    MAINTENANCE = "in maintenance"
    HELD = "held back"
    UNCHECKED = "not checked yet"
    FINE = "fine"


STANDING_TONE = {
    Standing.DOWN: Tone.ACT,
    Standing.DEGRADED: Tone.LOOK,
    Standing.FAILING: Tone.LOOK,
    Standing.MAINTENANCE: Tone.MUTED,
    Standing.HELD: Tone.MUTED,
    Standing.UNCHECKED: Tone.MUTED,
    Standing.FINE: Tone.OK,
}
_STANDING = {
    HealthState.UP: Standing.FINE,
    HealthState.DEGRADED: Standing.DEGRADED,
    HealthState.DOWN: Standing.DOWN,
    HealthState.MAINTENANCE: Standing.MAINTENANCE,
}


def standing_of(check: CheckView) -> Standing:
    """Maintenance before what holds it back, that before its own state."""
    if check.state is HealthState.MAINTENANCE:
        return Standing.MAINTENANCE
    if check.held_by or check.state is HealthState.WAITS:
        return Standing.HELD
    if check.state is HealthState.PENDING:
        return Standing.FAILING if check.failures else Standing.UNCHECKED
    return _STANDING.get(check.state, Standing.HELD)  # what is in none of its own states waits


def name_of(check: CheckView) -> str:
    """Its name; that it is simulated is said beside it."""
    name = display(check.name)
    return name.removeprefix(f"{SIMULATED} ") if check.simulated else name


# -- signs ----------------------------------------------------------------------------------------


def state_sign(state: HealthState, glyphs: Glyphs) -> str:
    """One column: `●` up, `▲` degraded, `✗` down, `○` pending, `‖` maintenance."""
    match state:
        case HealthState.UP:
            return glyphs.ok
        case HealthState.DEGRADED:
            return glyphs.states[State.LOCAL_AHEAD]
        case HealthState.DOWN:
            return glyphs.failed
        case HealthState.MAINTENANCE:
            return glyphs.pause
    return glyphs.states[State.PENDING]


def legend(glyphs: Glyphs) -> list[tuple[tuple[str, Tone], str]]:
    """Every sign a line may begin with, and what it says."""
    states = [
        (HealthState.UP, "Up."),
        (HealthState.DEGRADED, "Degraded: it works, but not as it should."),
        (HealthState.DOWN, "Down."),
        (HealthState.PENDING, "Not checked yet; amber: failing, not down yet."),
        (HealthState.MAINTENANCE, "In maintenance: checked, but nobody is alerted."),
    ]
    signs = [((state_sign(state, glyphs), STATE_TONE[state]), meaning) for state, meaning in states]
    held = ((glyphs.dot, Tone.MUTED), "Waits for another check that is down.")
    probed = ((glyphs.states[State.SYNCING], Tone.MOVING), "Being checked now.")
    return [*signs, held, probed, (("+ -", Tone.ACCENT), "Many lines of one state, folded or unfolded.")]


def check_sign(check: CheckView, glyphs: Glyphs) -> Piece:
    """The sign at the head of a line, with its tone; what is held back knows nothing of itself."""
    standing = standing_of(check)
    if standing is Standing.HELD:
        return glyphs.dot, Tone.MUTED
    if standing is Standing.FAILING:
        return state_sign(HealthState.PENDING, glyphs), Tone.LOOK
    if standing is Standing.FINE and check.message.startswith(f"{SIMULATED}:"):
        return state_sign(HealthState.PENDING, glyphs), Tone.MUTED  # there is nothing that could be well
    return state_sign(check.state, glyphs), STATE_TONE[check.state]


def standing_sign(standing: Standing, glyphs: Glyphs) -> str:
    if standing is Standing.HELD:
        return glyphs.dot
    states = {each: state for state, each in _STANDING.items()}
    return state_sign(states.get(standing, HealthState.PENDING), glyphs)


def strip_pieces(beats: Sequence[Beat], width: int, glyphs: Glyphs) -> list[Piece]:
    """The newest probes as signs, the newest at the right; those of one state in a row are one piece."""
    shown = beats[-width:] if width > 0 else ()
    pieces: list[Piece] = [(" " * (width - len(shown)), Tone.MUTED)] if len(shown) < width else []
    for beat in shown:
        sign, tone = state_sign(beat.state, glyphs), STATE_TONE[beat.state]
        if pieces and pieces[-1][1] is tone:
            pieces[-1] = (pieces[-1][0] + sign, tone)
        else:
            pieces.append((sign, tone))
    return pieces


def spark_text(beats: Sequence[Beat], width: int, glyphs: Glyphs) -> str:
    """The response times of the newest probes as heights; blank where none was.

    What is usual fills a third, so that a steady line stays low and whatever took long stands out.
    """
    shown = beats[-width:] if width > 0 else ()
    times = sorted(beat.took_ms for beat in shown if beat.took_ms is not None)
    top = max(times[-1], 3 * times[len(times) // 2]) if times else 0.0
    steps = len(glyphs.levels) - 1
    drawn = "".join(
        " " if beat.took_ms is None else glyphs.levels[round(beat.took_ms / top * steps) if top else 0]
        for beat in shown
    )
    return drawn.rjust(width)


# -- figures --------------------------------------------------------------------------------------


def percent(share: float | None, glyphs: Glyphs) -> str:
    """`98.7 %`; never rounded up, so that `100 %` means that nothing failed."""
    if share is None:
        return glyphs.nothing
    tenths = math.floor(share * 1000 + 1e-9)
    return "100 %" if tenths >= 1000 else f"{tenths / 10:.1f} %"


def figure(ms: float | None, glyphs: Glyphs) -> str:
    """A response time: `210 ms`, `4.2 s`."""
    if ms is None:
        return glyphs.nothing
    return f"{ms / 1000:.1f} s" if ms >= 9_999.5 else f"{round(ms):,} ms"


def countdown(seconds: float) -> str:
    """`12 s`, `3 min 05 s`."""
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def breaker_words(breaker: BreakerView, elapsed: float) -> tuple[str, Tone]:
    """`closed`, `half open`, `open 12 s`; the next call is let through when the time is over."""
    if breaker.state is BreakerState.CLOSED:
        return "closed", Tone.MUTED
    if breaker.state is BreakerState.HALF_OPEN:
        return "half open", Tone.LOOK
    left = breaker.reopens_in - elapsed
    return (f"open {countdown(left)}" if left > 0 else "tries next"), Tone.ACT


def is_counting(check: CheckView) -> bool:
    """Whether its line counts seconds down."""
    return check.breaker is not None and check.breaker.state is BreakerState.OPEN


def tightest(budgets: Sequence[Budget]) -> Budget | None:
    """The budget with the smallest share left; None while nothing was used of any."""
    limited = [budget for budget in budgets if budget.limit and budget.used]
    return min(limited, key=lambda each: each.remaining / each.limit, default=None)


def budget_words(budget: Budget, *, whose: bool = True) -> tuple[str, Tone]:
    """`54/60 left this minute`; of the busiest user of an account `a user: 2/60 left this minute`."""
    window = "this second" if budget.window == "burst" else f"this {budget.window}"
    tone = Tone.MUTED
    if budget.remaining < budget.limit * LITTLE_LEFT:
        tone = Tone.LOOK if budget.remaining else Tone.ACT
    return f"{_left(budget, whose)} {window}", tone


def _left(budget: Budget, whose: bool = True) -> str:
    head = f"{_WHOSE[budget.level]}: " if whose and budget.level is not Level.ACCOUNT else ""
    return f"{head}{budget.remaining:,}/{budget.limit:,} left"


# -- sentences ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what a line says. `short` may stand for it; `rank` says what goes first, the highest."""

    text: str
    tone: Tone = Tone.PLAIN
    short: str = ""
    rank: int = 0
    flows: bool = False
    """Whether it may be cut at the end of a word."""


def maintenance_words(check: CheckView, now: int, zone: str, *, briefly: bool = False) -> str:
    """`maintenance until Mar 02 15:00`; briefly the time alone, or of a day further away the day."""
    until = check.maintenance_until
    if until is None:
        return "maintenance"
    words = clock_time(until, now, zone)
    if briefly and " " in words:
        day, _, hour = words.rpartition(" ")
        words = hour if until - now < 24 * 3_600_000 else day
    return f"maintenance until {words}"


def parts_of(
    check: CheckView, now: int, zone: str, elapsed: float, *, breaker_shown: bool = False
) -> list[Part]:
    """What a line says, in the order in which it is read: the state in a word, then why."""
    standing, parts = standing_of(check), list[Part]()
    tone = STANDING_TONE[standing]
    message = display(check.message)
    since = f" since {clock_time(check.since, now, zone)}" if check.since is not None else ""
    match standing:
        case Standing.DOWN | Standing.DEGRADED:
            parts.append(Part(f"{standing.value}{since}", tone, standing.value))
        case Standing.FAILING:
            words = f"failing, {check.failures} of {check.failure_threshold}"
            parts.append(Part(words, tone, "failing"))
        case Standing.MAINTENANCE:
            parts.append(Part(maintenance_words(check, now, zone, briefly=True), tone))
        case Standing.HELD:
            parts.append(Part(f"waits for {display(check.held_by)}", tone, flows=True))
            message = ""
        case Standing.UNCHECKED:
            parts.append(Part("checking" if check.probing else "not checked yet", tone))
    if check.breaker is not None and check.breaker.state is not BreakerState.CLOSED and not breaker_shown:
        words, tone = breaker_words(check.breaker, elapsed)
        parts.append(Part(f"breaker {words}", tone, rank=1))
    if check.simulated:
        parts.append(Part(SIMULATED, Tone.LOOK, rank=2))
        message = message.removeprefix(f"{SIMULATED}: ")
    budget = tightest(check.budgets)
    if budget is not None and standing is Standing.FINE:
        words, tone = budget_words(budget)
        parts.append(Part(words, tone, _left(budget), rank=3))
    if message:
        tone = Tone.MUTED if standing is Standing.FINE else Tone.PLAIN
        parts.append(Part(message, tone, rank=4, flows=True))
    return parts


LEAST = 12
"""Columns below which a cut sentence says nothing any more."""


def whole_words(text: str, width: int, ellipsis: str) -> str:
    """The text in at most `width` columns, cut behind a word; only a word that is too long itself is cut."""
    if width_of(text) <= width:
        return text
    room = width - width_of(ellipsis)
    return wrap(text, room)[0].rstrip(" ,;:") + ellipsis if room > 0 else ""


def fit_parts(parts: Sequence[Part], width: int, glyphs: Glyphs) -> list[Piece]:
    """As many parts as there is room for, whole ones first; at most one is cut, at the end of a word."""
    between = f" {glyphs.dot} "
    chosen: dict[int, str] = {}
    room = width
    # First each in its shortest form, so that a long one does not push out what weighs more.
    for number in sorted(range(len(parts)), key=lambda each: parts[each].rank):
        part = parts[number]
        gap = width_of(between) if chosen else 0
        text = part.short or part.text
        if part.flows and width_of(text) + gap > room >= (LEAST + gap if chosen else 1):
            text = whole_words(text, room - gap, glyphs.ellipsis)
            if chosen and " " not in text:
                continue  # the first word alone says nothing
        if width_of(text) + gap <= room:
            chosen[number] = text
            room -= width_of(text) + gap
    for number in sorted(chosen, key=lambda each: parts[each].rank):
        more = width_of(parts[number].text) - width_of(chosen[number])
        if parts[number].short and 0 < more <= room:
            chosen[number] = parts[number].text
            room -= more
    if not chosen and parts:
        chosen[0] = whole_words(parts[0].short or parts[0].text, width, glyphs.ellipsis)
    pieces: list[Piece] = []
    for number in sorted(chosen):
        if pieces:
            pieces.append((between, Tone.MUTED))
        pieces.append((chosen[number], parts[number].tone))
    return pieces


def age_words(checked_at: int | None, now: int) -> str:
    """`checked just now`, `checked 15 s ago`: in steps, so that the line is not painted every second."""
    if checked_at is None:
        return "not checked yet"
    seconds = max(0, now - checked_at) // 1000
    if seconds < 5:
        return "checked just now"
    if seconds < 60:
        return f"checked {seconds // 5 * 5} s ago"
    if seconds < 3600:
        return f"checked {seconds // 60} min ago"
    return f"checked {seconds // 3600} h ago" if seconds < 48 * 3600 else f"checked {seconds // 86400} d ago"


def prober_words(view: HealthView, now: int) -> tuple[str, Tone]:
    """Who checks, where it is not this process; empty where it is."""
    if view.started:
        return "", Tone.MUTED
    old = view.checked_at is None or now - view.checked_at > NOBODY_SECONDS * 1000
    if view.prober and not old:
        return f"by {display(view.prober)}", Tone.MUTED
    return "nobody checks by itself", Tone.LOOK


def copy_text(check: CheckView, now: int, zone: str) -> str:
    """A line with its whole error and advice, to be sent to somebody."""
    parts = parts_of(check, now, zone, 0.0)
    head = f"{display(check.name)}{f' ({display(check.company)})' if check.company else ''}"
    lines = [f"{head}: {', '.join(part.text for part in parts) or standing_of(check).value}"]
    if check.advice and standing_of(check) is not Standing.FINE:
        lines.append(f"What to do: {display(check.advice)}")
    if check.last_error and check.last_error != check.message:
        when = f" at {clock_time(check.last_error_at, now, zone)}" if check.last_error_at is not None else ""
        lines.append(f"Last error{when}: {display(check.last_error)}")
        if check.last_error_advice:
            lines.append(f"What to do then: {display(check.last_error_advice)}")
    return "\n".join(lines)
