"""Signs and the states they stand for. A word stands beside each sign, a meaning behind each colour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.model import AgentCard, Drift, SyncStatus


class Tone(StrEnum):
    """The meanings a colour may have: green fine, amber look, red act, blue moving, grey stale or unknown."""

    OK = "ok"
    LOOK = "look"
    ACT = "act"
    MOVING = "moving"
    MUTED = "muted"
    PLAIN = "plain"
    ACCENT = "accent"


class State(StrEnum):
    """What the badge of an agent says, in the order in which states are listed and sorted."""

    ERROR = "error"
    CONFLICT = "conflict"
    SYNCING = "syncing"
    LOCAL_AHEAD = "local ahead"
    REMOTE_AHEAD = "remote ahead"
    PENDING = "pending"
    GONE = "gone"
    UNKNOWN = "unknown"
    IN_SYNC = "in sync"


STATE_TONE: dict[State, Tone] = {
    State.ERROR: Tone.ACT,
    State.CONFLICT: Tone.LOOK,
    State.SYNCING: Tone.MOVING,
    State.LOCAL_AHEAD: Tone.LOOK,
    State.REMOTE_AHEAD: Tone.LOOK,
    State.PENDING: Tone.MUTED,
    State.GONE: Tone.MUTED,
    State.UNKNOWN: Tone.MUTED,
    State.IN_SYNC: Tone.OK,
}
OVERALL: dict[str, tuple[State, Tone]] = {
    "healthy": (State.IN_SYNC, Tone.OK),
    "degraded": (State.LOCAL_AHEAD, Tone.LOOK),
    "unhealthy": (State.ERROR, Tone.ACT),
}
"""The sign and the colour of each overall state of health, by its word."""
STATE_RANK: dict[State, int] = {state: rank for rank, state in enumerate(State)}

_DRIFT_STATE = {
    Drift.IN_SYNC: State.IN_SYNC,
    Drift.LOCAL_AHEAD: State.LOCAL_AHEAD,
    Drift.REMOTE_AHEAD: State.REMOTE_AHEAD,
    Drift.CONFLICT: State.CONFLICT,
    Drift.UNKNOWN: State.UNKNOWN,
}


def state_of(card: AgentCard, syncing: bool = False) -> State:
    """What the badge says: work going on before failure, failure before drift."""
    if syncing or card.status is SyncStatus.SYNCING:
        return State.SYNCING
    if card.gone_at is not None:
        return State.GONE
    if card.status is SyncStatus.ERROR:
        return State.ERROR
    if card.status is SyncStatus.PENDING:
        return State.PENDING
    return _DRIFT_STATE[card.drift]


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of signs, each one column wide."""

    states: dict[State, str]
    ok: str
    failed: str
    mark: str
    dot: str
    ellipsis: str
    bar_full: str
    bar_parts: str
    """Eighths of a bar from empty to nearly full, without the full one; empty when there are none."""
    bar_rest: str
    border: str
    """top left, top, top right, side, bottom left, bottom, bottom right"""
    border_chosen: str
    cursor: str
    arrow: str
    function: str
    hidden: str
    levels: str
    """Eight heights of a bar, the lowest first."""
    pause: str
    rule: str
    """A thin line from left to right."""
    nothing: str
    """Stands for a figure that nobody knows."""
    frame: str
    """Corners and lines as in `border`, then where lines meet: from left, right, top, bottom, all sides."""


UNICODE = Glyphs(
    states={
        State.ERROR: "✗",
        State.CONFLICT: "◆",
        State.SYNCING: "◐",
        State.LOCAL_AHEAD: "▲",
        State.REMOTE_AHEAD: "▼",
        State.PENDING: "○",
        State.GONE: "·",
        State.UNKNOWN: "·",
        State.IN_SYNC: "●",
    },
    ok="●",
    failed="✗",
    mark="✓",
    dot="·",
    ellipsis="…",
    bar_full="▋",
    bar_parts="  ▏▏▎▎▍▍",
    bar_rest=" ",
    border="╭─╮│╰─╯",
    border_chosen="┏━┓┃┗━┛",
    cursor="▸",
    arrow="→",
    function="ƒ",
    hidden="•",
    levels="▁▂▃▄▅▆▇█",
    pause="‖",
    rule="─",
    nothing="—",
    frame="╭─╮│╰─╯├┤┬┴┼",
)

ASCII = Glyphs(
    states={
        State.ERROR: "x",
        State.CONFLICT: "!",
        State.SYNCING: "~",
        State.LOCAL_AHEAD: "^",
        State.REMOTE_AHEAD: "v",
        State.PENDING: "o",
        State.GONE: ".",
        State.UNKNOWN: "?",
        State.IN_SYNC: "*",
    },
    ok="*",
    failed="x",
    mark="+",
    dot="-",
    ellipsis="...",
    bar_full="#",
    bar_parts="",
    bar_rest=".",
    border="+-+|+-+",
    border_chosen="#=###=#",
    cursor=">",
    arrow="->",
    function="f",
    hidden="*",
    levels="_.,-=+*#",
    pause="=",
    rule="-",
    nothing="-",
    frame="+-+|+-++++++",
)
