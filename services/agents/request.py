"""What is asked of a sync."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """Which agents, how thoroughly, and for whom. Everything left out means "all of them, if needed"."""

    company: str | None = None
    """Only this company's agents."""
    agent_ids: tuple[int, ...] = ()
    """Only these agents, by mirror id."""
    agent: str | None = None
    """Only this agent: its vendor id, its name, or an unambiguous part of its name."""
    force: bool = False
    """Read every agent in scope, whatever the list says."""
    dry_run: bool = False
    """List and decide, read no details, write nothing."""
    cause: str = "operator"
    actor: str = ""
    resume: str | None = None
    """Go on with this run (its id, or `last`): agents it settled are not read again."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SyncRequest:
        stored = json.loads(text)
        stored["agent_ids"] = tuple(stored.get("agent_ids", ()))
        return cls(**stored)

    @property
    def scope(self) -> str:
        """The scope in words: `all`, a company, an agent, `3 agents`."""
        if self.agent is not None:
            return self.agent
        if self.agent_ids:
            return f"{len(self.agent_ids)} agent" + ("s" if len(self.agent_ids) > 1 else "")
        return self.company or "all"
