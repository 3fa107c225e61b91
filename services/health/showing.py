"""The view of everything, kept ready, and word of what changed in it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from services.clock import Clock
from services.errors import ServiceError
from services.events import EventBus, HealthChanged
from services.health.board import Board
from services.health.model import CheckSpec, CheckView, HealthState, HealthView
from services.health.overall import judge
from services.health.vitals import Vitals
from services.resilience import BreakerState, Budget, Policies

TOGETHER: Final = 0.1
"""Seconds over which changes are gathered into one event."""
MOST_NAMED: Final = 200
"""Beyond so many changed checks the event says "read all again"."""
_TROUBLES: Final = frozenset({HealthState.DOWN, HealthState.DEGRADED})
KEPT: Final = 1.0
"""Seconds for which lines are kept that no view has any more."""
SWEPT: Final = 400
"""Such lines that are let go of at once."""
COUNTDOWN: Final = 0.25
"""Seconds for which a view with an open breaker in it, whose countdown moves, may be shown again."""


class Showing:
    """Makes the view when something in it changed, and hands out the same one until then."""

    def __init__(self, board: Board, policies: Policies, bus: EventBus, clock: Clock) -> None:
        self._board = board
        self._policies = policies
        self._bus = bus
        self._clock = clock
        self._budgets: dict[str, tuple[Budget, ...]] = {}
        self._shown: dict[str, tuple[CheckView, tuple[object, ...], CheckView]] = {}
        """By check: what its line was made of, and the line."""
        self._lines: dict[str, CheckView] = {}
        self._with_policy: dict[str, None] = {}
        """Whose lines change without being drawn up anew: they have a breaker and budgets."""
        self._in_trouble: dict[str, None] = {}
        self._order: Sequence[str] = ()
        self._places: dict[str, int] = {}
        self._checked_at = 0
        self._replaced: deque[CheckView] = deque()
        self._sweeping: asyncio.TimerHandle | None = None
        self._view: HealthView | None = None
        self._made_at = 0.0
        self._moving = False
        self._follows = False
        self._changed: set[str] = set()
        self._all_changed = False
        self._timer: asyncio.TimerHandle | None = None

    def view(self, *, started: bool, prober: str, follows: bool) -> HealthView:
        """Everything as it was last drawn up, with the breakers as they are now.

        `follows`: another process probes; then it is that one's policies that are shown.
        """
        now = self._clock.monotonic()
        view = self._view if follows is self._follows else None
        self._follows = follows
        if view is None or (self._moving and now - self._made_at >= COUNTDOWN):
            view = self._view = self._make()
            self._made_at = now
        if (view.started, view.prober) != (started, prober):
            view = self._view = replace(view, started=started, prober=prober)
        return view

    def _make(self) -> HealthView:
        self._moving = False
        for check_id in list(self._with_policy):
            self._draw(check_id)
        order = self._board.ids
        if order is not self._order:
            self._order, self._places = order, {check_id: place for place, check_id in enumerate(order)}
            for kept in (self._lines, self._shown, self._with_policy, self._in_trouble):
                for check_id in [check_id for check_id in kept if check_id not in self._places]:
                    del kept[check_id]
        lines, places = self._lines, self._places
        # Newcomers are drawn before they have a place.
        placed = sorted(places[check_id] for check_id in self._in_trouble if check_id in places)
        troubles = [lines[order[place]] for place in placed]
        overall, reason = judge(self._board, troubles)
        checks = tuple([lines[check_id] for check_id in order if check_id in lines])
        return HealthView(overall, reason, checks, self._checked_at or None, started=False)

    def _draw(self, check_id: str) -> None:
        """Its line as it is now."""
        view = self._board.view(check_id)
        if view is None:
            return
        old = self._lines.get(check_id)
        line = self._lines[check_id] = self._decorated(view)
        if old is not None and old is not line:
            self._keep_a_while(old)
        if line.policy:
            self._with_policy[check_id] = None
        if line.state in _TROUBLES and not line.held_by:
            self._in_trouble[check_id] = None
        else:
            self._in_trouble.pop(check_id, None)
        self._checked_at = max(self._checked_at, line.checked_at or 0)

    def _keep_a_while(self, line: CheckView) -> None:
        """Keep a line that was replaced until every view with it is gone, and let go of such lines by parts.

        The last view with thousands of old lines would take them all along at once, and that takes long.
        """
        self._replaced.append(line)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(KEPT, self._sweep)

    def _sweep(self) -> None:
        for _ in range(min(SWEPT, len(self._replaced))):
            self._replaced.popleft()
        again = asyncio.get_running_loop().call_later
        self._sweeping = again(TOGETHER / 5, self._sweep) if self._replaced else None

    def _decorated(self, check: CheckView) -> CheckView:
        policy = self._policies.find(check.policy) if check.policy else None
        standing = self._board.find(check.id)
        told = standing.vitals if self._follows and standing is not None else None
        if told is not None:
            now = self._clock.now()
            breaker, budgets, rates = told.breaker_at(now), told.budgets_at(now), told.rates
            if policy is not None:
                own = policy.breaker.view()
                if own.shared:
                    breaker = own
                elif own.state is not BreakerState.CLOSED:
                    rates += (("breaker here", f"{own.state.value.replace('_', ' ')} in this process"),)
        elif policy is not None:
            breaker, budgets, rates = policy.breaker.view(), self._budgets.get(check.id, ()), policy.rates
        else:
            return check
        self._moving = self._moving or breaker.state is not BreakerState.CLOSED
        known = self._shown.get(check.id)
        with_it = (breaker, budgets, rates)
        if known is not None and known[0] is check and known[1] == with_it:
            return known[2]
        made = replace(check, breaker=breaker, budgets=budgets, facts=(*check.facts, *rates))
        self._shown[check.id] = (check, with_it, made)
        return made

    def vitals(self, spec: CheckSpec) -> Vitals | None:
        """What there is to tell of this process's policy around a check."""
        policy = self._policies.find(spec.policy) if spec.policy else None
        if policy is None:
            return None
        budgets = self._budgets.get(spec.id, ())
        return Vitals(self._clock.now(), policy.breaker.view(), budgets, policy.rates)

    async def count_budgets(self, spec: CheckSpec | None) -> None:
        """Look up what is left of the limits around a check."""
        if spec is None or spec.subject is None or not spec.policy:
            return
        policy = self._policies.find(spec.policy)
        if policy is None or policy.limiter is None:
            return
        try:
            budgets = tuple(await policy.limiter.tightest(spec.subject.account))
        except ServiceError:
            return  # the store of the limits is lost, which its own check tells
        if self._budgets.get(spec.id) != budgets:
            self._budgets[spec.id] = budgets
            self._view = None

    def stale(self) -> None:
        """Something that is looked up changed: make the view anew."""
        self._view = None
        self.changed(())

    def changed(self, check_ids: Iterable[str]) -> None:
        """These were drawn up anew (none named: everything may have changed); say so in a moment."""
        found = list(check_ids)
        self._view = None
        for check_id in found:
            self._draw(check_id)
        self._changed.update(found)
        self._all_changed = self._all_changed or not found or len(self._changed) > MOST_NAMED
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER, self.tell)

    def tell(self) -> None:
        """Publish what changed since the last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ids = () if self._all_changed else tuple(sorted(self._changed))
        if self._changed or self._all_changed:
            self._changed.clear()
            self._all_changed = False
            self._bus.publish(HealthChanged(ids))

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._replaced.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
