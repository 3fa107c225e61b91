"""Which trouble is an incident, and who is to be told of it: one cause, one alert. Pure.

An incident begins when a check becomes degraded or down and ends when a reading finds it well again. It is
told when the check itself is to blame, which takes a look at everything it hangs on: while that is down,
the incident is kept with its cause and nobody is told; while it is not yet certain, the answer waits, and
`urgent` names what should be probed to find out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.health.board import Board, Standing
from services.health.model import Alert, CheckKind, HealthState, Incident
from services.health.overall import dependents
from services.text import age

RANK: Final = {"": 0, HealthState.DEGRADED.value: 1, HealthState.DOWN.value: 2}
"""How grave a told state is."""


@dataclass(slots=True)
class Trouble:
    """An incident as this process keeps it; `id` is None until it is stored."""

    check_id: str
    name: str
    kind: CheckKind
    state: HealthState
    started_at: int
    cause: str = ""
    message: str = ""
    advice: str = ""
    ended_at: int | None = None
    alerted_at: int | None = None
    alerted_state: str = ""
    id: int | None = None
    stored: tuple[object, ...] = ()
    """What of it the database has."""

    def content(self) -> tuple[object, ...]:
        return (self.state, self.cause, self.message, self.advice, self.ended_at)


@dataclass(frozen=True, slots=True)
class Notice:
    """Somebody should be told of this incident; whether they are is decided by the database, once."""

    trouble: Trouble
    alert: Alert


class Incidents:
    """The open incidents over a board. `quiet_ms`: how long nobody is told again of a check."""

    def __init__(self, board: Board, quiet_ms: int = 0) -> None:
        self._board = board
        self._quiet_ms = quiet_ms
        self._open: dict[str, Trouble] = {}
        self._undecided: dict[str, None] = {}
        self._told_at: dict[str, int] = {}
        self.changed: dict[int, Trouble] = {}
        """Incidents that the database does not have as they are, by identity."""
        self.urgent: set[str] = set()
        """Checks that should be probed at once, to tell what is to blame."""

    @property
    def open(self) -> list[Trouble]:
        return list(self._open.values())

    def restore(self, troubles: Iterable[Trouble], told_at: dict[str, int]) -> None:
        """Go on with what is stored."""
        for trouble in troubles:
            trouble.stored = trouble.content()
            self._open[trouble.check_id] = trouble
            self._undecided[trouble.check_id] = None
        self._told_at.update(told_at)

    def ended(self, troubles: Iterable[Trouble], now: int) -> list[Notice]:
        """Who is to be told of the end of these: a process before this one was not there to do it."""
        return [
            Notice(trouble, self._alert(trouble, standing, now))
            for trouble in troubles
            if (standing := self._board.find(trouble.check_id)) is not None and standing.well
        ]

    def forget(self) -> None:
        """Another process goes on with them."""
        self._open.clear()
        self._undecided.clear()
        self.changed.clear()
        self.urgent.clear()

    def gone(self, check_ids: Iterable[str], now: int) -> None:
        """These are no longer watched: their incidents end, and nobody is told."""
        for check_id in check_ids:
            trouble = self._open.pop(check_id, None)
            self._undecided.pop(check_id, None)
            if trouble is not None:
                trouble.ended_at = now
                self._change(trouble)

    def step(self, touched: Iterable[str], now: int) -> list[Notice]:
        """Look at what was read anew and at what is still open to question; returns who is to be told."""
        return self.look(dict.fromkeys((*touched, *self._undecided)), now)

    def affected(self, touched: Iterable[str]) -> list[str]:
        """These, and what is open to question and hangs on one of them."""
        found = dict.fromkeys(touched)
        if self._undecided:
            below = self._board.arranged.descendants(found)
            found.update(dict.fromkeys(each for each in below if each in self._undecided))
        return list(found)

    @property
    def undecided(self) -> list[str]:
        """What is open to question."""
        return list(self._undecided)

    def look(self, check_ids: Iterable[str], now: int) -> list[Notice]:
        """Look at these; returns who is to be told."""
        notices = []
        for check_id in check_ids:
            standing = self._board.find(check_id)
            if standing is None:
                continue
            notice = self._look(standing, now)
            if notice is not None:
                notices.append(notice)
        return notices

    def _look(self, standing: Standing, now: int) -> Notice | None:
        check_id, trouble = standing.spec.id, self._open.get(standing.spec.id)
        if trouble is not None and standing.well:
            return self._end(trouble, standing, now)
        if standing.state not in (HealthState.DOWN, HealthState.DEGRADED):
            return None  # pending or in maintenance: neither the end of anything nor a beginning
        if trouble is None:
            trouble = self._open[check_id] = Trouble(
                check_id,
                self._board.title(check_id),
                standing.spec.kind,
                standing.state,
                standing.trouble_at or now,
            )
        self._describe(trouble, standing)
        if RANK[standing.state.value] <= RANK[trouble.alerted_state]:
            self._undecided.pop(check_id, None)
            return None
        self._undecided[check_id] = None
        if standing.troubles < standing.spec.failure_threshold or not self._to_blame(standing, trouble, now):
            return None
        told_at = self._told_at.get(check_id)
        if not trouble.alerted_state and told_at is not None and now < told_at + self._quiet_ms:
            return None
        del self._undecided[check_id]
        trouble.alerted_state, self._told_at[check_id] = standing.state.value, now
        trouble.alerted_at = trouble.alerted_at or now
        return Notice(trouble, self._alert(trouble, standing, now))

    def _describe(self, trouble: Trouble, standing: Standing) -> None:
        # It keeps the worst that it was, with what was said then.
        if RANK[standing.state.value] >= RANK[trouble.state.value] and standing.reading is not None:
            trouble.state = standing.state
            trouble.message, trouble.advice = standing.reading.message, standing.reading.advice
        self._change(trouble)

    def _end(self, trouble: Trouble, standing: Standing, now: int) -> Notice | None:
        del self._open[trouble.check_id]
        self._undecided.pop(trouble.check_id, None)
        trouble.ended_at = standing.checked_at or now
        self._change(trouble)
        return Notice(trouble, self._alert(trouble, standing, now)) if trouble.alerted_state else None

    def _change(self, trouble: Trouble) -> None:
        if trouble.content() != trouble.stored:
            self.changed[id(trouble)] = trouble

    def _to_blame(self, standing: Standing, trouble: Trouble, now: int) -> bool:
        """Whether it is certain that nothing it hangs on is the cause."""
        board, check_id = self._board, standing.spec.id
        if not standing.spec.depends_on:
            return True
        cause = board.cause(check_id)
        title = board.title(cause) if cause else ""
        if title and title != trouble.cause:
            trouble.cause = title
            self._change(trouble)
        if cause:
            return False
        known_at = _past(standing.since, now)
        for parent_id in board.ancestors(check_id):
            parent = board.standing(parent_id)
            if parent.failures:
                return False  # perhaps down: its threshold decides
            if parent.asked_at is None or parent.asked_at < known_at:
                self.urgent.add(parent_id)
                return False
            if (standing.asked_at or 0) < _past(parent.recovered_at, now):
                self.urgent.add(check_id)
                return False
        if trouble.cause:
            trouble.cause = ""
            self._change(trouble)
        return True

    def _alert(self, trouble: Trouble, standing: Standing, now: int) -> Alert:
        over = trouble.ended_at is not None
        state = HealthState.UP if over else standing.state
        hanging = dependents(self._board, [trouble.check_id])
        text = sentence(trouble, state, now, hanging)
        return Alert(
            key=key_of(trouble.check_id, trouble.started_at, state),
            check_id=trouble.check_id,
            name=trouble.name,
            kind=trouble.kind,
            company=standing.spec.company,
            state=state,
            text=text,
            message=trouble.message,
            advice="" if over else trouble.advice,
            at=now,
            started_at=trouble.started_at,
            ended_at=trouble.ended_at,
            dependents=len(self._board.descendants(trouble.check_id)),
            simulated=standing.reading.simulated if standing.reading else False,
            worst=HealthState(trouble.alerted_state) if over else state,
        )


def key_of(check_id: str, started_at: int, state: HealthState) -> str:
    """The key of an alert: the same however often it is sent."""
    return f"{check_id}/{started_at}/{state.value}"


def sentence(trouble: Trouble | Incident, state: HealthState, now: int, hanging: str = "") -> str:
    """What is told; `hanging` says in words what hangs on it."""
    if state is HealthState.UP:
        lasted = age(trouble.started_at, trouble.ended_at or now)
        return f"{trouble.name} is up again after {'less than a minute' if lasted == 'now' else lasted}"
    text = f"{trouble.name} is {state.value}" + (f": {trouble.message}" if trouble.message else "")
    return f"{text}; {hanging} on it" if hanging and state is HealthState.DOWN else text


def alert_again(board: Board, incident: Incident, state: HealthState, now: int) -> Alert:
    """The alert of a stored incident, for somebody who was not told in time: the same key, the same words."""
    over, standing = state is HealthState.UP, board.find(incident.check_id)
    return Alert(
        key=key_of(incident.check_id, incident.started_at, state),
        check_id=incident.check_id,
        name=incident.name,
        kind=incident.kind,
        company=standing.spec.company if standing is not None else "",
        state=state,
        text=sentence(incident, state, now),
        message=incident.message,
        advice="" if over else incident.advice,
        at=now,
        started_at=incident.started_at,
        ended_at=incident.ended_at if over else None,
        dependents=len(board.descendants(incident.check_id)) if standing is not None else 0,
        simulated=bool(standing and standing.reading and standing.reading.simulated),
        worst=incident.state if over else state,
    )


def _past(at: int | None, now: int) -> int:
    """The time; 0 for none, and for one that a clock wrote which was set back since."""
    return at if at is not None and at <= now else 0
