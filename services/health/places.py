"""What is true of one machine or of one process only: who measures it, and under which name it is kept.

Where the processes that share a database may run on several machines (PostgreSQL), what is true of a machine
carries its name: `system:disk@web-1`, "disk of web-1". A process that follows another one shows what that one
says of its own machine, since connections may hang on it, and measures its own besides. What is true of a
process, whether it can read the keys, every process measures for itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from dataclasses import replace
from typing import Final

from services.errors import ServiceError
from services.health.board import Board
from services.health.model import CheckSpec, HealthState, Local, Reading
from services.health.plan import Plan

SECRETS: Final = "system:secrets"
HERE: Final = "/here"
"""Behind the id of what a process that follows another one says of itself."""
LOOK_SECONDS: Final = 5.0


def at(check_id: str, host: str) -> str:
    """The id of a check of one machine; without a host there is only one machine."""
    return f"{check_id}@{host}" if host else check_id


def owner_name() -> str:
    """A name for this process that says where it runs."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


def host_of(owner: str) -> str:
    """On which machine the process with this name runs."""
    return owner.partition(":")[0]


def who(owner: str, me: str) -> str:
    """Who probes, for people."""
    if not owner:
        return ""
    if owner == me:
        return "this process"
    host, _, rest = owner.partition(":")
    return f"another process ({host}, {rest.partition(':')[0]})" if rest else f"another process ({host})"


def seen_from(plan: Plan, host: str, prober: str | None) -> Plan:
    """What is watched, as a process on the machine `host` sees it (empty: all share one machine).

    `prober`: on which machine the process runs that it follows; None when it follows nobody.
    """
    local = {spec.id for spec in plan.unruled if spec.local is not None}
    follows, there = prober is not None, host if prober is None else prober
    if not local or not (host or follows):
        return plan

    def known(check_id: str) -> str:
        return at(check_id, there) if check_id in local else check_id

    def change(spec: CheckSpec) -> list[CheckSpec]:
        if not host or local.isdisjoint(spec.depends_on):
            depends_on = spec.depends_on
        else:
            depends_on = tuple(known(each) for each in spec.depends_on)
        if spec.local is None:
            return [spec if depends_on is spec.depends_on else replace(spec, depends_on=depends_on)]
        own = there == host if spec.local is Local.MACHINE else not follows
        found = replace(spec, id=known(spec.id), depends_on=depends_on, elsewhere=not own)
        found = replace(found, name=f"{spec.name} of {there}" if there else spec.name)
        if own:
            # On one machine the process that probes does so for all.
            return [replace(found, local=None) if follows else found]
        here = at(spec.id, host) + (HERE if spec.local is Local.PROCESS else "")
        name = "this process" if spec.local is Local.PROCESS else host
        # Nothing that the other process reads hangs on it, so not everything is lost with it.
        mine = replace(spec, id=here, name=f"{spec.name} of {name}", depends_on=(), critical=False)
        return [found, mine]

    return plan.changed(change)


class Keys:
    """Whether this process can read the keys: one that cannot should not be the one that probes."""

    def __init__(self, board: Board, host: str) -> None:
        self._board = board
        self._host = host
        self._known = False
        self._vacant = False
        self._leader: str | None = None
        self._leader_since = 0
        self.locked = False

    async def look(self, plan: Plan) -> None:
        """Look whether it can, unless its check said so before."""
        spec = self._own(plan)
        if spec is None or (self._known and not self.locked):
            return
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                reading = await spec.probe()
        except (ServiceError, TimeoutError):
            self.locked = True
        else:
            self.found(spec.id, reading)

    def _own(self, plan: Plan) -> CheckSpec | None:
        check_id = at(SECRETS, self._host)
        return plan.spec(check_id + HERE) or plan.spec(check_id)

    def found(self, check_id: str, reading: Reading) -> None:
        """Take in what a check of this process found."""
        if check_id.startswith(SECRETS):
            self._known, self.locked = True, reading.state is HealthState.DOWN

    def lead(self, *, lasting: bool) -> bool:
        """Whether it may be the one that probes, if nobody is.

        Without the keys only if it goes on (`lasting`) and nobody with keys took the place meanwhile.
        """
        return not self.locked or (lasting and self._vacant)

    def seen(self, leader: str, now: int) -> None:
        """Who probes now; empty: nobody does."""
        self._vacant = not leader
        if leader != self._leader:
            self._leader_since = 0 if self._leader is None else now
            self._leader = leader

    def helpless(self) -> str:
        """The one that probes, if it has no keys where this process has them; else empty."""
        leader = self._leader or ""
        standing = self._board.find(at(SECRETS, host_of(leader) if self._host else ""))
        if self.locked or not self._known or standing is None or not standing.spec.elsewhere:
            return ""
        reading = standing.reading
        # What the one before it left behind says nothing of this one.
        fresh = (standing.checked_at or 0) >= self._leader_since
        return leader if fresh and reading is not None and reading.state is HealthState.DOWN else ""

    def blind(self, check_id: str) -> bool:
        """Whether what was found of a check is nobody else's truth: it takes a key that is missing here."""
        if not self.locked:
            return False
        return any(each.startswith(SECRETS) for each in self._board.ancestors(check_id))
