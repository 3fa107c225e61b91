"""The breakers around what is watched: opened by what health knows for certain, and switched by hand.

Each process has its own, unless Redis shares them, and what the screens show is that of the process that
probes. So who follows asks for it in the database, and waits until the other one has done it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.health import requests
from services.health.board import Board
from services.health.keeping import Keeping
from services.health.model import HealthState
from services.health.requests import Act, Done
from services.resilience import BreakerState, Policies, Policy
from services.security import redact
from services.text import clean_line

if TYPE_CHECKING:
    from services.storage import Database

LOOK_EVERY: Final = 0.2
"""Seconds between two looks whether it was done."""


class Breakers:
    """Closes and opens them. Belongs to one event loop."""

    def __init__(
        self,
        board: Board,
        policies: Policies,
        keeping: Keeping,
        open_database: Callable[[], Awaitable[Database]],
        clock: Clock,
        patience: float,
    ) -> None:
        """`patience`: seconds after which the process that probes counts as not answering."""
        self._board = board
        self._policies = policies
        self._keeping = keeping
        self._open_database = open_database
        self._clock = clock
        self._patience = patience

    async def force(self, check_id: str, act: Act, actor: str) -> None:
        """Close or open the breaker that is shown of a check, and this process's own.

        Raises UsageError where there is none, ServiceError when the process that probes does not do it.
        """
        own, standing = self._own(check_id), self._board.find(check_id)
        told = self._keeping.follows and standing is not None and standing.vitals is not None
        if own is None and not told:
            raise self._none(check_id)
        if told and not (own is not None and own.breaker.view().shared):
            await self._ask(check_id, act, actor)
            if own is not None:
                await _do(own, act)
            return
        assert own is not None  # noqa: S101  # there is one to be switched, here or there
        done = await _do(own, act)
        # It is switched although nobody can write that down.
        with contextlib.suppress(ServiceError):
            database, now = await self._open_database(), self._clock.now()
            await database.write(lambda session: requests.note(session, check_id, act, actor, now, done))

    async def down(self, check_ids: Iterable[str]) -> None:
        """Open the breakers of those of these that are down for certain, without waiting for more failures.

        A check asks what it watches through the same policy as everybody. What failed as often in a row as
        it takes to be down, with no answer to anybody in between (which the breaker has counted), needs no
        further callers to wait for their time-outs; at an interval of 30 s, with nobody calling, the
        breaker's own threshold would take two minutes. Probes that are answered close it again.
        """
        for check_id in check_ids:
            standing, policy = self._board.find(check_id), self._own(check_id)
            if standing is None or policy is None or standing.state is not HealthState.DOWN:
                continue
            view = policy.breaker.view()
            enough = min(standing.failures, standing.spec.failure_threshold)
            if view.state is BreakerState.CLOSED and view.failures >= enough:
                await policy.breaker.trip()

    async def obey(self, database: Database) -> None:
        """Do what other processes asked for. Raises ServiceError when the database cannot be told."""
        asked = self._keeping.take_requests()
        answers = {}
        for request in asked:
            policy = self._own(request.check_id)
            if policy is None:
                answers[request.id] = Done(self._none(request.check_id).message)
                continue
            answers[request.id] = await _do(policy, request.act)
        if answers:
            self._keeping.outdated([request.check_id for request in asked])
            await self._keeping.answer(database, answers)

    async def _ask(self, check_id: str, act: Act, actor: str) -> None:
        """Let the process that probes do it, and wait until it has."""
        database, now = await self._open_database(), self._clock.now()
        number = await database.write(lambda session: requests.ask(session, check_id, act, actor, now))
        ends = self._clock.monotonic() + self._patience
        while True:
            await asyncio.sleep(LOOK_EVERY)
            error = await database.read(lambda session: requests.answer(session, number))
            if error is None and self._keeping.follows and self._clock.monotonic() < ends:
                continue
            if error is None and await database.write(lambda session: requests.withdraw(session, number)):
                if self._keeping.follows:
                    raise self._silent()
                return  # nobody else probes any more: this process's own breaker is all there is
            if error:
                raise ServiceError(error, code="no_breaker")
            return

    def _own(self, check_id: str) -> Policy | None:
        standing = self._board.find(check_id)
        name = standing.spec.policy if standing is not None else ""
        return self._policies.find(name) if name else None

    def _none(self, check_id: str) -> UsageError:
        known = self._board.find(check_id) is not None
        what = self._board.title(check_id) if known else clean_line(check_id)
        return UsageError(
            f"{what} has no breaker in the process that probes",
            advice="only what is called over a network has one, from its first call on",
            code="no_breaker",
        )

    def _silent(self) -> ServiceError:
        return ServiceError(
            f"{self._keeping.prober} probes and did not answer within {self._patience:g} s",
            category=Category.TIMEOUT,
            advice="See whether it still runs; if not, this one takes over soon, then try again",
            code="no_answer",
        )


async def _do(policy: Policy, act: Act) -> Done:
    before, error = policy.breaker.view().state, policy.stats.last_error
    await (policy.breaker.reset() if act is Act.CLOSE else policy.breaker.trip())
    cause = "by hand" if error is None else redact(f"by hand; it failed last with: {error.message}")
    return Done("", before.value, policy.breaker.view().state.value, cause)
