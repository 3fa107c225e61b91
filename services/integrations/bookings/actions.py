"""Orders at partners that are no booking: other actions and cancellations, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.errors import UsageError
from services.integrations.bookings.model import Action
from services.integrations.bookings.rows import EFFECT
from services.integrations.effects import Deed, EffectRow, Effects, EffectState
from services.text import clean_line


class Actions:
    """The stored effects below `booking`. Methods raise UsageError for what is not there."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    async def list(
        self,
        company_id: int | None = None,
        *,
        state: EffectState | None = None,
        beginning: str = "",
        limit: int = 50,
    ) -> Sequence[Action]:
        """The newest first. `beginning`: only those whose id begins so."""
        rows = await self._effects.recent(
            f"{EFFECT}.", company_id=company_id, state=state, beginning=beginning, limit=limit
        )
        return [_action(row) for row in rows]

    async def get(self, action_id: str) -> Action:
        """One by its id or the unique beginning of it."""
        wanted = action_id.strip().lower()
        found = await self.list(beginning=wanted, limit=2) if wanted else []
        if len(found) != 1:
            what = "Several actions begin" if found else "There is no action that begins"
            raise UsageError(
                f"{what} with {clean_line(action_id)!r}",
                advice="List them: callboard booking list --actions",
                code="unknown_action",
            )
        return found[0]

    async def settle(
        self, action_id: str, *, done: bool, provider_id: str = "", cause: str = "", actor: str = ""
    ) -> Action:
        """Decide, after a look at the partner's, whether it was done. Raises UsageError for a decided one."""
        action = await self.get(action_id)
        deed = Deed(provider_id or action.provider_id, action.result) if done else None
        row = await self._effects.settle(
            action.id,
            EffectState.DONE if done else EffectState.FAILED,
            cause=cause or "looked it up at the partner's",
            actor=actor,
            deed=deed,
        )
        return replace(_action(row), company=action.company)

    async def settle_cancellation(self, booking_id: str, *, cause: str, actor: str) -> None:
        """The booking is cancelled: so is what was ordered to cancel it and never answered."""
        for row in await self._effects.recent(f"{EFFECT}.cancel", limit=200):
            is_open = row.state in (EffectState.INTENDED, EffectState.UNKNOWN)
            if is_open and row.key.startswith(f"cancel/{booking_id}/"):
                await self._effects.settle(
                    row.id,
                    EffectState.DONE,
                    cause=cause,
                    actor=actor,
                    deed=Deed(row.provider_id, {"state": "cancelled"}),
                )


def _action(row: EffectRow) -> Action:
    undecided = row.state in (EffectState.FAILED, EffectState.UNKNOWN)
    return Action(
        row.id,
        row.company,
        row.target,
        row.kind.partition(".")[2],
        row.state,
        row.provider_id,
        row.integration,
        row.simulated,
        row.result,
        row.error if undecided else None,
        row.created_at,
        row.updated_at,
    )
